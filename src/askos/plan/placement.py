"""Which host gets a capsule: a pure choice among the hosts that are connected and have room."""

from __future__ import annotations

import msgspec

from askos.model.capsules import CapsuleSpec
from askos.model.hosts import Host
from askos.plan import resources


class Ratios(msgspec.Struct, frozen=True):
    """How far claims may exceed what a host has: 16.0 means sixteen CPUs claimed for each that exists."""

    cpu: float = 16.0
    memory: float = 1.5


DEFAULT_RATIOS = Ratios()


class Load(msgspec.Struct, frozen=True):
    """A host and what is claimed on it. CPU in thousandths."""

    host: Host
    cpu_claimed: int
    memory_claimed_mib: int
    has_volumes: bool = True
    """Whether the volumes of the capsule in question can be used there: they lie there, or nowhere yet."""


class Claim(msgspec.Struct, frozen=True):
    """What a capsule needs of its host. CPU in thousandths; `runtime` None: any; so for empty things."""

    cpu: int
    memory_mib: int
    runtime: str | None = None
    host: str = ""
    """The name of the only host that will do."""
    zone: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    """Labels that the host must have."""


class Nowhere(msgspec.Struct, frozen=True):
    """No host can take the capsule; `reason` is for people."""

    reason: str


_LABEL = "label:"
"""How the key of a hint begins that asks for a label of the host, as Zun's LabelFilter reads it."""
NO_HOST = "There are not enough hosts available."
"""Zun's words, which clients look for."""


def claim(spec: CapsuleSpec) -> Claim:
    """What a capsule's spec claims."""
    if spec.pod is not None:
        wanted = resources.claim(spec.pod)
        return Claim(wanted.cpu_milli, -(-wanted.memory_bytes >> 20), spec.pod.spec.runtime_class_name)
    wish = spec.placement
    labels = {key.removeprefix(_LABEL): value for key, value in wish.hints.items() if key.startswith(_LABEL)}
    return Claim(
        cpu=round(sum(c.cpu for c in spec.containers) * 1000),
        memory_mib=sum(c.memory_mib for c in spec.containers),
        runtime=spec.runtime or None,
        host=wish.host,
        zone=wish.zone,
        labels=tuple(sorted(labels.items())),
    )


def room(load: Load, ratios: Ratios) -> tuple[float, float]:
    """Thousandths of CPUs and MiB of memory that may still be claimed; negative when too much is."""
    facts = load.host.facts
    return (
        facts.cpus * 1000 * ratios.cpu - load.cpu_claimed,
        facts.memory_mib * ratios.memory - load.memory_claimed_mib,
    )


def choose(wanted: Claim, loads: list[Load], ratios: Ratios) -> str | None:
    """The uuid of the connected host with the most memory left after the claim, or None if none can take it."""
    best: tuple[float, str] | None = None
    for load in loads:
        if _obstacle(wanted, load, ratios) is not None:
            continue
        # The uuid breaks ties, so that the same input always gives the same answer.
        rank = (room(load, ratios)[1] - wanted.memory_mib, load.host.facts.uuid)
        if best is None or rank > best:
            best = rank
    return best[1] if best else None


def why_not(wanted: Claim, loads: list[Load], ratios: Ratios) -> str:
    """Why no host can take it, as Kubernetes' scheduler says it: how many hosts lack what."""
    counted: dict[str, int] = {}
    for load in loads:
        obstacle = _obstacle(wanted, load, ratios)
        if obstacle is not None:
            counted[obstacle] = counted.get(obstacle, 0) + 1
    if not counted:
        return f"{NO_HOST} No host has joined this cloud."
    causes = ", ".join(f"{count} {word}" for word, count in sorted(counted.items()))
    return f"{NO_HOST} Of {len(loads)}: {causes}."


def _obstacle(wanted: Claim, load: Load, ratios: Ratios) -> str | None:
    """Why not this host; worded to follow a number of hosts."""
    if not load.host.connected:
        return "not connected"
    if not load.host.takes_more:
        return "taken out of service"
    if wanted.host and load.host.facts.hostname != wanted.host:
        return f'other than the wished host "{wanted.host}"'
    if wanted.zone and load.host.availability_zone != wanted.zone:
        return f'outside of the zone "{wanted.zone}"'
    for key, value in wanted.labels:
        if load.host.facts.labels.get(key) != value:
            return f'without the label "{key}={value}"'
    if not load.has_volumes:
        return "without the capsule's volumes"
    if wanted.runtime is not None and wanted.runtime not in load.host.facts.runtimes:
        return f'without the runtime class "{wanted.runtime}"'
    cpu_left, memory_left = room(load, ratios)
    if memory_left < wanted.memory_mib:
        return f"with less than {wanted.memory_mib} MiB of memory left"
    if cpu_left < wanted.cpu:
        return f"with less than {wanted.cpu / 1000:g} CPUs left"
    return None
