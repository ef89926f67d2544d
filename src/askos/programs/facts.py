"""What this machine is: the facts that an agent tells, and the ids that a data folder keeps."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import uuid
from ipaddress import ip_address
from pathlib import Path

from askos import __version__
from askos.loops.host_env import HostEnv
from askos.model.hosts import HostFacts
from askos.settings import Settings, own_address


def kept(path: Path, make: str) -> str:
    """The content of a small file, which is written with `make` if it is not there."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(make + "\n")
        temporary.replace(path)
        return make


def instance(data: Path) -> str:
    """Six hex digits that mark everything of this cloud on the machine."""
    return kept(data / "instance", secrets.token_hex(3))


def gather(settings: Settings, runtimes: list[str]) -> HostFacts:
    """The facts of this machine. `runtimes`: the OCI runtimes that pods can ask for, the default first."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return HostFacts(
        uuid=kept(settings.data / "host-uuid", str(uuid.uuid4())),
        hostname=settings.host.hostname,
        cpus=os.cpu_count() or 1,
        memory_mib=memory >> 20,
        disk_gib=shutil.disk_usage(settings.data).total >> 30,
        architecture=platform.machine(),
        os=_os_name(),
        kernel_version=platform.release(),
        runtimes=tuple(runtimes),
        version=__version__,
        labels=dict(settings.host.labels),
    )


def environment(settings: Settings, instance_id: str) -> HostEnv:
    """What this machine adds to the pods on it."""
    resolvers, searches = resolver_settings(Path("/etc/resolv.conf"))
    return HostEnv(
        host_ip=_own_address(settings),
        host_name=settings.host.hostname,
        cpus=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        resolvers=resolvers,
        searches=searches,
        instance=instance_id,
        disk_bytes=shutil.disk_usage(settings.data).total,
    )


def resolver_settings(path: Path) -> tuple[list[str], list[str]]:
    """Name servers and search domains of a resolv.conf; both empty when there is none."""
    resolvers: list[str] = []
    searches: list[str] = []
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return [], []
    for line in lines:
        word, *rest = line.split() or [""]
        if word == "nameserver" and rest:
            resolvers.append(rest[0])
        elif word in ("search", "domain"):
            searches = rest
    return resolvers, searches


def _own_address(settings: Settings) -> str:
    """The address that others know this machine by: the API's if it is one, else that of the default route."""
    if not settings.listen.is_loopback and not ip_address(settings.listen.address).is_unspecified:
        return settings.listen.address
    try:
        return own_address(4)
    except OSError:
        return "127.0.0.1"


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
