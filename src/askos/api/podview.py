"""A capsule as the native API shows it: Kubernetes' Pod, with a status that is there from the first moment."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec

from askos.api.rendered import Blanks, Piece
from askos.model import pods
from askos.model.capsules import Capsule
from askos.model.errors import InvalidError
from askos.model.images import normalise
from askos.model.pods import Condition, Ended, Event, Pod, PodContainerReport, PodReport
from askos.plan import resources

_SHOWN_DEFAULTS: dict[type, frozenset[str]] = {
    pods.PodSpec: frozenset({"restart_policy", "termination_grace_period_seconds", "dns_policy", "security_context"}),
    pods.Container: frozenset({"resources", "termination_message_path", "termination_message_policy"}),
    pods.ContainerPort: frozenset({"protocol"}),
    pods.Probe: frozenset({"period_seconds", "timeout_seconds", "success_threshold", "failure_threshold"}),
    pods.HttpGet: frozenset({"path", "scheme"}),
    pods.Volume: frozenset(),
    pods.ConfigMapVolume: frozenset({"default_mode"}),
    pods.SecretVolume: frozenset({"default_mode"}),
    pods.DownwardVolume: frozenset({"default_mode"}),
    pods.ProjectedVolume: frozenset({"default_mode"}),
    pods.FieldRef: frozenset({"api_version"}),
    pods.ResourceFieldRef: frozenset({"divisor"}),
}
"""Defaults that Kubernetes writes out, so that a reader need not know them. Other defaults are left out."""

NODE_LOST = "NodeLost"


def time_text(us: int | None) -> str | None:
    """RFC 3339 in UTC, whole seconds, as Kubernetes has it."""
    return None if us is None else datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod_of(capsule: Capsule) -> Pod:
    """The capsule's pod; only of kind "capsule"."""
    assert capsule.spec.pod is not None
    return capsule.spec.pod


def capsule_json(capsule: Capsule, *, host_name: str | None = None, admin: bool = False) -> dict[str, Any]:
    """The whole object. `host_name` is shown to administrators."""
    shown: dict[str, Any] = {
        "apiVersion": "askos/v1",
        "kind": "Capsule",
        "id": capsule.uuid,
        "metadata": metadata_json(capsule),
        "spec": part_json(pod_of(capsule).spec),
        "status": status_json(capsule),
    }
    if admin:
        shown["host"] = host_name
    return shown


def capsule_piece(capsule: Capsule, *, admin: bool) -> Piece:
    """The same, to be filled in when it is read."""
    blanks = Blanks()
    shown = capsule_json(capsule, host_name=blanks.HOST, admin=admin)
    shown["metadata"]["resourceVersion"] = blanks.REVISION
    return blanks.piece(capsule, shown)


def metadata_json(capsule: Capsule) -> dict[str, Any]:
    """Kubernetes' ObjectMeta. `uid` is the client's own if it gave one."""
    metadata = pod_of(capsule).metadata
    shown: dict[str, Any] = {
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid or capsule.uuid,
        "labels": metadata.labels,
        "annotations": metadata.annotations,
        "generation": capsule.wish.generation,
        "creationTimestamp": time_text(capsule.created_us),
        "resourceVersion": str(capsule.revision),
    }
    if capsule.wish.state == "deleted":
        grace = capsule.wish.stop_timeout_s
        shown["deletionTimestamp"] = time_text(capsule.wish.at_us + grace * 1_000_000)
        shown["deletionGracePeriodSeconds"] = grace
    return shown


def part_json(part: msgspec.Struct) -> dict[str, Any]:
    """A part of a manifest as JSON, with Kubernetes' important defaults written out."""
    shown: dict[str, Any] = {}
    for name, shown_name, always, default in _fields(type(part)):
        value = getattr(part, name)
        if not always and (value == default or value in ({}, [], None)):
            continue
        shown[shown_name] = _value_json(value)
    return shown


@cache
def _fields(part: type[msgspec.Struct]) -> list[tuple[str, str, bool, Any]]:
    """Name, name in JSON, whether it is always shown, and default of each field. Asking msgspec each time takes
    seconds for a manifest of a megabyte."""
    written = _SHOWN_DEFAULTS.get(part, frozenset())
    return [
        (field.name, field.encode_name, field.required or field.name in written, field.default)
        for field in msgspec.structs.fields(part)
    ]


