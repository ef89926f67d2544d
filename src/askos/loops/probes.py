"""The prober: runs the probes of all pods of this host, at the times and with the meaning that `plan.probes` gives.

A probe that waits costs one timer and no task; one that runs is a task. Nothing is kept over a restart of the agent:
`Target` says how far a container had come by its last report.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from askos.loops import checks
from askos.loops.checks import Dial, Outcome, Place, Run
from askos.model.pods import Container, Event, ExecAction, Hook, Probe
from askos.plan import probes
from askos.plan.environment import expand
from askos.plan.pods.steps import ProbeState
from askos.plan.probes import Course, Kind
from askos.ports import runtime as rt

_log = logging.getLogger(__name__)

MAX_EVENT = 1000
"""Characters of an event's text."""


class Target(msgspec.Struct, frozen=True):
    """A running container to be probed. `started` and `ready`: as last reported, so that a restarted agent goes on
    where it was; they count when the container is first seen. `stopping`: the pod is being deleted."""

    container_id: str
    container: Container
    started_us: int
    started: bool = False
    ready: bool = False
    stopping: bool = False


class _Watched:
    """A container with its probes: where each stands, what waits, what runs."""

    def __init__(self, capsule_uuid: str, place: Place, target: Target) -> None:
        self.capsule_uuid = capsule_uuid
        self.place = place
        self.target = target
        self.courses: dict[Kind, Course] = {
            kind: probes.begin(kind, started=target.started, ready=target.ready)
            for kind in probes.KINDS
            if probes.probe_of(target.container, kind) is not None
        }
        self.timers: dict[Kind, asyncio.TimerHandle] = {}
        self.tasks: dict[Kind, asyncio.Task[None]] = {}

    def state(self) -> ProbeState:
        return probes.state(self.target.container, self.courses, stopping=self.target.stopping)

    def runs(self, kind: Kind) -> bool:
        started = self.state().started
        return probes.runs(kind, self.courses[kind], started=started, stopping=self.target.stopping)

    def halt(self, kind: Kind, *, running: bool) -> None:
        """Wait for no further run; with `running`, break off the one under way."""
        timer = self.timers.pop(kind, None)
        if timer is not None:
            timer.cancel()
        task = self.tasks.get(kind)
        if running and task is not None:
            task.cancel()


