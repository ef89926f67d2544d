"""Which addresses the cloud takes for itself: one pool per cloud, one /22 per network, one address per port.

Pure arithmetic on IPv4. Callers keep what was chosen (the store's transaction makes a choice unique).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from askos.model.errors import InvalidError, SetupError

SPACE = IPv4Network("10.0.0.0/8")
"""Where pools are looked for."""
POOL_PREFIX = 12
SUBNET_PREFIX = 22


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


def free_address(cidr: str, used_numbers: set[int]) -> str | None:
    """An address of the network that is not in `used_numbers` (addresses as integers); None when it is full.

    Never the network's own, its broadcast or its gateway address. Looks first behind the highest used one and then
    from the start, so that an address given back rests as long as possible before it comes again.
    """
    net = network(cidr)
    first = int(net.network_address) + 2
    last = int(net.broadcast_address) - 1
    highest = max((number for number in used_numbers if first <= number <= last), default=first - 1)
    for number in (*range(highest + 1, last + 1), *range(first, highest)):
        if number not in used_numbers:
            return str(IPv4Address(number))
    return None


def mac_for(address: str) -> str:
    """The MAC of the interface with this address: locally administered, the last four bytes are the address.

    Bound to the address, so that a neighbour's cache stays right when an address moves to another container.
    """
    return ":".join(f"{byte:02x}" for byte in (0x0A, 0x58, *IPv4Address(address).packed))
