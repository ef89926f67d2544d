"""Networks and their subnets, inside the caller's transaction."""

from __future__ import annotations

import uuid as uuids
from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import Row, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql.schema import cloud, floating_ips, networks, ports, routers
from askos.model.capsules import Network
from askos.model.errors import ConflictError, NotFoundError
from askos.model.networks import Subnet, TenantNetwork
from askos.plan import pools

HOST_COLUMNS = ("uuid", "project_id", "name", "cidr", "gateway", "subnet_uuid", "gateway_disabled")
"""What a host must know of a network: the fields of `model.capsules.Network`, in their order."""
_USABLE = (
    select(networks)
    .where(networks.c.cidr.is_not(None), networks.c.external.is_(False))
    .order_by(networks.c.created_us, networks.c.uuid)
    .limit(1)
)
_OWN = _USABLE.where(networks.c.project_id == bindparam("of"))
_SHARED = _USABLE.where(networks.c.shared.is_(True))
_TAKEN = select(ports.c.address_number).where(ports.c.network_uuid == bindparam("of"))
DEFAULT = "default"
EXTERNAL = "public"


def for_host(row: Row[Any]) -> Network:
    """A row of `schema.networks` as hosts see it. It has a subnet."""
    return Network(*(getattr(row, name) for name in HOST_COLUMNS))


def record(row: Row[Any]) -> TenantNetwork:
    """A row of `schema.networks` as the network service sees it."""
    return TenantNetwork(
        uuid=row.uuid,
        project_id=row.project_id,
        name=row.name,
        description=row.description,
        shared=row.shared,
        external=row.external,
        subnet=_subnet(row),
        created_us=row.created_us,
        updated_us=row.updated_us,
        changed=row.changed,
    )


def _subnet(row: Row[Any]) -> Subnet | None:
    if row.subnet_uuid is None:
        return None
    return Subnet(
        uuid=row.subnet_uuid,
        network_uuid=row.uuid,
        project_id=row.subnet_project_id or row.project_id,
        name=row.subnet_name,
        cidr=row.cidr,
        gateway=row.gateway,
        gateway_disabled=row.gateway_disabled,
        description=row.subnet_description,
        dhcp=row.dhcp,
        ranges=ranges_of(row.ranges),
        pool_uuid=row.subnet_pool_uuid,
        created_us=row.subnet_created_us,
        updated_us=row.subnet_updated_us,
        changed=row.subnet_changed,
    )


def ranges_of(text: str) -> list[tuple[str, str]]:
    """The column `ranges`."""
    return [(first, last) for first, _, last in (piece.partition("-") for piece in text.split())]


def ranges_text(ranges: list[tuple[str, str]]) -> str:
    """The same the other way round."""
    return " ".join(f"{first}-{last}" for first, last in ranges)


def missing(ident: str) -> NotFoundError:
    """The error for a network that does not exist, or not for this caller."""
    return NotFoundError(f"Network {ident} could not be found.", "network-not-found")


async def find(connection: AsyncConnection, uuid: str) -> Row[Any]:
    """One network, locked until the transaction's end: whoever takes an address of it holds this. NotFoundError."""
    row = (await connection.execute(select(networks).where(networks.c.uuid == uuid).with_for_update())).first()
    if row is None:
        raise missing(uuid)
    return row


async def usual(connection: AsyncConnection, project_id: str, now_us: int) -> Row[Any]:
    """Where a project's capsules go that wish for no network: its oldest, else the oldest shared one, else its
    "default", which is made now. ConflictError when there is no room for that."""
    for query, whose in ((_OWN, {"of": project_id}), (_SHARED, {})):
        row = (await connection.execute(query, whose)).first()
        if row is not None:
            return row
    pool = (await connection.execute(select(cloud.c.value).where(cloud.c.key == "network_pool"))).scalar_one()
    cidr = pools.free_subnet([pool], await ranges_in_use(connection), pools.SUBNET_PREFIX)
    if cidr is None:
        raise ConflictError(
            f"Cannot make a network for this project: the pool {pool} has no free subnet left. Make one with a range "
            "of your own, or delete networks that are not needed."
        )
    uuid = await add(connection, project_id, DEFAULT, now_us)
    await give_subnet(
        connection, uuid, {"subnet_name": DEFAULT, "cidr": cidr, "gateway": pools.gateway_of(cidr)}, now_us
    )
    return await find(connection, uuid)


async def ranges_in_use(connection: AsyncConnection) -> list[str]:
    """The ranges of all networks."""
    return list((await connection.execute(select(networks.c.cidr).where(networks.c.cidr.is_not(None)))).scalars())


async def add(connection: AsyncConnection, project_id: str, name: str, now_us: int, **more: Any) -> str:
    """A new network without a subnet; returns its uuid."""
    uuid = str(uuids.uuid4())
    values = {"uuid": uuid, "project_id": project_id, "name": name, "created_us": now_us, "updated_us": now_us, **more}
    await connection.execute(insert(networks).values(**values))
    return uuid


async def give_subnet(connection: AsyncConnection, network_uuid: str, values: dict[str, Any], now_us: int) -> None:
    """Write a network's subnet; `values` are columns."""
    stamps = {"subnet_created_us": now_us, "subnet_updated_us": now_us, "subnet_changed": 0}
    given = {"subnet_uuid": str(uuids.uuid4()), "gateway_disabled": False, **stamps, **values}
    await connection.execute(
        update(networks)
        .where(networks.c.uuid == network_uuid)
        .values(updated_us=now_us, changed=networks.c.changed + 1, **given)
    )


async def free_address(connection: AsyncConnection, network: Row[Any]) -> str:
    """An address of a network that nobody has. ConflictError when it is full."""
    address = pools.free_address(
        network.cidr, await _numbers(connection, network), network.gateway, ranges_of(network.ranges)
    )
    if address is None:
        raise ConflictError(
            f"Cannot give out an address: all addresses of network {network.name} ({network.cidr}) are in use. Delete "
            "containers or ports that are not needed.",
            "ip-address-generation-failure",
        )
    return address


async def check_address(connection: AsyncConnection, network: Row[Any], address: str) -> str:
    """An address of somebody's choice. InvalidError when it is none of the network, ConflictError when it is taken."""
    found = pools.check_address(network.cidr, address, network.gateway)
    if int(IPv4Address(found)) in await _numbers(connection, network):
        raise ConflictError(
            f"IP address {found} already allocated in subnet {network.subnet_uuid}.", "ip-address-already-allocated"
        )
    return found


async def _numbers(connection: AsyncConnection, network: Row[Any]) -> set[int]:
    """All addresses in use, as integers. Those of an external network are no ports."""
    used = set((await connection.execute(_TAKEN, {"of": network.uuid})).scalars().all())
    if network.external:
        for table in (floating_ips, routers):
            others = select(table.c.address).where(table.c.network_uuid == network.uuid, table.c.address.is_not(None))
            used |= {int(IPv4Address(address)) for address in (await connection.execute(others)).scalars()}
    return used
