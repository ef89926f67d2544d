"""The packet rules of one cloud: in each network's namespace, and one table beside it for the host itself.

In a network's namespace: what its containers may send, security groups, NAT to its transit address. On the host: which
of that may go on, floating addresses, NAT to the outside. Both tables are called `askos_<instance>`.

A verdict of ours cannot undo another table's drop: where the host's own firewall drops forwarded packets (docker
sets `policy drop` in iptables' FORWARD), the operator must let our interfaces through; `forward_dropped_by` finds
out.
"""

from __future__ import annotations

import json

from askos.adapters.bridge import nft
from askos.adapters.bridge.links import BRIDGE, PREFIX, UPLINK, Bridge, prefix, uplinks
from askos.adapters.bridge.tables import Table
from askos.adapters.bridge.transit import Ranges
from askos.adapters.bridge.walls import Walls

_ND = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"


def name_of(instance: str) -> str:
    """The name of the tables."""
    return f"askos_{instance}"


def of_network(instance: str, bridge: Bridge, ranges: Ranges, walls: Walls) -> Table:
    """The table inside a network's namespace."""
    own = [f"ip saddr != {bridge.cidr} drop"]
    own.append(f"ip6 saddr != {bridge.cidr6} drop" if bridge.cidr6 else "meta nfproto ipv6 drop")
    services = []
    for word, ping, gateway in (("ip", "icmp", bridge.gateway), ("ip6", "icmpv6", bridge.gateway6)):
        if gateway:
            services += [f"{word} daddr {gateway} {proto} dport 53 accept" for proto in ("udp", "tcp")]
            services.append(f"{word} daddr {gateway} {ping} type echo-request accept")
    base = f"""
chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname "{BRIDGE}" jump from_containers
    oifname "{BRIDGE}" goto to_containers
    oifname "{UPLINK}" accept
}}
chain from_containers {{
    {_lines(own)}
    ip daddr 169.254.0.0/16 drop
    ip6 daddr fe80::/10 drop
    ct state established,related return
    ip saddr vmap @egress
    ip6 saddr vmap @egress6
}}
chain to_containers {{
    ct state established,related accept
    ct status dnat goto to_ports
    iifname "{UPLINK}" accept comment "from the host itself: it lets nothing else through"
    goto to_ports
}}
chain to_ports {{
    ip daddr vmap @ingress
    ip6 daddr vmap @ingress6
    {"" if walls.known else f'iifname "{BRIDGE}" accept'}
    drop
}}
chain input {{
    type filter hook input priority filter; policy drop;
    iifname "{BRIDGE}" jump services
    iifname "{UPLINK}" ct state established,related accept
    iifname "{UPLINK}" {_ND} accept
}}
chain services {{
    {_ND} accept
    {_lines(own)}
    ct state established,related accept
    {_lines(services)}
}}
chain output {{
    type filter hook output priority filter; policy accept;
    oifname "{BRIDGE}" icmp type redirect drop comment "ports are isolated on purpose"
    oifname "{BRIDGE}" icmpv6 type nd-redirect drop
}}
chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{UPLINK}" dnat ip to ip daddr map @alias
    iifname "{BRIDGE}" dnat ip to ip daddr map @floating
}}
chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{UPLINK}" snat ip to ip saddr map @outward
    oifname "{UPLINK}" masquerade
    oifname "{BRIDGE}" ip saddr . ip daddr @hairpin masquerade comment "a container and its own floating address"
    oifname "{BRIDGE}" ct status dnat accept
    oifname "{BRIDGE}" ip saddr {ranges.v4} masquerade comment "what the host sends: it has an answer without a route"
    oifname "{BRIDGE}" ip6 saddr {ranges.v6} masquerade
}}"""
    return Table(name_of(instance), base, walls.sets, walls.chains, walls.contents)


def of_host(instance: str, ranges: Ranges, aliases: dict[str, str]) -> Table:
    """The table of the host's own namespace. `aliases`: floating address to its alias."""
    ours, any_of_ours = uplinks(instance), f"{prefix(instance)}*"
    base = f"""
chain forward {{
    type filter hook forward priority filter - 5; policy accept;
    iifname "{ours}" jump from_networks
    oifname "{ours}" jump to_networks
    iifname "{any_of_ours}" iifname != "{ours}" drop
    oifname "{any_of_ours}" oifname != "{ours}" drop
}}
chain from_networks {{
    ip saddr != {ranges.v4} drop
    ip6 saddr != {ranges.v6} drop
    ct state established,related return
    ct status dnat return
    ip daddr {ranges.v4} drop
    ip6 daddr {ranges.v6} drop
    oifname "{PREFIX}*" drop
}}
chain to_networks {{
    ct state established,related accept
    ct status dnat accept comment "to a floating address"
    drop
}}
chain input {{
    type filter hook input priority filter - 5; policy accept;
    iifname "{ours}" jump to_host
    iifname "{any_of_ours}" iifname != "{ours}" drop
}}
chain to_host {{
    ct state established,related accept
    {_ND} accept
    drop
}}
chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    dnat ip to ip daddr map @floating_in
}}
chain local {{
    type nat hook output priority -100; policy accept;
    dnat ip to ip daddr map @floating_in
}}
chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    iifname "{ours}" snat ip to ip saddr map @floating_out
    iifname "{ours}" masquerade
}}"""
    both = "map { type ipv4_addr : ipv4_addr; }"
    contents = {"floating_in": dict(aliases), "floating_out": {alias: address for address, alias in aliases.items()}}
    return Table(name_of(instance), base, {"floating_in": both, "floating_out": both}, {}, contents)


def stands(instance: str, chain: str) -> bool:
    """Whether the table is there and whole in this namespace (another program may have flushed it). Blocks."""
    try:
        return "drop" in nft.run(f"list chain inet {name_of(instance)} {chain}\n")
    except nft.NftError:
        return False


def delete(instance: str) -> None:
    """Remove the table of this namespace; one that is gone is fine. Blocks. NftError."""
    nft.run(f"table inet {name_of(instance)} {{}}\ndelete table inet {name_of(instance)}\n")


def other_clouds(instance: str) -> list[str]:
    """The tables of other Askos clouds on this host. Blocks."""
    names = (line.split()[-1] for line in nft.run("list tables inet\n").splitlines() if line.strip())
    return [name for name in names if name.startswith("askos_") and name != name_of(instance)]


def forward_dropped_by() -> str | None:
    """The first chain of another program that drops forwarded IPv4 packets by policy, as "family table chain".
    Blocks."""
    try:
        out = nft.run("list chains\n", json=True)
    except nft.NftError:
        return None
    for item in json.loads(out or "{}").get("nftables", []):
        chain = item.get("chain", {})
        drops = (chain.get("hook"), chain.get("policy")) == ("forward", "drop")
        if drops and chain.get("family") in {"ip", "inet"}:
            return f"{chain['family']} {chain['table']} {chain['name']}"
    return None


def _lines(rules: list[str]) -> str:
    return "\n    ".join(rules)
