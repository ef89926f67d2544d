"""Which questions a network's name service answers itself."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from askos.plan.names import Answer, answer

NET = IPv4Network("10.0.4.0/22")
KNOWN = {"web": ["10.0.4.2", "10.0.4.3"], "db.main": ["10.0.4.4"], "alias": ["10.0.4.2"]}


@pytest.mark.parametrize(
    ("name", "rdtype", "expected"),
    [
        ("web.", "A", Answer("found", ["10.0.4.2", "10.0.4.3"])),
        ("WeB", "A", Answer("found", ["10.0.4.2", "10.0.4.3"])),
        ("web.Askos.Internal.", "A", Answer("found", ["10.0.4.2", "10.0.4.3"])),
        ("web", "AAAA", Answer("found", [])),
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
    assert answer(KNOWN, NET, name, rdtype) == expected


def test_before_names_are_known_nothing_is_denied() -> None:
    assert answer(None, NET, "web", "A").kind == "unready"
    assert answer(None, NET, "2.4.0.10.in-addr.arpa", "PTR").kind == "unready"
    assert answer(None, NET, "example.com", "A").kind == "forward"
