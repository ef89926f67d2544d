"""What to do next for one capsule on its host: `decide` is a plain function of what is wanted and what is seen.

The agent looks, asks `decide`, performs the actions it returns, and looks again, until there is nothing to do. A
crash between any two lines is an ordinary case: everything that `decide` knows comes from the assignment, from
the runtime's own records and from the last report, never from a memory of what was done before.

A *run* is one start that the user asked for (create with run, start, reboot); `Wish.run` counts them and each is
started at most once; only a start that was broken off before it was confirmed is done again. An *attempt* is a
restart by policy within a run. The runtime keeps both numbers as labels.

CRI cannot start a container a second time. A start after a stop is therefore a new container that takes the
writable layer of the old one over (`CarryLayer`), and the old one is removed once the new one runs.
"""

from __future__ import annotations

import msgspec

from askos.model.capsules import (
    Assignment,
    CapsuleState,
    ContainerReport,
    ContainerSpec,
    Report,
    RestartPolicy,
)
from askos.model.images import normalise
from askos.plan import backoff


class Sandbox(msgspec.Struct, frozen=True):
    """A sandbox as seen; the fields of `ports.runtime.Sandbox` that decisions need."""

    id: str
    attempt: int
    ready: bool


class Container(msgspec.Struct, frozen=True):
    """A container as seen; the fields of `ports.runtime.Container` that decisions need."""

    id: str
    sandbox_id: str
    name: str
    run: int
    attempt: int
    state: str
    image_id: str = ""
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None
    started_us: int | None = None
    finished_us: int | None = None
    spec_hash: str = ""


class Image(msgspec.Struct, frozen=True):
    """The image of a container spec as found on the host."""

    id: str
    entrypoint: list[str]
    command: list[str]


class Trouble(msgspec.Struct, frozen=True):
    """An action failed while working on `generation`. `final`: trying again cannot help."""

    generation: int
    message: str
    final: bool
    retry_us: int = 0


class Observed(msgspec.Struct, frozen=True):
    """Everything seen on the host for one capsule. `pulled`: the generation for which a pull has succeeded."""

    sandboxes: list[Sandbox] = []
    containers: list[Container] = []
    image: Image | None = None
    pulled: int = 0
    logs: bool = False
    """Whether the capsule's log folder exists."""


class PullImage(msgspec.Struct, frozen=True, tag=True):
    """Fetch the image."""

    ref: str


class RunSandbox(msgspec.Struct, frozen=True, tag=True):
    """Make a sandbox with its network."""

    attempt: int


class CreateContainer(msgspec.Struct, frozen=True, tag=True):
    """Make a container in a ready sandbox."""

    sandbox_id: str
    sandbox_attempt: int
    run: int
    attempt: int
    image_id: str


class CarryLayer(msgspec.Struct, frozen=True, tag=True):
    """Exchange the writable layers of two containers that do not run; done once for each pair, however often."""

    from_id: str
    to_id: str


class StartContainer(msgspec.Struct, frozen=True, tag=True):
    """Start a created container."""

    container_id: str


class StopContainer(msgspec.Struct, frozen=True, tag=True):
    """Stop a container: its stop signal, and SIGKILL after the grace."""

    container_id: str
    timeout_s: int


class RemoveContainer(msgspec.Struct, frozen=True, tag=True):
    """Remove a container that is not needed any more."""

    container_id: str


class StopSandbox(msgspec.Struct, frozen=True, tag=True):
    """Stop a sandbox; frees its network."""

    sandbox_id: str


class RemoveSandbox(msgspec.Struct, frozen=True, tag=True):
    """Remove a stopped sandbox with its containers."""

    sandbox_id: str


class RemoveLogs(msgspec.Struct, frozen=True, tag=True):
    """Remove the capsule's log folder."""


Action = (
    PullImage
    | RunSandbox
    | CreateContainer
    | CarryLayer
    | StartContainer
    | StopContainer
    | RemoveContainer
    | StopSandbox
    | RemoveSandbox
    | RemoveLogs
)


