"""Volumes of the volume service in the store, and the loop that ends them: a real SQLite file, made-up hosts."""

from __future__ import annotations

import asyncio
import shutil
import uuid as uuids
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import func, select

from askos.adapters.sql import volumes as sql_volumes
from askos.adapters.sql.database import Database, sqlite_url
from askos.adapters.sql.schema import capsules, volume_attachments, volumes
from askos.adapters.sql.store import SqlStore
from askos.adapters.sql.volumes import SqlVolumes
from askos.loops.calls import Calls
from askos.loops.volumes import VolumeLoop
from askos.model.capsules import Capsule, CapsuleReport, CapsuleSpec, Report, VolumeGrant, Wish
from askos.model.errors import ConflictError, InvalidError, NotFoundError, RuntimeFailedError, UnavailableError
from askos.model.pods import Container, Pod, PodMetadata, PodSpec
from askos.model.volumes import GIB, Volume
from askos.ports.store import NewCapsule

from .cloud import NOW, facts
from .fakes import FakeHostCall, FakeHostCalls

HOST = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER = "aaaaaaaa-0000-4000-8000-000000000002"


class Subject:
    """A store with its volumes, a clock, and hosts that answer as told."""

    def __init__(self, path: Path) -> None:
        self.now = NOW
        self.rings = 0
        self.database = Database(sqlite_url(path))
        self.store = SqlStore(self.database, clock=lambda: self.now)
        self.volumes = SqlVolumes(self.database, on_delete=self.ring, clock=lambda: self.now)
        self.calls = FakeHostCalls()
        self.loop = VolumeLoop(self.volumes, self.calls)

    def ring(self) -> None:
        self.rings += 1

    async def volume(self, name: str = "data", project: str = "p", *, multiattach: bool = False) -> Volume:
        return await self.volumes.create(project, "u", name, 10, multiattach=multiattach)

    async def capsule(self, *grants: VolumeGrant, project: str = "p", fresh: tuple[VolumeGrant, ...] = ()) -> Capsule:
        pod = Pod(PodMetadata("n"), PodSpec([Container("app", "busybox")]))
        return await self.store.create_capsule(
            NewCapsule(
                uuid=str(uuids.uuid4()), kind="capsule", project_id=project, user_id="u", name="n",
                spec=CapsuleSpec(pod=pod), wish=Wish("running", run=1, at_us=NOW),
                volumes=list(grants), new_volumes=list(fresh),
            )
        )  # fmt: skip

    async def place(self, capsule: Capsule, host: str = HOST) -> None:
        if host not in {h.facts.uuid for h in await self.store.hosts()}:
            await self.store.register_host(facts(host, f"host-{host[-1]}"), "nova")
        assert await self.store.place(capsule.uuid, lambda _c, _l: host, "none")

    async def end(self, capsule: Capsule) -> None:
        """Its user deletes it, and its host (if any) says that it is gone."""
        found = await self.store.wish(
            capsule.uuid, lambda c: msgspec.structs.replace(c.wish, state="deleted", generation=c.wish.generation + 1)
        )
        if found.placement.host_uuid:
            sent = CapsuleReport(capsule.uuid, found.placement.epoch, Report(found.wish.generation, True), gone=True)
            assert await self.store.apply_reports(found.placement.host_uuid, [sent]) == [capsule.uuid]

    async def get(self, uuid: str) -> Volume:
        return await self.volumes.volume(uuid, None)

    async def count(self, table: Any) -> int:
        async with self.database.read() as connection:
            return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


def use(volume: Volume, name: str = "v", **more: Any) -> VolumeGrant:
    return VolumeGrant(volume.uuid, name, volume.size_gib * GIB, **more)


@pytest_asyncio.fixture
async def subject(template: Path, tmp_path: Path) -> AsyncIterator[Subject]:
    path = tmp_path / "askos.db"
    shutil.copy(template, path)
    made = Subject(path)
    yield made
    await made.database.close()


# -- by themselves ------------------------------------------------------------------------------------------------------


