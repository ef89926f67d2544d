"""`decide` for what happens to a container that is there: pausing, rebuilding, healing, changes in place."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from askos.model.capsules import (
    Assignment,
    CapsuleSpec,
    ContainerMount,
    ContainerSpec,
    Healthcheck,
    Port,
    RestartPolicy,
)
from askos.plan import reconcile as r

from .test_reconcile import rebuild, rewish, running
from .world import World, assignment


def spec_of(a: Assignment, **more: Any) -> Assignment:
    """The same with another container spec, as a PATCH makes it."""
    container = msgspec.structs.replace(a.spec.containers[0], **more)
    return msgspec.structs.replace(a, spec=msgspec.structs.replace(a.spec, containers=[container]))


def healing(a: Assignment) -> Assignment:
    return msgspec.structs.replace(a, spec=msgspec.structs.replace(a.spec, auto_heal=True))


def port(number: int) -> Port:
    return Port(f"port-{number}", "net", "capsule", f"10.0.0.{number}", "02:00:00:00:00:01")


def only(world: World) -> r.Container:
    assert len(world.containers) == 1
    return next(iter(world.containers.values()))


def test_pause_and_go_on_are_the_same_run() -> None:
    world, a = running()
    a, _ = world.settle(rewish(a, "paused"))
    assert (a.report.state, a.report.settled) == ("paused", True)
    assert only(world).state == "paused"
    a, _ = world.settle(rewish(a, "running"))
    assert (a.report.state, only(world).state) == ("running", "running")
    assert world.starts == [(1, 0)]


@pytest.mark.parametrize("state", ["stopped", "deleted", "reboot", "rebuild"])
def test_what_is_paused_can_be_ended(state: str) -> None:
    world, a = running()
    a, _ = world.settle(rewish(a, "paused"))
    if state == "reboot":
        a = rewish(a, "running", run=2)
    elif state == "rebuild":
        a = rebuild(a)
    else:
        a = rewish(a, state)
    a, decision = world.settle(a)
    if state == "deleted":
        assert decision.gone
        assert not world.containers
    else:
        assert a.report.state == ("exited" if state == "stopped" else "running")


def test_a_process_that_ends_instead_of_being_paused_has_ended() -> None:
    world, a = running()
    world.exit(3)
    a, _ = world.settle(rewish(a, "paused"))
    assert (a.report.state, a.report.containers[0].exit_code) == ("exited", 3)


def test_a_pause_that_does_not_work_harms_nobody() -> None:
    world, a = running()
    world.refused = {"PauseContainer": "Could not pause it."}
    a, _ = world.settle(rewish(a, "paused"))
    assert (a.report.state, a.report.settled, a.report.reason) == ("running", True, "Could not pause it.")
    assert only(world).state == "running"


def test_a_commit_is_left_alone_until_it_is_done() -> None:
    world, a = running()
    world.committing = True
    world.act(r.PauseContainer(only(world).id))
    a, _ = world.settle(a)
    assert (a.report.state, a.report.settled) == ("paused", True)
    world.committing = False
    a, _ = world.settle(a)
    assert a.report.state == "running"


def test_rebuild_of_a_running_container_has_new_files_and_the_old_sandbox() -> None:
    world, a = running()
    sandbox, old = only(world).sandbox_id, only(world).id
    a, _ = world.settle(rebuild(a))
    assert a.report.state == "running"
    assert world.starts == [(1, 0), (2, 0)]
    assert (only(world).sandbox_id, world.files[only(world).id]) == (sandbox, "x")
    assert only(world).id != old
    assert world.removed == ["x"]


def test_rebuild_of_a_stopped_container_is_only_made_ready() -> None:
    world, a = running()
    a, _ = world.settle(rewish(a, "stopped"))
    a, _ = world.settle(rebuild(a))
    assert (a.report.state, a.report.settled) == ("created", True)
    assert a.report.containers[0].exit_code is None
    assert a.report.containers[0].started_us is None
    assert not world.containers
    a, _ = world.settle(rewish(a, "running", run=a.wish.run + 1))
    assert world.files[only(world).id] == "x"


def test_rebuild_fetches_the_image_before_the_old_one_goes() -> None:
    world, a = running()
    world.image = False
    decision = r.decide(rebuild(a), world.observed(), None, world.now)
    assert [type(x) for x in decision.actions] == [r.PullImage]
    assert only(world).state == "running"


def test_after_a_rebuild_restarts_keep_the_files_again() -> None:
    world, a = running()
    a, _ = world.settle(rebuild(a))
    a, _ = world.settle(rewish(a, "stopped"))
    a, _ = world.settle(rewish(a, "running", run=3))
    assert world.files[only(world).id] == "xx"


@pytest.mark.parametrize("crash_after", range(6))
def test_a_crash_in_a_rebuild_changes_nothing(crash_after: int) -> None:
    world, a = running()
    a, _ = world.settle(rebuild(a), crash_after=crash_after)
    a, _ = world.settle(a)
    assert world.starts == [(1, 0), (2, 0)]
    assert world.files[only(world).id] == "x"


def test_limits_change_in_place() -> None:
    world, a = running()
    a = spec_of(rewish(a, "running"), cpu=2.0, memory_mib=256)
    world.limits = (2048, 256 << 20)
    decision = r.decide(a, world.observed(), None, world.now)
    assert decision.actions == [r.UpdateLimits(only(world).id)]
    assert not decision.report.settled
    a, _ = world.settle(a)
    assert a.report.settled
    assert world.starts == [(1, 0)]


def test_limits_that_the_kernel_refuses_leave_it_running() -> None:
    world, a = running()
    world.refused = {"UpdateLimits": "It uses more."}
    a, _ = world.settle(spec_of(rewish(a, "running"), memory_mib=4))
    assert (a.report.state, a.report.settled, a.report.reason) == ("running", True, "It uses more.")


def test_limits_of_a_stopped_container_wait_for_its_start() -> None:
    world, a = running()
    a, _ = world.settle(rewish(a, "stopped"))
    a, decision = world.settle(spec_of(rewish(a, "stopped"), memory_mib=256))
    assert a.report.settled
    assert not decision.actions


def test_ports_are_plugged_into_what_runs() -> None:
    world, a = running()
    world.cables = ["port-5"]
    a = msgspec.structs.replace(rewish(a, "running"), ports=[port(5)])
    decision = r.decide(a, world.observed(), None, world.now)
    assert decision.actions == [r.SyncNetwork(only(world).sandbox_id)]
    assert not decision.report.settled
    a, _ = world.settle(a)
    assert a.report.settled


def test_a_restarted_agent_looks_at_the_network_without_a_word() -> None:
    world, a = running()
    known = msgspec.structs.replace(world.observed(), wired={})
    decision = r.decide(a, known, None, world.now)
    assert [type(x) for x in decision.actions] == [r.SyncNetwork]
    assert decision.report.settled


def test_volumes_come_before_the_container_and_go_after_it() -> None:
    world = World()
    a = spec_of(assignment(state="running", run=1), mounts=[ContainerMount("/data", "v")])
    assert [type(x) for x in r.decide(a, world.observed(), None, 0).actions] == [r.SetUpVolumes]
    a, _ = world.settle(a)
    assert a.report.state == "running"
    a, decision = world.settle(rewish(a, "deleted"))
    assert decision.gone
    assert not world.volumes


def test_volumes_are_there_before_files_are_carried() -> None:
    """After a crash the capsule's own file system may not be mounted."""
    world = World()
    a, _ = world.settle(spec_of(assignment(state="running", run=1), disk_gib=1))
    a, _ = world.settle(rewish(a, "stopped"))
    a = rewish(a, "running", run=2)
    for _ in range(20):
        decision = r.decide(a, world.observed(), None, world.now)
        if any(isinstance(x, r.CreateContainer) for x in decision.actions):
            world.act(decision.actions[-1])
            break
        for action in decision.actions:
            world.act(action)
    world.volumes = False
    decision = r.decide(a, world.observed(), None, world.now)
    assert [type(x) for x in decision.actions] == [r.SetUpVolumes, r.CarryLayer, r.StartContainer]


