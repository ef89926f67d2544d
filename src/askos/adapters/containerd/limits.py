"""What a capsule may use altogether: its control group, made, changed and removed off the event loop."""

from __future__ import annotations

import asyncio

from askos.adapters.containerd import cgroups
from askos.model.errors import RuntimeFailedError
from askos.ports.runtime import Limits


async def prepare(instance: str, capsule_uuid: str, pids_max: int, limits: Limits) -> None:
    """See `ports.runtime.Runtime.prepare_group`. Raises RuntimeFailedError."""
    try:
        await asyncio.to_thread(
            cgroups.prepare,
            instance,
            capsule_uuid,
            pids_max=pids_max,
            cpu_shares=limits.cpu_shares,
            cpu_quota_us=limits.cpu_quota_us,
            cpu_period_us=limits.cpu_period_us,
            memory_bytes=limits.memory_bytes,
        )
    except OSError as error:
        message = f"Could not limit the capsule: {error.strerror} ({error.filename}). It is tried again."
        raise RuntimeFailedError(message) from None


async def discard(instance: str, capsule_uuid: str) -> None:
    """See `ports.runtime.Runtime.discard_group`. Raises RuntimeFailedError."""
    if not await asyncio.to_thread(cgroups.discard, instance, capsule_uuid):
        group = cgroups.parent_of(instance, capsule_uuid)
        message = f"Could not remove the control group {group}: a process in it does not end. It is tried again."
        raise RuntimeFailedError(message)
