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
    """What a host knows of one port on it for its packet rules. `secured` False: no groups, no walls."""

    uuid: str
    address: str
    groups: list[str] = []
    secured: bool = True


class HostGroup(msgspec.Struct, frozen=True):
    """A security group as a host enforces it: its rules, and the addresses of its members everywhere."""

    uuid: str
    rules: list[SecurityRule] = []
    members: list[str] = []


class HostFloating(msgspec.Struct, frozen=True):
    """A floating address that leads to a port of this host."""

    address: str
    fixed_address: str


class NetworkState(msgspec.Struct, frozen=True):
    """Everything that a host must make true beside bridges and veths, as a whole. Replaces what it had before."""

    revision: int = 0
    ports: list[HostPort] = []
    groups: list[HostGroup] = []
    floating: list[HostFloating] = []