def test_who_vanished_is_made_again_when_it_is_to_heal() -> None:
    world = World()
    a, _ = world.settle(healing(assignment(state="running", run=1)))
    world.sandboxes.clear()
    world.containers.clear()
    a, _ = world.settle(a)
    assert world.starts == [(1, 0), (1, 1)]
    assert a.report.state == "running"


@pytest.mark.parametrize(("code", "starts"), [(137, 2), (143, 2), (0, 1), (3, 1)])
def test_who_was_killed_before_it_vanished_is_made_again_and_who_ended_is_not(code: int, starts: int) -> None:
    world = World()
    a, _ = world.settle(healing(assignment(state="running", run=1)))
    world.exit(code)
    a, _ = world.settle(a)
    assert a.report.state == "exited"
    world.containers.clear()
    decision = r.decide(a, world.observed(), None, world.now)
    assert ("made again" in (decision.report.reason or "")) == (starts == 2)
    world.settle(a)
    assert len(world.starts) == starts


def test_who_was_stopped_before_it_vanished_stays_stopped() -> None:
    world = World()
    a, _ = world.settle(healing(assignment(state="running", run=1)))
    a, _ = world.settle(rewish(a, "stopped"))
    world.containers.clear()
    a, _ = world.settle(a)
    assert (a.report.state, world.starts) == ("exited", [(1, 0)])


