"""`decide` for pods: how they come up, restart, change and lose their sandbox, on a host in memory."""

from __future__ import annotations

import msgspec
import pytest

from askos.model.images import normalise
from askos.model.pods import Probe, Resources
from askos.plan import backoff
from askos.plan.pods import steps

from .pod_world import HOOK, PRE_STOP, PodWorld, S, app, assignment, change, sidecar

PROBE = Probe()


def up(*apps: object, **fields: object) -> PodWorld:
    """A pod that has come up."""
    world = PodWorld(assignment(*apps, **fields))  # type: ignore[arg-type]
    world.settle()
    return world


# -- coming up --------------------------------------------------------------------------------------------------


def test_a_pod_comes_up_in_order_and_settles() -> None:
    world = up()
    assert world.log == ["SetUpVolumes", "RunSandbox 0", "Launch web 0"]
    assert world.pod.phase == "Running"
    assert world.decision is not None and world.decision.settled and world.decision.look_us is None
    assert world.report().ready and world.report().started
    assert world.events == []


def test_the_first_report_has_every_container() -> None:
    world = PodWorld(assignment(app("a"), app("b")))
    world.look()
    assert [c.reason for c in world.pod.containers] == ["ContainerCreating"] * 2
    assert world.pod.phase == "Pending"
    assert world.pod.start_us == 1_000 * S


def test_images_are_pulled_beside_the_sandbox() -> None:
    world = PodWorld(assignment(app("a"), app("b", "busybox:2"), init=[app("i", "busybox:2")]))
    decision = world.look()
    assert [type(x).__name__ for x in decision.actions] == ["SetUpVolumes", "PullImage"]
    world.settle()


def test_init_containers_run_one_by_one_and_then_the_others() -> None:
    world = up(app("a"), app("b"), init=[app("i"), app("j")])
    assert [c.reason for c in world.pod.containers] == ["PodInitializing"] * 2
    assert world.report("i").state == "running"
    assert world.report("j").reason == "PodInitializing"
    assert world.condition("Initialized").message == "containers with incomplete status: [i j]"
    for name in ("i", "j"):
        world.exit(name, 0)
        world.settle()
    assert world.log[2:] == ["Launch i 0", "Launch j 0", "Launch a 0", "Launch b 0"]
    assert world.condition("Initialized").status
    assert world.report("i").ended is not None and world.report("i").ready


def test_a_failed_init_container_is_tried_again_after_a_pause() -> None:
    world = up(init=[app("i")])
    world.exit("i", 1)
    world.settle()
    assert world.log[-1] == "Launch i 1"
    world.exit("i", 1)
    world.settle()
    assert world.report("i").reason == "CrashLoopBackOff"
    world.wait()
    world.exit("i", 0)
    world.settle()
    assert world.report().state == "running" and world.report("i").restarts == 2
    assert world.pod.phase == "Running"


def test_a_failed_init_container_ends_a_pod_that_never_restarts() -> None:
    world = up(init=[app("i"), app("j")], restart_policy="Never")
    world.exit("i", 3)
    decision = world.settle()
    assert world.pod.phase == "Failed" and decision.settled
    assert world.report().reason == "PodInitializing"
    assert world.report("j").state == "waiting"
    assert not any(s.ready for s in world.sandboxes.values())


def test_a_sidecar_has_to_be_started_before_the_next_one() -> None:
    world = up(init=[sidecar("s", startup_probe=PROBE), app("i")])
    c = world.live("s")[0]
    assert not world.live("i")
    assert world.decision is not None and world.decision.probe == [c.id]
    assert world.report("s").state == "running" and not world.report("s").started
    world.probes[c.id] = steps.ProbeState(started=True, ready=True)
    world.settle()
    assert world.live("i") and world.report("s").started
    world.exit("i", 0)
    world.settle()
    assert world.live("web")


def test_a_sidecar_restarts_even_if_the_pod_never_does() -> None:
    world = up(init=[sidecar("s")], restart_policy="Never")
    assert world.live("web")
    world.exit("s", 0)
    world.settle()
    assert world.report("s").restarts == 1 and world.live("s")
    assert world.pod.phase == "Running"


