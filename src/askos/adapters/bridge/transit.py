"""How networks' namespaces hang on the host: a veth each, with a pair of transit addresses, and routes.

Addresses come in pairs (a /31) out of one range of the host. What is taken is read from the kernel's routes, under a
lock that all clouds of the machine share. The first of a pair is the host's, the second the network's own towards the
outside. A floating address has a pair as well: its first address is the alias under which packets for it travel from
the host to its network's namespace. With IPv6 the same number stands at the end of a private prefix.

Everything here blocks and belongs into a worker thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path

import msgspec

from askos.adapters.bridge import host, rtnl
from askos.adapters.bridge.links import UPLINK, Bridge, Owner, owner, uplink_name
from askos.adapters.bridge.spaces import within
from askos.model.errors import RuntimeFailedError

DEFAULT = "100.127.0.0/16"
"""Of the space that RFC 6598 sets aside for the inside of carriers' networks, the end, which is seldom used."""
PREFIX6 = "fdac:6b05:a0::/96"


class Ranges(msgspec.Struct, frozen=True):
    """Where transit addresses come from. `v4` is a CIDR of a /28 or larger, `v6` a /96."""

    v4: str = DEFAULT
    v6: str = PREFIX6


class Pair(msgspec.Struct, frozen=True):
    """A pair of transit addresses."""

    host: str
    inside: str

    @classmethod
    def at(cls, slot: int) -> Pair:
        """The pair of that number: half its first address."""
        return cls(str(IPv4Address(slot * 2)), str(IPv4Address(slot * 2 + 1)))

    @property
    def slot(self) -> int:
        """Its number."""
        return int(IPv4Address(self.host)) // 2


def six(ranges: Ranges, address: str) -> str:
    """The IPv6 transit address that goes with an IPv4 one."""
    return str(IPv6Address(int(IPv6Network(ranges.v6).network_address) + int(IPv4Address(address))))


def free_slot(ranges: Ranges, taken: set[int], key: str, avoid: str = "") -> int:
    """The number of a free pair. `key` spreads networks over the range, so that one that comes back mostly has its old
    pair again. `avoid`: a CIDR in which it should not be, if there is room elsewhere. RuntimeFailedError if full."""
    net = IPv4Network(ranges.v4)
    first, count = int(net.network_address) // 2, net.num_addresses // 2
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % count
    second_best = None
    for step in range(count):
        slot = first + (start + step) % count
        if slot in taken or slot == first:
            continue
        if avoid and IPv4Address(slot * 2) in IPv4Network(avoid):
            second_best = slot if second_best is None else second_best
            continue
        return slot
    if second_best is not None:
        return second_best
    raise RuntimeFailedError(
        f"Cannot connect one more network or floating address to this host: all {count} pairs of addresses of "
        f"{ranges.v4} are taken. Set a larger [network] transit_cidr."
    )


