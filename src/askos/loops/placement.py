"""Placement: give every capsule without a host the best one that is connected, and can run it.

While no host is connected at all (a cloud that is starting), capsules wait up to `patience_us` from their last wish
before they fail: "not enough hosts" must not be the first word of a fresh cloud.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec

from askos.loops.wake import Bell
from askos.model.capsules import Capsule
from askos.model.errors import AskosError
from askos.plan import placement
from askos.ports.store import Store

RETRY_US = 5_000_000
"""How long a pod that no host could take waits for its next chance, and how often silent hosts are looked for."""
WHOLE_US = 60_000_000
"""How long such pods wait at most when hosts offer nothing else than before, as seen from this server."""
RENEWED = 50
"""Pods that are told in one pass that there is no room for another reason now."""
HOST_GONE = "The container's host has not answered for five minutes. Its state is as last seen."

_log = logging.getLogger(__name__)


class Waiting(Exception):
    """Rolls a placement back: it is too early to decide."""


class PlacementLoop:
    """Runs until cancelled."""

    def __init__(
        self,
        store: Store,
        ratios: placement.Ratios,
        clock: Callable[[], int],
        *,
        patience_us: int = 30_000_000,
        orphan_us: int = 60_000_000,
        silence_us: int = 300_000_000,
    ) -> None:
        self._silence_us = silence_us
        self._store = store
        self._ratios = ratios
        self._clock = clock
        self._patience_us = patience_us
        self._orphan_us = orphan_us
        self._retried_us = 0
        self._whole_us = 0
        """When all pods without room were gone through last."""
        self._offered: Sequence[object] | None = None
        """What hosts had to offer then; None: some pods have not been tried with that."""
        self.bell = Bell()

    async def run(self) -> None:
        """Place whatever is unplaced; again at every ring and every five seconds."""
        while True:
            waiting = False
            try:
                waiting = await self.once()
            except AskosError as error:
                _log.warning("placement could not work: %s", error)
            except Exception:
                _log.exception("placement failed; trying again")
                waiting = True
            await self.bell.wait(0.5 if waiting else 5.0)

    async def once(self) -> bool:
        """One pass. True when some capsule has to wait for a host to connect."""
        # A pod that found no room waits for some: it is tried again, but not at every ring. Nor are silent hosts
        # looked for then: it would hold up the very start that rang.
        now = self._clock()
        again = not 0 <= now - self._retried_us < RETRY_US
        fresh = await self._store.unplaced()
        if fresh:
            self._offered = None
        waiting = not all([await self._place(uuid) for uuid in fresh])
        if again:
            self._retried_us = now
            waiting = not await self._retry(now) or waiting
            await self._store.drop_orphans(self._orphan_us)
            await self._store.fail_waiting(self._silence_us, HOST_GONE)
        return waiting

    async def _place(self, uuid: str) -> bool:
        """False when it is too early to decide."""
        try:
            await self._store.place(uuid, self._choose, placement.NO_HOST)
        except Waiting:
            return False
        return True

    async def _retry(self, now: int) -> bool:
        """Try the pods again that found no room: those that would find some, as far as can be seen. With thousands of
        them a transaction for each would be all that the server does. False when it is too early for some."""
        loads = sorted(await self._store.loads(), key=lambda load: load.host.facts.uuid)
        offered = [(load.host.facts, load.host.takes_more, load.cpu_claimed, load.memory_claimed_mib) for load in loads]
        if offered == self._offered and now < self._whole_us + WHOLE_US:
            return True
        self._offered, self._whole_us = offered, now
        renewed, decided = 0, True
        hosts: dict[object, str | None] = {}
        reasons: dict[object, str] = {}
        for pod in await self._store.roomless():
            key = (pod.claim, pod.volume_hosts)
            if key not in hosts:
                mine = _for_volumes(loads, pod.volume_hosts)
                hosts[key] = placement.choose(pod.claim, mine, self._ratios)
                reasons[key] = placement.why_not(pod.claim, mine, self._ratios)
            host = hosts[key]
            if host is None:
                if reasons[key] == pod.failure:
                    continue
                if renewed == RENEWED:
                    self._offered = None  # the others are told next time
                    continue
                renewed += 1
            decided = await self._place(pod.uuid) and decided
            if host is not None:
                loads = [_with(load, pod.claim) if load.host.facts.uuid == host else load for load in loads]
                hosts.clear()
                reasons.clear()
        return decided

    def _choose(self, capsule: Capsule, loads: list[placement.Load]) -> str | placement.Nowhere | None:
        if not any(load.host.connected for load in loads) and self._clock() < capsule.wish.at_us + self._patience_us:
            raise Waiting
        wanted = placement.claim(capsule.spec)
        host = placement.choose(wanted, loads, self._ratios)
        if host is None and capsule.kind == "capsule":
            return placement.Nowhere(placement.why_not(wanted, loads, self._ratios))
        return host


def _for_volumes(loads: list[placement.Load], hosts: frozenset[str]) -> list[placement.Load]:
    """The loads as a capsule sees them whose volumes are on these hosts. On two: it cannot use them anywhere."""
    if not hosts:
        return loads
    return [msgspec.structs.replace(load, has_volumes=hosts <= {load.host.facts.uuid}) for load in loads]


def _with(load: placement.Load, claim: placement.Claim) -> placement.Load:
    return msgspec.structs.replace(
        load,
        cpu_claimed=load.cpu_claimed + claim.cpu,
        memory_claimed_mib=load.memory_claimed_mib + claim.memory_mib,
    )
