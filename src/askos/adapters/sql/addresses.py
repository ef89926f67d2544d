"""Addresses of networks, inside the caller's transaction: which are free, and whether one that is wished can be had.

Whoever asks holds the network (`networks.find`), and the database keeps addresses unique in their network.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql.schema import floating_ips, ports, routers
from askos.model.errors import ConflictError, InvalidError
from askos.model.networks import Subnet, TenantNetwork
from askos.plan import pools
from askos.ports.network_store import FixedIp


class Addresses(NamedTuple):
    """What a port has: one or both."""

    v4: str | None = None
    v6: str | None = None

    def columns(self) -> dict[str, Any]:
        """Of `schema.ports`. The MAC follows from the address."""
        return {
            "address": self.v4,
            "address_number": None if self.v4 is None else int(IPv4Address(self.v4)),
            "address6": self.v6,
            "mac": pools.mac_for(self.v4 or self.v6 or ""),
        }


NOTHING = Addresses()


async def free(connection: AsyncConnection, network: TenantNetwork, subnet: Subnet, beside: str | None = None) -> str:
    """An address of a subnet that nobody has. With `beside`, which the same port has in the network's other subnet, the
    one that is as far from the beginning, if it is free: people can tell who it is, and nothing has to be searched.
    ConflictError when the subnet is full."""
    if beside is not None and network.subnet is not None:
        offset = int(ip_address(beside)) - int(pools.net_of(network.subnet.cidr).network_address)
        found = pools.address_beside(subnet.cidr, offset, subnet.gateway, subnet.ranges)
        if found is not None and not await _taken(connection, network, found):
            return found
    found = pools.free_address(subnet.cidr, await _numbers(connection, network, subnet), subnet.gateway, subnet.ranges)
    if found is None:
        raise ConflictError(
            f"Cannot give out an address: all addresses of network {network.name} ({subnet.cidr}) are in use. Delete "
            "containers or ports that are not needed.",
            "ip-address-generation-failure",
        )
    return found


async def check(connection: AsyncConnection, network: TenantNetwork, subnet: Subnet, address: str) -> str:
    """An address of somebody's choice. InvalidError when it is none of the subnet, ConflictError when it is taken."""
    found = pools.check_address(subnet.cidr, address, subnet.gateway)
    if await _taken(connection, network, found):
        raise ConflictError(
            f"IP address {found} already allocated in subnet {subnet.uuid}.", "ip-address-already-allocated"
        )
    return found


async def choose(
    connection: AsyncConnection,
    network: TenantNetwork,
    fixed: Sequence[FixedIp] | None = None,
    now: Addresses = NOTHING,
) -> Addresses:
    """The addresses of a port: one of each subnet, or those that `fixed` names. `now` are those that it has already,
    which it keeps where they suit. InvalidError; ConflictError when one is taken, or none is left."""
    if not network.subnets:
        raise ConflictError(
            f"No more IP addresses available on network {network.uuid}: it has no subnet.",
            "ip-address-generation-failure",
        )
    if fixed is None:
        wishes: dict[int, str] = {subnet.ip_version: "" for subnet in network.subnets}
    else:
        wishes = _by_version(network, fixed)
    v4 = v6 = None
    if network.subnet is not None and 4 in wishes:
        v4 = await _one(connection, network, network.subnet, wishes[4], now=now.v4)
    if network.subnet6 is not None and 6 in wishes:
        v6 = await _one(connection, network, network.subnet6, wishes[6], now=now.v6, beside=v4)
    return Addresses(v4, v6)


async def _one(
    connection: AsyncConnection,
    network: TenantNetwork,
    subnet: Subnet,
    wish: str,
    *,
    now: str | None,
    beside: str | None = None,
) -> str:
    if now is not None and (not wish or str(pools.parsed(wish)) == now):
        return now
    if wish:
        return await check(connection, network, subnet, wish)
    return await free(connection, network, subnet, beside)


def _by_version(network: TenantNetwork, fixed: Sequence[FixedIp]) -> dict[int, str]:
    """By IP version, the address wished there; empty: any."""
    found: dict[int, str] = {}
    for one in fixed:
        subnet = _subnet_of(network, one)
        if one.address:
            pools.check_address(subnet.cidr, one.address, subnet.gateway)
        if subnet.ip_version in found:
            raise InvalidError(
                f"Invalid input for fixed_ips. Reason: a port has one address of a subnet here, and subnet "
                f"{subnet.uuid} is named twice.",
                "invalid-input",
            )
        found[subnet.ip_version] = one.address
    if not found:
        raise InvalidError("Invalid input for fixed_ips. Reason: a port needs an address here.", "invalid-input")
    return found


def _subnet_of(network: TenantNetwork, one: FixedIp) -> Subnet:
    """The subnet that a wish means."""
    if one.subnet_uuid:
        for subnet in network.subnets:
            if subnet.uuid == one.subnet_uuid:
                return subnet
        raise InvalidError(
            f"Invalid input for fixed_ips. Reason: network {network.uuid} has no subnet {one.subnet_uuid}.",
            "invalid-input",
        )
    address = pools.parsed(one.address)
    if address is None:
        raise InvalidError(f"{one.address!r} is not an IP address.", "invalid-ip-for-network")
    for subnet in network.subnets:
        if subnet.ip_version == address.version:
            return subnet
    raise InvalidError(
        f"IP address {address} is not a valid IP for any of the subnets on network {network.uuid}: it has none of "
        f"IPv{address.version}.",
        "invalid-ip-for-network",
    )


async def _taken(connection: AsyncConnection, network: TenantNetwork, address: str) -> bool:
    column = ports.c.address6 if pools.version_of(address) == 6 else ports.c.address_number
    value: str | int = address if pools.version_of(address) == 6 else int(IPv4Address(address))
    query = select(ports.c.uuid).where(ports.c.network_uuid == network.uuid, column == value)
    if (await connection.execute(query)).first() is not None:
        return True
    return network.external and int(ip_address(address)) in await _outside(connection, network)


async def _numbers(connection: AsyncConnection, network: TenantNetwork, subnet: Subnet) -> set[int]:
    """All addresses in use, as integers. Those of an external network are no ports."""
    column = ports.c.address6 if subnet.ip_version == 6 else ports.c.address_number
    query = select(column).where(ports.c.network_uuid == network.uuid, column.is_not(None))
    found = (await connection.execute(query)).scalars()
    used = {int(ip_address(one)) for one in found} if subnet.ip_version == 6 else set(found)
    return used | await _outside(connection, network) if network.external else used


async def _outside(connection: AsyncConnection, network: TenantNetwork) -> set[int]:
    used: set[int] = set()
    for table in (floating_ips, routers):
        others = select(table.c.address).where(table.c.network_uuid == network.uuid, table.c.address.is_not(None))
        used |= {int(IPv4Address(address)) for address in (await connection.execute(others)).scalars()}
    return used
