"""Interfaces of networks: how they are called, and the bridge inside a network's namespace.

Everything here blocks and belongs into a worker thread; what is said to work "here" works in the namespace of the
calling thread (see `spaces.within`). What belongs to whom is written into the kernel's alias of each interface, because
names have only 15 characters.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import msgspec

from askos.adapters.bridge import host, rtnl
from askos.model.capsules import Network
from askos.model.errors import RuntimeFailedError
from askos.plan.pools import mac_for, network

PREFIX = "ak"
"""First letters of the interfaces of every Askos cloud."""
BRIDGE = "br0"
"""The bridge inside a network's namespace."""
UPLINK = "up0"
"""What leads from there to the host."""
LINK_LOCAL = "fe80::1"
"""The bridge's own, from which it asks its neighbours for IPv6 addresses."""
_KINDS = {"net", "port", "ext", "up"}


class Bridge(msgspec.Struct, frozen=True):
    """What stands for a network, with what rules and names need to know of it. `cidr6` and `gateway6` are empty without
    IPv6."""

    network_uuid: str
    cidr: str
    gateway: str
    cidr6: str = ""
    gateway6: str = ""


class Owner(msgspec.Struct, frozen=True):
    """Whose an interface is, from its alias."""

    instance: str
    kind: str
    """"net" and "up" (bridge and uplink: uuid is the network's), "port" (uuid is the capsule's) or "ext" (it carries
    floating addresses)."""
    uuid: str
    container_id: str = ""

    def alias(self) -> str:
        """How it is written on the interface."""
        parts = ["askos", self.instance, self.kind, self.uuid]
        return ":".join([*parts, self.container_id] if self.container_id else parts)


def owner(alias: str) -> Owner | None:
    """The owner written in an alias, or None when the interface is not of any Askos."""
    parts = alias.split(":")
    if len(parts) not in {4, 5} or parts[0] != "askos" or parts[2] not in _KINDS:
        return None
    return Owner(parts[1], parts[2], parts[3], parts[4] if len(parts) == 5 else "")


def prefix(instance: str) -> str:
    """First letters of all interfaces of one cloud on the host."""
    return f"{PREFIX}{instance[:4]}"


def port_name(instance: str, port_uuid: str) -> str:
    """The name of the network's end of a port's veth: 15 characters."""
    return f"{prefix(instance)}p{port_uuid.replace('-', '')[:8]}"


def uplink_name(instance: str, network_uuid: str) -> str:
    """The name of the host's end of a network's uplink: 15 characters."""
    return f"{prefix(instance)}u{network_uuid.replace('-', '')[:8]}"


def uplinks(instance: str) -> str:
    """A pattern for nftables that fits the uplinks of one cloud."""
    return f"{prefix(instance)}u*"


def floating_name(instance: str) -> str:
    """The interface that carries the floating addresses of this host's ports."""
    return f"{prefix(instance)}x"


def bridge_of(wanted: Network) -> Bridge:
    """What is to stand for a network on this host."""
    if not wanted.cidr6:
        return Bridge(wanted.uuid, wanted.cidr, wanted.gateway)
    # As the kernel shows them: the same address can be written in several ways.
    six = str(ip_network(wanted.cidr6, strict=False)), str(ip_address(wanted.gateway6))
    return Bridge(wanted.uuid, wanted.cidr, wanted.gateway, *six)


def make_bridge(instance: str, bridge: Bridge) -> None:
    """Make the bridge here, with its addresses, up; one that exists is brought to what is wanted."""
    # First: the switch sets others back.
    host.set_sysctls({"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/conf/all/send_redirects": "0"})
    with rtnl.Netlink() as nl:
        nl.do(rtnl.set_up(1))
        link = nl.link(BRIDGE)
        if link is None:
            # The MAC is fixed, or the bridge would change it whenever a port comes or goes and neighbours lose it.
            body = rtnl.ifinfo() + rtnl.text(rtnl.IFLA_IFNAME, BRIDGE)
            body += rtnl.mac(rtnl.IFLA_ADDRESS, mac_for(bridge.gateway))
            body += rtnl.attr(rtnl.IFLA_LINKINFO, rtnl.text(rtnl.INFO_KIND, "bridge"))
            nl.do((rtnl.NEWLINK, rtnl.CREATE | rtnl.EXCL, body))
            link = nl.link(BRIDGE)
        if link is None:
            raise RuntimeFailedError(f"Cannot make the bridge of network {bridge.network_uuid}: it vanished again.")
        _tune(with_ipv6=bool(bridge.cidr6))
        address6 = [] if not (bridge.cidr6 and host.has_ipv6()) else [(bridge.gateway6, _bits(bridge.cidr6))]
        if address6:
            address6.append((LINK_LOCAL, 64))
        wanted = {(bridge.gateway, _bits(bridge.cidr)), *address6}
        has = {
            (a.address, a.prefixlen) for version in _versions() for a in nl.addresses(version) if a.index == link.index
        }
        messages = [rtnl.remove_address(link.index, *one) for one in sorted(has - wanted)]
        messages += [rtnl.add_address(link.index, *one) for one in sorted(wanted - has)]
        alias = Owner(instance, "net", bridge.network_uuid).alias()
        messages.append((rtnl.SETLINK, 0, rtnl.ifinfo(link.index) + rtnl.text(rtnl.IFLA_IFALIAS, alias)))
        nl.do(*messages, rtnl.set_up(link.index))


