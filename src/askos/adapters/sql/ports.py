"""Ports of capsules, inside the caller's transaction: claimed or bound with them, and given back after them."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import addresses
from askos.adapters.sql import groups as sql_groups
from askos.adapters.sql import networks as sql_networks
from askos.adapters.sql.schema import networks, port_groups, ports
from askos.model.capsules import Network, Port
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.model.networks import NetWish, TenantNetwork
from askos.ports.network_store import FixedIp

_CHUNK = 500
_PORT = tuple(
    ports.c[name] for name in ("uuid", "network_uuid", "capsule_uuid", "address", "mac", "preserve", "address6")
)
"""The fields of `model.capsules.Port`, in their order."""
_OF_CAPSULES = (
    sql_networks.with_subnets(
        select(*_PORT, *sql_networks.HOST_COLUMNS).join(networks, networks.c.uuid == ports.c.network_uuid),
        ports.c.network_uuid,
    )
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
    ) -> tuple[Port, TenantNetwork]:
        network = await (
            sql_networks.find(connection, wish.network_uuid)
            if wish.network_uuid
            else sql_networks.usual(connection, self.project_id, now_us)
        )
        _check_usable(network)
        if network.uuid in on:
            raise InvalidError(f"Container {self.capsule_uuid} has already been attached to network {network.uuid}.")
        got = await addresses.choose(connection, network, _fixed(network, wish))
        groups = self.groups or [await sql_groups.default_uuid(connection, self.project_id, now_us)]
        uuid = await add(
            connection,
            now_us,
            got,
            network_uuid=network.uuid,
            project_id=self.project_id,
            capsule_uuid=self.capsule_uuid,
            position=position,
        )
        await wear(connection, uuid, groups)
        port = Port(uuid, network.uuid, self.capsule_uuid, got.v4 or "", got.columns()["mac"], address6=got.v6 or "")
        return port, network

    async def _bind(
        self, connection: AsyncConnection, wish: NetWish, position: int, now_us: int
    ) -> tuple[Port, TenantNetwork]:
        query = select(ports).where(ports.c.uuid == wish.port_uuid).with_for_update()
        row = (await connection.execute(query)).first()
        if row is None:
            raise missing(wish.port_uuid)
        if row.project_id != self.project_id:
            raise InvalidError(f"Port {row.uuid} not usable for the container.", "port-not-usable")
        if row.capsule_uuid is not None or row.device_id:
            raise InvalidError(f"Port {row.uuid} is still in use.", "port-in-use")
        for wanted, has in ((wish.address, row.address), (wish.address6, row.address6)):
            if wanted and wanted != has:
                raise InvalidError(
                    f"Port {row.uuid} has the address {has or row.address}, so that it cannot get {wanted}. Leave the "
                    "fixed address out, or change that of the port first."
                )
        if row.address is None:
            raise ConflictError(
                f"Port {row.uuid} has the IPv6 address {row.address6} alone; a container needs one of IPv4, too. Add "
                "it to the port's fixed_ips first."
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
        return Port(
            row.uuid,
            network.uuid,
            self.capsule_uuid,
            row.address,
            row.mac,
            preserve=True,
            address6=row.address6 or "",
        ), network


def _fixed(network: TenantNetwork, wish: NetWish) -> list[FixedIp] | None:
    """What a port is to have so that a capsule has the addresses it wishes for, and others where it wishes for none."""
    wished = [FixedIp(address=address) for address in (wish.address, wish.address6) if address]
    if not wished:
        return None
    others = [(wish.address, network.subnet), (wish.address6, network.subnet6)]
    return wished + [FixedIp(subnet.uuid) for address, subnet in others if not address and subnet is not None]


def _check_usable(network: TenantNetwork) -> None:
    if network.external:
        raise ConflictError(
            f"Nothing can be on the external network {network.name} ({network.uuid}) itself: its addresses lead to "
            "ports of other networks. Put the container on one of those, and give its port a floating address."
        )
    if network.subnet is None:
        why = "has no subnet, so that it has no addresses" if network.subnet6 is None else "has no IPv4 subnet"
        raise ConflictError(
            f"Network {network.name} ({network.uuid}) {why}. Containers need an IPv4 address: make a subnet first."
        )


def missing(ident: str) -> NotFoundError:
    """The error for a port that does not exist, or not for this caller."""
    return NotFoundError(f"Port {ident} could not be found.", "port-not-found")


async def add(connection: AsyncConnection, now_us: int, got: addresses.Addresses, **values: Any) -> str:
    """A new port with its addresses and other columns; returns its uuid."""
    uuid = str(uuids.uuid4())
    await connection.execute(
        insert(ports).values(uuid=uuid, created_us=now_us, updated_us=now_us, **got.columns(), **values)
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
                network = known[row.network_uuid] = sql_networks.host_record(row)
            mine, theirs = found.setdefault(row.capsule_uuid, ([], []))
            mine.append(
                Port(
                    row.uuid,
                    row.network_uuid,
                    row.capsule_uuid,
                    row.address,
                    row.mac,
                    row.preserve,
                    row.address6 or "",
                )
            )
            theirs.append(network)
    return found
