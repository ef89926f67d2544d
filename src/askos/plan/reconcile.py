"""What to do next for one capsule on its host: `decide` is a plain function of what is wanted and what is seen.

The agent looks, asks `decide`, performs the actions it returns, and looks again, until there is nothing to do. A
crash between any two lines is an ordinary case: everything that `decide` knows comes from the assignment, from
the runtime's own records and from the last report, never from a memory of what was done before. (What the agent
remembers beside that, such as volumes that are set up, only saves it from doing the same once more.)

A *run* is one start that the user asked for (create with run, start, reboot, rebuild); `Wish.run` counts them and
each is started at most once; only a start that was broken off before it was confirmed is done again. An *attempt* is
a restart by policy, or by healing, within a run. The runtime keeps both numbers as labels.

CRI cannot start a container a second time. A start after a stop is therefore a new container that takes the
writable layer of the old one over (`CarryLayer`), and the old one is removed once the new one runs. A rebuild
(`Wish.rebuilt_run`) removes the old one first, so that there is nothing to take over.
"""

from __future__ import annotations

import msgspec

from askos.model.capsules import Assignment, CapsuleState, RestartPolicy
from askos.model.images import normalise, of_service
from askos.plan import backoff
from askos.plan.container_report import hostname
from askos.plan.container_report import ordered as _ordered
from askos.plan.container_report import report as _report
from askos.plan.container_steps import (
    Action,
    CarryLayer,
    Container,
    CreateContainer,
    Decision,
    Health,
    Image,
    Observed,
    PauseContainer,
    PullImage,
    RemoveContainer,
    RemoveSandbox,
    RunSandbox,
    Sandbox,
    SetUpVolumes,
    StartContainer,
    StopContainer,
    StopSandbox,
    SyncNetwork,
    TearDown,
    Trouble,
    UnpauseContainer,
    UpdateLimits,
    with_made,
    with_started,
)

__all__ = [
    "Action",
    "CarryLayer",
    "Container",
    "CreateContainer",
    "Decision",
    "Health",
    "Image",
    "Observed",
    "PauseContainer",
    "PullImage",
    "RemoveContainer",
    "RemoveSandbox",
    "RunSandbox",
    "Sandbox",
    "SetUpVolumes",
    "StartContainer",
    "StopContainer",
    "StopSandbox",
    "SyncNetwork",
    "TearDown",
    "Trouble",
    "UnpauseContainer",
    "UpdateLimits",
    "decide",
    "hostname",
    "image_ref",
    "shares",
    "wants_restart",
    "wants_volumes",
    "with_made",
    "with_started",
]

_LIVE = ("running", "paused", "unknown")
"""States of containers that have to be stopped before anything else can be done with them."""


def decide(assignment: Assignment, seen: Observed, trouble: Trouble | None, now_us: int) -> Decision:
    """The next actions for one capsule. Actions are performed in order; after a failing one the rest is dropped."""
    decision = _decide(assignment, seen, trouble, now_us)
    if wants_volumes(assignment) and not seen.volumes:
        # Files that are given to a new container may lie in a file system of the capsule's own.
        needing = (CreateContainer, CarryLayer, StartContainer)
        if any(isinstance(action, needing) for action in decision.actions):
            actions: list[Action] = [SetUpVolumes(), *decision.actions]
            return msgspec.structs.replace(decision, actions=actions)
    return decision


def wants_volumes(a: Assignment) -> bool:
    """Whether the container needs anything set up on the host's disk."""
    spec = a.spec.containers[0]
    return bool(spec.mounts) or spec.disk_gib > 0


def shares(cpu: float) -> int:
    """The kernel's shares for Zun's number of CPUs."""
    return max(2, int(1024 * cpu))


def image_ref(a: Assignment) -> str:
    """The name of the container's image on hosts."""
    spec = a.spec.containers[0]
    return of_service(spec.image_uuid) if spec.image_driver == "glance" else normalise(spec.image)


def _decide(assignment: Assignment, seen: Observed, trouble: Trouble | None, now_us: int) -> Decision:
    wish = assignment.wish
    if trouble is not None and trouble.generation != wish.generation:
        trouble = None
    if wish.state == "deleted":
        return _delete(assignment, seen, trouble, now_us)
    if trouble is not None and trouble.final:
        return _failed(assignment, seen, trouble.message, now_us)
    if trouble is not None and now_us < trouble.retry_us:
        state = assignment.report.state
        report = _report(assignment, seen, state, now_us, settled=False, reason=trouble.message)
        return Decision([], report, look_us=trouble.retry_us)
    if wish.state in ("running", "paused"):
        return _run(assignment, seen, now_us)
    if wish.state == "stopped":
        return _stop(assignment, seen, now_us)
    return _prepare(assignment, seen, now_us)


