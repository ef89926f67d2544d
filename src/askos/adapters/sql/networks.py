"""Networks and their subnets, inside the caller's transaction."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql.schema import cloud, networks, subnets
from askos.model.capsules import Network
from askos.model.errors import NotFoundError
from askos.model.networks import Subnet, TenantNetwork
from askos.plan import pools

DEFAULT = "default"
EXTERNAL = "public"

V4 = subnets.alias("v4")
V6 = subnets.alias("v6")
"""The subnets of a row of `networks`; outer joined, as each may be missing."""
_SUBNET = (
    "uuid", "network_uuid", "project_id", "name", "cidr", "gateway", "gateway_disabled", "description", "dhcp",
    "ranges", "pool_uuid", "created_us", "updated_us", "changed", "ip_version", "address_mode", "ra_mode",
)  # fmt: skip
"""Columns and fields of `model.networks.Subnet`, in their order."""

_TOGETHER = (
    *networks.c,
    *(V4.c[name].label(f"v4_{name}") for name in _SUBNET),
    *(V6.c[name].label(f"v6_{name}") for name in _SUBNET),
)
HOST_COLUMNS = (
    networks.c.uuid.label("of_uuid"),
    networks.c.project_id.label("of_project_id"),
    networks.c.name.label("of_name"),
    V4.c.cidr.label("of_cidr"),
    V4.c.gateway.label("of_gateway"),
    V4.c.uuid.label("of_subnet_uuid"),
    V4.c.gateway_disabled.label("of_gateway_disabled"),
    V6.c.cidr.label("of_cidr6"),
    V6.c.gateway.label("of_gateway6"),
    V6.c.uuid.label("of_subnet6_uuid"),
    V6.c.gateway_disabled.label("of_gateway6_disabled"),
)
"""What a host must know of a network: the fields of `model.capsules.Network`, in their order, under names that no port
has."""


def with_subnets(query: Select[Any], network_uuid: ColumnElement[Any]) -> Select[Any]:
    """The query with `V4` and `V6` of a network beside it."""
    for side, version in ((V4, 4), (V6, 6)):
        query = query.outerjoin(side, and_(side.c.network_uuid == network_uuid, side.c.ip_version == version))
    return query


def query() -> Select[Any]:
    """Networks with their subnets, for `record`."""
    return with_subnets(select(*_TOGETHER).select_from(networks), networks.c.uuid)


# Built once: these belong to every start, and making a statement costs more than running it.
_USABLE = (
    query()
    .where(V4.c.uuid.is_not(None), networks.c.external.is_(False))
    .order_by(networks.c.created_us, networks.c.uuid)
    .limit(1)
    .with_for_update(of=networks)
)
_OWN = _USABLE.where(networks.c.project_id == bindparam("of"))
_SHARED = _USABLE.where(networks.c.shared.is_(True))
_FIND = query().where(networks.c.uuid == bindparam("of")).with_for_update(of=networks)


def record(row: Row[Any]) -> TenantNetwork:
    """A row of `query`."""
    return TenantNetwork(
        uuid=row.uuid,
        project_id=row.project_id,
        name=row.name,
        description=row.description,
        shared=row.shared,
        external=row.external,
        subnet=_subnet(row, "v4") if row.v4_uuid is not None else None,
        subnet6=_subnet(row, "v6") if row.v6_uuid is not None else None,
        created_us=row.created_us,
        updated_us=row.updated_us,
        changed=row.changed,
    )


def _subnet(row: Row[Any], side: str) -> Subnet:
    fields = {name: getattr(row, f"{side}_{name}") for name in _SUBNET}
    return Subnet(**{**fields, "ranges": ranges_of(fields["ranges"])})


def for_host(network: TenantNetwork) -> Network:
    """A network as hosts see it. It has an IPv4 subnet."""
    subnet, subnet6 = network.subnet, network.subnet6
    assert subnet is not None
    return Network(
        uuid=network.uuid,
        project_id=network.project_id,
        name=network.name,
        cidr=subnet.cidr,
        gateway=subnet.gateway,
        subnet_uuid=subnet.uuid,
        gateway_disabled=subnet.gateway_disabled,
        cidr6=subnet6.cidr if subnet6 else "",
        gateway6=subnet6.gateway if subnet6 else "",
        subnet6_uuid=subnet6.uuid if subnet6 else "",
        gateway6_disabled=subnet6.gateway_disabled if subnet6 else False,
    )


def host_record(row: Row[Any]) -> Network:
    """A row with `HOST_COLUMNS`. The network has an IPv4 subnet."""
    return Network(
        uuid=row.of_uuid,
        project_id=row.of_project_id,
        name=row.of_name,
        cidr=row.of_cidr,
        gateway=row.of_gateway,
        subnet_uuid=row.of_subnet_uuid,
        gateway_disabled=row.of_gateway_disabled,
        cidr6=row.of_cidr6 or "",
        gateway6=row.of_gateway6 or "",
        subnet6_uuid=row.of_subnet6_uuid or "",
        gateway6_disabled=bool(row.of_gateway6_disabled),
    )


def ranges_of(text: str) -> list[tuple[str, str]]:
    """The column `ranges`."""
    return [(first, last) for first, _, last in (piece.partition("-") for piece in text.split())]


def ranges_text(ranges: Sequence[tuple[str, str]]) -> str:
    """The same the other way round."""
    return " ".join(f"{first}-{last}" for first, last in ranges)


def missing(ident: str) -> NotFoundError:
    """The error for a network that does not exist, or not for this caller."""
    return NotFoundError(f"Network {ident} could not be found.", "network-not-found")


async def find(connection: AsyncConnection, uuid: str) -> TenantNetwork:
    """One network, locked until the transaction's end: whoever takes an address of it holds this. NotFoundError."""
    row = (await connection.execute(_FIND, {"of": uuid})).first()
    if row is None:
        raise missing(uuid)
    return record(row)


