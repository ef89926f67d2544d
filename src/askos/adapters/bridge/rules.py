"""The packet rules of one cloud: NAT to the outside, walls between networks, and between containers and the host.

All of them live in one nftables table, `inet askos_<instance>`, which is replaced as a whole in one transaction
when a network or the state of security groups changes. Networks and members are elements of sets, so a packet costs the
same with one as with a thousand. Ports of a bridge are isolated, so that also what one container sends to another of
its network passes here.

A verdict of ours cannot undo another table's drop: where the host's own firewall drops forwarded packets (docker
sets `policy drop` in iptables' FORWARD), the operator must let our interfaces through; `forward_dropped_by` finds
out.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterable

from askos.adapters.bridge.links import PREFIX, Bridge, prefix
from askos.adapters.bridge.walls import parts
from askos.model.errors import SetupError, UnavailableError
from askos.model.networks import NetworkState

_TIMEOUT_S = 20


def table(instance: str) -> str:
    """The table's name."""
    return f"askos_{instance}"


def text(instance: str, bridges: Iterable[Bridge], state: NetworkState | None = None) -> str:
    """The transaction that makes the table what it has to be for these bridges, whatever it was before."""
    walls = parts(state)
    ordered = sorted(bridges, key=lambda bridge: bridge.name)
    name = table(instance)

    def elements(items: list[str]) -> str:
        return f"elements = {{ {', '.join(items)} }}" if items else ""

    # The table is first added (so that deleting cannot fail), deleted and made anew: one atomic step for packets.
    return f"""
table inet {name} {{}}
delete table inet {name}
table inet {name} {{
    set bridges {{ type ifname; {elements([f'"{b.name}"' for b in ordered])} }}
    set same {{ type ifname . ifname; {elements([f'"{b.name}" . "{b.name}"' for b in ordered])} }}
    set subnets {{ type ifname . ipv4_addr; flags interval; {elements([f'"{b.name}" . {b.cidr}' for b in ordered])} }}
    set gateways {{ type ifname . ipv4_addr; {elements([f'"{b.name}" . {b.gateway}' for b in ordered])} }}
    set sources {{ type ipv4_addr; flags interval; {elements([b.cidr for b in ordered])} }}
{walls.sets}

    chain forward {{
        type filter hook forward priority filter - 5; policy accept;
        iifname "{prefix(instance)}p*" drop comment "a port that lost its bridge"
        iifname @bridges jump from_containers
        oifname @bridges jump to_containers
    }}
    chain from_containers {{
        meta nfproto ipv4 iifname . ip saddr != @subnets drop
        meta nfproto != ipv4 drop
        ip daddr 169.254.0.0/16 drop
        ct state established,related return
        ip saddr vmap @egress
        ct status dnat return
        iifname . oifname @same return
        oifname "{PREFIX}*" drop
    }}
    chain to_containers {{
        ct state established,related accept
        ip daddr vmap @ingress
        {"" if walls.known else "iifname . oifname @same accept"}
        drop
    }}
{walls.chains}
    chain output {{
        type filter hook output priority filter - 5; policy accept;
        oifname @bridges icmp type redirect drop comment "ports are isolated on purpose"
        ct status dnat ct state new ip daddr vmap @ingress comment "what the host sends to a floating address"
    }}
    chain input {{
        type filter hook input priority filter - 5; policy accept;
        iifname "{prefix(instance)}p*" drop
        iifname @bridges jump to_host
    }}
    chain to_host {{
        meta nfproto != ipv4 drop
        iifname . ip saddr != @subnets drop
        ct state established,related accept
        iifname . ip daddr @gateways udp dport 53 accept
        iifname . ip daddr @gateways tcp dport 53 accept
        iifname . ip daddr @gateways icmp type echo-request accept
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
        ip saddr @sources oifname != "{PREFIX}*" snat ip to ip saddr map @floating_out
        ip saddr @sources oifname != "{PREFIX}*" masquerade
    }}
}}
"""


async def apply(instance: str, bridges: Iterable[Bridge], state: NetworkState | None = None) -> None:
    """Make the rules true, in one transaction. SetupError when nft or the kernel cannot; UnavailableError if
    it hangs."""
    code, _, said = await _nft("-f", "-", stdin=text(instance, bridges, state))
    if code != 0:
        raise SetupError(
            f"Cannot set the packet rules of inet {table(instance)}: nft says: {_first_line(said)} "
            "The kernel needs nf_tables with NAT (modules nf_tables, nft_nat, nft_masq, nft_ct) and this program "
            "CAP_NET_ADMIN; nftables must be 1.0 or newer (package nftables)."
        )


async def exists(instance: str) -> bool:
    """Whether the table is there and whole (another program may have flushed it)."""
    code, out, _ = await _nft("list", "chain", "inet", table(instance), "to_host")
    return code == 0 and out.count("drop") == 3


async def delete(instance: str) -> None:
    """Remove the table; one that is gone is fine."""
    name = table(instance)
    code, _, said = await _nft("-f", "-", stdin=f"table inet {name} {{}}\ndelete table inet {name}\n")
    if code != 0:
        raise UnavailableError(f"Cannot remove the packet rules inet {name}: nft says: {_first_line(said)}")


async def other_clouds(instance: str) -> list[str]:
    """The tables of other Askos clouds on this host."""
    _, out, _ = await _nft("list", "tables", "inet")
    names = (line.split()[-1] for line in out.splitlines() if line.strip())
    return [name for name in names if name.startswith("askos_") and name != table(instance)]


async def forward_dropped_by() -> str | None:
    """The first chain of another program that drops forwarded IPv4 packets by policy, as "family table chain"."""
    code, out, _ = await _nft("-j", "list", "chains")
    if code != 0:
        return None
    for item in json.loads(out or "{}").get("nftables", []):
        chain = item.get("chain", {})
        drops = (chain.get("hook"), chain.get("policy")) == ("forward", "drop")
        if drops and chain.get("family") in {"ip", "inet"}:
            return f"{chain['family']} {chain['table']} {chain['name']}"
    return None


async def _nft(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    program = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
    if program is None:
        raise SetupError(
            "Cannot set packet rules: the program nft is not installed. Install the package nftables "
            "(apt install nftables, dnf install nftables) and start again."
        )
    pipe = asyncio.subprocess.PIPE
    # A file in memory, not a pipe: nft may end without reading it, and uvloop raises when such a pipe is written to.
    source = os.memfd_create("askos-nft")
    try:
        os.write(source, stdin.encode())
        os.lseek(source, 0, os.SEEK_SET)
        process = await asyncio.create_subprocess_exec(program, *arguments, stdin=source, stdout=pipe, stderr=pipe)
    finally:
        os.close(source)
    try:
        out, err = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    except TimeoutError:
        raise UnavailableError(f"Cannot set packet rules: nft did not end within {_TIMEOUT_S} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


def _first_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[0] if lines else "nothing."
