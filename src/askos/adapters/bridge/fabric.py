"""What stands for whole networks on this host: namespaces with bridges, uplinks, packet rules and name services.

A network counts as ready only when all of it stands, so that no container ever runs in front of missing walls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec

from askos.adapters.bridge import host, links, nft, oldlayout, rtnl, rules
from askos.adapters.bridge.applied import HOST, Applied
from askos.adapters.bridge.links import Bridge
from askos.adapters.bridge.nameserver import NameServices
from askos.adapters.bridge.spaces import SpaceGoneError, Spaces
from askos.adapters.bridge.transit import Pair, Transit
from askos.adapters.bridge.walls import of_network, walls
from askos.adapters.bridge.workers import Workers
from askos.model.capsules import Network
from askos.model.errors import UnavailableError
from askos.model.networks import NetworkState

_log = logging.getLogger(__name__)


class Fabric:
    """The networks of one cloud. All changes go through one lock; asking for what stands costs nothing."""

    def __init__(
        self,
        instance: str,
        *,
        spaces: Spaces,
        transit: Transit,
        names: NameServices,
        workers: Workers,
        forward: host.Forwarding,
        state_file: Path,
    ) -> None:
        self._instance = instance
        self._spaces = spaces
        self._transit = transit
        self._names = names
        self._workers = workers
        self._forward = forward
        self._state_file = state_file
        self._aliases_file = state_file.with_name("floating-aliases")
        self._state: NetworkState | None = None
        """What was asked for last; None: nobody has asked for anything yet."""
        self._aliases: dict[str, str] = {}
        """By floating address."""
        self._lock = asyncio.Lock()
        self._ready: dict[str, Bridge] = {}
        """By network uuid."""
        self._pairs: dict[str, Pair] = {}
        """Transit addresses by network uuid."""
        self.applied = Applied(spaces, workers)
        self._wanted: Counter[str] = Counter()
        """Networks that a call under way needs: they are not collected."""

    async def adopt(self) -> None:
        """Take over what exists, and put the rules right. SetupError when rules are impossible here."""
        async with self._lock:
            self._state = self._remembered()
            self._aliases = self._remembered_aliases()
            self.applied.clear()
            old = await self._workers.run(partial(oldlayout.find, instance=self._instance))
            found = {b.network_uuid: b for b in await self._workers.run(lambda _: self._standing())}
            found.update({bridge.network_uuid: bridge for bridge in old if bridge.network_uuid not in found})
            if found:
                self._forwarding_on()
            await self._rules_of_host()
            for bridge in found.values():
                await self._build(bridge)
            if old:
                _log.info("Moving %d networks of an older version into namespaces of their own.", len(old))
                await self._workers.run(lambda nl: oldlayout.move(nl, self._instance, self._spaces, old))
            await self._workers.run(lambda nl: self._open_up(nl, list(found.values())))
            self._ready = found
            if self._state is not None:
                await self._make_true(self._state)
            for bridge in found.values():
                await self._names.serve(bridge)

    async def release(self) -> None:
        """Stop serving names; networks and rules stay."""
        async with self._lock:
            await self._names.close()
            self._ready = {}

    def ready(self) -> set[str]:
        """The uuids of the networks that stand."""
        return set(self._ready)

    @contextlib.contextmanager
    def needing(self, uuids: list[str]) -> Iterator[None]:
        """Keep these networks from being collected meanwhile."""
        self._wanted.update(uuids)
        try:
            yield
        finally:
            self._wanted.subtract(uuids)
            self._wanted += Counter()  # drops zeros

    async def ensure(self, networks: list[Network]) -> None:
        """Namespaces, rules and name services of these networks stand when this returns."""
        if not any(self._news(network) for network in networks):
            return
        async with self._lock:
            news = [bridge for network in networks if (bridge := self._news(network)) is not None]
            if not news:
                return
            self._forwarding_on()
            if HOST not in self.applied:
                await self._rules_of_host()
            for bridge in news:
                await self._build(bridge)
            await self._workers.run(lambda nl: self._open_up(nl, news))
            self._ready = {**self._ready, **{bridge.network_uuid: bridge for bridge in news}}
            if self._state is not None and self._state.floating:
                await self._make_true(self._state)
            for bridge in news:
                await self._names.serve(bridge)

    def _news(self, network: Network) -> Bridge | None:
        """What is to be made for a network, or None when it stands. IPv6 that it had stays until it gets another."""
        wanted, has = links.bridge_of(network), self._ready.get(network.uuid)
        if has is not None and not wanted.cidr6:
            wanted = msgspec.structs.replace(wanted, cidr6=has.cidr6, gateway6=has.gateway6)
        return None if wanted == has else wanted

    async def _build(self, bridge: Bridge) -> None:
        """Everything inside of a network and its way out; idempotent. Nobody gets in yet."""
        uuid = bridge.network_uuid
        self._pairs[uuid] = await self._workers.run(lambda nl: self._make(nl, bridge))
        await self._rules_of(bridge)

    def _make(self, nl: rtnl.Netlink, bridge: Bridge) -> Pair:
        self._spaces.make(bridge.network_uuid)
        with self._spaces.opened(bridge.network_uuid) as space:
            self._spaces.inside(bridge.network_uuid, lambda: links.make_bridge(self._instance, bridge))
            return self._transit.connect(nl, space, bridge)

    def _open_up(self, nl: rtnl.Netlink, bridges: list[Bridge]) -> None:
        """Rules stand: ports that hang in the air are fastened, and the host gets its routes."""
        for bridge in bridges:
            with contextlib.suppress(SpaceGoneError):
                self._spaces.inside(bridge.network_uuid, lambda: links.fasten_ports(self._instance))
            self._transit.lead_in(nl, bridge, self._pairs[bridge.network_uuid])

    async def set_state(self, state: NetworkState) -> None:
        """Security groups and floating addresses are these when this returns, also after a restart."""
        async with self._lock:
            before, self._state = self._state, state
            try:
                await self._make_true(state)
            except BaseException:
                self._state = before
                raise
            _write(self._state_file, msgspec.json.encode(state))

    async def _make_true(self, state: NetworkState) -> None:
        # What leads in comes last: no address is open before its walls stand.
        await self._choose_aliases(state)
        for uuid, bridge in list(self._ready.items()):
            try:
                await self._rules_of(bridge)
            except SpaceGoneError:
                # Nothing is behind these walls any more, and the others must not wait: it is made again when needed.
                self._ready.pop(uuid, None)
                self.applied.forget(uuid)
        await self._rules_of_host()
        addresses = {one.address for one in state.floating}
        await self._workers.run(partial(links.set_floating, instance=self._instance, addresses=addresses))

    async def _choose_aliases(self, state: NetworkState) -> None:
        wanted = {}
        for one in state.floating:
            bridge = next((b for b in self._ready.values() if of_network(one.network_uuid, one.fixed_address, b)), None)
            wanted[one.address] = bridge.network_uuid if bridge is not None else one.network_uuid
        if not wanted and not self._aliases:
            return
        found = await self._workers.run(lambda nl: self._transit.aliases(nl, wanted, self._aliases, self._pairs))
        if found != self._aliases:
            self._aliases = found
            _write(self._aliases_file, msgspec.json.encode(found))

    def _remembered(self) -> NetworkState | None:
        try:
            return msgspec.json.decode(self._state_file.read_bytes(), type=NetworkState)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning(
                "Cannot read %s (%s): nobody gets in until the server tells the rules.", self._state_file, error
            )
            return NetworkState()

    def _remembered_aliases(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._aliases_file.read_bytes(), type=dict[str, str])
        except (OSError, msgspec.MsgspecError):
            return {}  # new ones are chosen: connections to floating addresses are cut, nothing else

    async def lost(self, networks: list[Network]) -> None:
        """A namespace or bridge of these was found missing: the next `ensure` makes it again."""
        async with self._lock:
            for network in networks:
                self._ready.pop(network.uuid, None)
                self.applied.forget(network.uuid)
                await self._names.unserve(network.uuid)

    async def collect(self, used: set[str]) -> None:
        """Remove networks that are not in `used` and have no port; mend rules, routes and name services."""
        async with self._lock:
            standing = {b.network_uuid: b for b in await self._workers.run(lambda _: self._standing())}
            for uuid in await self._workers.run(self._known):
                if uuid in used or uuid in self._wanted:
                    continue
                # From here on a call that needs this network waits for the lock and makes it again.
                self._ready.pop(uuid, None)
                if await self._workers.run(partial(self._remove, uuid=uuid, force=False)):
                    standing.pop(uuid, None)
                    self._pairs.pop(uuid, None)
                    self.applied.forget(uuid)
            for uuid in self._names.served() - set(standing):
                await self._names.unserve(uuid)
            self._ready = {uuid: bridge for uuid, bridge in standing.items() if uuid in self._pairs}
            await self._mend()

    async def _mend(self) -> None:
        """Rules that somebody flushed, routes that have become possible, name services that could not start."""
        if not await self._workers.run(lambda _: rules.stands(self._instance, "to_host")):
            self.applied.forget(HOST)
            await self._rules_of_host()
        connected = await self._workers.run(self._transit.pairs)
        for uuid, bridge in list(self._ready.items()):
            try:
                if connected.get(uuid) != self._pairs[uuid]:
                    await self._build(bridge)
                elif not await self._workers.run(partial(self._walls_stand, uuid=uuid)):
                    self.applied.forget(uuid)
                await self._rules_of(bridge)
            except SpaceGoneError:
                self._ready.pop(uuid, None)
                continue
            await self._workers.run(partial(self._open_up, bridges=[bridge]))
            await self._names.serve(bridge)

    def _walls_stand(self, _: rtnl.Netlink, uuid: str) -> bool:
        return self._spaces.inside(uuid, partial(rules.stands, self._instance, "to_ports"))

    async def remove_all(self) -> None:
        """Remove every interface, rule and namespace; switch forwarding off if it was off before and nobody else needs
        it."""
        async with self._lock:
            await self._names.close()
            self._ready, self._pairs, self._state, self._aliases = {}, {}, None, {}
            self.applied.clear()
            self._state_file.unlink(missing_ok=True)
            self._aliases_file.unlink(missing_ok=True)
            others = await self._workers.run(self._remove_everything)
            if not others:
                self._forward.restore()

    def _remove_everything(self, nl: rtnl.Netlink) -> bool:
        """Whether other clouds or programs have bridges here is returned: they may need forwarding."""
        for uuid in self._known(nl):
            self._remove(nl, uuid, force=True)
        self._spaces.tidy()
        for link in links.all_of(nl, self._instance):
            nl.delete(link.index)
        try:
            rules.delete(self._instance)
        except nft.NftError as error:
            raise UnavailableError(
                f"Cannot remove the packet rules inet {rules.name_of(self._instance)}: nft says: {error.strerror}"
            ) from None
        others = [link for link in nl.links() if links.is_of_others(link, self._instance)]
        return bool(others or rules.other_clouds(self._instance))

    # -- what stands (blocks) ---------------------------------------------------------------------------------

    def _standing(self) -> list[Bridge]:
        """The networks whose namespace and bridge stand."""
        self._spaces.sweep()
        found = []
        for uuid in self._spaces.uuids():
            with contextlib.suppress(SpaceGoneError):
                found.append(self._spaces.inside(uuid, partial(links.bridge_here, self._instance, uuid)))
        return [bridge for bridge in found if bridge is not None]

    def _known(self, nl: rtnl.Netlink) -> set[str]:
        """Networks of which there is something, be it half made."""
        self._spaces.sweep()
        return {*self._spaces.uuids(), *self._transit.pairs(nl)}

    def _remove(self, nl: rtnl.Netlink, uuid: str, *, force: bool) -> bool:
        """Remove a network; False when there is a port on it and it is not forced."""

        def empty() -> bool:
            with rtnl.Netlink() as inside:
                if not force and links.ports_here(inside, self._instance):
                    return False
            links.empty_here()
            return True

        with contextlib.suppress(SpaceGoneError):
            if not self._spaces.inside(uuid, empty):
                return False
        self._transit.disconnect(nl, uuid)
        self._spaces.remove(uuid)
        return True

    # -- rules ------------------------------------------------------------------------------------------------

    async def _rules_of(self, bridge: Bridge) -> None:
        found = walls(self._state, bridge, self._aliases)
        await self.applied.apply(
            bridge.network_uuid, rules.of_network(self._instance, bridge, self._transit.ranges, found)
        )

    async def _rules_of_host(self) -> None:
        await self.applied.apply(HOST, rules.of_host(self._instance, self._transit.ranges, self._aliases))

    def _forwarding_on(self) -> None:
        try:
            self._forward.switch_on()
        except OSError as error:
            _log.warning("Containers cannot reach the outside: forwarding stays off (%s).", error)


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(data)
    draft.replace(path)
