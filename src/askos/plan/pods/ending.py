"""How pods end: by themselves, because they have to, or because somebody deletes them."""

from __future__ import annotations

from typing import Literal

import msgspec

from askos.model.pods import Condition, PodReport
from askos.plan.pods import status, steps
from askos.plan.pods.draft import Draft
from askos.plan.pods.steps import Decision
from askos.plan.pods.view import Life, View

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]

DEADLINE = "DeadlineExceeded"
EVICTED = "Evicted"
_EVICTION_GRACE_US = 1_000_000
"""What takes too much of the host gets no long good-bye."""


class Doom(msgspec.Struct, frozen=True):
    """Why a pod has to fail whatever its containers do."""

    reason: str
    message: str


def doom(view: View) -> Doom | None:
    """Whether the pod has to fail. Once reported it stays so."""
    if view.prior.reason in (DEADLINE, EVICTED):
        return Doom(view.prior.reason, view.prior.message)
    if view.seen.evicted:
        return Doom(EVICTED, view.seen.evicted)
    deadline_s = view.pod.active_deadline_seconds
    if deadline_s is not None and view.now_us >= view.start_us + deadline_s * 1_000_000:
        return Doom(DEADLINE, "Pod was active on the node longer than the specified deadline")
    return None


def outcome(view: View) -> Phase | None:
    """How the pod has ended by its own containers; None: it has not."""
    if view.pod.restart_policy == "Never":
        broken = [life for life in view.init if life.kind == "init" and view.finished(life) and not life.succeeded]
        if broken:
            return "Failed"
    if all(view.finished(life) for life in view.apps):
        return result(view)
    lost = view.sandbox is None and "sandbox" not in view.seen.busy
    if view.pod.restart_policy == "Never" and lost and any(life.began for life in view.lives):
        return "Failed"
    return None


def result(view: View) -> Phase:
    """What the ends of the containers add up to."""
    return "Succeeded" if all(life.succeeded for life in view.apps) else "Failed"


def decision(draft: Draft, pod: PodReport, *, settled: bool, gone: bool = False) -> Decision:
    """Everything together. Probed is what counts as running."""
    view = draft.view
    probed = [
        life.newest.id
        for life in view.lives
        if life.newest is not None and life.up and life.newest.state == "running" and _has_probes(life)
    ]
    return Decision(
        actions=list(draft.actions.values()),
        pod=pod,
        settled=settled,
        gone=gone,
        probe=probed,
        look_us=draft.look_us,
        events=draft.events,
    )


def _has_probes(life: Life) -> bool:
    spec = life.spec
    return any(probe is not None for probe in (spec.startup_probe, spec.liveness_probe, spec.readiness_probe))


# -- by themselves, or because they have to -----------------------------------------------------------------------


def finish(view: View, phase: Phase) -> Decision:
    """The containers are through: end the sidecars, stop the sandbox, keep the rest for its logs."""
    return _end(view, phase, Doom(view.prior.reason, view.prior.message), view.grace_us)


def fail(view: View, why: Doom) -> Decision:
    """The pod has to go: end everything. It is Failed once nothing of it runs."""
    grace_us = min(view.grace_us, _EVICTION_GRACE_US) if why.reason == EVICTED else view.grace_us
    return _end(view, "Failed", why, grace_us)


def _end(view: View, phase: Phase, why: Doom, grace_us: int) -> Decision:
    draft = Draft(view)
    if why.reason and why.reason != view.prior.reason:
        if why.reason == EVICTED:
            draft.warn(why.reason, why.message)
        else:
            draft.tell(why.reason, why.message)
    over = _wind_down(draft, view.now_us + grace_us)
    if over:
        for sandbox in view.seen.sandboxes:
            if sandbox.ready:
                draft.add(steps.StopSandbox(sandbox.id))
    extra: list[Condition] = []
    if why.reason == EVICTED:
        extra.append(Condition("DisruptionTarget", True, "TerminationByKubelet", why.message))
    report = status.report(
        view, {}, phase=phase if over or view.terminal else None, reason=why.reason, message=why.message, extra=extra
    )
    settled = over and not draft.actions and not view.seen.busy and not draft.timed
    return decision(draft, report, settled=settled)


def _wind_down(draft: Draft, deadline_us: int) -> bool:
    """End all containers: the sidecars last, one by one from the last to the first, but none later than the deadline.
    Returns whether nothing runs any more and nothing is being started."""
    view = draft.view
    live = [life for life in view.lives if life.live]
    sidecars = [life for life in live if life.kind == "sidecar"]
    others = [life for life in live if life.kind != "sidecar"]
    for life in others:
        draft.terminate(life, deadline_us, f"Stopping container {life.name}")
    starting = [life for life in view.lives if not life.live and draft.busy(f"container/{life.name}")]
    if view.now_us >= deadline_us:
        due = sidecars
    else:
        due = [] if others or any(life.kind != "sidecar" for life in starting) else sidecars[-1:]
    for life in due:
        draft.terminate(life, deadline_us, f"Stopping container {life.name}")
    strays = [(life, stray) for life in view.lives for stray in life.strays]
    for life, stray in strays:
        draft.add(steps.Remove(life.name, stray))
    return not live and not starting and not strays


# -- because somebody deletes them --------------------------------------------------------------------------------


def delete(view: View) -> Decision:
    """End everything within the grace, tell how it ended, and remove all that there is."""
    draft = Draft(view)
    wish = view.a.wish
    deadline_us = wish.at_us + wish.stop_timeout_s * 1_000_000
    over = _wind_down(draft, deadline_us)
    if view.now_us < deadline_us and any(life.live and life.kind == "sidecar" for life in view.lives):
        draft.look(deadline_us)
    why = Doom(view.prior.reason, view.prior.message)
    phase: Phase | None = None
    if view.terminal:
        phase = view.prior.phase
    elif over:
        phase = "Failed" if why.reason else result(view)
    report = status.report(view, {}, phase=phase, reason=why.reason, message=why.message)
    gone = over and _remove(draft, report)
    return decision(draft, report, settled=gone, gone=gone)


def _remove(draft: Draft, report: PodReport) -> bool:
    """Take away what is left, after its end has been told. Returns whether nothing is left."""
    view = draft.view
    seen = view.seen
    ready = [s for s in seen.sandboxes if s.ready]
    known = {s.id for s in seen.sandboxes}
    orphans = [c for c in seen.containers if c.sandbox_id not in known]
    told = (report.init_containers, report.containers) == (view.prior.init_containers, view.prior.containers)
    if ready:
        draft.add(steps.StopSandbox(ready[0].id))
        return False
    if (seen.sandboxes or orphans) and not told:
        # With the runtime's records their ends would be forgotten, should the agent be killed now.
        draft.look(view.now_us)
        return False
    if seen.sandboxes:
        draft.add(steps.RemoveSandbox(seen.sandboxes[0].id))
    for c in orphans:
        draft.add(steps.Remove(c.name, c.id))
    making = [key for key in seen.busy if not key.startswith(("pull/", "hook/"))]
    if seen.sandboxes or seen.containers or making:
        return False
    if seen.leftovers:
        draft.add(steps.TearDown())
        return False
    return True