def test_a_container_waits_for_the_hook_of_the_one_before() -> None:
    world = PodWorld(assignment(app("a", lifecycle=HOOK), app("b")))
    while not world.live("a"):
        world.look()
        for key in list(world.under_way):
            world.complete(key)
    world.look()
    hook = world.live("a")[0].id
    assert f"hook/{hook}" in world.under_way
    assert world.report("a").state == "waiting" and world.report("a").container_id == hook
    assert world.decision is not None and world.decision.probe == []
    assert not world.live("b")
    world.settle()
    assert world.live("b") and world.report("a").state == "running"


def test_a_container_waits_while_the_one_before_starts() -> None:
    world = PodWorld(assignment(app("a"), app("b")))
    while "container/a" not in world.under_way:
        world.look()
        for key in [key for key in world.under_way if key != "container/a"]:
            world.complete(key)
    world.look()
    assert set(world.under_way) == {"container/a"}
    world.settle()
    assert world.log[-2:] == ["Launch a 0", "Launch b 0"]


def test_containers_start_in_order_but_a_failing_one_holds_up_nobody() -> None:
    world = PodWorld(assignment(app("a", "nowhere:1"), app("b")))
    world.settle()
    assert world.live("b")
    assert world.report("a").reason == "ErrImagePull"
    assert world.pod.phase == "Pending"


# -- images -----------------------------------------------------------------------------------------------------


def test_a_pull_that_fails_is_tried_again_with_pauses() -> None:
    world = up(app(image="nowhere:1"))
    assert world.report().reason == "ErrImagePull" and world.report().message == "ErrImagePull!"
    assert world.decision is not None and not world.decision.settled
    world.wait()
    assert world.report().reason == "ImagePullBackOff"
    assert 'Back-off pulling image "nowhere:1"' in world.report().message
    assert world.events == ["N BackOff web"]
    world.registry.add(normalise("nowhere:1"))
    world.wait()
    assert world.report().state == "running" and world.report().restarts == 0
    assert world.pod.phase == "Running"


@pytest.mark.parametrize(
    ("image", "policy", "pulls"),
    [
        ("busybox:1", None, False),
        ("busybox:1", "Always", True),
        ("busybox", None, True),
        ("busybox:latest", None, True),
        ("busybox:latest", "IfNotPresent", False),
        ("busybox:latest", "Never", False),
        ("busybox@sha256:" + "0" * 64, None, False),
    ],
)
def test_when_an_image_that_is_there_is_pulled(image: str, policy: str | None, pulls: bool) -> None:
    world = PodWorld(assignment(app(image=image, image_pull_policy=policy)))
    world.images.add(normalise(image))
    world.registry.add(normalise(image))
    world.settle()
    assert any(line.startswith("PullImage") for line in world.log) is pulls
    assert world.live("web")
    world.exit("web")
    world.settle()
    assert sum(line.startswith("PullImage") for line in world.log) == (2 if pulls else 0)


def test_never_pull_what_is_not_there() -> None:
    world = up(app(image="busybox:2", image_pull_policy="Never"))
    assert world.report().reason == "ErrImageNeverPull"
    assert world.events == ["W ErrImageNeverPull web", "W Failed web"]
    assert world.decision is not None and world.decision.settled
    world.give(change(world.a, containers=[app(image="busybox:1", image_pull_policy="Never")]))
    world.settle()
    assert world.live("web")


def test_a_name_that_is_none_waits_for_another() -> None:
    world = up(app(image="Not/A name"))
    assert world.report().reason == "InvalidImageName"
    assert "Image name" in world.report().message
    assert world.events == ["W InspectFailed web", "W Failed web"]


def test_two_containers_share_a_pull() -> None:
    world = up(app("a", "busybox:2"), app("b", "busybox:2"))
    assert sum(line.startswith("PullImage") for line in world.log) == 1


# -- restarts ---------------------------------------------------------------------------------------------------


