"""The embedded host network: what `ports/network.py` promises, with bridges of this host's kernel.

One network namespace with one bridge per network, and one veth per port; a veth leads from each namespace to the host.
Containers reach their own network, the outside (masqueraded), their gateway's name service, and nothing else: no other
network, nothing on the host. Networks may overlap.

For operators: forwarding is switched on when the first network is made. Where the host's own firewall drops
forwarded packets (docker, ufw, firewalld), let interfaces named "ak*" through, for example
`iptables -I DOCKER-USER -i ak+ -j ACCEPT` and `iptables -I DOCKER-USER -o ak+ -j ACCEPT`; the agent logs one line
when it sees such a policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from askos.adapters.bridge import cni, host, links, plugging, plugin, rtnl, rules
from askos.adapters.bridge.fabric import Fabric
from askos.adapters.bridge.forward import Forwarder
from askos.adapters.bridge.inside import Sockets
from askos.adapters.bridge.journal import Entry, Journal
from askos.adapters.bridge.links import Owner
from askos.adapters.bridge.nameserver import NameServices
from askos.adapters.bridge.plugging import Plug
from askos.adapters.bridge.spaces import SpaceGoneError, Spaces
from askos.adapters.bridge.transit import DEFAULT, Ranges, Transit
from askos.adapters.bridge.workers import Workers
from askos.model.capsules import Network
from askos.model.errors import NotFoundError, RuntimeFailedError, SetupError
from askos.model.networks import NetworkState
from askos.ports.network import Attachment, AttachmentLookup, Names

_log = logging.getLogger(__name__)
_LOOKUP_S = 20
PREPARED = "prepared-"
"""How the K8S_POD_UID of a sandbox begins that is made before its capsule is known."""


class BridgeNetwork:
    """`HostNetwork` on Linux bridges.

    `instance`: six hex digits that mark everything of this cloud. `state_root`: the journal's folder, ours alone.
    `plugin_root` and `conf_root`: containerd's CNI bin and conf folders. `upstream`: addresses of resolvers, by
    default those of /etc/resolv.conf as it is when a question comes. `grace_s`: how long a sandbox may be unknown to
    `collect`'s caller, because the runtime does not show one while it is being made. `forward_record`: where the
    clouds of this host remember that they switched forwarding on. `transit_cidr`: out of which range addresses between
    the host and its networks' namespaces come.
    """

    def __init__(
        self,
        instance: str,
        state_root: Path,
        socket_path: Path,
        plugin_root: Path,
        conf_root: Path,
        *,
        upstream: list[str] | None = None,
        grace_s: float = 180,
        forward_record: Path = Path("/run/askos/ip_forward"),
        transit_cidr: str = DEFAULT,
    ) -> None:
        if re.fullmatch(r"[0-9a-f]{6}", instance) is None:
            raise SetupError(f"The instance id {instance!r} is not six hex digits; it comes from the data folder.")
        self._instance = instance
        self._state_root = state_root
        self._socket_path = socket_path
        self._plugin_root = plugin_root
        self._conf_root = conf_root
        self._grace_s = grace_s
        self._journal = Journal(state_root)
        self._workers = Workers()
        self._spaces = Spaces(state_root / f"namespaces-{instance}")
        forwarder = Forwarder(lambda: upstream if upstream is not None else host.resolvers())
        self._names = NameServices(forwarder, self._spaces, self._workers)
        self._sockets = Sockets(self._journal)
        self._fabric = Fabric(
            instance,
            spaces=self._spaces,
            transit=Transit(instance, Ranges(transit_cidr), forward_record.with_name("transit.lock")),
            names=self._names,
            workers=self._workers,
            forward=host.Forwarding(forward_record),
            state_file=state_root / "security-groups",
        )
        self._server: cni.Server | None = None
        self._lookup: AttachmentLookup | None = None
        self._busy: dict[str, tuple[asyncio.Lock, int]] = {}
        """Locks of the sandboxes with calls under way, with the number of those calls."""

    # -- the port ---------------------------------------------------------------------------------------------

    async def start(self, lookup: AttachmentLookup) -> None:
        """Begin to answer calls of the CNI plugin; adopt what exists. SetupError says what is missing."""
        self._lookup = lookup
        try:
            self._state_root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SetupError(f"Cannot make the folder {self._state_root}: {error.strerror}.") from None
        self._journal.tidy()
        await self._fabric.adopt()
        blocker = await self._workers.run(lambda _: rules.forward_dropped_by())
        if blocker is not None:
            _log.warning(
                "Containers may not reach the outside: the chain %s drops forwarded packets by policy. "
                'Let interfaces named "ak*" through it, in both directions.',
                blocker,
            )
        plugin.install(self._plugin_root, self._conf_root, self._instance, self._socket_path)
        server = cni.Server(self._socket_path, self._handle)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Stop answering. Interfaces and rules stay: running capsules keep their network."""
        if self._server is not None:
            await self._server.stop()
            self._server = None
        await self._fabric.release()
        self._workers.close()
        self._sockets.close()

    async def attach(self, sandbox_id: str, netns: str, attachment: Attachment) -> None:
        """Plug a prepared sandbox into its capsule's networks."""
        _whole(attachment)
        call = cni.Call("ADD", sandbox_id, netns, "eth0", attachment.capsule_uuid, "")
        # Once begun it is finished, even when nobody waits any more: the threads cannot be called back.
        await asyncio.shield(self._plugged(call, attachment))

    async def sync(self, sandbox_id: str, attachment: Attachment) -> None:
        """Plug and unplug interfaces of a wired sandbox until they are those of the attachment."""
        await asyncio.shield(self._synced(sandbox_id, attachment))

    async def _synced(self, sandbox_id: str, attachment: Attachment) -> None:
        with self._fabric.needing([network.uuid for network in attachment.networks]):
            async with self._alone(sandbox_id):
                entry = self._journal.read(sandbox_id)
                if entry is None or not entry.made_us:
                    raise NotFoundError(f"The sandbox {sandbox_id} is not wired on this host.")
                await self._change(entry, attachment)

    async def _change(self, entry: Entry, attachment: Attachment) -> None:
        call = cni.Call("ADD", entry.container_id, entry.netns, "eth0", attachment.capsule_uuid, "")
        wanted = self._plugs(call, attachment)
        names = [plug.host_name for plug in wanted]
        surplus = [name for name in entry.links if name not in names]
        # As long as it is under way the journal knows of both: whatever happens, all of it is found again.
        both = [*names, *surplus]
        uuids = sorted({*entry.networks, *(network.uuid for network in attachment.networks)})
        self._journal.write(entry.container_id, attachment.capsule_uuid, entry.netns, both, uuids)
        if surplus:
            await self._workers.run(lambda nl: self._unplug(nl, entry.container_id, surplus, entry.networks))
        used, present = await self._workers.run(lambda _: plugging.present(self._spaces, entry.netns, wanted))
        free = (name for number in range(256) if (name := f"eth{number}") not in used)
        missing = [
            msgspec.structs.replace(plug, interface=next(free)) for plug in wanted if plug.host_name not in present
        ]
        if missing:
            await self._wire(entry.netns, attachment.networks, missing)
        first = wanted[0] if wanted else None
        if first is not None and first.host_name in present:
            interface = present[first.host_name]
            await self._workers.run(lambda _: plugging.lead_out(entry.netns, first, interface))
        left = [network.uuid for network in attachment.networks]
        self._journal.write(entry.container_id, attachment.capsule_uuid, entry.netns, names, left)

    async def set_state(self, state: NetworkState) -> None:
        """Make security groups and floating addresses true."""
        await self._fabric.set_state(state)

    async def set_names(self, names: list[Names]) -> None:
        """Replace everything that the name services answer."""
        self._names.set_names({item.network.uuid: item.addresses for item in names})

    async def collect(self, live_sandboxes: set[str], networks: list[Network]) -> None:
        """Remove what sandboxes that are not live left, and bridges that nobody needs; mend rules and names."""
        # Links first: whatever has a label by now had its journal before, so that a veth without one is an orphan.
        ports = await self._workers.run(self._ports)
        entries = {entry.container_id: entry for entry in await self._workers.run(lambda _: self._journal.entries())}
        for entry in entries.values():
            if entry.container_id not in live_sandboxes and not self._may_be_new(entry):
                async with self._alone(entry.container_id):
                    await self._forget(entry.container_id)
        orphans = {owner.container_id for _, owner, _ in ports} - live_sandboxes - set(entries)
        for container_id in orphans:
            async with self._alone(container_id):
                if self._journal.read(container_id) is None:
                    await self._forget(container_id)
        used = {network.uuid for network in networks}
        left = await self._workers.run(lambda _: self._journal.entries())
        used.update(uuid for entry in left for uuid in entry.networks)
        await self._fabric.collect(used)
        # What changed about them (an IPv6 range beside the other, say) comes to those that stand.
        standing = self._fabric.ready()
        await self._fabric.ensure([network for network in networks if network.uuid in standing])

    async def connect(self, sandbox_id: str, address: str, port: int, timeout_s: float) -> socket.socket:
        """A TCP connection made inside a sandbox's network, non-blocking."""
        return await self._sockets.connect(sandbox_id, address, port, timeout_s, self._names.resolve)

    async def remove_all(self) -> None:
        """Remove every interface, rule and address of this cloud; forwarding too if nobody else needs it."""
        await self._fabric.remove_all()
        for entry in self._journal.entries():
            self._journal.remove(entry.container_id)
        plugin.uninstall(self._plugin_root, self._conf_root, self._instance)
        if self._server is None:
            self._workers.close()

    @property
    def tables_replaced(self) -> int:
        """How often a table of packet rules was made anew as a whole."""
        return self._fabric.applied.replaced

    # -- calls of the plugin ----------------------------------------------------------------------------------

    async def _handle(self, call: cni.Call) -> dict[str, Any] | None:
        if call.command == "ADD":
            return await self._add(call)
        async with self._alone(call.container_id):
            if call.command == "CHECK":
                await self._check(call)
            else:
                await self._forget(call.container_id)
        return None

    async def _add(self, call: cni.Call) -> dict[str, Any]:
        if call.pod_uid.startswith(PREPARED):
            return await self._add_prepared(call)
        started = time.perf_counter()
        attachment = await self._attachment(call)
        looked_up = time.perf_counter()
        plugs = await self._plugged(call, attachment)
        ended = time.perf_counter()
        _log.debug(
            "ADD of %s: lookup %.1f ms, wiring %.1f ms",
            call.container_id,
            (looked_up - started) * 1e3,
            (ended - looked_up) * 1e3,
        )
        return _result(call, plugs[0])

    async def _plugged(self, call: cni.Call, attachment: Attachment) -> list[Plug]:
        plugs = self._plugs(call, attachment)
        uuids = [network.uuid for network in attachment.networks]
        with self._fabric.needing(uuids):
            async with self._alone(call.container_id):
                await self._make(call, attachment, plugs, uuids)
        return plugs

    async def _add_prepared(self, call: cni.Call) -> dict[str, Any]:
        """A sandbox without a capsule: only lo, and an answer that satisfies CRI. `attach` does the rest."""
        async with self._alone(call.container_id):
            self._journal.write(call.container_id, call.pod_uid, call.netns, [], [])
            await self._workers.run(lambda _: plugging.plug(self._spaces, call.netns, []))
        return {
            "interfaces": [{"name": call.interface or "eth0", "sandbox": call.netns}],
            "ips": [{"interface": 0, "address": "127.0.0.1/8"}],
            "dns": {},
        }

    async def _attachment(self, call: cni.Call) -> Attachment:
        if self._lookup is None or not call.pod_uid:
            raise cni.CniError(4, "CNI_ARGS names no K8S_POD_UID: only pods made through CRI can be wired.")
        found = None
        with contextlib.suppress(TimeoutError):
            found = await asyncio.wait_for(self._lookup(call.pod_uid), _LOOKUP_S)
        if found is None:
            raise cni.CniError(cni.TRY_AGAIN, f"Try again: no capsule {call.pod_uid} is assigned to this host (yet).")
        _whole(found)
        return found

    def _plugs(self, call: cni.Call, attachment: Attachment) -> list[Plug]:
        mtu = host.default_mtu()
        alias = Owner(self._instance, "port", attachment.capsule_uuid, call.container_id).alias()
        return [
            Plug(
                bridge=links.bridge_of(network),
                host_name=links.port_name(self._instance, port.uuid),
                interface=call.interface or "eth0" if number == 0 else f"eth{number}",
                port=port,
                default_route=number == 0 and not network.gateway_disabled,
                default_route6=number == 0 and not network.gateway6_disabled,
                alias=alias,
                mtu=mtu,
            )
            for number, (port, network) in enumerate(zip(attachment.ports, attachment.networks, strict=True))
        ]

    async def _make(self, call: cni.Call, attachment: Attachment, plugs: list[Plug], uuids: list[str]) -> None:
        if self._journal.read(call.container_id) is not None:
            await self._forget(call.container_id)  # a repeated call begins anew
        names = [item.host_name for item in plugs]
        self._journal.write(call.container_id, attachment.capsule_uuid, call.netns, names, uuids)
        try:
            try:
                await self._wire(call.netns, attachment.networks, plugs)
            except SpaceGoneError as gone:
                _log.warning("The namespace of network %s was removed by someone else; it is made again.", gone)
                await self._fabric.lost(attachment.networks)
                await self._wire(call.netns, attachment.networks, plugs)
        except SpaceGoneError as again:
            await self._forget(call.container_id)
            raise RuntimeFailedError(
                f"Cannot wire the sandbox: the namespace of its network {again} keeps vanishing."
            ) from None
        except Exception:
            await self._forget(call.container_id)
            raise

    async def _wire(self, netns: str, networks: list[Network], plugs: list[Plug]) -> None:
        await self._fabric.ensure(networks)
        await self._workers.run(lambda _: plugging.plug(self._spaces, netns, plugs))

    async def _check(self, call: cni.Call) -> None:
        entry = self._journal.read(call.container_id)
        ports = await self._workers.run(self._ports)
        names = {link.name for link, _, _ in ports}
        present = [name in names for name in entry.links] if entry else [False]
        if not all(present):
            raise cni.CniError(100, f"The sandbox {call.container_id} is not wired as it was; make it again.")

    async def _forget(self, container_id: str) -> None:
        """Remove a sandbox's veths, then its journal. Call under its lock."""
        entry = self._journal.read(container_id)
        if entry is not None and entry.made_us:
            names, networks = entry.links, entry.networks
        else:  # no (readable) journal: look for the label
            ports = await self._workers.run(self._ports)
            mine = [(link.name, uuid) for link, whose, uuid in ports if whose.container_id == container_id]
            names, networks = [name for name, _ in mine], sorted({uuid for _, uuid in mine})
        if names:
            await self._workers.run(lambda nl: self._unplug(nl, container_id, names, networks))
        self._journal.remove(container_id)

    # -- inside -----------------------------------------------------------------------------------------------

    def _ports(self, _: rtnl.Netlink) -> list[tuple[rtnl.Link, Owner, str]]:
        """The networks' ends of all veths of this cloud, each with its network's uuid. Blocks."""
        found = []
        for uuid in self._spaces.uuids():
            with contextlib.suppress(SpaceGoneError):
                made = self._spaces.inside(uuid, rtnl.route_socket)
                with rtnl.Netlink(made) as nl:
                    found += [(link, whose, uuid) for link, whose in links.ports_here(nl, self._instance)]
        return found

    def _unplug(self, _: rtnl.Netlink, container_id: str, names: list[str], networks: list[str]) -> None:
        """Remove a sandbox's veths. Blocks."""
        for uuid in networks:
            with contextlib.suppress(SpaceGoneError):
                self._spaces.inside(uuid, lambda: plugging.unplug(self._instance, container_id, names))

    def _may_be_new(self, entry: Entry) -> bool:
        if entry.container_id in self._busy:
            return True
        young = time.time_ns() // 1000 - entry.made_us < self._grace_s * 1e6
        return young and Path(entry.netns).exists()

    @contextlib.asynccontextmanager
    async def _alone(self, container_id: str) -> AsyncIterator[None]:
        """One call at a time for each sandbox."""
        lock, waiting = self._busy.get(container_id, (asyncio.Lock(), 0))
        self._busy[container_id] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._busy[container_id]
            if waiting == 1:
                del self._busy[container_id]
            else:
                self._busy[container_id] = (lock, waiting - 1)


def _whole(attachment: Attachment) -> None:
    if not attachment.ports or len(attachment.ports) != len(attachment.networks):
        raise RuntimeFailedError(
            f"Cannot wire capsule {attachment.capsule_uuid}: {len(attachment.ports)} ports on "
            f"{len(attachment.networks)} networks."
        )


def _result(call: cni.Call, first: Plug) -> dict[str, Any]:
    """What CNI wants to know: the sandbox's first interface. containerd takes the pod's address from it."""
    bits = first.bridge.cidr.partition("/")[2]
    ips = [{"interface": 1, "address": f"{first.port.address}/{bits}", "gateway": first.bridge.gateway}]
    if first.port.address6 and first.bridge.gateway6 and host.has_ipv6():
        ips.append({"interface": 1, "address": f"{first.port.address6}/128", "gateway": first.bridge.gateway6})
    return {
        "interfaces": [
            {"name": first.host_name},
            {"name": first.interface, "mac": first.port.mac, "sandbox": call.netns},
        ],
        "ips": ips,
        "routes": [{"dst": "0.0.0.0/0", "gw": first.bridge.gateway}],
        "dns": {"nameservers": [first.bridge.gateway]},
    }
