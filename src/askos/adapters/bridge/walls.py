"""Security groups and floating addresses of one network, for `rules`.

Ports whose groups say the same share a chain, named by what it says. What comes for a port goes through the chain of
its groups and is dropped at its end; what leaves goes through another and returns where a rule lets it. Members of
groups are sets, so a packet costs the same with one member as with a thousand. IPv4 and IPv6 have chains of their own.
"""

from __future__ import annotations

import hashlib
from ipaddress import ip_address, ip_network
from typing import Literal

import msgspec

from askos.adapters.bridge.links import Bridge
from askos.model.networks import HostGroup, NetworkState, SecurityRule

_NUMBERS = {
    "ah": 51,
    "dccp": 33,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "icmp": 1,
    "icmpv6": 58,
    "igmp": 2,
    "ipip": 4,
    "ipv6-encap": 41,
    "ipv6-frag": 44,
    "ipv6-icmp": 58,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ipv6-route": 43,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "sctp": 132,
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "vrrp": 112,
}
_WITH_PORTS = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
_ICMP, _ICMP6 = 1, 58
_Family = Literal[4, 6]


class Walls(msgspec.Struct, frozen=True):
    """Pieces of a network's table, as in `tables.Table`."""

    sets: dict[str, str] = {}
    chains: dict[str, str] = {}
    contents: dict[str, dict[str, str]] = {}
    known: bool = False
    """Whether there is a state: without one, containers of a network reach each other."""


def walls(state: NetworkState | None, bridge: Bridge, aliases: dict[str, str]) -> Walls:
    """The sets, maps and chains of a network for a state. `aliases`: floating address to its alias (see
    `transit.py`)."""
    return _Builder(state, bridge, aliases).build()


def of_network(network_uuid: str, address: str, bridge: Bridge) -> bool:
    """Whether what a state says of an address is about this network. An older server names no networks; its networks do
    not overlap."""
    return network_uuid == bridge.network_uuid if network_uuid else _inside(address, bridge.cidr)


def _inside(address: str, cidr: str) -> bool:
    return bool(cidr) and ip_address(address) in ip_network(cidr)


class _Builder:
    def __init__(self, state: NetworkState | None, bridge: Bridge, aliases: dict[str, str]) -> None:
        self._state = state
        self._bridge = bridge
        self._aliases = aliases
        self._groups: dict[str, HostGroup] = {group.uuid: group for group in state.groups} if state else {}
        self._sets: dict[str, str] = {}
        self._chains: dict[str, str] = {}
        self._contents: dict[str, dict[str, str]] = {}
        self._known: dict[tuple[object, ...], str] = {}

    def build(self) -> Walls:
        for name, family in (("ingress", "ipv4"), ("egress", "ipv4"), ("ingress6", "ipv6"), ("egress6", "ipv6")):
            self._sets[name] = f"map {{ type {family}_addr : verdict; }}"
        for name in ("floating", "outward", "alias"):
            self._sets[name] = "map { type ipv4_addr : ipv4_addr; }"
        self._sets["hairpin"] = "set { type ipv4_addr . ipv4_addr; }"
        self._contents = {name: {} for name in self._sets}
        if self._state is not None:
            self._ports(self._state)
            self._floating(self._state)
        return Walls(self._sets, self._chains, self._contents, self._state is not None)

    def _ports(self, state: NetworkState) -> None:
        for port in state.ports:
            if not of_network(port.network_uuid, port.address, self._bridge):
                continue
            groups = tuple(sorted(set(port.groups)))
            if port.address:
                self._port(port.address, "", 4, groups, port.secured)
            if port.address6:
                self._port(port.address6, "6", 6, groups, port.secured)

    def _port(self, address: str, suffix: str, family: _Family, groups: tuple[str, ...], secured: bool) -> None:
        if not secured:
            self._contents[f"ingress{suffix}"][address] = "accept"
            return
        self._contents[f"ingress{suffix}"][address] = f"goto {self._chain('in', groups, family)}"
        self._contents[f"egress{suffix}"][address] = f"jump {self._chain('out', groups, family)}"

    def _floating(self, state: NetworkState) -> None:
        for one in state.floating:
            alias = self._aliases.get(one.address)
            if alias is None or not of_network(one.network_uuid, one.fixed_address, self._bridge):
                continue
            self._contents["floating"][one.address] = one.fixed_address
            self._contents["alias"][alias] = one.fixed_address
            # Of several the first one is what the outside sees.
            self._contents["outward"].setdefault(one.fixed_address, alias)
            self._contents["hairpin"][f"{one.fixed_address} . {one.fixed_address}"] = ""

    def _chain(self, way: Literal["in", "out"], groups: tuple[str, ...], family: _Family) -> str:
        key = (way, groups, family)
        if key not in self._known:
            direction, verdict = ("ingress", "accept") if way == "in" else ("egress", "return")
            lines = []
            for rule in (rule for uuid in groups if uuid in self._groups for rule in self._groups[uuid].rules):
                text = self._rule(rule, family) if rule.direction == direction else None
                if text is not None:
                    lines.append(f"{text} {verdict}".strip())
            body = "\n".join([*dict.fromkeys(lines), "drop"])
            name = f"{way}{family}_{hashlib.sha256(body.encode()).hexdigest()[:16]}"
            self._chains[name] = body
            self._known[key] = name
        return self._known[key]

    def _rule(self, rule: SecurityRule, family: _Family) -> str | None:
        """What a packet must be; None for a rule that no packet of this family can fit."""
        if rule.ethertype != f"IPv{family}":
            return None
        words = []
        peer = f"{'ip' if family == 4 else 'ip6'} {'saddr' if rule.direction == 'ingress' else 'daddr'}"
        if rule.remote_group is not None:
            if rule.remote_group not in self._groups:
                return None
            words.append(f"{peer} @{self._members(self._groups[rule.remote_group], family)}")
        elif rule.remote_cidr is not None:
            net = ip_network(rule.remote_cidr, strict=False)
            if net.version != family:
                return None
            if net.prefixlen:
                words.append(f"{peer} {net}")
        if rule.protocol is not None:
            found = _protocol(rule, family)
            if found is None:
                return None
            words.append(found)
        return " ".join(words)

    def _members(self, group: HostGroup, family: _Family) -> str:
        name = f"m{family}_{hashlib.sha256(group.uuid.encode()).hexdigest()[:16]}"
        if name not in self._sets:
            self._sets[name] = f"set {{ type ipv{family}_addr; }}"
            found = group.members_of.get(self._bridge.network_uuid, [])
            self._contents[name] = {a: "" for a in found if ip_address(a).version == family}
        return name


def _protocol(rule: SecurityRule, family: _Family) -> str | None:
    assert rule.protocol is not None, "only of a rule with a protocol"
    name = rule.protocol.lower()
    number = int(name) if name.isdigit() else _NUMBERS.get(name)
    if number is None:
        return None
    if family == 6 and number == _ICMP:
        number = _ICMP6  # Neutron takes "icmp" for both
    if family == 4 and number == _ICMP6:
        return None
    low, high = rule.port_min, rule.port_max
    if number in (_ICMP, _ICMP6) and low is not None:
        word = "icmp" if number == _ICMP else "icmpv6"
        return f"{word} type {low}" + (f" {word} code {high}" if high is not None else "")
    if number in _WITH_PORTS and low is not None:
        ports = f"{low}" if high is None or high == low else f"{low}-{high}"
        return f"{_WITH_PORTS[number]} dport {ports}"
    return f"meta l4proto {number}"
