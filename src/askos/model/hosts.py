"""Hosts: machines that run capsules, and what their agents say about them."""

from __future__ import annotations

import msgspec


class HostFacts(msgspec.Struct, frozen=True):
    """What an agent tells about its machine when it connects."""

    uuid: str
    hostname: str
    cpus: int
    memory_mib: int
    disk_gib: int
    architecture: str
    os: str
    kernel_version: str
    runtimes: tuple[str, ...] = ("runc",)
    version: str = ""
    labels: dict[str, str] = {}
    """What its operator says of it, for hints to choose by."""


class Host(msgspec.Struct, frozen=True):
    """A host as the control plane knows it. `session` is the epoch of its present link."""

    facts: HostFacts
    session: int
    last_seen_us: int
    availability_zone: str = "nova"
    connected: bool = False