class Decision(msgspec.Struct, frozen=True):
    """What to do now, what to tell the server, and when to look again at the latest (None: when woken)."""

    actions: list[Action]
    report: Report
    gone: bool = False
    look_us: int | None = None


def with_made(seen: Observed, action: Action, made: str, name: str) -> Observed:
    """What is seen once an action has made something, whose id is `made`. `name`: of the container's spec."""
    if isinstance(action, RunSandbox):
        return msgspec.structs.replace(seen, sandboxes=[*seen.sandboxes, Sandbox(made, action.attempt, ready=True)])
    if isinstance(action, CreateContainer):
        new = Container(
            id=made,
            sandbox_id=action.sandbox_id,
            name=name,
            run=action.run,
            attempt=action.attempt,
            state="created",
            image_id=action.image_id,
        )
        return msgspec.structs.replace(seen, containers=[*seen.containers, new])
    return seen


def decide(assignment: Assignment, seen: Observed, trouble: Trouble | None, now_us: int) -> Decision:
    """The next actions for one capsule. Actions are performed in order; after a failing one the rest is dropped."""
    wish = assignment.wish
    if trouble is not None and trouble.generation != wish.generation:
        trouble = None
    if wish.state == "deleted":
        return _delete(assignment, seen, trouble, now_us)
    if trouble is not None and trouble.final:
        return _failed(assignment, seen, trouble.message, now_us)
    if trouble is not None and now_us < trouble.retry_us:
        report = _report(assignment, seen, "none", now_us, settled=False, reason=trouble.message)
        return Decision([], report, look_us=trouble.retry_us)
    if wish.state == "running":
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
    actions: list[Action] = [
        StopContainer(c.id, a.wish.stop_timeout_s) for c in seen.containers if c.state in ("running", "unknown")
    ]
    actions += [StopSandbox(s.id) for s in seen.sandboxes if s.ready]
    actions += [RemoveSandbox(s.id) for s in seen.sandboxes]
    known = {s.id for s in seen.sandboxes}
    actions += [RemoveContainer(c.id) for c in seen.containers if c.sandbox_id not in known]
    if not actions and seen.logs:
        actions.append(RemoveLogs())
    return Decision(actions, report, gone=not actions)


def _prepare(a: Assignment, seen: Observed, now_us: int) -> Decision:
    pull = _pull(a, seen)
    if pull is not None:
        progress = _report(a, seen, "none", now_us, settled=False, progress="image_pulling")
        return Decision([pull], progress)
    return Decision([], _report(a, seen, "created", now_us, settled=True))


def _run(a: Assignment, seen: Observed, now_us: int) -> Decision:
    wish, ordered = a.wish, _ordered(seen)
    current = next((c for c in reversed(ordered) if c.run == wish.run), None)
    older = [c for c in ordered if c.run < wish.run]

    running_older = [c for c in older if c.state in ("running", "unknown")]
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
    if current.state == "running":
        actions: list[Action] = [RemoveContainer(c.id) for c in ordered if c.id != current.id]
        for sandbox in seen.sandboxes:
            if sandbox.id != current.sandbox_id:
                actions += [StopSandbox(sandbox.id), RemoveSandbox(sandbox.id)]
        return Decision(actions, _report(a, seen, "running", now_us, settled=True))
    if current.state == "unknown":
        # The runtime lost track of it; only ending it makes its state known again.
        report = _report(a, seen, "running", now_us, settled=False)
        return Decision([StopContainer(current.id, 0)], report)
    return _ended(a, seen, current, now_us)


