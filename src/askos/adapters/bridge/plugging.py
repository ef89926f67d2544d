"""Plugging sandboxes into networks: a veth from the network's namespace into the sandbox's. Everything blocks."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from askos.adapters.bridge import host, rtnl
from askos.adapters.bridge.links import BRIDGE, Bridge, fasten, network_bits, owner
from askos.adapters.bridge.spaces import SpaceGoneError, Spaces, in_each, is_own, within
from askos.model.capsules import Port
from askos.model.errors import RuntimeFailedError

_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, b"\x01"
_METRIC = 1024
_UP_S = 3.0
_POLL_S = 0.0005
_log = logging.getLogger(__name__)


class Plug(msgspec.Struct, frozen=True):
    """One veth to make: the network's end on its bridge, the other end as `interface` in the sandbox."""

    bridge: Bridge
    host_name: str
    interface: str
    port: Port
    default_route: bool
    default_route6: bool
    alias: str
    mtu: int


def plug(spaces: Spaces, netns: str, plugs: list[Plug]) -> None:
    """Wire a sandbox: every veth, lo up, addresses, the default routes.

    RuntimeFailedError when the sandbox's namespace cannot be used, SpaceGoneError when that of a network or its bridge
    is missing, NetlinkError for what the kernel refuses. What was made before a failure stays (the caller's journal
    knows it).
    """
    with ExitStack() as stack:
        fd = stack.enter_context(_opened(netns))
        uuids = sorted({wanted.bridge.network_uuid for wanted in plugs})
        fds = [spaces.open(uuid) for uuid in uuids]
        for one in fds:
            stack.callback(os.close, one)
        try:
            sockets = in_each([*fds, fd], rtnl.route_socket)
        except OSError as error:
            raise RuntimeFailedError(f"Cannot enter the network namespace {netns}: {error.strerror}.") from None
        *of_networks, inside = (stack.enter_context(rtnl.Netlink(made)) for made in sockets)
        by_network = dict(zip(uuids, of_networks, strict=True))
        for wanted in plugs:
            stale = inside.link(wanted.interface)
            if stale is not None and stale.kind == "veth":
                # Its other end is in a namespace that was taken away and lives on for a while.
                inside.delete(stale.index)
            _make_pair(by_network[wanted.bridge.network_uuid], fd, wanted)
        messages = [rtnl.set_up(1)]  # lo is the first interface of every namespace
        for wanted in plugs:
            link = inside.link(wanted.interface)
            if link is None:
                raise RuntimeFailedError(f"Cannot wire the sandbox: {wanted.interface} vanished from {netns}.")
            messages += _inside(link.index, wanted)
        inside.do(*messages)
        for uuid, nl in by_network.items():
            _await_up(nl, {BRIDGE, *(p.host_name for p in plugs if p.bridge.network_uuid == uuid)})


def _inside(index: int, wanted: Plug) -> Iterator[rtnl.Message]:
    """What makes the sandbox's end of a veth what it has to be."""
    bridge, port = wanted.bridge, wanted.port
    if quiet := _quiet():
        yield rtnl.SETLINK, 0, rtnl.ifinfo(index) + quiet
    yield rtnl.set_up(index)
    yield rtnl.add_address(index, port.address, network_bits(bridge.cidr))
    if wanted.default_route:
        yield rtnl.add_route(index, "0.0.0.0/0", bridge.gateway)
    if port.address6 and bridge.gateway6 and quiet:
        # On the link is the gateway alone: nobody else would answer there, as ports are isolated.
        yield rtnl.add_address(index, port.address6, 128)
        # With a metric of its own: another network of the sandbox may have the same range, and must not replace it.
        yield rtnl.add_route(index, f"{bridge.gateway6}/128", metric=_METRIC + index)
        yield rtnl.add_route(index, bridge.cidr6, bridge.gateway6, metric=_METRIC + index)
        if wanted.default_route6:
            yield rtnl.add_route(index, "::/0", bridge.gateway6)


def present(spaces: Spaces, netns: str, plugs: list[Plug]) -> tuple[set[str], dict[str, str]]:
    """The names of all interfaces of a sandbox, and of those that these plugs have there, by the network's end.

    A MAC does not tell whose one is: networks with the same range may have given the same address, and so the same MAC.
    """
    with _inside_of(netns) as nl:
        inside = {link.index: link for link in nl.links()}
    found = {}
    for wanted in plugs:
        try:
            with spaces.opened(wanted.bridge.network_uuid) as fd, rtnl.Netlink(within(fd, rtnl.route_socket)) as nl:
                outer = nl.link(wanted.host_name)
        except SpaceGoneError:
            continue
        inner = inside.get(outer.peer) if outer is not None else None
        # The other end of one that is left over from an earlier sandbox may have the same index.
        if inner is not None and inner.mac == wanted.port.mac:
            found[wanted.host_name] = inner.name
    return {link.name for link in inside.values()}, found


