"""Looking at sandboxes and containers: two calls, one for each container that has ended, and one for each whose state
has changed.

CRI's list does not tell times and exit codes, its status does. A status that cannot change any more is kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, NamedTuple

import msgspec
from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd import spec
from askos.adapters.containerd.adoptions import Adoptions
from askos.adapters.containerd.details import Details
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import LIST_S, Client, RpcError
from askos.ports.runtime import Container, Sandbox

_log = logging.getLogger(__name__)

# An out-of-memory notice can arrive a moment after the exit: until then a failed container's status is not final.
_FINAL_AFTER_US = 3_000_000


class _Status(NamedTuple):
    """What `spec.read_container` reads of CRI's status. The answer itself, with labels, mounts and all, takes some
    KiB."""

    state: int
    started_at: int
    finished_at: int
    exit_code: int
    reason: str
    message: str


class Observer:
    """Reads what there is of one cloud in one containerd. Methods raise RpcError."""

    def __init__(self, client: Client, instance: str, adoptions: Adoptions, details: Details) -> None:
        self._client = client
        self._instance = instance
        self._adoptions = adoptions
        self._details = details
        self._kept: dict[str, _Status] = {}

    async def observe(self, capsule_uuid: str | None) -> tuple[list[Sandbox], list[Container]]:
        """Everything of one capsule, or of all."""
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(label_selector=self._labels(capsule_uuid)))
        sandboxes, answer = await asyncio.gather(
            self.sandboxes(capsule_uuid), self._client.cri("ListContainers", request, LIST_S)
        )
        items = [item for item in answer.containers if not self._adoptions.abandoned(item.pod_sandbox_id)]
        containers = [c for c in await asyncio.gather(*map(self._container, items)) if c is not None]
        if capsule_uuid is None:
            living = {item.id for item in items}
            self._kept = {key: status for key, status in self._kept.items() if key in living}
            self._details.keep(living)
        return sandboxes, containers

    async def sandboxes(self, capsule_uuid: str | None) -> list[Sandbox]:
        """The sandboxes of one capsule, or of all: those made for it, and those that it has adopted."""
        before = {sandbox_id for sandbox_id, adoption in self._adoptions.all().items() if adoption.whole}
        filters = [cri.PodSandboxFilter(label_selector=self._labels(capsule_uuid))]
        if capsule_uuid is not None:
            # Adopted ones do not have the capsule's label.
            filters += [cri.PodSandboxFilter(id=sandbox_id) for sandbox_id in self._adoptions.of_capsule(capsule_uuid)]
        requests = [cri.ListPodSandboxRequest(filter=one) for one in filters]
        answers = await asyncio.gather(*(self._client.cri("ListPodSandbox", one, LIST_S) for one in requests))
        items = [item for answer in answers for item in answer.items]
        if capsule_uuid is None:
            for sandbox_id in before - {item.id for item in items}:
                self._adoptions.remove(sandbox_id)
        return [sandbox for sandbox in map(self._adoptions.seen, items) if sandbox is not None]

    def _labels(self, capsule_uuid: str | None) -> dict[str, str]:
        labels = {spec.INSTANCE: self._instance}
        return labels if capsule_uuid is None else {**labels, spec.CAPSULE: capsule_uuid}

    async def lists(self, labels: dict[str, str]) -> tuple[list[Any], list[Any]]:
        """CRI's own lists of the sandboxes and containers with these labels."""
        pods = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=labels))
        containers = cri.ListContainersRequest(filter=cri.ContainerFilter(label_selector=labels))
        one, other = await asyncio.gather(
            self._client.cri("ListPodSandbox", pods, LIST_S),
            self._client.cri("ListContainers", containers, LIST_S),
        )
        return list(one.items), list(other.containers)

    async def status(self, container_id: str) -> Any:
        """CRI's status of a container."""
        request = cri.ContainerStatusRequest(container_id=container_id)
        return (await self._client.cri("ContainerStatus", request, LIST_S)).status

    async def started(self, container_id: str) -> int | None:
        """When a container that was just started began, in microseconds; None when it runs no more."""
        status = _kept(await self.status(container_id))
        if status.state != cri.CONTAINER_RUNNING:
            return None
        self._kept[container_id] = status
        return status.started_at // 1000

    def forget(self, container_id: str) -> None:
        """Drop what is kept of a removed container."""
        self._kept.pop(container_id, None)

    async def _container(self, item: Any) -> Container | None:
        if item.state == cri.CONTAINER_CREATED:
            return await self._detailed(item, spec.read_container(item, None))
        status = self._kept.get(item.id)
        if status is None or status.state != item.state:
            try:
                status = _kept(await self.status(item.id))
            except RpcError as error:
                if error.not_found:
                    return None
                raise
            if _final(status):
                self._kept[item.id] = status
        if item.state == cri.CONTAINER_EXITED and not await self._is_recorded(item.id):
            await self._drop(item.id)
            return None
        return await self._detailed(item, spec.read_container(item, status))

    async def _is_recorded(self, container_id: str) -> bool:
        """Whether containerd itself still has a container. CRI goes on to tell of one that was removed from beside it,
        until it is restarted; but its files are gone with containerd's record, and it cannot be gone on with."""
        try:
            await self._client.call("containers.v1.Containers/Get", api.GetContainerRequest(id=container_id), LIST_S)
        except RpcError as error:
            if error.not_found:
                return False
            raise
        return True

    async def _drop(self, container_id: str) -> None:
        """Let CRI forget a container, too."""
        _log.warning("container %s was removed by something outside Askos", container_id[:12])
        self.forget(container_id)
        try:
            await self._client.cri("RemoveContainer", cri.RemoveContainerRequest(container_id=container_id), LIST_S)
        except RpcError as error:
            # Somebody else is doing the same at this moment; the next look sees how that ended.
            _log.debug("CRI does not forget container %s: %s", container_id[:12], error.text)

    async def _detailed(self, item: Any, container: Container) -> Container:
        """With what CRI does not tell."""
        if container.state == "unknown":
            # A containerd that others run was restarted while it was paused: CRI lost it, but it lives.
            container = msgspec.structs.replace(container, state=await self._details.state(item.id))
        if container.state not in ("created", "running", "paused"):
            return container
        runs = container.state != "created"
        use, paused = await self._details.of(item.id, item.pod_sandbox_id, runs=runs)
        return msgspec.structs.replace(
            container,
            state="paused" if paused else container.state,
            cpu_shares=use.cpu_shares,
            memory_bytes=use.memory_bytes,
            cpus=use.cpus,
        )


def _kept(status: Any) -> _Status:
    return _Status(status.state, status.started_at, status.finished_at, status.exit_code, status.reason, status.message)


def _final(status: _Status) -> bool:
    if status.state == cri.CONTAINER_RUNNING:
        return True
    age_us = (time.time_ns() - status.finished_at) // 1000
    return bool(status.state == cri.CONTAINER_EXITED and (status.exit_code == 0 or age_us > _FINAL_AFTER_US))
