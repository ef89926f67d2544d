"""What a version without namespaces left: bridges and ports in the host's own namespace. They are taken over, so that
running containers lose their network for a moment only. Everything blocks."""

from __future__ import annotations

import logging

from askos.adapters.bridge import rtnl
from askos.adapters.bridge.links import BRIDGE, Bridge, fasten, owner, ports_here
from askos.adapters.bridge.spaces import Spaces, within

_log = logging.getLogger(__name__)


def find(nl: rtnl.Netlink, instance: str) -> list[Bridge]:
    """The networks whose bridges are on the host itself."""
    addresses = {found.index: found for found in nl.addresses()}
    result = []
    for link in nl.links():
        whose = owner(link.alias)
        if whose is None or (whose.instance, whose.kind) != (instance, "net") or link.index not in addresses:
            continue
        at = addresses[link.index]
        result.append(Bridge(whose.uuid, rtnl.cidr(at), at.address))
    return result


def move(nl: rtnl.Netlink, instance: str, spaces: Spaces, networks: list[Bridge]) -> None:
    """Move the ports of these into the namespaces that stand for them, and remove the bridges."""
    by_uuid = {}
    for link in nl.links():
        whose = owner(link.alias)
        if whose is not None and (whose.instance, whose.kind) == (instance, "net"):
            by_uuid[whose.uuid] = link
    for network in networks:
        bridge = by_uuid.get(network.network_uuid)
        if bridge is None:
            continue
        ports = [link for link, _ in ports_here(nl, instance) if link.master == bridge.index]
        with spaces.opened(network.network_uuid) as space, rtnl.Netlink(within(space, rtnl.route_socket)) as inside:
            target = inside.link(BRIDGE)
            for port in ports:
                nl.do((rtnl.SETLINK, 0, rtnl.ifinfo(port.index) + rtnl.u32(rtnl.IFLA_NET_NS_FD, space)))
                moved = inside.link(port.name)
                if target is not None and moved is not None:
                    fasten(inside, moved.index, target.index)
        nl.delete(bridge.index)
        _log.info("Moved network %s with %d ports into a namespace of its own.", network.network_uuid, len(ports))
