"""`decide` for pods: deletion, deadlines, eviction."""

from __future__ import annotations

import msgspec
import pytest

from askos.model.capsules import Report
from askos.model.pods import Probe
from askos.plan.pods import steps

from .pod_world import HOOK, PRE_STOP, PodWorld, S, app, assignment, change, sidecar


def up(*apps: object, **fields: object) -> PodWorld:
    world = PodWorld(assignment(*apps, **fields))  # type: ignore[arg-type]
    world.settle()
    return world


def nothing_left(world: PodWorld) -> bool:
    return not (world.sandboxes or world.instances or world.leftovers)


# -- deletion ---------------------------------------------------------------------------------------------------


def test_a_delete_tells_how_it_ended_and_leaves_nothing() -> None:
    world = up(app("a"), app("b"))
    world.log.clear()
    world.delete()
    decision = world.settle()
    assert decision.gone and nothing_left(world)
    assert world.log == ["Terminate a", "Terminate b", "StopSandbox", "RemoveSandbox", "TearDown"]
    assert world.pod.phase == "Failed"
    assert [c.ended and c.ended.exit_code for c in world.pod.containers] == [143, 143]
    assert world.events == ["N Killing a", "N Killing b"]


def test_containers_end_side_by_side_within_the_grace() -> None:
    world = up(app("a", lifecycle=PRE_STOP), app("b"))
    world.delete(7)
    at_us = world.now
    decision = world.look()
    assert [(x.container, x.deadline_us, x.pre_stop) for x in decision.actions] == [  # type: ignore[union-attr]
        ("a", at_us + 7 * S, True),
        ("b", at_us + 7 * S, False),
    ]
    assert not decision.settled and not decision.gone and world.pod.phase == "Running"
    world.now += 60 * S
    assert world.look().actions == []


def test_sidecars_end_last_one_by_one_in_reverse() -> None:
    world = up(init=[sidecar("s"), sidecar("t")])
    world.delete()
    decision = world.look()
    assert world.log[-1] == "Terminate web" and decision.look_us == world.now + 30 * S
    world.complete("container/web")
    world.look()
    assert world.log[-2:] == ["Terminate web", "Terminate t"]
    world.complete("container/t")
    world.look()
    assert world.log[-1] == "Terminate s"
    assert world.settle().gone


def test_at_the_deadline_sidecars_end_all_at_once() -> None:
    world = up(init=[sidecar("s"), sidecar("t")])
    world.delete(5)
    world.look()
    world.now += 5 * S
    decision = world.look()
    assert [x.container for x in decision.actions] == ["s", "t"]  # type: ignore[union-attr]


def test_no_grace_kills_without_a_hook() -> None:
    world = up(app(lifecycle=PRE_STOP))
    world.delete(0)
    (action,) = world.look().actions
    assert isinstance(action, steps.Terminate)
    assert not action.pre_stop and action.deadline_us <= world.now


def test_a_later_delete_shortens_the_grace() -> None:
    world = up()
    world.delete(300)
    world.look()
    world.under_way.clear()  # The worker breaks it off for the new wish.
    world.delete(1)
    (action,) = world.look().actions
    assert isinstance(action, steps.Terminate) and action.deadline_us == world.now + S


def test_a_running_init_container_ends_too() -> None:
    world = up(init=[app("i"), app("j")])
    world.delete()
    decision = world.settle()
    assert decision.gone and "Terminate i" in world.log
    assert world.report("i").ended is not None
    assert world.report("j").state == "waiting" and world.report().reason == "PodInitializing"


def test_a_delete_before_anything_was_made() -> None:
    world = PodWorld(assignment())
    world.delete()
    assert world.look().gone and world.log == []


@pytest.mark.parametrize("looks", range(1, 8))
@pytest.mark.parametrize("how", ["works", "fails", "not", "made", "broken", "done"])
def test_a_delete_at_every_step_of_coming_up(looks: int, how: str) -> None:
    first = app("a", lifecycle=HOOK)
    world = PodWorld(assignment(first, app("b", "busybox:2"), init=[app("i"), sidecar("s")]))
    for _ in range(looks):
        world.look()
        for key in list(world.under_way):
            world.complete(key)
        world.exit("i", 0)
    world.look()
    world.delete()
    if how == "fails":
        for key in list(world.under_way):
            world.fail(key)
    elif how != "works":
        world.crash(how)  # type: ignore[arg-type]
    else:
        waiting = world.look()
        assert not waiting.gone
    assert world.settle().gone and nothing_left(world)


