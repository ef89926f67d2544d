"""Security groups, floating addresses and what a host must know of its networks.

Networks and ports themselves are in `model.capsules`. The words are Neutron's.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Direction = Literal["ingress", "egress"]


class SecurityRule(msgspec.Struct, frozen=True):
    """One rule that lets traffic through. What no rule of a port's groups lets through is dropped; answers always
    pass.

    `protocol` None: any; a name (tcp, udp, icmp) or a number. Ports are inclusive (for icmp: type and code). At most
    one of `remote_cidr` and `remote_group` is set; neither: everybody.
    """

    uuid: str
    group_uuid: str
    direction: Direction
    protocol: str | None = None
    port_min: int | None = None
    port_max: int | None = None
    remote_cidr: str | None = None
    remote_group: str | None = None
    ethertype: Literal["IPv4", "IPv6"] = "IPv4"
    description: str = ""
    created_us: int = 0


class SecurityGroup(msgspec.Struct, frozen=True):
    """A named set of rules. Each project has one called "default", made at its first use: everything out, and in from
    its own members."""

    uuid: str
    project_id: str
    name: str
    description: str = ""
    rules: list[SecurityRule] = []
    created_us: int = 0
    updated_us: int = 0
    changed: int = 0
    is_default: bool = False


class FloatingIp(msgspec.Struct, frozen=True):
    """An address of the outside that leads to a port, on the host where the port is."""

    uuid: str
    project_id: str
    network_uuid: str
    """The external network."""
    address: str
    port_uuid: str | None = None
    fixed_address: str | None = None
    created_us: int = 0


class HostPort(msgspec.Struct, frozen=True):
    """What a host knows of one port on it for its packet rules. `secured` False: no groups, no walls. Addresses are
    unique in their network only. `address6` is the IPv6 one, if any."""

    uuid: str
    address: str
    groups: list[str] = []
    secured: bool = True
    network_uuid: str = ""
    address6: str = ""


class HostGroup(msgspec.Struct, frozen=True):
    """A security group as a host enforces it: its rules, and the addresses of its members everywhere."""

    uuid: str
    rules: list[SecurityRule] = []
    members_of: dict[str, list[str]] = {}
    """By network, both IPv4 and IPv6: a rule's remote group means those on the port's own network, as nothing of other
    networks arrives under its own address."""


class HostFloating(msgspec.Struct, frozen=True):
    """A floating address that leads to a port of this host."""

    address: str
    fixed_address: str
    network_uuid: str = ""


class NetworkState(msgspec.Struct, frozen=True):
    """Everything that a host must make true beside bridges and veths, as a whole. Replaces what it had before."""

    revision: int = 0
    ports: list[HostPort] = []
    groups: list[HostGroup] = []
    floating: list[HostFloating] = []


# -- the network service's records -------------------------------------------------------------------------------------

PORT_OWNER = "compute:askos"
"""Neutron's device_owner of a port that a capsule has."""
ROUTER_OWNER = "network:router_interface"
"""The same of a router's."""


class Subnet(msgspec.Struct, frozen=True):
    """A range of a network, which has at most one of each IP version."""

    uuid: str
    network_uuid: str
    project_id: str
    name: str
    cidr: str
    gateway: str
    """The bridge's address, where the name service answers."""
    gateway_disabled: bool = False
    """Nothing leads out of the network; shown as gateway_ip null."""
    description: str = ""
    dhcp: bool = True
    """As the user likes to have it shown: addresses are set without DHCP."""
    ranges: list[tuple[str, str]] = []
    """First and last of the addresses that are given away unasked; empty: all but the gateway's."""
    pool_uuid: str | None = None
    created_us: int = 0
    updated_us: int = 0
    changed: int = 0
    """How often it was changed: Neutron's revision_number."""
    ip_version: int = 4
    address_mode: str | None = None
    """ipv6_address_mode and, below, ipv6_ra_mode, as the user likes to have them shown: addresses are set anyway."""
    ra_mode: str | None = None


class TenantNetwork(msgspec.Struct, frozen=True):
    """A network as the network service knows it; a host knows `model.capsules.Network`."""

    uuid: str
    project_id: str
    name: str
    description: str = ""
    shared: bool = False
    external: bool = False
    subnet: Subnet | None = None
    """Of IPv4."""
    created_us: int = 0
    updated_us: int = 0
    changed: int = 0
    subnet6: Subnet | None = None

    @property
    def subnets(self) -> list[Subnet]:
        """Those that are there, IPv4 first."""
        return [subnet for subnet in (self.subnet, self.subnet6) if subnet is not None]


class TenantPort(msgspec.Struct, frozen=True):
    """A port as the network service knows it; a host knows `model.capsules.Port`. It has an IPv4 or an IPv6 address, or
    both; what it has not is empty, the subnet's uuid too."""

    uuid: str
    network_uuid: str
    subnet_uuid: str
    project_id: str
    address: str
    mac: str
    name: str = ""
    description: str = ""
    groups: list[str] = []
    """Security groups, by uuid."""
    secured: bool = True
    """False: no walls around it."""
    capsule_uuid: str = ""
    preserve: bool = False
    device_id: str = ""
    """The capsule, the router, or what a user wrote."""
    device_owner: str = ""
    host: str = ""
    """The name of the host on which its capsule runs now, else empty."""
    created_us: int = 0
    updated_us: int = 0
    changed: int = 0
    subnet6_uuid: str = ""
    address6: str = ""


class FloatingAddress(msgspec.Struct, frozen=True):
    """A floating address as the network service knows it."""

    address: FloatingIp
    description: str = ""
    port: TenantPort | None = None
    router_uuid: str | None = None
    """A router that leads from the port's network to the outside, if the user has made one."""
    updated_us: int = 0
    changed: int = 0


class Router(msgspec.Struct, frozen=True):
    """A router, as a record: networks find their way out without one."""

    uuid: str
    project_id: str
    name: str
    description: str = ""
    enabled: bool = True
    network_uuid: str | None = None
    """The external network that it leads to."""
    address: str | None = None
    """Its own on that network."""
    subnet_uuid: str | None = None
    """The external network's."""
    created_us: int = 0
    updated_us: int = 0
    changed: int = 0


class SubnetPool(msgspec.Struct, frozen=True):
    """Ranges out of which subnets can be cut."""

    uuid: str
    project_id: str
    name: str
    prefixes: list[str]
    prefix_default: int
    prefix_min: int
    prefix_max: int
    description: str = ""
    shared: bool = False
    created_us: int = 0
    updated_us: int = 0
    changed: int = 0
    quota: int | None = None
    """How much of it a project may have: in addresses of IPv4, in /64 networks of IPv6. None: all."""


class NetWish(msgspec.Struct, frozen=True):
    """One network that a capsule is to be on: by network or by an existing port, or, with neither, the project's usual
    one. `address` and `address6` are the fixed addresses wished, if any; others are chosen."""

    network_uuid: str = ""
    port_uuid: str = ""
    address: str = ""
    address6: str = ""
