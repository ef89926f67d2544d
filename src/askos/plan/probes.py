"""When probes run and what their outcomes add up to, as Kubernetes' kubelet does it; without chance or clock.

A container has up to three probes. Startup gates the others: until it has succeeded they do not run. Before the first
run readiness counts as failed, liveness as good, startup as unknown. Outcomes change that only in a row: so many
failures (`failureThreshold`) or successes (`successThreshold`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from askos.model.pods import Container, Probe
from askos.plan.pods.steps import ProbeState

Kind = Literal["startup", "liveness", "readiness"]
KINDS: tuple[Kind, ...] = ("startup", "liveness", "readiness")


class Course(msgspec.Struct, frozen=True):
    """How one probe stands: `row` equal outcomes (`last`) in a row; `verdict`: what counts now, None unknown."""

    verdict: bool | None
    last: bool | None = None
    row: int = 0


def probe_of(container: Container, kind: Kind) -> Probe | None:
    """The container's probe of this kind, if it has one."""
    match kind:
        case "startup":
            return container.startup_probe
        case "liveness":
            return container.liveness_probe
        case "readiness":
            return container.readiness_probe


def begin(kind: Kind, *, started: bool, ready: bool) -> Course:
    """Before the first run. `started`, `ready`: what was reported of this container before, if anything was."""
    match kind:
        case "startup":
            return Course(True if started else None)
        case "liveness":
            return Course(True)
        case "readiness":
            return Course(ready)


def note(course: Course, probe: Probe, *, good: bool) -> Course:
    """After one more outcome."""
    row = course.row + 1 if course.last == good else 1
    needed = probe.success_threshold if good else probe.failure_threshold
    return Course(good if row >= needed else course.verdict, good, row)


def runs(kind: Kind, course: Course, *, started: bool, stopping: bool) -> bool:
    """Whether the probe is to run at all now. What has decided a container's fate is not asked again."""
    match kind:
        case "startup":
            return course.verdict is None and not stopping
        case "liveness":
            return started and course.verdict is True and not stopping
        case "readiness":
            return started


def first_us(probe: Probe, started_us: int, now_us: int) -> int:
    """When the probe runs first, given the start of its container.

    A first time that has just passed means now. When it is long gone (the agent was restarted) the probe keeps to the
    times that it would have run at anyway, which also spreads the work of many.
    """
    due = started_us + probe.initial_delay_seconds * 1_000_000
    period = max(probe.period_seconds, 1) * 1_000_000
    late = now_us - due
    if late < 0:
        return due
    return now_us if late < period else now_us + period - late % period


def next_us(probe: Probe, begun_us: int, ended_us: int) -> int:
    """When the probe runs again after a run. One that takes longer than its period follows upon itself."""
    return max(begun_us + max(probe.period_seconds, 1) * 1_000_000, ended_us)


def opened_us(probe: Probe, started_us: int, now_us: int) -> int:
    """When a probe runs first after the startup probe has just let it."""
    return max(started_us + probe.initial_delay_seconds * 1_000_000, now_us)


def state(container: Container, courses: dict[Kind, Course], *, stopping: bool) -> ProbeState:
    """What the probes say about a container. Probes that it does not have say that all is well."""
    started = "startup" not in courses or courses["startup"].verdict is True
    ready = started and ("readiness" not in courses or courses["readiness"].verdict is True)
    if not stopping:
        for kind in ("startup", "liveness"):
            probe = probe_of(container, kind)
            if probe is not None and kind in courses and courses[kind].verdict is False:
                fatal = f"Container {container.name} failed {kind} probe"
                return ProbeState(started, ready, fatal, probe.termination_grace_period_seconds)
    return ProbeState(started, ready)