class Prober:
    """All probes of this host. `changed`: what a capsule's probes say has changed; `tell`: an event of a capsule."""

    def __init__(
        self,
        dial: Dial,
        run: Run,
        clock: Callable[[], int],
        changed: Callable[[str], None],
        tell: Callable[[str, Event], None],
    ) -> None:
        self._dial = dial
        self._run = run
        self._clock = clock
        self._changed = changed
        self._tell = tell
        self._watched: dict[str, dict[str, _Watched]] = {}

    # -- what is probed ----------------------------------------------------------------------------------------

    def want(self, capsule_uuid: str, sandbox_id: str, pod_ip: str, targets: list[Target]) -> None:
        """Replace what is probed of a capsule. Called at each look; what is probed already goes on undisturbed."""
        known = self._watched.setdefault(capsule_uuid, {})
        for container_id in known.keys() - {t.container_id for t in targets}:
            self._forget(known.pop(container_id))
        news = False
        for target in targets:
            watched = known.get(target.container_id)
            if watched is None:
                place = Place(sandbox_id, pod_ip, target.container_id, target.container)
                watched = known[target.container_id] = _Watched(capsule_uuid, place, target)
                state = watched.state()
                news = news or (state.started, state.ready) != (target.started, target.ready)
            elif target.stopping != watched.target.stopping:
                watched.target = msgspec.structs.replace(watched.target, stopping=target.stopping)
            self._plan(watched)
        if news:
            # The caller has looked already: let it look again.
            asyncio.get_running_loop().call_soon(self._changed, capsule_uuid)

    def states(self, capsule_uuid: str) -> dict[str, ProbeState]:
        """What the probes of a capsule say, by container id."""
        return {cid: watched.state() for cid, watched in self._watched.get(capsule_uuid, {}).items()}

    def drop(self, capsule_uuid: str) -> None:
        """Probe a capsule no more."""
        for watched in self._watched.pop(capsule_uuid, {}).values():
            self._forget(watched)

    def _forget(self, watched: _Watched) -> None:
        for kind in probes.KINDS:
            watched.halt(kind, running=True)

    # -- running -----------------------------------------------------------------------------------------------

    def _plan(self, watched: _Watched, *, opened: bool = False) -> None:
        """Start what is to run and does not, end what is not to run any more. `opened`: by the startup probe."""
        now = self._clock()
        for kind in watched.courses:
            if not watched.runs(kind):
                watched.halt(kind, running=True)
            elif kind not in watched.timers and kind not in watched.tasks:
                first = probes.opened_us if opened else probes.first_us
                self._wait(watched, kind, first(_probe(watched, kind), watched.target.started_us, now))

    def _wait(self, watched: _Watched, kind: Kind, due_us: int) -> None:
        delay_s = max(0.0, (due_us - self._clock()) / 1e6)
        watched.timers[kind] = asyncio.get_running_loop().call_later(delay_s, self._start, watched, kind)

    def _start(self, watched: _Watched, kind: Kind) -> None:
        del watched.timers[kind]
        watched.tasks[kind] = asyncio.create_task(self._once(watched, kind), name=f"{kind} probe")

    async def _once(self, watched: _Watched, kind: Kind) -> None:
        probe = _probe(watched, kind)
        begun = self._clock()
        try:
            outcome = await self._check(watched.place, probe)
        except asyncio.CancelledError:
            watched.tasks.pop(kind, None)
            raise
        except Exception:
            _log.exception("%s probe of container %s failed to run", kind, watched.place.container_id)
            outcome = Outcome(None)
        watched.tasks.pop(kind, None)
        if self._watched.get(watched.capsule_uuid, {}).get(watched.target.container_id) is not watched:
            return
        self._note(watched, kind, probe, outcome)
        if watched.runs(kind):
            self._wait(watched, kind, probes.next_us(probe, begun, self._clock()))

    async def _check(self, place: Place, probe: Probe) -> Outcome:
        timeout_s = float(max(probe.timeout_seconds, 1))
        if probe.exec is not None:
            return await checks.command(self._run, place, _expanded(probe.exec, place.container), timeout_s)
        if probe.http_get is not None:
            return await checks.http(self._dial, place, probe.http_get, timeout_s)
        if probe.tcp_socket is not None:
            return await checks.tcp(self._dial, place, probe.tcp_socket, timeout_s)
        if probe.grpc is not None:
            return await checks.grpc(self._dial, place, probe.grpc, timeout_s)
        return Outcome(None, "the probe has no action")

    def _note(self, watched: _Watched, kind: Kind, probe: Probe, outcome: Outcome) -> None:
        title = f"{kind.capitalize()} probe"
        if outcome.good is None:
            if outcome.output:
                said = f"{title} errored and resulted in unknown state: {outcome.output}"
                self._say(watched, "Unhealthy", said)
            return
        if outcome.warning:
            self._say(watched, "ProbeWarning", f"{title} warning: {outcome.warning}")
        if not outcome.good:
            self._say(watched, "Unhealthy", f"{title} failed: {outcome.output}")
        before = watched.state()
        watched.courses[kind] = probes.note(watched.courses[kind], probe, good=outcome.good)
        after = watched.state()
        if after.started and not before.started:
            self._plan(watched, opened=True)
        if after != before:
            self._changed(watched.capsule_uuid)

    def _say(self, watched: _Watched, reason: str, message: str) -> None:
        text = message.rstrip()
        if len(text) > MAX_EVENT:
            text = text[: MAX_EVENT - 3] + "..."
        name = watched.target.container.name
        self._tell(watched.capsule_uuid, Event("Warning", reason, text, name, at_us=self._clock()))

    # -- hooks -------------------------------------------------------------------------------------------------

    async def hook(  # noqa: PLR0917 - a container, where it is, and what to do there
        self, sandbox_id: str, pod_ip: str, container_id: str, container: Container, hook: Hook, timeout_s: float
    ) -> str:
        """Run postStart or preStop. "" when it went well, else why it failed."""
        place = Place(sandbox_id, pod_ip, container_id, container)
        if hook.exec is not None:
            outcome = await checks.command(self._run, place, hook.exec, timeout_s)
            if outcome.good is False and not outcome.output:
                return "the command failed without a word"
        elif hook.http_get is not None:
            agent = checks.HOOK_AGENT
            outcome = await checks.http(self._dial, place, hook.http_get, timeout_s, agent=agent, any_status=True)
        elif hook.sleep is not None:
            if hook.sleep.seconds > timeout_s:
                await asyncio.sleep(timeout_s)
                return f"it was to sleep for {hook.sleep.seconds} s, but only {timeout_s:g} s were left"
            await asyncio.sleep(hook.sleep.seconds)
            return ""
        else:
            return "the hook has no action"
        return "" if outcome.good else outcome.output.strip() or "the container is not running any more"


def _probe(watched: _Watched, kind: Kind) -> Probe:
    probe = probes.probe_of(watched.target.container, kind)
    assert probe is not None, "only probes that exist have a course"
    return probe


def _expanded(action: ExecAction, container: Container) -> ExecAction:
    """With $(NAME) replaced by plain values of the container's variables, which is all that a probe knows of them."""
    values = {variable.name: variable.value for variable in container.env}
    return ExecAction([expand(word, values) for word in action.command])


def runner(runtime: rt.Runtime) -> Run:
    """How commands of probes and hooks are run: the `run` of a `Prober`."""

    async def run(container_id: str, argv: list[str], timeout_s: float) -> tuple[int, bytes]:
        async with asyncio.timeout(timeout_s):
            session = await runtime.exec(container_id, rt.ExecRequest(argv=argv))
            try:
                kept = bytearray()
                async for _stream, data in session.output():
                    kept += data[: checks.MAX_OUTPUT - len(kept)]
                return await session.wait(), bytes(kept)
            finally:
                # Also kills a process that still runs.
                await session.close()

    return run