def _ended(a: Assignment, seen: Observed, current: Container, now_us: int) -> Decision:
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
    state: CapsuleState = "none" if run == 1 and attempt == 0 else "exited"
    # A later run keeps the image of the first: its files lie over just that image.
    before = _ordered(seen)[-1].image_id if seen.containers else ""
    pull = None if before else _pull(a, seen)
    if pull is not None:
        return Decision([pull], _report(a, seen, state, now_us, settled=False, progress="image_pulling"))
    progress = "container_creating" if run == 1 else "container_starting"
    report = _report(a, seen, state, now_us, settled=False, progress=progress)
    sandbox = max((s for s in seen.sandboxes if s.ready), key=lambda s: s.attempt, default=None)
    if sandbox is None:
        newest = max((s.attempt for s in seen.sandboxes), default=-1)
        return Decision([RunSandbox(newest + 1)], report)
    image_id = before or (seen.image.id if seen.image else "")
    return Decision([CreateContainer(sandbox.id, sandbox.attempt, run, attempt, image_id)], report)


def _start(a: Assignment, seen: Observed, current: Container, now_us: int) -> Decision:
    report = _report(a, seen, "none", now_us, settled=False, progress="container_starting")
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
    running = [c for c in seen.containers if c.state in ("running", "unknown")]
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
    if a.report.settled and a.report.generation == a.wish.generation and a.report.state in ("error", "exited"):
        kept = a.report
        return Decision([], kept)
    last = a.report.containers[0]
    if a.spec.restart_policy.name in ("always", "unless-stopped"):
        return _bring_up(a, seen, run=a.wish.run, attempt=last.restarts + 1, now_us=now_us)
    message = "The container is gone from its host: something outside Askos removed it. Start it to make it again."
    return Decision([], _report(a, seen, "error", now_us, settled=True, reason=message))


def _had_started(a: Assignment) -> bool:
    return any(c.run == a.wish.run and c.started_us is not None for c in a.report.containers)


def _ever_started(a: Assignment) -> bool:
    return any(c.started_us is not None for c in a.report.containers)


def _ordered(seen: Observed) -> list[Container]:
    return sorted(seen.containers, key=lambda c: (c.run, c.attempt))


def _pull(a: Assignment, seen: Observed) -> PullImage | None:
    spec = a.spec.containers[0]
    if spec.image_pull_policy == "always" and seen.pulled != a.wish.generation:
        return PullImage(normalise(spec.image))
    if seen.image is None:
        return PullImage(normalise(spec.image))
    return None


def _report(
    a: Assignment,
    seen: Observed,
    state: CapsuleState,
    now_us: int,
    *,
    settled: bool,
    reason: str | None = None,
    progress: str | None = None,
) -> Report:
    return Report(
        generation=a.wish.generation,
        settled=settled,
        state=state,
        reason=reason,
        progress=progress,
        hostname=hostname(a),
        containers=[_container_report(a, spec, seen) for spec in a.spec.containers],
        observed_us=now_us,
    )


def hostname(a: Assignment) -> str:
    """The host name seen inside: as asked for, else the first twelve characters of the uuid."""
    return a.spec.hostname or a.capsule_uuid.replace("-", "")[:12]


def _container_report(a: Assignment, spec: ContainerSpec, seen: Observed) -> ContainerReport:
    before = next((c for c in a.report.containers if c.name == spec.name), ContainerReport(spec.name))
    image = seen.image
    entrypoint, command = spec.entrypoint, spec.command
    if image is not None:
        if command is None:
            command = image.command if entrypoint is None else []
        if entrypoint is None:
            entrypoint = image.entrypoint
    else:
        entrypoint = entrypoint if entrypoint is not None else before.entrypoint
        command = command if command is not None else before.command
    started = [c for c in _ordered(seen) if c.name == spec.name and c.state != "created"]
    if not started:
        return msgspec.structs.replace(before, entrypoint=entrypoint, command=command)
    c = started[-1]
    return ContainerReport(
        name=spec.name,
        state="running" if c.state == "running" else "exited" if c.state == "exited" else "waiting",
        reason=c.reason,
        message=c.message,
        run=c.run,
        restarts=c.attempt,
        exit_code=c.exit_code,
        started_us=c.started_us,
        finished_us=c.finished_us,
        image_id=c.image_id or None,
        entrypoint=entrypoint,
        command=command,
    )
