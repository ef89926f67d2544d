"""A pod's report: its containers' states, its phase and its conditions, as Kubernetes words them."""

from __future__ import annotations

from typing import Literal

import msgspec

from askos.model.errors import InvalidError
from askos.model.images import normalise
from askos.model.pods import Condition, Ended, PodContainerReport, PodReport, Resources
from askos.plan.pods.draft import Wait
from askos.plan.pods.view import UNKNOWN, Life, View

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]

NETWORKED = "PodReadyToStartContainers"
_NEVER_SEEN = 137


def report(
    view: View,
    waits: dict[str, Wait],
    *,
    phase: Phase | None = None,
    reason: str = "",
    message: str = "",
    extra: list[Condition] | None = None,
) -> PodReport:
    """The whole report. `phase`: the one that the pod has ended in; None: it goes on, and its containers tell.
    `waits`: why containers do not run."""
    init = [_container(view, life, waits.get(life.name)) for life in view.init]
    apps = [_container(view, life, waits.get(life.name)) for life in view.apps]
    initialised = _initialised(view, init, apps)
    over = phase is not None
    if phase is None:
        phase = "Running" if view.prior.phase == "Running" or all(_ran(c) for c in apps) else "Pending"
    if over:
        init, apps = _closed(view, init, apps, initialised=initialised)
    return PodReport(
        phase=phase,
        reason=reason,
        message=message,
        start_us=view.start_us,
        conditions=_conditions(view, phase, init, apps, extra or [], initialised=initialised),
        init_containers=init,
        containers=apps,
        host_ip=view.seen.host_ip or view.prior.host_ip,
    )


# -- containers -------------------------------------------------------------------------------------------------


def _container(view: View, life: Life, wait: Wait | None) -> PodContainerReport:
    c, prior = life.newest, life.prior
    container_id = c.id if c is not None else prior.container_id
    common = PodContainerReport(
        name=life.name,
        restarts=life.restarts,
        crashes=life.crashes,
        container_id=container_id,
        image=life.spec.image,
        image_id=_image_id(view, life),
        resources=prior.resources if prior.container_id == container_id else Resources(),
    )
    if c is not None and life.live:
        resources = view.seen.applied.get(c.id, common.resources)
        if life.hook == "done":
            return msgspec.structs.replace(
                common,
                state="running",
                started_us=c.started_us,
                last=life.last,
                # An init container is ready when it has done its part.
                ready=life.kind != "init" and view.ready(life),
                started=view.started(life),
                resources=resources,
            )
        # Kubernetes shows a container as running when its postStart hook is done.
        shown = wait or Wait(prior.reason, prior.message)
        return msgspec.structs.replace(
            common,
            reason=shown.reason or _on_its_way(view),
            message=shown.message,
            started_us=c.started_us,
            last=life.last,
            resources=resources,
        )
    if life.end is not None and wait is None:
        done = life.kind == "init" and life.succeeded
        return msgspec.structs.replace(common, state="terminated", ended=life.end, last=life.last, ready=done)
    shown = wait or Wait()
    return msgspec.structs.replace(
        common,
        reason=shown.reason or _on_its_way(view),
        message=shown.message,
        last=life.end or life.last,
    )


def _image_id(view: View, life: Life) -> str:
    """By what its registry knows the image that the container was made from; of an image that came from no registry
    the id. The name may mean another image by now: then what was reported at the start still holds."""
    c, prior = life.newest, life.prior
    if c is None:
        return prior.image_id
    try:
        image = view.seen.images.get(normalise(life.spec.image))
    except InvalidError:
        image = None
    if image is not None and image.digest and image.id == c.image_id:
        return image.digest
    return (prior.image_id if prior.container_id == c.id else "") or c.image_id


def _on_its_way(view: View) -> str:
    return "PodInitializing" if view.pod.init_containers else "ContainerCreating"


def _ran(c: PodContainerReport) -> bool:
    return c.state != "waiting" or c.last is not None


def _initialised(view: View, init: list[PodContainerReport], apps: list[PodContainerReport]) -> bool:
    return any(_ran(c) for c in apps) or not _incomplete(view, init)


