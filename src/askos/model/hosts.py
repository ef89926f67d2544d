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
    number: int = 0
    """Of its service in Zun's API."""
    disabled: bool = False
    """The operator wants nothing more to be placed there."""
    disabled_reason: str | None = None
    forced_down: bool = False
    """The operator says that it is down, whatever it reports."""
    report_count: int = 0
    """Heartbeats since it joined."""
    created_us: int = 0
    updated_us: int = 0

    @property
    def takes_more(self) -> bool:
        """Whether capsules may be placed there."""
        return self.connected and not self.disabled and not self.forced_down


class HostUse(msgspec.Struct, frozen=True):
    """A host and what is claimed on it: containers and capsules, thousandths of CPUs, MiB, GiB."""

    host: Host
    capsules: int = 0
    cpu_milli: int = 0
    memory_mib: int = 0
    disk_gib: int = 0


class HostImage(msgspec.Struct, frozen=True):
    """An image that an operator asked a host to fetch. `ref`: its normalised name."""

    uuid: str
    host_uuid: str
    project_id: str
    ref: str


class EngineNetwork(msgspec.Struct, frozen=True):
    """A network that an operator made known to the engine, as Zun's API shows it. Its uuid is not the network's."""

    uuid: str
    network_uuid: str
    project_id: str
    user_id: str