def taken(nl: rtnl.Netlink, ranges: Ranges) -> set[int]:
    """The numbers of all pairs that something on this host uses, of whatever cloud or program."""
    net = IPv4Network(ranges.v4)
    found = set()
    for route in nl.routes():
        at = IPv4Network(route.to)
        if at.subnet_of(net) and at.prefixlen >= 30:
            found.update({int(at.network_address) // 2, int(at.broadcast_address) // 2})
        elif at.subnet_of(net):
            found.update(range(int(at.network_address) // 2, int(at.broadcast_address) // 2 + 1))
    return found


class Transit:
    """Uplinks and routes of one cloud. `lock_file` is shared by all clouds of the machine."""

    def __init__(self, instance: str, ranges: Ranges, lock_file: Path) -> None:
        self._instance = instance
        self.ranges = ranges
        self._lock_file = lock_file

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def connect(self, nl: rtnl.Netlink, space: int, bridge: Bridge) -> Pair:
        """The uplink of a network stands; one that does is completed. `space`: a descriptor of its namespace."""
        mine = Owner(self._instance, "up", bridge.network_uuid).alias()
        name = uplink_name(self._instance, bridge.network_uuid)
        link = nl.link(name)
        if link is not None and link.alias not in {"", mine}:
            raise RuntimeFailedError(
                f"Cannot connect network {bridge.network_uuid}: an interface {name} exists and belongs to "
                f"{link.alias}. Remove it or use another network."
            )
        if link is not None and (not link.alias or not _has_uplink(space)):
            nl.delete(link.index)  # half made, or that of a namespace which is gone
            link = None
        with self._alone():
            pair = None if link is None else self._pair(nl, link.index)
            if pair is None:
                used, key = taken(nl, self.ranges), f"{self._instance}{bridge.network_uuid}"
                pair = Pair.at(free_slot(self.ranges, used, key, bridge.cidr))
            if link is None:
                link = self._make(nl, space, name, mine)
            nl.do(rtnl.add_address(link.index, pair.host, 31), rtnl.set_up(link.index))
        if host.has_ipv6():
            with contextlib.suppress(OSError):  # switched off on this host: then nothing leads out
                nl.do(rtnl.add_address(link.index, six(self.ranges, pair.host), 127))
        within(space, lambda: self._inside(pair))
        return pair

    def _make(self, nl: rtnl.Netlink, space: int, name: str, alias: str) -> rtnl.Link:
        mtu = rtnl.u32(rtnl.IFLA_MTU, host.default_mtu())
        peer = rtnl.ifinfo() + rtnl.text(rtnl.IFLA_IFNAME, UPLINK) + mtu + rtnl.u32(rtnl.IFLA_NET_NS_FD, space)
        data = rtnl.text(rtnl.INFO_KIND, "veth") + rtnl.attr(rtnl.INFO_DATA, rtnl.attr(rtnl.VETH_PEER, peer))
        body = rtnl.ifinfo() + rtnl.text(rtnl.IFLA_IFNAME, name) + mtu + rtnl.attr(rtnl.IFLA_LINKINFO, data)
        nl.do((rtnl.NEWLINK, rtnl.CREATE | rtnl.EXCL, body))
        link = nl.link(name)
        if link is None:
            raise RuntimeFailedError(f"Cannot make {name}: it vanished while it was made.")
        host.set_sysctls({f"ipv4/conf/{name}/send_redirects": "0", f"ipv6/conf/{name}/accept_dad": "0"})
        nl.do((rtnl.SETLINK, 0, rtnl.ifinfo(link.index) + rtnl.text(rtnl.IFLA_IFALIAS, alias)))
        return link

    def _inside(self, pair: Pair) -> None:
        host.set_sysctls({f"ipv6/conf/{UPLINK}/accept_dad": "0"})
        with rtnl.Netlink() as nl:
            link = nl.link(UPLINK)
            if link is None:
                raise RuntimeFailedError(f"Cannot connect a network: {UPLINK} vanished while it was made.")
            nl.do(
                rtnl.add_address(link.index, pair.inside, 31),
                rtnl.set_up(link.index),
                rtnl.add_route(link.index, "0.0.0.0/0", pair.host),
            )
            if host.has_ipv6():
                nl.do(
                    rtnl.add_address(link.index, six(self.ranges, pair.inside), 127),
                    rtnl.add_route(link.index, "::/0", six(self.ranges, pair.host)),
                )

    def _pair(self, nl: rtnl.Netlink, index: int) -> Pair | None:
        for found in nl.addresses():
            if found.index == index and found.prefixlen == 31:
                return Pair.at(int(IPv4Address(found.address)) // 2)
        return None

    def pairs(self, nl: rtnl.Netlink) -> dict[str, Pair]:
        """The transit addresses of the networks that are connected, by network uuid."""
        addresses = {found.index: found for found in nl.addresses() if found.prefixlen == 31}
        result = {}
        for link in nl.links():
            whose = owner(link.alias)
            if whose is None or (whose.instance, whose.kind) != (self._instance, "up") or link.index not in addresses:
                continue
            result[whose.uuid] = Pair.at(int(IPv4Address(addresses[link.index].address)) // 2)
        return result

    def disconnect(self, nl: rtnl.Netlink, network_uuid: str) -> None:
        """Remove a network's uplink, and with it the routes into it."""
        link = nl.link(uplink_name(self._instance, network_uuid))
        if link is not None and (not link.alias or link.alias == Owner(self._instance, "up", network_uuid).alias()):
            nl.delete(link.index)

    def lead_in(self, nl: rtnl.Netlink, bridge: Bridge, pair: Pair) -> None:
        """The host itself reaches the network's addresses, if nothing else that it reaches has some of them: who comes
        first has them."""
        link = nl.link(uplink_name(self._instance, bridge.network_uuid))
        if link is None:
            return
        with self._alone():
            reached = [(r.index, r.to) for r in nl.routes() if r.main] + [(0, to) for to in host.host_routes()]
            self._route(nl, link.index, bridge.cidr, pair.inside, reached)
            if bridge.cidr6 and host.has_ipv6():
                reached = [(r.index, r.to) for r in nl.routes(6) if r.main]
                reached += [(0, f"{address}/128") for address in host.resolvers() if ":" in address]
                # What is refused is IPv6 switched off on this host.
                with contextlib.suppress(OSError):
                    self._route(nl, link.index, bridge.cidr6, six(self.ranges, pair.inside), reached)

    def _route(self, nl: rtnl.Netlink, index: int, cidr: str, via: str, reached: list[tuple[int, str]]) -> None:
        net = ip_network(cidr)
        others = []
        for at, to in reached:
            if at == index and to == cidr:
                return
            with contextlib.suppress(ValueError):
                other = ip_network(to.partition("%")[0], strict=False)
                if other.prefixlen and other.version == net.version and other.overlaps(net):
                    others.append(other)
        if not others:
            kind, flags, body = rtnl.add_route(index, cidr, via)
            nl.do((kind, flags & ~rtnl.REPLACE | rtnl.EXCL, body))

    def aliases(
        self, nl: rtnl.Netlink, wanted: dict[str, str], known: dict[str, str], pairs: dict[str, Pair]
    ) -> dict[str, str]:
        """Aliases of floating addresses, with the routes of those whose networks are connected; routes of others are
        removed. `wanted`: floating address to network uuid; `known`: the aliases that they had."""
        ours = {}
        for uuid in pairs:
            link = nl.link(uplink_name(self._instance, uuid))
            if link is not None:
                ours[link.index] = uuid
        with self._alone():
            standing = {
                route.to.partition("/")[0]: route.index
                for route in nl.routes()
                if route.index in ours and route.main and route.to.endswith("/32")
            }
            used = taken(nl, self.ranges)
            mine = {int(IPv4Address(alias)) // 2 for alias in standing}
            result: dict[str, str] = {}
            for address in sorted(wanted):
                alias = known.get(address)
                slot = -1 if alias is None else int(IPv4Address(alias)) // 2
                inside = alias is not None and IPv4Address(alias) in IPv4Network(self.ranges.v4)
                if not inside or (slot in used and slot not in mine):
                    slot = free_slot(self.ranges, used, address)
                    alias = Pair.at(slot).host
                assert alias is not None, "either known or just chosen"
                used.add(slot)
                result[address] = alias
            goal = {result[address]: uuid for address, uuid in wanted.items()}
            index_of = {uuid: index for index, uuid in ours.items()}
            for alias, index in standing.items():
                if goal.get(alias) != ours[index]:
                    with _gone_is_fine():
                        nl.do(rtnl.remove_route(index, f"{alias}/32"))
            for alias, uuid in goal.items():
                if uuid in index_of and standing.get(alias) != index_of[uuid]:
                    nl.do(rtnl.add_route(index_of[uuid], f"{alias}/32", pairs[uuid].inside))
        return result


def _has_uplink(space: int) -> bool:
    def look() -> bool:
        with rtnl.Netlink() as nl:
            return nl.link(UPLINK) is not None

    return within(space, look)


@contextlib.contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise
