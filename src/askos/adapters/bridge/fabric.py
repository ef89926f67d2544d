"""What stands for whole networks on this host: bridges, packet rules and name services, always together.

A network counts as ready only when all three stand, so that no container ever runs in front of missing walls.
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

from askos.adapters.bridge import host, links, rtnl, rules
from askos.adapters.bridge.links import Bridge
from askos.adapters.bridge.nameserver import NameServices
from askos.adapters.bridge.workers import Workers
from askos.model.capsules import Network
from askos.model.networks import NetworkState

_log = logging.getLogger(__name__)


class Fabric:
    """The bridges of one cloud. All changes go through one lock; asking for what stands costs nothing."""

    def __init__(
        self, instance: str, names: NameServices, workers: Workers, forward_record: Path, state_file: Path
    ) -> None:
        self._instance = instance
        self._names = names
        self._workers = workers
        self._forward_record = forward_record
        self._state_file = state_file
        self._state: NetworkState | None = None
        """What was asked for last; None: nobody has asked for anything yet."""
        self._lock = asyncio.Lock()
        self._ready: dict[str, Bridge] = {}
        """By network uuid."""
        self._walled: dict[str, Bridge] = {}
        """The bridges that the packet rules know."""
        self._wanted: Counter[str] = Counter()
        """Networks that a call under way needs: their bridges are not collected."""

    async def adopt(self) -> None:
        """Take over the bridges that exist, and put the rules right. SetupError when rules are impossible here."""
        async with self._lock:
            self._state = self._remembered()
            found = {bridge.network_uuid: bridge for bridge in await self._workers.run(self._standing)}
            await self._wall(found)
            await self._workers.run(partial(links.isolate_all, instance=self._instance))
            if found:
                self._forwarding_on()
            self._ready = found
            for bridge in found.values():
                await self._names.serve(bridge)

    async def release(self) -> None:
        """Stop serving names; bridges and rules stay."""
        async with self._lock:
            await self._names.close()
            self._ready = {}

    @contextlib.contextmanager
    def needing(self, uuids: list[str]) -> Iterator[None]:
        """Keep the bridges of these networks from being collected meanwhile."""
        self._wanted.update(uuids)
        try:
            yield
        finally:
            self._wanted.subtract(uuids)
            self._wanted += Counter()  # drops zeros

    async def ensure(self, networks: list[Network]) -> None:
        """Bridges, rules and name services of these networks stand when this returns."""
        if all(network.uuid in self._ready for network in networks):
            return
        async with self._lock:
            new = [links.bridge_of(self._instance, n) for n in networks if n.uuid not in self._ready]
            if not new:
                return
            for bridge in new:
                await self._workers.run(partial(links.make_bridge, instance=self._instance, bridge=bridge))
            self._forwarding_on()
            ready = {**self._ready, **{bridge.network_uuid: bridge for bridge in new}}
            await self._wall(ready)
            self._ready = ready
            for bridge in new:
                await self._names.serve(bridge)

    async def set_state(self, state: NetworkState) -> None:
        """Security groups and floating addresses are these when this returns, also after a restart."""
        async with self._lock:
            addresses = {f.address for f in state.floating}
            # What leads in comes last, what leads out first: no address is open before its walls stand.
            before, self._state = self._state, state
            try:
                await self._wall(self._walled)
            except BaseException:
                self._state = before
                raise
            await self._workers.run(partial(links.set_floating, instance=self._instance, addresses=addresses))
            draft = self._state_file.with_name(f".{self._state_file.name}.new")
            draft.write_bytes(msgspec.json.encode(state))
            draft.replace(self._state_file)

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

    async def lost(self, networks: list[Network]) -> None:
        """A bridge of these was found missing: the next `ensure` makes it again."""
        async with self._lock:
            for network in networks:
                self._ready.pop(network.uuid, None)
                await self._names.unserve(network.uuid)

    async def collect(self, used: set[str]) -> None:
        """Remove the bridges of networks that are not in `used` and have no port; mend rules and name services."""
        async with self._lock:
            await self._workers.run(partial(links.remove_unsigned_bridges, instance=self._instance))
            standing = {bridge.network_uuid: bridge for bridge in await self._workers.run(self._standing)}
            for uuid, bridge in list(standing.items()):
                if uuid in used or uuid in self._wanted:
                    continue
                # From here on a call that needs this bridge waits for the lock and makes it again.
                self._ready.pop(uuid, None)
                if await self._workers.run(partial(links.remove_bridge, name=bridge.name)):
                    del standing[uuid]
            for uuid in self._names.served() - set(standing):
                await self._names.unserve(uuid)
            if standing != self._walled or not await rules.exists(self._instance):
                await self._wall(standing)
            self._ready = standing
            for bridge in standing.values():
                await self._names.serve(bridge)

    async def remove_all(self) -> None:
        """Remove every interface and rule; switch forwarding off if it was off before and nobody else needs it."""
        async with self._lock:
            await self._names.close()
            self._ready, self._walled, self._state = {}, {}, None
            self._state_file.unlink(missing_ok=True)
            others = await self._workers.run(self._remove_links)
            await rules.delete(self._instance)
            if not others and not await rules.other_clouds(self._instance):
                host.forwarding_restore(self._forward_record)

    async def _wall(self, bridges: dict[str, Bridge]) -> None:
        await rules.apply(self._instance, bridges.values(), self._state)
        self._walled = dict(bridges)

    def _standing(self, nl: rtnl.Netlink) -> list[Bridge]:
        return links.bridges(nl, self._instance)

    def _remove_links(self, nl: rtnl.Netlink) -> bool:
        """Whether other clouds or programs have bridges here is returned: they may need forwarding."""
        for link in links.all_of(nl, self._instance):
            nl.delete(link.index)
        return any(links.is_bridge_of_others(link, self._instance) for link in nl.links())

    def _forwarding_on(self) -> None:
        try:
            host.forwarding_on(self._forward_record)
        except OSError as error:
            _log.warning("Containers cannot reach the outside: IPv4 forwarding stays off (%s).", error)
