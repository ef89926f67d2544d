"""The store's placement: which capsule waits for a host, which host it gets, and what becomes of silent hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import actions as sql_actions
from askos.adapters.sql import rows
from askos.adapters.sql import volumes as sql_volumes
from askos.adapters.sql.base import Base
from askos.adapters.sql.loads import loads_of
from askos.adapters.sql.schema import capsules, hosts
from askos.model.capsules import Capsule, Placement
from askos.plan.placement import Claim, Load, Nowhere
from askos.ports.store import Change, Roomless


class PlacementStore(Base):
    """Placing and giving up."""

    async def unplaced(self) -> list[str]:
        """See `ports.store.Store`."""
        query = (
            select(capsules.c.uuid)
            .where(
                capsules.c.host_uuid.is_(None),
                capsules.c.placement_failure.is_(None),
                capsules.c.wish_state != "deleted",
            )
            .order_by(capsules.c.id)
        )
        async with self._db.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def roomless(self) -> list[Roomless]:
        """See `ports.store.Store`."""
        c = capsules.c
        waiting = (
            c.host_uuid.is_(None),
            c.placement_failure.is_not(None),
            c.kind == "capsule",
            c.wish_state != "deleted",
        )
        query = select(c.uuid, c.cpu, c.memory_mib, c.spec, c.placement_failure).where(*waiting).order_by(c.id)
        async with self._db.read() as connection:
            found = (await connection.execute(query)).all()
            bound = await sql_volumes.hosts_of_many(connection, select(c.uuid).where(*waiting)) if found else {}
        return [
            Roomless(
                row.uuid,
                Claim(row.cpu, row.memory_mib, rows.runtime_of(row.spec)),
                row.placement_failure,
                bound.get(row.uuid, frozenset()),
            )
            for row in found
        ]

    async def loads(self) -> list[Load]:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            return await loads_of(connection)

    async def place(
        self, uuid: str, choose: Callable[[Capsule, list[Load]], str | Nowhere | None], failure: str
    ) -> bool:
        """See `ports.store.Store`."""
        async with self._db.write() as connection:
            capsule = await self._one(connection, uuid)
            if capsule is None or capsule.placement.host_uuid is not None or capsule.wish.state == "deleted":
                return False
            chosen = choose(capsule, await self._loads_for(connection, capsule))
            if chosen is None or isinstance(chosen, Nowhere):
                placement = Placement(None, capsule.placement.epoch, chosen.reason if chosen is not None else failure)
                if placement == capsule.placement:
                    return True
                await sql_actions.fail(connection, uuid, placement.failure or failure, self._clock())
            else:
                placement = Placement(chosen, capsule.placement.epoch + 1)
                if capsule.volumes:
                    await sql_volumes.bind(connection, uuid, chosen)
            capsule = msgspec.structs.replace(capsule, placement=placement)
            revision = await self._save(
                connection,
                capsule,
                host_uuid=placement.host_uuid,
                epoch=placement.epoch,
                placement_failure=placement.failure,
            )
        self._on_change(
            Change(
                revision,
                capsule.kind,
                uuid,
                deleted=False,
                host_uuid=placement.host_uuid,
                project_id=capsule.project_id,
            )
        )
        return True

    async def _loads_for(self, connection: AsyncConnection, capsule: Capsule) -> list[Load]:
        loads = await loads_of(connection)
        if not capsule.volumes:
            return loads
        where = await sql_volumes.hosts_of(connection, capsule.uuid)
        # Volumes on two hosts cannot be used together anywhere.
        return [msgspec.structs.replace(load, has_volumes=where <= {load.host.facts.uuid}) for load in loads]

    async def drop_orphans(self, silent_us: int) -> list[str]:
        """See `ports.store.Store`."""
        dead = _silent_hosts(self._clock() - silent_us)
        dropped: list[Change] = []
        async with self._db.write() as connection:
            query = select(capsules).where(capsules.c.wish_state == "deleted", capsules.c.host_uuid.in_(dead))
            for capsule in await self._some(connection, query):
                dropped.append(await self._remove(connection, capsule))  # noqa: PERF401 - awaits
        for change in dropped:
            self._on_change(msgspec.structs.replace(change, host_uuid=None))
        return [change.uuid for change in dropped]

    async def fail_waiting(self, silent_us: int, failure: str) -> list[str]:
        """See `ports.store.Store`."""
        dead = _silent_hosts(self._clock() - silent_us)
        changed: list[Change] = []
        async with self._db.write() as connection:
            query = select(capsules).where(
                capsules.c.host_uuid.in_(dead),
                # Who runs a pod relies on what it says of itself, also while nothing is asked of it.
                or_(
                    capsules.c.task_state.is_not(None),
                    and_(capsules.c.kind == "capsule", capsules.c.status == "Running"),
                ),
                capsules.c.wish_state != "deleted",
                capsules.c.placement_failure.is_(None),
            )
            for found in await self._some(connection, query):
                placement = msgspec.structs.replace(found.placement, failure=failure)
                capsule = msgspec.structs.replace(found, placement=placement)
                revision = await self._save(connection, capsule, placement_failure=failure)
                await sql_actions.fail(connection, capsule.uuid, failure, self._clock())
                changed.append(
                    Change(revision, capsule.kind, capsule.uuid, deleted=False, project_id=capsule.project_id)
                )
        for change in changed:
            self._on_change(change)
        return [change.uuid for change in changed]


def _silent_hosts(before_us: int) -> Any:
    """Hosts last seen before that time. `connected` may be left over from a server that was killed."""
    return select(hosts.c.uuid).where(hosts.c.last_seen_us < before_us)
