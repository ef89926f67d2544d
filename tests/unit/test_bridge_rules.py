"""Packet rules as values: what makes one table out of another, and what security groups become."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import msgspec
import pytest

from askos.adapters.bridge import rules, tables, transit
from askos.adapters.bridge.links import Bridge
from askos.adapters.bridge.tables import Table
from askos.adapters.bridge.transit import Ranges
from askos.adapters.bridge.walls import Walls, walls
from askos.model.errors import RuntimeFailedError
from askos.model.networks import HostFloating, HostGroup, HostPort, NetworkState, SecurityRule

NET = Bridge("n1", "10.0.0.0/24", "10.0.0.1", "fd00:1::/64", "fd00:1::1")
OUT = SecurityRule("out", "", "egress")
OUT6 = SecurityRule("out6", "", "egress", ethertype="IPv6")


def table(**sets: dict[str, str]) -> Table:
    return Table("t", "base", dict.fromkeys(sets, "set { type ipv4_addr; }"), {}, dict(sets))


def test_only_what_differs_is_sent() -> None:
    before = table(a={"1.1.1.1": "", "1.1.1.2": ""}, b={"2.2.2.2": "jump x"})
    wanted = table(a={"1.1.1.2": "", "1.1.1.3": ""}, b={"2.2.2.2": "jump y"})
    assert tables.change(before, before) == ""
    assert tables.change(before, wanted) == (
        "delete element inet t a { 1.1.1.1 }\nadd element inet t a { 1.1.1.3 }\n"
        "delete element inet t b { 2.2.2.2 : jump x }\nadd element inet t b { 2.2.2.2 : jump y }\n"
    )
    grown = msgspec.structs.replace(wanted, chains={"in4_1": "drop"})
    text = tables.change(before, grown)
    assert text is not None
    assert text.startswith("table inet t {\nchain in4_1 {\ndrop\n}\n}\n")
    assert "delete table" not in text


def test_what_cannot_be_changed_is_replaced() -> None:
    one = Table("t", "base", {"a": "set { type ipv4_addr; }"}, {"c": "drop"})
    for other in (
        msgspec.structs.replace(one, base="other"),
        msgspec.structs.replace(one, sets={"a": "set { type ipv6_addr; }"}),
        msgspec.structs.replace(one, chains={"c": "accept"}),
        msgspec.structs.replace(one, name="u"),
    ):
        assert tables.change(one, other) is None
    assert tables.replacement(one).startswith("table inet t {}\ndelete table inet t\ntable inet t {\n")
    old = msgspec.structs.replace(one, chains={f"c{number}": "drop" for number in range(500)})
    assert tables.change(old, one) is None, "too much that nobody needs"


def test_what_nobody_needs_is_remembered() -> None:
    full = Table("t", "b", {"a": "set { type ipv4_addr; }"}, {"c": "drop"}, {"a": {"1.1.1.1": ""}})
    bare = Table("t", "b")
    assert tables.change(full, bare) == ""
    left = tables.changed(full, bare)
    assert tables.change(left, full) == "", "it is all still there"


@pytest.mark.parametrize("seed", range(20))
def test_changes_lead_where_they_should(seed: int) -> None:
    """Whatever the order of states, applying the differences gives what is wanted."""
    chance = random.Random(seed)
    applied, held = table(a={}, b={}), {"a": {}, "b": {}}
    for _ in range(30):
        some = {str(IPv4Address(chance.randrange(8))): chance.choice(["jump x", "jump y"]) for _ in range(5)}
        wanted = table(**{name: dict(chance.sample(sorted(some.items()), 2)) for name in ("a", "b")})
        for line in (tables.change(applied, wanted) or "").splitlines():
            verb, _, _, _, name, rest = line.split(" ", 5)
            for element in rest.strip("{} ").split(", "):
                key, _, value = element.partition(" : ")
                if verb == "add":
                    assert key not in held[name]
                    held[name][key] = value
                else:
                    assert held[name].pop(key) == value
        applied = tables.changed(applied, wanted)
        assert held == wanted.contents


def built(*ports: HostPort, groups: list[HostGroup], floating: list[HostFloating] | None = None) -> Walls:
    return walls(NetworkState(1, list(ports), groups, floating or []), NET, {"203.0.113.5": "100.127.0.8"})


def test_a_birth_in_known_groups_changes_elements_alone() -> None:
    own = SecurityRule("in", "", "ingress", remote_group="g")

    def at(count: int) -> Table:
        addresses = [f"10.0.0.{n + 2}" for n in range(count)]
        group = HostGroup("g", [OUT, own], {"n1": addresses, "n2": ["10.0.0.99"]})
        ports = [HostPort(f"p{a}", a, ["g"], True, "n1") for a in addresses]
        return rules.of_network("abcdef", NET, Ranges(), built(*ports, groups=[group]))

    text = tables.change(at(1), at(2))
    assert text is not None
    assert sorted(line.split()[0] for line in text.splitlines()) == ["add", "add", "add"]
    assert "10.0.0.3" in text
    assert "10.0.0.2" not in text
    assert "10.0.0.99" not in tables.replacement(at(2)), "members are those on the network itself"


def test_families_are_kept_apart() -> None:
    group = HostGroup(
        "g",
        [
            SecurityRule("a", "", "ingress", "icmp", 8, 0),
            SecurityRule("b", "", "ingress", "icmp", 128, ethertype="IPv6"),
            SecurityRule("c", "", "ingress", "tcp", 80, 81, remote_cidr="fd00:9::/64", ethertype="IPv6"),
            SecurityRule("d", "", "ingress", "udp", 53, 53, remote_group="g"),
            SecurityRule("e", "", "ingress", "ipv6-icmp", ethertype="IPv6"),
            SecurityRule("f", "", "ingress", "58"),
            SecurityRule("h", "", "ingress", "tcp", remote_group="unknown"),
        ],
        {"n1": ["10.0.0.2", "fd00:1::2"]},
    )
    made = built(HostPort("p", "10.0.0.2", ["g"], True, "n1", "fd00:1::2"), groups=[group])
    chains = {name[:4].rstrip("_"): body.splitlines() for name, body in made.chains.items()}
    (members,) = (name for name in made.sets if name.startswith("m4_"))
    assert chains["in4"] == ["icmp type 8 icmp code 0 accept", f"ip saddr @{members} udp dport 53 accept", "drop"]
    assert chains["in6"] == [
        "icmpv6 type 128 accept",
        "ip6 saddr fd00:9::/64 tcp dport 80-81 accept",
        "meta l4proto 58 accept",
        "drop",
    ]
    assert chains["out4"] == chains["out6"] == ["drop"]
    assert set(made.contents["ingress6"]) == {"fd00:1::2"}
    assert made.contents[members] == {"10.0.0.2": ""}


def test_what_an_older_server_said_names_no_networks() -> None:
    group = HostGroup("g", [SecurityRule("d", "", "ingress", remote_group="g")])
    ports = [HostPort("p", "10.0.0.2", ["g"]), HostPort("q", "10.9.0.2", ["g"]), HostPort("r", "10.0.0.3", [], False)]
    made = built(*ports, groups=[group], floating=[HostFloating("203.0.113.5", "10.0.0.2")])
    assert set(made.contents["ingress"]) == {"10.0.0.2", "10.0.0.3"}
    assert made.contents["ingress"]["10.0.0.3"] == "accept"
    assert set(made.contents["egress"]) == {"10.0.0.2"}
    assert [held for name, held in made.contents.items() if name.startswith("m4_")] == [{}]
    assert made.contents["alias"] == {"100.127.0.8": "10.0.0.2"}
    assert made.contents["outward"] == {"10.0.0.2": "100.127.0.8"}


def test_without_a_state_a_network_is_open_to_itself() -> None:
    closed, opened = built(groups=[]), walls(None, NET, {})
    texts = [rules.of_network("abcdef", NET, Ranges(), one).base for one in (closed, opened)]
    assert ['iifname "br0" accept' in text for text in texts] == [False, True]
    bare = rules.of_network("abcdef", Bridge("n", "10.0.0.0/24", "10.0.0.1"), Ranges(), opened).base
    assert "meta nfproto ipv6 drop" in bare


def test_transit_addresses() -> None:
    ranges = Ranges("100.127.0.0/28")
    found = {transit.free_slot(ranges, set(), f"{n}") for n in range(200)}
    first = int(IPv4Address("100.127.0.0")) // 2
    assert found == set(range(first + 1, first + 8)), "all but the range's first, whose address is that of the range"
    only = transit.free_slot(ranges, found - {first + 5}, "x")
    pair = transit.Pair.at(only)
    assert (pair.host, pair.inside, pair.slot) == ("100.127.0.10", "100.127.0.11", first + 5)
    assert transit.six(ranges, pair.inside) == "fdac:6b05:a0::647f:b"
    assert transit.free_slot(ranges, set(), "x", avoid="100.127.0.0/29") >= first + 4
    assert transit.free_slot(ranges, set(), "x", avoid="100.64.0.0/10") in found, "rather there than nowhere"
    with pytest.raises(RuntimeFailedError, match="transit_cidr"):
        transit.free_slot(ranges, found, "x")