def _incomplete(view: View, init: list[PodContainerReport]) -> list[str]:
    missing = []
    for life, c in zip(view.init, init, strict=True):
        done = c.started if life.kind == "sidecar" else c.state == "terminated" and life.succeeded
        if not done:
            missing.append(c.name)
    return missing


def _closed(
    view: View, init: list[PodContainerReport], apps: list[PodContainerReport], *, initialised: bool
) -> tuple[list[PodContainerReport], list[PodContainerReport]]:
    """What never ended by the time the pod did: nobody can tell any more. What never began just waits."""
    last = max((i for i, c in enumerate(init) if _ran(c)), default=-1)
    init = [_lost(c) if i < last else c for i, c in enumerate(init)]
    return init, [_lost(c) for c in apps] if initialised else apps


def _lost(c: PodContainerReport) -> PodContainerReport:
    if c.state == "terminated":
        return c
    message = "The container could not be located when the pod was terminated"
    ended = Ended(_NEVER_SEEN, reason=UNKNOWN, message=message)
    return msgspec.structs.replace(
        c, state="terminated", reason="", message="", ended=ended, started_us=None, ready=False, started=False
    )


# -- conditions -------------------------------------------------------------------------------------------------


def _conditions(
    view: View,
    phase: Phase,
    init: list[PodContainerReport],
    apps: list[PodContainerReport],
    extra: list[Condition],
    *,
    initialised: bool,
) -> list[Condition]:
    over = phase in ("Succeeded", "Failed")
    # A new agent has to look after the volumes again, which changes nothing for what runs.
    before = any(c.type == NETWORKED and c.status for c in view.prior.conditions)
    sandbox = view.sandbox is not None and (view.seen.ready_volumes or before)
    conditions = [
        Condition(NETWORKED, sandbox and not over),
        _initialised_condition(view, phase, init, initialised=initialised),
        *_ready_conditions(view, phase, init, apps),
        Condition("PodScheduled", True),
        *_resize(view),
        *extra,
    ]
    kept = [c for c in view.prior.conditions if c.type == "DisruptionTarget" and not extra]
    return [_dated(view, c) for c in [*conditions, *kept]]


def _initialised_condition(view: View, phase: Phase, init: list[PodContainerReport], *, initialised: bool) -> Condition:
    if initialised:
        return Condition("Initialized", True, "PodCompleted" if phase == "Succeeded" else "")
    names = " ".join(_incomplete(view, init))
    return Condition("Initialized", False, "ContainersNotInitialized", f"containers with incomplete status: [{names}]")


def _ready_conditions(
    view: View, phase: Phase, init: list[PodContainerReport], apps: list[PodContainerReport]
) -> list[Condition]:
    sidecars = [c for life, c in zip(view.init, init, strict=True) if life.kind == "sidecar"]
    unready = [c.name for c in [*sidecars, *apps] if not c.ready]
    if phase == "Succeeded":
        reason, message = "PodCompleted", ""
    elif phase == "Failed":
        reason, message = "PodFailed", ""
    elif unready:
        reason, message = "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    else:
        return [Condition("Ready", True), Condition("ContainersReady", True)]
    return [Condition(name, False, reason, message) for name in ("Ready", "ContainersReady")]


def _resize(view: View) -> list[Condition]:
    """Whether changed resources could not be applied to a running container."""
    for life in view.lives:
        trouble = view.seen.troubles.get(f"container/{life.name}")
        c = life.newest
        if trouble is None or c is None or not life.up or view.a.wish.state == "deleted":
            continue
        if view.seen.applied.get(c.id, life.prior.resources) != life.spec.resources:
            return [Condition("PodResizeInProgress", True, "Error", trouble.message)]
    return []


def _dated(view: View, condition: Condition) -> Condition:
    before = next((c for c in view.prior.conditions if c.type == condition.type), None)
    changed_us = view.now_us
    if before is not None and before.status == condition.status:
        changed_us = before.changed_us
    return Condition(condition.type, condition.status, condition.reason, condition.message, changed_us)
