"""Placement: give every capsule without a host the best one that is connected, and can run it.

While no host is connected at all (a cloud that is starting), capsules wait up to `patience_us` from their last wish
before they fail: "not enough hosts" must not be the first word of a fresh cloud.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from askos.loops.wake import Bell
from askos.model.capsules import Capsule
from askos.model.errors import AskosError
from askos.plan import placement
from askos.ports.store import Store

RETRY_US = 5_000_000
"""How long a pod that no host could take waits for its next chance, and how often silent hosts are looked for."""
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
        waiting = False
        # A pod that found no room waits for some: it is tried again, but not at every ring. Nor are silent hosts
        # looked for then: it would hold up the very start that rang.
        now = self._clock()
        again = not 0 <= now - self._retried_us < RETRY_US
        if again:
            self._retried_us = now
        for uuid in await self._store.unplaced(failed=again):
            try:
                await self._store.place(uuid, self._choose, placement.NO_HOST)
            except Waiting:
                waiting = True
        if again:
            await self._store.drop_orphans(self._orphan_us)
            await self._store.fail_waiting(self._silence_us, HOST_GONE)
        return waiting

    def _choose(self, capsule: Capsule, loads: list[placement.Load]) -> str | placement.Nowhere | None:
        if not any(load.host.connected for load in loads) and self._clock() < capsule.wish.at_us + self._patience_us:
            raise Waiting
        wanted = placement.claim(capsule.spec)
        host = placement.choose(wanted, loads, self._ratios)
        if host is None and capsule.kind == "capsule":
            return placement.Nowhere(placement.why_not(wanted, loads, self._ratios))
        return host
