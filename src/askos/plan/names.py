"""What the name service of a network knows by itself, and what it must ask others. Pure decisions.

Names inside a network are single labels (`web`) or the same below `askos.internal`; they never leave the host. A
question about anything else is forwarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Literal

import msgspec

DOMAIN = "askos.internal"
_REVERSE = ".in-addr.arpa"


class Answer(msgspec.Struct, frozen=True):
    """What to say: "found" with data (may be empty: the name exists, the type does not), "unknown" (NXDOMAIN),
    "unready" (ask again: the names have not been learnt yet) or "forward"."""

    kind: Literal["found", "unknown", "unready", "forward"]
    data: list[str] = []
    """Addresses for A and AAAA, one name for PTR."""


def answer(addresses: Mapping[str, list[str]] | None, net: IPv4Network, name: str, rdtype: str) -> Answer:
    """Decide on one question.

    `addresses`: lower-case names to addresses of both IP versions, None before they are known. `name`: as asked, any
    case, with or without the final dot. `rdtype`: "A", "AAAA", "PTR" and so on.
    """
    name = name.lower().rstrip(".")
    if name.endswith(_REVERSE):
        return _reverse(addresses, net, name, rdtype)
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
    # Who asks for anything gets IPv4: an answer has data of one type.
    wanted = {"A": 4, "ANY": 4, "AAAA": 6}.get(rdtype)
    return Answer("found", [address for address in found if (6 if ":" in address else 4) == wanted])


def _reverse(addresses: Mapping[str, list[str]] | None, net: IPv4Network, name: str, rdtype: str) -> Answer:
    try:
        address = IPv4Address(".".join(reversed(name[: -len(_REVERSE)].split("."))))
    except AddressValueError:
        return Answer("forward")
    if address not in net:
        return Answer("forward")
    if addresses is None:
        return Answer("unready")
    owners = sorted(owner for owner, where in addresses.items() if str(address) in where)
    if not owners:
        return Answer("unknown")
    # One PTR: programs that show it want one name, and several confuse more than they tell.
    return Answer("found", [f"{owners[0]}.{DOMAIN}"] if rdtype in {"PTR", "ANY"} else [])
