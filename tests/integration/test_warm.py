"""Prepared sandboxes on real containerd and bridges: who takes one over must not be able to tell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd import processes
from askos.adapters.containerd.adoptions import Adoption
from askos.model.errors import RuntimeFailedError

from .warm_fixtures import Machine, machine

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Machine]:
    async with machine() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def host(shared: Machine) -> AsyncIterator[Machine]:
    """The machine with nothing on it, before and after."""
    yield shared
    await shared.runtime.prepare(0)
    for sandbox in (await shared.runtime.observe())[0]:
        await shared.runtime.remove_sandbox(sandbox.id)
    shared.capsules.clear()
    await shared.network.collect(set(), [])
    # The kernel and shims take a moment for some of it.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            while await shared.left() != []:
                await asyncio.sleep(0.05)
    assert await shared.left() == []


async def test_an_adopted_sandbox_is_its_capsules_in_everything(host: Machine) -> None:
    network = host.network_of("10.203.0.0/24")
    one, two = host.capsule("first", network, "10.203.0.10"), host.capsule("second", network, "10.203.0.11")
    await host.name_all()
    await host.warmed(2)
    prepared = await host.in_cri()
    assert await host.runtime.observe() == ([], []), "a prepared sandbox is nobody's"
    before = socket.gethostname()

    adopted, container = await host.up(one)
    other, _ = await host.up(two)
    assert {adopted, other} == prepared
    assert host.plugs == 2
    assert socket.gethostname() == before, "the host's own name"

    assert await host.run(container, "hostname") == (0, "first\n")
    assert await host.run(container, "cat", "/etc/hostname") == (0, "first\n")
    code, conf = await host.run(container, "cat", "/etc/resolv.conf")
    assert (code, conf) == (0, "nameserver 10.203.0.1\noptions ndots:1\n")
    with open("/etc/hosts") as file:
        assert await host.run(container, "cat", "/etc/hosts") == (0, file.read())
    assert await host.run(container, "sh", "-c", "echo $HOSTNAME") == (0, "first\n")
    code, address = await host.run(container, "ip", "-4", "-o", "addr")
    assert code == 0
    assert "10.203.0.10/24" in address
    assert "127.0.0.1/8" in address
    assert (await host.run(container, "ping", "-c", "1", "-W", "10", "10.203.0.11"))[0] == 0
    code, said = await host.run(container, "nslookup", "second", "10.203.0.1")
    assert code == 0
    assert "10.203.0.11" in said
    assert (await host.run(container, "ping", "-c", "1", "-W", "10", "second"))[0] == 0

    sandboxes, containers = await host.runtime.observe(one.uuid)
    assert [(s.id, s.capsule_uuid, s.attempt, s.ready) for s in sandboxes] == [(adopted, one.uuid, 0, True)]
    assert [(c.id, c.sandbox_id, c.capsule_uuid, c.state) for c in containers] == [
        (container, adopted, one.uuid, "running")
    ]
    everything = await host.runtime.observe()
    assert {s.capsule_uuid for s in everything[0]} == {one.uuid, two.uuid}
    assert (host.data / "logs" / one.uuid / "1-0.log").exists()


async def test_it_looks_the_same_as_one_made_the_cold_way(host: Machine) -> None:
    network = host.network_of("10.203.1.0/24")
    shown = (
        "hostname; cat /etc/hostname /etc/resolv.conf /etc/hosts; ls -ln /etc/hostname /etc/resolv.conf /etc/hosts | "
        "sed 's/  *[A-Z][a-z]* .*:.. / /'; ip -o link | sed 's/[0-9]*: //;s/@[^:]*//' | grep -v tunl; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; "
        "ip route; ip -4 -o addr | sed 's/^[0-9]*: //'; mount | grep -c /dev/shm"
    )
    cold = host.capsule("same", network, "10.203.1.10")
    sandbox, container = await host.up(cold)
    said = await host.run(container, "sh", "-c", shown)
    await host.runtime.remove_sandbox(sandbox)
    assert said[0] == 0

    await host.warmed(1)
    host.capsules.clear()
    warm = host.capsule("same", network, "10.203.1.10")
    prepared = await host.in_cri()
    sandbox, container = await host.up(warm)
    assert {sandbox} == prepared
    assert await host.run(container, "sh", "-c", shown) == said


async def test_the_pool_fills_again_and_grows_and_shrinks(host: Machine) -> None:
    network = host.network_of("10.203.2.0/24")
    await host.warmed(1)
    taken = set()
    for number in range(3):
        sandbox = await host.runtime.run_sandbox(
            host.capsule(f"c{number}", network, f"10.203.2.{number + 10}").sandbox()
        )
        taken.add(sandbox)
        await host.warmed(1)
    assert len(taken) == 3
    assert len(await host.in_cri()) == 4
    await host.warmed(3)
    await host.warmed(1)
    async with asyncio.timeout(60):
        while len(await host.in_cri()) != 4:
            await asyncio.sleep(0.05)
    assert len((await host.runtime.observe())[0]) == 3


async def test_what_cannot_be_changed_afterwards_is_made_the_cold_way(host: Machine) -> None:
    network = host.network_of("10.203.3.0/24")
    await host.warmed(1)
    prepared = await host.in_cri()
    special = host.capsule("special", network, "10.203.3.10")
    for attempt, more in enumerate(({"sysctls": {"net.core.somaxconn": "77"}}, {"share_pid": True})):
        assert await host.runtime.run_sandbox(special.sandbox(attempt, **more)) not in prepared
    assert host.runtime.warm.ready == 1


async def test_one_attempt_is_one_sandbox_warm_or_cold(host: Machine) -> None:
    network = host.network_of("10.203.4.0/24")
    await host.warmed(2)
    config = host.capsule("once", network, "10.203.4.10").sandbox()
    ids = set(await asyncio.gather(*(host.runtime.run_sandbox(config) for _ in range(4))))
    ids.add(await host.runtime.run_sandbox(config))
    assert len(ids) == 1
    assert len((await host.runtime.observe())[0]) == 1

    await host.runtime.prepare(0)
    cold = host.capsule("cold", network, "10.203.4.11").sandbox()
    made = await host.runtime.run_sandbox(cold)
    await host.warmed(1)
    assert await host.runtime.run_sandbox(cold) == made
    assert host.runtime.warm.ready == 1


async def test_an_adopted_sandbox_that_ended_is_replaced(host: Machine) -> None:
    network = host.network_of("10.203.5.0/24")
    await host.warmed(1)
    capsule = host.capsule("again", network, "10.203.5.10")
    first = await host.runtime.run_sandbox(capsule.sandbox())
    await host.runtime.prepare(0)
    await host.runtime.stop_sandbox(first)
    assert [s.ready for s in (await host.runtime.observe(capsule.uuid))[0]] == [False]
    second = await host.runtime.run_sandbox(capsule.sandbox())
    assert second != first
    assert [(s.id, s.ready) for s in (await host.runtime.observe(capsule.uuid))[0]] == [(second, True)]


async def test_a_prepared_sandbox_whose_process_died_is_not_taken(host: Machine) -> None:
    network = host.network_of("10.203.6.0/24")
    await host.warmed(1)
    dead = await host.in_cri()
    await host.runtime.warm.close()
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=next(iter(dead)), verbose=True)
    info = (await host.runtime.client.cri("PodSandboxStatus", request, 10)).info["info"]
    process = processes.identify(msgspec.json.decode(info)["pid"])
    assert process is not None
    processes.send(process, signal.SIGKILL)
    assert await processes.ended(process, 60)
    capsule = host.capsule("alive", network, "10.203.6.10")
    sandbox, container = await host.up(capsule)
    assert sandbox not in dead
    assert await host.run(container, "hostname") == (0, "alive\n")
    assert await host.in_cri() == {sandbox}, "the dead one is removed"


async def test_a_new_process_takes_over_what_is_there(host: Machine) -> None:
    network = host.network_of("10.203.7.0/24")
    await host.warmed(2)
    capsule = host.capsule("kept", network, "10.203.7.10")
    sandbox, container = await host.up(capsule)
    await host.reborn()
    seen = await host.runtime.observe(capsule.uuid)
    assert [(s.id, s.ready) for s in seen[0]] == [(sandbox, True)]
    assert [c.id for c in seen[1]] == [container]
    assert len((await host.runtime.observe())[0]) == 1
    assert await host.runtime.run_sandbox(capsule.sandbox()) == sandbox
    left = await host.in_cri() - {sandbox}
    await host.warmed(1)
    assert await host.in_cri() - {sandbox} <= left, "the prepared one is used again, not doubled"
    assert await host.sweep() == []
    assert await host.run(container, "hostname") == (0, "kept\n")


@pytest.mark.parametrize("line", ["claim", "set_hostname", "write_files", "plug", "complete"])
async def test_killed_in_the_middle_of_a_taking(host: Machine, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies at any line leaves a sandbox that is removed, with all that it was given."""
    network = host.network_of("10.203.8.0/24")
    capsule = host.capsule("torn", network, "10.203.8.10")
    await host.warmed(1)
    (torn,) = await host.in_cri()
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()
    dead = asyncio.Event()

    def die(*_: object) -> None:
        loop.call_soon_threadsafe(reached.set)
        raise RuntimeError  # and nothing of what would follow happens, see below

    adopter = host.runtime.warm._adopter
    if line == "plug":

        async def die_after(*call: str) -> None:
            await host.plug(*call)
            reached.set()
            await dead.wait()

        monkeypatch.setattr(adopter, "_plug", die_after)
    elif line in ("claim", "complete"):
        adoptions = host.runtime._adoptions
        real = getattr(adoptions, line)
        written = line == "claim"
        monkeypatch.setattr(adoptions, line, lambda adoption: (written and real(adoption), die()))
    else:
        monkeypatch.setattr(f"askos.adapters.containerd.adopting.{line}", die)

    # Nothing that the dead process would still do must happen.
    async def never(_sandbox_id: str) -> None:
        await dead.wait()

    monkeypatch.setattr(adopter, "_discard", never)
    monkeypatch.setattr(host.runtime._maker, "sandbox", lambda *_: dead.wait())
    task = asyncio.create_task(host.up(capsule))
    await asyncio.wait_for(reached.wait(), 60)
    await host.reborn()
    monkeypatch.undo()

    assert await host.runtime.observe() == ([], [])
    await host.warmed(1)
    assert torn not in await host.in_cri(), "it lay between two owners"
    sandbox, container = await host.up(capsule)
    assert (await host.run(container, "ping", "-c", "1", "-W", "10", "10.203.8.1"))[0] == 0
    assert [s.id for s in (await host.runtime.observe(capsule.uuid))[0]] == [sandbox]
    task.cancel()
    for other in asyncio.all_tasks() - {asyncio.current_task()}:
        if other.get_name().startswith("network of"):
            other.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_network_that_cannot_be_plugged_leaves_nothing(host: Machine) -> None:
    network = host.network_of("10.203.9.0/24")
    await host.warmed(1)
    capsule = host.capsule("bad", network, "10.203.9.10")
    good, capsule.port = capsule.port, msgspec.structs.replace(capsule.port, address="10.203.9.999")
    sandbox = await host.runtime.run_sandbox(capsule.sandbox())
    with pytest.raises((RuntimeFailedError, ValueError)):
        await host.runtime.create_container(sandbox, capsule.container("true"), capsule.sandbox())
    assert await host.runtime.observe() == ([], [])
    assert sandbox not in await host.in_cri()
    capsule.port = good
    _, container = await host.up(capsule)
    assert (await host.run(container, "ping", "-c", "1", "-W", "10", "10.203.9.1"))[0] == 0


