"""Floating addresses of the network service."""

from __future__ import annotations

import uuid as uuids
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import addresses
from askos.adapters.sql import ports as sql_ports
from askos.adapters.sql.networking import ports as port_part
from askos.adapters.sql.networking.common import Common, owned, seen_network, stamped
from askos.adapters.sql.schema import floating_ips, ports
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.model.networks import ROUTER_OWNER, FloatingAddress, FloatingIp, TenantNetwork, TenantPort
from askos.ports.network_store import FixedIp, Who


class FloatingStore(Common):
    """Floating addresses."""

    async def floating(self, project_id: str | None, uuids: list[str] | None = None) -> list[FloatingAddress]:
        """See `ports.network_store.NetworkStore`."""
        query = select(floating_ips).where(*owned(floating_ips, project_id, uuids))
        query = query.order_by(floating_ips.c.created_us, floating_ips.c.uuid)
        async with self._db.read() as connection:
            return await _records(connection, list((await connection.execute(query)).all()))

    async def create_floating(
        self,
        project_id: str,
        network_uuid: str,
        who: Who,
        *,
        address: str | None = None,
        port_uuid: str | None = None,
        fixed_address: str | None = None,
        description: str = "",
    ) -> FloatingAddress:
        """See `ports.network_store.NetworkStore`."""
        now = self._clock()
        uuid = str(uuids.uuid4())
        async with self._db.write() as connection:
            network = await external(connection, network_uuid, who)
            got = await addresses.choose(connection, network, None if address is None else [FixedIp(address=address)])
            if port_uuid is not None:
                scope = None if who.is_admin else project_id
                await self._check_target(connection, port_uuid, fixed_address, scope, but=uuid)
            await connection.execute(
                insert(floating_ips).values(
                    uuid=uuid,
                    project_id=project_id,
                    description=description,
                    network_uuid=network.uuid,
                    address=got.v4,
                    port_uuid=port_uuid,
                    created_us=now,
                    updated_us=now,
                    changed=0,
                )
            )
            (made,) = await _records(connection, [await _row(connection, uuid)])
        self._on_change()
        return made

    async def update_floating(
        self,
        uuid: str,
        who: Who,
        *,
        port_uuid: str | None = "",
        fixed_address: str | None = None,
        description: str | None = None,
    ) -> FloatingAddress:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            row = await _row(connection, uuid)
            if not who.is_admin and row.project_id != who.project_id:
                raise _missing(uuid)
            values = stamped(floating_ips, self._clock(), description=description)
            if port_uuid is None or port_uuid:
                if port_uuid is not None:
                    scope = None if who.is_admin else row.project_id
                    await self._check_target(connection, port_uuid, fixed_address, scope, but=uuid)
                values["port_uuid"] = port_uuid
            await connection.execute(update(floating_ips).where(floating_ips.c.uuid == uuid).values(**values))
            (after,) = await _records(connection, [await _row(connection, uuid)])
        self._on_change()
        return after

    async def _check_target(
        self, connection: AsyncConnection, port_uuid: str, fixed: str | None, project_id: str | None, *, but: str
    ) -> None:
        """Whether a floating address may lead to this port of a project (None: of any)."""
        found = await port_part.find(connection, ports.c.uuid == port_uuid, *owned(ports, project_id))
        if not found:
            raise sql_ports.missing(port_uuid)
        (port,) = found
        if port.device_owner == ROUTER_OWNER:
            raise InvalidError(f"Port {port_uuid} is a router's: a floating address cannot lead to it.", "bad-request")
        if not port.address:
            raise InvalidError(
                f"Cannot add floating IP to port {port_uuid} that has no fixed IPv4 addresses.", "bad-request"
            )
        if fixed is not None and fixed != port.address:
            raise InvalidError(
                f"Bad floatingip request: Port {port_uuid} does not have fixed ip {fixed}.", "bad-request"
            )
        query = select(floating_ips.c.address).where(floating_ips.c.port_uuid == port_uuid, floating_ips.c.uuid != but)
        other = (await connection.execute(query)).scalar()
        if other is not None:
            raise ConflictError(
                f"Cannot associate a floating IP with port {port_uuid} using fixed IP {port.address}, as that fixed IP "
                f"already has a floating IP, {other}.",
                "floating-ip-port-already-associated",
            )

    async def delete_floating(self, uuid: str) -> None:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            await _row(connection, uuid)
            await connection.execute(delete(floating_ips).where(floating_ips.c.uuid == uuid))
        self._on_change()


async def external(connection: AsyncConnection, uuid: str, who: Who) -> TenantNetwork:
    """An external network that has addresses. InvalidError, NotFoundError."""
    row = await seen_network(connection, uuid, who)
    if not row.external:
        raise InvalidError(f"Bad request: Network {uuid} is not a valid external network.", "bad-request")
    if row.subnet is None:
        raise InvalidError(f"Bad request: Network {uuid} does not contain any IPv4 subnet.", "bad-request")
    return row


def _missing(uuid: str) -> NotFoundError:
    return NotFoundError(f"Floating IP {uuid} could not be found.", "floating-ip-not-found")


async def _row(connection: AsyncConnection, uuid: str) -> Row[Any]:
    row = (await connection.execute(select(floating_ips).where(floating_ips.c.uuid == uuid))).first()
    if row is None:
        raise _missing(uuid)
    return row


async def _records(connection: AsyncConnection, rows: list[Row[Any]]) -> list[FloatingAddress]:
    wanted = [row.port_uuid for row in rows if row.port_uuid is not None]
    led: dict[str, TenantPort] = {}
    ways: dict[str, str] = {}
    if wanted:
        found = await port_part.find(connection, ports.c.uuid.in_(wanted))
        led = {port.uuid: port for port in found}
        on = {port.network_uuid for port in found}
        query = select(ports.c.network_uuid, ports.c.device_id).where(
            ports.c.network_uuid.in_(on), ports.c.device_owner == ROUTER_OWNER
        )
        ways = {row.network_uuid: row.device_id for row in (await connection.execute(query)).all()}
    return [_record(row, led.get(row.port_uuid), ways) for row in rows]


def _record(row: Row[Any], port: TenantPort | None, ways: dict[str, str]) -> FloatingAddress:
    address = FloatingIp(
        uuid=row.uuid,
        project_id=row.project_id,
        network_uuid=row.network_uuid,
        address=row.address,
        port_uuid=row.port_uuid,
        fixed_address=None if port is None else port.address,
        created_us=row.created_us,
    )
    router = None if port is None else ways.get(port.network_uuid)
    return FloatingAddress(address, row.description, port, router, row.updated_us, row.changed)
