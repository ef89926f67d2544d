"""What somebody does to a container behind Askos' back, and what is remembered of one when Askos is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess

from tests.acceptance.cloud_fixtures import Cloud, eventually

BEGINS = ("sh", "-c", "echo begun; exec sleep 100000")


def ctr(cloud: Cloud, *words: str, may_fail: bool = False) -> str:
    """containerd's own tool; returns what it prints."""
    argv = ("ctr", "-a", str(cloud.data / "run/containerd/c.sock"), "-n", "k8s.io", *words)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert may_fail or done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def in_containerd(cloud: Cloud, uuid: str) -> list[str]:
    """containerd's ids of the containers of one of ours, its sandbox left out."""
    wanted = (f'labels."askos.io/capsule"=={uuid}', 'labels."io.cri-containerd.kind"==container')
    return ctr(cloud, "containers", "ls", "-q", ",".join(wanted)).split()


def remove(cloud: Cloud, uuid: str) -> None:
    """Kill its process and remove it, with its files, by containerd's own API."""
    (ident,) = in_containerd(cloud, uuid)
    pids = [line.split()[1] for line in ctr(cloud, "tasks", "ls").splitlines() if line.startswith(ident)]
    ctr(cloud, "tasks", "kill", "--signal", "KILL", ident)
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "its process has ended")

    def removed() -> bool:
        if ident in ctr(cloud, "tasks", "ls", "-q").split():
            return False
        # It fails when somebody else has just removed it.
        ctr(cloud, "containers", "rm", ident, may_fail=True)
        return ident not in in_containerd(cloud, uuid)

    eventually(removed, "it is removed")


def test_who_is_to_be_healed_is_made_again_when_somebody_removed_it(cloud: Cloud) -> None:
    healed = cloud.running(BEGINS, name="healed", auto_heal=True)
    plain = cloud.running(BEGINS, name="plain")
    before = in_containerd(cloud, healed)
    for uuid in (healed, plain):
        eventually(lambda uuid=uuid: "begun" in cloud.logs(uuid), "it has begun")  # type: ignore[misc]
        assert cloud.inside(uuid, "touch /made")[0] == 0
        address = cloud.show(healed)["addresses"]
        remove(cloud, uuid)
    eventually(lambda: set(in_containerd(cloud, healed)) - set(before), "another container is there")
    cloud.wait_for(healed, "Running")
    assert cloud.inside(healed, "ls /made")[0] != 0, "its files went with the container"
    assert cloud.show(healed)["addresses"] == address
    eventually(lambda: cloud.logs(healed).split()[-1:] == ["begun"], "it has begun again")
    # Who is not to be healed is not, and its owner can see so and start it.
    assert cloud.show(plain)["status"] in ("Stopped", "Error")
    assert in_containerd(cloud, plain) == []
    told = cloud.api("GET", f"/v1/containers/{healed}/container_actions").json()["containerActions"]
    assert [(a["action"], a["message"]) for a in told] == [("create", None)], json.dumps(told)
    cloud.askos("start", "plain")
    cloud.wait_for(plain, "Running")
    assert cloud.inside(plain, "ls /made")[0] != 0


def test_restarts_are_counted_on_when_askos_was_killed(cloud: Cloud) -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 4}
    uuid = cloud.create(("sh", "-c", "echo run; exit 3"), restart_policy=policy)
    eventually(lambda: cloud.logs(uuid).split().count("run") >= 2, "it has run twice")
    pid = cloud.pid()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "askos has ended")
    cloud.up()
    found = cloud.wait_for(uuid, "Stopped")
    assert found["status_detail"].startswith("Exited(3) ")
    assert cloud.logs(uuid).split().count("run") == 5, "one start and four retries"
