"""Between rows and the model's structs."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Row

from askos.adapters.sql import schema
from askos.model.capsules import (
    Assignment,
    Capsule,
    CapsuleSpec,
    Network,
    Placement,
    Port,
    Report,
    VolumeGrant,
    Wish,
)
from askos.model.hosts import Host, HostFacts
from askos.model.pods import Content, Event
from askos.model.quotas import Usage
from askos.plan import placement, resources, zun_status
from askos.ports.store import Change

encode = msgspec.json.encode
spec_of = msgspec.json.Decoder(CapsuleSpec).decode
wish_of = msgspec.json.Decoder(Wish).decode
report_of = msgspec.json.Decoder(Report).decode
capsule_of = msgspec.json.Decoder(Capsule).decode
labels_of = msgspec.json.Decoder(dict[str, str]).decode
facts_of = msgspec.json.Decoder(HostFacts).decode


class _OnlySpec(msgspec.Struct, frozen=True, rename="camel"):
    runtime_class_name: str | None = None


class _OnlyPod(msgspec.Struct, frozen=True):
    spec: _OnlySpec = _OnlySpec()


class _OnlyRuntime(msgspec.Struct, frozen=True):
    pod: _OnlyPod | None = None


_runtime_in = msgspec.json.Decoder(_OnlyRuntime).decode


def runtime_of(spec: str) -> str | None:
    """The runtime class that a spec asks for, without reading all of it."""
    found = _runtime_in(spec)
    return None if found.pod is None else found.pod.spec.runtime_class_name


def text(value: Any) -> str:
    """A struct as JSON text."""
    return encode(value).decode()


def derived(wish: Wish, placed: Placement, report: Report) -> dict[str, Any]:
    """The derived columns, written together with whatever they derive from."""
    view = zun_status.view(wish, placed, report)
    return {
        "status": view.status,
        "status_reason": view.status_reason,
        "task_state": view.task_state,
        "wish_state": wish.state,
    }


def capsule(
    row: Row[Any],
    spec: CapsuleSpec,
    ports: list[Port],
    networks: list[Network],
    volumes: list[VolumeGrant],
) -> Capsule:
    """One row of `schema.capsules` with its spec, read already, its ports and volumes."""
    return Capsule(
        uuid=row.uuid,
        project_id=row.project_id,
        user_id=row.user_id,
        name=row.name,
        kind=row.kind,
        spec=spec,
        wish=wish_of(row.wish),
        placement=Placement(row.host_uuid, row.epoch, row.placement_failure),
        report=report_of(row.report),
        created_us=row.created_us,
        updated_us=row.updated_us,
        revision=row.revision,
        id=row.id,
        ports=ports,
        networks=networks,
        volumes=volumes,
        content_revision=row.content_revision,
    )


def claimed(spec: CapsuleSpec) -> dict[str, Any]:
    """The columns that repeat what a spec says."""
    wanted = placement.claim(spec)
    containers = spec.containers if spec.pod is None else spec.pod.spec.containers
    return {
        "cpu": wanted.cpu,
        "memory_mib": wanted.memory_mib,
        "disk_gib": sum(c.disk_gib for c in spec.containers),
        "registry_uuid": spec.containers[0].registry_uuid if spec.containers else None,
        "image": containers[0].image,
        "auto_remove": spec.auto_remove,
        **{f"quota_{name}": value for name, value in msgspec.structs.asdict(use(spec)).items()},
    }


def use(spec: CapsuleSpec) -> Usage:
    """What a capsule counts for in its project's quota: a container what it claims, a pod the most that it may take."""
    if spec.pod is not None:
        pod = resources.use(spec.pod)
        return Usage(pod.containers, -(-pod.memory_bytes >> 20), pod.cpu_milli, -(-pod.storage_bytes >> 30))
    wanted = placement.claim(spec)
    return Usage(len(spec.containers), wanted.memory_mib, wanted.cpu, sum(c.disk_gib for c in spec.containers))


def assignment(c: Capsule, content: Content) -> Assignment:
    """What the capsule's host is told."""
    return Assignment(
        capsule_uuid=c.uuid,
        project_id=c.project_id,
        name=c.name,
        epoch=c.placement.epoch,
        spec=c.spec,
        wish=c.wish,
        ports=c.ports,
        networks=c.networks,
        report=c.report,
        kind=c.kind,
        volumes=c.volumes,
        content=content,
        content_revision=c.content_revision,
        created_us=c.created_us,
    )


def change(row: Row[Any]) -> Change:
    """One row of `schema.changes`."""
    return Change(
        row.revision,
        row.kind,
        row.uuid,
        row.deleted,
        project_id=row.project_id,
        last=None if row.last is None else msgspec.structs.replace(capsule_of(row.last), revision=row.revision),
        created=row.created,
        labels_before=None if row.labels_before is None else labels_of(row.labels_before),
    )


def event(row: Row[Any]) -> Event:
    """One row of `schema.capsule_events`."""
    return Event(row.type, row.reason, row.message, row.container, row.last_us, row.times, row.first_us)


def host(row: Row[Any]) -> Host:
    """One row of `schema.hosts`."""
    return Host(
        facts=facts_of(row.facts),
        session=row.session,
        last_seen_us=row.last_seen_us,
        availability_zone=row.availability_zone,
        connected=row.connected,
        number=row.number,
        disabled=row.disabled,
        disabled_reason=row.disabled_reason,
        forced_down=row.forced_down,
        report_count=row.report_count,
        created_us=row.created_us,
        updated_us=row.updated_us,
    )


COLUMNS = {c.name: c for c in schema.capsules.columns}

SORT_KEYS: dict[str, str] = {
    "id": "id",
    "uuid": "uuid",
    "name": "name",
    "project_id": "project_id",
    "user_id": "user_id",
    "image": "image",
    "memory": "memory_mib",
    "cpu": "cpu",
    "status": "status",
    "status_reason": "status_reason",
    "task_state": "task_state",
    "auto_remove": "auto_remove",
    "host": "host_uuid",
    "created_at": "created_us",
    "updated_at": "updated_us",
}
"""Zun's sort keys to our columns."""
