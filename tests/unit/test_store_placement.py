"""Placement in the store: claims of capsules, on hosts that are there."""

from __future__ import annotations

import asyncio

import pytest

from askos.loops.placement import PlacementLoop, Waiting
from askos.model.capsules import (
    Capsule,
    Wish,
)
from askos.plan import placement as plan
from askos.plan import zun_status
from askos.ports.store import Query

from .store_subject import HOST, OTHER, Subject, rewish, subject

__all__ = ["subject"]  # fixtures


async def test_placing(subject: Subject) -> None:
    made = await subject.create(memory=100)
    await subject.hosts(HOST, OTHER)
    assert await subject.store.unplaced() == [made.uuid]
    seen: list[list[plan.Load]] = []

    def choose(capsule: Capsule, loads: list[plan.Load]) -> str:
        assert capsule == made
        seen.append(loads)
        return HOST

    assert await subject.store.place(made.uuid, choose, "none")
    now = await subject.get(made.uuid)
    assert (now.placement.host_uuid, now.placement.epoch, now.placement.failure) == (HOST, 1, None)
    assert subject.told[-1].host_uuid == HOST
    assert await subject.store.unplaced() == []
    assert not await subject.store.place(made.uuid, lambda _c, _l: OTHER, "none")
    assert (await subject.get(made.uuid)).placement.host_uuid == HOST
    assert [(load.cpu_claimed, load.memory_claimed_mib) for load in seen[0]] == [(0, 0), (0, 0)]
    second = await subject.create(memory=28)
    await subject.store.place(second.uuid, lambda _c, loads: seen.append(loads), "none")
    claims = {load.host.facts.uuid: (load.cpu_claimed, load.memory_claimed_mib) for load in seen[1]}
    assert claims == {HOST: (1000, 100), OTHER: (0, 0)}


async def test_no_host_is_a_failure_until_the_next_wish(subject: Subject) -> None:
    made = await subject.create()
    assert await subject.store.place(made.uuid, lambda _c, _l: None, plan.NO_HOST)
    now = await subject.get(made.uuid)
    assert (now.placement.failure, now.placement.epoch) == (plan.NO_HOST, 0)
    assert zun_status.view(now.wish, now.placement, now.report).status == "Error"
    assert await subject.store.unplaced() == []
    await subject.store.wish(made.uuid, rewish("running"))
    assert await subject.store.unplaced() == [made.uuid]
    assert (await subject.get(made.uuid)).placement.failure is None
    assert await subject.store.page(Query(filters={"status": "Error"})) == []


async def test_placing_what_is_gone_or_going(subject: Subject) -> None:
    assert not await subject.store.place("nobody", lambda _c, _l: HOST, "none")
    made = await subject.create()

    def wait(_c: Capsule, _l: list[plan.Load]) -> str:
        raise Waiting

    with pytest.raises(Waiting):
        await subject.store.place(made.uuid, wait, "none")
    assert await subject.get(made.uuid) == made


async def test_claims_never_exceed_what_there_is_with_two_servers(subject: Subject) -> None:
    await subject.hosts(HOST, OTHER, memory_mib=1000, cpus=4)
    ratios = plan.Ratios(cpu=16.0, memory=1.5)
    for i in range(40):
        await subject.create(memory=100 if i % 2 else 130)
    loops = [PlacementLoop(s, ratios, lambda: subject.now) for s in (subject.store, subject.another())]
    await asyncio.gather(*(loop.once() for loop in loops))
    placed: dict[str, int] = {}
    failed = 0
    for c in await subject.store.capsules(Query()):
        if c.placement.host_uuid is None:
            assert c.placement.failure == plan.NO_HOST
            failed += 1
        else:
            assert c.placement.epoch == 1
            memory = c.spec.containers[0].memory_mib
            placed[c.placement.host_uuid] = placed.get(c.placement.host_uuid, 0) + memory
    assert all(1400 < used <= 1500 for used in placed.values()), placed
    assert failed > 0
    assert len(placed) == 2


async def test_cpu_is_never_overcommitted_either(subject: Subject) -> None:
    await subject.hosts(HOST, cpus=1)
    loop = PlacementLoop(subject.store, plan.Ratios(cpu=3.0, memory=100.0), lambda: subject.now)
    for _ in range(5):
        await subject.create(memory=4)
    await loop.once()
    assert len(await subject.store.assignments(HOST)) == 3


async def test_hosts_that_are_not_connected_get_nothing(subject: Subject) -> None:
    await subject.hosts(HOST, memory_mib=99_999)
    await subject.hosts(OTHER)
    await subject.store.host_seen(HOST, 1, connected=False)
    made = await subject.create()
    await PlacementLoop(subject.store, plan.Ratios(), lambda: subject.now).once()
    assert (await subject.get(made.uuid)).placement.host_uuid == OTHER


async def test_the_host_with_the_most_memory_left_is_chosen(subject: Subject) -> None:
    await subject.hosts(HOST, OTHER, memory_mib=1000)
    loop = PlacementLoop(subject.store, plan.Ratios(memory=1.0), lambda: subject.now)
    where = []
    for memory in (100, 300, 100, 100, 100):
        made = await subject.create(memory=memory)
        await loop.once()
        where.append((await subject.get(made.uuid)).placement.host_uuid)
    assert where == [OTHER, HOST, OTHER, OTHER, OTHER]  # the uuid breaks ties


async def test_a_fresh_cloud_waits_for_its_first_host(subject: Subject) -> None:
    loop = PlacementLoop(subject.store, plan.Ratios(), lambda: subject.now)
    made = await subject.create()
    assert await loop.once()
    assert await subject.store.unplaced() == [made.uuid]
    subject.now += 30_000_001
    assert not await loop.once()
    assert (await subject.get(made.uuid)).placement.failure == plan.NO_HOST
    later = await subject.create(wish=Wish("running", run=1, at_us=subject.now))
    await subject.hosts()
    assert not await loop.once()
    assert (await subject.get(later.uuid)).placement.host_uuid == HOST