async def test_a_volume_is_made_found_and_deleted(subject: Subject) -> None:
    made = await subject.volume()
    assert made.status == "available" and made.host_uuid is None
    assert await subject.volumes.volume(made.uuid, "p") == made
    assert await subject.volumes.volume("data", "p") == made
    assert await subject.volumes.volumes("p") == [made]
    with pytest.raises(ConflictError, match="one of that name"):
        await subject.volume()
    elsewhere = await subject.volume(project="q")
    for project in ("q", "r"):
        with pytest.raises(NotFoundError):
            await subject.volumes.volume(made.uuid, project)
    assert {v.uuid for v in await subject.volumes.volumes(None)} == {made.uuid, elsewhere.uuid}
    with pytest.raises(ConflictError, match="Several"):
        await subject.volumes.volume("data", None)
    # No host has it: it is gone at once, and its name is free.
    deleted = await subject.volumes.delete(made.uuid)
    assert deleted.status == "deleting"
    assert subject.rings == 1
    with pytest.raises(NotFoundError):
        await subject.get(made.uuid)
    with pytest.raises(NotFoundError):
        await subject.volumes.delete(made.uuid)
    assert await subject.volumes.to_remove() == []
    await subject.volume()


async def test_many_creates_of_one_name_make_one(subject: Subject) -> None:
    outcomes = await asyncio.gather(*(subject.volume() for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(o, Volume) for o in outcomes) == 1
    assert sum(isinstance(o, ConflictError) for o in outcomes) == 7


# -- with capsules ------------------------------------------------------------------------------------------------------


async def test_a_capsule_has_its_volumes_until_it_is_gone(subject: Subject) -> None:
    data, more = await subject.volume(), await subject.volume("more")
    made = await subject.capsule(use(data, "b"), use(more, "a", read_only=True))
    assert made.volumes == [use(more, "a", read_only=True), use(data, "b")]
    await subject.place(made)
    (assignment,) = await subject.store.assignments(HOST)
    assert assignment.volumes == made.volumes
    found = await subject.get(data.uuid)
    assert (found.status, found.attachments, found.host_uuid) == ("in-use", [made.uuid], HOST)
    with pytest.raises(ConflictError, match=made.uuid):
        await subject.volumes.delete(data.uuid)
    await subject.end(made)
    found = await subject.get(data.uuid)
    assert (found.status, found.attachments, found.host_uuid) == ("available", [], HOST)
    assert await subject.count(volume_attachments) == 0


async def test_a_refused_volume_refuses_the_whole_create(subject: Subject) -> None:
    data, foreign = await subject.volume(), await subject.volume(project="q")
    gone = await subject.volume("gone")
    first = await subject.capsule(use(data))
    await subject.place(first)
    used = await subject.capsule(use(gone))
    await subject.place(used)
    await subject.end(used)
    assert (await subject.volumes.delete(gone.uuid)).status == "deleting"
    before = await subject.count(capsules), await subject.count(volume_attachments)
    for grant, why in (
        (use(data), f"capsule {first.uuid} uses it"),
        (use(foreign), "no such volume in this project"),
        (VolumeGrant(str(uuids.uuid4()), "v", 1), "no such volume"),
        (use(gone), "it is being deleted"),
    ):
        with pytest.raises(ConflictError, match=why):
            await subject.capsule(grant)
        with pytest.raises(ConflictError, match=why):
            await subject.capsule(use(await subject.volume(str(uuids.uuid4())), "w"), grant)
    assert (await subject.count(capsules), await subject.count(volume_attachments)) == before


async def test_of_many_at_once_one_gets_a_volume(subject: Subject) -> None:
    data = await subject.volume()
    outcomes = await asyncio.gather(*(subject.capsule(use(data)) for _ in range(8)), return_exceptions=True)
    (winner,) = [o for o in outcomes if isinstance(o, Capsule)]
    assert sum(isinstance(o, ConflictError) for o in outcomes) == 7
    assert (await subject.get(data.uuid)).attachments == [winner.uuid]


async def test_multi_attach_is_for_several_on_one_host(subject: Subject) -> None:
    shared, alone = await subject.volume("shared", multiattach=True), await subject.volume("alone")
    first, second = await subject.capsule(use(shared)), await subject.capsule(use(shared), use(alone, "w"))
    assert (await subject.get(shared.uuid)).attachments == sorted([first.uuid, second.uuid])
    await subject.place(first)
    async with subject.database.read() as connection:
        assert await sql_volumes.hosts_of(connection, second.uuid) == {HOST}
    with pytest.raises(ConflictError, match=HOST):
        await subject.place(second, OTHER)
    assert (await subject.get(alone.uuid)).host_uuid is None
    await subject.place(second)
    assert (await subject.get(alone.uuid)).host_uuid == HOST
    # What lies on two hosts goes into no capsule.
    far = await subject.volume("far")
    third = await subject.capsule(use(far))
    await subject.place(third, OTHER)
    await subject.end(third)
    with pytest.raises(ConflictError, match="another host"):
        await subject.capsule(use(shared), use(far, "w"))


async def test_one_volume_twice_in_one_capsule(subject: Subject) -> None:
    data = await subject.volume()
    made = await subject.capsule(use(data, "a"), use(data, "b", read_only=True))
    assert [grant.name for grant in made.volumes] == ["a", "b"]
    assert (await subject.get(data.uuid)).attachments == [made.uuid]


async def test_new_volumes_come_and_go_with_their_capsule(subject: Subject) -> None:
    kept = VolumeGrant(str(uuids.uuid4()), "kept", 2 * GIB + 1)
    temporary = VolumeGrant(str(uuids.uuid4()), "temporary", GIB, auto_remove=True)
    made = await subject.capsule(fresh=(kept, temporary))
    assert made.volumes == [msgspec.structs.replace(kept, size_bytes=3 * GIB), temporary]
    assert (await subject.get(kept.uuid)).name == f"{made.uuid}-kept"
    # Another capsule of the same template.
    await subject.capsule(fresh=tuple(msgspec.structs.replace(g, uuid=str(uuids.uuid4())) for g in (kept, temporary)))
    await subject.place(made)
    await subject.end(made)
    assert (await subject.get(kept.uuid)).status == "available"
    assert (await subject.get(temporary.uuid)).status == "deleting"
    assert [v.uuid for v in await subject.volumes.to_remove()] == [temporary.uuid]


async def test_an_automatic_volume_that_was_never_used_goes_at_once(subject: Subject) -> None:
    made = await subject.capsule(fresh=(VolumeGrant(str(uuids.uuid4()), "t", GIB, auto_remove=True),))
    await subject.end(made)
    assert await subject.count(volumes) == 0


async def test_an_automatic_volume_stays_while_others_use_it(subject: Subject) -> None:
    shared = await subject.volume(multiattach=True)
    first, second = await subject.capsule(use(shared, auto_remove=True)), await subject.capsule(use(shared))
    await subject.place(first)
    await subject.place(second)
    await subject.end(first)
    assert (await subject.get(shared.uuid)).status == "in-use"
    await subject.end(second)
    assert (await subject.get(shared.uuid)).status == "available"


# -- the end ------------------------------------------------------------------------------------------------------------


async def deleted(subject: Subject, name: str = "data", host: str = HOST) -> Volume:
    """A volume that a host has and its user does not want any more."""
    made = await subject.volume(name)
    capsule = await subject.capsule(use(made))
    await subject.place(capsule, host)
    await subject.end(capsule)
    return await subject.volumes.delete(made.uuid)


async def test_the_host_is_asked_until_it_confirms(subject: Subject) -> None:
    volume = await deleted(subject)
    # The name is free already.
    again = await subject.volume()
    assert await subject.volumes.volume("data", "p") == again
    subject.calls.answers["volume_remove"] = UnavailableError("not connected")
    await subject.loop.once()
    assert (await subject.get(volume.uuid)).status == "deleting"
    subject.calls.answers["volume_remove"] = ConflictError("It is still mounted.")
    await subject.loop.once()
    found = await subject.get(volume.uuid)
    assert (found.status, found.failure) == ("error", "It is still mounted.")
    subject.calls.answers["volume_remove"] = RuntimeFailedError("The disk is broken.")
    await subject.loop.once()
    assert (await subject.get(volume.uuid)).failure == "The disk is broken."
    subject.calls.answers["volume_remove"] = None
    await subject.loop.once()
    assert subject.calls.asked[-1][:3] == (HOST, "volume_remove", {"uuid": volume.uuid})
    with pytest.raises(NotFoundError):
        await subject.get(volume.uuid)
    asked = len(subject.calls.asked)
    await subject.loop.once()
    assert len(subject.calls.asked) == asked
    assert await subject.get(again.uuid) == again


async def test_one_host_that_fails_does_not_hold_up_another(subject: Subject) -> None:
    stuck, fine = await deleted(subject, "stuck"), await deleted(subject, "fine", OTHER)
    more = await deleted(subject, "more")

    class Hosts(FakeHostCalls):
        async def call(self, host_uuid: str, method: str, arguments: dict[str, Any], timeout_s: float) -> Any:
            if arguments["uuid"] == stuck.uuid:
                raise ConflictError("It is still mounted.")

    await VolumeLoop(subject.volumes, Hosts()).once()
    assert [v.uuid for v in await subject.volumes.to_remove()] == [stuck.uuid]
    assert fine.uuid != more.uuid


async def test_a_wrong_confirmation_removes_nothing(subject: Subject) -> None:
    volume = await deleted(subject)
    await subject.volumes.removed(volume.uuid, OTHER)
    alive = await subject.volume("alive")
    capsule = await subject.capsule(use(alive))
    await subject.place(capsule)
    await subject.end(capsule)
    await subject.volumes.removed(alive.uuid, HOST)
    assert (await subject.get(volume.uuid)).status == "deleting"
    assert (await subject.get(alive.uuid)).status == "available"
    await subject.volumes.failed(alive.uuid, "no")
    assert (await subject.get(alive.uuid)).failure is None


async def test_nobody_waits_for_a_silent_host_but_its_file_is_not_forgotten(subject: Subject) -> None:
    volume = await deleted(subject)
    alive = await subject.volume("alive")
    capsule = await subject.capsule(use(alive))
    await subject.place(capsule)
    await subject.end(capsule)
    await subject.loop.once()
    assert (await subject.get(volume.uuid)).status == "deleting"
    subject.now += 61_000_000
    await subject.loop.once()
    with pytest.raises(NotFoundError):
        await subject.get(volume.uuid)
    # A volume that is wanted waits for its host, however long.
    assert await subject.volumes.volumes("p") == [await subject.get(alive.uuid)]
    await subject.loop.once()
    assert [v.uuid for v in await subject.volumes.to_remove()] == [volume.uuid]
    # It comes back.
    subject.calls.answers["volume_remove"] = None
    await subject.loop.once()
    assert await subject.volumes.to_remove() == []
    assert await subject.count(volumes) == 1


async def test_a_host_that_is_registered_no_more_holds_nothing(subject: Subject) -> None:
    volume = await deleted(subject)
    async with subject.database.write() as connection:
        await connection.execute(
            volumes.update().where(volumes.c.uuid == volume.uuid).values(host_uuid=str(uuids.uuid4()))
        )
    assert await subject.volumes.drop_silent(60_000_000) == [volume.uuid]
    assert await subject.count(volumes) == 0


async def test_the_loop_goes_on_after_errors_and_wakes_at_a_ring(subject: Subject) -> None:
    volume = await deleted(subject)
    answers: list[Exception | None] = [ValueError("a mistake"), None]

    def answer(_arguments: dict[str, Any]) -> None:
        found = answers.pop(0)
        if found is not None:
            raise found

    subject.calls.answers["volume_remove"] = answer
    task = asyncio.ensure_future(VolumeLoop(subject.volumes, subject.calls, every_s=0.01).run())
    try:
        async with asyncio.timeout(10):
            while answers or await subject.volumes.to_remove():
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(NotFoundError):
        await subject.get(volume.uuid)


async def test_the_hosts_end_of_the_call(tmp_path: Path) -> None:
    removed: list[str] = []

    class Host:
        async def remove_volume(self, uuid: str) -> None:
            if uuid == "mounted":
                raise ConflictError("It is still mounted.")
            removed.append(uuid)

    agent: Any = SimpleNamespace(runtime=None, service_images=SimpleNamespace(wants=None, take=None))
    host: Any = Host()
    calls = Calls(agent, tmp_path, host)
    assert await calls(FakeHostCall("volume_remove", {"uuid": "a"})) is None
    with pytest.raises(ConflictError, match="mounted"):
        await calls(FakeHostCall("volume_remove", {"uuid": "mounted"}))
    assert removed == ["a"]
    with pytest.raises(InvalidError, match="no volumes"):
        await Calls(agent, tmp_path)(FakeHostCall("volume_remove", {"uuid": "a"}))