def _delete(a: Assignment, seen: Observed, trouble: Trouble | None, now_us: int) -> Decision:
    report = _report(
        a,
        seen,
        a.report.state,
        now_us,
        settled=False,
        reason=trouble.message if trouble else None,
        progress="container_deleting",
    )
    if trouble is not None and now_us < trouble.retry_us:
        return Decision([], report, look_us=trouble.retry_us)
    actions: list[Action] = [StopContainer(c.id, a.wish.stop_timeout_s) for c in seen.containers if c.state in _LIVE]
    actions += [StopSandbox(s.id) for s in seen.sandboxes if s.ready]
    actions += [RemoveSandbox(s.id) for s in seen.sandboxes]
    known = {s.id for s in seen.sandboxes}
    actions += [RemoveContainer(c.id) for c in seen.containers if c.sandbox_id not in known]
    if not actions and (seen.logs or seen.folders):
        actions.append(TearDown())
    return Decision(actions, report, gone=not actions)


def _prepare(a: Assignment, seen: Observed, now_us: int) -> Decision:
    pull = _pull(a, seen)
    if pull is not None:
        progress = _report(a, seen, "none", now_us, settled=False, progress="image_pulling")
        return Decision([pull], progress)
    if seen.containers:
        # It was running or stopped, and has been rebuilt since.
        removal = _report(a, seen, "none", now_us, settled=False, progress="container_rebuilding")
        return Decision(_clear(a, seen.containers), removal)
    if wants_volumes(a) and not seen.volumes:
        # Now rather than at the start: a volume that cannot be used is the creation's failure.
        return Decision([SetUpVolumes()], _report(a, seen, "none", now_us, settled=False))
    actions: list[Action] = [StopSandbox(s.id) for s in seen.sandboxes if s.ready]
    return Decision(actions, _report(a, seen, "created", now_us, settled=not actions))


def _run(a: Assignment, seen: Observed, now_us: int) -> Decision:
    wish, ordered = a.wish, _ordered(seen)
    stale = [c for c in ordered if c.run < wish.rebuilt_run]
    if stale:
        # The image first: the old container serves until there is something to replace it.
        pull = _pull(a, seen)
        progress = "image_pulling" if pull is not None else "container_rebuilding"
        report = _report(a, seen, a.report.state, now_us, settled=False, progress=progress)
        return Decision([pull] if pull is not None else _clear(a, stale), report)

    current = next((c for c in reversed(ordered) if c.run == wish.run), None)
    older = [c for c in ordered if c.run < wish.run]

    running_older = [c for c in older if c.state in _LIVE]
    if running_older:
        report = _report(a, seen, "running", now_us, settled=False, progress="container_rebooting")
        return Decision([StopContainer(c.id, wish.stop_timeout_s) for c in running_older], report)

    leftover = [c for c in older if _never_ran(c)]
    if leftover:
        report = _report(a, seen, "none", now_us, settled=False, progress="container_creating")
        return Decision(_discard(seen, leftover), report)

    if current is None:
        if _had_started(a):
            return _lost(a, seen, now_us)
        return _bring_up(a, seen, run=wish.run, attempt=0, now_us=now_us)
    if current.state == "created":
        return _start(a, seen, current, now_us)
    if current.state == "exited" and _never_ran(current):
        # Its start was broken off (whoever asked for it was killed) or failed for a reason that may pass. It has
        # not run, so this is no end: it is made again. CRI cannot start it a second time.
        report = _report(a, seen, "none", now_us, settled=False, progress="container_creating")
        return Decision(_discard(seen, [current]), report)
    if current.state in ("running", "paused"):
        return _keep(a, seen, current, now_us)
    if current.state == "unknown":
        # The runtime lost track of it; only ending it makes its state known again.
        report = _report(a, seen, "running", now_us, settled=False)
        return Decision([StopContainer(current.id, 0)], report)
    return _ended(a, seen, current, now_us)


def _keep(a: Assignment, seen: Observed, current: Container, now_us: int) -> Decision:
    """It runs, or is paused: see that nothing else is there, and that it is as it is to be."""
    state: CapsuleState = "paused" if current.state == "paused" else "running"
    if state == "running" and a.spec.auto_heal and _is_unhealthy(a, seen, current):
        return _heal(a, seen, current, now_us)
    actions: list[Action] = [RemoveContainer(c.id) for c in _ordered(seen) if c.id != current.id]
    for sandbox in seen.sandboxes:
        if sandbox.id != current.sandbox_id:
            actions += [StopSandbox(sandbox.id), RemoveSandbox(sandbox.id)]
    changes: list[Action] = []
    if _limits_differ(a, current):
        changes.append(UpdateLimits(current.id))
    if seen.wired.get(current.sandbox_id) != [port.uuid for port in a.ports]:
        changes.append(SyncNetwork(current.sandbox_id))
    progress = None
    if a.wish.state == "paused" and state == "running":
        changes.append(PauseContainer(current.id))
        progress = "container_pausing"
    elif a.wish.state == "running" and state == "paused" and not seen.committing:
        changes.append(UnpauseContainer(current.id))
        progress = "container_unpausing"
    left = [action for action in changes if type(action).__name__ not in seen.refused]
    reasons = [seen.refused[name] for name in (type(action).__name__ for action in changes) if name in seen.refused]
    # After a restart of the agent the network is looked at once more, which changes nothing and is nobody's business.
    known = a.report.settled and a.report.generation == a.wish.generation
    quiet = not left or (known and all(isinstance(action, SyncNetwork) for action in left))
    report = _report(
        a,
        seen,
        state,
        now_us,
        settled=quiet,
        reason=" ".join(reasons) or None,
        progress=progress if left else None,
    )
    return Decision([*actions, *left], report)


