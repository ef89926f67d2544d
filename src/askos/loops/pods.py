"""The worker of a pod: what `plan.pods` decides, several actions side by side.

Of one key (see `plan.pods.steps.key`) one action runs at a time; when one ends, the worker looks again. What it
remembers between looks (hooks that were run, pulls that were made, what failed when) is only there to save work or
to time it: after a restart of the agent the runtime's records and the last report are enough.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from askos.loops import assembly, over_use
from askos.loops.pod_work import HOOK_S, PodTools, StartFailedError, Work
from askos.loops.probes import Target
from askos.loops.worker import Worker
from askos.model.capsules import Assignment, CapsuleState, Report
from askos.model.errors import AskosError, InvalidError, RuntimeFailedError, UnavailableError
from askos.model.images import normalise
from askos.model.pods import Container, Pod, PodReport
from askos.plan import backoff
from askos.plan.pods import steps
from askos.plan.pods.decide import decide

if TYPE_CHECKING:
    from askos.loops.agent import Agent

_log = logging.getLogger(__name__)

USAGE_S = 10.0
"""How often the disk use of a pod with limits is measured."""
LIMIT_S = 600.0
"""After how long an action is given up that has hung in spite of the limits of its parts."""
LOOK_S = 120.0
"""The same for looking."""
_SLACK_S = 120.0
_AWAY_S = 0.5
_STATES: dict[str, CapsuleState] = {
    "Pending": "none",
    "Running": "running",
    "Succeeded": "exited",
    "Failed": "exited",
}


class PodWorker(Worker):
    """Keeps one pod as its assignment wants it."""

    seen: steps.Seen

    def __init__(self, agent: Agent, assignment: Assignment, tools: PodTools, *, fresh: bool = False) -> None:
        self.seen = steps.Seen()
        self.work = Work(agent, tools, self)
        self._tools = tools
        self._tasks: dict[str, tuple[steps.Action, asyncio.Task[None]]] = {}
        self._troubles: dict[str, steps.Trouble] = {}
        self._evicted = ""
        self._measured_us = 0
        self._returned = True
        """Until the first report: the agent has just started."""
        super().__init__(agent, assignment, fresh=fresh)

    @property
    def pod(self) -> Pod:
        """What is to run."""
        assert self.assignment.spec.pod is not None, "a pod's worker has a pod"
        return self.assignment.spec.pod

    def give(self, assignment: Assignment) -> None:
        """A new wish (or the same again)."""
        if assignment.wish.generation != self.assignment.wish.generation:
            # New content or a new image may be just what was missing.
            self._troubles.clear()
            # Labels and annotations may stand in files, too.
            self.work.written_content = -1
            for action, task in self._tasks.values():
                pulls = isinstance(action, steps.PullImage)
                waits = isinstance(action, steps.Terminate | steps.PostStart) and assignment.wish.state == "deleted"
                if pulls or waits:
                    # A pull or a long grace must not hold up the new wish.
                    task.cancel()
        super().give(assignment)

    def stop(self) -> None:
        """Work and report no more."""
        super().stop()
        for _, task in self._tasks.values():
            task.cancel()
        self._tools.prober.drop(self.assignment.capsule_uuid)

    def containers(self) -> list[Container]:
        """All containers of the spec, init containers first."""
        return [*self.pod.spec.init_containers, *self.pod.spec.containers]

    async def _step(self) -> int | None:
        a = self.assignment
        async with asyncio.timeout(LOOK_S):
            self.seen = await self._look(a)
        self.fresh = False
        if a is not self.assignment:
            return 0
        decision = decide(a, self.seen, self.agent.clock())
        self._probe(a, decision)
        now = self.agent.clock()
        self._events += [msgspec.structs.replace(event, at_us=event.at_us or now) for event in decision.events]
        self._tell(a, _report(a, decision, now), gone=decision.gone)
        self._returned = False
        if decision.gone:
            self.gone = True
            self._tools.prober.drop(a.capsule_uuid)
            return 0
        for action in decision.actions:
            self._begin(a, action)
        return decision.look_us

    def _begin(self, a: Assignment, action: steps.Action) -> None:
        key = steps.key(action)
        if key not in self._tasks:
            task = asyncio.create_task(self._perform(a, key, action), name=f"{key} of {a.capsule_uuid}")
            self._tasks[key] = (action, task)
            # Not by the task itself: one that is cancelled before it has begun never comes to its end.
            task.add_done_callback(partial(self._ended, a, key, action, self.agent.clock()))

    async def _perform(self, a: Assignment, key: str, action: steps.Action) -> None:
        try:
            async with asyncio.timeout(self._limit_s(action)):
                await self.work.perform(a, action)
            self._troubles.pop(key, None)
        except TimeoutError:
            message = f"{type(action).__name__} did not end in time. It is tried again."
            self._note(a, key, action, RuntimeFailedError(message))
        except UnavailableError as error:
            if isinstance(action, steps.PullImage):
                self._note(a, key, action, error)
            else:
                # The runtime is away (being restarted): nobody's fault.
                _log.info("capsule %s: %s has to wait: %s", a.capsule_uuid, key, error)
                await asyncio.sleep(_AWAY_S)
        except AskosError as error:
            self._note(a, key, action, error)
        except asyncio.CancelledError:
            raise
        except Exception:
            _log.exception("capsule %s: %s failed", a.capsule_uuid, key)
            self._note(a, key, action, RuntimeFailedError("Something failed inside Askos; its log has more."))

    def _ended(self, a: Assignment, key: str, action: steps.Action, begun_us: int, _task: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)
        self.bell.ring()
        took_ms = (self.agent.clock() - begun_us) / 1000
        _log.debug("capsule %s: %s %s, %.1f ms", a.capsule_uuid, type(action).__name__, key, took_ms)

    def _limit_s(self, action: steps.Action) -> float | None:
        """After how long an action is given up, whatever holds it. Each part of it has its own, shorter limit: this
        one only keeps a capsule from being stuck for ever by something that nobody has thought of."""
        match action:
            case steps.PullImage():
                return None  # as long as bytes come
            case steps.PostStart():
                return HOOK_S + _SLACK_S
            case steps.Terminate(deadline_us=deadline_us):
                return max(0.0, (deadline_us - self.agent.clock()) / 1e6) + _SLACK_S
            case _:
                return LIMIT_S

    def _note(self, a: Assignment, key: str, action: steps.Action, error: AskosError) -> None:
        before = self._troubles.get(key)
        failures = before.failures + 1 if before is not None else 1
        pull = isinstance(action, steps.PullImage)
        delay_us = backoff.pull_delay_us(failures) if pull else backoff.retry_delay_us(failures)
        name = getattr(action, "container", "")
        trouble = steps.Trouble(
            failures=failures,
            reason=_reason(action, error),
            message=error.message,
            retry_us=self.agent.clock() + delay_us,
            # A program that cannot be started is an end of its container, as the kubelet sees it.
            final=isinstance(error, StartFailedError) and not error.retryable,
            spec_hash=self.seen.spec_hashes.get(name, ""),
        )
        self._troubles[key] = trouble
        _log.info("capsule %s: %s failed (%d): %s", a.capsule_uuid, key, failures, error)
        self.work.say("Warning", _event_reason(action, trouble), f"{_what(action)}{error.message}", name)

    # -- looking -----------------------------------------------------------------------------------------------

    async def _look(self, a: Assignment) -> steps.Seen:
        uuid = a.capsule_uuid
        sandboxes, containers = ([], []) if self.fresh else await self.agent.look(uuid)
        by_name = {c.name: c for c in self.containers()}
        images: dict[str, steps.Image] = {}
        if a.wish.state == "running":
            images = await self._images(a, [c.image for c in by_name.values()])
            await self._measure(a)
        for c in containers:
            if c.state == "exited" and c.id not in self.work.messages and c.name in by_name:
                self.work.messages[c.id] = await self.work.message(a, by_name[c.name], c, len(by_name))
        self.work.forget({c.id for c in containers})
        return steps.Seen(
            sandboxes=sandboxes,
            containers=containers,
            images=images,
            spec_hashes={name: assembly.spec_hash(c) for name, c in by_name.items()},
            ready_volumes=self.work.paths is not None,
            written_content=self.work.written_content,
            leftovers=self.work.paths is not None or self.work.leftovers(uuid),
            probes=self._tools.prober.states(uuid),
            hooks=dict(self.work.hooks),
            messages=dict(self.work.messages),
            pulled=dict(self.work.pulled),
            applied=dict(self.work.applied),
            busy=frozenset(self._tasks),
            troubles=dict(self._troubles),
            evicted=self._evicted,
            host_ip=self._tools.env.host_ip,
            returned=self._returned,
        )

    async def _images(self, a: Assignment, wanted: list[str]) -> dict[str, steps.Image]:
        refs = set()
        for ref in wanted:
            try:
                refs.add(normalise(ref))
            except InvalidError:
                continue  # decide says so
        found = await asyncio.gather(*(self.agent.image(a, ref) for ref in refs))
        return {
            ref: steps.Image(i.id, i.user, _digest(ref, i.digests))
            for ref, i in zip(refs, found, strict=True)
            if i is not None
        }

    async def _measure(self, a: Assignment) -> None:
        now = self.agent.clock()
        if self._evicted or self.work.paths is None or not over_use.limited(self.pod):
            return
        if now < self._measured_us + int(USAGE_S * 1e6):
            return
        self._measured_us = now
        self._evicted = await over_use.measure(a, self.pod, self.agent, self._tools.volumes)
        # There is no event for disk use.
        asyncio.get_running_loop().call_later(USAGE_S + 0.1, self.bell.ring)

    def _probe(self, a: Assignment, decision: steps.Decision) -> None:
        ready = [s for s in self.seen.sandboxes if s.ready]
        if not ready or not decision.probe:
            self._tools.prober.drop(a.capsule_uuid)
            return
        reports = {c.container_id: c for c in [*decision.pod.init_containers, *decision.pod.containers]}
        by_name = {c.name: c for c in self.containers()}
        targets = [
            Target(
                container_id=c.id,
                container=by_name[c.name],
                started_us=c.started_us or self.agent.clock(),
                started=reports[c.id].started if c.id in reports else False,
                ready=reports[c.id].ready if c.id in reports else False,
                stopping=a.wish.state == "deleted",
            )
            for c in self.seen.containers
            if c.id in decision.probe and c.name in by_name
        ]
        pod_ip = a.ports[0].address if a.ports else "127.0.0.1"
        self._tools.prober.want(a.capsule_uuid, max(ready, key=lambda s: s.attempt).id, pod_ip, targets)


def _digest(ref: str, digests: list[str]) -> str:
    """By what the registry that a name leads to knows the image."""
    name = ref.partition("@")[0]
    repository = name if "@" in ref else name.rpartition(":")[0]
    return next((digest for digest in digests if digest.startswith(repository + "@")), "")


def _report(a: Assignment, decision: steps.Decision, now_us: int) -> Report:
    pod = decision.pod
    state = _STATES[pod.phase]
    if pod.phase == "Failed" and pod.reason:
        state = "error"
    return Report(
        generation=a.wish.generation,
        settled=decision.settled,
        state=state,
        reason=_why(pod),
        hostname=assembly.hostname(a),
        observed_us=now_us,
        pod=pod,
    )


def _why(pod: PodReport) -> str | None:
    """One sentence for people, if there is something to say."""
    if pod.message or pod.reason:
        return pod.message or pod.reason
    for c in [*pod.init_containers, *pod.containers]:
        if c.state == "waiting" and c.message:
            return f"{c.name}: {c.message}"
        if c.state == "terminated" and c.ended is not None and c.ended.reason == "OOMKilled":
            return f"{c.name} needed more memory than its limit, and was killed. Give it more."
    return None


def _reason(action: steps.Action, error: AskosError) -> str:
    """Kubernetes' word for a failed action."""
    match action:
        case steps.SetUpVolumes() | steps.WriteContent():
            return "FailedMount"
        case steps.RunSandbox():
            return "FailedCreatePodSandBox"
        case steps.PullImage():
            return "ErrImagePull"
        case steps.Launch():
            if isinstance(error, assembly.ConfigError):
                return "CreateContainerConfigError"
            return "RunContainerError" if getattr(error, "starting", False) else "CreateContainerError"
        case steps.Start():
            return "RunContainerError"
        case _:
            return "FailedSync"


def _event_reason(action: steps.Action, trouble: steps.Trouble) -> str:
    match action:
        case steps.SetUpVolumes() | steps.WriteContent() | steps.RunSandbox():
            return trouble.reason
        case steps.PullImage() | steps.Launch() | steps.Start():
            return "Failed"
        case steps.Terminate() | steps.StopSandbox() | steps.RemoveSandbox():
            return "FailedKillPod"
        case _:
            return trouble.reason


def _what(action: steps.Action) -> str:
    match action:
        case steps.PullImage(ref=ref):
            return f'Failed to pull image "{ref}": '
        case _:
            return ""
