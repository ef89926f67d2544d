"""Ports of the network service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, case, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import addresses
from askos.adapters.sql import groups as sql_groups
from askos.adapters.sql import networks as sql_networks
from askos.adapters.sql import ports as sql_ports
from askos.adapters.sql.networking.common import CHUNK, Common, owned, seen_network, stamped
from askos.adapters.sql.schema import capsules, hosts, port_groups, ports
from askos.model.errors import ConflictError, InvalidError
from askos.model.networks import PORT_OWNER, TenantPort
from askos.ports.network_store import FixedIp, NewPort, PortQuery, Who

ACTIVE = ("Running", "Paused", "Restarting", "Rebuilding", "Deleting")
"""The statuses of capsules whose ports carry packets."""


class PortStore(Common):
    """Ports."""

    async def ports(self, query: PortQuery) -> list[TenantPort]:
        """See `ports.network_store.NetworkStore`."""
        conditions = owned(ports, query.project_id, query.uuids or None)
        if query.network_uuids:
            conditions.append(ports.c.network_uuid.in_(query.network_uuids))
        if query.device_ids:
            conditions.append(or_(ports.c.device_id.in_(query.device_ids), ports.c.capsule_uuid.in_(query.device_ids)))
        async with self._db.read() as connection:
            return await find(connection, *conditions)

    async def port(self, ident: str, who: Who) -> TenantPort:
        """See `ports.network_store.NetworkStore`."""
        scope = owned(ports, None if who.is_admin else who.project_id)
        async with self._db.read() as connection:
            found = await find(connection, ports.c.uuid == ident, *scope)
            if not found:
                mine = owned(ports, who.project_id)
                found = await find(connection, ports.c.name == ident, ports.c.name != "", *mine)
        if not found:
            raise sql_ports.missing(ident)
        if len(found) > 1:
            raise ConflictError(f"Multiple ports exist with same name {ident}. Please use the port uuid instead.")
        return found[0]

    async def create_port(self, new: NewPort, who: Who) -> TenantPort:
        """See `ports.network_store.NetworkStore`."""
        now = self._clock()
        async with self._db.write() as connection:
            network = await seen_network(connection, new.network_uuid, who)
            if network.external:
                raise InvalidError(
                    f"Cannot create a port on the external network {network.name}: its addresses are floating ones, "
                    "and the gateways of routers."
                )
            got = await addresses.choose(connection, network, new.fixed)
            groups = await self._groups(connection, new)
            uuid = await sql_ports.add(
                connection,
                now,
                got,
                network_uuid=network.uuid,
                project_id=new.project_id,
                name=new.name,
                description=new.description,
                device_id=new.device_id,
                device_owner=new.device_owner,
                preserve=True,
                secured=new.secured,
            )
            await sql_ports.wear(connection, uuid, groups)
            return (await find(connection, ports.c.uuid == uuid))[0]

    async def _groups(self, connection: AsyncConnection, new: NewPort) -> list[str]:
        if not new.secured:
            if new.groups:
                raise _unsecured()
            return []
        if new.groups is None:
            return [await sql_groups.default_uuid(connection, new.project_id, self._clock())]
        await sql_groups.check(connection, new.groups, new.project_id)
        return new.groups

    async def update_port(
        self,
        uuid: str,
        who: Who,
        *,
        name: str | None = None,
        description: str | None = None,
        groups: list[str] | None = None,
        secured: bool | None = None,
        device_id: str | None = None,
        device_owner: str | None = None,
        fixed: list[FixedIp] | None = None,
    ) -> TenantPort:
        """See `ports.network_store.NetworkStore`."""
        values: dict[str, Any] = {"name": name, "description": description, "secured": secured}
        moved: dict[str, Any] = {}
        async with self._db.write() as connection:
            found = await find(connection, ports.c.uuid == uuid)
            if not found or (not who.is_admin and found[0].project_id != who.project_id):
                raise sql_ports.missing(uuid)
            port = found[0]
            if fixed is not None:
                network = await sql_networks.find(connection, port.network_uuid)
                now = addresses.Addresses(port.address or None, port.address6 or None)
                got = await addresses.choose(connection, network, fixed, now)
                if got != now:
                    _check_free(port, "addresses")
                    moved = got.columns()
            for field, wanted, has in (
                ("device_id", device_id, port.device_id),
                ("device_owner", device_owner, port.device_owner),
            ):
                if wanted is not None and wanted != has:
                    _check_free(port, field)
                    values[field] = wanted
            walls = port.secured if secured is None else secured
            worn = port.groups if groups is None else groups
            if not walls and worn:
                raise _unsecured()
            if groups is not None:
                await sql_groups.check(connection, groups, None if who.is_admin else port.project_id)
                await sql_ports.set_groups(connection, uuid, groups)
            stamps = stamped(ports, self._clock(), **values) | moved
            await connection.execute(update(ports).where(ports.c.uuid == uuid).values(**stamps))
            (port,) = await find(connection, ports.c.uuid == uuid)
        self._on_change()
        return port

    async def delete_port(self, uuid: str) -> None:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            found = await find(connection, ports.c.uuid == uuid)
            if not found:
                raise sql_ports.missing(uuid)
            (port,) = found
            if port.capsule_uuid:
                raise ConflictError(
                    f"Unable to delete port {uuid}: container {port.capsule_uuid} uses it. Detach it from the "
                    "container, or delete that, first.",
                    "port-in-use",
                )
            if port.device_owner.startswith("network:"):
                raise ConflictError(
                    f"Port {uuid} cannot be deleted directly via the port API: has device owner {port.device_owner}.",
                    "service-port-in-use",
                )
            await connection.execute(delete(ports).where(ports.c.uuid == uuid))
        self._on_change()


def _unsecured() -> ConflictError:
    return ConflictError(
        "Port Security must be enabled in order to have security groups: a port without it has none.",
        "port-security-and-ip-required-for-security-groups",
    )


def _check_free(port: TenantPort, what: str) -> None:
    if port.capsule_uuid or port.device_owner.startswith("network:"):
        raise ConflictError(
            f"Unable to change the {what} of port {port.uuid}: device {port.device_id} uses it.", "port-in-use"
        )


async def find(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> list[TenantPort]:
    """Ports, oldest first, with their groups, and with what their capsules say."""
    active = case((capsules.c.status.in_(ACTIVE), hosts.c.hostname), else_=None)
    with_subnets = sql_networks.with_subnets(
        select(
            ports,
            sql_networks.V4.c.uuid.label("subnet_uuid"),
            sql_networks.V6.c.uuid.label("subnet6_uuid"),
            active.label("host"),
        ).select_from(ports),
        ports.c.network_uuid,
    )
    query = (
        with_subnets.outerjoin(capsules, capsules.c.uuid == ports.c.capsule_uuid)
        .outerjoin(hosts, hosts.c.uuid == capsules.c.host_uuid)
        .where(*conditions)
        .order_by(ports.c.created_us, ports.c.uuid)
    )
    rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
    groups: dict[str, list[str]] = {}
    for start in range(0, len(rows), CHUNK):
        chunk = [row.uuid for row in rows[start : start + CHUNK]]
        worn = select(port_groups).where(port_groups.c.port_uuid.in_(chunk)).order_by(port_groups.c.group_uuid)
        for row in (await connection.execute(worn)).all():
            groups.setdefault(row.port_uuid, []).append(row.group_uuid)
    return [_record(row, groups.get(row.uuid, [])) for row in rows]


def _record(row: Row[Any], groups: list[str]) -> TenantPort:
    return TenantPort(
        uuid=row.uuid,
        network_uuid=row.network_uuid,
        subnet_uuid=row.subnet_uuid if row.address else "",
        project_id=row.project_id,
        address=row.address or "",
        mac=row.mac,
        name=row.name,
        description=row.description,
        groups=groups,
        secured=row.secured,
        capsule_uuid=row.capsule_uuid or "",
        preserve=row.preserve,
        device_id=row.capsule_uuid or row.device_id,
        device_owner=PORT_OWNER if row.capsule_uuid else row.device_owner,
        host=row.host or "",
        created_us=row.created_us,
        updated_us=row.updated_us,
        changed=row.changed,
        subnet6_uuid=row.subnet6_uuid if row.address6 else "",
        address6=row.address6 or "",
    )
