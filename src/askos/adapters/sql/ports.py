"""Ports of capsules, inside the caller's transaction: claimed or bound with them, and given back after them."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import Row, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import groups as sql_groups
from askos.adapters.sql import networks as sql_networks
from askos.adapters.sql.schema import networks, port_groups, ports
from askos.model.capsules import Network, Port
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.model.networks import NetWish
from askos.plan import pools

_CHUNK = 500
_OF_CAPSULES = (
    select(ports, *(networks.c[name].label(f"of_network_{name}") for name in sql_networks.HOST_COLUMNS))
    .join(networks, networks.c.uuid == ports.c.network_uuid)
    .where(ports.c.capsule_uuid.in_(bindparam("chunk", expanding=True)))
    .order_by(ports.c.position)
)


class Taker:
    """A capsule that gets ports. `groups` are the security groups of its own ports; empty: the default one."""

    def __init__(self, capsule_uuid: str, project_id: str, groups: Sequence[str]) -> None:
        self.capsule_uuid = capsule_uuid
        self.project_id = project_id
        self.groups = list(groups)

    async def take(
        self, connection: AsyncConnection, wishes: Sequence[NetWish], taken: Sequence[Port], now_us: int
    ) -> list[tuple[Port, Network]]:
        """Give the capsule a port for each wish, behind those that it has. See `ports.store.Store.create_capsule` for
        what is raised."""
        on = {port.network_uuid for port in taken}
        found: list[tuple[Port, Network]] = []
        for position, wish in enumerate(wishes, len(taken)):
            if wish.port_uuid:
                port, network = await self._bind(connection, wish, position, now_us)
            else:
                port, network = await self._claim(connection, wish, position, on, now_us)
            if network.uuid in on:
                raise InvalidError(
                    f"Container {self.capsule_uuid} has already been attached to network {network.uuid}."
                )
            on.add(network.uuid)
            found.append((port, sql_networks.for_host(network)))
        return found

    async def _claim(
        self, connection: AsyncConnection, wish: NetWish, position: int, on: set[str], now_us: int
    ) -> tuple[Port, Row[Any]]:
        network = await (
            sql_networks.find(connection, wish.network_uuid)
            if wish.network_uuid
            else sql_networks.usual(connection, self.project_id, now_us)
        )
        _check_usable(network)
        if network.uuid in on:
            raise InvalidError(f"Container {self.capsule_uuid} has already been attached to network {network.uuid}.")
        if wish.address:
            address = await sql_networks.check_address(connection, network, wish.address)
        else:
            address = await sql_networks.free_address(connection, network)
        groups = self.groups or [await sql_groups.default_uuid(connection, self.project_id, now_us)]
        uuid = await add(
            connection,
            now_us,
            network_uuid=network.uuid,
            address=address,
            project_id=self.project_id,
            capsule_uuid=self.capsule_uuid,
            position=position,
        )
        await wear(connection, uuid, groups)
        return Port(uuid, network.uuid, self.capsule_uuid, address, pools.mac_for(address)), network

    async def _bind(
        self, connection: AsyncConnection, wish: NetWish, position: int, now_us: int
    ) -> tuple[Port, Row[Any]]:
        query = select(ports).where(ports.c.uuid == wish.port_uuid).with_for_update()
        row = (await connection.execute(query)).first()
        if row is None:
            raise missing(wish.port_uuid)
        if row.project_id != self.project_id:
            raise InvalidError(f"Port {row.uuid} not usable for the container.", "port-not-usable")
        if row.capsule_uuid is not None or row.device_id:
            raise InvalidError(f"Port {row.uuid} is still in use.", "port-in-use")
        if wish.address and wish.address != row.address:
            raise InvalidError(
                f"Port {row.uuid} has the address {row.address}, so that it cannot get {wish.address}. Leave the fixed "
                "address out, or change that of the port first."
            )
        network = await sql_networks.find(connection, row.network_uuid)
        _check_usable(network)
        await connection.execute(
            update(ports)
            .where(ports.c.uuid == row.uuid)
            .values(
                capsule_uuid=self.capsule_uuid,
                preserve=True,
                position=position,
                updated_us=now_us,
                changed=ports.c.changed + 1,
            )
        )
        if self.groups and row.secured:
            await set_groups(connection, row.uuid, self.groups)
        return Port(row.uuid, network.uuid, self.capsule_uuid, row.address, row.mac, preserve=True), network


def _check_usable(network: Row[Any]) -> None:
    if network.external:
        raise ConflictError(
            f"Nothing can be on the external network {network.name} ({network.uuid}) itself: its addresses lead to "
            "ports of other networks. Put the container on one of those, and give its port a floating address."
        )
    if network.cidr is None:
        raise ConflictError(
            f"Network {network.name} ({network.uuid}) has no subnet, so that it has no addresses. Make one first."
        )


def missing(ident: str) -> NotFoundError:
    """The error for a port that does not exist, or not for this caller."""
    return NotFoundError(f"Port {ident} could not be found.", "port-not-found")


async def add(connection: AsyncConnection, now_us: int, **values: Any) -> str:
    """A new port with columns; returns its uuid. The MAC follows from the address."""
    uuid = str(uuids.uuid4())
    address = values["address"]
    await connection.execute(
        insert(ports),
        {
            "uuid": uuid,
            "address_number": int(IPv4Address(address)),
            "mac": pools.mac_for(address),
            "created_us": now_us,
            "updated_us": now_us,
            **values,
        },
    )
    return uuid


async def set_groups(connection: AsyncConnection, port_uuid: str, groups: Sequence[str]) -> None:
    """Replace the security groups of a port."""
    await connection.execute(delete(port_groups).where(port_groups.c.port_uuid == port_uuid))
    await wear(connection, port_uuid, groups)


async def wear(connection: AsyncConnection, port_uuid: str, groups: Sequence[str]) -> None:
    """Give a port that has none its security groups."""
    if groups:
        await connection.execute(
            insert(port_groups), [{"port_uuid": port_uuid, "group_uuid": group} for group in dict.fromkeys(groups)]
        )


async def release(connection: AsyncConnection, capsule_uuid: str, now_us: int, port_uuid: str | None = None) -> None:
    """Take the ports of a capsule away, or one: those of users are free again, the others are gone."""
    mine = [ports.c.capsule_uuid == capsule_uuid]
    if port_uuid is not None:
        mine.append(ports.c.uuid == port_uuid)
    await connection.execute(delete(ports).where(*mine, ports.c.preserve.is_(False)))
    await connection.execute(
        update(ports).where(*mine).values(capsule_uuid=None, position=0, updated_us=now_us, changed=ports.c.changed + 1)
    )


async def of_capsules(
    connection: AsyncConnection, capsule_uuids: Sequence[str]
) -> dict[str, tuple[list[Port], list[Network]]]:
    """Ports of capsules in their order, each with its network. Capsules without any are left out."""
    known: dict[str, Network] = {}
    found: dict[str, tuple[list[Port], list[Network]]] = {}
    for start in range(0, len(capsule_uuids), _CHUNK):
        chunk = list(capsule_uuids[start : start + _CHUNK])
        for row in (await connection.execute(_OF_CAPSULES, {"chunk": chunk})).all():
            network = known.get(row.network_uuid)
            if network is None:
                network = Network(*(getattr(row, f"of_network_{name}") for name in sql_networks.HOST_COLUMNS))
                known[network.uuid] = network
            mine, theirs = found.setdefault(row.capsule_uuid, ([], []))
            mine.append(Port(row.uuid, row.network_uuid, row.capsule_uuid, row.address, row.mac, row.preserve))
            theirs.append(network)
    return found
