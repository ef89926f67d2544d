"""A host in memory that runs one pod: it refuses what a real one would refuse, and what a pod must never do."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Literal

import msgspec

from askos.model.capsules import Assignment, CapsuleSpec, Report, Wish
from askos.model.images import normalise
from askos.model.pods import (
    Condition,
    Container,
    Hook,
    Lifecycle,
    Pod,
    PodContainerReport,
    PodMetadata,
    PodReport,
    PodSpec,
    Resources,
    SleepAction,
)
from askos.plan import backoff
from askos.plan.pods import steps
from askos.plan.pods.decide import decide
from askos.plan.reconcile import Container as Instance
from askos.plan.reconcile import Sandbox

S = 1_000_000
UUID = "11111111-2222-3333-4444-555555555555"
HOOK = Lifecycle(post_start=Hook(sleep=SleepAction(1)))
PRE_STOP = Lifecycle(pre_stop=Hook(sleep=SleepAction(1)))
LIVE = ("running", "unknown")


def app(name: str = "web", image: str = "busybox:1", **fields: object) -> Container:
    return Container(name, image, **fields)


def sidecar(name: str, **fields: object) -> Container:
    return Container(name, "busybox:1", restart_policy="Always", **fields)


def assignment(*apps: Container, init: list[Container] | None = None, **fields: object) -> Assignment:
    spec = PodSpec(list(apps) or [app()], init or [], **fields)
    pod = Pod(PodMetadata("web"), spec)
    wish = Wish("running", run=1, at_us=S)
    return Assignment(UUID, "p", "web", 1, CapsuleSpec(pod=pod), wish, [], [], kind="capsule")


def change(a: Assignment, **fields: object) -> Assignment:
    """With another spec, as by an update."""
    assert a.spec.pod is not None
    spec = msgspec.structs.replace(a.spec.pod.spec, **fields)
    pod = msgspec.structs.replace(a.spec.pod, spec=spec)
    wish = msgspec.structs.replace(a.wish, generation=a.wish.generation + 1)
    return msgspec.structs.replace(a, spec=CapsuleSpec(pod=pod), wish=wish)


def containers(a: Assignment) -> list[Container]:
    assert a.spec.pod is not None
    return [*a.spec.pod.spec.init_containers, *a.spec.pod.spec.containers]


@dataclass
class PodWorld:
    """What is on the host, what the agent remembers until it is killed, and what is under way."""

    a: Assignment
    now: int = 1_000 * S
    images: set[str] = field(default_factory=lambda: {normalise("busybox:1")})
    registry: set[str] = field(default_factory=lambda: {normalise("busybox:1"), normalise("busybox:2")})
    sandboxes: dict[str, Sandbox] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    leftovers: bool = False
    ready_volumes: bool = False
    written: int = 0
    hooks: dict[str, str] = field(default_factory=dict)
    probes: dict[str, steps.ProbeState] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    pulled: dict[str, int] = field(default_factory=dict)
    applied: dict[str, Resources] = field(default_factory=dict)
    under_way: dict[str, steps.Action] = field(default_factory=dict)
    troubles: dict[str, steps.Trouble] = field(default_factory=dict)
    evicted: str = ""
    returned: bool = False
    """The agent has just been started."""
    decision: steps.Decision | None = None
    log: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    used: set[tuple[str, int]] = field(default_factory=set)
    vanished: set[str] = field(default_factory=set)
    """Containers of which an instance was removed by a stranger."""
    _ids: count[int] = field(default_factory=count)

    # -- looking -----------------------------------------------------------------------------------------------

    def seen(self) -> steps.Seen:
        return steps.Seen(
            sandboxes=list(self.sandboxes.values()),
            containers=list(self.instances.values()),
            images={ref: steps.Image(f"id-of-{ref}") for ref in self.images},
            spec_hashes={c.name: c.image for c in containers(self.a)},
            ready_volumes=self.ready_volumes,
            written_content=self.written,
            leftovers=self.leftovers,
            probes=dict(self.probes),
            hooks=dict(self.hooks),
            messages=dict(self.messages),
            pulled=dict(self.pulled),
            applied=dict(self.applied),
            busy=frozenset(self.under_way),
            troubles=dict(self.troubles),
            evicted=self.evicted,
            returned=self.returned,
        )

    def look(self) -> steps.Decision:
        """Look, decide, report, and begin what is to be done."""
        decision = decide(self.a, self.seen(), self.now)
        keys = [steps.key(action) for action in decision.actions]
        assert len(keys) == len(set(keys)), "two actions on one thing"
        assert not set(keys) & set(self.under_way), "asked again for what is under way"
        before = self.a.report.pod
        if before is not None:
            self._compare(before, decision.pod)
        self.events += [f"{e.type[0]} {e.reason} {e.container}".strip() for e in decision.events]
        self.a = msgspec.structs.replace(self.a, report=Report(pod=decision.pod, settled=decision.settled))
        self.decision = decision
        self.returned = False
        for action in decision.actions:
            self._check(action)
            self.under_way[steps.key(action)] = action
            self.log.append(_word(action))
        return decision

    def _compare(self, before: PodReport, after: PodReport) -> None:
        if before.phase in ("Succeeded", "Failed"):
            assert after.phase == before.phase, "a pod that was over came back"
        assert after.start_us == before.start_us
        olds = {c.name: c for c in [*before.init_containers, *before.containers]}
        for c in [*after.init_containers, *after.containers]:
            assert c.restarts >= olds[c.name].restarts, "restarts shrank"
            assert (c.ended is not None) == (c.state == "terminated")
            assert c.state != "waiting" or c.reason

    def settle(self) -> steps.Decision:
        """Let everything succeed until nothing happens any more (times that are waited for do not come)."""
        for _ in range(200):
            decision = self.look()
            if decision.gone:
                return decision
            if not self.under_way:
                if decision.look_us == self.now:
                    continue
                again = decide(self.a, self.seen(), self.now)
                assert again.actions == [] and again.events == [], "does not come to rest"
                assert again.pod == decision.pod, "talks without news"
                return decision
            for key in list(self.under_way):
                self.complete(key)
        raise AssertionError(f"does not settle: {self.decision}")

    def wait(self) -> steps.Decision:
        """Let the time come for which the last look wanted to wait, and settle."""
        assert self.decision is not None and self.decision.look_us is not None, "waits for nothing"
        self.now = max(self.now, self.decision.look_us)
        return self.settle()

    # -- acting ------------------------------------------------------------------------------------------------

    def complete(self, key: str) -> None:
        action = self.under_way.pop(key)
        self.now += 1000
        trouble = self.troubles.get(key)
        self._perform(action)
        if self.troubles.get(key) is trouble:
            self.troubles.pop(key, None)

    def fail(self, key: str, reason: str | None = None, *, final: bool = False) -> None:
        """An action fails, having done nothing (or, of a Launch, only the first half)."""
        action = self.under_way.pop(key)
        words = {"PullImage": "ErrImagePull", "RunSandbox": "FailedCreatePodSandBox", "SetUpVolumes": "FailedMount"}
        words |= {"Launch": "CreateContainerError", "Start": "RunContainerError"}
        reason = reason or words.get(type(action).__name__, "FailedSync")
        if reason == "RunContainerError":
            self._broken_start(action)
        failures = self.troubles[key].failures + 1 if key in self.troubles else 1
        retry_us = self.now + backoff.pull_delay_us(failures)
        self.troubles[key] = steps.Trouble(failures, reason, f"{reason}!", retry_us, final)

    def crash(self, how: Literal["not", "made", "broken", "done"] = "done", report: PodReport | None = None) -> None:
        """The agent is killed: it forgets everything. What was under way has not begun, has made a container, broke
        off its start, or is done all the same. `report`: what the server last got."""
        for action in list(self.under_way.values()):
            if how == "done":
                self._perform(action)
            elif how == "broken":
                self._broken_start(action)
            elif how == "made" and isinstance(action, steps.Launch):
                self._create(action)
        for memory in (
            self.under_way,
            self.troubles,
            self.hooks,
            self.probes,
            self.messages,
            self.pulled,
            self.applied,
        ):
            memory.clear()
        self.ready_volumes, self.written, self.returned = False, 0, True
        if report is not None:
            self.a = msgspec.structs.replace(self.a, report=Report(pod=report))

    def _broken_start(self, action: steps.Action) -> None:
        """containerd kills what it had begun to start, and never starts this container again."""
        if isinstance(action, steps.Launch):
            made = self._create(action)
        elif isinstance(action, steps.Start) and action.container_id in self.instances:
            made = self.instances[action.container_id]
        else:
            return
        self._set(made, state="exited", exit_code=128, reason="StartError", finished_us=self.now)

    def _create(self, action: steps.Launch) -> Instance:
        assert (action.container, action.attempt) not in self.used, "an attempt used twice"
        self.used.add((action.container, action.attempt))
        image = next(c.image for c in containers(self.a) if c.name == action.container)
        new = f"c{next(self._ids)}"
        made = Instance(
            new, action.sandbox_id, action.container, 1, action.attempt, "created", action.image_id, spec_hash=image
        )
        self.instances[new] = made
        return made

    def _set(self, c: Instance, **values: object) -> None:
        self.instances[c.id] = msgspec.structs.replace(c, **values)

    def _run(self, c: Instance) -> None:
        sandbox = self.sandboxes.get(c.sandbox_id)
        if c.state == "created" and sandbox is not None and sandbox.ready:
            self._set(c, state="running", started_us=self.now)

    def exit(self, name: str, code: int = 0, reason: str | None = None) -> None:
        """The container's process ends."""
        for c in self.live(name):
            self._set(c, state="exited", exit_code=code, reason=reason, finished_us=self.now)

    def live(self, name: str | None = None) -> list[Instance]:
        return [c for c in self.instances.values() if c.state in LIVE and name in (None, c.name)]

    def lose_sandbox(self) -> None:
        """The machine was switched off, say."""
        for s in list(self.sandboxes.values()):
            self._stop(s.id)
        self.ready_volumes = False

    def _stop(self, sandbox_id: str) -> None:
        if sandbox_id not in self.sandboxes:
            return
        self.sandboxes[sandbox_id] = msgspec.structs.replace(self.sandboxes[sandbox_id], ready=False)
        for c in self.live():
            if c.sandbox_id == sandbox_id:
                self._set(c, state="exited", exit_code=137, reason="Error", finished_us=self.now)

    def _perform(self, action: steps.Action) -> None:
        match action:
            case steps.SetUpVolumes():
                self.ready_volumes, self.leftovers, self.written = True, True, self.a.content_revision
            case steps.WriteContent(revision):
                self.written = revision
            case steps.RunSandbox(attempt, stop):
                for old in stop:
                    self._stop(old)
                assert all(s.attempt != attempt for s in self.sandboxes.values()), "a sandbox attempt used twice"
                assert not any(s.ready for s in self.sandboxes.values()), "two ready sandboxes"
                new = f"s{next(self._ids)}"
                self.sandboxes[new] = Sandbox(new, attempt, True)
                self.leftovers = True
            case steps.PullImage():
                if action.ref not in self.registry:
                    self.under_way[steps.key(action)] = action
                    self.fail(steps.key(action))
                    return
                self.images.add(action.ref)
                self.pulled[action.container] = action.attempt
            case steps.Launch():
                sandbox = self.sandboxes.get(action.sandbox_id)
                if sandbox is None or not sandbox.ready:
                    return
                made = self._create(action)
                self.applied[made.id] = next(c for c in containers(self.a) if c.name == action.container).resources
                self._run(made)
            case steps.Start(_, container_id):
                if container_id in self.instances:
                    self._run(self.instances[container_id])
            case steps.PostStart(_, container_id):
                self.hooks[container_id] = ""
            case steps.Terminate():
                c = self.instances.get(action.container_id)
                if c is not None and c.state in LIVE:
                    self._set(c, state="exited", exit_code=143, reason="Error", finished_us=self.now)
            case steps.UpdateLimits(name, container_id):
                self.applied[container_id] = next(c for c in containers(self.a) if c.name == name).resources
            case steps.Remove(_, container_id):
                self.instances.pop(container_id, None)
            case steps.StopSandbox(sandbox_id):
                self._stop(sandbox_id)
            case steps.RemoveSandbox(sandbox_id):
                self._stop(sandbox_id)
                self.sandboxes.pop(sandbox_id, None)
                for c in list(self.instances.values()):
                    if c.sandbox_id == sandbox_id:
                        self.instances.pop(c.id)
            case steps.TearDown():
                self.leftovers = self.ready_volumes = False

    # -- what must never be -------------------------------------------------------------------------------------

    def _check(self, action: steps.Action) -> None:
        match action:
            case steps.Launch():
                assert not self.live(action.container), "two of one container"
                assert self.sandboxes[action.sandbox_id].ready, "launched into a sandbox that is not ready"
                assert self.ready_volumes, "launched without volumes"
                assert action.image_ref in self.images
                self._check_order(action.container, action.sandbox_id)
            case steps.Start(name, container_id):
                assert not self.live(name), "two of one container"
                self._check_order(name, self.instances[container_id].sandbox_id)
            case steps.Terminate():
                assert self.instances[action.container_id].state in LIVE, "terminates what does not run"
            case steps.RunSandbox():
                assert self.ready_volumes
                assert not any(s.ready for s in self.sandboxes.values())
                assert not self.live(), "the old sandbox still has processes"
            case steps.RemoveSandbox(sandbox_id):
                assert not any(c.sandbox_id == sandbox_id for c in self.live()), "removes what runs"
            case steps.TearDown():
                assert not self.sandboxes and not self.instances, "tears down under a sandbox"
            case _:
                pass

    def _check_order(self, name: str, sandbox_id: str) -> None:
        assert self.a.spec.pod is not None
        inside = [c for c in self.instances.values() if c.sandbox_id == sandbox_id]
        for spec in self.a.spec.pod.spec.init_containers:
            if spec.name == name:
                return
            mine = [c for c in inside if c.name == spec.name]
            if spec.restart_policy == "Always":
                assert any(c.started_us is not None for c in mine) or spec.name in self.vanished
            else:
                assert any(c.exit_code == 0 for c in mine) or spec.name in self.vanished, f"{name} before {spec.name}"

    # -- reading -----------------------------------------------------------------------------------------------

    @property
    def pod(self) -> PodReport:
        assert self.a.report.pod is not None
        return self.a.report.pod

    def report(self, name: str = "web") -> PodContainerReport:
        return next(c for c in [*self.pod.init_containers, *self.pod.containers] if c.name == name)

    def condition(self, kind: str) -> Condition:
        return next(c for c in self.pod.conditions if c.type == kind)

    def delete(self, grace_s: int = 30) -> None:
        wish = Wish("deleted", self.a.wish.generation + 1, 1, "deleting", grace_s, self.now)
        self.a = msgspec.structs.replace(self.a, wish=wish)
        self.troubles.clear()

    def give(self, a: Assignment) -> None:
        self.a = msgspec.structs.replace(a, report=self.a.report)
        self.troubles.clear()


def _word(action: steps.Action) -> str:
    name = type(action).__name__
    what = getattr(action, "container", "") or getattr(action, "ref", "")
    attempt = getattr(action, "attempt", None)
    return " ".join([name, what, *([str(attempt)] if attempt is not None else [])]).replace("  ", " ").strip()