def test_crashes_back_off_and_a_long_run_is_forgiven() -> None:
    world = up()
    pauses = []
    for _ in range(8):
        world.exit("web", 1)
        ended_us = world.now
        decision = world.settle()
        if world.report().state == "waiting":
            assert world.report().reason == "CrashLoopBackOff"
            assert world.report().last is not None and world.report().last.exit_code == 1
            assert decision.look_us is not None and not decision.settled
            world.wait()
        pauses.append((world.live("web")[0].started_us or 0) - ended_us)
    assert [round(p / S) for p in pauses] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert world.report().restarts == 8 and world.report().crashes == 8
    assert world.pod.phase == "Running"
    assert world.events == ["W BackOff web"] * 7
    world.now += backoff.CRASH_RESET_US
    world.exit("web", 1)
    world.settle()
    assert world.live("web") and world.report().crashes == 1 and world.report().restarts == 9


def test_the_pause_outlasts_the_agent() -> None:
    world = up()
    for _ in range(2):
        world.exit("web", 1)
        world.settle()
    due_us = world.decision and world.decision.look_us
    world.crash()
    decision = world.settle()
    assert decision.look_us == due_us and not world.live("web")
    world.wait()
    assert world.report().restarts == 2


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [
        ("Never", 0, "Succeeded"),
        ("Never", 1, "Failed"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 1, "Running"),
        ("Always", 0, "Running"),
    ],
)
def test_what_an_end_means(policy: str, code: int, phase: str) -> None:
    world = up(restart_policy=policy)
    world.exit("web", code)
    decision = world.settle()
    assert world.pod.phase == phase and decision.settled
    if phase == "Running":
        assert world.report().restarts == 1 and world.live("web")
        return
    ended = world.report().ended
    assert ended is not None and ended.exit_code == code
    assert ended.reason == ("Error" if code else "Completed")
    assert not any(s.ready for s in world.sandboxes.values()) and len(world.instances) == 1


def test_a_job_with_two_containers_is_over_when_both_are() -> None:
    world = up(app("a"), app("b"), restart_policy="Never")
    world.exit("a", 0)
    world.settle()
    assert world.pod.phase == "Running" and world.report("a").state == "terminated"
    world.exit("b", 2)
    world.settle()
    assert world.pod.phase == "Failed"


def test_sidecars_end_in_reverse_order_when_the_others_are_through() -> None:
    world = up(init=[sidecar("s"), sidecar("t")], restart_policy="OnFailure")
    world.exit("web", 0)
    world.look()
    assert world.log[-1] == "Terminate t" and world.pod.phase == "Running"
    world.settle()
    assert world.log[-3:] == ["Terminate t", "Terminate s", "StopSandbox"]
    assert world.pod.phase == "Succeeded"
    assert world.condition("Ready").reason == "PodCompleted"


def test_the_last_end_stays_for_its_logs_and_older_ones_go() -> None:
    world = up()
    for _ in range(3):
        world.exit("web", 1)
        world.settle()
        if not world.live("web"):
            world.wait()
    assert sorted(c.attempt for c in world.instances.values()) == [2, 3]


def test_a_removed_container_is_an_unknown_end() -> None:
    world = up(restart_policy="OnFailure")
    world.instances.clear()
    world.settle()
    last = world.report().last
    assert last is not None and last.exit_code == 137 and last.reason == "ContainerStatusUnknown"
    assert world.report().restarts == 1 and world.live("web")
    world = up(restart_policy="Never")
    world.instances.clear()
    world.settle()
    assert world.pod.phase == "Failed"


def test_out_of_memory_and_signals_are_told() -> None:
    world = up(restart_policy="Never")
    world.exit("web", 137, "OOMKilled")
    world.settle()
    ended = world.report().ended
    assert ended is not None and (ended.reason, ended.signal) == ("OOMKilled", 9)


# -- starts that fail --------------------------------------------------------------------------------------------


def to_launch(world: PodWorld) -> PodWorld:
    while "container/web" not in world.under_way:
        world.look()
        for key in list(world.under_way):
            if key != "container/web":
                world.complete(key)
    return world


def test_what_was_created_is_started_after_a_crash() -> None:
    world = to_launch(PodWorld(assignment()))
    world.crash("made")
    world.settle()
    assert world.log[-1] == "Start web" and world.report().restarts == 0


