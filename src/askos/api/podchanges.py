"""What of a pod may change after its create, and what a client may be told when it tries more."""

from __future__ import annotations

from typing import Any

import msgspec

from askos.api.errors import ApiError
from askos.model.capsules import Capsule
from askos.model.pods import Container, Pod, PodSpec
from askos.plan import resources

_MUTABLE = (
    "metadata.labels, metadata.annotations, the image and resources of containers, the image of initContainers, "
    "spec.activeDeadlineSeconds (set or shortened), spec.terminationGracePeriodSeconds and the content"
)


def defaulted(pod: Pod) -> Pod:
    """With what is decided once, at the create: when images are pulled follows from their first tag."""
    spec = msgspec.structs.replace(
        pod.spec,
        containers=[_pull_policy(c) for c in pod.spec.containers],
        init_containers=[_pull_policy(c) for c in pod.spec.init_containers],
    )
    return msgspec.structs.replace(pod, spec=spec)


def _pull_policy(container: Container) -> Container:
    if container.image_pull_policy is not None:
        return container
    name, _, digest = container.image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    policy: Any = "Always" if not digest and tag in ("", "latest") else "IfNotPresent"
    return msgspec.structs.replace(container, image_pull_policy=policy)


def changed(capsule: Capsule, old: Pod, new: Pod) -> Pod:
    """The pod that takes the place of `old` when a client sends `new`. Raises an ApiError 400 that names everything
    which cannot be changed."""
    new = _kept(capsule, old, new)
    allowed = msgspec.structs.replace(
        old,
        metadata=msgspec.structs.replace(
            old.metadata, labels=new.metadata.labels, annotations=new.metadata.annotations
        ),
        spec=_allowed(old.spec, new.spec),
    )
    problems = [f"{path} cannot be changed" for path in differences(allowed, new)]
    before, after = old.spec.active_deadline_seconds, new.spec.active_deadline_seconds
    if before is not None and (after is None or after > before):
        shown = "removed" if after is None else f"raised to {after}"
        problems.append(f"spec.activeDeadlineSeconds is {before}: it can be shortened, not {shown}")
    if resources.qos_class(old) != resources.qos_class(new):
        problems.append(
            f"spec.containers: these resources would make the capsule {resources.qos_class(new)}; it is "
            f"{resources.qos_class(old)} and must stay that"
        )
    if problems:
        title = f"Cannot update capsule {old.metadata.name}: {'; '.join(problems)}. What can be changed: {_MUTABLE}."
        raise ApiError(400, title, code="container.immutable")
    return new


def _kept(capsule: Capsule, old: Pod, new: Pod) -> Pod:
    """What was left out stays as it is, where Kubernetes' defaults would say something else now."""
    uid = new.metadata.uid
    if not uid or (uid == capsule.uuid and not old.metadata.uid):
        uid = old.metadata.uid
    spec = msgspec.structs.replace(
        new.spec,
        containers=_policies(old.spec.containers, new.spec.containers),
        init_containers=_policies(old.spec.init_containers, new.spec.init_containers),
    )
    return msgspec.structs.replace(new, metadata=msgspec.structs.replace(new.metadata, uid=uid), spec=spec)


def _policies(old: list[Container], new: list[Container]) -> list[Container]:
    known = {c.name: c.image_pull_policy for c in old}
    return [
        msgspec.structs.replace(c, image_pull_policy=known.get(c.name)) if c.image_pull_policy is None else c
        for c in new
    ]


def _allowed(old: PodSpec, new: PodSpec) -> PodSpec:
    """The old spec with everything of the new one that may change."""
    return msgspec.structs.replace(
        old,
        containers=_paired(old.containers, new.containers, "image", "resources"),
        init_containers=_paired(old.init_containers, new.init_containers, "image"),
        active_deadline_seconds=new.active_deadline_seconds,
        termination_grace_period_seconds=new.termination_grace_period_seconds,
    )


def _paired(old: list[Container], new: list[Container], *names: str) -> list[Container]:
    by_name = {c.name: c for c in new}
    return [
        msgspec.structs.replace(c, **{name: getattr(by_name[c.name], name) for name in names})
        if c.name in by_name
        else c
        for c in old
    ]


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """The paths at which two parts differ, as a person would name them: spec.containers[web].env."""
    if old == new:
        return []
    if isinstance(old, msgspec.Struct) and type(old) is type(new):
        return [
            found
            for field in msgspec.structs.fields(old)
            for found in differences(
                getattr(old, field.name), getattr(new, field.name), f"{path}.{field.encode_name}".lstrip(".")
            )
        ]
    if isinstance(old, list) and isinstance(new, list):
        names = [getattr(item, "name", None) for item in old]
        if None not in names and names == [getattr(item, "name", None) for item in new]:
            return [
                found
                for name, before, after in zip(names, old, new, strict=True)
                for found in differences(before, after, f"{path}[{name}]")
            ]
    return [path]
