"""How a capsule lives and dies: order, restarts, hooks, deadlines, deletion. On real containers."""

from __future__ import annotations

import time
from typing import Any

from tests.acceptance.capsule_fixtures import Pod, container, pod
from tests.acceptance.cloud_fixtures import Cloud, eventually

DEAF = "trap '' TERM; echo ready; while :; do sleep 1; done"
PATIENT = {"terminationGracePeriodSeconds": 60}
"""For who is to end by himself when he is asked to, however busy the machine is."""


def ended(status: dict[str, Any], name: str = "main") -> dict[str, Any]:
    every = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
    return dict(next(c for c in every if c["name"] == name)["state"]["terminated"])


# -- order ---------------------------------------------------------------------------------------------------------


def test_init_containers_run_in_order_and_share_what_they_make(cloud: Cloud) -> None:
    mount = [{"name": "shared", "mountPath": "/shared"}]
    body = pod(
        container("main", "cat /shared/order; exec sleep 1000", volumeMounts=mount),
        initContainers=[
            container("one", "sleep 0.5; echo one >> /shared/order", volumeMounts=mount),
            container("two", "echo two >> /shared/order", volumeMounts=mount),
        ],
        volumes=[{"name": "shared", "emptyDir": {}}],
    )
    made = Pod.create(cloud, body).ready()
    made.says("one\ntwo\n")
    status = made.status
    assert [ended(status, name)["reason"] for name in ("one", "two")] == ["Completed", "Completed"]
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "PodScheduled": "True",
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "ContainersReady": "True",
        "Ready": "True",
    }


def test_an_init_container_that_fails_with_never_fails_the_capsule(cloud: Cloud) -> None:
    body = pod(initContainers=[container("init", "exit 4")], restartPolicy="Never")
    status = Pod.create(cloud, body).phase("Failed")
    assert ended(status, "init")["exitCode"] == 4
    assert "waiting" in status["containerStatuses"][0]["state"]


def test_a_sidecar_starts_before_and_stops_after_the_others(cloud: Cloud) -> None:
    volume = cloud.api("POST", "/askos/v1/volumes", {"name": "order", "size_gib": 1}).json()["id"]
    mounts = [{"name": "kept", "mountPath": "/kept"}]
    volumes = [{"name": "kept", "persistentVolumeClaim": {"claimName": "order"}}]

    def notes(name: str) -> str:
        return (
            f"trap 'echo {name} down >> /kept/order; exit 0' TERM; echo {name} up >> /kept/order; echo up; "
            "while :; do sleep 0.1; done"
        )

    body = pod(
        container("main", notes("main"), volumeMounts=mounts),
        initContainers=[
            container(name, notes(name), restartPolicy="Always", volumeMounts=mounts) for name in ("side", "late")
        ],
        volumes=volumes,
        **PATIENT,
    )
    made = Pod.create(cloud, body).ready()
    started = [c["state"]["running"]["startedAt"] for c in made.status["initContainerStatuses"]]
    assert started == sorted(started)
    for name in ("main", "side", "late"):
        made.says("up", name)
    made.delete()
    made.gone()
    # What stopped last cannot be asked any more: they have written down when it was whose turn.
    after = Pod.create(
        cloud, pod(container("main", "cat /kept/order; exec sleep 1000", volumeMounts=mounts), volumes=volumes)
    )
    after.says("main down\nlate down\nside down\n")
    # Who starts is not waited for: only that it was started counts, and that stands above.
    assert sorted(after.logs().splitlines()[:3]) == ["late up", "main up", "side up"]
    after.delete(0)
    after.gone()
    eventually(lambda: cloud.api("DELETE", f"/askos/v1/volumes/{volume}").status in (202, 404), "the volume can go")


def test_a_sidecar_does_not_hold_a_job_open(cloud: Cloud) -> None:
    body = pod(
        container("main", "exit 0"),
        initContainers=[container("side", restartPolicy="Always")],
        restartPolicy="Never",
    )
    made = Pod.create(cloud, body)
    made.phase("Succeeded")
    made.until(lambda s: "terminated" in s["initContainerStatuses"][0]["state"], "the sidecar has ended")


# -- restarts ------------------------------------------------------------------------------------------------------


