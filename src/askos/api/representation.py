"""A container as Zun clients see it, section by section of its representation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from askos.api.rendered import Blanks, Piece
from askos.model.capsules import Capsule, ContainerReport, ContainerSpec
from askos.plan import zun_status


def time_text(us: int | None, *, fraction: bool = False) -> str | None:
    """Zun's time format: UTC, a space, no zone. gophercloud cannot parse a "T" here."""
    if us is None:
        return None
    shown = datetime.fromtimestamp(us / 1e6, UTC)
    return shown.strftime("%Y-%m-%d %H:%M:%S.%f" if fraction else "%Y-%m-%d %H:%M:%S")


def links(host_url: str, uuid: str) -> list[dict[str, str]]:
    """The two links of a container."""
    return [
        {"href": f"{host_url}/v1/containers/{uuid}", "rel": "self"},
        {"href": f"{host_url}/containers/{uuid}", "rel": "bookmark"},
    ]


def addresses(capsule: Capsule) -> dict[str, list[dict[str, Any]]]:
    """Addresses by network."""
    found: dict[str, list[dict[str, Any]]] = {}
    for port, network in zip(capsule.ports, capsule.networks, strict=True):
        found.setdefault(network.uuid, []).append(
            {
                "addr": port.address,
                "version": 4,
                "port": port.uuid,
                "subnet_id": network.subnet_uuid,
                "preserve_on_delete": False,
            }
        )
    return found


def _restart_policy(capsule: Capsule) -> dict[str, str]:
    policy = capsule.spec.restart_policy
    if policy.name == "no":
        return {}
    return {"Name": policy.name, "MaximumRetryCount": str(policy.max_retries)}


def _command(spec: ContainerSpec, report: ContainerReport | None) -> tuple[list[str], list[str] | None]:
    """Effective command and entrypoint: the image's fill in once it is known."""
    command, entrypoint = spec.command, spec.entrypoint
    if report is not None:
        command = report.command if command is None else command
        entrypoint = report.entrypoint if entrypoint is None else entrypoint
    return command or [], entrypoint


def container(capsule: Capsule, now_us: int, *, admin: bool, host_name: str | None) -> dict[str, Any]:
    """The representation without links. Admin-only keys are absent for others, not null."""
    spec = capsule.spec.containers[0]
    report = capsule.report.containers[0] if capsule.report.containers else None
    view = zun_status.view(capsule.wish, capsule.placement, capsule.report)
    command, entrypoint = _command(spec, report)
    shown: dict[str, Any] = {
        "uuid": capsule.uuid,
        "name": capsule.name,
        "project_id": capsule.project_id,
        "user_id": capsule.user_id,
        "image": spec.image,
        "command": command,
        "entrypoint": entrypoint,
        "cpu": spec.cpu,
        "cpu_policy": "shared",
        "memory": str(spec.memory_mib),
        "disk": 0,
        "status": view.status,
        "status_reason": view.status_reason,
        "status_detail": zun_status.status_detail(view.status, report, now_us),
        "task_state": view.task_state,
        "environment": spec.environment,
        "labels": capsule.spec.labels,
        "workdir": spec.workdir,
        "hostname": capsule.spec.hostname or capsule.report.hostname,
        "ports": [],
        "addresses": addresses(capsule),
        "restart_policy": _restart_policy(capsule),
        "interactive": spec.interactive,
        "tty": spec.tty,
        "auto_remove": capsule.spec.auto_remove,
        "auto_heal": False,
        "image_driver": "docker",
        "security_groups": [],
        "healthcheck": {},
        "registry_id": None,
        "created_at": time_text(capsule.created_us),
        "updated_at": time_text(capsule.updated_us),
    }
    if admin:
        shown["host"] = host_name
        shown["image_pull_policy"] = spec.image_pull_policy
        shown["privileged"] = False
        shown["runtime"] = None
    return shown


def container_piece(capsule: Capsule, *, admin: bool) -> Piece:
    """The same as an item of lists, to be filled in when it is read."""
    blanks = Blanks()
    shown = container(capsule, 0, admin=admin, host_name=blanks.HOST)
    report = capsule.report.containers[0] if capsule.report.containers else None
    shown["status_detail"] = blanks.detail(shown["status"], report)
    return blanks.piece(capsule, shown)
