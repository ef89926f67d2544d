"""What an agent finds: strangers, and what an agent before it has begun."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from askos.loops import agent as loop_module
from askos.model.capsules import (
    Wish,
)
from askos.model.errors import (
    RuntimeFailedError,
)
from askos.ports.clock import now_us
from askos.ports.runtime import ContainerConfig, SandboxConfig

from .agent_host import Host, assignment, host, until
from .fakes import BUSYBOX, fake_image

__all__ = ["host"]  # fixtures


async def foreign(host: Host, uuid: str) -> str:
    """Something of ours that this agent knows nothing of; returns the container's id."""
    host.runtime.network = None
    config = SandboxConfig(uuid, uuid, "p", 0, "h", [])
    sandbox = await host.runtime.run_sandbox(config)
    host.runtime.network = host.network
    wanted = ContainerConfig(uuid, "main", 1, 0, BUSYBOX, None, ["sleep", "1000"], {}, None, False, False, 1.0, 1 << 26)
    made = await host.runtime.create_container(sandbox, wanted, config)
    await host.runtime.start_container(made)
    return made


async def test_strangers_are_removed_only_after_the_first_snapshot(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "RELIST_S", 0.02)
    await foreign(host, "stranger")
    # An order, but not everything. (What needs a network waits for everything.)
    host.agent.changed([assignment("b", wish=Wish("created", 1, 0, at_us=now_us()))])
    await host.settled(assignment("b"))
    await asyncio.sleep(0.15)
    assert host.containers("stranger") == [(1, 0, "running")]
    assert (host.logs / "stranger").is_dir()
    host.agent.snapshot([assignment("a")])
    await until(lambda: host.empty("stranger"))
    await host.settled(assignment("a"), "running")
    assert host.swept >= 1


async def test_a_stranger_that_cannot_be_removed_holds_up_nobody(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "RELIST_S", 0.02)
    stuck = await foreign(host, "stuck")
    await foreign(host, "stranger")
    real = host.runtime.remove_container

    async def refuse(container_id: str) -> None:
        if container_id == stuck:
            raise RuntimeFailedError("Could not remove the container: busy.")
        await real(container_id)

    monkeypatch.setattr(host.runtime, "remove_container", refuse)
    monkeypatch.setattr(host.runtime, "remove_sandbox", host.runtime.stop_sandbox)
    host.agent.snapshot([])
    await until(lambda: host.containers("stranger") == [])
    await until(lambda: host.swept)


async def test_a_restarted_agent_adopts(host: Host) -> None:
    a, b = assignment("a"), assignment("b", "sh", "-c", "exit 3")
    host.agent.snapshot([a, b])
    for one, state in ((a, "running"), (b, "exited")):
        await host.settled(one, state)
    await until(lambda: sum(s.ready for s in host.runtime.sandboxes.values()) == 1)
    before = set(host.runtime.containers)
    last = {u: host.last(u) for u in ("a", "b")}
    await host.stop()
    assert host.containers("a") == [(1, 0, "running")]  # a stopped agent leaves everything as it is
    host.sent.clear()
    host.runtime.calls.clear()
    await host.start()
    host.agent.snapshot([msgspec.structs.replace(one, report=last[one.capsule_uuid]) for one in (a, b)])
    for one, state in ((a, "running"), (b, "exited")):
        told = await host.settled(one, state)
        assert msgspec.structs.replace(told, observed_us=0) == msgspec.structs.replace(
            last[one.capsule_uuid], observed_us=0
        )
    await asyncio.sleep(0.05)
    assert set(host.runtime.containers) == before
    assert {call[0] for call in host.runtime.calls} <= {"observe", "image", "images"}


@pytest.mark.parametrize("verb", ["run_sandbox", "create_container", "start_container", "pull"])
async def test_an_agent_that_is_killed_half_way_goes_on(host: Host, verb: str) -> None:
    host.runtime.stored.clear()
    host.runtime.registry[BUSYBOX] = fake_image()
    host.runtime.stall[verb] = asyncio.Event()
    a = assignment("a")
    host.agent.snapshot([a])
    await until(lambda: host.runtime.verbs(verb))
    await host.stop()
    del host.runtime.stall[verb]
    await host.start()
    host.agent.snapshot([a])
    assert (await host.settled(a)).state == "running"
    assert host.containers("a") == [(1, 0, "running")]
    assert len(host.runtime.sandboxes) == 1


async def test_what_failed_for_good_stays_so_over_a_restart(host: Host) -> None:
    a = assignment("a", "nosuch")
    host.agent.snapshot([a])
    told = await host.settled(a)
    await until(lambda: not any(s.ready for s in host.runtime.sandboxes.values()))
    await host.stop()
    host.runtime.calls.clear()
    host.sent.clear()
    await host.start()
    host.agent.snapshot([msgspec.structs.replace(a, report=told)])
    again = await host.settled(a)
    assert (again.state, again.reason) == (told.state, told.reason)
    await asyncio.sleep(0.05)
    assert host.runtime.verbs("start_container", "run_sandbox", "create_container") == []


async def test_a_process_that_ended_while_nobody_looked_is_found(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    a = assignment("a")
    host.agent.snapshot([a])
    await host.settled(a)
    host.runtime.end_events()
    (made,) = host.runtime.containers
    await asyncio.sleep(0)
    host.runtime.exit(made, 4)  # no event is heard: the stream has just ended
    told = await host.settled(a, "exited")
    assert told.containers[0].exit_code == 4
