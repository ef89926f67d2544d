"""Which host gets a capsule: a pure choice among the hosts that are connected and have room."""

from __future__ import annotations

import msgspec

from askos.model.hosts import Host


class Ratios(msgspec.Struct, frozen=True):
    """How far claims may exceed what a host has: 16.0 means sixteen CPUs claimed for each that exists."""

    cpu: float = 16.0
    memory: float = 1.5


class Load(msgspec.Struct, frozen=True):
    """A host and what is claimed on it. CPU in thousandths."""

    host: Host
    cpu_claimed: int
    memory_claimed_mib: int


NO_HOST = "There are not enough hosts available."
"""Zun's words, which clients look for."""


def choose(cpu: int, memory_mib: int, loads: list[Load], ratios: Ratios) -> str | None:
    """The uuid of the connected host with the most memory left after the claim, or None if none has room."""
    best: tuple[float, str] | None = None
    for load in loads:
        if not load.host.connected:
            continue
        facts = load.host.facts
        memory_left = facts.memory_mib * ratios.memory - load.memory_claimed_mib - memory_mib
        cpu_left = facts.cpus * 1000 * ratios.cpu - load.cpu_claimed - cpu
        if memory_left < 0 or cpu_left < 0:
            continue
        # The uuid breaks ties, so that the same input always gives the same answer.
        rank = (memory_left, facts.uuid)
        if best is None or rank > best:
            best = rank
    return best[1] if best else None