def lead_out(netns: str, wanted: Plug, interface: str) -> None:
    """The default routes of a sandbox go through this interface."""
    with _inside_of(netns) as nl:
        link = nl.link(interface)
        if link is None:
            return
        if wanted.default_route:
            nl.do(rtnl.add_route(link.index, "0.0.0.0/0", wanted.bridge.gateway))
        if wanted.default_route6 and wanted.port.address6 and wanted.bridge.gateway6 and host.has_ipv6():
            nl.do(rtnl.add_route(link.index, "::/0", wanted.bridge.gateway6))


@contextmanager
def _inside_of(netns: str) -> Iterator[rtnl.Netlink]:
    with _opened(netns) as fd, rtnl.Netlink(within(fd, rtnl.route_socket)) as nl:
        yield nl


@contextmanager
def _opened(netns: str) -> Iterator[int]:
    """A descriptor of a sandbox's namespace."""
    try:
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise RuntimeFailedError(f"Cannot wire the sandbox: its network namespace {netns}: {error.strerror}.") from None
    try:
        if is_own(fd):
            raise RuntimeFailedError(f"Cannot wire the sandbox: {netns} is the host's own network namespace.")
        yield fd
    finally:
        os.close(fd)


def _make_pair(nl: rtnl.Netlink, fd: int, wanted: Plug) -> None:
    bridge = nl.link(BRIDGE)
    if bridge is None:
        raise SpaceGoneError(wanted.bridge.network_uuid)
    stale = nl.link(wanted.host_name)
    if stale is not None:
        # A port is in one sandbox only: this is left over from an earlier one whose removal has not come yet.
        if stale.alias and not _same_cloud(stale.alias, wanted.alias):
            raise RuntimeFailedError(f"Cannot make {wanted.host_name}: the name is in use by {stale.alias}.")
        nl.delete(stale.index)
    mtu = rtnl.u32(rtnl.IFLA_MTU, wanted.mtu)
    peer = rtnl.ifinfo() + rtnl.text(rtnl.IFLA_IFNAME, wanted.interface) + mtu
    peer += rtnl.mac(rtnl.IFLA_ADDRESS, wanted.port.mac) + rtnl.u32(rtnl.IFLA_NET_NS_FD, fd)
    pair = rtnl.text(rtnl.INFO_KIND, "veth") + rtnl.attr(rtnl.INFO_DATA, rtnl.attr(rtnl.VETH_PEER, peer))
    body = rtnl.ifinfo() + rtnl.text(rtnl.IFLA_IFNAME, wanted.host_name) + mtu + rtnl.attr(rtnl.IFLA_LINKINFO, pair)
    nl.do((rtnl.NEWLINK, rtnl.CREATE | rtnl.EXCL, body))
    link = nl.link(wanted.host_name)
    if link is None:
        raise RuntimeFailedError(f"Cannot wire the sandbox: {wanted.host_name} vanished while it was made.")
    label = rtnl.text(rtnl.IFLA_IFALIAS, wanted.alias)
    nl.do((rtnl.SETLINK, 0, rtnl.ifinfo(link.index) + label + _quiet()))
    fasten(nl, link.index, bridge.index)


def _quiet() -> bytes:
    """No IPv6 link-local address: who has IPv6 has the address that was given. Nothing where the kernel has no IPv6."""
    if not host.has_ipv6():
        return b""
    mode = rtnl.attr(_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE)
    return rtnl.attr(rtnl.IFLA_AF_SPEC, rtnl.attr(socket.AF_INET6, mode))


def _await_up(nl: rtnl.Netlink, names: set[str]) -> None:
    """Wait until these interfaces pass packets.

    The kernel carries a link's state on in a worker of its own: first to the bridge's port, then to the bridge.
    Until then packets are dropped, and on a busy host a container's first ones would be.
    """
    deadline = time.monotonic() + _UP_S
    while names:
        found = {name: nl.link(name) for name in names}
        names = {name for name, link in found.items() if link is not None and link.state != rtnl.OPER_UP}
        if names and time.monotonic() > deadline:
            _log.warning("%s did not come up within %g s; going on.", ", ".join(sorted(names)), _UP_S)
            return
        if names:
            time.sleep(_POLL_S)


def _same_cloud(one: str, other: str) -> bool:
    first, second = owner(one), owner(other)
    return first is not None and second is not None and first.instance == second.instance


def unplug(instance: str, container_id: str, names: list[str]) -> None:
    """Remove the ends of a sandbox's veths (and with them the others) from the namespace of the calling thread; what is
    gone or another's is left alone."""
    with rtnl.Netlink() as nl:
        for name in names:
            link = nl.link(name)
            if link is None:
                continue
            whose = owner(link.alias)
            # Without alias: made, but its maker was killed before it could sign. The journal says that it is ours.
            if link.alias and (whose is None or (whose.instance, whose.container_id) != (instance, container_id)):
                continue
            nl.delete(link.index)
