"""What containers use: from CRI, and from the control groups what CRI does not tell."""

from __future__ import annotations

import asyncio
from typing import Any

from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd import cgroups, spec
from askos.adapters.containerd.rpc import Client
from askos.ports.runtime import ContainerStats

_CALL_S = 30.0


async def read(client: Client, instance: str, capsule_uuid: str | None) -> list[ContainerStats]:
    """Of the running containers of one capsule, or of all. Raises RpcError."""
    labels = {spec.INSTANCE: instance}
    if capsule_uuid is not None:
        labels[spec.CAPSULE] = capsule_uuid
    chosen = cri.ContainerStatsFilter(label_selector=labels)
    answer = await client.cri("ListContainerStats", cri.ListContainerStatsRequest(filter=chosen), _CALL_S)
    # What does not run has neither.
    running = [item for item in answer.stats if item.HasField("cpu") and item.HasField("memory")]
    if not running:
        return []
    return await asyncio.to_thread(_together, running, instance)


def _together(items: list[Any], instance: str) -> list[ContainerStats]:
    counted = cgroups.process_counts(instance)
    return [
        ContainerStats(
            container_id=item.attributes.id,
            capsule_uuid=item.attributes.labels.get(spec.CAPSULE, ""),
            name=item.attributes.labels.get(spec.NAME, ""),
            at_us=item.cpu.timestamp // 1000,
            cpu_ns=item.cpu.usage_core_nano_seconds.value,
            memory_bytes=item.memory.working_set_bytes.value,
            memory_usage_bytes=item.memory.usage_bytes.value,
            rss_bytes=item.memory.rss_bytes.value,
            layer_bytes=item.writable_layer.used_bytes.value,
            pids=counted.get(item.attributes.id, 0),
        )
        for item in items
    ]
