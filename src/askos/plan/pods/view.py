"""A pod as one look finds it: each container judged by what is on the host and what was reported of it before.

The runtime's records come first; the last report fills in what they cannot tell: ends of containers that are gone
since, how often a container has ended in a row, which hooks are done. So a restarted agent knows what the one before
it had decided.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from askos.model.capsules import Assignment
from askos.model.pods import Container as Spec
from askos.model.pods import Ended, PodContainerReport, PodReport, PodSpec
from askos.plan import backoff
from askos.plan.pods.steps import Seen
from askos.plan.reconcile import Container, Sandbox

Kind = Literal["init", "sidecar", "app"]
Hook = Literal["pending", "failed", "done"]

HOOK_FAILED = "PostStartHookError"
START_FAILED = "RunContainerError"
UNKNOWN = "ContainerStatusUnknown"
_KILLED = 137
_NOT_STARTED = 128


class Life(msgspec.Struct, frozen=True):
    """One container of the spec over all its instances; the newest instance is the present life."""

    spec: Spec
    kind: Kind
    prior: PodContainerReport
    newest: Container | None = None
    """None: there is none on the host, or what there is, is older than what was reported."""
    here: bool = False
    """The newest is in the current sandbox."""
    end: Ended | None = None
    """How the present life ended; None while it lasts, and for what was made but never ran."""
    last: Ended | None = None
    """How the life before ended."""
    restarts: int = 0
    next_attempt: int = 0
    crashes: int = 0
    hook: Hook = "pending"
    """Whether postStart is done (also when there is none)."""
    hook_error: str = ""
    again: bool = False
    """It has ended and runs again whatever the policy: it made room for a changed definition."""
    outdated: bool = False
    """The newest instance was made from an older definition."""
    strays: list[str] = []
    """Older instances that live; there should be none."""

    @property
    def name(self) -> str:
        """As in the spec."""
        return self.spec.name

    @property
    def live(self) -> bool:
        """Whether it has a process, as far as the runtime knows."""
        return self.newest is not None and self.newest.state in ("running", "unknown")

    @property
    def up(self) -> bool:
        """Whether it counts as running: its postStart hook is done too."""
        return self.newest is not None and self.newest.state == "running" and self.here and self.hook == "done"

    @property
    def began(self) -> bool:
        """Whether it has ever run, or tried to."""
        return self.live or self.end is not None or self.last is not None

    @property
    def succeeded(self) -> bool:
        """Whether the present life ended well."""
        return self.end is not None and self.end.exit_code == 0


class View(msgspec.Struct, frozen=True):
    """All that a decision rests on."""

    a: Assignment
    seen: Seen
    now_us: int
    pod: PodSpec
    prior: PodReport
    sandbox: Sandbox | None
    init: list[Life]
    apps: list[Life]

    @property
    def lives(self) -> list[Life]:
        """Init containers and sidecars in their order, then the others in theirs."""
        return [*self.init, *self.apps]

    @property
    def start_us(self) -> int:
        """When the pod was first seen here."""
        return self.prior.start_us if self.prior.start_us is not None else self.now_us

    @property
    def grace_us(self) -> int:
        """The spec's grace between stop signal and SIGKILL."""
        return self.pod.termination_grace_period_seconds * 1_000_000

    @property
    def terminal(self) -> bool:
        """Whether the pod has been reported as over."""
        return self.prior.phase in ("Succeeded", "Failed")

    def started(self, life: Life) -> bool:
        """Whether it runs and has passed its startup probe; once passed, always passed."""
        if not life.up or life.newest is None:
            return False
        if life.spec.startup_probe is None:
            return True
        probed = self.seen.probes.get(life.newest.id)
        before = life.prior.container_id == life.newest.id and life.prior.started
        return before or (probed is not None and probed.started)

    def ready(self, life: Life) -> bool:
        """Whether it is started and its readiness probe, if any, says yes. Until the prober has looked, what was
        reported before holds."""
        if not self.started(life) or life.newest is None:
            return False
        if life.spec.readiness_probe is None:
            return True
        probed = self.seen.probes.get(life.newest.id)
        if probed is not None:
            return probed.ready
        return life.prior.container_id == life.newest.id and life.prior.ready

    def finished(self, life: Life) -> bool:
        """Whether the container has ended and its policy does not start it again."""
        if life.end is None or life.again or life.kind == "sidecar":
            return False
        if self.pod.restart_policy == "Always":
            return life.kind == "init" and life.succeeded
        return self.pod.restart_policy == "Never" or life.succeeded


