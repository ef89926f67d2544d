"""What the host itself says and does: routes, MTU, resolvers, forwarding between interfaces."""

from __future__ import annotations

import contextlib
import socket
import struct
from ipaddress import AddressValueError, IPv4Address, IPv4Network, ip_address
from pathlib import Path

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_CONF6 = Path("/proc/sys/net/ipv6/conf")
_FORWARD6 = _CONF6 / "all" / "forwarding"


def _routes() -> list[tuple[str, IPv4Network, IPv4Address]]:
    """Interface, destination and gateway of each IPv4 route of the main table."""
    found = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        words = line.split()
        if len(words) < 8:
            continue
        destination, gateway, mask = (IPv4Address(struct.pack("=I", int(words[i], 16))) for i in (1, 2, 7))
        with contextlib.suppress(ValueError):
            found.append((words[0], IPv4Network(f"{destination}/{mask}"), gateway))
    return found


def host_routes(resolv_conf: Path = Path("/etc/resolv.conf"), *, without: str = "") -> list[str]:
    """What this host reaches, as CIDRs: its routes, their gateways, and its resolvers as /32. `without` is how names
    of interfaces begin that do not count.

    Made for `choose_pool`: a resolver behind the default route would be shadowed by a pool around its address.
    """
    nets = set()
    for interface, destination, gateway in _routes():
        if without and interface.startswith(without):
            continue
        if destination.prefixlen:
            nets.add(str(destination))
        if int(gateway):
            nets.add(f"{gateway}/32")
    for resolver in resolvers(resolv_conf):
        with contextlib.suppress(AddressValueError):
            nets.add(f"{IPv4Address(resolver)}/32")
    return sorted(nets)


def default_mtu() -> int:
    """The MTU of the interface that carries the default route; 1500 without one."""
    for interface, destination, _ in _routes():
        if destination.prefixlen == 0:
            with contextlib.suppress(OSError, ValueError):
                return int(Path(f"/sys/class/net/{interface}/mtu").read_text())
    return 1500


def resolvers(resolv_conf: Path = Path("/etc/resolv.conf")) -> list[str]:
    """The addresses of the host's resolvers, at most three as in the C library."""
    found = []
    with contextlib.suppress(OSError):
        for line in resolv_conf.read_text(errors="replace").splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                with contextlib.suppress(ValueError):
                    ip_address(words[1].split("%")[0])
                    found.append(words[1])
    return found[:3]


def family_of(address: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def has_ipv6() -> bool:
    """Whether this kernel knows IPv6."""
    return Path("/proc/sys/net/ipv6").exists()


def set_sysctls(values: dict[str, str]) -> None:
    """Set these (paths below /proc/sys/net) in the network namespace of the calling thread. What this kernel does not
    have is left out: without IPv6 there is nothing to switch."""
    for path, value in values.items():
        with contextlib.suppress(OSError):
            Path("/proc/sys/net", path).write_text(value)


class Forwarding:
    """The kernel's switches for forwarding. When one was off, a record (shared by all clouds of the host, gone with a
    reboot as the setting itself) remembers that."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._record6 = record.with_name(f"{record.name}6")

    def switch_on(self) -> None:
        """Forward IPv4, and IPv6 where the kernel has it. OSError when IPv4 stays off."""
        if _FORWARD.read_text().strip() != "1":
            self._record.parent.mkdir(parents=True, exist_ok=True)
            self._record.write_text("0\n")
            _FORWARD.write_text("1\n")
        with contextlib.suppress(OSError):
            if _FORWARD6.read_text().strip() == "0":
                # A router listens to no other router's announcements, unless it is told to: hosts that have their
                # IPv6 address or route from one would lose it.
                listening = [path for path in _CONF6.glob("*/accept_ra") if path.read_text().strip() == "1"]
                self._record6.parent.mkdir(parents=True, exist_ok=True)
                self._record6.write_text("".join(f"{path.parent.name}\n" for path in listening))
                for path in listening:
                    path.write_text("2\n")
                _FORWARD6.write_text("1\n")

    def restore(self) -> None:
        """Switch forwarding off again if a cloud had switched it on. Call only when nobody else needs it."""
        if self._record.exists():
            _FORWARD.write_text("0\n")
            self._record.unlink(missing_ok=True)
        if self._record6.exists():
            with contextlib.suppress(OSError):
                _FORWARD6.write_text("0\n")
            for name in self._record6.read_text().split():
                with contextlib.suppress(OSError):
                    (_CONF6 / name / "accept_ra").write_text("1\n")
            self._record6.unlink(missing_ok=True)
