"""Bridges and veth pairs: how they are called, made, found again and removed.

Everything here blocks and belongs into a worker thread. What belongs to whom is written into the kernel's alias of
each interface, because names have only 15 characters.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import socket
import threading
import time
from pathlib import Path

import msgspec

from askos.adapters.bridge import rtnl
from askos.model.capsules import Network, Port
from askos.model.errors import RuntimeFailedError
from askos.plan.pools import mac_for, network

PREFIX = "ak"
"""First letters of the interfaces of every Askos cloud."""

_CLONE_NEWNET = 0x40000000
_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, b"\x01"
_UP_S = 3.0
_POLL_S = 0.0005
_log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)


class BridgeGoneError(Exception):
    """Someone else removed a bridge of ours: make it again."""


class Bridge(msgspec.Struct, frozen=True):
    """A bridge with what rules and names need to know of its network."""

    name: str
    network_uuid: str
    cidr: str
    gateway: str


class Owner(msgspec.Struct, frozen=True):
    """Whose an interface is, from its alias."""

    instance: str
    kind: str
    """"net" (uuid is the network's), "port" (uuid is the capsule's) or "ext" (it carries floating addresses)."""
    uuid: str
    container_id: str = ""

    def alias(self) -> str:
        """How it is written on the interface."""
        parts = ["askos", self.instance, self.kind, self.uuid]
        return ":".join([*parts, self.container_id] if self.container_id else parts)


class Plug(msgspec.Struct, frozen=True):
    """One veth to make: the host's end on `bridge`, the other end as `interface` in the sandbox."""

    bridge: Bridge
    host_name: str
    interface: str
    port: Port
    default_route: bool
    alias: str
    mtu: int


def owner(alias: str) -> Owner | None:
    """The owner written in an alias, or None when the interface is not of any Askos."""
    parts = alias.split(":")
    if len(parts) not in {4, 5} or parts[0] != "askos" or parts[2] not in {"net", "port", "ext"}:
        return None
    return Owner(parts[1], parts[2], parts[3], parts[4] if len(parts) == 5 else "")


def prefix(instance: str) -> str:
    """First letters of all interfaces of one cloud."""
    return f"{PREFIX}{instance[:4]}"


def bridge_name(instance: str, network_uuid: str) -> str:
    """The bridge's name: 15 characters."""
    return f"{prefix(instance)}b{network_uuid.replace('-', '')[:8]}"


def port_name(instance: str, port_uuid: str) -> str:
    """The name of the host's end of a port's veth: 15 characters."""
    return f"{prefix(instance)}p{port_uuid.replace('-', '')[:8]}"


def bridge_of(instance: str, wanted: Network) -> Bridge:
    """The bridge that stands for a network on this host."""
    return Bridge(bridge_name(instance, wanted.uuid), wanted.uuid, wanted.cidr, wanted.gateway)


def make_bridge(nl: rtnl.Netlink, instance: str, bridge: Bridge) -> None:
    """Make a bridge with its gateway address, up; one that exists is completed. RuntimeFailedError if impossible."""
    mine = Owner(instance, "net", bridge.network_uuid).alias()
    link = nl.link(bridge.name)
    if link is None:
        # The MAC is fixed, or the bridge would change it whenever a port comes or goes and neighbours lose it.
        body = rtnl.ifinfo() + rtnl.text(rtnl.IFLA_IFNAME, bridge.name)
        body += rtnl.mac(rtnl.IFLA_ADDRESS, mac_for(bridge.gateway))
        body += rtnl.attr(rtnl.IFLA_LINKINFO, rtnl.text(rtnl.INFO_KIND, "bridge"))
        nl.do((rtnl.NEWLINK, rtnl.CREATE | rtnl.EXCL, body))
        link = nl.link(bridge.name)
    elif link.alias not in {"", mine} or link.kind != "bridge":
        raise RuntimeFailedError(
            f"Cannot make the bridge {bridge.name} for network {bridge.network_uuid}: an interface of this name "
            f"exists and belongs to {link.alias or 'another program'}. Remove it or use another network."
        )
    if link is None:
        raise BridgeGoneError(bridge.name)
    _tune(bridge.name)
    nl.do(
        (rtnl.SETLINK, 0, rtnl.ifinfo(link.index) + rtnl.text(rtnl.IFLA_IFALIAS, mine)),
        rtnl.add_address(link.index, bridge.gateway, network(bridge.cidr).prefixlen),
        rtnl.set_up(link.index),
    )


