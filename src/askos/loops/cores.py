"""Whole cores for containers that asked for dedicated ones.

Which cores are taken is read off the containers themselves, whose specs the runtime keeps, so nothing is lost with
the agent. All others are confined to the rest, of which at least one core stays.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from askos.model.errors import AskosError, RuntimeFailedError
from askos.ports import runtime as rt

_log = logging.getLogger(__name__)

_HOLDING = ("created", "running", "paused")
"""States in which a container has its cores."""


def parse(text: str) -> set[int]:
    """The cores of a list such as "0-2,5"."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def listed(cores: set[int]) -> str:
    """As the kernel takes it: "0,1,5"."""
    return ",".join(map(str, sorted(cores)))


class Cores:
    """The cores of this host. `dedicated`: whether a capsule asked for cores of its own."""

    def __init__(self, runtime: rt.Runtime, dedicated: Callable[[str], bool], cores: set[int] | None = None) -> None:
        self._runtime = runtime
        self._dedicated = dedicated
        self._all = cores if cores is not None else os.sched_getaffinity(0)
        self._lock = asyncio.Lock()
        self.shared = ""
        """Where new containers without cores of their own belong; empty: anywhere."""

    @asynccontextmanager
    async def take(self, cpu: float) -> AsyncIterator[str]:
        """Cores for a container that is made within the block; afterwards nobody else is on them.

        RuntimeFailedError, for good, when there are not enough.
        """
        count = max(1, math.ceil(cpu))
        async with self._lock:
            _, containers = await self._runtime.observe()
            free = self._all - self._taken(containers)
            if count > len(free) - 1:
                raise RuntimeFailedError(
                    f"There are not enough cores on this host: {count} dedicated ones were asked for, "
                    f"{max(0, len(free) - 1)} of {len(self._all)} can still be given (one stays for all others).",
                    retryable=False,
                )
            # The first ones stay with the others: interrupts and the host's own work tend to be there.
            yield listed(set(sorted(free)[-count:]))
            await self._confine()

    async def confine(self) -> None:
        """Keep everybody else off the dedicated cores, and give back those that are dedicated no more."""
        async with self._lock:
            await self._confine()

    def _taken(self, containers: list[rt.Container]) -> set[int]:
        holders = [c for c in containers if c.state in _HOLDING and self._dedicated(c.capsule_uuid)]
        return {core for c in holders for core in parse(c.cpus)}

    async def _confine(self) -> None:
        _, containers = await self._runtime.observe()
        taken = self._taken(containers)
        rest = listed(self._all - taken)
        self.shared = rest if taken else ""
        for c in containers:
            if c.state not in _HOLDING or self._dedicated(c.capsule_uuid):
                continue
            if c.cpus != self.shared and (c.cpus or taken) and parse(c.cpus) != self._all - taken:
                try:
                    await self._runtime.set_cpus(c.id, rest)
                except AskosError as error:
                    _log.info("container %s stays on its cores: %s", c.id, error)
