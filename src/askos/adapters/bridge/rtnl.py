"""The few rtnetlink messages that a bridge network needs, on a plain socket.

Written out instead of taken from pyroute2: the library costs an agent 14 MiB and 170 ms at start and about 1 ms of
Python for each message; this is 0.1 ms. The calls block (the kernel answers inside `send`), so they belong into a
worker thread.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from types import TracebackType

import msgspec

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
CREATE, EXCL, REPLACE = 0x400, 0x200, 0x100
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_ACK_TLVS = 0x200

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_NET_NS_FD, IFLA_EXT_MASK = 20, 26, 28, 29
INFO_KIND, INFO_DATA, VETH_PEER = 1, 2, 1
IFLA_OPERSTATE = 16
IFF_UP = 1
OPER_UP = 6

_AF_BRIDGE = 7
_NESTED = 0x8000
_PROTINFO, _BRPORT_ISOLATED = 12, 33

_NODAD = 0x02
_MAIN, _STATIC, _UNICAST, _SCOPE_LINK = 254, 4, 1, 253

_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTR = struct.Struct("=HH")

Message = tuple[int, int, bytes]
"""Type, extra flags, body."""


class NetlinkError(OSError):
    """The kernel refused; `strerror` carries its own words when it gave some."""


class Link(msgspec.Struct, frozen=True):
    """An interface as the kernel shows it. `master`: index of the bridge it is a port of, or 0. `peer`: index of the
    other end of a veth, in whichever namespace that is."""

    index: int
    name: str
    flags: int
    mac: str = ""
    alias: str = ""
    kind: str = ""
    master: int = 0
    peer: int = 0
    mtu: int = 0
    state: int = 0
    """RFC 2863's operational state, `OPER_UP` when packets pass."""


class Address(msgspec.Struct, frozen=True):
    """An address on an interface."""

    index: int
    address: str
    prefixlen: int


def cidr(at: Address) -> str:
    """The network that an address is in."""
    return str(ip_network(f"{at.address}/{at.prefixlen}", strict=False))