def _tune(name: str) -> None:
    """Ports of a bridge are isolated from each other (`rtnl.isolate`), so that their packets pass the host's rules
    on layer 3: the bridge answers for its containers' addresses when another container asks who has them."""
    settings = {
        f"ipv4/conf/{name}/proxy_arp_pvlan": "1",
        f"ipv4/conf/{name}/send_redirects": "0",
        f"ipv4/neigh/{name}/proxy_delay": "0",
        # A kernel without IPv6 has nothing to switch off.
        f"ipv6/conf/{name}/disable_ipv6": "1",
    }
    for path, value in settings.items():
        with contextlib.suppress(OSError):
            Path("/proc/sys/net", path).write_text(value)


def isolate_all(nl: rtnl.Netlink, instance: str) -> None:
    """Bring bridges and ports that an older version made to what is made now."""
    for link, whose in _owned(nl, instance):
        if whose.kind == "net":
            _tune(link.name)
        elif whose.kind == "port" and link.master:
            nl.do(rtnl.isolate(link.index))


def _owned(nl: rtnl.Netlink, instance: str) -> list[tuple[rtnl.Link, Owner]]:
    found = ((link, owner(link.alias)) for link in nl.links())
    return [(link, whose) for link, whose in found if whose is not None and whose.instance == instance]


def floating_name(instance: str) -> str:
    """The interface that carries the floating addresses of this host's ports."""
    return f"{prefix(instance)}x"


def set_floating(nl: rtnl.Netlink, instance: str, addresses: set[str]) -> None:
    """These floating addresses are this host's, and no others."""
    name = floating_name(instance)
    link = nl.link(name)
    if link is None:
        if not addresses:
            return
        body = rtnl.ifinfo() + rtnl.text(rtnl.IFLA_IFNAME, name)
        body += rtnl.attr(rtnl.IFLA_LINKINFO, rtnl.text(rtnl.INFO_KIND, "bridge"))
        nl.do((rtnl.NEWLINK, rtnl.CREATE | rtnl.EXCL, body))
        link = nl.link(name)
        if link is None:
            raise RuntimeFailedError(f"Cannot make {name} for floating addresses: it vanished while it was made.")
        alias = Owner(instance, "ext", "floating").alias()
        nl.do((rtnl.SETLINK, 0, rtnl.ifinfo(link.index) + rtnl.text(rtnl.IFLA_IFALIAS, alias)), rtnl.set_up(link.index))
    elif not addresses:
        nl.delete(link.index)
        return
    has = {a.address for a in nl.addresses() if a.index == link.index}
    messages = [rtnl.add_address(link.index, address, 32) for address in sorted(addresses - has)]
    messages += [rtnl.remove_address(link.index, address, 32) for address in sorted(has - addresses)]
    if messages:
        nl.do(*messages)


def bridges(nl: rtnl.Netlink, instance: str) -> list[Bridge]:
    """The complete bridges of this cloud, read from the kernel alone."""
    addresses = {found.index: found for found in nl.addresses()}
    result = []
    for link in nl.links():
        whose = owner(link.alias)
        at = addresses.get(link.index)
        if whose is None or at is None or (whose.instance, whose.kind) != (instance, "net"):
            continue
        cidr = str(network(f"{at.address}/{at.prefixlen}"))
        result.append(Bridge(link.name, whose.uuid, cidr, at.address))
    return result


def plug(netns: str, plugs: list[Plug]) -> None:
    """Wire a sandbox: every veth, lo up, addresses, the default route.

    RuntimeFailedError when the namespace cannot be used, BridgeGoneError when a bridge is missing, NetlinkError for
    what the kernel refuses. What was made before a failure stays (the caller's journal knows it).
    """
    try:
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise RuntimeFailedError(f"Cannot wire the sandbox: its network namespace {netns}: {error.strerror}.") from None
    try:
        inside = rtnl.Netlink(_socket_in(fd, netns))
        with rtnl.Netlink() as nl, inside:
            for wanted in plugs:
                _make_pair(nl, fd, wanted)
            quiet = _quiet()
            messages = [rtnl.set_up(1)]  # lo is the first interface of every namespace
            for wanted in plugs:
                link = inside.link(wanted.interface)
                if link is None:
                    raise RuntimeFailedError(f"Cannot wire the sandbox: {wanted.interface} vanished from {netns}.")
                if quiet:
                    messages.append((rtnl.SETLINK, 0, rtnl.ifinfo(link.index) + quiet))
                bits = network(wanted.bridge.cidr).prefixlen
                messages += [rtnl.set_up(link.index), rtnl.add_address(link.index, wanted.port.address, bits)]
                if wanted.default_route:
                    messages.append(rtnl.add_default_route(link.index, wanted.bridge.gateway))
            inside.do(*messages)
            _await_up(nl, {name for wanted in plugs for name in (wanted.host_name, wanted.bridge.name)})
    finally:
        os.close(fd)


