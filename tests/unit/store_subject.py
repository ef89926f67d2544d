"""A store on a SQLite file of its own, with hosts, a clock and what tests write into it."""

from __future__ import annotations

import shutil
import uuid as uuids
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest_asyncio
from sqlalchemy import func, select

from askos.adapters.sql.database import Database, sqlite_url
from askos.adapters.sql.store import SqlStore
from askos.model.capsules import (
    Capsule,
    CapsuleReport,
    CapsuleSpec,
    CapsuleState,
    ContainerSpec,
    Report,
    Wish,
)
from askos.ports.store import Change, NewCapsule

from .cloud import NOW, facts

HOST = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER = "aaaaaaaa-0000-4000-8000-000000000002"


class Subject:
    """A store, its file, its clock, and what it told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = NOW
        self.told: list[Change] = []
        self.databases: list[Database] = []
        self.store = self.another()

    def another(self) -> SqlStore:
        """One more server on the same file."""
        database = Database(sqlite_url(self.path))
        self.databases.append(database)
        return SqlStore(database, on_change=self.told.append, clock=lambda: self.now)

    @property
    def database(self) -> Database:
        return self.databases[0]

    async def count(self, table: object) -> int:
        async with self.database.read() as connection:
            return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())  # type: ignore[arg-type]

    async def create(self, project: str = "p", store: SqlStore | None = None, **fields: object) -> Capsule:
        return await (store or self.store).create_capsule(new(project, **fields))

    async def hosts(self, *uuids_: str, **more: object) -> None:
        for uuid in uuids_ or (HOST,):
            await self.store.register_host(facts(uuid, f"host-{uuid[-1]}", **more), "nova")

    async def placed(self, host: str = HOST, **fields: object) -> Capsule:
        """A capsule with a host."""
        made = await self.create(**fields)  # type: ignore[arg-type]
        if host not in {h.facts.uuid for h in await self.store.hosts()}:
            await self.hosts(host)
        assert await self.store.place(made.uuid, lambda _c, _l: host, "none")
        return await self.get(made.uuid)

    async def get(self, uuid: str) -> Capsule:
        (found,) = await self.store.capsules_by_uuid([uuid])
        return found

    async def gone(self, uuid: str) -> bool:
        return await self.store.capsules_by_uuid([uuid]) == []


def new(project: str = "p", **fields: object) -> NewCapsule:
    container = ContainerSpec("main", "busybox", memory_mib=int(str(fields.pop("memory", 64))))
    spec = CapsuleSpec([container], auto_remove=bool(fields.pop("auto_remove", False)))
    usual: dict[str, object] = {"wish": Wish("running", run=1, at_us=NOW), "name": "n", "kind": "container"}
    return NewCapsule(uuid=str(uuids.uuid4()), project_id=project, user_id="u", spec=spec, **{**usual, **fields})  # type: ignore[arg-type]


def report(
    of: Capsule, state: CapsuleState = "running", *, gone: bool = False, epoch: int | None = None, **more: object
) -> CapsuleReport:
    fields: dict[str, Any] = {"generation": of.wish.generation, "settled": True, "state": state}
    return CapsuleReport(
        of.uuid,
        of.placement.epoch if epoch is None else epoch,
        Report(**{**fields, **more}),
        gone,
    )


def rewish(state: str) -> Callable[[Capsule], Wish]:
    def change(c: Capsule) -> Wish:
        return msgspec.structs.replace(c.wish, state=state, generation=c.wish.generation + 1)

    return change


@pytest_asyncio.fixture
async def subject(template: Path, tmp_path: Path) -> AsyncIterator[Subject]:
    path = tmp_path / "askos.db"
    shutil.copy(template, path)
    made = Subject(path)
    yield made
    for database in made.databases:
        await database.close()
