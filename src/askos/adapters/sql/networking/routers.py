"""Routers of the network service: records, and ports with their addresses."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import networks as sql_networks
from askos.adapters.sql import ports as sql_ports
from askos.adapters.sql.addresses import Addresses, choose
from askos.adapters.sql.networking import ports as port_part
from askos.adapters.sql.networking.common import Common, names_of, owned, seen_network, stamped
from askos.adapters.sql.networking.outside import external
from askos.adapters.sql.schema import ports, routers, subnets
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.model.networks import ROUTER_OWNER, Router, Subnet, TenantPort
from askos.plan import pools
from askos.ports.network_store import Who

_EVERYBODY = Who("", is_admin=True)


class RouterStore(Common):
    """Routers and their interfaces."""

    async def routers(self, project_id: str | None, uuids: list[str] | None = None) -> list[Router]:
        """See `ports.network_store.NetworkStore`."""
        query = _query().where(*owned(routers, project_id, uuids)).order_by(routers.c.created_us, routers.c.uuid)
        async with self._db.read() as connection:
            return [_record(row) for row in (await connection.execute(query)).all()]

    async def create_router(
        self,
        project_id: str,
        name: str,
        *,
        description: str = "",
        enabled: bool = True,
        network_uuid: str | None = None,
    ) -> Router:
        """See `ports.network_store.NetworkStore`."""
        now = self._clock()
        uuid = str(uuids.uuid4())
        async with self._db.write() as connection:
            await connection.execute(
                insert(routers).values(
                    uuid=uuid,
                    project_id=project_id,
                    name=name,
                    description=description,
                    enabled=enabled,
                    created_us=now,
                    updated_us=now,
                    changed=1,
                    **await _way_out(connection, network_uuid),
                )
            )
            return await _one(connection, uuid)

    async def update_router(self, uuid: str, change: Callable[[Router], Router]) -> Router:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            before = await _one(connection, uuid)
            after = change(before)
            values = {"name": after.name, "description": after.description, "enabled": after.enabled}
            if after.network_uuid != before.network_uuid:
                values |= await _way_out(connection, after.network_uuid)
            values |= {"updated_us": self._clock(), "changed": routers.c.changed + 1}
            await connection.execute(update(routers).where(routers.c.uuid == uuid).values(**values))
            return await _one(connection, uuid)

    async def delete_router(self, uuid: str) -> None:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            await _one(connection, uuid)
            if await names_of(connection, select(ports.c.uuid).where(*_interfaces(uuid))):
                raise ConflictError(f"Router {uuid} still has ports.", "router-in-use")
            await connection.execute(delete(routers).where(routers.c.uuid == uuid))

    async def add_interface(
        self, router_uuid: str, who: Who, *, subnet_uuid: str | None = None, port_uuid: str | None = None
    ) -> TenantPort:
        """See `ports.network_store.NetworkStore`."""
        now = self._clock()
        async with self._db.write() as connection:
            router = await _one(connection, router_uuid)
            if port_uuid is not None:
                made = await self._take_port(connection, router_uuid, port_uuid, who)
            else:
                made = await self._make_port(connection, router, subnet_uuid or "", who)
            values = stamped(routers, now)
            await connection.execute(update(routers).where(routers.c.uuid == router_uuid).values(**values))
            return (await port_part.find(connection, ports.c.uuid == made))[0]

    async def _take_port(self, connection: AsyncConnection, router_uuid: str, port_uuid: str, who: Who) -> str:
        scope = owned(ports, None if who.is_admin else who.project_id)
        found = await port_part.find(connection, ports.c.uuid == port_uuid, *scope)
        if not found:
            raise sql_ports.missing(port_uuid)
        (port,) = found
        if port.device_id:
            raise ConflictError(
                f"Unable to complete operation on port {port_uuid} for network {port.network_uuid}. Port already has "
                f"an attached device {port.device_id}.",
                "port-in-use",
            )
        network = await sql_networks.find(connection, port.network_uuid)
        on = [subnet for subnet in network.subnets if subnet.uuid in (port.subnet_uuid, port.subnet6_uuid)]
        await _check_apart(connection, router_uuid, on)
        values = stamped(ports, self._clock(), device_id=router_uuid, device_owner=ROUTER_OWNER, secured=False)
        await sql_ports.set_groups(connection, port_uuid, [])
        await connection.execute(update(ports).where(ports.c.uuid == port_uuid).values(**values))
        return port_uuid

    async def _make_port(self, connection: AsyncConnection, router: Router, subnet_uuid: str, who: Who) -> str:
        query = select(subnets.c.network_uuid).where(subnets.c.uuid == subnet_uuid)
        network_uuid = (await connection.execute(query)).scalar()
        if network_uuid is None:
            raise _no_subnet(subnet_uuid)
        try:
            network = await seen_network(connection, network_uuid, who)
        except NotFoundError:
            raise _no_subnet(subnet_uuid) from None
        (subnet,) = (subnet for subnet in network.subnets if subnet.uuid == subnet_uuid)
        if network.external:
            raise InvalidError(
                f"Bad router request: subnet {subnet_uuid} is the outside's. Set it as the router's external gateway.",
                "bad-request",
            )
        if subnet.gateway_disabled:
            raise InvalidError("Bad router request: Subnet for router interface must have a gateway IP.", "bad-request")
        got = Addresses(v4=subnet.gateway) if subnet.ip_version == 4 else Addresses(v6=subnet.gateway)
        column, value = (ports.c.address, got.v4) if got.v4 else (ports.c.address6, got.v6)
        holder = select(ports.c.device_id).where(ports.c.network_uuid == network.uuid, column == value)
        other = (await connection.execute(holder)).scalar()
        if other is not None:
            raise InvalidError(
                f"Bad router request: Router {other} already has a port on subnet {subnet_uuid}.", "bad-request"
            )
        await _check_apart(connection, router.uuid, [subnet])
        return await sql_ports.add(
            connection,
            self._clock(),
            got,
            network_uuid=network.uuid,
            project_id=router.project_id,
            device_id=router.uuid,
            device_owner=ROUTER_OWNER,
            secured=False,
        )

    async def remove_interface(
        self, router_uuid: str, *, subnet_uuid: str | None = None, port_uuid: str | None = None
    ) -> TenantPort:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            await _one(connection, router_uuid)
            mine = await port_part.find(connection, *_interfaces(router_uuid))
            found = [
                p for p in mine if port_uuid in (None, p.uuid) and subnet_uuid in (None, p.subnet_uuid, p.subnet6_uuid)
            ]
            if not found:
                what = f"port {port_uuid}" if port_uuid is not None else f"subnet {subnet_uuid}"
                raise NotFoundError(
                    f"Router {router_uuid} has no interface on {what}.",
                    "router-interface-not-found" if port_uuid else "router-interface-not-found-for-subnet",
                )
            await connection.execute(delete(ports).where(ports.c.uuid == found[0].uuid))
            values = stamped(routers, self._clock())
            await connection.execute(update(routers).where(routers.c.uuid == router_uuid).values(**values))
        return found[0]


def _no_subnet(uuid: str) -> NotFoundError:
    return NotFoundError(f"Subnet {uuid} could not be found.", "subnet-not-found")


async def _check_apart(connection: AsyncConnection, router_uuid: str, wanted: list[Subnet]) -> None:
    """InvalidError when a router would have two ways to one range."""
    has: dict[str, str] = {}
    for port in await port_part.find(connection, *_interfaces(router_uuid)):
        network = await sql_networks.find(connection, port.network_uuid)
        on = (port.subnet_uuid, port.subnet6_uuid)
        has |= {subnet.cidr: subnet.uuid for subnet in network.subnets if subnet.uuid in on}
    for subnet in wanted:
        other = pools.overlapping(subnet.cidr, has)
        if other is not None:
            raise InvalidError(
                f"Bad router request: Cidr {subnet.cidr} of subnet {subnet.uuid} overlaps with cidr {other} of subnet "
                f"{has[other]}.",
                "bad-request",
            )


def _interfaces(router_uuid: str) -> tuple[Any, ...]:
    return (ports.c.device_id == router_uuid, ports.c.device_owner == ROUTER_OWNER)


async def _way_out(connection: AsyncConnection, network_uuid: str | None) -> dict[str, Any]:
    """The columns of a router's external gateway."""
    if network_uuid is None:
        return {"network_uuid": None, "address": None}
    network = await external(connection, network_uuid, _EVERYBODY)
    return {"network_uuid": network.uuid, "address": (await choose(connection, network)).v4}


def _query() -> Any:
    query = select(routers, sql_networks.V4.c.uuid.label("subnet_uuid")).select_from(routers)
    return sql_networks.with_subnets(query, routers.c.network_uuid)


async def _one(connection: AsyncConnection, uuid: str) -> Router:
    row = (await connection.execute(_query().where(routers.c.uuid == uuid))).first()
    if row is None:
        raise NotFoundError(f"Router {uuid} could not be found.", "router-not-found")
    return _record(row)


def _record(row: Row[Any]) -> Router:
    return Router(**{name: getattr(row, name) for name in Router.__struct_fields__})
