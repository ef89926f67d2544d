"""The agent's worker on a host in memory: when it tries again, and when it gives up."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from askos.loops.agent import Agent
from askos.loops.containers import GIVE_UP_US, MAX_FAILURES
from askos.model.capsules import Assignment, CapsuleReport, Report
from askos.model.errors import AskosError, RuntimeFailedError, UnavailableError
from askos.plan import reconcile as r

from .world import World, assignment


class Host(Agent):
    """An agent whose runtime is a World; `errors` are raised by the next starts, one each."""

    def __init__(self, world: World, errors: list[AskosError], *, tick_us: int = 5_000_000) -> None:
        # Every look at the clock is a while later, so that no test waits for a pause to pass.
        self.clock_us = count(world.now, tick_us)
        nothing: Any = None
        super().__init__(nothing, nothing, Path("/nonexistent"), self._sent, lambda: next(self.clock_us))
        self.world = world
        self.errors = errors
        self.told: list[Report] = []

    def _sent(self, reports: list[CapsuleReport]) -> None:
        self.told += [item.report for item in reports]

    async def observe(self, a: Assignment, pulled: int) -> r.Observed:
        return self.world.observed()

    async def act(self, a: Assignment, action: r.Action) -> None:
        await asyncio.sleep(0)
        if isinstance(action, r.StartContainer) and self.errors:
            self.world.break_off = 1
            self.world.act(action)
            raise self.errors.pop(0)
        self.world.act(action)

    async def settled(self, a: Assignment) -> Report:
        self.changed([a])
        try:
            async with asyncio.timeout(10):
                while not (self.told and self.told[-1].settled):
                    await asyncio.sleep(0.001)
        finally:
            await self.stop_workers()
        return self.told[-1]


async def test_a_start_that_always_fails_ends_in_error_with_its_reason() -> None:
    host = Host(World(), [RuntimeFailedError("the disk is on fire") for _ in range(100)])
    report = await host.settled(assignment(state="running", run=1))
    assert (report.state, report.reason) == ("error", "the disk is on fire")
    assert len(host.errors) == 100 - MAX_FAILURES
    assert host.world.starts == []


async def test_a_start_that_fails_for_a_while_succeeds_in_the_end() -> None:
    host = Host(World(), [RuntimeFailedError("not now") for _ in range(MAX_FAILURES - 1)])
    report = await host.settled(assignment(state="running", run=1))
    assert report.state == "running"
    assert host.world.starts == [(1, 0)]


async def test_a_runtime_that_is_away_is_waited_for() -> None:
    host = Host(
        World(), [UnavailableError("it is being restarted") for _ in range(MAX_FAILURES * 2)], tick_us=1_000_000
    )
    report = await host.settled(assignment(state="running", run=1))
    assert report.state == "running"


@pytest.mark.parametrize("age_us", [0, GIVE_UP_US * 100])
async def test_an_old_wish_is_not_given_up_at_the_first_failure(age_us: int) -> None:
    """A container that has run for days, or a machine that was off, gets as many tries as any other."""
    world = World(now=1_000_000_000 + age_us)
    host = Host(world, [RuntimeFailedError("not now")])
    report = await host.settled(assignment(state="running", run=1, at_us=1_000_000_000))
    assert report.state == "running"
