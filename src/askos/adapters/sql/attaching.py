"""The store's changes of a capsule's ports while it lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import actions as sql_actions
from askos.adapters.sql import groups as sql_groups
from askos.adapters.sql import ports as sql_ports
from askos.adapters.sql import queries, rows
from askos.adapters.sql.capsules import CapsuleStore
from askos.adapters.sql.schema import ports
from askos.model.actions import NewAction
from askos.model.capsules import Capsule, Port, Task
from askos.model.errors import ConflictError, InvalidError
from askos.model.networks import NetWish
from askos.ports.store import Change


class AttachStore(CapsuleStore):
    """Plugging, unplugging and securing."""

    async def attach_port(self, uuid: str, wish: NetWish, action: NewAction | None = None) -> Capsule:
        """See `ports.store.Store`."""
        now = self._clock()
        async with self._db.write() as connection:
            capsule = await self._living(connection, uuid)
            taker = sql_ports.Taker(uuid, capsule.project_id, capsule.spec.security_groups)
            got = await taker.take(connection, [wish], capsule.ports, now)
            after = msgspec.structs.replace(
                capsule,
                ports=capsule.ports + [port for port, _ in got],
                networks=capsule.networks + [network for _, network in got],
            )
            after, changed = await self._renewed(connection, after, "network_attaching", action)
        self._on_change(changed)
        return after

    async def detach_port(
        self, uuid: str, *, network_uuid: str = "", port_uuid: str = "", action: NewAction | None = None
    ) -> Capsule:
        """See `ports.store.Store`."""
        async with self._db.write() as connection:
            capsule = await self._living(connection, uuid)
            leaving = [
                p for p in capsule.ports if (p.uuid == port_uuid if port_uuid else p.network_uuid == network_uuid)
            ]
            if not leaving:
                what = f"port {port_uuid}" if port_uuid else f"network {network_uuid}"
                raise InvalidError(f"Container {uuid} is not attached to {what}.")
            for port in leaving:
                await sql_ports.release(connection, uuid, self._clock(), port.uuid)
            staying = [p for p in capsule.ports if p not in leaving]
            networks = [n for n, p in zip(capsule.networks, capsule.ports, strict=True) if p not in leaving]
            after = msgspec.structs.replace(capsule, ports=staying, networks=networks)
            after, changed = await self._renewed(connection, after, "network_detaching", action)
        self._on_change(changed)
        return after

    async def secure(
        self, uuid: str, change: Callable[[list[str]], list[str]], action: NewAction | None = None
    ) -> Capsule:
        """See `ports.store.Store`."""
        async with self._db.write() as connection:
            capsule = await self._living(connection, uuid)
            before = capsule.spec.security_groups
            groups = list(dict.fromkeys(change(list(before))))
            await sql_groups.check(connection, groups, capsule.project_id)
            task: Task = "sg_adding" if len(groups) >= len(before) else "sg_removing"
            worn = groups or [await sql_groups.default_uuid(connection, capsule.project_id, self._clock())]
            for port in await _secured(connection, capsule.ports):
                await sql_ports.set_groups(connection, port.uuid, worn)
            spec = msgspec.structs.replace(capsule.spec, security_groups=groups)
            after = msgspec.structs.replace(capsule, spec=spec)
            after, changed = await self._renewed(connection, after, task, action, spec=rows.text(spec))
        self._on_change(changed)
        return after

    async def _living(self, connection: AsyncConnection, uuid: str) -> Capsule:
        capsule = await self._one(connection, uuid)
        if capsule is None:
            raise queries.not_found("container", uuid)
        if capsule.wish.state == "deleted":
            raise ConflictError(f"Container {uuid} is being deleted.")
        return capsule

    async def _renewed(
        self, connection: AsyncConnection, capsule: Capsule, task: Task, action: NewAction | None, **values: Any
    ) -> tuple[Capsule, Change]:
        wish = msgspec.structs.replace(
            capsule.wish, generation=capsule.wish.generation + 1, task=task, at_us=self._clock()
        )
        after, changed = await self._rewish(connection, capsule, wish, **values)
        if action is not None:
            await sql_actions.begin(connection, capsule.uuid, action, wish.generation, self._clock())
        return after, changed


async def _secured(connection: AsyncConnection, mine: list[Port]) -> list[Port]:
    """Those that have walls at all."""
    query = select(ports.c.uuid).where(ports.c.uuid.in_([port.uuid for port in mine]), ports.c.secured.is_(True))
    secured = set((await connection.execute(query)).scalars())
    return [port for port in mine if port.uuid in secured]