async def test_a_sandbox_is_removed_only_after_it_was_taken_entirely(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = host.network_of("10.203.12.0/24")
    await host.warmed(1)
    capsule = host.capsule("quick", network, "10.203.12.10")
    order: list[str] = []

    async def slowly(*call: str) -> None:
        await asyncio.sleep(0.3)
        await host.plug(*call)
        order.append("plugged")

    monkeypatch.setattr(host.runtime.warm._adopter, "_plug", slowly)
    sandbox = await host.runtime.run_sandbox(capsule.sandbox())
    await host.runtime.remove_sandbox(sandbox)
    order.append("removed")
    assert order == ["plugged", "removed"]
    assert await host.runtime.observe() == ([], [])


async def test_records_of_sandboxes_that_are_gone_are_removed(host: Machine) -> None:
    gone = Adoption("ab" * 32, "c", 0, "n", "p", 1)
    host.runtime._adoptions.claim(gone)
    host.runtime._adoptions.complete(msgspec.structs.replace(gone, sandbox_id="cd" * 32))
    await host.reborn()
    await host.runtime.observe()
    assert [path.stem for path in host.adoptions.glob("*")] == ["ab" * 32], "a claim may be under way"
    await host.runtime.prepare(0)
    assert list(host.adoptions.glob("*")) == []


async def test_collecting_keeps_adopted_and_prepared_sandboxes_wired(host: Machine) -> None:
    network = host.network_of("10.203.10.0/24")
    await host.warmed(2)
    one = host.capsule("stays", network, "10.203.10.10")
    _, container = await host.up(one)
    live = {s.id for s in (await host.runtime.observe())[0] if s.ready}
    await host.network.collect(live, [network])
    assert await host.sweep() == []
    assert (await host.run(container, "ping", "-c", "1", "-W", "10", "10.203.10.1"))[0] == 0
    two = host.capsule("later", network, "10.203.10.11")
    _, other = await host.up(two)
    assert (await host.run(other, "ping", "-c", "1", "-W", "10", "10.203.10.10"))[0] == 0


async def test_containerd_killed_and_back_leaves_adopted_and_prepared_usable(host: Machine) -> None:
    network = host.network_of("10.203.11.0/24")
    await host.warmed(2)
    one = host.capsule("survives", network, "10.203.11.10")
    sandbox, container = await host.up(one)
    await host.warmed(2)
    prepared = await host.in_cri() - {sandbox}
    restarts = host.containerd.restarts
    assert host.containerd.pid is not None
    os.kill(host.containerd.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while host.containerd.restarts == restarts or not host.containerd.answering.is_set():
            await asyncio.sleep(0.05)
    await host.sweep()
    assert [s.id for s in (await host.runtime.observe(one.uuid))[0]] == [sandbox]
    assert await host.run(container, "hostname") == (0, "survives\n")
    two = host.capsule("after", network, "10.203.11.11")
    taken, other = await host.up(two)
    assert taken in prepared
    assert (await host.run(other, "ping", "-c", "1", "-W", "10", "10.203.11.10"))[0] == 0