def view(a: Assignment, seen: Seen, now_us: int) -> View:
    """Judge everything that is seen of a pod."""
    assert a.spec.pod is not None, "only pods are decided here"
    pod = a.spec.pod.spec
    prior = a.report.pod or PodReport()
    sandbox = current_sandbox(seen)
    reports = {r.name: r for r in [*prior.init_containers, *prior.containers]}

    def life(spec: Spec, kind: Kind) -> Life:
        known = _Known(spec, kind, reports.get(spec.name, PodContainerReport(spec.name)), seen, now_us)
        return _life(known, sandbox)

    init = [life(c, "sidecar" if c.restart_policy == "Always" else "init") for c in pod.init_containers]
    return View(a, seen, now_us, pod, prior, sandbox, init, [life(c, "app") for c in pod.containers])


def current_sandbox(seen: Seen) -> Sandbox | None:
    """The ready sandbox in which containers live; if there are several or none of these, the newest ready one."""
    lived = {c.sandbox_id for c in seen.containers if c.state in ("running", "unknown")}
    return max((s for s in seen.sandboxes if s.ready), key=lambda s: (s.id in lived, s.attempt), default=None)


class _Known(msgspec.Struct, frozen=True):
    """What one container is judged by."""

    spec: Spec
    kind: Kind
    prior: PodContainerReport
    seen: Seen
    now_us: int


def _life(known: _Known, sandbox: Sandbox | None) -> Life:
    spec, prior, seen = known.spec, known.prior, known.seen
    mine = sorted((c for c in seen.containers if c.name == spec.name), key=lambda c: c.attempt)
    newest = mine[-1] if mine else None
    if newest is not None and newest.attempt < prior.restarts and all(c.id != prior.container_id for c in mine):
        newest = None  # The life that was reported has vanished; what is left is older.
    restarts = max(prior.restarts, newest.attempt if newest is not None else 0)
    made = bool(mine or prior.container_id or prior.restarts)
    end = _end_of(newest, known) if newest is not None else _vanished(known)
    last = _last(newest, mine, known)
    hook, hook_error = _hook(newest, known)
    wanted = seen.spec_hashes.get(spec.name, "")
    outdated = bool(newest is not None and newest.spec_hash and wanted and newest.spec_hash != wanted)
    new_ends = [last if last is not None and last.container_id == prior.container_id else None, end]
    crashes = _crashes(known.kind, prior, new_ends)
    if end is not None and (outdated or _went_down(newest, end, known)):
        crashes = 0
    return Life(
        spec=spec,
        kind=known.kind,
        prior=prior,
        newest=newest,
        here=newest is not None and sandbox is not None and newest.sandbox_id == sandbox.id,
        end=end,
        last=last,
        restarts=restarts,
        next_attempt=restarts + 1 if made else 0,
        crashes=crashes,
        hook=hook,
        hook_error=hook_error,
        again=end is not None and _again(end, prior, outdated=outdated),
        outdated=outdated,
        strays=[c.id for c in mine if c is not newest and c.state in ("running", "unknown")],
    )


def _again(end: Ended, prior: PodContainerReport, *, outdated: bool) -> bool:
    if prior.state == "terminated" and prior.ended is not None and prior.ended.container_id == end.container_id:
        return False  # It had ended before by itself.
    if prior.state == "waiting" and prior.last is not None and prior.last.container_id == end.container_id:
        return True  # That it starts again was decided at an earlier look.
    return outdated


# -- ends -------------------------------------------------------------------------------------------------------


def _recorded(container_id: str, prior: PodContainerReport) -> Ended | None:
    ends = (prior.ended, prior.last)
    return next((e for e in ends if e is not None and container_id and e.container_id == container_id), None)


