"""Whether a pod uses more of the host's disk than it may: then the host wants it away (Kubernetes' eviction)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from askos.model.capsules import Assignment
from askos.model.pods import Container, Pod
from askos.plan import quantities
from askos.ports.volumes import HostVolumes

if TYPE_CHECKING:
    from askos.loops.agent import Agent

_STORAGE = "ephemeral-storage"


def limited(pod: Pod) -> bool:
    """Whether the pod has any limit that has to be measured."""
    return bool(_folders(pod)) or any(_STORAGE in c.resources.limits for c in pod.spec.containers)


async def measure(a: Assignment, pod: Pod, agent: Agent, volumes: HostVolumes) -> str:
    """Why the pod has to go; empty: it keeps to its limits."""
    used = await volumes.usage(a.capsule_uuid)
    for name, limit in _folders(pod).items():
        if used.get(name, 0) > quantities.to_bytes(limit):
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}".'
    limits = {c.name: c.resources.limits[_STORAGE] for c in pod.spec.containers if _STORAGE in c.resources.limits}
    if not limits:
        return ""
    own = {s.name: s.layer_bytes for s in await agent.runtime.stats(a.capsule_uuid)}
    for c in _containers(pod):
        folder = agent.log_root / a.capsule_uuid / c.name
        own[c.name] = own.get(c.name, 0) + await asyncio.to_thread(_size, folder)
    for name, limit in limits.items():
        if own.get(name, 0) > quantities.to_bytes(limit):
            return f'Container {name} exceeded its local ephemeral storage limit "{limit}".'
    if len(limits) == len(pod.spec.containers):
        total = sum(quantities.to_bytes(limit) for limit in limits.values())
        if sum(own.values()) + sum(used.values()) > total:
            return f"Pod ephemeral local storage usage exceeds the total limit of containers {total}."
    return ""


def _containers(pod: Pod) -> list[Container]:
    return [*pod.spec.init_containers, *pod.spec.containers]


def _folders(pod: Pod) -> dict[str, str]:
    """Empty folders on disk with a limit."""
    found: dict[str, str] = {}
    for volume in pod.spec.volumes:
        source = volume.empty_dir
        if source is not None and source.size_limit is not None and source.medium == "":
            found[volume.name] = source.size_limit
    return found


def _size(folder: Path) -> int:
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(path) / name).lstat().st_blocks * 512
            except OSError:
                continue
    return total
