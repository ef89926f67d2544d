"""Between rows and the model's structs."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Row

from askos.adapters.sql import schema
from askos.model.capsules import Assignment, Capsule, CapsuleSpec, Network, Placement, Port, Report, Wish
from askos.model.hosts import Host, HostFacts
from askos.plan import zun_status

encode = msgspec.json.encode
spec_of = msgspec.json.Decoder(CapsuleSpec).decode
wish_of = msgspec.json.Decoder(Wish).decode
report_of = msgspec.json.Decoder(Report).decode
facts_of = msgspec.json.Decoder(HostFacts).decode


def text(value: Any) -> str:
    """A struct as JSON text."""
    return encode(value).decode()


def derived(wish: Wish, placement: Placement, report: Report) -> dict[str, Any]:
    """The derived columns, written together with whatever they derive from."""
    view = zun_status.view(wish, placement, report)
    return {
        "status": view.status,
        "status_reason": view.status_reason,
        "task_state": view.task_state,
        "wish_state": wish.state,
    }


def capsule(row: Row[Any], ports: list[Port], networks: dict[str, Network]) -> Capsule:
    """One row of `schema.capsules` with its ports."""
    return Capsule(
        uuid=row.uuid,
        project_id=row.project_id,
        user_id=row.user_id,
        name=row.name,
        kind=row.kind,
        spec=spec_of(row.spec),
        wish=wish_of(row.wish),
        placement=Placement(row.host_uuid, row.epoch, row.placement_failure),
        report=report_of(row.report),
        created_us=row.created_us,
        updated_us=row.updated_us,
        revision=row.revision,
        id=row.id,
        ports=ports,
        networks=[networks[p.network_uuid] for p in ports],
    )


def assignment(c: Capsule) -> Assignment:
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
    )


def port(row: Row[Any]) -> Port:
    """One row of `schema.ports`."""
    return Port(row.uuid, row.network_uuid, row.capsule_uuid, row.address, row.mac)


def network(row: Row[Any]) -> Network:
    """One row of `schema.networks`."""
    return Network(row.uuid, row.project_id, row.name, row.cidr, row.gateway, row.subnet_uuid)


def host(row: Row[Any]) -> Host:
    """One row of `schema.hosts`."""
    return Host(
        facts=facts_of(row.facts),
        session=row.session,
        last_seen_us=row.last_seen_us,
        availability_zone=row.availability_zone,
        connected=row.connected,
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
