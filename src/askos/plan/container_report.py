"""What a host reports of a Zun container that it has looked at."""

from __future__ import annotations

import msgspec

from askos.model.capsules import Assignment, CapsuleState, ContainerReport, ContainerSpec, Report
from askos.plan.container_steps import Container, Health, Observed


def ordered(seen: Observed) -> list[Container]:
    """The containers from the oldest to the newest."""
    return sorted(seen.containers, key=lambda c: (c.run, c.attempt))


def report(
    a: Assignment,
    seen: Observed,
    state: CapsuleState,
    now_us: int,
    *,
    settled: bool,
    reason: str | None = None,
    progress: str | None = None,
) -> Report:
    """The report with what is known of the container."""
    return Report(
        generation=a.wish.generation,
        settled=settled,
        state=state,
        reason=reason,
        progress=progress,
        hostname=hostname(a),
        containers=[_container(a, spec, seen) for spec in a.spec.containers],
        observed_us=now_us,
    )


def hostname(a: Assignment) -> str:
    """The host name seen inside: as asked for, else the first twelve characters of the uuid."""
    return a.spec.hostname or a.capsule_uuid.replace("-", "")[:12]


def _container(a: Assignment, spec: ContainerSpec, seen: Observed) -> ContainerReport:
    before = next((c for c in a.report.containers if c.name == spec.name), ContainerReport(spec.name))
    started = [c for c in ordered(seen) if c.name == spec.name and c.state != "created"]
    if not started and before.run < a.wish.rebuilt_run:
        # It was removed to be made anew: nothing of its life belongs to the next one.
        before = ContainerReport(spec.name)
    image = seen.image
    entrypoint, command = spec.entrypoint, spec.command
    if image is not None:
        if command is None:
            command = image.command if entrypoint is None else []
        if entrypoint is None:
            entrypoint = image.entrypoint
        ports = _ports(image.exposed_ports, spec.exposed_ports)
    else:
        entrypoint = entrypoint if entrypoint is not None else before.entrypoint
        command = command if command is not None else before.command
        ports = before.exposed_ports or _ports(spec.exposed_ports)
    if not started:
        return msgspec.structs.replace(before, entrypoint=entrypoint, command=command, exposed_ports=ports)
    c = started[-1]
    runs = c.state in ("running", "paused")
    known = Health(before.health, before.health_output) if before.container_id == c.id else Health()
    health = seen.health.get(c.id, known)
    return ContainerReport(
        name=spec.name,
        state="running" if runs else "exited" if c.state == "exited" else "waiting",
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
        container_id=c.id,
        health=health.state,
        health_output=health.output,
        exposed_ports=ports,
        cpus=c.cpus if runs and spec.cpu_policy == "dedicated" else "",
    )


def _ports(*lists: list[str]) -> list[str]:
    """Those of all lists, each once, with the protocol that is meant when none is said."""
    return list(dict.fromkeys(port if "/" in port else f"{port}/tcp" for ports in lists for port in ports))
