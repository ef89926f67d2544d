"""What is claimed on each host, inside the caller's transaction."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import rows
from askos.adapters.sql.schema import capsules, hosts
from askos.plan.placement import Load


async def loads_of(connection: AsyncConnection, host_uuid: str | None = None) -> list[Load]:
    """All hosts, or one, with the sum of the claims of their capsules."""
    claims = (
        select(
            capsules.c.host_uuid,
            func.sum(capsules.c.cpu).label("cpu"),
            func.sum(capsules.c.memory_mib).label("memory"),
        )
        .where(capsules.c.host_uuid.is_not(None) if host_uuid is None else capsules.c.host_uuid == host_uuid)
        .group_by(capsules.c.host_uuid)
        .subquery()
    )
    query = select(hosts, claims.c.cpu, claims.c.memory).outerjoin(claims, claims.c.host_uuid == hosts.c.uuid)
    if host_uuid is not None:
        query = query.where(hosts.c.uuid == host_uuid)
    return [
        Load(rows.host(row), int(row.cpu or 0), int(row.memory or 0)) for row in (await connection.execute(query)).all()
    ]
