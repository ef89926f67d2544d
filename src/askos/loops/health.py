"""Health checks of Zun containers: a shell command inside, again and again, beside the container's own process.

What a check says is docker's: "starting" until it has said yes once, or no so many times in a row; then "healthy" or
"unhealthy". Nothing is kept here over a restart of the agent: the last report says how far a container had come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

from askos.loops import checks
from askos.loops.checks import Place, Run
from askos.model.capsules import Healthcheck
from askos.model.pods import Container, ExecAction, Probe
from askos.plan import probes
from askos.plan.probes import Course
from askos.plan.reconcile import Health

_log = logging.getLogger(__name__)

MAX_OUTPUT = 1000
"""Characters of a check's words that are kept."""


class _Watched:
    """A container with its check."""

    def __init__(self, capsule_uuid: str, container_id: str, check: Healthcheck, started_us: int, last: Health) -> None:
        self.capsule_uuid = capsule_uuid
        self.container_id = container_id
        self.check = check
        self.started_us = started_us
        self.health = last if last.state else Health("starting")
        decided = {"healthy": True, "unhealthy": False}.get(self.health.state)
        self.course = Course(decided)
        self.task: asyncio.Task[None] | None = None

    @property
    def probe(self) -> Probe:
        """The check in Kubernetes' words, which know the times of everything."""
        return Probe(
            exec=ExecAction(["/bin/sh", "-c", self.check.test]),
            initial_delay_seconds=max(1, self.check.interval_s),
            period_seconds=max(1, self.check.interval_s),
            timeout_seconds=max(1, self.check.timeout_s),
            failure_threshold=max(1, self.check.retries),
            success_threshold=1,
        )

    def halt(self) -> None:
        """Check no more."""
        if self.task is not None:
            self.task.cancel()
            self.task = None


class HealthChecks:
    """All health checks of this host. `changed` is told the capsule whose health is not what it was."""

    def __init__(self, run: Run, clock: Callable[[], int], changed: Callable[[str], None]) -> None:
        self._run = run
        self._clock = clock
        self._changed = changed
        self._watched: dict[str, _Watched] = {}

    def want(
        self, capsule_uuid: str, container_id: str, check: Healthcheck, started_us: int, last: Health, *, paused: bool
    ) -> Health:
        """Check this container of a capsule, and no other of it; returns what is known. `last`: what was reported of
        it. Called at each look: a check that goes on is not disturbed. One that is paused is not checked."""
        watched = self._watched.get(capsule_uuid)
        if watched is None or watched.container_id != container_id:
            self.drop(capsule_uuid)
            watched = self._watched[capsule_uuid] = _Watched(capsule_uuid, container_id, check, started_us, last)
        if paused:
            watched.halt()
        elif watched.task is None:
            watched.task = asyncio.create_task(self._go_on(watched), name=f"health check of {container_id[:12]}")
        return watched.health

    async def hold(self, capsule_uuid: str) -> None:
        """Have no check under way, before a container is paused: one that is frozen could not be ended. It is checked
        again with the next `want`."""
        watched = self._watched.get(capsule_uuid)
        if watched is not None and watched.task is not None:
            task = watched.task
            watched.halt()
            await asyncio.wait([task])

    def drop(self, capsule_uuid: str) -> None:
        """Check nothing of a capsule any more."""
        watched = self._watched.pop(capsule_uuid, None)
        if watched is not None:
            watched.halt()

    async def _go_on(self, watched: _Watched) -> None:
        probe = watched.probe
        due_us = probes.first_us(probe, watched.started_us, self._clock())
        while True:
            await asyncio.sleep(max(0.0, (due_us - self._clock()) / 1e6))
            begun_us = self._clock()
            try:
                await self._once(watched, probe)
            except Exception:
                _log.exception("the health check of container %s failed to run", watched.container_id)
            due_us = probes.next_us(probe, begun_us, self._clock())

    async def _once(self, watched: _Watched, probe: Probe) -> None:
        assert probe.exec is not None, "it was made with a command"
        place = Place("", "", watched.container_id, Container("main", ""))
        outcome = await checks.command(self._run, place, probe.exec, float(probe.timeout_seconds))
        if outcome.good is None and not outcome.output:
            return  # It is just going away.
        # A check that cannot be run says as much as one that fails: docker counts it so, too.
        watched.course = probes.note(watched.course, probe, good=bool(outcome.good))
        verdict = watched.course.verdict
        state: Literal["starting", "healthy", "unhealthy"]
        state = "starting" if verdict is None else "healthy" if verdict else "unhealthy"
        if state != watched.health.state:
            watched.health = Health(state, outcome.output.strip()[:MAX_OUTPUT])
            self._changed(watched.capsule_uuid)