def _value_json(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return part_json(value)
    if isinstance(value, list):
        return [_value_json(item) for item in value]
    return value


# -- status -----------------------------------------------------------------------------------------------------


def status_json(capsule: Capsule) -> dict[str, Any]:
    """Kubernetes' PodStatus. Before the host's first report: Pending, and every container waiting."""
    report, pod = capsule.report.pod, pod_of(capsule)
    waiting = report is None
    report = report or PodReport()
    lost = capsule.placement.failure if capsule.placement.host_uuid is not None else None
    shown: dict[str, Any] = {"phase": report.phase}
    reason, message = (report.reason, report.message) if lost is None else (NODE_LOST, lost)
    shown.update({k: v for k, v in (("reason", reason), ("message", message)) if v})
    shown["conditions"] = [
        _condition(c, 0 if waiting else capsule.report.generation) for c in _conditions(capsule, report, lost)
    ]
    if report.host_ip:
        shown["hostIP"] = report.host_ip
        shown["hostIPs"] = [{"ip": report.host_ip}]
    if capsule.ports:
        shown["podIP"] = capsule.ports[0].address
        shown["podIPs"] = [{"ip": ip} for port in capsule.ports for ip in (port.address, port.address6) if ip]
    if report.start_us is not None:
        shown["startTime"] = time_text(report.start_us)
    shown["qosClass"] = resources.qos_class(pod)
    shown["observedGeneration"] = 0 if waiting else capsule.report.generation
    first = "PodInitializing" if pod.spec.init_containers else "ContainerCreating"
    if pod.spec.init_containers:
        shown["initContainerStatuses"] = _statuses(pod.spec.init_containers, report.init_containers, first)
    shown["containerStatuses"] = _statuses(pod.spec.containers, report.containers, first)
    return shown


def _conditions(capsule: Capsule, report: PodReport, lost: str | None) -> list[Condition]:
    """The host's conditions; PodScheduled is the control plane's own."""
    changed = capsule.created_us
    if capsule.placement.host_uuid is not None:
        scheduled = Condition("PodScheduled", status=True, changed_us=report.start_us or changed)
    elif capsule.placement.failure is not None:
        scheduled = Condition(
            "PodScheduled", False, "Unschedulable", capsule.placement.failure, capsule.updated_us or changed
        )
    else:
        scheduled = Condition("PodScheduled", status=False, reason="Pending", changed_us=changed)
    found = [c for c in report.conditions if c.type != "PodScheduled"]
    if lost is not None:
        # Whatever was true when the host was last heard of: nobody can rely on it now.
        since = capsule.updated_us or changed
        found = [
            Condition(c.type, False, NODE_LOST, lost, since) if c.type in ("Ready", "ContainersReady") else c
            for c in found
        ]
    return [*found, scheduled]


def _condition(condition: Condition, generation: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "type": condition.type,
        "observedGeneration": generation,
        "status": "True" if condition.status else "False",
        "lastProbeTime": None,
        "lastTransitionTime": time_text(condition.changed_us or None),
    }
    if condition.reason:
        shown["reason"] = condition.reason
    if condition.message:
        shown["message"] = condition.message
    return shown


def _statuses(specs: list[pods.Container], reports: list[PodContainerReport], waiting: str) -> list[dict[str, Any]]:
    """One for each container of the spec, in its order."""
    by_name = {report.name: report for report in reports}
    return [
        _container(by_name.get(spec.name) or PodContainerReport(spec.name, reason=waiting, image=spec.image), spec)
        for spec in specs
    ]


def _container(report: PodContainerReport, spec: pods.Container) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": report.name,
        "state": _state(report),
        "lastState": {"terminated": _ended(report.last)} if report.last is not None else {},
        "ready": report.ready,
        "started": report.started,
        "restartCount": report.restarts,
        "image": report.image or spec.image,
        "imageID": report.image_id,
    }
    if report.container_id:
        shown |= _made(report, spec)
        shown["containerID"] = _runtime_id(report.container_id)
    if report.resources != pods.Resources():
        shown["resources"] = part_json(report.resources)
    return shown


def _made(report: PodContainerReport, spec: pods.Container) -> dict[str, Any]:
    """What a kubelet tells of a container once it has made it."""
    shown: dict[str, Any] = {}
    with contextlib.suppress(InvalidError):
        shown["image"] = normalise(report.image or spec.image)
    asked = {**spec.resources.limits, **spec.resources.requests}
    if asked:
        # Whatever was accepted is granted: the host's room was looked at before.
        shown["allocatedResources"] = asked
    if spec.volume_mounts:
        shown["volumeMounts"] = [
            {"name": m.name, "mountPath": m.mount_path}
            | ({"readOnly": True, "recursiveReadOnly": m.recursive_read_only} if m.read_only else {})
            for m in spec.volume_mounts
        ]
    if spec.lifecycle is not None and spec.lifecycle.stop_signal:
        shown["stopSignal"] = spec.lifecycle.stop_signal
    return shown


def _state(report: PodContainerReport) -> dict[str, Any]:
    if report.state == "running":
        return {"running": {"startedAt": time_text(report.started_us)}}
    if report.state == "terminated" and report.ended is not None:
        return {"terminated": _ended(report.ended)}
    waiting = {"reason": report.reason}
    if report.message:
        waiting["message"] = report.message
    return {"waiting": waiting}


def _ended(ended: Ended) -> dict[str, Any]:
    shown: dict[str, Any] = {"exitCode": ended.exit_code, "reason": ended.reason}
    if ended.signal:
        shown["signal"] = ended.signal
    if ended.message:
        shown["message"] = ended.message
    shown["startedAt"] = time_text(ended.started_us)
    shown["finishedAt"] = time_text(ended.finished_us)
    if ended.container_id:
        shown["containerID"] = _runtime_id(ended.container_id)
    return shown


def _runtime_id(container_id: str) -> str:
    return container_id if "://" in container_id else f"containerd://{container_id}"


def event_json(event: Event) -> dict[str, Any]:
    """One event."""
    return {
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "count": event.count,
        "firstTimestamp": time_text(event.first_us or event.at_us),
        "lastTimestamp": time_text(event.at_us),
        "container": event.container,
    }
