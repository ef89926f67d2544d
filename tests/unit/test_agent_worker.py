"""The agent's worker on a host in memory: when it tries again, and when it gives up."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from askos.loops.agent import Agent
from askos.loops.container_work import ContainerWork
from askos.loops.containers import GIVE_UP_US, MAX_FAILURES, ContainerWorker
from askos.model.capsules import Assignment, CapsuleReport, Report
from askos.model.errors import AskosError, RuntimeFailedError, UnavailableError
from askos.plan import reconcile as r

from .world import World, assignment


class Work(ContainerWork):
    """Looks at the world, and changes it. `fails`: errors by the name of the action, one for each."""

    async def observe(self, a: Assignment, pulled: int) -> r.Observed:
        seen = await asyncio.sleep(0, self.host.world.observed())
        generation, refused = self._refused
        return msgspec.structs.replace(seen, refused=refused if generation == a.wish.generation else {})

    @property
    def host(self) -> Host:
        assert isinstance(self._agent, Host)
        return self._agent

    async def perform(self, a: Assignment, action: r.Action) -> None:
        await asyncio.sleep(0)
        failing = self.host.fails.get(type(action).__name__)
        if failing:
            raise failing.pop(0)
        if isinstance(action, r.StartContainer) and self.host.errors:
            self.host.world.break_off = 1
            self.host.world.act(action)
            raise self.host.errors.pop(0)
        self.host.world.act(action)


class Host(Agent):
    """An agent whose runtime is a World; `errors` are raised by the next starts, one each."""

    def __init__(self, world: World, errors: list[AskosError], *, tick_us: int = 5_000_000) -> None:
        # Every look at the clock is a while later, so that no test waits for a pause to pass.
        self.clock_us = count(world.now, tick_us)
        nothing: Any = None
        super().__init__(nothing, nothing, Path("/nonexistent"), self._sent, lambda: next(self.clock_us))
        self.world = world
        self.errors = errors
        self.fails: dict[str, list[AskosError]] = {}
        self.told: list[Report] = []

    def _sent(self, reports: list[CapsuleReport]) -> None:
        self.told += [item.report for item in reports]

    def container_work(self, worker: ContainerWorker) -> ContainerWork:
        return Work(self, worker)

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


@pytest.mark.parametrize(("state", "verb"), [("paused", "PauseContainer"), ("running", "UpdateLimits")])
async def test_what_fails_beside_a_running_container_leaves_it_running(state: str, verb: str) -> None:
    world = World()
    started, _ = world.settle(assignment(state="running", run=1))
    if verb == "UpdateLimits":
        world.containers = {
            cid: msgspec.structs.replace(c, memory_bytes=64 << 20) for cid, c in world.containers.items()
        }
    host = Host(world, [])
    host.fails = {verb: [RuntimeFailedError("the kernel says no") for _ in range(50)]}
    wish = msgspec.structs.replace(started.wish, state=state, generation=2)
    report = await host.settled(msgspec.structs.replace(started, wish=wish))
    assert (report.state, report.reason) == ("running", "the kernel says no")
    assert [c.state for c in world.containers.values()] == ["running"]
    assert len(host.fails[verb]) == 47
    assert world.starts == [(1, 0)]