def test_a_start_that_was_broken_off_is_made_again_at_once() -> None:
    world = to_launch(PodWorld(assignment(restart_policy="Never")))
    world.crash("broken")
    world.settle()
    assert world.live("web") and world.report().restarts == 1 and world.report().last is None
    assert [c.attempt for c in world.instances.values()] == [1]


def test_a_program_that_cannot_be_started_is_an_end() -> None:
    world = to_launch(PodWorld(assignment(restart_policy="Never")))
    world.fail("container/web", "RunContainerError", final=True)
    world.settle()
    ended = world.report().ended
    assert world.pod.phase == "Failed" and ended is not None
    assert (ended.reason, ended.exit_code, ended.message) == ("StartError", 128, "RunContainerError!")


def test_a_program_that_cannot_be_started_backs_off() -> None:
    world = to_launch(PodWorld(assignment()))
    world.fail("container/web", "RunContainerError", final=True)
    world.look()
    assert world.report().reason == "RunContainerError"
    world.fail("container/web", "RunContainerError", final=True)
    decision = world.settle()
    assert world.report().reason == "RunContainerError" and world.report().crashes == 2
    ended = world.report().last
    assert ended is not None and decision.look_us == (ended.finished_us or 0) + 10 * S
    world.crash()
    assert world.settle().look_us == decision.look_us
    world.wait()
    assert world.live("web") and world.report().restarts == 2
    assert world.report().last is not None and world.report().last.reason == "StartError"


def test_missing_content_waits_and_is_tried_again() -> None:
    world = to_launch(PodWorld(assignment()))
    world.fail("container/web", "CreateContainerConfigError")
    world.settle()
    assert world.report().reason == "CreateContainerConfigError"
    assert world.report().message == "CreateContainerConfigError!"
    assert world.log.count("Launch web 0") == 1
    world.wait()
    assert world.report().state == "running" and world.report().restarts == 0


def test_a_trouble_of_an_older_definition_does_not_count() -> None:
    world = to_launch(PodWorld(assignment()))
    world.fail("container/web", "CreateContainerError", final=True)
    trouble = world.troubles["container/web"]
    world.troubles["container/web"] = msgspec.structs.replace(trouble, spec_hash="busybox:1")
    world.settle()
    assert world.report().reason == "CreateContainerError"
    kept = dict(world.troubles)
    world.give(change(world.a, containers=[app(image="busybox:2")]))
    world.troubles = kept
    world.settle()
    assert world.live("web")


def test_volumes_and_sandbox_are_tried_again() -> None:
    world = PodWorld(assignment())
    world.look()
    world.fail("volumes")
    assert world.settle().look_us is not None and world.report().reason == "ContainerCreating"
    world.now = world.decision.look_us  # type: ignore[union-attr, assignment]
    world.look()
    world.complete("volumes")
    world.look()
    world.fail("sandbox")
    world.settle()
    assert not world.live("web")
    world.wait()
    assert world.live("web")


# -- hooks and probes --------------------------------------------------------------------------------------------


def to_hook(world: PodWorld) -> str:
    for _ in range(10):
        world.look()
        hook = next((key for key in world.under_way if key.startswith("hook/")), None)
        if hook is not None:
            return hook
        for key in list(world.under_way):
            world.complete(key)
    raise AssertionError("no hook")


@pytest.mark.parametrize("policy", ["Always", "Never"])
def test_a_hook_that_fails_ends_the_container(policy: str) -> None:
    world = PodWorld(assignment(app(lifecycle=HOOK), restart_policy=policy))
    key = to_hook(world)
    world.under_way.pop(key)
    world.hooks[key.removeprefix("hook/")] = "exit code 1"
    world.look()
    assert world.report().reason == "PostStartHookError" and world.report().message == "exit code 1"
    assert world.log[-1] == "Terminate web"
    world.crash("not")
    world.settle()
    assert world.events.count("W FailedPostStartHook web") == 1
    if policy == "Never":
        assert world.pod.phase == "Failed"
    else:
        assert world.report().state == "running" and world.report().restarts == 1


def test_a_done_hook_is_not_run_again_by_a_new_agent() -> None:
    world = up(app(lifecycle=HOOK))
    world.crash()
    world.settle()
    assert world.log.count("PostStart web") == 1 and world.report().restarts == 0


