"""Networks and subnets of the network service."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any, Literal

from sqlalchemy import Row, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import groups as sql_groups
from askos.adapters.sql import networks as sql_networks
from askos.adapters.sql.networking.common import Common, names_of, stamped, visible
from askos.adapters.sql.networking.pools import cut
from askos.adapters.sql.schema import floating_ips, networks, ports, routers
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.model.networks import Subnet, TenantNetwork
from askos.plan import pools
from askos.ports.network_store import NewSubnet, Who


class TenantNetworkStore(Common):
    """Networks and subnets."""

    async def networks(self, who: Who, uuids: list[str] | None = None) -> list[TenantNetwork]:
        """See `ports.network_store.NetworkStore`."""
        query = select(networks).where(visible(who)).order_by(networks.c.created_us, networks.c.uuid)
        if uuids is not None:
            query = query.where(networks.c.uuid.in_(uuids))
        async with self._db.read() as connection:
            return [sql_networks.record(row) for row in (await connection.execute(query)).all()]

    async def network(self, ident: str, who: Who) -> TenantNetwork:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.read() as connection:
            query = select(networks).where(visible(who), or_(networks.c.uuid == ident, networks.c.name == ident))
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
            return sql_networks.record(await sql_networks.find(connection, uuid))

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
            return sql_networks.record(await sql_networks.find(connection, uuid))

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
        mine = select(networks).where(networks.c.external).order_by(networks.c.created_us)
        async with self._db.read() as connection:
            row = (await connection.execute(mine)).first()
        if row is not None and row.cidr == self._external_cidr:
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
            if (row is None or row.cidr != self._external_cidr) and not await self._outside_in_use(connection, uuid):
                await self._check_range(connection, self._external_cidr, uuid, but=uuid)
                gateway = pools.gateway_of(self._external_cidr)
                subnet = {
                    "cidr": self._external_cidr,
                    "gateway": gateway,
                    "subnet_name": "public-subnet",
                    "dhcp": False,
                }
                await sql_networks.give_subnet(connection, uuid, subnet, now)
            return sql_networks.record(await sql_networks.find(connection, uuid))

    async def _outside_in_use(self, connection: AsyncConnection, uuid: str) -> bool:
        """Then the range stays, whatever the settings say now."""
        for table in (floating_ips, routers):
            if await names_of(connection, select(table.c.uuid).where(table.c.network_uuid == uuid)):
                return True
        return False

    # -- subnets -----------------------------------------------------------------------------------------------

    async def create_subnet(self, new: NewSubnet) -> Subnet:
        """See `ports.network_store.NetworkStore`."""
        now = self._clock()
        async with self._db.write() as connection:
            row = await sql_networks.find(connection, new.network_uuid)
            if row.cidr is not None:
                raise ConflictError(
                    f"Network {row.uuid} has the subnet {row.cidr} already. Here a network has one: make another "
                    "network for more.",
                    "subnet-exists",
                )
            if new.cidr is not None:
                cidr = pools.check_private(new.cidr)
                await self._check_range(connection, cidr, row.uuid)
                if pools.overlapping(cidr, self._reserved()):
                    raise InvalidError(
                        f"Invalid input for operation: Requested subnet with cidr: {cidr} for network: {row.uuid} "
                        "overlaps with another subnet. The hosts of this cloud reach something by that range; take "
                        "another one.",
                        "invalid-input",
                    )
            else:
                cidr = await cut(connection, new, await self._all_in_use(connection))
            if pools.network(cidr).prefixlen > pools.SMALLEST_PREFIX:
                pools.check_private(cidr)
            gateway = _gateway(cidr, new.gateway or None)
            _check_ranges(cidr, gateway, new.ranges)
            values = {
                "cidr": cidr,
                "gateway": gateway,
                "gateway_disabled": new.gateway is False,
                "subnet_name": new.name,
                "subnet_description": new.description,
                "subnet_project_id": new.project_id or row.project_id,
                "subnet_pool_uuid": new.pool_uuid,
                "dhcp": new.dhcp,
                "ranges": sql_networks.ranges_text(new.ranges),
            }
            await sql_networks.give_subnet(connection, row.uuid, values, now)
            return _its_subnet(await sql_networks.find(connection, row.uuid))

    async def _all_in_use(self, connection: AsyncConnection) -> list[str]:
        return [*await sql_networks.ranges_in_use(connection), *self._reserved()]

    async def _check_range(self, connection: AsyncConnection, cidr: str, network_uuid: str, but: str = "") -> None:
        query = select(networks.c.cidr).where(networks.c.cidr.is_not(None), networks.c.uuid != but)
        # Clients look for "overlaps with another subnet", and try the next range.
        if pools.overlapping(cidr, (await connection.execute(query)).scalars()):
            raise InvalidError(
                f"Invalid input for operation: Requested subnet with cidr: {cidr} for network: {network_uuid} overlaps "
                "with another subnet. All networks of this cloud share the routing of its hosts; take another range.",
                "invalid-input",
            )

    async def update_subnet(
        self,
        uuid: str,
        *,
        name: str | None = None,
        description: str | None = None,
        dhcp: bool | None = None,
        gateway: str | Literal[False] | None = None,
        ranges: list[tuple[str, str]] | None = None,
    ) -> Subnet:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            row = await _row_of(connection, uuid)
            values: dict[str, Any] = {
                "subnet_name": name,
                "subnet_description": description,
                "dhcp": dhcp,
                "ranges": None if ranges is None else sql_networks.ranges_text(ranges),
            }
            now_gateway = row.gateway
            if gateway is not None:
                now_gateway = row.gateway if gateway is False else _gateway(row.cidr, gateway)
                if (now_gateway, gateway is False) != (row.gateway, row.gateway_disabled):
                    await _check_no_ports(connection, row)
                    values |= {"gateway": now_gateway, "gateway_disabled": gateway is False}
            _check_ranges(row.cidr, now_gateway, sql_networks.ranges_of(row.ranges) if ranges is None else ranges)
            given = {key: value for key, value in values.items() if value is not None}
            stamps = {"subnet_updated_us": self._clock(), "subnet_changed": networks.c.subnet_changed + 1}
            await connection.execute(update(networks).where(networks.c.uuid == row.uuid).values(**given, **stamps))
            return _its_subnet(await sql_networks.find(connection, row.uuid))

    async def delete_subnet(self, uuid: str) -> None:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            row = await _row_of(connection, uuid)
            used = await names_of(connection, select(ports.c.uuid).where(ports.c.network_uuid == row.uuid))
            if not used and row.external and await self._outside_in_use(connection, row.uuid):
                used = "those of routers or floating addresses"
            if used:
                raise ConflictError(
                    f"Unable to complete operation on subnet {uuid}: One or more ports have an IP allocation from this "
                    f"subnet: {used}.",
                    "subnet-in-use",
                )
            nothing: dict[str, Any] = dict.fromkeys(("cidr", "gateway", "subnet_uuid", "subnet_project_id"))
            blank = {"subnet_name": "", "subnet_description": "", "subnet_pool_uuid": None, "ranges": "", "dhcp": True}
            values = stamped(networks, self._clock()) | nothing | blank | {"gateway_disabled": False}
            await connection.execute(update(networks).where(networks.c.uuid == row.uuid).values(**values))


async def _row_of(connection: AsyncConnection, subnet_uuid: str) -> Row[Any]:
    query = select(networks).where(networks.c.subnet_uuid == subnet_uuid).with_for_update()
    row = (await connection.execute(query)).first()
    if row is None:
        raise NotFoundError(f"Subnet {subnet_uuid} could not be found.", "subnet-not-found")
    return row


def _its_subnet(row: Row[Any]) -> Subnet:
    subnet = sql_networks.record(row).subnet
    assert subnet is not None
    return subnet


def _gateway(cidr: str, wanted: str | None) -> str:
    """The bridge's address: the one wanted, else the first."""
    if wanted is None:
        return pools.gateway_of(cidr)
    net = pools.network(cidr)
    try:
        address = IPv4Address(wanted)
    except ValueError:
        raise InvalidError(
            f"Invalid input for gateway_ip. Reason: '{wanted}' is not a valid IP address.", "invalid-input"
        ) from None
    if address not in net or address in (net.network_address, net.broadcast_address):
        raise InvalidError(f"Gateway IP {wanted} is not in the subnet {cidr}.", "gateway-not-in-subnet")
    return str(address)


