"""Pods in the store: content at rest, client tokens, labels, events, tombstones, placement, and the migration."""

from __future__ import annotations

import sqlite3
import uuid as uuids
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from askos.adapters.sql import migrate
from askos.adapters.sql.database import Database, sqlite_url
from askos.adapters.sql.schema import capsule_events, capsule_labels, capsules, ports
from askos.adapters.sql.sealing import Sealer
from askos.adapters.sql.store import SqlStore
from askos.loops.placement import RETRY_US, PlacementLoop
from askos.model.capsules import Capsule, CapsuleReport, CapsuleSpec, ContainerSpec, Report, VolumeGrant, Wish
from askos.model.errors import ConflictError, InvalidError, NotFoundError, SetupError
from askos.model.pods import (
    ConfigMap,
    Container,
    Content,
    Event,
    Pod,
    PodContainerReport,
    PodMetadata,
    PodReport,
    PodSpec,
    Resources,
    Secret,
)
from askos.plan import placement as plan
from askos.ports.store import Change, NewCapsule, Query, Requirement

from .cloud import NOW, POOL, facts

HOST = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER = "aaaaaaaa-0000-4000-8000-000000000002"
KEY = bytes(range(32))
SECRET = Content(
    config_maps={"settings": ConfigMap(data={"mode": "fast"})}, secrets={"key": Secret(data={"password": b"hunter2"})}
)


def new(name: str = "web", project: str = "p", labels: dict[str, str] | None = None, **more: Any) -> NewCapsule:
    resources = Resources(requests=more.pop("requests", {}))
    metadata = PodMetadata(name, namespace=more.pop("namespace", "default"), labels=labels or {})
    runtime = more.pop("runtime", None)
    pod = Pod(metadata, PodSpec([Container("app", "busybox", resources=resources)], runtime_class_name=runtime))
    spec = CapsuleSpec(labels=metadata.labels, pod=pod, auto_remove=more.pop("auto_remove", False))
    fields = {"wish": Wish("running", run=1, at_us=NOW), "unique_name": True, **more}
    return NewCapsule(str(uuids.uuid4()), "capsule", project, "u", name, spec, **fields)