def _bits(cidr: str) -> int:
    return int(cidr.partition("/")[2])


def _versions() -> tuple[int, ...]:
    return (4, 6) if host.has_ipv6() else (4,)


def _tune(*, with_ipv6: bool) -> None:
    """Ports of a bridge are isolated from each other (`rtnl.isolate`), so that their packets pass the rules on layer 3:
    the bridge answers for its containers' addresses when another container asks who has them."""
    host.set_sysctls(
        {
            # Where the kernel hands bridged frames to the rules of layer 3 (br_netfilter) they would pass them twice,
            # and what a rule sends on to another port would be bridged there, which isolation drops.
            **{f"bridge/bridge-nf-call-{what}tables": "0" for what in ("ip", "ip6", "arp")},
            f"ipv4/conf/{BRIDGE}/proxy_arp_pvlan": "1",
            f"ipv4/conf/{BRIDGE}/send_redirects": "0",
            f"ipv4/neigh/{BRIDGE}/proxy_delay": "0",
            f"ipv6/conf/{BRIDGE}/disable_ipv6": "0" if with_ipv6 else "1",
            f"ipv6/conf/{BRIDGE}/addr_gen_mode": "1",
            f"ipv6/conf/{BRIDGE}/accept_dad": "0",
            f"ipv6/conf/{BRIDGE}/accept_ra": "0",
        }
    )


def bridge_here(instance: str, network_uuid: str) -> Bridge | None:
    """The bridge of this namespace as the kernel shows it; None when it is not complete."""
    with rtnl.Netlink() as nl:
        link = nl.link(BRIDGE)
        if link is None or link.alias != Owner(instance, "net", network_uuid).alias():
            return None
        found = {}
        for version in _versions():
            for at in nl.addresses(version):
                if at.index == link.index and at.address != LINK_LOCAL:
                    found[version] = at
        if 4 not in found:
            return None
        cidrs = {version: rtnl.cidr(at) for version, at in found.items()}
        six = found[6].address if 6 in found else ""
        return Bridge(network_uuid, cidrs[4], found[4].address, cidrs.get(6, ""), six)


def fasten_ports(instance: str) -> None:
    """Ports of this namespace that hang in the air (their maker was killed, or they were just moved here) become ports
    of the bridge."""
    with rtnl.Netlink() as nl:
        bridge = nl.link(BRIDGE)
        for link, _ in ports_here(nl, instance):
            if bridge is not None and link.master != bridge.index:
                fasten(nl, link.index, bridge.index)


def fasten(nl: rtnl.Netlink, index: int, bridge: int, *attrs: bytes) -> None:
    """Make an interface a port of a bridge, isolated, up."""
    nl.do(rtnl.set_up(index, rtnl.u32(rtnl.IFLA_MASTER, bridge), *attrs), rtnl.isolate(index))


def ports_here(nl: rtnl.Netlink, instance: str) -> list[tuple[rtnl.Link, Owner]]:
    """The ends of all ports' veths of this cloud in the namespace of this socket."""
    found = ((link, owner(link.alias)) for link in nl.links())
    return [
        (link, whose)
        for link, whose in found
        if whose is not None and whose.instance == instance and whose.kind == "port"
    ]


def empty_here() -> None:
    """Remove every interface of this namespace but lo: a mount of it that was copied elsewhere (by a service with
    mounts of its own) may keep it alive, but nothing in it."""
    with rtnl.Netlink() as nl:
        for link in sorted(nl.links(), key=lambda link: link.kind == "bridge"):
            if link.kind in {"bridge", "veth"}:
                nl.delete(link.index)


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


def all_of(nl: rtnl.Netlink, instance: str) -> list[rtnl.Link]:
    """Every interface of this cloud in the host's namespace, with those that were never signed; bridges last."""
    mine = []
    for link in nl.links():
        whose = owner(link.alias)
        unsigned = not link.alias and link.name.startswith(prefix(instance)) and link.kind in {"bridge", "veth"}
        if unsigned or (whose is not None and whose.instance == instance):
            mine.append(link)
    return sorted(mine, key=lambda link: link.kind == "bridge")


def is_of_others(link: rtnl.Link, instance: str) -> bool:
    """Whether another cloud or program bridges here, and so may need forwarding."""
    whose = owner(link.alias)
    return link.kind == "bridge" and (whose is None or whose.instance != instance)


def network_bits(cidr: str) -> int:
    """The prefix length of an IPv4 network."""
    return network(cidr).prefixlen
