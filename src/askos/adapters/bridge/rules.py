"""The packet rules of one cloud: NAT to the outside, walls between networks, and between containers and the host.

All of them live in one nftables table, `inet askos_<instance>`, which is replaced as a whole in one transaction
when a network comes or goes, never for a container. Networks are elements of sets, so a packet costs the same with
one network as with a thousand.

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
from askos.model.errors import SetupError, UnavailableError

_TIMEOUT_S = 20


def table(instance: str) -> str:
    """The table's name."""
    return f"askos_{instance}"


def text(instance: str, bridges: Iterable[Bridge]) -> str:
    """The transaction that makes the table what it has to be for these bridges, whatever it was before."""
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

    chain forward {{
        type filter hook forward priority filter - 5; policy accept;
        iifname "{prefix(instance)}p*" drop comment "a port that lost its bridge"
        iifname @bridges jump from_containers
        oifname @bridges jump to_containers
    }}
    chain from_containers {{
        meta nfproto ipv4 iifname . ip saddr != @subnets drop
        ip daddr 169.254.0.0/16 drop
        iifname . oifname @same accept
        meta nfproto != ipv4 drop
        oifname "{PREFIX}*" drop
    }}
    chain to_containers {{
        iifname . oifname @same accept
        ct state established,related accept
        drop
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
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr @sources oifname != "{PREFIX}*" masquerade
    }}
}}
"""


async def apply(instance: str, bridges: Iterable[Bridge]) -> None:
    """Make the rules true, in one transaction. SetupError when nft or the kernel cannot; UnavailableError if
    it hangs."""
    code, _, said = await _nft("-f", "-", stdin=text(instance, bridges))
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
