"""Which addresses the cloud takes for itself: one pool per cloud, one /22 per network, one address per port.

Pure arithmetic; what the cloud takes for itself is IPv4, what users choose may be either. Callers keep what was chosen
(the store's transaction makes a choice unique).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    NetmaskValueError,
    ip_address,
    ip_network,
)
from itertools import chain

from askos.model.errors import InvalidError, SetupError

SPACE = IPv4Network("10.0.0.0/8")
"""Where pools are looked for."""
POOL_PREFIX = 12
SUBNET_PREFIX = 22
TRANSIT = IPv4Network("100.64.0.0/10")
"""What hosts use between themselves and the networks on them."""
PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
"""What users may take for their networks of IPv4."""
ROUTABLE = tuple(map(IPv6Network, ("fc00::/7", "2000::/3")))
"""The same of IPv6."""
SMALLEST = {4: 30, 6: 126}
"""The longest prefix, by IP version, that has room for a gateway and a container."""
BITS = {4: 32, 6: 128}

Net = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def network(cidr: str) -> IPv4Network:
    """Parse a CIDR; host bits are dropped. InvalidError when it is none."""
    try:
        return IPv4Network(cidr, strict=False)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise InvalidError(f"{cidr!r} is not an IPv4 network: {error}.") from None


def choose_pool(routes: Iterable[str], taken: Iterable[str] = (), seed: int = 0) -> str:
    """A /12 inside 10.0.0.0/8 that touches neither a host's route nor another cloud's pool.

    `routes` and `taken` are CIDRs; default routes (0.0.0.0/0) count for nothing. `seed` spreads clouds over the 16
    candidates: give a random number, so that clouds which meet later seldom chose the same. SetupError if all 16
    are in use.
    """
    used = [net for net in map(network, [*routes, *taken]) if net.prefixlen > 0]
    candidates = list(SPACE.subnets(new_prefix=POOL_PREFIX))
    for step in range(len(candidates)):
        candidate = candidates[(seed + step) % len(candidates)]
        if not any(candidate.overlaps(net) for net in used):
            return str(candidate)
    clashing = ", ".join(sorted({str(net) for net in used if net.overlaps(SPACE)}))
    raise SetupError(
        f"Cannot choose addresses for container networks: every /{POOL_PREFIX} inside {SPACE} overlaps something this "
        f"machine already routes or another cloud uses ({clashing}). Name a free range in the configuration."
    )


def subnets(pool: str) -> Iterator[str]:
    """The /22 networks of a pool in order, as CIDRs. The gateway of each is its first address."""
    for net in network(pool).subnets(new_prefix=SUBNET_PREFIX):
        yield str(net)


def net_of(cidr: str) -> Net:
    """Parse a CIDR of either IP version; host bits are dropped. InvalidError when it is none."""
    try:
        if "%" in cidr:
            raise ValueError("a network has no zone")
        return ip_network(cidr, strict=False)
    except ValueError as error:
        raise InvalidError(f"{cidr!r} is not a network: {error}.") from None


def version_of(text: str) -> int:
    """4 or 6, of a valid address or CIDR."""
    return 6 if ":" in text else 4


def gateway_of(cidr: str) -> str:
    """The first usable address of a network."""
    return str(net_of(cidr).network_address + 1)


def bounds(net: Net) -> tuple[int, int]:
    """First and last address that somebody can have, as numbers. IPv6 knows no broadcast; its first address is that of
    all routers."""
    return int(net.network_address) + 1, int(net.broadcast_address) - (1 if net.version == 4 else 0)


def free_subnet(prefixes: Iterable[str], taken: Iterable[str], prefix: int) -> str | None:
    """The first network of that prefix length inside the given ranges that touches none of `taken`; None when there
    is none. The ranges are all of one IP version; what is taken of the other one does not matter."""
    inside = [net_of(cidr) for cidr in prefixes]
    version = inside[0].version
    others = [net for net in map(net_of, taken) if net.version == version]
    used = sorted((int(net.network_address), int(net.broadcast_address)) for net in others)
    size = 1 << (BITS[version] - prefix)
    for within in inside:
        at, last = int(within.network_address), int(within.broadcast_address)
        for first_used, last_used in used:
            if last_used < at:
                continue
            if first_used > at + size - 1:
                break
            at = (last_used // size + 1) * size
        if at + size - 1 <= last:
            return f"{type(within.network_address)(at)}/{prefix}"
    return None


def overlapping(cidr: str, others: Iterable[str]) -> str | None:
    """The first of the other networks that this one touches."""
    mine = net_of(cidr)
    return next((other for other in others if _overlap(mine, net_of(other))), None)


def _overlap(one: Net, other: Net) -> bool:
    return one.version == other.version and one.overlaps(other)


def check_usable(cidr: str) -> str:
    """A range that a user may have for a network, without host bits. InvalidError when it is none: too small, not
    private, so that containers could not reach its addresses in the world any more, or not for hosts at all."""
    net = net_of(cidr)
    if net.prefixlen > SMALLEST[net.version]:
        raise InvalidError(
            f"Cannot use {net} for a network: it has no room for a gateway and a container. Use a "
            f"/{SMALLEST[net.version]} or larger."
        )
    if isinstance(net, IPv6Network):
        if not any(net.subnet_of(space) for space in ROUTABLE):
            raise InvalidError(
                f"Cannot use {net} for a network: it is neither unique-local nor global. Take a range inside of one of "
                f"{', '.join(map(str, ROUTABLE))}."
            )
        return str(net)
    if net.overlaps(TRANSIT):
        raise InvalidError(
            f"Cannot use {net} for a network: hosts use {TRANSIT} between themselves and their networks. Take a range "
            f"inside of one of {', '.join(map(str, PRIVATE))}."
        )
    if not any(net.subnet_of(space) for space in PRIVATE):
        raise InvalidError(
            f"Cannot use {net} for a network: it is not private. Take a range inside of one of "
            f"{', '.join(map(str, PRIVATE))}."
        )
    return str(net)


def check_address(cidr: str, address: str, gateway: str) -> str:
    """An address that a port may have on a network, in its usual form. InvalidError when it is none."""
    net = net_of(cidr)
    found = parsed(address)
    if found is None:
        raise InvalidError(f"{address!r} is not an IP address.", "invalid-ip-for-network")
    first, last = bounds(net)
    if found.version != net.version or not first <= int(found) <= last:
        raise InvalidError(
            f"IP address {address} is not a valid IP for the specified subnet, {net}.", "invalid-ip-for-subnet"
        )
    if str(found) == gateway:
        raise InvalidError(
            f"IP address {address} is not a valid IP for a port: it is the gateway's of {net}.", "invalid-ip-for-subnet"
        )
    return str(found)


def parsed(text: str) -> Address | None:
    """An address without a zone (fe80::1%eth0); None when it is none."""
    try:
        return ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def free_address(
    cidr: str, used_numbers: set[int], gateway: str | None = None, ranges: Sequence[tuple[str, str]] = ()
) -> str | None:
    """An address of the network that is not in `used_numbers` (addresses as integers); None when it is full.

    Never the network's own, its broadcast or its gateway address (by default the first). With `ranges` (first, last)
    one of these. Looks first behind the highest used one and then from the start, so that an address given back rests
    as long as possible before it comes again. No more candidates are looked at than there are used ones, however large
    the network.
    """
    net = net_of(cidr)
    first, last = bounds(net)
    door = int(ip_address(gateway)) if gateway is not None else first
    inside = _numbers(ranges) or [(first, last)]
    low, high = min(a for a, _ in inside), max(b for _, b in inside)
    highest = max((number for number in used_numbers if low <= number <= high), default=low - 1)
    pieces = [range(max(a, highest + 1), b + 1) for a, b in inside]
    pieces += [range(a, min(b, highest) + 1) for a, b in inside]
    for number in chain.from_iterable(pieces):
        if number != door and number not in used_numbers:
            return str(type(net.network_address)(number))
    return None


def address_beside(cidr: str, offset: int, gateway: str, ranges: Sequence[tuple[str, str]] = ()) -> str | None:
    """The address so far behind the network's own, if it is one that is given away unasked: what suits a port whose
    address in a second subnet is as far behind that one's."""
    net = net_of(cidr)
    number = int(net.network_address) + offset
    inside = _numbers(ranges) or [bounds(net)]
    if number == int(ip_address(gateway)) or not any(a <= number <= b for a, b in inside):
        return None
    return str(type(net.network_address)(number))


def _numbers(ranges: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
    return [(int(ip_address(a)), int(ip_address(b))) for a, b in ranges]


def mac_for(address: str) -> str:
    """The MAC of the interface with this address: locally administered, the last four bytes are the address (of an IPv6
    one, with another second byte, the last four of it).

    Bound to the address, so that a neighbour's cache stays right when an address moves to another container.
    """
    packed = ip_address(address).packed
    head = (0x0A, 0x58) if len(packed) == 4 else (0x0A, 0x5A)
    return ":".join(f"{byte:02x}" for byte in (*head, *packed[-4:]))
