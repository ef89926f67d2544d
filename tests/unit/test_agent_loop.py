"""The agent on a runtime and a network in memory: it brings up, reports, retries, gives up, cleans up."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from askos.loops import agent as loop_module
from askos.loops.container_work import ContainerWork
from askos.model.capsules import (
    Assignment,
    Healthcheck,
    Wish,
)
from askos.model.errors import (
    AskosError,
    NotFoundError,
    RuntimeFailedError,
    UnavailableError,
)
from askos.ports.clock import now_us
from askos.ports.runtime import ContainerConfig, SandboxConfig

from .agent_host import NET, Host, assignment, hasty, host, rewish, until
from .fakes import BUSYBOX, fake_image

__all__ = ["hasty", "host"]  # fixtures


@pytest.fixture
def no_relist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is seen because of the time alone, which is told apart from what is seen because of an event."""
    monkeypatch.setattr(loop_module, "RELIST_S", 3600)


# -- bringing up and reporting ----------------------------------------------------------------------------------------


async def test_a_capsule_is_brought_up_and_told(host: Host) -> None:
    a = assignment("a")
    host.agent.snapshot([a])
    told = await host.settled(a)
    assert told.state == "running"
    (container,) = told.containers
    assert (container.state, container.run, container.restarts) == ("running", 1, 0)
    assert container.started_us is not None
    assert container.command == ["sleep", "1000"]
    assert host.containers("a") == [(1, 0, "running")]
    assert host.network.plugged["a"].ports == a.ports
    assert host.network.plugged["a"].hostname == told.hostname == "a"
    await until(lambda: host.network.addresses("name-a") == [a.ports[0].address])
    assert host.runtime.verbs("pull") == []
    # Quick steps on the way are not worth a transaction each.
    assert [r.report.settled for r in host.sent] == [True]
    (again,) = host.agent.reports()  # newer, but it says the same
    assert again == msgspec.structs.replace(
        host.sent[-1], report=msgspec.structs.replace(told, observed_us=again.report.observed_us)
    )


async def test_a_start_asks_the_runtime_little(host: Host) -> None:
    """What comes new to this host is not looked for before it is made, nor when it was started; the image is not asked
    for once it stands."""
    host.agent.snapshot([])
    await until(lambda: host.swept and host.runtime.verbs("observe"))
    host.runtime.calls.clear()
    a = assignment("a")
    host.agent.changed([a])
    await host.settled(a, "running")
    asked = host.runtime.verbs("observe", "image", "run_sandbox", "create_container", "start_container")
    assert asked[:4] == ["image", "run_sandbox", "create_container", "start_container"]
    assert asked[4:] in ([], ["observe"]), asked
    (config,) = host.runtime.configs.values()
    assert config.first


@pytest.mark.parametrize(
    "more", [{"healthcheck": Healthcheck("true")}, {"cpu_policy": "dedicated", "cpu": 1}], ids=["health", "cores"]
)
async def test_what_only_a_look_tells_is_looked_at_after_a_start(host: Host, more: dict[str, Any]) -> None:
    host.agent.snapshot([])
    await until(lambda: host.swept and host.runtime.verbs("observe"))
    host.runtime.calls.clear()
    a = assignment("a", **more)
    host.agent.changed([a])
    await host.settled(a, "running")
    asked = host.runtime.verbs("observe", "start_container")
    assert asked[asked.index("start_container") + 1] == "observe"


async def test_an_end_right_after_the_start_is_seen(host: Host) -> None:
    host.agent.snapshot([])
    await until(lambda: host.swept)
    a = assignment("a", "sh", "-c", "exit 3")
    host.agent.changed([a])
    told = await host.settled(a, "exited")
    assert told.containers[0].exit_code == 3


@pytest.mark.parametrize("epoch", [1, 2])
async def test_what_may_have_been_here_is_looked_for(host: Host, epoch: int) -> None:
    """Only what is placed for the first time, and not in an agent's first snapshot, cannot be on the host already."""
    a = assignment("a")
    host.agent.snapshot([a])
    await host.settled(a, "running")
    await host.agent.stop_workers()
    host.runtime.calls.clear()
    host.sent.clear()
    again = msgspec.structs.replace(a, epoch=epoch)
    if epoch == 1:
        await host.stop()
        await host.start()
        host.agent.snapshot([again])
    else:
        host.agent.changed([again])
    await until(lambda: host.runtime.verbs("observe"))
    await host.settled(again, "running")
    assert host.runtime.verbs("run_sandbox") == [], "it runs already"


async def test_what_it_is_made_of(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = host.runtime.create_container

    async def note(sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        made.extend([config, sandbox])
        return await real(sandbox_id, config, sandbox)

    monkeypatch.setattr(host.runtime, "create_container", note)
    more: dict[str, Any] = {
        "environment": {"A": "b"},
        "workdir": "/w",
        "interactive": True,
        "tty": True,
        "cpu": 0.5,
        "memory_mib": 64,
    }
    a = assignment("a", "sh", entrypoint=None, **more)
    host.agent.snapshot([a])
    await host.settled(a)
    config, sandbox = made
    image = await host.runtime.image("busybox")
    assert image is not None
    assert config == ContainerConfig(
        capsule_uuid="a", name="main", run=1, attempt=0, image_ref=BUSYBOX, image_id=image.id, entrypoint=None,
        command=["sh"], environment={"A": "b"}, workdir="/w", interactive=True, tty=True, cpu=0.5,
        memory_bytes=64 << 20, hosts_file=str(host.logs / "a" / "etc-hosts"),
    )  # fmt: skip
    assert sandbox == SandboxConfig("a", "name-a", "p", 0, "a", ["10.64.0.1"])


async def test_created_makes_sure_of_the_image_alone(host: Host) -> None:
    host.runtime.stored.clear()
    host.runtime.registry[BUSYBOX] = fake_image()
    a = assignment("a", wish=Wish("created", 1, 0, at_us=now_us()))
    host.agent.snapshot([a])
    assert (await host.settled(a)).state == "created"
    assert host.runtime.verbs("pull", "run_sandbox") == ["pull"]
    assert await host.runtime.image("busybox") is not None


async def test_a_step_that_lasts_is_told(host: Host) -> None:
    host.runtime.stored.clear()
    host.runtime.registry[BUSYBOX] = fake_image()
    host.runtime.stall["pull"] = asyncio.Event()
    a = assignment("a")
    host.agent.snapshot([a])
    await until(lambda: host.sent)
    assert (host.sent[0].report.progress, host.sent[0].report.settled) == ("image_pulling", False)
    host.runtime.stall["pull"].set()
    assert (await host.settled(a)).state == "running"


@pytest.mark.usefixtures("no_relist")
async def test_an_end_is_told_at_once(host: Host) -> None:
    a = assignment("a", "sh", "-c", "sleep 0.05; exit 3")
    host.agent.snapshot([a])
    await host.settled(a, "running")
    told = await host.settled(a, "exited")
    assert (told.containers[0].exit_code, told.containers[0].state) == (3, "exited")
    await until(lambda: not any(s.ready for s in host.runtime.sandboxes.values()))
    assert "a" not in host.network.plugged
    assert (host.logs / "a").is_dir()


@pytest.mark.usefixtures("no_relist")
async def test_an_end_that_is_told_before_it_can_be_seen_is_not_missed(host: Host) -> None:
    a = assignment("a")
    host.agent.snapshot([a])
    await host.settled(a)
    await asyncio.sleep(0.05)
    (made,) = host.runtime.containers
    tell = host.runtime._event
    tell("exit", made)  # as containerd does: its own records come later
    host.runtime._event = lambda kind, container_id: None  # type: ignore[method-assign]
    await asyncio.sleep(0.05)
    host.runtime.exit(made, 4)
    await until(lambda: host.last("a").state == "exited")


async def test_an_end_is_looked_for_until_it_is_seen(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime's records may come later than it says; once they have come nobody looks for them again."""
    monkeypatch.setattr(loop_module, "TIDIED_S", (0.01, 0.02, 0.5, 0.51, 0.52))
    monkeypatch.setattr(loop_module, "SECOND_LOOK_S", 60)
    a = assignment("a")
    host.agent.snapshot([a])
    await host.settled(a, "running")
    await until(lambda: host.swept)
    (made,) = host.runtime.containers
    looks: list[str] = []
    worker = host.agent.workers["a"]
    monkeypatch.setattr(worker.bell, "ring", lambda ring=worker.bell.ring: (looks.append("look"), ring())[1])
    tell = host.runtime._event
    host.runtime._event = lambda kind, container_id: None  # type: ignore[method-assign]
    tell("ended", made)
    await until(lambda: len(looks) == 2)
    host.runtime.exit(made, 4)
    await until(lambda: host.last("a").state == "exited")
    await asyncio.sleep(0.6)  # past the last of them
    assert len(looks) in (2, 3), "nobody looks for an end that was seen"


async def test_stop_start_and_files(host: Host) -> None:
    a = assignment("a", "sh", "-c", "trap 'exit 5' TERM; echo $N >> /kept; sleep 1000")
    host.agent.snapshot([a])
    await host.settled(a, "running")
    a = rewish(a, "stopped")
    host.agent.changed([a])
    told = await host.settled(a)
    assert (told.state, told.containers[0].exit_code) == ("exited", 5)
    a = rewish(a, "running", run=2)
    host.agent.changed([a])
    told = await host.settled(a)
    assert (told.state, told.containers[0].run) == ("running", 2)
    await until(lambda: host.containers("a") == [(2, 0, "running")])
    (made,) = host.runtime.containers.values()
    assert made.files == {"/kept": "\n\n"}
    a = rewish(a, "running", run=3)  # a reboot
    host.agent.changed([a])
    assert (await host.settled(a)).containers[0].run == 3
    await until(lambda: host.containers("a") == [(3, 0, "running")])
    (made,) = host.runtime.containers.values()
    assert made.files == {"/kept": "\n\n\n"}


@pytest.mark.usefixtures("hasty")
async def test_a_restart_policy(host: Host) -> None:
    a = assignment("a", "sh", "-c", "sleep 0.02; exit 1", policy="on-failure")
    host.agent.snapshot([a])
    await until(lambda: host.sent and host.last("a").containers[0].restarts >= 3)
    a = rewish(a, "stopped", timeout_s=0)
    host.agent.changed([a])
    assert (await host.settled(a)).state == "exited"
    starts = len(host.runtime.verbs("start_container"))
    await asyncio.sleep(0.1)
    assert len(host.runtime.verbs("start_container")) == starts


async def test_ten_at_once_but_four_starts(host: Host) -> None:
    host.runtime.stall["run_sandbox"] = asyncio.Event()
    wanted = [assignment(f"c{i}") for i in range(10)]
    host.agent.snapshot(wanted)
    await until(lambda: len(host.runtime.verbs("run_sandbox")) == 4)
    await asyncio.sleep(0.05)
    assert len(host.runtime.verbs("run_sandbox")) == 4
    host.runtime.stall["run_sandbox"].set()
    for a in wanted:
        assert (await host.settled(a)).state == "running"
    assert len(host.runtime.sandboxes) == 10


async def test_one_that_is_stuck_holds_up_nobody(host: Host) -> None:
    host.runtime.stall["pull"] = asyncio.Event()
    stuck = assignment("stuck", image="not/here:1")
    host.agent.snapshot([stuck, assignment("a"), assignment("b")])
    for uuid in ("a", "b"):
        await host.settled(assignment(uuid))
    assert host.containers("stuck") == []


# -- failing ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hasty")
async def test_a_pull_that_fails_three_times_is_an_error_with_a_reason(host: Host) -> None:
    a = assignment("a", image="not/here:1")
    host.agent.snapshot([a])
    told = await host.settled(a)
    assert (told.state, told.reason) == ("error", "Could not pull docker.io/not/here:1: no registry answers.")
    await asyncio.sleep(0.05)
    assert host.runtime.verbs("pull", "run_sandbox") == ["pull"] * 3
    # A new wish is a new try, and a way out.
    host.runtime.registry["docker.io/not/here:1"] = fake_image("not/here:1")
    a = rewish(a, "running", run=2)
    host.agent.changed([a])
    assert (await host.settled(a)).state == "running"


async def test_a_pull_that_cannot_succeed_is_tried_once(host: Host) -> None:
    host.runtime.fail["pull"] = [NotFoundError("The registry has no image not/here:1.")]
    a = assignment("a", image="not/here:1")
    host.agent.snapshot([a])
    told = await host.settled(a)
    assert (told.state, told.reason) == ("error", "The registry has no image not/here:1.")
    assert host.runtime.verbs("pull") == ["pull"]


async def test_a_program_that_is_not_there_is_an_error_and_nothing_stays(host: Host) -> None:
    a = assignment("a", "nosuch")
    host.agent.snapshot([a])
    told = await host.settled(a)
    assert (told.state, told.reason) == ("error", 'cannot start "nosuch": no such file in the image')
    await until(lambda: not any(s.ready for s in host.runtime.sandboxes.values()))
    assert host.runtime.verbs("start_container") == ["start_container"]
    assert "a" not in host.network.plugged


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("error", "times", "state"),
    [
        (RuntimeFailedError("Could not make the sandbox: busy."), 5, "running"),
        (RuntimeFailedError("Could not make the sandbox: busy."), 6, "error"),
        (RuntimeFailedError("Never.", retryable=False), 1, "error"),
        (UnavailableError("containerd does not answer."), 20, "running"),
        (KeyError("a bug of ours"), 5, "running"),
        (KeyError("a bug of ours"), 6, "error"),
    ],
)
async def test_what_may_pass_is_tried_again(host: Host, error: Exception, times: int, state: str) -> None:
    host.runtime.fail["run_sandbox"] = [error] * times
    a = assignment("a")
    host.agent.snapshot([a])
    told = await host.settled(a)
    assert told.state == state
    assert host.runtime.fail["run_sandbox"] == []
    if state == "error":
        reason = str(error) if isinstance(error, AskosError) else "Something failed inside Askos; its log has more."
        assert told.reason == reason
    else:
        assert told.reason is None


async def test_a_look_that_fails_is_no_failure_of_the_capsule(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ContainerWork.observe
    failures: list[Exception] = [UnavailableError("away"), KeyError("a bug"), RuntimeFailedError("odd")] * 3

    async def observe(work: ContainerWork, a: Assignment, pulled: int) -> Any:
        if failures:
            raise failures.pop()
        return await real(work, a, pulled)

    monkeypatch.setattr(ContainerWork, "observe", observe)
    a = assignment("a")
    host.agent.snapshot([a])
    for left in range(8, -1, -1):
        await until(lambda left=left: len(failures) == left)  # type: ignore[misc]
        assert host.sent == []
        host.agent.changed([a])  # anything wakes it before its time
    assert (await host.settled(a)).state == "running"


async def test_what_somebody_else_removed_is_an_error_that_says_so(host: Host) -> None:
    a = assignment("a")
    host.agent.snapshot([a])
    await host.settled(a)
    for sandbox in list(host.runtime.sandboxes):
        await host.runtime.remove_sandbox(sandbox)
    told = await host.settled(a, "error")
    assert told.reason is not None
    assert "something outside Askos removed it" in told.reason
    assert host.runtime.verbs("run_sandbox") == ["run_sandbox"]


# -- deleting ---------------------------------------------------------------------------------------------------------


async def test_a_delete_leaves_nothing(host: Host) -> None:
    a, b = assignment("a", "sh", "-c", "echo hello; sleep 1000"), assignment("b")
    host.agent.snapshot([a, b])
    for one in (a, b):
        await host.settled(one)
    await until(lambda: host.network.addresses("name-a"))
    host.agent.changed([rewish(a, "deleted", timeout_s=0)])
    await host.gone("a")
    await until(lambda: host.empty("a"))
    assert host.containers("b") == [(1, 0, "running")]
    # Said again after a reconnect, until the server says that it has heard.
    assert [r.gone for r in host.agent.reports() if r.capsule_uuid == "a"] == [True]
    host.agent.dropped(["a"])
    assert [r.capsule_uuid for r in host.agent.reports()] == ["b"]


async def test_a_delete_interrupts_a_pull(host: Host) -> None:
    host.runtime.stall["pull"] = asyncio.Event()
    a = assignment("a", image="not/here:1")
    host.agent.snapshot([a])
    await until(lambda: host.runtime.verbs("pull"))
    host.agent.changed([rewish(a, "deleted")])
    await host.gone("a")
    assert host.runtime.cancelled == ["pull"]
    assert host.empty("a")


async def test_a_kill_interrupts_a_long_grace(host: Host) -> None:
    a = assignment("a")
    host.agent.snapshot([a])
    await host.settled(a)
    host.agent.changed([a := rewish(a, "stopped", timeout_s=3600)])
    await until(lambda: host.runtime.verbs("stop_container"))
    host.agent.changed([a := rewish(a, "stopped", timeout_s=0)])
    told = await host.settled(a)
    assert (told.state, told.containers[0].exit_code) == ("exited", 137)


@pytest.mark.usefixtures("hasty")
async def test_a_delete_never_gives_up(host: Host) -> None:
    a = assignment("a")
    host.agent.snapshot([a])
    await host.settled(a)
    host.runtime.fail["remove_sandbox"] = [RuntimeFailedError("Could not remove the sandbox: busy.")] * 15
    host.agent.changed([rewish(a, "deleted", timeout_s=0)])
    await host.gone("a")
    assert host.empty("a")
    assert not any(r.report.state == "error" for r in host.sent)


async def test_what_is_dropped_is_removed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "COLLECT_S", 0.01)
    monkeypatch.setattr(loop_module, "RELIST_S", 0.02)
    a, b = assignment("a"), assignment("b")
    host.agent.snapshot([a, b])
    for one in (a, b):
        await host.settled(one)
    host.agent.dropped(["a"])
    await until(lambda: host.empty("a"))
    host.agent.snapshot([])
    await until(lambda: host.empty("b"))
    assert host.agent.workers == {}


# -- networks and names -----------------------------------------------------------------------------------------------


async def test_names(host: Host) -> None:
    a, b = assignment("a"), assignment("b", wish=Wish("created", 1, 0, at_us=now_us()))
    named = msgspec.structs.replace(a.spec, hostname="Inside")
    a = msgspec.structs.replace(a, spec=named, name="WEB")
    host.agent.snapshot([a, b])
    await until(lambda: host.network.addresses("web") == host.network.addresses("inside") == [a.ports[0].address])
    assert host.network.addresses("name-b") == [b.ports[0].address]
    assert host.network.addresses("WEB") == []
    assert [n.network for n in host.network.names] == [NET]
    same = assignment("c", wish=Wish("created", 1, 0, at_us=now_us()))
    same = msgspec.structs.replace(same, name="web")
    host.agent.changed([same])
    await until(lambda: host.network.addresses("web") == [a.ports[0].address, same.ports[0].address])
    host.agent.changed([rewish(b, "deleted")])
    await until(lambda: host.network.addresses("name-b") == [])


async def test_names_and_hosts_of_both_ip_versions(host: Host) -> None:
    a = assignment("a")
    (port,) = a.ports
    a = msgspec.structs.replace(a, ports=[msgspec.structs.replace(port, address6="fd00::5")])
    host.agent.snapshot([a])
    await until(lambda: host.network.addresses("name-a") == [port.address, "fd00::5"])
    await host.settled(a)
    lines = (host.logs / "a" / "etc-hosts").read_text().splitlines()
    assert lines[-2:] == [f"{port.address}\ta", "fd00::5\ta"]


async def test_leftovers_of_networks_are_collected(host: Host) -> None:
    a = assignment("a")
    host.agent.snapshot([a])
    await host.settled(a)
    await until(lambda: host.network.collected)
    before = len(host.network.collected)
    host.agent.changed([rewish(a, "deleted", timeout_s=0)])
    await host.gone("a")
    # With the last capsule of a network its bridge goes too, and soon.
    await until(lambda: len(host.network.collected) > before and host.network.collected[-1] == (set(), []))


async def test_an_attachment_waits_for_the_first_snapshot(host: Host) -> None:
    asked = asyncio.create_task(host.agent.attachment("a"))
    await asyncio.sleep(0.02)
    assert not asked.done()
    a = assignment("a")
    host.agent.snapshot([a])
    found = await asked
    assert found is not None
    assert (found.capsule_uuid, found.hostname, found.ports, found.networks) == ("a", "a", a.ports, [NET])
    assert await host.agent.attachment("nobody") is None
    await host.settled(a)
