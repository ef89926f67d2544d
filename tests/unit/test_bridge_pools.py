"""Pools, subnets, addresses and MACs."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askos.model.errors import InvalidError, SetupError
from askos.plan import pools


@given(
    st.lists(st.tuples(st.integers(0, 2**24 - 1), st.integers(9, 32)), max_size=6),
    st.integers(0, 2**31),
)
def test_a_pool_never_overlaps(nets: list[tuple[int, int]], seed: int) -> None:
    routes = [str(IPv4Network((int(IPv4Address("10.0.0.0")) + n, p), strict=False)) for n, p in nets]
    try:
        pool = IPv4Network(pools.choose_pool(["0.0.0.0/0", *routes[:3]], routes[3:], seed))
    except SetupError:
        candidates = IPv4Network("10.0.0.0/8").subnets(new_prefix=12)
        assert all(any(c.overlaps(IPv4Network(r)) for r in routes) for c in candidates)
        return
    assert pool.prefixlen == 12
    assert pool.subnet_of(IPv4Network("10.0.0.0/8"))
    assert not any(pool.overlaps(IPv4Network(route)) for route in routes)


def test_the_seed_spreads_clouds() -> None:
    assert len({pools.choose_pool([], [], seed) for seed in range(16)}) == 16


def test_a_full_machine_is_told_what_clashes() -> None:
    with pytest.raises(SetupError, match=r"10\.0\.0\.0/8"):
        pools.choose_pool(["10.0.0.0/8"])
    with pytest.raises(InvalidError, match="nonsense"):
        pools.choose_pool(["nonsense"])


def test_subnets_are_in_order_and_inside() -> None:
    nets = list(pools.subnets("10.16.0.0/12"))
    assert nets[:2] == ["10.16.0.0/22", "10.16.4.0/22"]
    assert len(nets) == 1024
    assert nets[-1] == "10.31.252.0/22"
    assert pools.gateway_of(nets[1]) == "10.16.4.1"


def test_addresses_go_round_before_they_come_again() -> None:
    number = {a: int(IPv4Address(a)) for a in ("10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6")}
    assert pools.free_address("10.0.0.0/29", set()) == "10.0.0.2"
    assert pools.free_address("10.0.0.0/29", {number["10.0.0.2"], number["10.0.0.4"]}) == "10.0.0.5"
    assert pools.free_address("10.0.0.0/29", {number["10.0.0.6"], number["10.0.0.2"]}) == "10.0.0.3"
    assert pools.free_address("10.0.0.0/29", set(number.values())) is None


@given(st.sets(st.integers(0, 63)))
def test_a_free_address_is_usable_and_free(offsets: set[int]) -> None:
    base = int(IPv4Address("10.0.0.64"))
    used = {base + o for o in offsets}
    found = pools.free_address("10.0.0.64/26", used)
    usable = set(range(base + 2, base + 63))
    if found is None:
        assert usable <= used
    else:
        assert int(IPv4Address(found)) in usable - used


def test_macs_are_local_unicast_and_unique() -> None:
    macs = {pools.mac_for(f"10.0.{a}.{b}") for a in range(4) for b in range(256)}
    assert len(macs) == 1024
    first = int(next(iter(macs)).split(":")[0], 16)
    assert first & 0b11 == 0b10


@given(st.sets(st.integers(0, 40)), st.integers(1, 40))
def test_a_free_address_of_ipv6_is_found_at_once(offsets: set[int], door: int) -> None:
    base = int(IPv6Address("fd00::"))
    used = {base + o for o in offsets} | {base + 2**64 - 1}
    found = pools.free_address("fd00::/64", used, str(IPv6Address(base + door)))
    assert found is not None
    number = int(IPv6Address(found))
    assert number not in used
    assert 0 < number - base <= len(used) + 1
    assert number != base + door


@pytest.mark.parametrize(
    ("offset", "ranges", "found"),
    [
        (2, [], "fd00::2"),
        (1, [], None),
        (0, [], None),
        (300, [], None),
        (255, [], "fd00::ff"),
        (16, [("fd00::10", "fd00::1f")], "fd00::10"),
        (32, [("fd00::10", "fd00::1f")], None),
    ],
)
def test_an_address_beside_another(offset: int, ranges: list[tuple[str, str]], found: str | None) -> None:
    assert pools.address_beside("fd00::/120", offset, "fd00::1", ranges) == found


@pytest.mark.parametrize(
    ("prefixes", "taken", "prefix", "found"),
    [
        (["2001:db8:3::/48"], [], 64, "2001:db8:3::/64"),
        (["2001:db8:3::/48"], ["2001:db8:3::/63", "0.0.0.0/0"], 64, "2001:db8:3:2::/64"),
        (["2001:db8:3::/48"], ["2001:db8::/32"], 64, None),
        (["10.0.0.0/24"], ["::/0"], 25, "10.0.0.0/25"),
    ],
)
def test_free_subnets_of_both(prefixes: list[str], taken: list[str], prefix: int, found: str | None) -> None:
    assert pools.free_subnet(prefixes, taken, prefix) == found


def test_macs_of_ipv6_are_none_of_ipv4() -> None:
    assert pools.mac_for("fd00::a00:5") == "0a:5a:0a:00:00:05"
    assert pools.mac_for("10.0.0.5") == "0a:58:0a:00:00:05"
