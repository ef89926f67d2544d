"""What to do next for one pod on its host: `decide` is a plain function of what is wanted and what is seen.

The worker looks, asks `decide`, reports, performs the actions side by side, and looks again when one of them ends.
What `decide` knows comes from the assignment, the runtime's records and the last report; what the worker remembers
(busy keys, troubles, hooks, probes) may be forgotten at any time and only costs work done twice that may be done
twice. Attempts of a container are its restarts: none is used a second time, also not in another sandbox.

The order is the kubelet's: volumes, sandbox, init containers one by one, sidecars until started, then the containers
in their order. When the sandbox is lost all of that is done again.
"""

from __future__ import annotations

from askos.model.capsules import Assignment
from askos.plan.pods import ending, status, steps
from askos.plan.pods.bring import bring, prefetch, tend
from askos.plan.pods.draft import Draft, Wait
from askos.plan.pods.steps import Decision, Seen
from askos.plan.pods.view import Life, View, view


def decide(a: Assignment, seen: Seen, now_us: int) -> Decision:
    """The next actions for one pod, all to be begun now, and what is to be reported."""
    found = view(a, seen, now_us)
    if a.wish.state == "deleted":
        return ending.delete(found)
    if found.terminal:
        return ending.finish(found, found.prior.phase)
    doomed = ending.doom(found)
    if doomed is not None:
        return ending.fail(found, doomed)
    phase = ending.outcome(found)
    if phase is not None:
        return ending.finish(found, phase)
    return _run(found)


def _run(found: View) -> Decision:
    draft = Draft(found)
    _volumes(draft)
    _sandbox(draft)
    if _initialise(draft):
        _start_apps(draft)
    else:
        for life in found.apps:
            if not life.live and life.end is None:
                draft.waits[life.name] = Wait()
                prefetch(draft, life)
    _tidy(draft)
    deadline_s = found.pod.active_deadline_seconds
    if deadline_s is not None:
        draft.look(found.start_us + deadline_s * 1_000_000, timed=False)
    return ending.decision(draft, status.report(found, draft.waits), settled=_settled(draft))


def _volumes(draft: Draft) -> None:
    found = draft.view
    if not found.seen.ready_volumes:
        draft.add(steps.SetUpVolumes())
    elif found.a.content_revision > found.seen.written_content:
        draft.add(steps.WriteContent(found.a.content_revision))


def _sandbox(draft: Draft) -> None:
    found = draft.view
    current = found.sandbox
    lived = {c.sandbox_id for c in found.seen.containers if c.state in ("running", "unknown")}
    others = [s for s in found.seen.sandboxes if current is None or s.id != current.id]
    still = [s for s in others if s.ready or s.id in lived]
    if still:
        draft.add(steps.StopSandbox(still[0].id))
    elif current is not None:
        used = {c.sandbox_id for c in found.seen.containers}
        empty = [s for s in others if s.id not in used]
        if empty:
            draft.add(steps.RemoveSandbox(empty[0].id))
    elif found.seen.ready_volumes and not draft.busy("volumes"):
        attempt = max((s.attempt for s in others), default=-1) + 1
        began = any(life.began for life in found.lives)
        if draft.add(steps.RunSandbox(attempt, [s.id for s in others])) and began:
            draft.tell("SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")


# -- init containers ---------------------------------------------------------------------------------------------


def _initialise(draft: Draft) -> bool:
    """Run what comes before the containers proper. Returns whether that is done in this sandbox.

    The last init container that exists in the sandbox tells how far it has come: those before it have done their
    part, so of them only sidecars are looked after."""
    found = draft.view
    done = any(life.here for life in found.apps)
    reached = len(found.init) if done else max((i for i, life in enumerate(found.init) if life.here), default=-1)
    going_on = True
    for i, life in enumerate(found.init):
        if i < reached:
            if life.kind == "sidecar":
                _care(draft, life)
        elif going_on:
            going_on = _advance(draft, life)
        elif not life.live:
            draft.waits[life.name] = Wait()
            prefetch(draft, life)
    return going_on


def _advance(draft: Draft, life: Life) -> bool:
    """The init container whose turn it is. Returns whether the next one may start."""
    if life.kind == "init" and life.here and life.succeeded:
        return True
    _care(draft, life)
    return life.kind == "sidecar" and draft.view.started(life) and not draft.busy(f"container/{life.name}")


def _care(draft: Draft, life: Life) -> bool:
    if not life.live:
        return bring(draft, life, hold=False)
    return life.here and tend(draft, life)


# -- containers -------------------------------------------------------------------------------------------------


def _start_apps(draft: Draft) -> None:
    hold = False
    for life in draft.view.apps:
        if life.live:
            starting = life.here and tend(draft, life)
        elif draft.view.finished(life):
            starting = False
        else:
            starting = bring(draft, life, hold=hold)
        hold = hold or starting


# -- leftovers --------------------------------------------------------------------------------------------------


def _kept(found: View) -> set[str]:
    """The newest instance of each container; and while that lives, the last one that ended, for its logs."""
    kept: set[str] = set()
    for life in found.lives:
        mine = sorted((c for c in found.seen.containers if c.name == life.name), key=lambda c: c.attempt)
        if not mine:
            continue
        kept.add(mine[-1].id)
        ran = [c for c in mine[:-1] if c.state == "exited" and c.started_us is not None]
        if ran and (mine[-1].state != "exited" or mine[-1].started_us is None):
            kept.add(ran[-1].id)
    return kept


def _tidy(draft: Draft) -> None:
    kept = _kept(draft.view)
    for c in draft.view.seen.containers:
        if c.id not in kept and not draft.busy(f"container/{c.name}"):
            draft.add(steps.Remove(c.name, c.id))


def _settled(draft: Draft) -> bool:
    return not draft.actions and not draft.view.seen.busy and not draft.timed
