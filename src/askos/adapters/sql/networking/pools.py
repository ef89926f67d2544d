"""Subnet pools of the network service."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql.networking.common import Common, stamped
from askos.adapters.sql.schema import subnet_pools
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
            await connection.execute(delete(subnet_pools).where(subnet_pools.c.uuid == uuid))


async def find(connection: AsyncConnection, uuid: str) -> SubnetPool:
    """One pool. NotFoundError."""
    row = (await connection.execute(select(subnet_pools).where(subnet_pools.c.uuid == uuid))).first()
    if row is None:
        raise NotFoundError(f"Subnet pool {uuid} could not be found.", "subnet-pool-not-found")
    return _pool(row)


async def cut(connection: AsyncConnection, new: NewSubnet, taken: list[str]) -> str:
    """A free range out of the pool that a new subnet names."""
    if new.pool_uuid is None:
        raise InvalidError(
            "Bad subnets request: a subnetpool must be specified in the absence of a cidr.", "bad-request"
        )
    pool = await find(connection, new.pool_uuid)
    prefix = pool.prefix_default if new.prefix is None else new.prefix
    if not pool.prefix_min <= prefix <= pool.prefix_max:
        low = "min" if prefix < pool.prefix_min else "max"
        bound = pool.prefix_min if prefix < pool.prefix_min else pool.prefix_max
        raise InvalidError(
            f"Unable to allocate subnet with prefix length {prefix}, {low}imum allowed prefix is {bound}.",
            f"{low}-prefix-subnet-allocation-error",
        )
    if prefix > pools.SMALLEST_PREFIX:
        raise InvalidError(
            f"Unable to allocate subnet with prefix length {prefix}: a network needs a /{pools.SMALLEST_PREFIX} or "
            "larger.",
            "max-prefix-subnet-allocation-error",
        )
    cidr = pools.free_subnet(pool.prefixes, taken, prefix)
    if cidr is None:
        raise ConflictError(
            f"Failed to allocate subnet: Insufficient prefix space to allocate subnet size /{prefix}.",
            "subnet-allocation-error",
        )
    return pools.check_private(cidr)


def _pool(row: Row[Any]) -> SubnetPool:
    fields = {name: getattr(row, name) for name in SubnetPool.__struct_fields__}
    return SubnetPool(**{**fields, "prefixes": row.prefixes.split()})


def _columns(pool: SubnetPool) -> dict[str, Any]:
    return {**msgspec.structs.asdict(pool), "prefixes": " ".join(pool.prefixes)}