def _end_of(c: Container, known: _Known) -> Ended | None:
    prior, seen, now_us = known.prior, known.seen, known.now_us
    if c.state != "exited":
        return None
    before = _recorded(c.id, prior)
    if c.started_us is None:
        return _failed_start(c, known, before)
    code = c.exit_code if c.exit_code is not None else _KILLED
    reason = "Completed" if code == 0 else c.reason or "Error"
    if c.exit_code is None:
        reason = UNKNOWN
    elif c.reason == "OOMKilled":
        reason = c.reason
    return Ended(
        exit_code=code,
        signal=code - 128 if 128 < code <= 128 + 64 else None,
        reason=reason,
        message=seen.messages.get(c.id) or (before.message if before is not None else ""),
        started_us=c.started_us,
        finished_us=c.finished_us or (before.finished_us if before is not None else now_us),
        container_id=c.id,
    )


def _failed_start(c: Container, known: _Known, before: Ended | None) -> Ended | None:
    """The end of a container whose start has failed for good. A start that was broken off, or that failed for a
    reason that passes, is no end: the container is just made again."""
    if before is not None:
        return before
    trouble = known.seen.troubles.get(f"container/{known.spec.name}")
    if trouble is None or not trouble.final or trouble.reason != START_FAILED:
        return None
    return Ended(
        exit_code=c.exit_code or _NOT_STARTED,
        reason="StartError",
        message=trouble.message,
        finished_us=c.finished_us or known.now_us,
        container_id=c.id,
    )


def _vanished(known: _Known) -> Ended | None:
    """The end of the life that was reported and of which nothing is on the host any more."""
    prior = known.prior
    if prior.state == "terminated" and prior.ended is not None:
        return prior.ended
    recorded = _recorded(prior.container_id, prior)
    if recorded is not None or not prior.container_id or prior.started_us is None:
        return recorded
    return Ended(
        exit_code=_KILLED,
        reason=UNKNOWN,
        message="The container was not there any more when it was looked for.",
        started_us=prior.started_us,
        finished_us=known.now_us,
        container_id=prior.container_id,
    )


def _last(newest: Container | None, mine: list[Container], known: _Known) -> Ended | None:
    prior = known.prior
    present = newest.id if newest is not None else prior.container_id
    if newest is not None and prior.container_id and prior.container_id != present:
        # What was reported is the life before, or an earlier one.
        older = next((c for c in mine if c.id == prior.container_id), None)
        end = _end_of(older, known) if older is not None else _vanished(known)
        if end is not None:
            return end
    if prior.last is not None and prior.last.container_id != present:
        return prior.last
    if newest is None:
        return None
    ran = [c for c in mine if c.attempt < newest.attempt and c.state == "exited" and c.started_us is not None]
    return _end_of(ran[-1], known) if ran else None


def _crashes(kind: Kind, prior: PodContainerReport, ends: list[Ended | None]) -> int:
    """The back-off level, with the ends that have come since the report."""
    crashes = prior.crashes
    for end in ends:
        if end is None or _recorded(end.container_id, prior) is not None or end == prior.ended:
            continue
        if kind == "init" and end.exit_code == 0:
            continue
        lasted_us = (end.finished_us or 0) - (end.started_us or end.finished_us or 0)
        crashes = 1 if lasted_us >= backoff.CRASH_RESET_US else crashes + 1
    return crashes


def _went_down(newest: Container | None, end: Ended, known: _Known) -> bool:
    """Whether it ended with its host, which is nobody's fault: it runs again at once, as if for the first time."""
    if not known.seen.returned or _recorded(end.container_id, known.prior) is not None:
        return False
    standing = {s.id for s in known.seen.sandboxes if s.ready}
    return newest is None or newest.sandbox_id not in standing


def _hook(newest: Container | None, known: _Known) -> tuple[Hook, str]:
    spec, prior, seen = known.spec, known.prior, known.seen
    if newest is None or spec.lifecycle is None or spec.lifecycle.post_start is None:
        return "done", ""
    if newest.id in seen.hooks:
        error = seen.hooks[newest.id]
        return ("failed", error) if error else ("done", "")
    if prior.container_id == newest.id:
        if prior.state == "running" or prior.started:
            return "done", ""
        if prior.state == "waiting" and prior.reason == HOOK_FAILED:
            return "failed", prior.message
    return "pending", ""