def _limits_differ(a: Assignment, current: Container) -> bool:
    spec = a.spec.containers[0]
    wanted = (shares(spec.cpu), spec.memory_mib << 20)
    has = (current.cpu_shares, current.memory_bytes)
    return any(known and known != wish for known, wish in zip(has, wanted, strict=True))


def _is_unhealthy(a: Assignment, seen: Observed, current: Container) -> bool:
    health = seen.health.get(current.id)
    if health is not None:
        return health.state == "unhealthy"
    return any(c.container_id == current.id and c.health == "unhealthy" for c in a.report.containers)


def _heal(a: Assignment, seen: Observed, current: Container, now_us: int) -> Decision:
    """Remove what does not do its work any more: what is missing is made again, see `_lost`."""
    started_us = current.started_us or now_us
    due_us = started_us + backoff.restart_delay_us(current.attempt, now_us - started_us)
    state: CapsuleState = "running" if current.state == "running" else "restarting"
    if now_us < due_us:
        return Decision([], _report(a, seen, state, now_us, settled=True), look_us=due_us)
    message = "Its health check failed, so it is made again."
    report = _report(a, seen, state, now_us, settled=False, reason=message, progress="container_rebuilding")
    return Decision(_clear(a, [current]), report)


def _clear(a: Assignment, unwanted: list[Container]) -> list[Action]:
    """Remove containers together with their files."""
    actions: list[Action] = [StopContainer(c.id, a.wish.stop_timeout_s) for c in unwanted if c.state in _LIVE]
    return [*actions, *(RemoveContainer(c.id) for c in unwanted)]


def _ended(a: Assignment, seen: Observed, current: Container, now_us: int) -> Decision:
    if a.spec.auto_heal and _is_unhealthy(a, seen, current):
        return _heal(a, seen, current, now_us)
    policy = a.spec.restart_policy
    if not wants_restart(policy, current.exit_code or 0, current.attempt):
        report = _report(a, seen, "exited", now_us, settled=True)
        return Decision([StopSandbox(s.id) for s in seen.sandboxes if s.ready], report)
    lasted_us = (current.finished_us or 0) - (current.started_us or 0)
    due_us = (current.finished_us or now_us) + backoff.restart_delay_us(current.attempt, lasted_us)
    if now_us < due_us:
        report = _report(a, seen, "restarting", now_us, settled=True)
        return Decision([], report, look_us=due_us)
    return _bring_up(a, seen, run=current.run, attempt=current.attempt + 1, now_us=now_us)


def wants_restart(policy: RestartPolicy, exit_code: int, attempt: int) -> bool:
    """Whether the policy starts a container again that ended by itself, after `attempt` restarts."""
    if policy.name in ("always", "unless-stopped"):
        return True
    if policy.name == "on-failure" and exit_code != 0:
        return policy.max_retries == 0 or attempt < policy.max_retries
    return False


def _bring_up(a: Assignment, seen: Observed, *, run: int, attempt: int, now_us: int) -> Decision:
    first = attempt == 0 and run in (1, a.wish.rebuilt_run)
    state: CapsuleState = "none" if first else "restarting" if attempt else "exited"
    # A later run keeps the image of the first: its files lie over just that image.
    before = _ordered(seen)[-1].image_id if seen.containers else ""
    pull = None if before else _pull(a, seen)
    if pull is not None:
        return Decision([pull], _report(a, seen, state, now_us, settled=False, progress="image_pulling"))
    progress = "container_creating" if run == 1 else "container_starting"
    if attempt and not seen.containers:
        progress = "container_rebuilding"
    report = _report(a, seen, state, now_us, settled=False, progress=progress)
    if wants_volumes(a) and not seen.volumes:
        return Decision([SetUpVolumes()], report)
    sandbox = max((s for s in seen.sandboxes if s.ready), key=lambda s: s.attempt, default=None)
    if sandbox is None:
        newest = max((s.attempt for s in seen.sandboxes), default=-1)
        return Decision([RunSandbox(newest + 1)], report)
    image_id = before or (seen.image.id if seen.image else "")
    return Decision([CreateContainer(sandbox.id, sandbox.attempt, run, attempt, image_id)], report)


