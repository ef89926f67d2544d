"""What the name service of a network knows by itself, and what it must ask others. Pure decisions.

Names inside a network are single labels (`web`) or the same below `askos.internal`; they never leave the host. A
question about anything else is forwarded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

import msgspec

DOMAIN = "askos.internal"
_REVERSE, _REVERSE6 = ".in-addr.arpa", ".ip6.arpa"


class Answer(msgspec.Struct, frozen=True):
    """What to say: "found" with data (may be empty: the name exists, the type does not), "unknown" (NXDOMAIN),
    "unready" (ask again: the names have not been learnt yet) or "forward"."""

    kind: Literal["found", "unknown", "unready", "forward"]
    data: list[str] = []
    """Addresses for A and AAAA, one name for PTR."""


def answer(
    addresses: Mapping[str, list[str]] | None, nets: Sequence[IPv4Network | IPv6Network], name: str, rdtype: str
) -> Answer:
    """Decide on one question.

    `addresses`: lower-case names to IPv4 and IPv6 addresses, None before they are known. `nets`: the network's ranges.
    `name`: as asked, any case, with or without the final dot. `rdtype`: "A", "AAAA", "PTR" and so on.
    """
    name = name.lower().rstrip(".")
    if name.endswith((_REVERSE, _REVERSE6)):
        return _reverse(addresses, nets, name, rdtype)
    if name.endswith("." + DOMAIN):
        name = name[: -len(DOMAIN) - 1]
        local = True
    else:
        local = "." not in name and name != ""
        local = local or (addresses is not None and name in addresses) or name == DOMAIN
    if not local:
        return Answer("forward")
    if name == DOMAIN:
        return Answer("found")
    if addresses is None:
        return Answer("unready")
    found = addresses.get(name)
    if found is None:
        return Answer("unknown")
    wanted = {"A": (False,), "AAAA": (True,), "ANY": (False, True)}.get(rdtype, ())
    return Answer("found", [address for address in found if (":" in address) in wanted])


def _reverse(
    addresses: Mapping[str, list[str]] | None, nets: Sequence[IPv4Network | IPv6Network], name: str, rdtype: str
) -> Answer:
    try:
        address = _asked(name)
    except AddressValueError:
        return Answer("forward")
    if not any(address in net for net in nets):
        return Answer("forward")
    if addresses is None:
        return Answer("unready")
    owners = sorted(owner for owner, where in addresses.items() if str(address) in where)
    if not owners:
        return Answer("unknown")
    # One PTR: programs that show it want one name, and several confuse more than they tell.
    return Answer("found", [f"{owners[0]}.{DOMAIN}"] if rdtype in {"PTR", "ANY"} else [])


def _asked(name: str) -> IPv4Address | IPv6Address:
    """The address that a reverse name stands for."""
    if name.endswith(_REVERSE):
        return IPv4Address(".".join(reversed(name[: -len(_REVERSE)].split("."))))
    digits = name[: -len(_REVERSE6)].split(".")
    if len(digits) != 32 or any(len(digit) != 1 for digit in digits):
        raise AddressValueError(name)
    text = "".join(reversed(digits))
    return IPv6Address(":".join(text[at : at + 4] for at in range(0, 32, 4)))
