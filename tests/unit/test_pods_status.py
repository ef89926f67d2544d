"""A pod's phase, conditions and container reports."""

from __future__ import annotations

import msgspec
import pytest

from askos.model.capsules import Report
from askos.model.pods import PodReport
from askos.plan import backoff
from askos.plan.pods import steps
from askos.plan.pods.decide import decide

from .pod_world import PodWorld, S, app, assignment, sidecar

CONDITIONS = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]


def test_the_first_report() -> None:
    world = PodWorld(assignment(app("a"), init=[app("i")]))
    world.look()
    assert [c.type for c in world.pod.conditions] == CONDITIONS
    assert [c.status for c in world.pod.conditions] == [False, False, False, False, True]
    assert world.condition("Initialized").reason == "ContainersNotInitialized"
    assert world.condition("Ready").reason == "ContainersNotReady"
    assert world.condition("Ready").message == "containers with unready status: [a]"
    assert {c.changed_us for c in world.pod.conditions} == {1_000 * S}
    assert [c.name for c in world.pod.init_containers] == ["i"]


def test_times_of_conditions_change_with_their_status_only() -> None:
    world = PodWorld(assignment(app("a"), app("b", "nowhere:1")))
    world.settle()
    world.now += 5 * S
    world.exit("a", 1)
    world.settle()
    assert world.condition("Ready").changed_us == 1_000 * S
    assert world.condition("PodReadyToStartContainers").status
    assert world.condition("PodReadyToStartContainers").changed_us > 1_000 * S


def test_a_sidecar_counts_for_readiness_but_not_for_the_phase() -> None:
    world = PodWorld(assignment(app("a"), init=[sidecar("s")]))
    world.settle()
    for _ in range(2):
        world.exit("s", 1)
        world.settle()
    assert world.report("s").reason == "CrashLoopBackOff"
    assert world.pod.phase == "Running"
    assert world.condition("Ready").message == "containers with unready status: [s]"
    assert world.condition("Initialized").status


def test_failed_pods_say_so() -> None:
    world = PodWorld(assignment(restart_policy="Never"))
    world.settle()
    world.exit("web", 1)
    world.settle()
    assert [(c.status, c.reason) for c in world.pod.conditions] == [
        (False, ""),
        (True, ""),
        (False, "PodFailed"),
        (False, "PodFailed"),
        (True, ""),
    ]


def test_messages_of_ended_containers_outlast_their_files() -> None:
    world = PodWorld(assignment(restart_policy="Never"))
    world.settle()
    c = world.live("web")[0]
    world.exit("web", 1)
    world.messages[c.id] = "out of cheese"
    world.look()
    world.crash()
    world.settle()
    ended = world.report().ended
    assert ended is not None and ended.message == "out of cheese"


def test_the_image_is_the_users_and_its_id_the_hosts() -> None:
    world = PodWorld(assignment(app(image="busybox:1")))
    world.settle()
    report = world.report()
    assert (report.image, report.image_id) == ("busybox:1", "id-of-docker.io/library/busybox:1")
    assert report.container_id == world.live("web")[0].id and report.started_us == world.live("web")[0].started_us


def test_an_image_of_a_registry_is_told_by_its_digest() -> None:
    world = PodWorld(assignment(app(image="busybox:1")))
    world.settle()
    ref = "docker.io/library/busybox:1"
    digest = f"docker.io/library/busybox@sha256:{'1' * 64}"

    def told(images: dict[str, steps.Image], report: PodReport) -> str:
        a = msgspec.structs.replace(world.a, report=Report(pod=report))
        return decide(a, msgspec.structs.replace(world.seen(), images=images), world.now).pod.containers[0].image_id

    fresh = msgspec.structs.replace(world.report(), image_id="", container_id="")
    assert told({ref: steps.Image(f"id-of-{ref}", digest=digest)}, PodReport(containers=[fresh])) == digest
    # The name may lead to another image, or to none, by now.
    reported = PodReport(containers=[msgspec.structs.replace(world.report(), image_id=digest)])
    assert told({ref: steps.Image("another", digest="other@sha256:2")}, reported) == digest
    assert told({}, reported) == digest
    assert told({}, PodReport(containers=[fresh])) == f"id-of-{ref}"


def test_an_init_container_is_ready_when_it_has_done_its_part() -> None:
    world = PodWorld(assignment(app(), init=[app("first")]))
    world.settle()
    (first,) = world.pod.init_containers
    assert (first.state, first.ready) == ("running", False)
    world.exit("first")
    world.settle()
    (first,) = world.pod.init_containers
    assert (first.state, first.ready) == ("terminated", True)


def test_the_host_address_is_told_and_kept() -> None:
    world = PodWorld(assignment())
    pod = decide(world.a, steps.Seen(host_ip="192.0.2.1"), world.now).pod
    assert pod.host_ip == "192.0.2.1"


@pytest.mark.parametrize(
    ("crashes", "pause_s"), [(0, 0), (1, 0), (2, 10), (3, 20), (4, 40), (6, 160), (7, 300), (900, 300)]
)
def test_crash_pauses(crashes: int, pause_s: int) -> None:
    assert backoff.crash_delay_us(crashes) == pause_s * S


@pytest.mark.parametrize(("failures", "pause_s"), [(1, 10), (2, 20), (5, 160), (6, 300), (900, 300)])
def test_pull_pauses(failures: int, pause_s: int) -> None:
    assert backoff.pull_delay_us(failures) == pause_s * S
