"""The security group that a container with exposed ports gets for itself, inside the caller's transaction."""

from __future__ import annotations

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import groups as sql_groups
from askos.adapters.sql.schema import port_groups, security_groups, security_rules
from askos.model.capsules import CapsuleSpec
from askos.model.networks import SecurityRule


def _name(capsule_uuid: str) -> str:
    return f"zun-{capsule_uuid}"


async def expose(
    connection: AsyncConnection, capsule_uuid: str, project_id: str, spec: CapsuleSpec, now_us: int
) -> CapsuleSpec:
    """Make the group of a new container that exposes ports and names no groups: everybody may reach these ports.
    Returns the spec with it."""
    exposed = [port for c in spec.containers for port in c.exposed_ports]
    if not exposed or spec.security_groups:
        return spec
    description = "Exposed ports of a container; removed with it"
    group = await sql_groups.add(connection, project_id, _name(capsule_uuid), description, now_us)
    for port in exposed:
        number, _, protocol = port.partition("/")
        opening = SecurityRule("", group, "ingress", protocol, int(number), int(number))
        await sql_groups.add_rule(connection, opening, now_us)
        await sql_groups.add_rule(connection, msgspec.structs.replace(opening, ethertype="IPv6"), now_us)
    return msgspec.structs.replace(spec, security_groups=[group])


async def conceal(connection: AsyncConnection, capsule_uuid: str, project_id: str, spec: CapsuleSpec) -> None:
    """Remove that group when its container, whose ports are freed already, goes; unless somebody uses it elsewhere."""
    if not any(c.exposed_ports for c in spec.containers):
        return
    groups = security_groups.c
    query = select(groups.uuid).where(groups.name == _name(capsule_uuid), groups.project_id == project_id)
    for uuid in (await connection.execute(query)).scalars().all():
        used = select(port_groups.c.port_uuid).where(port_groups.c.group_uuid == uuid).limit(1)
        if (await connection.execute(used)).first() is not None:
            continue
        rules = security_rules.c
        mine = (rules.group_uuid == uuid) | (rules.remote_group == uuid)
        await connection.execute(delete(security_rules).where(mine))
        await connection.execute(delete(security_groups).where(groups.uuid == uuid))
