"""What becomes of containers: by their own end, by their owner's wish, and when Askos itself goes and comes."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable

import pytest
from tests.acceptance.cloud_fixtures import LIVES, Cloud, eventually

DEAF = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
FAILS = ("sh", "-c", "echo run; exit 3")


def runs(cloud: Cloud, uuid: str) -> int:
    return cloud.logs(uuid).count("run")


def ready(cloud: Cloud, uuid: str) -> None:
    """Its traps are set."""
    eventually(lambda: "ready" in cloud.logs(uuid), "the container is ready")


def processes(cloud: Cloud, mark: str) -> dict[int, str]:
    """Those of a container that runs: for a moment after its start it is still the runtime's own program, without its
    variables."""
    return eventually(lambda: cloud.processes(mark), "its program runs")


def post(cloud: Cloud, uuid: str, action: str) -> None:
    answer = cloud.api("POST", f"/v1/containers/{uuid}/{action}")
    assert answer.status == 202, answer


def gone(cloud: Cloud, uuid: str) -> None:
    eventually(lambda: cloud.api("GET", f"/v1/containers/{uuid}").status == 404, f"{uuid} is gone")


# -- by its own end ------------------------------------------------------------------------------------------------


def test_without_a_policy_it_runs_once(cloud: Cloud) -> None:
    uuid = cloud.create(FAILS)
    found = cloud.wait_for(uuid, "Stopped")
    assert found["status_detail"].startswith("Exited(3) ")
    assert found["restart_policy"] in ({}, {"Name": "no", "MaximumRetryCount": "0"})
    assert runs(cloud, uuid) == 1


def test_always_restarts_whatever_the_end(cloud: Cloud) -> None:
    uuid = cloud.create(("sh", "-c", "echo run; exit 0"), restart_policy={"Name": "always"})
    eventually(lambda: runs(cloud, uuid) >= 3, "it has run three times")
    # However often it ends, its owner can stop it.
    post(cloud, uuid, "stop?timeout=0")
    cloud.wait_for(uuid, "Stopped")
    count = runs(cloud, uuid)
    another = cloud.create(("true",))
    cloud.wait_for(another, "Stopped")
    assert runs(cloud, uuid) == count


def test_on_failure_gives_up(cloud: Cloud) -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 2}
    failing, fine = cloud.create(FAILS, restart_policy=policy), cloud.create(("echo", "run"), restart_policy=policy)
    eventually(lambda: runs(cloud, failing) == 3, "one start and two retries")
    assert cloud.wait_for(failing, "Stopped")["status_detail"].startswith("Exited(3) ")
    assert cloud.wait_for(fine, "Stopped")["status_detail"].startswith("Exited(0) ")
    assert (runs(cloud, failing), runs(cloud, fine)) == (3, 1)


def test_unless_stopped_survives_a_murder(cloud: Cloud) -> None:
    mark = secrets.token_hex(8)
    uuid = cloud.running(("sleep", "100000"), environment={"MARK": mark}, restart_policy={"Name": "unless-stopped"})
    before = processes(cloud, mark)
    (pid,) = before
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: cloud.processes(mark).keys() - before, "another process runs")
    cloud.wait_for(uuid, "Running")
    post(cloud, uuid, "stop?timeout=0")
    cloud.wait_for(uuid, "Stopped")
    assert not cloud.processes(mark)


def test_auto_remove(cloud: Cloud) -> None:
    uuid = cloud.create(("true",), auto_remove=True)
    gone(cloud, uuid)


def test_out_of_memory_is_told(cloud: Cloud) -> None:
    uuid = cloud.create(("sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done"), memory=16)
    found = cloud.wait_for(uuid, "Stopped")
    assert found["status_detail"].startswith("Exited(137) ")
    assert "memory" in (found["status_reason"] or "").lower()


# -- by its owner's wish -------------------------------------------------------------------------------------------


def test_stop_asks_first(cloud: Cloud) -> None:
    uuid = cloud.running(("sh", "-c", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 1 & wait $!; done"))
    ready(cloud, uuid)
    post(cloud, uuid, "stop")
    assert cloud.wait_for(uuid, "Stopped")["status_detail"].startswith("Exited(5) ")
    assert "bye" in cloud.logs(uuid)


def test_stop_insists_when_the_time_is_over(cloud: Cloud) -> None:
    uuid = cloud.running(DEAF)
    ready(cloud, uuid)
    post(cloud, uuid, "stop?timeout=1")
    assert cloud.wait_for(uuid, "Stopped")["status_detail"].startswith("Exited(137) ")


def test_reboot_is_another_process_with_the_same_files(cloud: Cloud) -> None:
    mark = secrets.token_hex(8)
    uuid = cloud.running(("sleep", "100000"), environment={"MARK": mark})
    before, first = processes(cloud, mark), cloud.show(uuid)
    assert cloud.inside(uuid, "echo here > /file")[0] == 0
    answer = cloud.api("POST", f"/v1/containers/{uuid}/reboot?timeout=0")
    assert answer.status == 202
    cloud.wait_for(uuid, "Running")
    after = eventually(lambda: cloud.processes(mark), "it runs again")
    assert len(after) == 1
    assert not before.items() & after.items()
    assert cloud.inside(uuid, "cat /file") == (0, "here\n")
    assert cloud.show(uuid)["addresses"] == first["addresses"]
    cloud.api("POST", f"/v1/containers/{uuid}/stop?timeout=0")
    cloud.wait_for(uuid, "Stopped")
    post(cloud, uuid, "reboot")
    cloud.wait_for(uuid, "Running")


@pytest.mark.parametrize("name", ["USR1", "sigusr1", "10"])
def test_a_signal_is_delivered(cloud: Cloud, name: str) -> None:
    uuid = cloud.running(("sh", "-c", "trap 'echo heard' USR1; echo ready; while :; do sleep 1 & wait $!; done"))
    ready(cloud, uuid)
    post(cloud, uuid, f"kill?signal={name}")
    eventually(lambda: "heard" in cloud.logs(uuid), "the signal is heard")
    assert cloud.show(uuid)["status"] == "Running"


@pytest.mark.parametrize("query", ["", "?signal=None", "?signal=9"])
def test_kill_is_the_end(cloud: Cloud, query: str) -> None:
    uuid = cloud.running(DEAF, restart_policy={"Name": "always"})
    post(cloud, uuid, f"kill{query}")
    assert cloud.wait_for(uuid, "Stopped")["status_detail"].startswith("Exited(137) ")


def test_start_after_every_end(cloud: Cloud) -> None:
    uuid = cloud.create(("sh", "-c", "echo run; exit 3"))
    cloud.wait_for(uuid, "Stopped")
    post(cloud, uuid, "start")
    eventually(lambda: runs(cloud, uuid) == 2, "it has run again")
    broken = cloud.create(("no-such-program",))
    found = eventually(lambda: (c := cloud.show(broken))["task_state"] is None and c, "it has failed")
    assert found["status"] in ("Error", "Created")
    assert "no-such-program" in found["status_reason"]
    post(cloud, broken, "start")
    found = eventually(lambda: (c := cloud.show(broken))["task_state"] is None and c, "it has failed again")
    assert "no-such-program" in found["status_reason"]


def test_delete(cloud: Cloud) -> None:
    stopped, created, running, deaf = (
        cloud.create(("true",)),
        str(cloud.api("POST", "/v1/containers", {"image": "busybox"}).json()["uuid"]),
        cloud.running(LIVES),
        cloud.running(DEAF),
    )
    cloud.wait_for(stopped, "Stopped")
    cloud.wait_for(created, "Created")
    ready(cloud, deaf)
    for uuid, query, status in (
        (running, "", 409),
        (running, "?force=false&stop=False", 409),
        (stopped, "", 204),
        (created, "", 204),
        (running, "?stop=true", 204),
        (deaf, "?force=true", 204),
    ):
        answer = cloud.api("DELETE", f"/v1/containers/{uuid}{query}")
        assert answer.status == status, (query, answer)
    for uuid in (stopped, created, running, deaf):
        gone(cloud, uuid)


def test_delete_at_older_versions(cloud: Cloud) -> None:
    uuid = cloud.running()
    for version, query in (("1.6", "force=true"), ("1.11", "stop=true")):
        answer = cloud.api("DELETE", f"/v1/containers/{uuid}?{query}", version=version)
        assert (answer.status, answer.error["code"]) == (400, "container.invalid-param-in-version")
    assert cloud.show(uuid)["status"] == "Running"


def test_a_delete_while_it_is_still_being_made(cloud: Cloud) -> None:
    for query in ("?stop=true", "?force=true"):
        uuid = cloud.create(LIVES)
        assert cloud.api("DELETE", f"/v1/containers/{uuid}{query}").status == 204
        gone(cloud, uuid)


# -- when Askos goes and comes -------------------------------------------------------------------------------------


def test_a_restart_of_askos_adopts(new_cloud: Callable[[], Cloud]) -> None:
    cloud = new_cloud()
    cloud.up()
    marks = [secrets.token_hex(8) for _ in range(3)]
    uuids = [cloud.create(("sleep", "100000"), environment={"MARK": mark}) for mark in marks]
    for uuid in uuids:
        cloud.wait_for(uuid, "Running")
    ended = cloud.create(("sh", "-c", "echo run; exit 3"))
    cloud.wait_for(ended, "Stopped")
    before, addresses = [processes(cloud, m) for m in marks], [cloud.show(u)["addresses"] for u in uuids]
    assert all(len(found) == 1 for found in before)
    pid = cloud.pid()
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)
        eventually(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), "askos has ended")  # type: ignore[misc]
        assert [cloud.processes(m) for m in marks] == before
        # What ends while nobody looks is seen later.
        if number == signal.SIGINT:
            os.kill(next(iter(before[2])), signal.SIGTERM)
            os.kill(next(iter(before[2])), signal.SIGKILL)
        cloud.up()
        assert cloud.pid() != pid
        pid = cloud.pid()
    for uuid in uuids[:2]:
        cloud.wait_for(uuid, "Running")
    cloud.wait_for(uuids[2], "Stopped")
    cloud.wait_for(ended, "Stopped")
    assert [cloud.processes(m) for m in marks[:2]] == before[:2]
    assert [cloud.show(u)["addresses"] for u in uuids] == addresses
    assert runs(cloud, ended) == 1
    assert cloud.inside(uuids[0], "echo alive") == (0, "alive\n")
    cloud.clear()


def test_down_and_up_again(new_cloud: Callable[[], Cloud]) -> None:
    cloud = new_cloud()
    cloud.up()
    plain = cloud.running(LIVES, name="plain")
    always = cloud.running(LIVES, name="always", restart_policy={"Name": "always"})
    assert cloud.inside(plain, "echo here > /file")[0] == 0
    cloud.askos("image", "ls")
    cloud.down()
    cloud.up()
    cloud.wait_for(always, "Running")
    cloud.wait_for(plain, "Stopped")
    cloud.askos("start", "plain")
    assert cloud.inside(plain, "cat /file") == (0, "here\n")
    assert cloud.inside(always, "echo alive") == (0, "alive\n")
    cloud.clear()
