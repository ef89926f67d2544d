"""What security rules may say."""

from __future__ import annotations

from typing import Any

import pytest

from askos.model.errors import InvalidError
from askos.model.networks import SecurityRule
from askos.plan import pools, security


def rule(**fields: Any) -> SecurityRule:
    return SecurityRule("", "g", fields.pop("direction", "ingress"), **fields)


@pytest.mark.parametrize(
    ("fields", "protocol"),
    [
        ({}, None),
        ({"protocol": "any"}, None),
        ({"protocol": "TCP", "port_min": 1, "port_max": 65535}, "tcp"),
        ({"protocol": "17", "port_min": 5, "port_max": 5}, "17"),
        ({"protocol": "icmp", "port_min": 8}, "icmp"),
        ({"protocol": "icmp", "port_min": 8, "port_max": 0}, "icmp"),
        ({"protocol": "icmp", "ethertype": "IPv6"}, "ipv6-icmp"),
        ({"protocol": "icmpv6", "ethertype": "IPv6"}, "ipv6-icmp"),
        ({"protocol": "ipv6-icmp", "ethertype": "IPv6", "port_min": 128}, "ipv6-icmp"),
        ({"protocol": "58", "ethertype": "IPv6"}, "58"),
        ({"protocol": "0"}, "0"),
        ({"protocol": "vrrp"}, "vrrp"),
    ],
)
def test_rules_that_can_be(fields: dict[str, Any], protocol: str | None) -> None:
    assert security.checked(rule(**fields)).protocol == protocol


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"protocol": "nonsense"}, "security-group-rule-invalid-protocol"),
        ({"protocol": "256"}, "security-group-rule-invalid-protocol"),
        ({"protocol": "²"}, "security-group-rule-invalid-protocol"),
        ({"port_min": 1, "port_max": 2}, "security-group-protocol-required-with-ports"),
        ({"protocol": "tcp", "port_min": 2, "port_max": 1}, "security-group-invalid-port-range"),
        ({"protocol": "tcp", "port_min": 2}, "security-group-invalid-port-range"),
        ({"protocol": "tcp", "port_max": 2}, "security-group-invalid-port-range"),
        ({"protocol": "udp", "port_min": 0, "port_max": 2}, "security-group-invalid-port-value"),
        ({"protocol": "gre", "port_min": 1, "port_max": 2}, "security-group-invalid-protocol-for-port"),
        ({"protocol": "icmp", "port_min": 256}, "security-group-invalid-icmp-value"),
        ({"protocol": "icmp", "port_max": 0}, "security-group-missing-icmp-type"),
        ({"protocol": "ipv6-icmp"}, "security-group-ethertype-conflict-with-protocol"),
        ({"remote_cidr": "10.0.0.0/8", "remote_group": "g"}, "security-group-remote-group-and-remote-ip-prefix"),
        ({"remote_cidr": "fd00::/8"}, "security-group-rule-parameter-conflict"),
        ({"remote_cidr": "10.0.0.0/33"}, "invalid-input"),
        ({"remote_cidr": "fd00::1%eth0/64", "ethertype": "IPv6"}, "invalid-input"),
        ({"remote_cidr": "10.0.0.0/8", "ethertype": "IPv6"}, "security-group-rule-parameter-conflict"),
    ],
)
def test_rules_that_cannot_be(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidError) as caught:
        security.checked(rule(**fields))
    assert caught.value.code == code


def test_rules_that_say_the_same() -> None:
    assert security.key(rule(protocol="tcp")) == security.key(rule(protocol="6", remote_cidr="0.0.0.0/0"))
    assert security.key(rule()) != security.key(rule(direction="egress"))
    assert security.key(rule()) != security.key(rule(remote_group="g"))
    assert security.checked(rule(remote_cidr="10.1.2.3/8")).remote_cidr == "10.0.0.0/8"
    assert security.checked(rule(remote_cidr="FD00:0::5", ethertype="IPv6")).remote_cidr == "fd00::5/128"


@pytest.mark.parametrize(
    ("taken", "found"),
    [
        ([], "10.0.0.0/24"),
        (["10.0.0.0/24", "10.0.1.128/25"], "10.0.2.0/24"),
        (["10.0.0.0/8"], None),
        (["10.0.2.0/23", "10.0.0.0/23", "10.0.0.5/32"], None),
        (["10.0.1.0/24"], "10.0.0.0/24"),
        (["9.0.0.0/8", "10.0.0.0/30", "11.0.0.0/8"], "10.0.1.0/24"),
    ],
)
def test_a_free_subnet(taken: list[str], found: str | None) -> None:
    assert pools.free_subnet(["10.0.0.0/22"], taken, 24) == found


def test_free_addresses_of_ranges_and_around_a_gateway() -> None:
    assert pools.free_address("10.0.0.0/24", set(), "10.0.0.5") == "10.0.0.1"
    number = pools.network("10.0.0.1/32").network_address
    assert pools.free_address("10.0.0.0/24", {int(number) + 3}, "10.0.0.5") == "10.0.0.6"
    ranges = [("10.0.0.8", "10.0.0.9")]
    used = {int(number) + 7}
    assert pools.free_address("10.0.0.0/24", used, None, ranges) == "10.0.0.9"
    assert pools.free_address("10.0.0.0/24", used | {int(number) + 8}, None, ranges) is None
    assert pools.free_address("10.0.0.0/30", set(), "10.0.0.2") == "10.0.0.1"
