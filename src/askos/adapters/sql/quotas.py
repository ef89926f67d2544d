"""The store's quotas: limits of projects and classes, and the check inside the transactions that use something up."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String, Table, bindparam, delete, func, insert, literal, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import rows
from askos.adapters.sql.base import Base
from askos.adapters.sql.schema import capsules, quota_classes, quotas, registries
from askos.model.capsules import CapsuleSpec
from askos.model.errors import NotFoundError
from askos.model.quotas import DEFAULT_CLASS, Limits, Usage, check, override

_LIMITS = union_all(
    select(literal(value=True), quotas.c.resource, quotas.c.hard_limit).where(
        quotas.c.project_id == bindparam("of", type_=String)
    ),
    select(literal(value=False), quota_classes.c.resource, quota_classes.c.hard_limit).where(
        quota_classes.c.name == bindparam("class", type_=String)
    ),
)
"""A project's own limits and those of a class."""


class QuotaStore(Base):
    """`ports.admin_store.QuotaStore`."""

    async def limits(self, project_id: str) -> Limits:
        """See the port."""
        async with self._db.read() as connection:
            return await limits_of(connection, project_id, self._default_limits)

    async def class_limits(self, name: str) -> Limits:
        """See the port."""
        async with self._db.read() as connection:
            return await _class_limits(connection, name, self._default_limits)

    async def usage(self, project_id: str) -> Usage:
        """See the port."""
        async with self._db.read() as connection:
            return await usage_of(connection, project_id)

    async def set_limits(self, project_id: str, changes: dict[str, int]) -> Limits:
        """See the port."""
        async with self._db.write() as connection:
            await _write(connection, quotas, "project_id", project_id, changes)
            return await limits_of(connection, project_id, self._default_limits)

    async def set_class_limits(self, name: str, changes: dict[str, int]) -> Limits:
        """See the port."""
        async with self._db.write() as connection:
            await _write(connection, quota_classes, "name", name, changes)
            return await _class_limits(connection, name, self._default_limits)

    async def forget_limits(self, project_id: str) -> None:
        """See the port."""
        async with self._db.write() as connection:
            await connection.execute(delete(quotas).where(quotas.c.project_id == project_id))


async def admit(
    connection: AsyncConnection,
    project_id: str,
    before: CapsuleSpec | None,
    after: CapsuleSpec,
    defaults: Limits,
) -> None:
    """Refuse a capsule that would use more than its project may, or the log-in of a registry that is not there.
    `before` None: it is new. Within a write transaction: the use cannot change until it ends."""
    was, now = Usage() if before is None else rows.use(before), rows.use(after)
    registry = after.containers[0].registry_uuid if after.containers else None
    if registry is not None and (before is None or before.containers[0].registry_uuid != registry):
        await _check_registry(connection, registry)
    if was == now:
        return
    limits = await limits_of(connection, project_id, defaults)
    if limits.none:
        return
    if connection.dialect.name == "postgresql":
        # Servers on one database take turns; SQLite has a single writer anyway.
        await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:key))"), {"key": f"quota {project_id}"})
    check(limits, await usage_of(connection, project_id), was, now)


async def limits_of(connection: AsyncConnection, project_id: str, defaults: Limits) -> Limits:
    """The project's own limits, else those of the class "default", else `defaults`."""
    classes: dict[str, int] = {}
    own: dict[str, int] = {}
    found = (await connection.execute(_LIMITS, {"of": project_id, "class": DEFAULT_CLASS})).all()
    for is_own, resource, limit in found:
        (own if is_own else classes)[resource] = int(limit)
    return override(override(defaults, classes), own)


async def usage_of(connection: AsyncConnection, project_id: str) -> Usage:
    """What the project's capsules take, those included that are being deleted."""
    columns = [capsules.c[f"quota_{name}"] for name in Usage.__struct_fields__]
    query = select(*(func.coalesce(func.sum(column), 0) for column in columns))
    found = (await connection.execute(query.where(capsules.c.project_id == project_id))).one()
    return Usage(*(int(value) for value in found))


async def _class_limits(connection: AsyncConnection, name: str, defaults: Limits) -> Limits:
    return override(defaults, await _read(connection, quota_classes, quota_classes.c.name == name))


async def _read(connection: AsyncConnection, table: Table, condition: Any) -> dict[str, int]:
    query = select(table.c.resource, table.c.hard_limit).where(condition)
    return {row[0]: int(row[1]) for row in (await connection.execute(query)).all()}


async def _write(
    connection: AsyncConnection, table: Table, owner_column: str, owner: str, changes: dict[str, int]
) -> None:
    for resource, limit in changes.items():
        column = table.c[owner_column]
        await connection.execute(delete(table).where(column == owner, table.c.resource == resource))
        await connection.execute(insert(table).values({owner_column: owner, "resource": resource, "hard_limit": limit}))


async def _check_registry(connection: AsyncConnection, uuid: str) -> None:
    there = select(registries.c.id).where(registries.c.uuid == uuid)
    if (await connection.execute(there)).first() is None:
        raise NotFoundError(f"Registry {uuid} could not be found.", "registry-not-found")
