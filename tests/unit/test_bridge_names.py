"""Which questions a network's name service answers itself."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_network

import pytest

from askos.plan.names import Answer, answer

NETS = [ip_network("10.0.4.0/22"), ip_network("fd00:4::/64")]
KNOWN = {
    "web": ["10.0.4.2", "10.0.4.3"],
    "db.main": ["10.0.4.4"],
    "alias": ["10.0.4.2"],
    "six": ["10.0.4.6", "fd00:4::6"],
}


@pytest.mark.parametrize(
    ("name", "rdtype", "expected"),
    [
        ("web.", "A", Answer("found", ["10.0.4.2", "10.0.4.3"])),
        ("WeB", "A", Answer("found", ["10.0.4.2", "10.0.4.3"])),
        ("web.Askos.Internal.", "A", Answer("found", ["10.0.4.2", "10.0.4.3"])),
        ("web", "AAAA", Answer("found", [])),
        ("six", "A", Answer("found", ["10.0.4.6"])),
        ("six", "AAAA", Answer("found", ["fd00:4::6"])),
        ("six", "ANY", Answer("found", ["10.0.4.6", "fd00:4::6"])),
        (IPv6Address("fd00:4::6").reverse_pointer, "PTR", Answer("found", ["six.askos.internal"])),
        (IPv6Address("fd00:4::7").reverse_pointer, "PTR", Answer("unknown")),
        (IPv6Address("fd00:5::6").reverse_pointer, "PTR", Answer("forward")),
        ("6.0.ip6.arpa", "PTR", Answer("forward")),
        ("web", "MX", Answer("found", [])),
        ("db.main", "A", Answer("found", ["10.0.4.4"])),
        ("db.main.askos.internal", "A", Answer("found", ["10.0.4.4"])),
        ("nobody", "A", Answer("unknown")),
        ("nobody.askos.internal", "A", Answer("unknown")),
        ("askos.internal", "NS", Answer("found", [])),
        ("example.com.", "A", Answer("forward")),
        ("notaskos.internal", "A", Answer("forward")),
        (".", "NS", Answer("forward")),
        ("2.4.0.10.in-addr.arpa.", "PTR", Answer("found", ["alias.askos.internal"])),
        ("9.4.0.10.in-addr.arpa.", "PTR", Answer("unknown")),
        ("2.8.0.10.in-addr.arpa.", "PTR", Answer("forward")),
        ("4.0.10.in-addr.arpa.", "PTR", Answer("forward")),
    ],
)
def test_answers(name: str, rdtype: str, expected: Answer) -> None:
    assert answer(KNOWN, NETS, name, rdtype) == expected


def test_before_names_are_known_nothing_is_denied() -> None:
    assert answer(None, NETS, "web", "A").kind == "unready"
    assert answer(None, NETS, "2.4.0.10.in-addr.arpa", "PTR").kind == "unready"
    assert answer(None, NETS, "example.com", "A").kind == "forward"