def test_a_container_that_its_probe_gives_up_is_restarted() -> None:
    world = up(app(liveness_probe=PROBE, lifecycle=PRE_STOP))
    c = world.live("web")[0]
    world.probes[c.id] = steps.ProbeState(True, True, "Container web failed liveness probe", 5)
    decision = world.look()
    assert decision.actions == [
        steps.Terminate("web", c.id, world.now + 5 * S, True, "Container web failed liveness probe, will be restarted")
    ]
    assert world.events == ["N Killing web"]
    world.settle()
    assert world.report().restarts == 1 and world.live("web")


def test_readiness_comes_from_the_probe_and_outlasts_the_agent() -> None:
    world = up(app(readiness_probe=PROBE))
    c = world.live("web")[0]
    assert world.report().started and not world.report().ready
    assert world.condition("Ready").message == "containers with unready status: [web]"
    world.probes[c.id] = steps.ProbeState(True, True)
    world.now += S
    world.settle()
    assert world.condition("Ready").status and world.condition("Ready").changed_us == world.now
    ready_us = world.now
    world.crash()
    world.now += S
    world.settle()
    assert world.report().ready and world.condition("Ready").changed_us == ready_us
    world.probes[c.id] = steps.ProbeState(True, False)
    world.settle()
    assert not world.condition("ContainersReady").status


def test_a_container_that_the_runtime_lost_track_of_is_ended() -> None:
    world = up()
    c = world.live("web")[0]
    world._set(c, state="unknown")
    world.settle()
    assert "Terminate web" in world.log and world.report().restarts == 1


# -- changes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["Always", "Never"])
def test_another_image_replaces_the_container_whatever_the_policy(policy: str) -> None:
    world = up(restart_policy=policy)
    world.give(change(world.a, containers=[app(image="busybox:2")]))
    decision = world.look()
    assert {type(x).__name__ for x in decision.actions} == {"Terminate", "PullImage"}
    world.complete("container/web")
    world.look()
    assert world.report().state == "waiting" and world.report().last is not None
    world.crash("not")
    world.settle()
    assert world.report().restarts == 1 and world.report().image == "busybox:2"
    assert world.report().crashes == 0 and world.pod.phase == "Running"


def test_a_replacement_that_was_begun_is_finished_with_whatever_is_wanted_then() -> None:
    world = up(restart_policy="Never")
    world.give(change(world.a, containers=[app(image="busybox:2")]))
    world.look()
    world.complete("container/web")
    world.look()
    world.give(change(world.a, containers=[app()]))
    world.settle()
    assert world.report().restarts == 1 and world.report().image == "busybox:1" and world.live("web")


def test_what_ended_by_itself_is_not_run_again_by_another_image() -> None:
    world = up(app("a"), app("b"), restart_policy="Never")
    world.exit("a", 0)
    world.settle()
    world.give(change(world.a, containers=[app("a", "busybox:2"), app("b")]))
    world.settle()
    assert world.report("a").state == "terminated" and world.report("a").restarts == 0


def test_another_image_ends_a_pause() -> None:
    world = up()
    for _ in range(3):
        world.exit("web", 1)
        world.settle()
        if len(world.log) and not world.live("web") and world.report().crashes < 3:
            world.wait()
    assert world.report().reason == "CrashLoopBackOff"
    world.give(change(world.a, containers=[app(image="busybox:2")]))
    world.settle()
    assert world.live("web") and world.report().crashes == 0


def test_resources_change_in_place() -> None:
    small, large = Resources(limits={"cpu": "1"}), Resources(limits={"cpu": "2"})
    world = up(app(resources=small))
    assert world.report().resources == small and "UpdateLimits web" not in world.log
    world.give(change(world.a, containers=[app(resources=large)]))
    world.look()
    assert world.report().resources == small
    world.fail("container/web")
    world.settle()
    resizing = world.condition("PodResizeInProgress")
    assert (resizing.status, resizing.reason) == (True, "Error")
    world.wait()
    assert world.report().resources == large and world.report().restarts == 0
    assert world.log.count("UpdateLimits web") == 2
    world.crash()
    world.settle()
    assert world.log.count("UpdateLimits web") == 2


