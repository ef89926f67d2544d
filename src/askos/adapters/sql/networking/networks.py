"""Networks of the network service."""

from __future__ import annotations

from sqlalchemy import delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import groups as sql_groups
from askos.adapters.sql import networks as sql_networks
from askos.adapters.sql.networking.common import Common, names_of, stamped, visible
from askos.adapters.sql.schema import floating_ips, networks, ports, routers, subnets
from askos.model.errors import ConflictError, InvalidError
from askos.model.networks import TenantNetwork
from askos.plan import pools
from askos.ports.network_store import Who


class TenantNetworkStore(Common):
    """Networks."""

    async def networks(self, who: Who, uuids: list[str] | None = None) -> list[TenantNetwork]:
        """See `ports.network_store.NetworkStore`."""
        query = sql_networks.query().where(visible(who)).order_by(networks.c.created_us, networks.c.uuid)
        if uuids is not None:
            query = query.where(networks.c.uuid.in_(uuids))
        async with self._db.read() as connection:
            return [sql_networks.record(row) for row in (await connection.execute(query)).all()]

    async def network(self, ident: str, who: Who) -> TenantNetwork:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.read() as connection:
            query = sql_networks.query().where(visible(who), or_(networks.c.uuid == ident, networks.c.name == ident))
            found = [sql_networks.record(row) for row in (await connection.execute(query)).all()]
        exact = [n for n in found if n.uuid == ident]
        named = exact or [n for n in found if n.project_id == who.project_id] or found
        if not named:
            raise sql_networks.missing(ident)
        if len(named) > 1:
            raise ConflictError(f"Multiple networks exist with same name {ident}. Please use the network uuid instead.")
        return named[0]

    async def create_network(
        self, project_id: str, name: str, *, description: str = "", shared: bool = False
    ) -> TenantNetwork:
        """See `ports.network_store.NetworkStore`."""
        now = self._clock()
        async with self._db.write() as connection:
            # As with Neutron, a project has its default group from its first network on.
            await sql_groups.default_uuid(connection, project_id, now)
            uuid = await sql_networks.add(connection, project_id, name, now, description=description, shared=shared)
            return await sql_networks.find(connection, uuid)

    async def update_network(
        self, uuid: str, *, name: str | None = None, description: str | None = None, shared: bool | None = None
    ) -> TenantNetwork:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            row = await sql_networks.find(connection, uuid)
            if row.shared and shared is False:
                others = select(ports.c.uuid).where(ports.c.network_uuid == uuid, ports.c.project_id != row.project_id)
                if await names_of(connection, others):
                    raise ConflictError(
                        f"Unable to reconfigure sharing settings for network {row.name}. Multiple tenants are using "
                        "it.",
                        "invalid-shared-setting",
                    )
            values = stamped(networks, self._clock(), name=name, description=description, shared=shared)
            await connection.execute(update(networks).where(networks.c.uuid == uuid).values(**values))
            return await sql_networks.find(connection, uuid)

    async def delete_network(self, uuid: str) -> None:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            row = await sql_networks.find(connection, uuid)
            for what, table in (("ports", ports), ("routers", routers), ("floating addresses", floating_ips)):
                used = await names_of(connection, select(table.c.uuid).where(table.c.network_uuid == uuid))
                if used:
                    raise ConflictError(
                        f"Unable to complete operation on network {uuid}. There are one or more {what} still in use on "
                        f"the network, id for these is: {used}.",
                        "network-in-use",
                    )
            await connection.execute(delete(networks).where(networks.c.uuid == row.uuid))

    async def ensure_external(self) -> TenantNetwork:
        """See `ports.network_store.NetworkStore`."""
        mine = sql_networks.query().where(networks.c.external).order_by(networks.c.created_us)
        async with self._db.read() as connection:
            row = (await connection.execute(mine)).first()
        if row is not None and row.v4_cidr == self._external_cidr:
            return sql_networks.record(row)
        now = self._clock()
        async with self._db.write() as connection:
            row = (await connection.execute(mine)).first()
            if row is None:
                uuid = await sql_networks.add(
                    connection, "", sql_networks.EXTERNAL, now, external=True, description="The outside"
                )
            else:
                uuid = row.uuid
            if (row is None or row.v4_cidr != self._external_cidr) and not await outside_in_use(connection, uuid):
                theirs = await sql_networks.ranges_in_use(connection, networks.c.uuid != uuid)
                taken = pools.overlapping(self._external_cidr, theirs)
                if taken is not None:
                    raise InvalidError(
                        f"Cannot use {self._external_cidr} for floating addresses: the range {taken} of a network "
                        "overlaps it. Name another one in the settings, or delete that network."
                    )
                await connection.execute(delete(subnets).where(subnets.c.network_uuid == uuid))
                await sql_networks.give_subnet(
                    connection, uuid, "", self._external_cidr, now, name="public-subnet", dhcp=False
                )
            return await sql_networks.find(connection, uuid)


async def outside_in_use(connection: AsyncConnection, uuid: str) -> bool:
    """Whether somebody has addresses of an external network: then its range stays, whatever the settings say now."""
    for table in (floating_ips, routers):
        if await names_of(connection, select(table.c.uuid).where(table.c.network_uuid == uuid)):
            return True
    return False
