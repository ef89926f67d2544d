"""What containers use now, and how fast their processor time grows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from askos.ports import runtime as rt

if TYPE_CHECKING:
    from askos.loops.agent import Agent

MIN_APART_US = 1_000_000
"""Samples of a rate are at least this far apart; in between the last rate is told again."""
FIRST_WAIT_S = 0.25
"""How long a first question waits for a second sample."""


class _Rate:
    """The processor time of one container: the sample that the next rate counts from, and the last rate."""

    def __init__(self, sample: rt.ContainerStats) -> None:
        self.at_us, self.cpu_ns = sample.at_us, sample.cpu_ns
        self.nano_cores: int | None = None

    def take(self, sample: rt.ContainerStats) -> None:
        took_us = sample.at_us - self.at_us
        if took_us <= 0 or (took_us < MIN_APART_US and self.nano_cores is not None):
            return
        self.nano_cores = max(0, sample.cpu_ns - self.cpu_ns) * 1_000_000 // took_us
        if took_us >= MIN_APART_US:
            self.at_us, self.cpu_ns = sample.at_us, sample.cpu_ns


class Usage:
    """Answers the call "stats", and remembers one sample of each container for the next answer."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._rates: dict[str, _Rate] = {}

    async def of(self, capsules: list[str] | None) -> list[dict[str, Any]]:
        """One entry for each running container of these capsules (None: of all): the fields of `ContainerStats`,
        and `nano_cores` (billionths of a core; None when there is no second sample) and `started_us`."""
        samples = await self._sample(capsules)
        if any(self._rates[s.container_id].nano_cores is None for s in samples):
            await asyncio.sleep(FIRST_WAIT_S)
            samples = await self._sample(capsules)
        started = {
            c.id: c.started_us
            for uuid in {s.capsule_uuid for s in samples}
            for c in self._agent.workers[uuid].seen.containers
        }
        return [
            {
                **msgspec.to_builtins(sample),
                "nano_cores": self._rates[sample.container_id].nano_cores,
                "started_us": started.get(sample.container_id),
            }
            for sample in samples
        ]

    async def _sample(self, capsules: list[str] | None) -> list[rt.ContainerStats]:
        if capsules is None:
            found = await self._agent.runtime.stats()
            for gone in self._rates.keys() - {s.container_id for s in found}:
                del self._rates[gone]
        else:
            known = [uuid for uuid in capsules if uuid in self._agent.workers]
            each = await asyncio.gather(*(self._agent.runtime.stats(uuid) for uuid in known))
            found = [sample for samples in each for sample in samples]
        found = [sample for sample in found if sample.capsule_uuid in self._agent.workers]
        for sample in found:
            rate = self._rates.get(sample.container_id)
            if rate is None:
                self._rates[sample.container_id] = _Rate(sample)
            else:
                rate.take(sample)
        if len(self._rates) > 2 * self._containers() + 16:
            # Asked about single capsules only: those that are gone since then have to go, too.
            self._forget()
        return found

    def _containers(self) -> int:
        return sum(len(worker.seen.containers) for worker in self._agent.workers.values())

    def _forget(self) -> None:
        living = {c.id for worker in self._agent.workers.values() for c in worker.seen.containers}
        for gone in self._rates.keys() - living:
            del self._rates[gone]