def test_who_is_unhealthy_is_made_again_with_new_files() -> None:
    world = World()
    a, _ = world.settle(healing(assignment(state="running", run=1)))
    old = only(world).id
    world.health = r.Health("unhealthy", "no answer")
    world.now += 60_000_000
    decision = r.decide(a, world.observed(), None, world.now)
    assert decision.actions == [r.StopContainer(old, 10), r.RemoveContainer(old)]
    assert decision.report.containers[0].health == "unhealthy"
    for action in decision.actions:
        world.act(action)
    world.health = None
    a, _ = world.settle(msgspec.structs.replace(a, report=decision.report))
    assert world.starts == [(1, 0), (1, 1)]
    assert world.files[only(world).id] == "x"


def test_a_crash_in_the_middle_of_healing_does_not_leave_it_stopped() -> None:
    world = World()
    a, _ = world.settle(healing(assignment(state="running", run=1)))
    world.health = r.Health("unhealthy", "no answer")
    world.now += 60_000_000
    decision = r.decide(a, world.observed(), None, world.now)
    world.act(decision.actions[0])
    world.health = None
    a = msgspec.structs.replace(a, report=decision.report)
    for _ in range(3):
        a, decision = world.settle(a)
        world.now = decision.look_us or world.now
    assert a.report.state == "running"
    assert world.starts == [(1, 0), (1, 1)]


def test_who_is_unhealthy_stays_when_it_is_not_to_heal() -> None:
    world, a = running()
    world.health = r.Health("unhealthy", "no answer")
    a, decision = world.settle(a)
    assert not decision.actions
    assert (a.report.state, a.report.containers[0].health) == ("running", "unhealthy")
    assert a.report.containers[0].health_output == "no answer"


def test_healing_again_and_again_slows_down() -> None:
    world = World()
    a, _ = world.settle(healing(assignment(state="running", run=1)))
    c = only(world)
    world.containers[c.id] = msgspec.structs.replace(c, attempt=8)
    world.health = r.Health("unhealthy")
    decision = r.decide(a, world.observed(), None, world.now)
    assert not decision.actions
    assert decision.look_us is not None
    assert decision.look_us > world.now


def test_the_report_has_the_ports_of_image_and_spec() -> None:
    container = ContainerSpec("main", "nginx", exposed_ports=["8080", "53/udp"], healthcheck=Healthcheck("true"))
    a = msgspec.structs.replace(
        assignment(state="created"), spec=CapsuleSpec([container], restart_policy=RestartPolicy())
    )
    seen = r.Observed(image=r.Image("sha256:1", [], ["nginx"], ["80/tcp", "8080/tcp"]))
    report = r.decide(a, seen, None, 0).report
    assert report.containers[0].exposed_ports == ["80/tcp", "8080/tcp", "53/udp"]


def test_a_restart_by_policy_looks_like_one() -> None:
    world = World()
    a, _ = world.settle(assignment("always", state="running", run=1))
    world.exit(1)
    world.now += 60_000_000
    decision = r.decide(a, world.observed(), None, world.now)
    assert decision.report.state == "restarting"
