"""A container as Zun clients see it, section by section of its representation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from askos.api import policy
from askos.api.rendered import Blanks, Piece
from askos.model.capsules import Capsule, ContainerReport, ContainerSpec, Network, Port
from askos.model.identity import Caller
from askos.plan import zun_status

_FIELD_RULES = {
    "host": "container:get_one:host",
    "image_pull_policy": "container:get_one:image_pull_policy",
    "privileged": "container:get_one:privileged",
    "runtime": "container:get_one:runtime",
}
"""Fields that only those see who pass a rule."""


def seen_by(caller: Caller) -> frozenset[str]:
    """Which of the fields with a rule of their own the caller sees; also the form of rendered pieces."""
    return frozenset(field for field, rule in _FIELD_RULES.items() if policy.allows(caller, rule))


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


def versions(port: Port, network: Network) -> list[tuple[int, str, str]]:
    """The addresses of a port, IPv4 first: IP version, address, and the subnet's uuid."""
    found = [(4, port.address, network.subnet_uuid)]
    return [*found, (6, port.address6, network.subnet6_uuid)] if port.address6 else found


def addresses(capsule: Capsule) -> dict[str, list[dict[str, Any]]]:
    """Addresses by network."""
    found: dict[str, list[dict[str, Any]]] = {}
    for port, network in zip(capsule.ports, capsule.networks, strict=True):
        mine = found.setdefault(network.uuid, [])
        for version, address, subnet_uuid in versions(port, network):
            mine.append(
                {
                    "addr": address,
                    "version": version,
                    "port": port.uuid,
                    "subnet_id": subnet_uuid,
                    "preserve_on_delete": port.preserve,
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


def _ports(spec: ContainerSpec, report: ContainerReport | None) -> list[int]:
    """The numbers of what is exposed: by the image and by the user once the host has said it, until then the user's."""
    exposed = report.exposed_ports if report is not None and report.exposed_ports else spec.exposed_ports
    return sorted({int(port.partition("/")[0]) for port in exposed})


def _healthcheck(spec: ContainerSpec) -> dict[str, Any]:
    check = spec.healthcheck
    if check is None:
        return {}
    return {
        "test": check.test,
        "interval": check.interval_s,
        "retries": check.retries,
        "timeout": check.timeout_s,
    }


def container(capsule: Capsule, now_us: int, *, seen: frozenset[str], host_name: str | None) -> dict[str, Any]:
    """The representation without links. What only some may see (`seen_by`) is absent for others, not null."""
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
        "cpu_policy": spec.cpu_policy,
        "memory": str(spec.memory_mib),
        "disk": spec.disk_gib,
        "status": view.status,
        "status_reason": view.status_reason,
        "status_detail": zun_status.status_detail(view.status, report, now_us),
        "task_state": view.task_state,
        "environment": spec.environment,
        "labels": capsule.spec.labels,
        "workdir": spec.workdir,
        "hostname": capsule.spec.hostname or capsule.report.hostname,
        "ports": _ports(spec, report),
        "addresses": addresses(capsule),
        "restart_policy": _restart_policy(capsule),
        "interactive": spec.interactive,
        "tty": spec.tty,
        "auto_remove": capsule.spec.auto_remove,
        "auto_heal": capsule.spec.auto_heal,
        "image_driver": spec.image_driver,
        "security_groups": capsule.spec.security_groups,
        "healthcheck": _healthcheck(spec),
        "registry_id": spec.registry_uuid,
        "created_at": time_text(capsule.created_us),
        "updated_at": time_text(capsule.updated_us),
    }
    guarded = {
        "host": host_name,
        "image_pull_policy": spec.image_pull_policy,
        "privileged": spec.privileged,
        "runtime": capsule.spec.runtime or None,
    }
    return shown | {field: value for field, value in guarded.items() if field in seen}


def container_piece(capsule: Capsule, *, seen: frozenset[str]) -> Piece:
    """The same as an item of lists, to be filled in when it is read."""
    blanks = Blanks()
    shown = container(capsule, 0, seen=seen, host_name=blanks.HOST)
    report = capsule.report.containers[0] if capsule.report.containers else None
    shown["status_detail"] = blanks.detail(shown["status"], report)
    return blanks.piece(capsule, shown)