def _check_ranges(cidr: str, gateway: str, ranges: list[tuple[str, str]]) -> None:
    net = pools.network(cidr)
    low, high = int(net.network_address) + 1, int(net.broadcast_address) - 1
    seen: list[tuple[int, int]] = []
    for first, last in ranges:
        try:
            a, b = int(IPv4Address(first)), int(IPv4Address(last))
        except ValueError:
            raise InvalidError(
                f"Invalid allocation pool {first}-{last}: not IPv4.", "invalid-allocation-pool"
            ) from None
        if a > b:
            raise InvalidError(f"The allocation pool {first}-{last} is not valid.", "invalid-allocation-pool")
        if a < low or b > high:
            raise InvalidError(
                f"The allocation pool {first}-{last} spans beyond the subnet cidr {cidr}.",
                "out-of-bounds-allocation-pool",
            )
        if a <= int(IPv4Address(gateway)) <= b:
            raise ConflictError(
                f"Gateway ip {gateway} conflicts with allocation pool {first}-{last}.",
                "gateway-conflict-with-allocation-pools",
            )
        if any(a <= d and c <= b for c, d in seen):
            raise ConflictError(
                f"Found overlapping allocation pools {first}-{last} for subnet {cidr}.", "overlapping-allocation-pools"
            )
        seen.append((a, b))


async def _check_no_ports(connection: AsyncConnection, row: Row[Any]) -> None:
    used = await names_of(connection, select(ports.c.uuid).where(ports.c.network_uuid == row.uuid))
    if used:
        raise ConflictError(
            f"Gateway ip {row.gateway} of subnet {row.subnet_uuid} cannot be changed: ports are on the network, {used}."
            " Delete them first.",
            "gateway-ip-in-use",
        )
