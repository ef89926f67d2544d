"""What this machine is: the facts that an agent tells, and the ids that a data folder keeps."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import uuid
from pathlib import Path

from askos import __version__
from askos.model.hosts import HostFacts
from askos.settings import Settings


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


def gather(settings: Settings) -> HostFacts:
    """The facts of this machine."""
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
        version=__version__,
    )


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
