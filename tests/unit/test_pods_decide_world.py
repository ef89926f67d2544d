"""Pods under everything that can happen to them at once; the world in memory refuses what must never be."""

from __future__ import annotations

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from askos.model.pods import Container, PodReport, Probe
from askos.plan.pods import steps

from .pod_world import HOOK, PRE_STOP, PodWorld, S, app, assignment, change, sidecar

PODS: list[tuple[list[Container], list[Container]]] = [
    ([app("a")], []),
    ([app("a", lifecycle=HOOK), app("b", "busybox:2", lifecycle=PRE_STOP)], [app("i"), app("j", "busybox:2")]),
    ([app("a"), app("b", "busybox")], [app("i"), sidecar("s", lifecycle=HOOK), app("j"), sidecar("t")]),
    ([app("a", liveness_probe=Probe())], [sidecar("s", startup_probe=Probe()), app("i")]),
]
HAPPENINGS = (
    ["works"] * 8
    + ["fails", "start fails", "exits", "exits", "passes", "waits"]
    + ["probe kills", "hook fails", "crashes", "sandbox lost", "removed", "lost track", "other image"]
)
DELETING = ["works"] * 4 + ["fails", "exits", "waits", "crashes", "sandbox lost", "lost track"]


class Story:
    """One pod, to which things happen as `data` draws them."""

    def __init__(self, data: st.DataObject) -> None:
        self.draw = data.draw
        apps, init = self.draw(st.sampled_from(PODS))
        policy = self.draw(st.sampled_from(["Always", "OnFailure", "Never"]))
        self.world = PodWorld(assignment(*apps, init=init, restart_policy=policy))
        self.world.registry.add("docker.io/library/busybox:latest")
        self.reports: list[PodReport] = []

    def one_of(self, things: object) -> object:
        things = sorted(things)  # type: ignore[call-overload]
        return self.draw(st.sampled_from(things)) if things else None

    def happen(self, what: str) -> None:
        world = self.world
        key = self.one_of(world.under_way)
        live = self.one_of(c.id for c in world.live())
        match what:
            case "works" if key:
                world.complete(key)
            case "fails" if key:
                world.fail(key)
            case "start fails" if key and isinstance(world.under_way[key], steps.Launch | steps.Start):
                world.fail(key, "RunContainerError", final=self.draw(st.booleans()))
            case "exits" if live:
                world.exit(world.instances[live].name, self.draw(st.sampled_from([0, 0, 1, 137])))
            case "passes" if live:
                world.probes[live] = steps.ProbeState(True, True)
            case "waits":
                world.now += self.draw(st.sampled_from([1, 15, 700])) * S
            case "probe kills" if live:
                world.probes[live] = steps.ProbeState(True, True, "no answer", 1)
            case "hook fails" if key and key.startswith("hook/"):
                world.under_way.pop(key)
                world.hooks[key.removeprefix("hook/")] = "no"
            case "crashes":
                # What was reported last may not have come through, unless a stranger removed containers since.
                old = self.draw(st.sampled_from(self.reports[-3:]))
                world.crash(self.draw(st.sampled_from(["not", "made", "broken", "done"])), old)
            case "sandbox lost":
                world.lose_sandbox()
                world.crash("not")
            case "removed" if world.instances and not world.under_way:
                container_id = self.one_of(world.instances)
                c = world.instances.pop(container_id)
                world.vanished.add(c.name)
                self.reports = self.reports[-1:]
                # A sandbox without the containers that came before: the order was right when it counted.
                world.vanished |= {other.name for other in world.instances.values()}
            case "lost track" if live:
                world._set(world.instances[live], state="unknown")
            case "other image":
                assert world.a.spec.pod is not None
                first, *rest = world.a.spec.pod.spec.containers
                image = "busybox:2" if first.image == "busybox:1" else "busybox:1"
                world.give(change(world.a, containers=[msgspec.structs.replace(first, image=image), *rest]))
            case _:
                pass

    def look(self) -> steps.Decision:
        decision = self.world.look()
        self.reports.append(decision.pod)
        return decision

    def calm_down(self) -> None:
        """Everything works, all hooks and probes are content, and times that are waited for come."""
        world = self.world
        for _ in range(40):
            for c in world.live():
                if c.state == "running":
                    world.probes[c.id] = steps.ProbeState(True, True)
                if c.name in ("i", "j"):
                    world.exit(c.name, 0)
            decision = world.settle()
            if decision.look_us is None and not any(c.name in ("i", "j") for c in world.live()):
                fresh = [c for c in world.live() if c.id not in world.probes]
                if not fresh:
                    return
            elif decision.look_us is not None:
                world.now = max(world.now, decision.look_us)
        raise AssertionError(f"never comes to rest: {world.pod}")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_happens(data: st.DataObject) -> None:
    story = Story(data)
    world = story.world
    story.look()
    for what in data.draw(st.lists(st.sampled_from(HAPPENINGS), max_size=45)):
        story.happen(what)
        story.look()
    ending = data.draw(st.sampled_from(["rest", "delete", "delete now"]))
    if ending == "rest":
        story.calm_down()
        assert world.decision is not None and world.decision.settled
        if world.pod.phase in ("Succeeded", "Failed"):
            assert not world.live()
            assert not any(s.ready for s in world.sandboxes.values())
        else:
            assert world.pod.phase == "Running"
            assert len([s for s in world.sandboxes.values() if s.ready]) == 1
            running = {c.name for c in world.live()}
            missing = {c.name for c in world.pod.containers} - running
            assert all(world.report(name).ended is not None for name in missing)
            assert not missing or world.a.spec.pod.spec.restart_policy != "Always"  # type: ignore[union-attr]
    world.delete(0 if ending == "delete now" else 30)
    decision = story.look()
    for what in data.draw(st.lists(st.sampled_from(DELETING), max_size=12)):
        if decision.gone:
            break
        story.happen(what)
        decision = story.look()
    for _ in range(20):
        if decision.gone:
            break
        decision = world.settle()
        if decision.gone:
            break
        assert decision.look_us is not None
        world.now = max(world.now, decision.look_us)
    assert decision.gone
    assert not world.sandboxes and not world.instances and not world.leftovers
    assert decision.pod.phase in ("Succeeded", "Failed")
