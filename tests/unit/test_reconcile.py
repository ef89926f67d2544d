"""`decide`: state in, actions out, on a world in memory that refuses what a runtime would refuse."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askos.model.capsules import Assignment, Wish
from askos.plan import reconcile as r

from .world import World, assignment


def rewish(a: Assignment, state: str, *, run: int | None = None) -> Assignment:
    wish = Wish(
        state, a.wish.generation + 1, a.wish.run if run is None else run, rebuilt_run=a.wish.rebuilt_run
    )  # fmt: skip
    return msgspec.structs.replace(a, wish=wish)


def rebuild(a: Assignment) -> Assignment:
    """As the API does: what ran is to run again, what did not is only made ready."""
    running = a.wish.state in ("running", "paused")
    again = rewish(a, "running" if running else "created", run=a.wish.run + running)
    wish = msgspec.structs.replace(again.wish, rebuilt_run=a.wish.run + 1, task="rebuilding")
    return msgspec.structs.replace(again, wish=wish)


def running() -> tuple[World, Assignment]:
    world = World()
    a, _ = world.settle(assignment(state="running", run=1))
    return world, a


def test_a_run_is_brought_up_and_settles() -> None:
    world, a = running()
    assert world.starts == [(1, 0)]
    assert a.report.settled
    assert a.report.state == "running"
    assert a.report.containers[0].command == ["sleep", "9"]


def test_created_only_needs_the_image() -> None:
    world = World(image=False)
    a, decision = world.settle(assignment(state="created"))
    assert a.report.state == "created"
    assert world.image
    assert not world.sandboxes
    assert decision.look_us is None


def test_an_exit_without_policy_stops_the_sandbox_and_keeps_the_container() -> None:
    world, a = running()
    world.exit(3)
    a, _ = world.settle(a)
    assert a.report.state == "exited"
    assert a.report.containers[0].exit_code == 3
    assert not any(s.ready for s in world.sandboxes.values())
    assert len(world.containers) == 1


def test_start_after_stop_carries_the_files_over() -> None:
    world, a = running()
    a, _ = world.settle(rewish(a, "stopped"))
    assert a.report.state == "exited"
    a, _ = world.settle(rewish(a, "running", run=2))
    assert world.starts == [(1, 0), (2, 0)]
    assert list(world.files[next(iter(world.containers))]) == ["x", "x"]
    assert len(world.containers) == len(world.sandboxes) == 1


def test_reboot_of_a_running_container_stops_it_first() -> None:
    world, a = running()
    decision = r.decide(rewish(a, "running", run=2), world.observed(), None, world.now)
    assert [type(x) for x in decision.actions] == [r.StopContainer]
    assert decision.report.progress == "container_rebooting"


def test_on_failure_counts_and_waits() -> None:
    world = World()
    a, _ = world.settle(assignment("on-failure", 2, state="running", run=1))
    for attempt in (1, 2):
        world.exit(1)
        a, decision = world.settle(a)
        assert a.report.state == "restarting"
        assert decision.look_us is not None
        world.now = decision.look_us
        a, _ = world.settle(a)
        assert world.starts[-1] == (1, attempt)
    world.exit(1)
    a, _ = world.settle(a)
    assert a.report.state == "exited"
    assert a.report.containers[0].restarts == 2


def test_on_failure_does_not_restart_success() -> None:
    world = World()
    a, _ = world.settle(assignment("on-failure", 0, state="running", run=1))
    world.exit(0)
    a, _ = world.settle(a)
    assert a.report.state == "exited"


def test_stop_ends_a_restart_loop() -> None:
    world = World()
    a, _ = world.settle(assignment("always", state="running", run=1))
    world.exit(1)
    a, _ = world.settle(a)
    a, _ = world.settle(rewish(a, "stopped"))
    assert a.report.state == "exited"
    world.now += 10**9
    a, _ = world.settle(a)
    assert world.starts == [(1, 0)]


def test_delete_leaves_nothing_and_says_so() -> None:
    world, a = running()
    a, decision = world.settle(rewish(a, "deleted"))
    assert decision.gone
    assert not world.sandboxes
    assert not world.containers
    assert not world.logs


def test_what_was_removed_behind_our_back_is_an_error_and_not_restarted() -> None:
    world, a = running()
    world.sandboxes.clear()
    world.containers.clear()
    a, _ = world.settle(a)
    assert a.report.state == "error"
    assert "gone from its host" in (a.report.reason or "")
    assert world.starts == [(1, 0)]


def test_what_was_removed_behind_our_back_comes_again_when_always() -> None:
    world = World()
    a, _ = world.settle(assignment("always", state="running", run=1))
    world.sandboxes.clear()
    world.containers.clear()
    world.settle(a)
    assert world.starts == [(1, 0), (1, 1)]


def test_final_trouble_is_an_error_and_frees_the_sandbox() -> None:
    world = World()
    a = assignment(state="running", run=1)
    world.act(r.RunSandbox(0))
    trouble = r.Trouble(1, "no such program", final=True)
    decision = r.decide(a, world.observed(), trouble, world.now)
    assert decision.report.state == "error"
    assert decision.report.reason == "no such program"
    assert [type(x) for x in decision.actions] == [r.StopSandbox]


def test_trouble_of_an_older_wish_does_not_count() -> None:
    world = World()
    decision = r.decide(
        assignment(state="running", run=1, generation=2), world.observed(), r.Trouble(1, "old", final=True), world.now
    )
    assert [type(x) for x in decision.actions] == [r.RunSandbox]


@pytest.mark.parametrize("crash_after", range(8))
@pytest.mark.parametrize("wish", ["running", "stopped", "deleted"])
def test_a_crash_between_any_two_actions_changes_nothing(crash_after: int, wish: str) -> None:
    """The agent dies after any number of actions; another one, which knows only reports, goes on."""
    world = World(image=False)
    first = assignment(state="running", run=1)
    a, _ = world.settle(first, crash_after=crash_after)
    a = rewish(a, wish) if wish != "running" else a
    a, decision = world.settle(a, crash_after=1)
    a, decision = world.settle(a)
    assert world.starts in ([], [(1, 0)])
    if wish == "deleted":
        assert decision.gone
        assert not world.sandboxes
    else:
        assert a.report.settled
        assert a.report.state in ({"running"} if wish == "running" else {"exited", "created"})


def test_a_start_that_was_broken_off_is_done_again() -> None:
    """The agent is killed while containerd starts the container: it never ran, so it has not ended either."""
    world = World(break_off=1)
    a, _ = world.settle(assignment(state="running", run=1))
    assert world.starts == [(1, 0)]
    assert a.report.state == "running"
    assert len(world.containers) == 1


def test_a_second_start_that_was_broken_off_keeps_the_files() -> None:
    world, a = running()
    a, _ = world.settle(rewish(a, "stopped"))
    world.break_off = 1
    a, _ = world.settle(rewish(a, "running", run=2))
    assert world.starts == [(1, 0), (2, 0)]
    assert [world.files[c] for c in world.containers] == ["xx"]


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "start",
                "stop",
                "reboot",
                "exit0",
                "exit1",
                "reboot-host",
                "break",
                "later",
                "pause",
                "unpause",
                "rebuild",
            ]
        ),
        st.one_of(st.none(), st.integers(0, 6)),
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(steps=_STEPS, policy=st.sampled_from(["no", "always", "on-failure", "unless-stopped"]))
def test_no_history_starts_a_run_twice(steps: list[tuple[str, int | None]], policy: str) -> None:
    """Any sequence of wishes, exits, crashes and reboots: every (run, attempt) at most once, files never lost."""
    world = World()
    a = assignment(policy, state="running", run=1)
    for what, crash_after in steps:
        if what == "start" and not any(c.state == "running" for c in world.containers.values()):
            a = rewish(a, "running", run=a.wish.run + 1)
        elif what == "stop":
            a = rewish(a, "stopped")
        elif what == "pause":
            a = rewish(a, "paused") if a.wish.state == "running" else a
        elif what == "unpause":
            a = rewish(a, "running") if a.wish.state == "paused" else a
        elif what == "rebuild":
            a = rebuild(a)
        elif what == "reboot":
            a = rewish(a, "running", run=a.wish.run + 1)
        elif what.startswith("exit"):
            world.exit(int(what[-1]))
        elif what == "reboot-host":
            for sandbox in list(world.sandboxes.values()):
                world.act(r.StopSandbox(sandbox.id))
        elif what == "break":
            world.break_off = 1
        else:
            world.now += 120_000_000
        a, _ = world.settle(a, crash_after=crash_after)
    a, _ = world.settle(a)
    assert len(world.starts) == len(set(world.starts))
    assert world.starts == sorted(world.starts)
    held = "".join(world.files[c] for c in world.containers)
    gone = "".join(world.removed)
    assert len(held) + len(gone) == len(world.starts)
    if all(what != "rebuild" for what, _ in steps):
        assert not gone
    if a.wish.state == "paused":
        assert not any(c.state == "running" for c in world.containers.values())
    _, decision = world.settle(rewish(a, "deleted"))
    assert decision.gone
    assert not world.containers
