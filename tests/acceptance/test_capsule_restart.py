"""Capsules over the end of everything else: `askos down`, a machine without power, `kill -9`. On real containers."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.acceptance.capsule_fixtures import Pod, container, pod
from tests.acceptance.cloud_fixtures import Cloud, eventually, nothing_remains
from tests.acceptance.restart_fixtures import kill, reboot

NewCloud = Callable[[], Cloud]
LIVES = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"
DEBUG = ("--log-level", "debug")


def every(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in [*status.get("initContainerStatuses", []), *status["containerStatuses"]]}


def counts(status: dict[str, Any]) -> dict[str, int]:
    return {name: c["restartCount"] for name, c in every(status).items()}


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["lastTransitionTime"]) for c in status["conditions"]}


def is_ready(status: dict[str, Any]) -> bool:
    return conditions(status).get("Ready", ("False", ""))[0] == "True"


def is_waiting(status: dict[str, Any], name: str = "main") -> str:
    return str(every(status)[name]["state"].get("waiting", {}).get("reason", ""))


def rich(claim: str) -> dict[str, Any]:
    """A capsule with every kind of volume; each start of each container leaves a line where it can."""
    kinds = ("disk", "ram", "conf", "secret", "claim")
    mounts = [{"name": kind, "mountPath": f"/{kind}"} for kind in kinds]
    mounts.append({"name": "claim", "mountPath": "/part", "subPath": "a/part"})
    mark = "for d in /disk /ram /claim /part; do echo $HOSTNAME >> $d/$NAME; done; cat /conf/k /secret/k; echo; "

    def marking(name: str, then: str, **more: Any) -> dict[str, Any]:
        return container(name, mark + then, volumeMounts=mounts, env=[{"name": "NAME", "value": name}], **more)

    check = {"exec": {"command": ["test", "-e", "/ram/main"]}, "periodSeconds": 1, "timeoutSeconds": 30}
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "echo hook >> /disk/hook"]}}}
    body = pod(
        marking("main", LIVES, readinessProbe=check, lifecycle=hook),
        marking("other", LIVES),
        initContainers=[marking("init", "true"), marking("side", LIVES, restartPolicy="Always")],
        securityContext={"fsGroup": 4242},
        volumes=[
            {"name": "disk", "emptyDir": {}},
            {"name": "ram", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "conf", "configMap": {"name": "c"}},
            {"name": "secret", "secret": {"secretName": "s"}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": claim}},
        ],
    )
    body["content"] = {"configMaps": {"c": {"data": {"k": "conf"}}}, "secrets": {"s": {"stringData": {"k": "secret"}}}}
    return body


def started(made: Pod, folder: str, name: str) -> int:
    return len(made.inside(f"cat {folder}/{name}").splitlines())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("end", ["down", "reboot"])
def test_a_host_that_comes_back_runs_its_capsules_anew(new_cloud: Callable[[], Cloud], end: str) -> None:
    cloud = new_cloud()
    cloud.up(*DEBUG)
    assert cloud.api("POST", "/askos/v1/volumes", {"name": "data", "size_gib": 1}).status == 201
    full = Pod.create(cloud, rich("data")).ready()
    done = Pod.create(cloud, pod(container("main", "echo done"), restartPolicy="OnFailure"))
    failed = Pod.create(cloud, pod(container("main", "echo failed; exit 3"), restartPolicy="Never"))
    never = Pod.create(cloud, pod(container("main", "exec sleep 1000"), restartPolicy="Never"))
    # Deaf, so that it has failed when it is over.
    again = Pod.create(cloud, pod(container("main", "trap '' TERM; sleep 1000; true"), restartPolicy="OnFailure"))
    crashing = Pod.create(cloud, pod(container("main", "sleep 0.1; exit 1")))
    limited = Pod.create(cloud, pod(activeDeadlineSeconds=45))
    done.phase("Succeeded")
    failed.phase("Failed")
    for each in (never, again, limited):
        each.ready()
    crashing.until(lambda s: is_waiting(s) == "CrashLoopBackOff", "it backs off")
    pods = {"full": full, "done": done, "failed": failed, "never": never, "again": again, "crashing": crashing}
    before = {name: each.status for name, each in pods.items()}
    began = limited.status["startTime"]
    # Times are whole seconds: what changes from here on can be told.
    time.sleep(1.1)
    for number in (1, 2):
        if end == "down":
            cloud.down()
        else:
            reboot(cloud)
        nothing_remains(cloud)
        assert (cloud.data / "capsules" / full.id).is_dir()
        cloud.up(*DEBUG)

        def anew(status: dict[str, Any], number: int = number) -> bool:
            return is_ready(status) and set(counts(status).values()) == {number}

        after = full.until(anew, "everything runs anew")
        assert every(after)["init"]["state"]["terminated"]["exitCode"] == 0
        for name in ("main", "other", "side"):
            assert "terminated" in every(after)[name]["lastState"], after
        old, new = conditions(before["full"]), conditions(after)
        assert new["PodScheduled"] == old["PodScheduled"]
        assert new["Ready"][1] > old["Ready"][1]
        assert after["startTime"] == before["full"]["startTime"]
        assert after["podIP"] == before["full"]["podIP"]
        for folder in ("/disk", "/claim", "/part"):
            for name in ("init", "side", "main", "other"):
                assert started(full, folder, name) == number + 1, f"{folder}/{name}"
        assert started(full, "/ram", "main") == 1
        assert started(full, "/disk", "hook") == number + 1
        assert "confsecret" in full.logs("main") and "confsecret" in full.logs("main", "&previous=true")

        # What was over is over, and shows the same.
        for name in ("done", "failed"):
            assert pods[name].status == before[name]
            assert pods[name].logs() == f"{name}\n"
        status = never.phase("Failed")
        assert counts(status) == {"main": 0} and "terminated" in status["containerStatuses"][0]["state"]
        again.until(lambda s, n=number: is_ready(s) and counts(s) == {"main": n}, "it runs again")  # type: ignore[misc]
        assert counts(crashing.status)["main"] >= counts(before["crashing"])["main"]
        assert limited.status["startTime"] == began
    crashing.until(lambda s: counts(s)["main"] > counts(before["crashing"])["main"], "it is tried again")
    status = limited.until(lambda s: s.get("reason") == "DeadlineExceeded" and s["phase"] == "Failed", "over")
    assert status["startTime"] == began
    for each in (*pods.values(), limited):
        each.delete(1)
    for each in (*pods.values(), limited):
        each.gone()
    assert list((cloud.data / "capsules").iterdir()) == []
    volume = cloud.api("GET", "/askos/v1/volumes").json()["volumes"][0]
    assert volume["status"] == "available"


@pytest.mark.timeout(600)
def test_a_delete_waits_for_the_host_to_come_back(new_cloud: Callable[[], Cloud]) -> None:
    """Asked for in the last moment, it is done by the next start, from all that is left on disk."""
    cloud = new_cloud()
    for end in (Cloud.down, reboot):
        cloud.up(*DEBUG)
        if not cloud.api("GET", "/askos/v1/volumes").json()["volumes"]:
            assert cloud.api("POST", "/askos/v1/volumes", {"name": "data", "size_gib": 1}).status == 201
        body = rich("data")
        body["spec"]["containers"][0]["command"] = ["sh", "-c", "touch /ram/main; trap '' TERM; sleep 1000; true"]
        made = Pod.create(cloud, body | {"spec": body["spec"] | {"terminationGracePeriodSeconds": 60}}).ready()
        made.delete()
        end(cloud)
        cloud.up(*DEBUG)
        made.gone()
        assert list((cloud.data / "capsules").iterdir()) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", ["askos", "containerd", "both"])
def test_capsules_do_not_notice_that_others_are_killed(new_cloud: Callable[[], Cloud], victim: str) -> None:
    cloud = new_cloud()
    cloud.up(*DEBUG)
    assert cloud.api("POST", "/askos/v1/volumes", {"name": "data", "size_gib": 1}).status == 201
    full = Pod.create(cloud, rich("data")).ready()
    unready = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    waits = Pod.create(cloud, pod(container(readinessProbe=unready)))
    waits.until(lambda s: s["phase"] == "Running", "it runs")
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "echo hook >> /hook; sleep 1000"]}}}
    hooked = Pod.create(cloud, pod(container("main", lifecycle=hook)))
    done = Pod.create(cloud, pod(container("main", "echo done"), restartPolicy="OnFailure"))
    done.phase("Succeeded")
    limited = Pod.create(cloud, pod(activeDeadlineSeconds=25)).ready()
    crashing = Pod.create(cloud, pod(container("main", "exit 1")))

    def paused(status: dict[str, Any]) -> bool:
        return counts(status)["main"] >= 2 and is_waiting(status) == "CrashLoopBackOff"

    pause = crashing.until(paused, "it backs off for the second time")
    paused_at = datetime.fromisoformat(every(pause)["main"]["lastState"]["terminated"]["finishedAt"])
    # Times are whole seconds: what changes from here on can be told.
    time.sleep(1.1)
    pods = {"full": full, "waits": waits, "done": done}
    before = {name: each.status for name, each in pods.items()}
    for _ in range(2):
        kill(cloud, victim)
        if victim != "containerd":
            cloud.up(*DEBUG)
        # What goes on is seen at work, so the agent is back.
        kept = Pod.create(cloud, pod()).ready()
        kept.delete(0)
        for name, each in pods.items():
            assert each.status == before[name], name
        main, had = every(crashing.status)["main"], every(pause)["main"]
        if main["restartCount"] == had["restartCount"]:
            assert main["state"] == had["state"], "its pause began anew"
            assert main["lastState"] == had["lastState"]
        else:
            # On a busy machine all this takes longer than the pause, which is 20 s by now.
            state = main["state"]
            life = state.get("running") or state.get("terminated") or main["lastState"]["terminated"]
            begun = datetime.fromisoformat(life["startedAt"])
            assert begun - paused_at >= timedelta(seconds=20), "its pause was not kept"
        assert started(full, "/disk", "hook") == 1 and started(full, "/ram", "main") == 1
        assert counts(hooked.status) == {"main": 0}
    limited.until(lambda s: s.get("reason") == "DeadlineExceeded" and s["phase"] == "Failed", "it is over")
    for each in (full, waits, hooked, done, limited, crashing):
        each.delete(1)
    for each in (full, waits, hooked, done, limited, crashing):
        each.gone()
    eventually(lambda: list((cloud.data / "capsules").iterdir()) == [], "nothing is left on disk")
