"""Subnet pools of the network service."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql.networking.common import Common, names_of, stamped
from askos.adapters.sql.schema import subnet_pools, subnets
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.model.networks import SubnetPool
from askos.plan import pools
from askos.ports.network_store import NewSubnet


class PoolStore(Common):
    """Subnet pools."""

    async def subnet_pools(self, project_id: str | None) -> list[SubnetPool]:
        """See `ports.network_store.NetworkStore`."""
        query = select(subnet_pools).order_by(subnet_pools.c.created_us, subnet_pools.c.uuid)
        if project_id is not None:
            query = query.where(or_(subnet_pools.c.project_id == project_id, subnet_pools.c.shared))
        async with self._db.read() as connection:
            return [_pool(row) for row in (await connection.execute(query)).all()]

    async def create_pool(self, new: SubnetPool) -> SubnetPool:
        """See `ports.network_store.NetworkStore`."""
        now = self._clock()
        made = msgspec.structs.replace(new, uuid=str(uuids.uuid4()), created_us=now, updated_us=now, changed=0)
        async with self._db.write() as connection:
            await connection.execute(insert(subnet_pools).values(**_columns(made)))
        return made

    async def update_pool(self, uuid: str, change: Callable[[SubnetPool], SubnetPool]) -> SubnetPool:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            before = await find(connection, uuid)
            values = _columns(change(before))
            for name in ("uuid", "project_id", "created_us", "updated_us", "changed"):
                del values[name]
            stamps = stamped(subnet_pools, self._clock())
            await connection.execute(update(subnet_pools).where(subnet_pools.c.uuid == uuid).values(**values, **stamps))
            return await find(connection, uuid)

    async def delete_pool(self, uuid: str) -> None:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            await find(connection, uuid)
            used = await names_of(connection, select(subnets.c.uuid).where(subnets.c.pool_uuid == uuid))
            if used:
                raise ConflictError(
                    f"Unable to delete subnet pool: Subnet pool has existing allocations, subnets {used}.",
                    "subnet-pool-delete-error",
                )
            await connection.execute(delete(subnet_pools).where(subnet_pools.c.uuid == uuid))


async def find(connection: AsyncConnection, uuid: str) -> SubnetPool:
    """One pool. NotFoundError."""
    row = (await connection.execute(select(subnet_pools).where(subnet_pools.c.uuid == uuid))).first()
    if row is None:
        raise NotFoundError(f"Subnet pool {uuid} could not be found.", "subnet-pool-not-found")
    return _pool(row)


async def cut(connection: AsyncConnection, new: NewSubnet, project_id: str, outside: list[str]) -> str:
    """A range out of the pool that a new subnet names: the one that it wishes for, else a free one. A pool gives each
    address once; `outside` it gives to nobody."""
    if new.pool_uuid is None:
        raise InvalidError(
            "Bad subnets request: a subnetpool must be specified in the absence of a cidr.", "bad-request"
        )
    pool = await find(connection, new.pool_uuid)
    version = pools.version_of(pool.prefixes[0])
    if version != new.ip_version:
        raise InvalidError(
            f"Bad subnets request: Cannot allocate IPv{new.ip_version} subnet from IPv{version} subnet pool.",
            "bad-request",
        )
    query = select(subnets.c.cidr, subnets.c.project_id).where(subnets.c.pool_uuid == pool.uuid)
    given = (await connection.execute(query)).all()
    taken = [row.cidr for row in given] + outside
    if new.cidr is not None:
        cidr = str(pools.net_of(new.cidr))
        inside = any(_within(cidr, prefix) for prefix in pool.prefixes)
        if not inside or pools.overlapping(cidr, taken) is not None:
            raise ConflictError(
                f"Failed to allocate subnet: Cannot allocate requested subnet {cidr} from the available set of "
                "prefixes.",
                "subnet-allocation-error",
            )
        _check_length(pool, version, pools.net_of(cidr).prefixlen)
    else:
        prefix = pool.prefix_default if new.prefix is None else new.prefix
        _check_length(pool, version, prefix)
        found = pools.free_subnet(pool.prefixes, taken, prefix)
        if found is None:
            raise ConflictError(
                f"Failed to allocate subnet: Insufficient prefix space to allocate subnet size /{prefix}.",
                "subnet-allocation-error",
            )
        cidr = found
    if pool.quota is not None:
        has = sum(_units(row.cidr) for row in given if row.project_id == project_id)
        if has + _units(cidr) > pool.quota:
            raise ConflictError("Per-tenant subnet pool prefix quota exceeded.", "subnet-pool-quota-exceeded")
    return cidr


def _within(cidr: str, prefix: str) -> bool:
    inner, outer = pools.net_of(cidr), pools.net_of(prefix)
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _units(cidr: str) -> float:
    """How much a subnet counts: addresses of IPv4, /64 networks of IPv6 (and parts of them)."""
    net = pools.net_of(cidr)
    return float(net.num_addresses) if net.version == 4 else 2.0 ** (64 - net.prefixlen)


def _check_length(pool: SubnetPool, version: int, prefix: int) -> None:
    if not pool.prefix_min <= prefix <= pool.prefix_max:
        low = "min" if prefix < pool.prefix_min else "max"
        bound = pool.prefix_min if prefix < pool.prefix_min else pool.prefix_max
        raise InvalidError(
            f"Unable to allocate subnet with prefix length {prefix}, {low}imum allowed prefix is {bound}.",
            f"{low}-prefix-subnet-allocation-error",
        )
    if prefix > pools.SMALLEST[version]:
        raise InvalidError(
            f"Unable to allocate subnet with prefix length {prefix}: a network needs a /{pools.SMALLEST[version]} or "
            "larger.",
            "max-prefix-subnet-allocation-error",
        )


def _pool(row: Row[Any]) -> SubnetPool:
    fields = {name: getattr(row, name) for name in SubnetPool.__struct_fields__}
    return SubnetPool(**{**fields, "prefixes": row.prefixes.split()})


def _columns(pool: SubnetPool) -> dict[str, Any]:
    return {**msgspec.structs.asdict(pool), "prefixes": " ".join(pool.prefixes)}