def _start(a: Assignment, seen: Observed, current: Container, now_us: int) -> Decision:
    state: CapsuleState = "restarting" if current.attempt else "none"
    report = _report(a, seen, state, now_us, settled=False, progress="container_starting")
    sandbox = next((s for s in seen.sandboxes if s.id == current.sandbox_id), None)
    if sandbox is None or not sandbox.ready:
        # Its sandbox is gone (a crash, a reboot): it can never start, so make another.
        return Decision(_discard(seen, [current]), report)
    actions: list[Action] = []
    before = [c for c in _ordered(seen) if (c.run, c.attempt) < (current.run, current.attempt)]
    if before:
        actions.append(CarryLayer(before[-1].id, current.id))
    actions.append(StartContainer(current.id))
    return Decision(actions, report)


def _stop(a: Assignment, seen: Observed, now_us: int) -> Decision:
    running = [c for c in seen.containers if c.state in _LIVE]
    if running:
        report = _report(a, seen, "running", now_us, settled=False)
        return Decision([StopContainer(c.id, a.wish.stop_timeout_s) for c in running], report)
    actions = _discard(seen, [c for c in seen.containers if _never_ran(c)])
    actions += [StopSandbox(s.id) for s in seen.sandboxes if s.ready]
    ended = any(c.state == "exited" for c in seen.containers) or _ever_started(a)
    return Decision(actions, _report(a, seen, "exited" if ended else "created", now_us, settled=not actions))


def _failed(a: Assignment, seen: Observed, message: str, now_us: int) -> Decision:
    """Leave nothing running behind an error; ended containers stay for their logs and files."""
    actions = _discard(seen, [c for c in seen.containers if c.state == "created"])
    actions += [StopSandbox(s.id) for s in seen.sandboxes if s.ready]
    report = _report(a, seen, "error", now_us, settled=True, reason=message)
    return Decision(actions, report)


def _never_ran(c: Container) -> bool:
    """Made but not started, or its start was broken off or refused: it holds no layer that is not another's."""
    return c.state == "created" or (c.state == "exited" and c.started_us is None)


def _discard(seen: Observed, unwanted: list[Container]) -> list[Action]:
    """Remove containers that never started, newest first, without losing a layer they may have been given.

    Whether the layer had been handed over before a crash is not known here. Handing it over (a second time does
    nothing) and then back leaves it with the container before in any case.
    """
    ordered = _ordered(seen)
    actions: list[Action] = []
    for c in sorted(unwanted, key=lambda c: (c.run, c.attempt), reverse=True):
        before = ordered[: ordered.index(c)]
        if before:
            actions += [CarryLayer(before[-1].id, c.id), CarryLayer(c.id, before[-1].id)]
        actions.append(RemoveContainer(c.id))
    return actions


def _lost(a: Assignment, seen: Observed, now_us: int) -> Decision:
    ended = a.report.settled and a.report.generation == a.wish.generation and a.report.state in ("error", "exited")
    if ended and not (a.spec.auto_heal and _was_killed(a)):
        return Decision([], a.report)
    last = a.report.containers[0]
    gone = "The container is gone from its host: something outside Askos removed it"
    if a.spec.auto_heal or a.spec.restart_policy.name in ("always", "unless-stopped"):
        decision = _bring_up(a, seen, run=a.wish.run, attempt=last.restarts + 1, now_us=now_us)
        report = msgspec.structs.replace(decision.report, reason=f"{gone}, so it is made again.")
        return msgspec.structs.replace(decision, report=report)
    message = f"{gone}. Start it to make it again."
    return Decision([], _report(a, seen, "error", now_us, settled=True, reason=message))


def _was_killed(a: Assignment) -> bool:
    """Whether a signal that nobody asked Askos for ended it: who removes a container by force kills it first, and the
    one may be seen before the other."""
    last = a.report.containers[0]
    return a.report.state == "exited" and last.exit_code in (128 + 9, 128 + 15) and last.reason != "OOMKilled"


def _had_started(a: Assignment) -> bool:
    return any(c.run == a.wish.run and c.started_us is not None for c in a.report.containers)


def _ever_started(a: Assignment) -> bool:
    return any(c.started_us is not None for c in a.report.containers)


def _pull(a: Assignment, seen: Observed) -> PullImage | None:
    spec = a.spec.containers[0]
    if spec.image_pull_policy == "always" and seen.pulled != a.wish.generation:
        return PullImage(image_ref(a))
    if seen.image is None:
        return PullImage(image_ref(a))
    return None
