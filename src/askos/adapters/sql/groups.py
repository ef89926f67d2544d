"""Security groups, inside the caller's transaction."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, bindparam, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql.schema import security_groups, security_rules
from askos.model.errors import NotFoundError
from askos.model.networks import SecurityGroup, SecurityRule
from askos.plan import security

DEFAULT = "default"
_DEFAULT_OF = select(security_groups.c.uuid).where(security_groups.c.default_of == bindparam("of"))


def missing(ident: str) -> NotFoundError:
    """The error for a group that does not exist, or not for this caller."""
    return NotFoundError(f"Security group {ident} does not exist.", "security-group-not-found")


def rule(row: Row[Any]) -> SecurityRule:
    """A row of `schema.security_rules`."""
    return SecurityRule(
        uuid=row.uuid,
        group_uuid=row.group_uuid,
        direction=row.direction,
        protocol=row.protocol,
        port_min=row.port_min,
        port_max=row.port_max,
        remote_cidr=row.remote_cidr,
        remote_group=row.remote_group,
        ethertype=row.ethertype,
        description=row.description,
        created_us=row.created_us,
    )


async def default_uuid(connection: AsyncConnection, project_id: str, now_us: int) -> str:
    """The project's default group, made at its first use."""
    found = (await connection.execute(_DEFAULT_OF, {"of": project_id})).scalar()
    if found is not None:
        return str(found)
    uuid = await add(connection, project_id, DEFAULT, "Default security group", now_us, default_of=project_id)
    for member_rule in security.let_members_in(uuid):
        await add_rule(connection, member_rule, now_us)
    return uuid


async def add(
    connection: AsyncConnection,
    project_id: str,
    name: str,
    description: str,
    now_us: int,
    *,
    default_of: str | None = None,
) -> str:
    """A new group that lets everything out; returns its uuid."""
    uuid = str(uuids.uuid4())
    await connection.execute(
        insert(security_groups).values(
            uuid=uuid,
            project_id=project_id,
            default_of=default_of,
            name=name,
            description=description,
            created_us=now_us,
            updated_us=now_us,
            changed=1,
        )
    )
    for first in security.let_out(uuid):
        await add_rule(connection, first, now_us)
    return uuid


async def add_rule(connection: AsyncConnection, wanted: SecurityRule, now_us: int) -> SecurityRule:
    """Write a rule under a new uuid."""
    made = msgspec.structs.replace(wanted, uuid=str(uuids.uuid4()), created_us=now_us)
    await connection.execute(insert(security_rules).values(**msgspec.structs.asdict(made)))
    return made


async def find(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> list[SecurityGroup]:
    """Groups with their rules, oldest first."""
    query = select(security_groups).where(*conditions).order_by(security_groups.c.created_us, security_groups.c.uuid)
    found: Sequence[Row[Any]] = (await connection.execute(query)).all()
    if not found:
        return []
    wanted = select(security_groups.c.uuid).where(*conditions)
    query = select(security_rules).where(security_rules.c.group_uuid.in_(wanted))
    rules: dict[str, list[SecurityRule]] = {}
    for row in (await connection.execute(query.order_by(security_rules.c.created_us, security_rules.c.uuid))).all():
        rules.setdefault(row.group_uuid, []).append(rule(row))
    return [
        SecurityGroup(
            uuid=row.uuid,
            project_id=row.project_id,
            name=row.name,
            description=row.description,
            rules=rules.get(row.uuid, []),
            created_us=row.created_us,
            updated_us=row.updated_us,
            changed=row.changed,
            is_default=row.default_of is not None,
        )
        for row in found
    ]


async def check(connection: AsyncConnection, uuids_: Sequence[str], project_id: str | None) -> None:
    """NotFoundError unless all of these groups are there, for this project (None: of any)."""
    for uuid in uuids_:
        query = select(security_groups.c.project_id).where(security_groups.c.uuid == uuid)
        owner = (await connection.execute(query)).scalar()
        if owner is None or project_id not in (None, owner):
            raise missing(uuid)