class Subject:
    """A store on its own file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = NOW
        self.told: list[Change] = []
        self.database = Database(sqlite_url(path))
        self.store = self.with_key(KEY)

    def with_key(self, key: bytes | None) -> SqlStore:
        sealer = None if key is None else Sealer(key)
        return SqlStore(self.database, on_change=self.told.append, clock=lambda: self.now, sealer=sealer)

    async def create(self, *arguments: Any, **more: Any) -> Capsule:
        return await self.store.create_capsule(new(*arguments, **more))

    async def get(self, uuid: str) -> Capsule:
        (found,) = await self.store.capsules_by_uuid([uuid])
        return found

    async def placed(self, host: str = HOST, **more: Any) -> Capsule:
        if host not in {h.facts.uuid for h in await self.store.hosts()}:
            await self.store.register_host(facts(host, f"host-{host[-1]}"), "nova")
        made = await self.create(**more)
        assert await self.store.place(made.uuid, lambda _c, _l: host, "none")
        return await self.get(made.uuid)

    async def delete(self, uuid: str) -> Capsule:
        def gone(c: Capsule) -> Wish:
            return msgspec.structs.replace(c.wish, state="deleted", task="deleting", generation=c.wish.generation + 1)

        return await self.store.wish(uuid, gone)

    def sqlite(self, statement: str) -> list[Any]:
        with sqlite3.connect(self.path) as connection:
            found = connection.execute(statement).fetchall()
        connection.close()
        return found


@pytest_asyncio.fixture
async def subject(template: Path, tmp_path: Path) -> AsyncIterator[Subject]:
    path = tmp_path / "askos.db"
    path.write_bytes(template.read_bytes())
    made = Subject(path)
    yield made
    await made.database.close()


def relabelled(labels: dict[str, str]) -> Any:
    def change(c: Capsule) -> tuple[CapsuleSpec, Wish]:
        assert c.spec.pod is not None
        metadata = msgspec.structs.replace(c.spec.pod.metadata, labels=labels)
        pod = msgspec.structs.replace(c.spec.pod, metadata=metadata)
        spec = msgspec.structs.replace(c.spec, pod=pod, labels=labels)
        return spec, msgspec.structs.replace(c.wish, generation=c.wish.generation + 1)

    return change


def reported(of: Capsule, pod: PodReport | None = None, *, gone: bool = False, **more: Any) -> CapsuleReport:
    body = Report(of.wish.generation, settled=True, state=more.pop("state", "running"), pod=pod)
    return CapsuleReport(of.uuid, of.placement.epoch, body, gone, **more)


# -- content ------------------------------------------------------------------------------------------------------


async def test_content_is_encrypted_at_rest(subject: Subject) -> None:
    made = await subject.placed(content=SECRET)
    assert made.content_revision == 1
    assert await subject.store.content(made.uuid) == SECRET
    (assignment,) = await subject.store.assignments(HOST)
    assert (assignment.content, assignment.content_revision, assignment.kind) == (SECRET, 1, "capsule")
    assert (assignment.created_us, assignment.volumes) == (NOW, [])
    assert await subject.store.assignments_of(HOST, [made.uuid]) == [assignment]
    await subject.store.update_capsule(made.uuid, relabelled({"a": "b"}), SECRET)
    await subject.delete(made.uuid)
    await subject.store.apply_reports(HOST, [reported(await subject.get(made.uuid), gone=True)])
    await subject.database.close()
    whole = b"".join(p.read_bytes() for p in subject.path.parent.glob("askos.db*"))
    assert made.uuid.encode() in whole
    for clear in (b"hunter2", b"aHVudGVyMg", b"settings", b"fast"):
        assert clear not in whole


async def test_content_belongs_to_its_capsule_and_key(subject: Subject) -> None:
    one, two = await subject.create("one", content=SECRET), await subject.create("two", content=Content())
    assert await subject.store.content(two.uuid) == Content()
    assert (await subject.get(two.uuid)).content_revision == 0
    with pytest.raises(SetupError, match="another content key"):
        await subject.with_key(b"x" * 32).content(one.uuid)
    with pytest.raises(SetupError, match="no content key"):
        await subject.with_key(None).content(one.uuid)
    assert await subject.with_key(None).content(two.uuid) == Content()
    async with subject.database.write() as connection:
        moved = f"UPDATE capsules SET content = (SELECT content FROM capsules WHERE uuid = '{one.uuid}')"
        await connection.execute(text(f"{moved} WHERE uuid = '{two.uuid}'"))
    with pytest.raises(SetupError, match=two.uuid):
        await subject.store.content(two.uuid)
    with pytest.raises(NotFoundError):
        await subject.store.content("nobody")


def test_sealing_never_says_the_same_twice() -> None:
    sealer = Sealer(KEY)
    one, two = sealer.seal("u", SECRET), sealer.seal("u", SECRET)
    assert one is not None and two is not None and one != two
    assert sealer.open("u", one) == sealer.open("u", two) == SECRET
    for broken in (one[:-1], one[:1], b"", b"\x02" + one[1:], one[:-1] + bytes([one[-1] ^ 1])):
        with pytest.raises(SetupError):
            sealer.open("u", broken)
    assert Sealer(KEY).fingerprint == sealer.fingerprint != Sealer(b"x" * 32).fingerprint
    with pytest.raises(SetupError):
        Sealer(b"short")


# -- creating and changing ------------------------------------------------------------------------------------------


async def test_a_token_makes_one(subject: Subject) -> None:
    made = await subject.create("a", token="t")
    before = await subject.store.revision()
    assert await subject.create("b", token="t") == made
    assert await subject.store.revision() == before
    assert (await subject.create("c", "q", token="t")).uuid != made.uuid
    assert (await subject.create("d")).uuid != (await subject.create("e")).uuid  # no token is nobody's
    with pytest.raises(ConflictError, match=made.uuid):
        await subject.create("a")
    await subject.create("a", namespace="blue")
    await subject.create("a", unique_name=False)


async def test_claims_and_columns(subject: Subject) -> None:
    made = await subject.placed(requests={"cpu": "250m", "memory": "1000k"})
    rows = "SELECT cpu, memory_mib, image, namespace, status FROM capsules"
    assert subject.sqlite(rows) == [(250, 1, "busybox", "default", "Creating")]
    pod = PodReport("Running", containers=[PodContainerReport("app", "running")])
    await subject.store.apply_reports(HOST, [reported(made, pod)])
    assert subject.sqlite("SELECT status, task_state FROM capsules") == [("Running", None)]
    assert (await subject.get(made.uuid)).report.pod == pod


async def test_an_update(subject: Subject) -> None:
    made = await subject.placed(labels={"a": "1"})
    changed = await subject.store.update_capsule(made.uuid, relabelled({"b": "2"}))
    assert changed == await subject.get(made.uuid)
    assert (changed.wish.generation, changed.content_revision, changed.spec.labels) == (2, 0, {"b": "2"})
    assert subject.told[-1].host_uuid == HOST
    told = len(subject.told)
    same = await subject.store.update_capsule(made.uuid, lambda c: (c.spec, c.wish))
    assert (same, len(subject.told)) == (changed, told)
    with pytest.raises(NotFoundError):
        await subject.store.update_capsule("nobody", lambda c: (c.spec, c.wish))

    def refuse(_c: Capsule) -> tuple[CapsuleSpec, Wish]:
        raise ConflictError("no")

    with pytest.raises(ConflictError):
        await subject.store.update_capsule(made.uuid, refuse, SECRET)
    assert await subject.store.content(made.uuid) == Content()


async def test_names_mean_those_that_stay(subject: Subject) -> None:
    old = await subject.placed()
    await subject.delete(old.uuid)
    assert (await subject.store.capsule("web", "p", "capsule")).uuid == old.uuid
    fresh = await subject.create()
    blue = await subject.create(namespace="blue")
    with pytest.raises(ConflictError, match="Multiple capsules"):
        await subject.store.capsule("web", "p", "capsule")
    assert (await subject.store.capsule("web", "p", "capsule", "default")).uuid == fresh.uuid
    assert (await subject.store.capsule("web", "p", "capsule", "blue")).uuid == blue.uuid
    for project, kind in (("q", "capsule"), ("p", "container")):
        with pytest.raises(NotFoundError):
            await subject.store.capsule(blue.uuid, project, kind)  # type: ignore[arg-type]


async def test_label_selection(subject: Subject) -> None:
    made = {
        "a": {"app": "web", "tier": "front"}, "b": {"app": "web"}, "c": {"app": "db"}, "d": {},
    }  # fmt: skip
    for name, labels in made.items():
        await subject.create(name, labels=labels)

    async def found(*terms: Requirement, **more: Any) -> str:
        query = Query(kind="capsule", project_id="p", selector=list(terms), **more)
        page = await subject.store.capsules(query)
        assert [(c.uuid, c.revision) for c in page] == await subject.store.page(query)
        return "".join(c.name for c in page)

    assert await found() == "abcd"
    assert await found(Requirement("app", "in", ["web", "x"])) == "ab"
    assert await found(Requirement("app", "notin", ["web"])) == "cd"
    assert await found(Requirement("tier", "exists")) == "a"
    assert await found(Requirement("tier", "missing"), Requirement("app", "exists")) == "bc"
    assert await found(Requirement("app", "in", []), Requirement("app", "exists")) == ""
    assert await found(namespace="other") == ""
    (first, *_) = await subject.store.capsules(Query(kind="capsule", limit=2))
    assert await found(Requirement("app", "exists"), after=first.id) == "bc"
    await subject.store.update_capsule(first.uuid, relabelled({"tier": "back"}))
    assert await found(Requirement("app", "exists")) == "bc"
    assert await found(Requirement("tier", "in", ["back"])) == "a"


# -- the end of a capsule ---------------------------------------------------------------------------------------------


async def test_nothing_is_left_but_what_watchers_need(subject: Subject) -> None:
    made = await subject.placed(labels={"a": "b"}, content=SECRET)
    told = [Event("Normal", "Pulled", "x")]
    await subject.store.apply_reports(HOST, [reported(made, PodReport("Running"), events=told)])
    await subject.delete(made.uuid)
    final = PodReport("Succeeded", containers=[PodContainerReport("app", "terminated")])
    gone = reported(await subject.get(made.uuid), final, gone=True, state="exited")
    assert await subject.store.apply_reports(HOST, [gone, gone]) == [made.uuid, made.uuid]
    for table in (capsules, ports, capsule_labels, capsule_events):
        assert subject.sqlite(f"SELECT count(*) FROM {table.name}") == [(0,)]
    (tombstone,) = [c for c in await subject.store.changes(0) if c.deleted]
    assert tombstone.last is not None
    assert tombstone.last.report.pod == final
    assert (tombstone.last.uuid, tombstone.last.ports) == (made.uuid, made.ports)
    assert tombstone.last.revision == tombstone.revision
    assert subject.told[-1] == msgspec.structs.replace(tombstone, host_uuid=HOST)


async def test_orphans_and_auto_remove(subject: Subject) -> None:
    lost, done = await subject.placed(name="lost"), await subject.placed(name="done", auto_remove=True)
    await subject.store.apply_reports(HOST, [reported(done, PodReport("Failed"), state="error")])
    assert (await subject.get(done.uuid)).wish.state == "deleted"
    assert (await subject.get(lost.uuid)).wish.state == "running"
    subject.now += 400_000_000
    assert await subject.store.fail_waiting(300_000_000, "silent") == [lost.uuid]
    assert (await subject.get(lost.uuid)).placement.failure == "silent"
    assert await subject.store.drop_orphans(60_000_000) == [done.uuid]
    assert subject.told[-1].last is not None


async def test_events_are_counted_and_the_oldest_forgotten(subject: Subject) -> None:
    made = await subject.placed()

    async def tell(*told: Event, **more: Any) -> None:
        sent = reported(made, PodReport("Running"), events=list(told))
        await subject.store.apply_reports(HOST, [msgspec.structs.replace(sent, **more)])

    back_off = Event("Warning", "BackOff", "again", "app", 10)
    await tell(back_off, Event("Warning", "BackOff", "again", "side", 11), Event("Normal", "BackOff", "again", "app"))
    await tell(msgspec.structs.replace(back_off, at_us=30, count=4), back_off)
    found = await subject.store.events(made.uuid)
    assert [(e.type, e.container, e.count, e.first_us, e.at_us) for e in found] == [
        ("Warning", "side", 1, 11, 11), ("Warning", "app", 6, 10, 30), ("Normal", "app", 1, NOW, NOW),
    ]  # fmt: skip
    await tell(Event("Normal", "Old", "epoch"), epoch=7)
    await tell(*(Event("Normal", "N", str(n), at_us=100 + n) for n in range(250)))
    found = await subject.store.events(made.uuid)
    assert len(found) == 200
    assert [e.message for e in found] == [str(n) for n in range(51, 250)] + ["again"]


# -- what moved -----------------------------------------------------------------------------------------------------


async def test_what_moved(subject: Subject) -> None:
    old, other = await subject.create("old", labels={"a": "1"}), await subject.create("other", "q")
    start = await subject.store.revision()
    await subject.store.update_capsule(old.uuid, relabelled({"a": "2"}))
    fresh = await subject.create("fresh")
    await subject.store.update_capsule(old.uuid, relabelled({"a": "3"}))
    brief = await subject.create("brief")
    await subject.delete(brief.uuid)
    await subject.delete(other.uuid)
    container = NewCapsule(
        str(uuids.uuid4()), "container", "p", "u", "n", CapsuleSpec([ContainerSpec("main", "x")]), Wish("running")
    )
    await subject.store.create_capsule(container)
    revision, moved = await subject.store.moved(start, "p")
    assert revision == await subject.store.revision()
    assert [(m.capsule.name, m.first - start, m.created, m.deleted, m.labels_before) for m in moved] == [
        ("old", 1, False, False, {"a": "1"}), ("fresh", 2, True, False, None), ("brief", 4, True, True, None),
    ]  # fmt: skip
    assert moved[0].capsule == await subject.get(old.uuid)
    assert moved[1].capsule == await subject.get(fresh.uuid)
    assert [m.capsule.name for m in (await subject.store.moved(start, None))[1]] == ["old", "fresh", "brief", "other"]
    # A part at a time, each pod as it is now.
    reached, moved = await subject.store.moved(start, "p", 2)
    assert (reached, [m.capsule.name for m in moved]) == (start + 2, ["old", "fresh"])
    assert moved[0].capsule.spec.labels == {"a": "3"}
    reached, moved = await subject.store.moved(reached, "p", 2)
    assert [(m.capsule.name, m.labels_before) for m in moved] == [("old", {"a": "2"}), ("brief", None)]
    assert await subject.store.moved(revision, "p") == (revision, [])
    await subject.store.prune_changes(1)
    for unknown in (0, revision - 2, revision + 1):
        with pytest.raises(InvalidError) as gone:
            await subject.store.moved(unknown, "p")
        assert gone.value.code == "revision-gone"


# -- placement ------------------------------------------------------------------------------------------------------


async def test_a_pod_waits_for_room_and_says_what_is_lacking(subject: Subject) -> None:
    await subject.store.register_host(facts(HOST, "one", memory_mib=100), "nova")
    loop = PlacementLoop(subject.store, plan.Ratios(memory=1.0), lambda: subject.now)
    big, odd = await subject.create("big", requests={"memory": "200Mi"}), await subject.create("odd", runtime="gvisor")
    await loop.once()
    assert (await subject.get(big.uuid)).placement.failure == (
        f"{plan.NO_HOST} Of 1: 1 with less than 200 MiB of memory left."
    )
    assert (
        await subject.get(odd.uuid)
    ).placement.failure == f'{plan.NO_HOST} Of 1: 1 without the runtime class "gvisor".'
    before = await subject.store.revision()
    subject.now += RETRY_US
    await loop.once()
    assert await subject.store.revision() == before, "nothing new was said"
    await subject.store.register_host(facts(OTHER, "two", runtimes=("runc", "gvisor")), "nova")
    await loop.once()
    assert (await subject.get(big.uuid)).placement.host_uuid is None, "not at every ring"
    subject.now += RETRY_US
    await loop.once()
    for uuid in (big.uuid, odd.uuid):
        found = await subject.get(uuid)
        assert (found.placement.host_uuid, found.placement.failure) == (OTHER, None)


async def test_a_pod_goes_where_its_volumes_are(subject: Subject) -> None:
    await subject.store.register_host(facts(HOST, "one", memory_mib=100), "nova")
    await subject.store.register_host(facts(OTHER, "two"), "nova")
    loop = PlacementLoop(subject.store, plan.Ratios(), lambda: subject.now)
    fresh = VolumeGrant(str(uuids.uuid4()), "data", 1 << 30)
    first = await subject.create("first", new_volumes=[fresh])
    assert [g.uuid for g in first.volumes] == [fresh.uuid]
    assert await subject.store.place(first.uuid, lambda _c, _l: HOST, "none")  # the small one
    assert [a.volumes for a in await subject.store.assignments(HOST)] == [first.volumes]
    await subject.delete(first.uuid)
    await subject.store.apply_reports(HOST, [reported(await subject.get(first.uuid), gone=True)])
    second = await subject.create("second", volumes=[fresh])
    third = await subject.create("third")
    await loop.once()
    assert (await subject.get(second.uuid)).placement.host_uuid == HOST
    assert (await subject.get(third.uuid)).placement.host_uuid == OTHER
    await subject.delete(second.uuid)
    await subject.store.apply_reports(HOST, [reported(await subject.get(second.uuid), gone=True)])
    await subject.store.host_seen(HOST, 1, connected=False)
    stuck = await subject.create("stuck", volumes=[fresh])
    await loop.once()
    assert (await subject.get(stuck.uuid)).placement.failure == (
        f"{plan.NO_HOST} Of 2: 1 not connected, 1 without the capsule's volumes."
    )


async def test_generations(subject: Subject) -> None:
    made = await subject.placed()
    await subject.store.update_capsule(made.uuid, relabelled({"a": "b"}))
    await subject.create("loose")
    assert await subject.store.generations(HOST) == {made.uuid: (1, 2)}


# -- migration ------------------------------------------------------------------------------------------------------


async def test_a_database_of_the_first_release_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    config.attributes["url"] = f"sqlite:///{path}"
    command.upgrade(config, "0001")
    with sqlite3.connect(path) as old:
        spec = msgspec.json.encode(CapsuleSpec([ContainerSpec("main", "busybox")])).decode()
        wish, report = msgspec.json.encode(Wish("running")).decode(), msgspec.json.encode(Report()).decode()
        old.execute("INSERT INTO cloud VALUES ('network_pool', ?)", (POOL,))
        old.execute("INSERT INTO networks VALUES ('n', 'p', 'default', '10.64.0.0/22', '10.64.0.1', 's', 0)")
        for number in (1, 2):
            old.execute(
                "INSERT INTO changes (kind, uuid, project_id, deleted, at_us) VALUES ('container', ?, 'p', 0, 0)",
                (f"c{number}",),
            )
            old.execute(
                "INSERT INTO capsules (uuid, project_id, user_id, name, kind, spec, wish, wish_state, epoch, cpu, "
                "memory_mib, report, status, image, auto_remove, revision, created_us) VALUES "
                "(?, 'p', 'u', 'n', 'container', ?, ?, 'running', 0, 1000, 512, ?, 'Creating', 'busybox', 0, ?, 5)",
                (f"c{number}", spec, wish, report, number),
            )
            old.execute(
                "INSERT INTO ports VALUES (?, 'n', ?, ?, ?, 'm', 0)",
                (f"port{number}", f"c{number}", f"10.64.0.{number + 1}", 171966465 + number),
            )
        old.execute("DELETE FROM ports WHERE capsule_uuid = 'c2'")
        old.execute("DELETE FROM capsules WHERE uuid = 'c2'")
        old.execute("DELETE FROM changes WHERE uuid = 'c2'")
    old.close()
    database = Database(sqlite_url(path))
    try:
        await migrate.upgrade(database)
        await migrate.upgrade(database)
        store = SqlStore(database, sealer=Sealer(KEY), clock=lambda: NOW)
        (kept,) = await store.capsules(Query())
        assert (kept.uuid, kept.name, kept.content_revision, kept.volumes) == ("c1", "n", 0, [])
        assert [p.address for p in kept.ports] == ["10.64.0.2"]
        (change,) = await store.changes(0)
        assert change == Change(1, "container", "c1", deleted=False, project_id="p")
        made = await store.create_capsule(new(content=SECRET))
        # Numbers that were given once are not given again.
        assert (made.id, made.revision) == (3, 3)
        assert await store.content(made.uuid) == SECRET
        assert (await store.capsule("c1", "p", "container")).uuid == "c1"
    finally:
        await database.close()
