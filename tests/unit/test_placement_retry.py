"""Pods without room: tried again when there may be some, and free of cost while there is none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from askos.adapters.sql.store import SqlStore
from askos.loops.placement import RENEWED, RETRY_US, WHOLE_US, PlacementLoop
from askos.model.capsules import VolumeGrant
from askos.plan import placement as plan

from .cloud import facts
from .test_store_pods import HOST, OTHER, Subject, subject

__all__ = ["subject"]


class Tried:
    """What was tried to be placed."""

    def __init__(self, store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uuids: list[str] = []
        self._place = store.place
        monkeypatch.setattr(store, "place", self.place)

    async def place(self, uuid: str, *arguments: Any) -> bool:
        self.uuids.append(uuid)
        return await self._place(uuid, *arguments)

    def since(self) -> list[str]:
        found, self.uuids = self.uuids, []
        return found


async def passed(subject: Subject, loop: PlacementLoop, later_us: int = RETRY_US) -> None:
    subject.now += later_us
    assert await loop.once() is False


async def test_while_there_is_no_room_nothing_is_tried(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    await subject.store.register_host(facts(HOST, "one", memory_mib=1000), "nova")
    loop = PlacementLoop(subject.store, plan.Ratios(memory=1.0), lambda: subject.now)
    waiting = [(await subject.create(f"n{i}", requests={"memory": "600Mi"})).uuid for i in range(6)]
    tried = Tried(subject.store, monkeypatch)
    await passed(subject, loop)
    assert tried.since() == waiting, "each once, as it is new"
    found = [await subject.get(uuid) for uuid in waiting]
    assert [c.placement.host_uuid for c in found] == [HOST] + [None] * 5
    for later in (RETRY_US, RETRY_US, WHOLE_US):
        await passed(subject, loop, later)
    assert tried.since() == []
    # One goes: one takes its place, and the others are not tried in vain.
    await subject.delete(waiting[0])
    gone = msgspec.structs.replace(_gone(await subject.get(waiting[0])))
    await subject.store.apply_reports(HOST, [gone])
    await passed(subject, loop)
    assert tried.since() == [waiting[1]]
    # Two more find room on a second host.
    await subject.store.register_host(facts(OTHER, "two", memory_mib=1300), "nova")
    await passed(subject, loop)
    assert tried.since()[:2] == waiting[2:4]
    assert [(await subject.get(u)).placement.host_uuid for u in waiting[1:]] == [HOST, OTHER, OTHER, None, None]


def _gone(capsule: Any) -> Any:
    from .test_store_pods import reported

    return reported(capsule, gone=True)


async def test_what_they_are_told_follows_a_few_at_a_time(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await subject.store.register_host(facts(HOST, "one", memory_mib=10), "nova")
    await subject.store.register_host(facts(OTHER, "two", memory_mib=10), "nova")
    loop = PlacementLoop(subject.store, plan.Ratios(memory=1.0), lambda: subject.now, silence_us=10**15)
    count = RENEWED + 7
    waiting = [(await subject.create(f"n{i}", requests={"memory": "1Gi"})).uuid for i in range(count)]
    await passed(subject, loop)
    await subject.store.host_seen(HOST, session, connected=False)
    tried = Tried(subject.store, monkeypatch)
    await passed(subject, loop)
    assert tried.since() == waiting[:RENEWED]
    await passed(subject, loop)
    assert tried.since() == waiting[RENEWED:]
    told = {(await subject.get(uuid)).placement.failure for uuid in waiting}
    assert told == {f"{plan.NO_HOST} Of 2: 1 not connected, 1 with less than 1024 MiB of memory left."}
    await passed(subject, loop)
    assert tried.since() == []


async def test_one_that_is_new_meanwhile_is_not_forgotten(subject: Subject) -> None:
    """Hosts look as they did at the last pass, but in between they were full when somebody new came."""
    await subject.store.register_host(facts(HOST, "one", memory_mib=1000), "nova")
    loop = PlacementLoop(subject.store, plan.Ratios(memory=1.0), lambda: subject.now)
    await passed(subject, loop)
    first = await subject.create("first", requests={"memory": "600Mi"})
    await loop.once()
    late = await subject.create("late", requests={"memory": "600Mi"})
    await loop.once()
    assert (await subject.get(late.uuid)).placement.failure is not None
    await subject.delete(first.uuid)
    await subject.store.apply_reports(HOST, [_gone(await subject.get(first.uuid))])
    await passed(subject, loop)
    assert (await subject.get(late.uuid)).placement.host_uuid == HOST


async def test_another_server_may_have_tried_it(subject: Subject) -> None:
    """What this server has not seen itself is found in a minute."""
    await subject.store.register_host(facts(HOST, "one", memory_mib=1000), "nova")
    loop = PlacementLoop(subject.store, plan.Ratios(memory=1.0), lambda: subject.now)
    await passed(subject, loop)
    late = await subject.create("late", requests={"memory": "600Mi"})
    await subject.store.place(late.uuid, lambda _c, _l: None, "another server saw no room")
    await passed(subject, loop)
    assert (await subject.get(late.uuid)).placement.host_uuid is None
    await passed(subject, loop, WHOLE_US)
    assert (await subject.get(late.uuid)).placement.host_uuid == HOST


async def test_volumes_and_runtimes_are_seen(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    await subject.store.register_host(facts(HOST, "one", memory_mib=100), "nova")
    loop = PlacementLoop(subject.store, plan.Ratios(memory=1.0), lambda: subject.now)
    grant = VolumeGrant("cccccccc-0000-4000-8000-000000000001", "data", 1 << 30)
    first = await subject.create("first", new_volumes=[grant], requests={"memory": "90Mi"})
    await passed(subject, loop)
    assert (await subject.get(first.uuid)).placement.host_uuid == HOST
    await subject.delete(first.uuid)
    await subject.store.apply_reports(HOST, [_gone(await subject.get(first.uuid))])
    full = await subject.create("full", requests={"memory": "90Mi"})
    await passed(subject, loop)
    bound = await subject.create("bound", volumes=[grant], requests={"memory": "90Mi"})
    odd = await subject.create("odd", runtime="gvisor")
    await passed(subject, loop)
    (one, two) = await subject.store.roomless()
    assert (one.uuid, one.volume_hosts, one.claim.memory_mib) == (bound.uuid, frozenset({HOST}), 90)
    assert (two.uuid, two.volume_hosts, two.claim.runtime) == (odd.uuid, frozenset(), "gvisor")
    # There is much room elsewhere, but for neither of them; they are told, once.
    await subject.store.register_host(facts(OTHER, "two"), "nova")
    tried = Tried(subject.store, monkeypatch)
    await passed(subject, loop)
    await passed(subject, loop)
    assert tried.since() == [bound.uuid, odd.uuid]
    await subject.delete(full.uuid)
    await subject.store.apply_reports(HOST, [_gone(await subject.get(full.uuid))])
    await subject.store.register_host(facts(OTHER, "two", runtimes=("runc", "gvisor")), "nova")
    await passed(subject, loop)
    assert (await subject.get(bound.uuid)).placement.host_uuid == HOST
    assert (await subject.get(odd.uuid)).placement.host_uuid == OTHER