def test_a_delete_waits_for_a_sandbox_in_the_making_but_for_no_pull() -> None:
    world = PodWorld(assignment(app(image="busybox:2")))
    world.look()
    world.complete("volumes")
    world.look()
    assert set(world.under_way) == {"sandbox", "pull/docker.io/library/busybox:2"}
    world.delete()
    assert world.look().actions == []
    world.complete("sandbox")
    for _ in range(6):
        decision = world.look()
        for key in [key for key in world.under_way if not key.startswith("pull/")]:
            world.complete(key)
    assert decision.gone and nothing_left(world)


def test_a_delete_in_a_pause_tells_the_real_end() -> None:
    world = up()
    for _ in range(2):
        world.exit("web", 4)
        world.settle()
    assert world.report().reason == "CrashLoopBackOff"
    world.delete()
    assert world.settle().gone
    assert world.report().state == "terminated" and world.report().restarts == 1
    assert world.report().ended is not None and world.report().ended.exit_code == 4


def test_a_delete_of_what_was_over_keeps_its_phase() -> None:
    world = up(restart_policy="Never")
    world.exit("web", 0)
    world.settle()
    world.delete()
    assert world.settle().gone and world.pod.phase == "Succeeded"


def test_failing_removals_are_tried_again() -> None:
    world = up()
    world.delete()
    world.look()
    world.fail("container/web")
    decision = world.settle()
    assert not decision.gone and decision.look_us is not None
    world.now = decision.look_us
    world.look()
    world.complete("container/web")
    world.look()
    world.fail("sandbox")
    assert not world.settle().gone
    assert world.wait().gone and nothing_left(world)


def test_ends_are_told_before_the_records_go() -> None:
    world = up()
    world.lose_sandbox()
    world.delete()
    decision = world.look()
    assert decision.actions == [] and decision.look_us == world.now
    assert world.report().state == "terminated"
    assert [type(x) for x in world.look().actions] == [steps.RemoveSandbox]


def test_probes_go_on_while_it_ends_but_kill_no_more() -> None:
    world = up(app(readiness_probe=Probe()))
    c = world.live("web")[0]
    world.delete()
    assert world.look().probe == [c.id]
    world.probes[c.id] = steps.ProbeState(True, True, "liveness")
    assert world.look().actions == []


# -- deadlines and eviction ----------------------------------------------------------------------------------------


def test_a_pod_is_failed_at_its_deadline() -> None:
    world = up(active_deadline_seconds=60)
    assert world.decision is not None and world.decision.settled
    assert world.decision.look_us == 1_000 * S + 60 * S
    world.now = world.decision.look_us
    world.look()
    assert world.pod.phase == "Running" and world.log[-1] == "Terminate web"
    world.crash("not")
    decision = world.settle()
    assert (world.pod.phase, world.pod.reason) == ("Failed", "DeadlineExceeded") and decision.settled
    assert world.events.count("N DeadlineExceeded") == 1
    assert not any(s.ready for s in world.sandboxes.values()) and world.instances


def test_a_shortened_deadline_counts_from_the_start() -> None:
    world = up()
    world.now += 100 * S
    world.give(change(world.a, active_deadline_seconds=50))
    world.settle()
    assert world.pod.reason == "DeadlineExceeded"


def test_a_pod_that_waits_for_its_image_has_a_deadline_too() -> None:
    world = up(app(image="nowhere:1"), active_deadline_seconds=5)
    world.wait()
    assert world.pod.phase == "Failed" and world.report().ended is not None


def test_an_evicted_pod_fails_and_stays_so() -> None:
    world = up(app(lifecycle=PRE_STOP), init=[sidecar("s")])
    world.evicted = "It uses too much disk."
    world.look()
    world.crash("not")
    world.evicted = ""
    decision = world.settle()
    assert (world.pod.phase, world.pod.reason, world.pod.message) == ("Failed", "Evicted", "It uses too much disk.")
    assert world.condition("DisruptionTarget").reason == "TerminationByKubelet"
    assert world.events[0] == "W Evicted" and decision.settled
    world.give(change(world.a, containers=[app(image="busybox:2")]))
    world.settle()
    assert world.pod.phase == "Failed" and world.condition("DisruptionTarget").status
    world.delete()
    assert world.settle().gone and world.pod.reason == "Evicted"


def test_a_delete_waits_for_a_start_and_ends_it_with_its_grace() -> None:
    world = PodWorld(assignment())
    while "container/web" not in world.under_way:
        world.look()
        for key in [key for key in world.under_way if key != "container/web"]:
            world.complete(key)
    world.delete()
    assert world.look().actions == []
    world.complete("container/web")
    world.look()
    assert world.log[-1] == "Terminate web"
    assert world.settle().gone


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_what_was_reported_as_over_stays_so(phase: str) -> None:
    world = up()
    world.a = msgspec.structs.replace(world.a, report=Report(pod=msgspec.structs.replace(world.pod, phase=phase)))
    world.settle()
    assert world.pod.phase == phase and not world.live()
    assert not any(s.ready for s in world.sandboxes.values())