def test_restart_policies(cloud: Cloud) -> None:
    def make(code: int, policy: str) -> Pod:
        return Pod.create(cloud, pod(container("main", f"echo run; exit {code}"), restartPolicy=policy))

    never_ok, never_bad = make(0, "Never"), make(3, "Never")
    failure_ok, failure_bad, always = make(0, "OnFailure"), make(3, "OnFailure"), make(0, "Always")
    status = never_bad.phase("Failed")
    assert (ended(status)["exitCode"], ended(status)["reason"]) == (3, "Error")
    assert ended(never_ok.phase("Succeeded"))["reason"] == "Completed"
    failure_ok.phase("Succeeded")

    def backing_off(status: dict[str, Any]) -> bool:
        main = status["containerStatuses"][0]
        return bool(main["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff")

    for each, code in ((failure_bad, 3), (always, 0)):
        status = each.until(backing_off, "it backs off")
        assert status["phase"] == "Running"
        assert status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == code
    each = failure_bad
    status = each.until(lambda s: s["containerStatuses"][0]["restartCount"] >= 2, "it was restarted twice")
    assert each.logs(query="&previous=true") == "run\n"
    each.event("BackOff")


def test_signals_and_memory_show(cloud: Cloud) -> None:
    hog = "tail /dev/zero"
    # As pid 1 of a namespace of its own, it could not kill itself.
    suicide = pod(container("main", "kill -9 $$$$"), restartPolicy="Never", shareProcessNamespace=True)
    killed = Pod.create(cloud, suicide)
    eater = Pod.create(
        cloud, pod(container("main", hog, resources={"limits": {"memory": "16Mi"}}), restartPolicy="Never")
    )
    end = ended(killed.phase("Failed"))
    assert (end["exitCode"], end.get("signal"), end["reason"]) == (137, 9, "Error"), end
    end = ended(eater.phase("Failed"))
    assert (end["reason"], end["exitCode"]) == ("OOMKilled", 137)


def test_termination_messages(cloud: Cloud) -> None:
    fallback = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    body = pod(
        container("file", "echo -n because > /dev/termination-log; exit 1"),
        container("custom", "echo -n mine > /tmp/why; exit 1", terminationMessagePath="/tmp/why"),
        container("log", "echo last words; exit 1", **fallback),
        container("fine", "echo all is well; exit 0", **fallback),
        container("long", "head -c 9000 /dev/zero | tr '\\0' x > /dev/termination-log; exit 1"),
        restartPolicy="Never",
    )
    status = Pod.create(cloud, body).phase("Failed")
    assert ended(status, "file")["message"] == "because"
    assert ended(status, "custom")["message"] == "mine"
    assert ended(status, "log")["message"] == "last words\n"
    assert not ended(status, "fine").get("message")
    assert set(ended(status, "long")["message"]) == {"x"}
    assert len(ended(status, "long")["message"]) <= 4096


def test_a_deadline_ends_it(cloud: Cloud) -> None:
    made = Pod.create(cloud, pod()).ready()
    # Given when there is something to end, and over by then or soon.
    assert made.api("PATCH", "", {"spec": {"activeDeadlineSeconds": 2}}).status == 200
    status = made.phase("Failed")
    assert status["reason"] == "DeadlineExceeded"
    assert "waiting" not in status["containerStatuses"][0]["state"]


# -- hooks and deletion --------------------------------------------------------------------------------------------


def test_hooks_run_around_a_life(cloud: Cloud) -> None:
    mount = [{"name": "shared", "mountPath": "/shared"}]
    until_up = "until [ -e /shared/up ]; do sleep 0.1; done"
    lifecycle = {
        # Only when the container's own trap is set.
        "postStart": {"exec": {"command": ["sh", "-c", f"{until_up}; echo post >> /shared/log"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo pre >> /shared/log"]}},
    }
    script = "trap 'echo term >> /shared/log; exit 0' TERM; touch /shared/up; while :; do sleep 0.1; done"
    witness = "trap '' TERM; tail -F /shared/log & wait; wait; while :; do sleep 0.1; done"
    body = pod(
        container("main", script, volumeMounts=mount, lifecycle=lifecycle),
        container("witness", witness, volumeMounts=mount),
        volumes=[{"name": "shared", "emptyDir": {}}], terminationGracePeriodSeconds=600,
    )  # fmt: skip
    made = Pod.create(cloud, body).ready()
    made.says("post", "witness")
    made.delete()
    made.says("pre\nterm\n", "witness")
    made.delete(0)
    made.gone()


def test_a_post_start_hook_that_fails_kills_the_container(cloud: Cloud) -> None:
    # It fails when the trap is set: before, the signal would find a program that has another way to end.
    fails = "until [ -e /ready ]; do sleep 0.1; done; echo no >&2; exit 1"
    lifecycle = {"postStart": {"exec": {"command": ["sh", "-c", fails]}}}
    script = "trap 'exit 7' TERM; touch /ready; while :; do sleep 0.1; done"
    made = Pod.create(cloud, pod(container("main", script, lifecycle=lifecycle), restartPolicy="Never", **PATIENT))
    assert "no" in made.event("FailedPostStartHook")["message"]
    assert ended(made.phase("Failed"))["exitCode"] == 7


def test_delete_asks_first_and_kills_after_the_grace(cloud: Cloud) -> None:
    made = Pod.create(cloud, pod(container("main", DEAF), terminationGracePeriodSeconds=5)).ready()
    made.says("ready")
    begun = time.monotonic()
    made.delete()
    shown = made.show()
    assert shown["metadata"]["deletionTimestamp"]
    assert shown["metadata"]["deletionGracePeriodSeconds"] == 5
    made.gone()
    assert time.monotonic() - begun >= 4.5


def test_a_later_delete_shortens_the_grace(cloud: Cloud) -> None:
    made = Pod.create(cloud, pod(container("main", DEAF), terminationGracePeriodSeconds=600)).ready()
    made.says("ready")
    made.delete()
    time.sleep(0.5)
    assert made.api("GET").status == 200
    made.delete(0)
    made.gone()


def test_the_stop_signal_can_be_chosen(cloud: Cloud) -> None:
    script = (
        "trap 'echo usr1 > /dev/termination-log; exit 0' USR1; trap '' TERM; echo ready; while :; do sleep 0.1; done"
    )
    made = Pod.create(cloud, pod(container("main", script, lifecycle={"stopSignal": "SIGUSR1"}), **PATIENT))
    made.says("ready")
    revision = made.show()["metadata"]["resourceVersion"]
    made.delete()
    made.gone()
    assert ended(made.last(revision))["message"] == "usr1\n"


def test_delete_while_it_is_being_made(cloud: Cloud) -> None:
    many = [Pod.create(cloud, pod(container("a"), container("b"))) for _ in range(5)]
    for each in many:
        each.delete()
    for each in many:
        each.gone()
