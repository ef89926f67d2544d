"""Which addresses the cloud takes for itself: one pool per cloud, one /22 per network, one address per port.

Pure arithmetic on IPv4. Callers keep what was chosen (the store's transaction makes a choice unique).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from itertools import chain

from askos.model.errors import InvalidError, SetupError

SPACE = IPv4Network("10.0.0.0/8")
"""Where pools are looked for."""
POOL_PREFIX = 12
SUBNET_PREFIX = 22
SMALLEST_PREFIX = 30
PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
"""What users may take for their networks."""


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


def gateway_of(cidr: str) -> str:
    """The first usable address of a network."""
    return str(network(cidr).network_address + 1)


def free_subnet(prefixes: Iterable[str], taken: Iterable[str], prefix: int) -> str | None:
    """The first network of that prefix length inside the given ranges that touches none of `taken`; None when there
    is none."""
    used = sorted((int(net.network_address), int(net.broadcast_address)) for net in map(network, taken))
    size = 1 << (32 - prefix)
    for within in map(network, prefixes):
        at, last = int(within.network_address), int(within.broadcast_address)
        for first_used, last_used in used:
            if last_used < at:
                continue
            if first_used > at + size - 1:
                break
            at = (last_used // size + 1) * size
        if at + size - 1 <= last:
            return f"{IPv4Address(at)}/{prefix}"
    return None


def overlapping(cidr: str, others: Iterable[str]) -> str | None:
    """The first of the other networks that this one touches."""
    mine = network(cidr)
    return next((other for other in others if mine.overlaps(network(other))), None)


def check_private(cidr: str) -> str:
    """A range that a user may have for a network, without host bits. InvalidError when it is none: too small, or not
    private, so that containers could not reach its addresses in the world any more."""
    net = network(cidr)
    if net.prefixlen > SMALLEST_PREFIX:
        raise InvalidError(
            f"Cannot use {net} for a network: it has no room for a gateway and a container. Use a "
            f"/{SMALLEST_PREFIX} or larger."
        )
    if not any(net.subnet_of(space) for space in PRIVATE):
        raise InvalidError(
            f"Cannot use {net} for a network: it is not private. Take a range inside of one of "
            f"{', '.join(map(str, PRIVATE))}."
        )
    return str(net)


def check_address(cidr: str, address: str, gateway: str) -> str:
    """An address that a port may have on a network. InvalidError when it is none."""
    net = network(cidr)
    try:
        found = IPv4Address(address)
    except ValueError:
        raise InvalidError(f"{address!r} is not an IPv4 address.", "invalid-ip-for-network") from None
    if found not in net or found in (net.network_address, net.broadcast_address):
        raise InvalidError(
            f"IP address {address} is not a valid IP for the specified subnet, {net}.", "invalid-ip-for-subnet"
        )
    if str(found) == gateway:
        raise InvalidError(
            f"IP address {address} is not a valid IP for a port: it is the gateway's of {net}.", "invalid-ip-for-subnet"
        )
    return str(found)


def free_address(
    cidr: str, used_numbers: set[int], gateway: str | None = None, ranges: Sequence[tuple[str, str]] = ()
) -> str | None:
    """An address of the network that is not in `used_numbers` (addresses as integers); None when it is full.

    Never the network's own, its broadcast or its gateway address (by default the first). With `ranges` (first, last)
    one of these. Looks first behind the highest used one and then from the start, so that an address given back rests
    as long as possible before it comes again.
    """
    net = network(cidr)
    first, last = int(net.network_address) + 1, int(net.broadcast_address) - 1
    door = int(IPv4Address(gateway)) if gateway is not None else first
    inside = [(int(IPv4Address(a)), int(IPv4Address(b))) for a, b in ranges] or [(first, last)]
    low, high = min(a for a, _ in inside), max(b for _, b in inside)
    highest = max((number for number in used_numbers if low <= number <= high), default=low - 1)
    pieces = [range(max(a, highest + 1), b + 1) for a, b in inside]
    pieces += [range(a, min(b, highest) + 1) for a, b in inside]
    for number in chain.from_iterable(pieces):
        if number != door and number not in used_numbers:
            return str(IPv4Address(number))
    return None


def mac_for(address: str) -> str:
    """The MAC of the interface with this address: locally administered, the last four bytes are the address.

    Bound to the address, so that a neighbour's cache stays right when an address moves to another container.
    """
    return ":".join(f"{byte:02x}" for byte in (0x0A, 0x58, *IPv4Address(address).packed))
