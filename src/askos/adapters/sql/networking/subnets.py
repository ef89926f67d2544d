"""Subnets of the network service."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Literal

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import networks as sql_networks
from askos.adapters.sql.networking.common import Common, names_of, stamped
from askos.adapters.sql.networking.networks import outside_in_use
from askos.adapters.sql.networking.pools import cut
from askos.adapters.sql.schema import capsules, changes, networks, ports, subnets
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.model.networks import Subnet, TenantNetwork
from askos.plan import pools
from askos.ports.network_store import NewSubnet
from askos.ports.store import Change

_WHOLE = ("slaac", "dhcpv6-stateless")
"""Modes in which, elsewhere, hosts make the second half of their addresses by themselves."""


class SubnetStore(Common):
    """Subnets. Hosts that have capsules on their networks are told of what becomes of them."""

    async def create_subnet(self, new: NewSubnet) -> Subnet:
        """See `ports.network_store.NetworkStore`."""
        now = self._clock()
        async with self._db.write() as connection:
            network = await sql_networks.find(connection, new.network_uuid)
            _check_room(network, new.ip_version)
            project_id = new.project_id or network.project_id
            cidr = await self._range(connection, network, new, project_id)
            gateway = _gateway(cidr, new.gateway or None)
            _check_ranges(cidr, gateway, new.ranges)
            _check_modes(cidr, new)
            await sql_networks.give_subnet(
                connection,
                network.uuid,
                project_id,
                cidr,
                now,
                gateway=gateway,
                gateway_disabled=new.gateway is False,
                name=new.name,
                description=new.description,
                pool_uuid=new.pool_uuid,
                dhcp=new.dhcp,
                ranges=sql_networks.ranges_text(new.ranges),
                address_mode=new.address_mode,
                ra_mode=new.ra_mode,
            )
            after = await sql_networks.find(connection, network.uuid)
            concerned = await self._mark(connection, network.uuid)
        self._tell(concerned)
        return next(subnet for subnet in after.subnets if subnet.ip_version == new.ip_version)

    async def _range(self, connection: AsyncConnection, network: TenantNetwork, new: NewSubnet, project_id: str) -> str:
        outside = await self._outside(connection, network)
        if new.cidr is None or new.pool_uuid is not None:
            return pools.check_usable(await cut(connection, new, project_id, outside))
        cidr = pools.check_usable(new.cidr)
        if pools.version_of(cidr) != new.ip_version:
            raise InvalidError(
                f"Invalid input for cidr. Reason: '{cidr}' does not match the ip_version '{new.ip_version}'.",
                "invalid-input",
            )
        if pools.overlapping(cidr, outside) is not None:
            # Clients look for "overlaps with another subnet", and try the next range.
            raise InvalidError(
                f"Invalid input for operation: Requested subnet with cidr: {cidr} for network: {network.uuid} overlaps "
                "with another subnet. Floating addresses are of that range; take another one.",
                "invalid-input",
            )
        return cidr

    async def _outside(self, connection: AsyncConnection, network: TenantNetwork) -> list[str]:
        """The ranges of floating addresses: a network that had one of them would not find its way to them."""
        if network.external:
            return []
        return [self._external_cidr, *await sql_networks.ranges_in_use(connection, networks.c.external)]

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
        concerned: list[Change] = []
        async with self._db.write() as connection:
            network, subnet = await _find(connection, uuid)
            values: dict[str, Any] = {
                "name": name,
                "description": description,
                "dhcp": dhcp,
                "ranges": None if ranges is None else sql_networks.ranges_text(ranges),
            }
            door = subnet.gateway
            if gateway is not None:
                door = subnet.gateway if gateway is False else _gateway(subnet.cidr, gateway)
                if (door, gateway is False) != (subnet.gateway, subnet.gateway_disabled):
                    await _check_no_ports(connection, subnet)
                    values |= {"gateway": door, "gateway_disabled": gateway is False}
            _check_ranges(subnet.cidr, door, subnet.ranges if ranges is None else ranges)
            stamps = stamped(subnets, self._clock(), **values)
            await connection.execute(update(subnets).where(subnets.c.uuid == uuid).values(**stamps))
            if "gateway" in values:
                concerned = await self._mark(connection, network.uuid)
            _, after = await _find(connection, uuid)
        self._tell(concerned)
        return after

    async def delete_subnet(self, uuid: str) -> None:
        """See `ports.network_store.NetworkStore`."""
        async with self._db.write() as connection:
            network, subnet = await _find(connection, uuid)
            used = await _ports_of(connection, subnet)
            if not used and network.external and await outside_in_use(connection, network.uuid):
                used = "those of routers or floating addresses"
            if used:
                raise ConflictError(
                    f"Unable to complete operation on subnet {uuid}: One or more ports have an IP allocation from this "
                    f"subnet: {used}.",
                    "subnet-in-use",
                )
            await connection.execute(delete(subnets).where(subnets.c.uuid == uuid))
            await sql_networks.touch(connection, network.uuid, self._clock())
            concerned = await self._mark(connection, network.uuid)
        self._tell(concerned)

    # -- hosts -------------------------------------------------------------------------------------------------

    async def _mark(self, connection: AsyncConnection, network_uuid: str) -> list[Change]:
        """Write into the change log that the capsules of hosts on this network are to be looked at again."""
        query = (
            select(capsules.c.uuid, capsules.c.kind, capsules.c.project_id, capsules.c.host_uuid)
            .join(ports, ports.c.capsule_uuid == capsules.c.uuid)
            .where(ports.c.network_uuid == network_uuid, capsules.c.host_uuid.is_not(None))
        )
        found: list[Change] = []
        for row in (await connection.execute(query)).all():
            entry = {"kind": row.kind, "uuid": row.uuid, "project_id": row.project_id, "at_us": self._clock()}
            result = await connection.execute(insert(changes).values(deleted=False, **entry))
            assert result.inserted_primary_key is not None
            revision = int(result.inserted_primary_key[0])
            await connection.execute(update(capsules).where(capsules.c.uuid == row.uuid).values(revision=revision))
            found.append(
                Change(
                    revision,
                    row.kind,
                    row.uuid,
                    deleted=False,
                    host_uuid=row.host_uuid,
                    project_id=row.project_id,
                )
            )
        return found

    def _tell(self, concerned: list[Change]) -> None:
        for change in concerned:
            self._on_capsule(change)


async def _find(connection: AsyncConnection, uuid: str) -> tuple[TenantNetwork, Subnet]:
    """A subnet and its network, which is locked."""
    query = select(subnets.c.network_uuid).where(subnets.c.uuid == uuid)
    network_uuid = (await connection.execute(query)).scalar()
    if network_uuid is not None:
        network = await sql_networks.find(connection, network_uuid)
        for subnet in network.subnets:
            if subnet.uuid == uuid:
                return network, subnet
    raise NotFoundError(f"Subnet {uuid} could not be found.", "subnet-not-found")


def _check_room(network: TenantNetwork, version: int) -> None:
    if network.external and version != 4:
        raise InvalidError(
            f"Invalid input for ip_version. Reason: the external network {network.name} has floating addresses, which "
            "are of IPv4.",
            "invalid-input",
        )
    for subnet in network.subnets:
        if subnet.ip_version == version:
            raise ConflictError(
                f"Network {network.uuid} has the subnet {subnet.cidr} already. Here a network has one of IPv4 and one "
                "of IPv6: make another network for more.",
                "subnet-exists",
            )


def _gateway(cidr: str, wanted: str | None) -> str:
    """The bridge's address: the one wanted, else the first."""
    if wanted is None:
        return pools.gateway_of(cidr)
    net, address = pools.net_of(cidr), pools.parsed(wanted)
    if address is None:
        raise InvalidError(
            f"Invalid input for gateway_ip. Reason: '{wanted}' is not a valid IP address.", "invalid-input"
        )
    first, last = pools.bounds(net)
    if address.version != net.version or not first <= int(address) <= last:
        raise InvalidError(f"Gateway IP {wanted} is not in the subnet {cidr}.", "gateway-not-in-subnet")
    return str(address)