def test_new_content_is_written() -> None:
    world = up()
    world.give(msgspec.structs.replace(world.a, content_revision=4))
    world.settle()
    assert world.log[-1] == "WriteContent" and world.written == 4


# -- the sandbox is lost ------------------------------------------------------------------------------------------


def test_everything_comes_again_in_a_new_sandbox() -> None:
    world = up(app("a"), app("b"), init=[app("i"), sidecar("s")])
    world.exit("i", 0)
    world.settle()
    world.log.clear()
    world.lose_sandbox()
    world.settle()
    assert world.log[-2:] == ["RunSandbox 1", "Launch i 1"]
    assert world.pod.phase == "Running" and "N SandboxChanged" in world.events
    world.exit("i", 0)
    world.settle()
    assert [line for line in world.log if line.startswith("Launch")] == [
        f"Launch {name} 1" for name in ("i", "s", "a", "b")
    ]
    assert [c.restarts for c in world.pod.containers] == [1, 1]
    assert [s.attempt for s in world.sandboxes.values()] == [0, 1]
    world.exit("a", 1)
    world.settle()


def test_a_vanished_sandbox_is_a_lost_one() -> None:
    world = up()
    world.sandboxes.clear()
    world.instances.clear()
    world.settle()
    assert world.live("web")[0].attempt == 1 and world.report().restarts == 1


def test_what_had_succeeded_is_not_run_again_on_failure_only() -> None:
    world = up(app("a"), app("b"), restart_policy="OnFailure")
    world.exit("a", 0)
    world.settle()
    world.lose_sandbox()
    world.settle()
    assert world.report("a").restarts == 0 and world.report("b").restarts == 1
    assert len(world.sandboxes) == 2
    world.exit("b", 0)
    world.settle()
    assert world.pod.phase == "Succeeded"


@pytest.mark.parametrize("initial", [True, False])
def test_a_pod_that_never_restarts_fails_with_its_sandbox(initial: bool) -> None:
    world = up(init=[app("i"), app("j")], restart_policy="Never")
    if not initial:
        for name in ("i", "j"):
            world.exit(name, 0)
            world.settle()
    world.lose_sandbox()
    decision = world.settle()
    assert world.pod.phase == "Failed" and decision.settled
    assert world.report().state == ("waiting" if initial else "terminated")


def test_what_went_down_with_its_host_is_no_crash() -> None:
    world = up(app("a"), init=[sidecar("s")])
    for number in range(1, 8):
        world.exit("a", 0)  # stopped in order; the sidecar was killed
        world.lose_sandbox()
        world.crash("not")
        world.settle()
        assert world.live("a") and world.live("s"), "it waits"
        for name in ("a", "s"):
            assert (world.report(name).restarts, world.report(name).crashes) == (number, 0)
    world.exit("a", 1)
    world.settle()
    assert world.live("a") and world.report("a").crashes == 1


def test_what_crashed_before_its_host_went_down_goes_on_waiting() -> None:
    world = up(app("a"), app("b"))
    for _ in range(2):
        world.exit("a", 1)
        world.settle()
    due_us = world.decision and world.decision.look_us
    world.lose_sandbox()
    world.crash("not")
    decision = world.settle()
    assert world.live("b") and not world.live("a") and world.report("a").reason == "CrashLoopBackOff"
    assert decision.look_us == due_us


def test_a_sandbox_that_is_lost_under_the_agents_eyes_is_a_crash() -> None:
    world = up()
    for crashes in (1, 2):
        world.lose_sandbox()
        world.settle()
        assert world.report().crashes == crashes
    assert not world.live("web") and world.report().reason == "CrashLoopBackOff"


def test_a_second_sandbox_is_stopped() -> None:
    world = up()
    world.sandboxes["x"] = steps.Sandbox("x", 7, True)
    world.settle()
    assert set(world.sandboxes) == {next(iter(world.sandboxes))} and world.report().restarts == 0
    assert world.log[-2:] == ["StopSandbox", "RemoveSandbox"]
