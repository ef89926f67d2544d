"""Security groups of the network service."""

from __future__ import annotations

from sqlalchemy import delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import groups as sql_groups
from askos.adapters.sql.networking.common import Common, names_of, owned, stamped
from askos.adapters.sql.schema import port_groups, security_groups, security_rules
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.model.networks import SecurityGroup, SecurityRule
from askos.plan import security
from askos.ports.network_store import Who


class GroupStore(Common):
    """Security groups and their rules."""

    async def groups(self, project_id: str | None, uuids: list[str] | None = None) -> list[SecurityGroup]:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.read() as connection:
            return await sql_groups.find(connection, *owned(security_groups, project_id, uuids))

    async def default_group(self, project_id: str) -> SecurityGroup:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.read() as connection:
            found = await sql_groups.find(connection, security_groups.c.default_of == project_id)
        if found:
            return found[0]
        async with self._db.write() as connection:
            uuid = await sql_groups.default_uuid(connection, project_id, self._clock())
            return (await sql_groups.find(connection, security_groups.c.uuid == uuid))[0]

    async def group_ids(self, idents: list[str], project_id: str) -> list[str]:
        """See `ports.network_store.NetworkStore`."""
        if sql_groups.DEFAULT in idents:
            await self.default_group(project_id)
        found: list[str] = []
        async with self._db.read() as connection:
            for ident in dict.fromkeys(idents):
                query = select(security_groups.c.uuid, security_groups.c.name).where(
                    security_groups.c.project_id == project_id,
                    or_(security_groups.c.uuid == ident, security_groups.c.name == ident),
                )
                rows = (await connection.execute(query)).all()
                exact = [row.uuid for row in rows if row.uuid == ident] or [row.uuid for row in rows]
                if not exact:
                    raise InvalidError(f"Security group {ident} not found.", "invalid-value")
                if len(exact) > 1:
                    raise ConflictError(
                        f"Multiple security groups exist with same name {ident}. Please use the security group uuid "
                        "instead."
                    )
                found += exact
        return list(dict.fromkeys(found))

    async def create_group(self, project_id: str, name: str, description: str = "") -> SecurityGroup:
        """See `ports.network_store.NetworkStore`."""
        now = self._clock()
        if name == sql_groups.DEFAULT:
            raise ConflictError("Default security group already exists.", "security-group-default-already-exists")
        async with self._db.write() as connection:
            await sql_groups.default_uuid(connection, project_id, now)
            uuid = await sql_groups.add(connection, project_id, name, description, now)
            return (await sql_groups.find(connection, security_groups.c.uuid == uuid))[0]

    async def update_group(
        self, uuid: str, *, name: str | None = None, description: str | None = None
    ) -> SecurityGroup:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            before = await _one(connection, uuid)
            if name is not None and name != before.name:
                if before.is_default:
                    raise ConflictError(
                        "Updating default security group not allowed: it keeps its name.",
                        "security-group-cannot-update-default",
                    )
                if name == sql_groups.DEFAULT:
                    raise ConflictError(
                        "Default security group already exists.", "security-group-default-already-exists"
                    )
            values = stamped(security_groups, self._clock(), name=name, description=description)
            await connection.execute(update(security_groups).where(security_groups.c.uuid == uuid).values(**values))
            return await _one(connection, uuid)

    async def delete_group(self, uuid: str, who: Who) -> None:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            group = await _one(connection, uuid)
            if not who.is_admin and group.project_id != who.project_id:
                raise sql_groups.missing(uuid)
            if group.is_default and not who.is_admin:
                raise ConflictError(
                    "Insufficient rights for removing default security group.", "security-group-cannot-remove-default"
                )
            used = await names_of(connection, select(port_groups.c.port_uuid).where(port_groups.c.group_uuid == uuid))
            if used:
                raise ConflictError(f"Security Group {uuid} in use by ports {used}.", "security-group-in-use")
            await connection.execute(delete(security_groups).where(security_groups.c.uuid == uuid))
        self._on_change()

    # -- rules -------------------------------------------------------------------------------------------------

    async def rules(self, project_id: str | None) -> list[tuple[SecurityRule, SecurityGroup]]:
        """See `ports.network_store.NetworkStore`."""
        return [(rule, group) for group in await self.groups(project_id) for rule in group.rules]

    async def create_rule(self, rule: SecurityRule, who: Who) -> tuple[SecurityRule, SecurityGroup]:
        """See `ports.network_store.NetworkStore`."""
        scope = None if who.is_admin else who.project_id
        rule = security.checked(rule)
        async with self._db.write() as connection:
            wanted = [rule.group_uuid] if rule.remote_group is None else [rule.group_uuid, rule.remote_group]
            await sql_groups.check(connection, wanted, scope)
            group = await _one(connection, rule.group_uuid)
            for other in group.rules:
                if security.key(other) == security.key(rule):
                    raise ConflictError(
                        f"Security group rule already exists. Rule id is {other.uuid}.", "security-group-rule-exists"
                    )
            made = await sql_groups.add_rule(connection, rule, self._clock())
            await self._touch(connection, group.uuid)
        self._on_change()
        return made, group

    async def delete_rule(self, uuid: str, who: Who) -> None:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            query = (
                select(security_rules.c.group_uuid, security_groups.c.project_id)
                .join(security_groups, security_groups.c.uuid == security_rules.c.group_uuid)
                .where(security_rules.c.uuid == uuid)
            )
            row = (await connection.execute(query)).first()
            if row is None or (not who.is_admin and row.project_id != who.project_id):
                raise NotFoundError(f"Security group rule {uuid} does not exist.", "security-group-rule-not-found")
            await connection.execute(delete(security_rules).where(security_rules.c.uuid == uuid))
            await self._touch(connection, row.group_uuid)
        self._on_change()

    async def _touch(self, connection: AsyncConnection, group_uuid: str) -> None:
        values = stamped(security_groups, self._clock())
        await connection.execute(update(security_groups).where(security_groups.c.uuid == group_uuid).values(**values))


async def _one(connection: AsyncConnection, uuid: str) -> SecurityGroup:
    found = await sql_groups.find(connection, security_groups.c.uuid == uuid)
    if not found:
        raise sql_groups.missing(uuid)
    return found[0]
