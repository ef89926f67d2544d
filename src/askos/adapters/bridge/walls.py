"""Security groups and floating addresses as nftables text, for `rules`.

Ports that have the same groups share a chain. What comes for a port goes through the chain of its groups and is
dropped at its end; what leaves goes through another and returns where a rule lets it. Members of groups are sets, so a
packet costs the same with one member as with a thousand. Only IPv4: there is no other traffic.
"""

from __future__ import annotations

from ipaddress import ip_network

import msgspec

from askos.model.networks import HostPort, NetworkState, SecurityRule

_NUMBERS = {
    "ah": 51,
    "dccp": 33,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
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
_ICMP = 1


class Parts(msgspec.Struct, frozen=True):
    """Pieces of the table's text."""

    sets: str = ""
    chains: str = ""
    known: bool = False
    """Whether there is a state: without one, containers of a network reach each other."""


def parts(state: NetworkState | None) -> Parts:
    """The sets, maps and chains for a state."""
    groups = {group.uuid: (number, group) for number, group in enumerate(state.groups if state else [])}
    lines = []
    for number, group in groups.values():
        lines.append(_set(f"g{number}", "type ipv4_addr;", group.members))
    combinations: dict[tuple[str, ...], int] = {}
    into: list[str] = []
    out: list[str] = []
    for port in state.ports if state else []:
        if not port.secured:
            into.append(f"{port.address} : accept")
            continue
        number = combinations.setdefault(_key(port), len(combinations))
        into.append(f"{port.address} : goto in{number}")
        out.append(f"{port.address} : jump out{number}")
    lines.append(_set("ingress", "type ipv4_addr : verdict;", into, "map"))
    lines.append(_set("egress", "type ipv4_addr : verdict;", out, "map"))
    floating = state.floating if state else []
    inward = [f"{f.address} : {f.fixed_address}" for f in floating]
    outward = [f"{f.fixed_address} : {f.address}" for f in floating]
    lines.append(_set("floating_in", "type ipv4_addr : ipv4_addr;", inward, "map"))
    lines.append(_set("floating_out", "type ipv4_addr : ipv4_addr;", outward, "map"))
    chains = []
    for key, number in combinations.items():
        rules = [rule for uuid in key if uuid in groups for rule in groups[uuid][1].rules]
        numbers = {uuid: found for uuid, (found, _) in groups.items()}
        chains.append(_chain(f"in{number}", rules, "ingress", "accept", numbers))
        chains.append(_chain(f"out{number}", rules, "egress", "return", numbers))
    return Parts("\n".join(lines), "\n".join(chains), state is not None)


def _key(port: HostPort) -> tuple[str, ...]:
    return tuple(sorted(set(port.groups)))


def _set(name: str, kind: str, elements: list[str], what: str = "set") -> str:
    held = f" elements = {{ {', '.join(sorted(set(elements)))} }}" if elements else ""
    return f"    {what} {name} {{ {kind}{held} }}"


def _chain(name: str, rules: list[SecurityRule], direction: str, verdict: str, numbers: dict[str, int]) -> str:
    lines = []
    for rule in rules:
        text = _rule(rule, numbers) if rule.direction == direction else None
        if text is not None:
            lines.append(f"        {text} {verdict}".replace("  ", " ") if text else f"        {verdict}")
    body = "\n".join([*dict.fromkeys(lines), "        drop"])
    return f"    chain {name} {{\n{body}\n    }}"


def _rule(rule: SecurityRule, numbers: dict[str, int]) -> str | None:
    """What a packet must be; None for a rule that no packet here can fit."""
    if rule.ethertype != "IPv4":
        return None
    words = []
    peer = "saddr" if rule.direction == "ingress" else "daddr"
    if rule.remote_group is not None:
        if rule.remote_group not in numbers:
            return None
        words.append(f"ip {peer} @g{numbers[rule.remote_group]}")
    elif rule.remote_cidr is not None:
        net = ip_network(rule.remote_cidr, strict=False)
        if net.version != 4:
            return None
        if net.prefixlen:
            words.append(f"ip {peer} {net}")
    if rule.protocol is not None:
        found = _protocol(rule)
        if found is None:
            return None
        words.append(found)
    return " ".join(words)


def _protocol(rule: SecurityRule) -> str | None:
    assert rule.protocol is not None, "only of a rule with a protocol"
    name = rule.protocol.lower()
    number = int(name) if name.isdigit() else _NUMBERS.get(name)
    if number is None:
        return None  # IPv6's own
    low, high = rule.port_min, rule.port_max
    if number == _ICMP and low is not None:
        return f"icmp type {low}" + (f" icmp code {high}" if high is not None else "")
    if number in _WITH_PORTS and low is not None:
        ports = f"{low}" if high is None or high == low else f"{low}-{high}"
        return f"{_WITH_PORTS[number]} dport {ports}"
    return f"meta l4proto {number}"
