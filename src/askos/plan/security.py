"""What a security rule may say, and when two say the same. The words of errors are Neutron's."""

from __future__ import annotations

import msgspec

from askos.model.errors import InvalidError
from askos.model.networks import SecurityRule
from askos.plan import pools

PROTOCOLS = {
    "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "icmp": 1, "igmp": 2, "ipip": 4, "ipv6-encap": 41,
    "ipv6-frag": 44, "ipv6-icmp": 58, "icmpv6": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "ipv6-route": 43, "ospf": 89,
    "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136, "vrrp": 112,
}  # fmt: skip
"""Neutron's names and their numbers."""
_WITH_PORTS = {6, 17, 33, 132, 136}
_ICMP = {1, 58}


def number_of(protocol: str | None) -> int | None:
    """A protocol's number. InvalidError for what is none."""
    if protocol is None:
        return None
    found = PROTOCOLS.get(protocol)
    if found is None and protocol.isascii() and protocol.isdigit() and len(protocol) <= 3:
        found = int(protocol)
    if found is None or found > 255:
        raise InvalidError(
            f"Security group rule protocol {protocol} not supported. Only protocol values {sorted(PROTOCOLS)} and "
            "integer representations [0 to 255] are supported.",
            "security-group-rule-invalid-protocol",
        )
    return found


def checked(rule: SecurityRule) -> SecurityRule:
    """The rule in the form in which it is kept. InvalidError names what is wrong."""
    protocol = None if rule.protocol is None else rule.protocol.lower()
    if protocol in ("any", ""):
        protocol = None
    if protocol in ("icmp", "icmpv6", "1") and rule.ethertype == "IPv6":
        protocol = "ipv6-icmp"
    number = number_of(protocol)
    if number == 58 and rule.ethertype == "IPv4":
        raise InvalidError(
            f"Invalid ethertype IPv4 for protocol {protocol}.", "security-group-ethertype-conflict-with-protocol"
        )
    _check_ports(number, protocol, rule.port_min, rule.port_max)
    if rule.remote_cidr is not None and rule.remote_group is not None:
        raise InvalidError(
            "Only remote_ip_prefix or remote_group_id may be provided.",
            "security-group-remote-group-and-remote-ip-prefix",
        )
    cidr = None if rule.remote_cidr is None else _prefix(rule.remote_cidr, rule.ethertype)
    return msgspec.structs.replace(rule, protocol=protocol, remote_cidr=cidr)


def _prefix(text: str, ethertype: str) -> str:
    try:
        net = pools.net_of(text)
    except InvalidError:
        raise InvalidError(
            f"Invalid input for remote_ip_prefix. Reason: '{text}' is not a valid IP subnet.", "invalid-input"
        ) from None
    if (net.version == 4) != (ethertype == "IPv4"):
        raise InvalidError(
            f"Conflicting value ethertype {ethertype} for CIDR {text}.", "security-group-rule-parameter-conflict"
        )
    return str(net)


def _check_ports(number: int | None, protocol: str | None, low: int | None, high: int | None) -> None:
    if low is None and high is None:
        return
    if number is None:
        raise InvalidError(
            "Must also specify protocol if port range is given.", "security-group-protocol-required-with-ports"
        )
    if number in _ICMP:
        for value, field in ((low, "port_range_min"), (high, "port_range_max")):
            if value is not None and value > 255:
                raise InvalidError(
                    f"Invalid value for ICMP {field} ({field.replace('port_range_', '')}) {value}. It must be 0 to "
                    "255.",
                    "security-group-invalid-icmp-value",
                )
        if low is None:
            raise InvalidError(
                f"ICMP code (port-range-max) {high} is provided but ICMP type (port-range-min) is missing.",
                "security-group-missing-icmp-type",
            )
        return
    if number not in _WITH_PORTS:
        raise InvalidError(
            f"Invalid protocol {protocol} for port range, only supported for TCP, UDP, UDPLITE, SCTP and DCCP.",
            "security-group-invalid-protocol-for-port",
        )
    if low == 0 or high == 0:
        raise InvalidError("Invalid value for port 0.", "security-group-invalid-port-value")
    if low is None or high is None or low > high:
        raise InvalidError(
            "For TCP/UDP protocols, port_range_min must be <= port_range_max.", "security-group-invalid-port-range"
        )


def key(rule: SecurityRule) -> tuple[object, ...]:
    """Equal for rules that let the same through: everywhere is the same as no range at all."""
    everywhere = rule.remote_cidr in (None, "0.0.0.0/0", "::/0")
    return (
        rule.group_uuid,
        rule.direction,
        rule.ethertype,
        number_of(rule.protocol),
        rule.port_min,
        rule.port_max,
        None if everywhere else rule.remote_cidr,
        rule.remote_group,
    )


def let_out(group_uuid: str) -> list[SecurityRule]:
    """The rules that every new group begins with: everything out."""
    return [SecurityRule("", group_uuid, "egress", ethertype=ethertype) for ethertype in ("IPv4", "IPv6")]


def let_members_in(group_uuid: str) -> list[SecurityRule]:
    """What a project's default group has beside these: everything in from its own members."""
    return [
        SecurityRule("", group_uuid, "ingress", ethertype=ethertype, remote_group=group_uuid)
        for ethertype in ("IPv4", "IPv6")
    ]