def inside(netns: str) -> dict[str, str]:
    """The interfaces of a namespace: MAC by name."""
    with _inside(netns) as nl:
        return {link.name: link.mac for link in nl.links()}


def lead_out(netns: str, interface: str, gateway: str) -> None:
    """The default route of a namespace goes through this interface."""
    with _inside(netns) as nl:
        link = nl.link(interface)
        if link is not None:
            nl.do(rtnl.add_default_route(link.index, gateway))


def _inside(netns: str) -> rtnl.Netlink:
    try:
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise RuntimeFailedError(f"Cannot look into the network namespace {netns}: {error.strerror}.") from None
    try:
        return rtnl.Netlink(_socket_in(fd, netns))
    finally:
        os.close(fd)


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


def _make_pair(nl: rtnl.Netlink, fd: int, wanted: Plug) -> None:
    bridge = nl.link(wanted.bridge.name)
    if bridge is None:
        raise BridgeGoneError(wanted.bridge.name)
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
    nl.do(
        (rtnl.SETLINK, 0, rtnl.ifinfo(link.index) + label + _quiet()),
        rtnl.set_up(link.index, rtnl.u32(rtnl.IFLA_MASTER, bridge.index)),
        rtnl.isolate(link.index),
    )


def _quiet() -> bytes:
    """No IPv6 link-local address: our networks are IPv4 only. Nothing where the kernel has no IPv6."""
    if not Path("/proc/sys/net/ipv6").exists():
        return b""
    mode = rtnl.attr(_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE)
    return rtnl.attr(rtnl.IFLA_AF_SPEC, rtnl.attr(socket.AF_INET6, mode))


def _same_cloud(one: str, other: str) -> bool:
    first, second = owner(one), owner(other)
    return first is not None and second is not None and first.instance == second.instance


def _socket_in(fd: int, netns: str) -> socket.socket:
    """A route socket inside another namespace.

    Made in a thread that enters the namespace and then ends: no fork (which live gRPC channels do not survive), and
    no thread that would have to find its way back.
    """
    if os.fstat(fd).st_ino == os.stat("/proc/self/ns/net").st_ino:
        raise RuntimeFailedError(f"Cannot wire the sandbox: {netns} is the host's own network namespace.")
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            if _libc.setns(fd, _CLONE_NEWNET) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            made.append(rtnl.route_socket())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=enter, name="askos-netns", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise RuntimeFailedError(f"Cannot enter the network namespace {netns}: {failed[0].strerror}.")
    return made[0]


def unplug(instance: str, container_id: str, names: list[str]) -> None:
    """Remove the host's ends (and with them the others) of one sandbox; what is gone or another's is left alone."""
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


def ports_of(nl: rtnl.Netlink, instance: str) -> list[tuple[rtnl.Link, Owner]]:
    """The host's ends of all veths of this cloud."""
    return [(link, whose) for link, whose in _owned(nl, instance) if whose.kind == "port"]


def remove_unsigned_bridges(nl: rtnl.Netlink, instance: str) -> None:
    """Remove bridges whose maker was killed before it could sign them. Only while nobody makes bridges."""
    for link in nl.links():
        if link.name.startswith(f"{prefix(instance)}b") and link.kind == "bridge" and not link.alias:
            remove_bridge(nl, link.name)


def remove_bridge(nl: rtnl.Netlink, name: str) -> bool:
    """Remove a bridge without ports; False when it has some."""
    link = nl.link(name)
    if link is None:
        return True
    if any(other.master == link.index for other in nl.links()):
        return False
    nl.delete(link.index)
    return True


def all_of(nl: rtnl.Netlink, instance: str) -> list[rtnl.Link]:
    """Every interface of this cloud, ports before bridges; with those that were never signed."""
    mine = []
    for link in nl.links():
        whose = owner(link.alias)
        unsigned = not link.alias and link.name.startswith(prefix(instance)) and link.kind in {"bridge", "veth"}
        if unsigned or (whose is not None and whose.instance == instance):
            mine.append(link)
    return sorted(mine, key=lambda link: link.kind == "bridge")


def is_bridge_of_others(link: rtnl.Link, instance: str) -> bool:
    """Whether another cloud or program bridges here, and so may need forwarding."""
    whose = owner(link.alias)
    return link.kind == "bridge" and (whose is None or whose.instance != instance)


def refused(error: OSError) -> str:
    """A kernel's refusal for people."""
    return f"{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)})"
