"""When probes run and what outcomes add up to: the pure part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askos.model.pods import Container, Probe, TcpSocket
from askos.plan import probes
from askos.plan.pods.steps import ProbeState
from askos.plan.probes import Course

S = 1_000_000
T0 = 1_700_000_000 * S


def probe(**more: object) -> Probe:
    return Probe(tcp_socket=TcpSocket(80), **more)  # type: ignore[arg-type]


def after(course: Course, outcomes: str, **more: object) -> Course:
    """`outcomes`: + for good, - for bad."""
    for outcome in outcomes:
        course = probes.note(course, probe(**more), good=outcome == "+")
    return course


def test_before_the_first_run() -> None:
    assert probes.begin("readiness", started=False, ready=False).verdict is False
    assert probes.begin("liveness", started=False, ready=False).verdict is True
    assert probes.begin("startup", started=False, ready=False).verdict is None


def test_a_restarted_agent_goes_on_where_it_was() -> None:
    assert probes.begin("readiness", started=True, ready=True).verdict is True
    assert probes.begin("startup", started=True, ready=False).verdict is True


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [("--", True), ("---", False), ("--+--", True), ("--+---", False), ("---+", False), ("---++", True)],
)
def test_thresholds_count_in_a_row(outcomes: str, verdict: bool) -> None:
    assert after(Course(True), outcomes, failure_threshold=3, success_threshold=2).verdict is verdict


@given(st.text("+-", max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_the_verdict_is_that_of_the_last_row_that_was_long_enough(outcomes: str, good: int, bad: int) -> None:
    expected: bool | None = None
    for end in range(1, len(outcomes) + 1):
        if outcomes[:end].endswith("+" * good):
            expected = True
        elif outcomes[:end].endswith("-" * bad):
            expected = False
    assert after(Course(None), outcomes, success_threshold=good, failure_threshold=bad).verdict is expected


def test_who_runs_when() -> None:
    fresh = {kind: probes.begin(kind, started=False, ready=False) for kind in probes.KINDS}

    def running(*, started: bool, stopping: bool = False, **courses: Course) -> set[str]:
        now = {**fresh, **courses}
        return {kind for kind in probes.KINDS if probes.runs(kind, now[kind], started=started, stopping=stopping)}

    assert running(started=False) == {"startup"}
    assert running(started=True, startup=Course(True)) == {"liveness", "readiness"}
    assert running(started=False, startup=Course(False)) == set()
    assert running(started=True, startup=Course(True), liveness=Course(False)) == {"readiness"}
    # While it is terminating only readiness goes on.
    assert running(started=True, startup=Course(True), stopping=True) == {"readiness"}
    assert running(started=False, stopping=True) == set()


def test_the_first_run() -> None:
    p = probe(initial_delay_seconds=5, period_seconds=10)
    assert probes.first_us(p, T0, T0) == T0 + 5 * S
    assert probes.first_us(p, T0, T0 + 5 * S) == T0 + 5 * S
    # Seen a little late: at once. Seen much later, by a restarted agent: at the times it always had.
    assert probes.first_us(p, T0, T0 + 9 * S) == T0 + 9 * S
    assert probes.first_us(p, T0, T0 + 108 * S) == T0 + 115 * S
    assert probes.opened_us(p, T0, T0 + 108 * S) == T0 + 108 * S
    assert probes.opened_us(p, T0, T0 + 2 * S) == T0 + 5 * S


@given(st.integers(0, 100), st.integers(1, 100), st.integers(0, 10_000_000_000))
def test_the_first_run_is_neither_early_nor_a_period_late(delay: int, period: int, late_us: int) -> None:
    p = probe(initial_delay_seconds=delay, period_seconds=period)
    now = T0 + late_us
    due = probes.first_us(p, T0, now)
    assert due >= max(now, T0 + delay * S)
    assert due <= max(now + period * S, T0 + delay * S)


def test_the_next_run() -> None:
    p = probe(period_seconds=10)
    assert probes.next_us(p, T0, T0 + 1 * S) == T0 + 10 * S
    assert probes.next_us(p, T0, T0 + 12 * S) == T0 + 12 * S


def test_states() -> None:
    every = Container(
        "web",
        "busybox",
        startup_probe=probe(termination_grace_period_seconds=7),
        liveness_probe=probe(),
        readiness_probe=probe(),
    )
    good, bad = Course(True), Course(False)

    def state(startup: Course, liveness: Course, readiness: Course, *, stopping: bool = False) -> ProbeState:
        return probes.state(
            every, {"startup": startup, "liveness": liveness, "readiness": readiness}, stopping=stopping
        )

    assert probes.state(Container("web", "busybox"), {}, stopping=False) == ProbeState(True, True)
    assert state(good, good, good) == ProbeState(True, True)
    assert state(good, good, bad) == ProbeState(True, False)
    assert state(Course(None), good, good) == ProbeState(False, False)
    assert state(bad, good, bad) == ProbeState(False, False, "Container web failed startup probe", 7)
    assert state(good, bad, good) == ProbeState(True, True, "Container web failed liveness probe")
    assert state(good, bad, good, stopping=True) == ProbeState(True, True)