def _check_ranges(cidr: str, gateway: str, ranges: list[tuple[str, str]]) -> None:
    net = pools.net_of(cidr)
    low, high = pools.bounds(net)
    seen: list[tuple[int, int]] = []
    for first, last in ranges:
        ends = [pools.parsed(first), pools.parsed(last)]
        if any(end is None or end.version != net.version for end in ends):
            raise InvalidError(
                f"Invalid allocation pool {first}-{last}: not of IPv{net.version}.", "invalid-allocation-pool"
            )
        a, b = (int(end) for end in ends if end is not None)
        if a > b:
            raise InvalidError(f"The allocation pool {first}-{last} is not valid.", "invalid-allocation-pool")
        if a < low or b > high:
            raise InvalidError(
                f"The allocation pool {first}-{last} spans beyond the subnet cidr {cidr}.",
                "out-of-bounds-allocation-pool",
            )
        if a <= int(ip_address(gateway)) <= b:
            raise ConflictError(
                f"Gateway ip {gateway} conflicts with allocation pool {first}-{last}.",
                "gateway-conflict-with-allocation-pools",
            )
        if any(a <= d and c <= b for c, d in seen):
            raise ConflictError(
                f"Found overlapping allocation pools {first}-{last} for subnet {cidr}.", "overlapping-allocation-pools"
            )
        seen.append((a, b))


def _check_modes(cidr: str, new: NewSubnet) -> None:
    modes = {mode for mode in (new.address_mode, new.ra_mode) if mode is not None}
    if not modes:
        return
    if new.ip_version != 4 and not new.dhcp:
        why = "ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False"
    elif new.ip_version == 4:
        why = "ipv6_ra_mode and ipv6_address_mode are for subnets of IPv6"
    elif len(modes) > 1:
        why = f"ipv6_ra_mode set to '{new.ra_mode}' with ipv6_address_mode set to '{new.address_mode}' is not valid"
    elif modes & set(_WHOLE) and pools.net_of(cidr).prefixlen != 64:
        why = f"the CIDR {cidr} must be a /64 for the IPv6 address mode '{new.address_mode or new.ra_mode}'"
    else:
        return
    raise InvalidError(f"Invalid input for operation: {why}.", "invalid-input")


async def _ports_of(connection: AsyncConnection, subnet: Subnet) -> str:
    column = ports.c.address if subnet.ip_version == 4 else ports.c.address6
    query = select(ports.c.uuid).where(ports.c.network_uuid == subnet.network_uuid, column.is_not(None))
    return await names_of(connection, query)


async def _check_no_ports(connection: AsyncConnection, subnet: Subnet) -> None:
    used = await _ports_of(connection, subnet)
    if used:
        raise ConflictError(
            f"Gateway ip {subnet.gateway} of subnet {subnet.uuid} cannot be changed: ports are on the network, {used}."
            " Delete them first.",
            "gateway-ip-in-use",
        )