async def usual(connection: AsyncConnection, project_id: str, now_us: int) -> TenantNetwork:
    """Where a project's capsules go that wish for no network: its oldest, else the oldest shared one, else its
    "default", which is made now. Those without IPv4 do not count."""
    for wanted, whose in ((_OWN, {"of": project_id}), (_SHARED, {})):
        row = (await connection.execute(wanted, whose)).first()
        if row is not None:
            return record(row)
    pool = (await connection.execute(select(cloud.c.value).where(cloud.c.key == "network_pool"))).scalar_one()
    # Ranges may meet, but people find their way more easily where they do not.
    cidr = pools.free_subnet([pool], await ranges_in_use(connection), pools.SUBNET_PREFIX)
    if cidr is None:
        mine_alone = await ranges_in_use(connection, networks.c.project_id == project_id)
        cidr = pools.free_subnet([pool], mine_alone, pools.SUBNET_PREFIX) or next(pools.subnets(pool))
    uuid = await add(connection, project_id, DEFAULT, now_us)
    await give_subnet(connection, uuid, project_id, cidr, now_us, name=DEFAULT)
    return await find(connection, uuid)


async def ranges_in_use(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> list[str]:
    """The ranges of all networks, or of some."""
    wanted = select(subnets.c.cidr).join(networks, networks.c.uuid == subnets.c.network_uuid).where(*conditions)
    return list((await connection.execute(wanted)).scalars())


async def add(connection: AsyncConnection, project_id: str, name: str, now_us: int, **more: Any) -> str:
    """A new network without a subnet; returns its uuid."""
    uuid = str(uuids.uuid4())
    values = {"uuid": uuid, "project_id": project_id, "name": name, "created_us": now_us, "updated_us": now_us, **more}
    await connection.execute(insert(networks).values(**values))
    return uuid


async def give_subnet(
    connection: AsyncConnection, network_uuid: str, project_id: str, cidr: str, now_us: int, **columns: Any
) -> None:
    """Give a network that has none of this IP version a subnet. What is not said: the first address is the gateway."""
    usual_values = {
        "name": "",
        "description": "",
        "gateway": pools.gateway_of(cidr),
        "gateway_disabled": False,
        "dhcp": True,
        "ranges": "",
    }
    await connection.execute(
        insert(subnets).values(
            uuid=str(uuids.uuid4()),
            network_uuid=network_uuid,
            ip_version=pools.version_of(cidr),
            project_id=project_id,
            cidr=cidr,
            created_us=now_us,
            updated_us=now_us,
            changed=0,
            **{**usual_values, **columns},
        )
    )
    await touch(connection, network_uuid, now_us)


async def touch(connection: AsyncConnection, network_uuid: str, now_us: int) -> None:
    """A network's subnets have changed."""
    values = {"updated_us": now_us, "changed": networks.c.changed + 1}
    await connection.execute(update(networks).where(networks.c.uuid == network_uuid).values(**values))
