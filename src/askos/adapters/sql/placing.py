"""The store's placement: which capsule waits for a host, which host it gets, and what becomes of silent hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import volumes as sql_volumes
from askos.adapters.sql.base import Base
from askos.adapters.sql.loads import loads_of
from askos.adapters.sql.schema import capsules, hosts
from askos.model.capsules import Capsule, Placement
from askos.plan.placement import Load, Nowhere
from askos.ports.store import Change


class PlacementStore(Base):
    """Placing and giving up."""

    async def unplaced(self, *, failed: bool = False) -> list[str]:
        """See `ports.store.Store`."""
        fresh = capsules.c.placement_failure.is_(None)
        query = (
            select(capsules.c.uuid)
            .where(
                capsules.c.host_uuid.is_(None),
                or_(fresh, capsules.c.kind == "capsule") if failed else fresh,
                capsules.c.wish_state != "deleted",
            )
            .order_by(capsules.c.id)
        )
        async with self._db.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def place(
        self, uuid: str, choose: Callable[[Capsule, list[Load]], str | Nowhere | None], failure: str
    ) -> bool:
        """See `ports.store.Store`."""
        async with self._db.write() as connection:
            capsule = await self._one(connection, capsules.c.uuid == uuid)
            if capsule is None or capsule.placement.host_uuid is not None or capsule.wish.state == "deleted":
                return False
            chosen = choose(capsule, await self._loads_for(connection, capsule))
            if chosen is None or isinstance(chosen, Nowhere):
                placement = Placement(None, capsule.placement.epoch, chosen.reason if chosen is not None else failure)
                if placement == capsule.placement:
                    return True
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
                capsules.c.task_state.is_not(None),
                capsules.c.wish_state != "deleted",
                capsules.c.placement_failure.is_(None),
            )
            for found in await self._some(connection, query):
                placement = msgspec.structs.replace(found.placement, failure=failure)
                capsule = msgspec.structs.replace(found, placement=placement)
                revision = await self._save(connection, capsule, placement_failure=failure)
                changed.append(
                    Change(revision, capsule.kind, capsule.uuid, deleted=False, project_id=capsule.project_id)
                )
        for change in changed:
            self._on_change(change)
        return [change.uuid for change in changed]


def _silent_hosts(before_us: int) -> Any:
    """Hosts last seen before that time. `connected` may be left over from a server that was killed."""
    return select(hosts.c.uuid).where(hosts.c.last_seen_us < before_us)