def attr(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTR.pack(len(payload) + 4, kind) + payload + b"\0" * (-len(payload) % 4)


def text(kind: int, value: str) -> bytes:
    """A zero-terminated string attribute."""
    return attr(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """A 32 bit attribute."""
    return attr(kind, struct.pack("=I", value))


def mac(kind: int, value: str) -> bytes:
    """A link-layer address attribute from "aa:bb:..."."""
    return attr(kind, bytes.fromhex(value.replace(":", "")))


def ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """The fixed head of a link message."""
    return _IFINFO.pack(0, 0, index, flags, change)


def set_up(index: int, *attrs: bytes) -> Message:
    """Bring a link up; attributes are set first."""
    return SETLINK, 0, ifinfo(index, IFF_UP, IFF_UP) + b"".join(attrs)


def add_address(index: int, address: str, prefixlen: int) -> Message:
    """Put an address with its connected route on a link; one that is there already is fine. An IPv6 one is used at
    once: who gives addresses away gives each once."""
    at = ip_address(address)
    if at.version == 6:
        body = _IFADDR.pack(socket.AF_INET6, prefixlen, _NODAD, 0, index) + attr(1, at.packed) + attr(2, at.packed)
        return NEWADDR, CREATE | REPLACE, body
    body = _IFADDR.pack(socket.AF_INET, prefixlen, 0, 0, index) + attr(1, at.packed) + attr(2, at.packed)
    if prefixlen < 31:
        wide = int(at) | (0xFFFFFFFF >> prefixlen)
        body += attr(4, struct.pack(">I", wide))
    return NEWADDR, CREATE | REPLACE, body


def remove_address(index: int, address: str, prefixlen: int) -> Message:
    """Take an address from a link."""
    at = ip_address(address)
    family = socket.AF_INET6 if at.version == 6 else socket.AF_INET
    return DELADDR, 0, _IFADDR.pack(family, prefixlen, 0, 0, index) + attr(1, at.packed) + attr(2, at.packed)


def isolate(index: int) -> Message:
    """A bridge's port that reaches the bridge itself alone, and no other isolated port."""
    head = _IFINFO.pack(_AF_BRIDGE, 0, index, 0, 0)
    return SETLINK, 0, head + attr(_PROTINFO | _NESTED, attr(_BRPORT_ISOLATED, b"\x01"))


def add_route(index: int, to: str, gateway: str = "", metric: int = 0) -> Message:
    """A route to a CIDR (0.0.0.0/0 and ::/0: to everywhere) through a gateway on a link, or, without one, on the link
    itself. It replaces the one with the same metric (0: the usual one), whatever link that is on."""
    body = _route_body(index, to, gateway)
    return NEWROUTE, CREATE | REPLACE, body + u32(6, metric) if metric else body


def remove_route(index: int, to: str) -> Message:
    """Take a route away."""
    return DELROUTE, 0, _route_body(index, to, "")


def _route_body(index: int, to: str, gateway: str) -> bytes:
    net = ip_network(to)
    family = socket.AF_INET6 if net.version == 6 else socket.AF_INET
    scope = _SCOPE_LINK if not gateway and net.version == 4 else 0
    body = _ROUTE.pack(family, net.prefixlen, 0, 0, _MAIN, _STATIC, scope, _UNICAST, 0) + u32(4, index)
    if net.prefixlen:
        body += attr(1, net.network_address.packed)
    return body + attr(5, ip_address(gateway).packed) if gateway else body


class Route(msgspec.Struct, frozen=True):
    """A route as the kernel shows it. `to`: a CIDR. `main`: of the main table, and leading somewhere."""

    to: str
    index: int
    main: bool


class Netlink:
    """A route socket of the network namespace in which it was opened. Not for several threads at once."""

    def __init__(self, sock: socket.socket | None = None) -> None:
        self._sock = sock or route_socket()
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        self._sock.close()

    def do(self, *messages: Message) -> None:
        """Send all at once, in order; the first refusal is raised after every answer has come."""
        out = []
        for kind, flags, body in messages:
            self._sequence += 1
            out.append(_HEADER.pack(16 + len(body), kind, _REQUEST | _ACK | flags, self._sequence, 0) + body)
        self._sock.send(b"".join(out))
        failure: NetlinkError | None = None
        waiting = len(out)
        while waiting:
            for kind, flags, _, body in _messages(self._sock.recv(65536)):
                if kind == _ERROR:
                    waiting -= 1
                    failure = failure or _failure(flags, body)
        if failure is not None:
            raise failure

    def _get(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        self._sock.send(_HEADER.pack(16 + len(body), kind, _REQUEST | flags, self._sequence, 0) + body)
        while True:
            for answer, answer_flags, sequence, payload in _messages(self._sock.recv(262144)):
                if sequence != self._sequence or answer == _DONE:
                    if answer == _DONE:
                        return
                    continue
                if answer == _ERROR:
                    failure = _failure(answer_flags, payload)
                    if failure is not None:
                        raise failure
                    return
                yield payload
                if not flags & _DUMP:
                    return

    def link(self, name: str) -> Link | None:
        """The interface with this name, or None."""
        try:
            for body in self._get(GETLINK, 0, ifinfo() + text(IFLA_IFNAME, name)):
                return _link(body)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
        return None

    def links(self) -> list[Link]:
        """All interfaces. The extended mask leaves out statistics, most of a dump's bytes."""
        return [_link(body) for body in self._get(GETLINK, _DUMP, ifinfo() + u32(IFLA_EXT_MASK, 8))]

    def addresses(self, version: int = 4) -> list[Address]:
        """All addresses of an IP version."""
        wanted = socket.AF_INET6 if version == 6 else socket.AF_INET
        found = []
        for body in self._get(GETADDR, _DUMP, _IFADDR.pack(wanted, 0, 0, 0, 0)):
            family, prefixlen, _, _, index = _IFADDR.unpack_from(body)
            attrs = dict(_attrs(body, _IFADDR.size))
            packed = attrs.get(2, attrs.get(1))
            if family == wanted and packed is not None:
                found.append(Address(index, str(ip_address(packed)), prefixlen))
        return found

    def routes(self, version: int = 4) -> list[Route]:
        """All routes of an IP version, of all tables (so with every address of the host itself)."""
        wanted = socket.AF_INET6 if version == 6 else socket.AF_INET
        empty = bytes(16 if version == 6 else 4)
        found = []
        for body in self._get(GETROUTE, _DUMP, _ROUTE.pack(wanted, 0, 0, 0, 0, 0, 0, 0, 0)):
            family, bits, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
            if family != wanted:
                continue
            attrs = dict(_attrs(body, _ROUTE.size))
            to = f"{ip_address(attrs.get(1, empty))}/{bits}"
            index = int.from_bytes(attrs.get(4, b""), sys.byteorder)
            found.append(Route(to, index, table == _MAIN and kind == _UNICAST))
        return found

    def delete(self, index: int) -> None:
        """Remove an interface; one that is gone is fine."""
        try:
            self.do((DELLINK, 0, ifinfo(index)))
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise


def route_socket() -> socket.socket:
    """A route socket bound to the calling thread's network namespace."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    sock.bind((0, 0))
    for option in (_CAP_ACK, _EXT_ACK):
        sock.setsockopt(_SOL_NETLINK, option, 1)
    # The kernel answers at once; a timeout only keeps a worker from hanging for ever should an answer be lost.
    sock.settimeout(10)
    return sock


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _attrs(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + 4 <= len(data):
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _failure(flags: int, body: bytes) -> NetlinkError | None:
    code = -struct.unpack_from("=i", body)[0]
    if code == 0:
        return None
    words = os.strerror(code)
    if flags & _ACK_TLVS:
        said = dict(_attrs(body, 20)).get(1)
        if said:
            words = f"{words} ({said.rstrip(bytes(1)).decode(errors='replace')})"
    return NetlinkError(code, words)


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    attrs = dict(_attrs(body, _IFINFO.size))
    info = dict(_attrs(attrs.get(IFLA_LINKINFO, b""), 0))

    def string(value: bytes) -> str:
        return value.rstrip(b"\0").decode(errors="replace")

    return Link(
        index=index,
        name=string(attrs.get(IFLA_IFNAME, b"")),
        flags=flags,
        mac=attrs.get(IFLA_ADDRESS, b"").hex(":"),
        alias=string(attrs.get(IFLA_IFALIAS, b"")),
        kind=string(info.get(INFO_KIND, b"")),
        master=int.from_bytes(attrs.get(IFLA_MASTER, b""), sys.byteorder),
        peer=int.from_bytes(attrs.get(IFLA_LINK, b""), sys.byteorder),
        mtu=int.from_bytes(attrs.get(IFLA_MTU, b""), sys.byteorder),
        state=int.from_bytes(attrs.get(IFLA_OPERSTATE, b""), sys.byteorder),
    )
