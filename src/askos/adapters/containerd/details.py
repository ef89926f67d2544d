"""What CRI does not tell of containers: whether they are paused, and what they may use now.

Both are asked for once, when a container is seen for the first time, and known from then on: limits change through
us alone, and events tell of pauses. What is in doubt (events were missed) is asked for again.
"""

from __future__ import annotations

import asyncio
import json
from typing import Literal

import msgspec

from askos.adapters.containerd import cgroups
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import LIST_S, Client, RpcError

RUNNING, PAUSED, PAUSING = 2, 4, 5
"""containerd's statuses of tasks."""


class Use(msgspec.Struct, frozen=True):
    """What a container may use: 0 and "" mean that nothing is said."""

    cpu_shares: int = 0
    memory_bytes: int = 0
    cpus: str = ""


class Details:
    """Knows of each container that does not have to be asked for again. Methods raise RpcError."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._use: dict[str, Use] = {}
        self._paused: dict[str, bool] = {}
        self.sandboxes: dict[str, str] = {}
        """The sandbox of each container seen."""

    async def of(self, container_id: str, sandbox_id: str, *, runs: bool) -> tuple[Use, bool]:
        """What a container may use, and whether it is paused."""
        self.sandboxes[container_id] = sandbox_id
        use, paused = await asyncio.gather(self.use(container_id), self.paused(container_id) if runs else _no())
        return use, paused

    async def use(self, container_id: str) -> Use:
        """What a container may use now."""
        found = self._use.get(container_id)
        if found is None:
            found = await self._read_use(container_id)
            self._use[container_id] = found
        return found

    async def _read_use(self, container_id: str) -> Use:
        request = api.GetContainerRequest(id=container_id)
        try:
            answer = await self._client.call("containers.v1.Containers/Get", request, LIST_S)
        except RpcError as error:
            if error.not_found:
                return Use()
            raise
        linux = json.loads(answer.container.spec.value or b"{}").get("linux") or {}
        resources = linux.get("resources") or {}
        cpu, memory = resources.get("cpu") or {}, resources.get("memory") or {}
        shares, limit = int(cpu.get("shares") or 0), int(memory.get("limit") or 0)
        if path := linux.get("cgroupsPath"):
            # CRI writes new limits down before it gives them to the process: killed in between, it never does.
            shares, limit = await asyncio.to_thread(cgroups.in_force, path, shares, limit)
        return Use(shares, limit, str(cpu.get("cpus") or ""))

    async def paused(self, container_id: str) -> bool:
        """Whether a container is paused; False for one without a process."""
        known = self._paused.get(container_id)
        if known is None:
            known = await self._read_paused(container_id)
            self._paused[container_id] = known
        return known

    async def state(self, container_id: str) -> Literal["running", "paused", "unknown"]:
        """What a container's process does, of which CRI does not know."""
        request = api.GetTaskRequest(container_id=container_id)
        try:
            status = (await self._client.call("tasks.v1.Tasks/Get", request, LIST_S)).process.status
        except RpcError as error:
            if error.away:
                raise
            return "unknown"
        return "paused" if status in (PAUSED, PAUSING) else "running" if status == RUNNING else "unknown"

    async def _read_paused(self, container_id: str) -> bool:
        request = api.GetTaskRequest(container_id=container_id)
        try:
            answer = await self._client.call("tasks.v1.Tasks/Get", request, LIST_S)
        except RpcError as error:
            if error.not_found:
                return False
            raise
        return answer.process.status in (PAUSED, PAUSING)

    def made(self, container_id: str, use: Use) -> None:
        """A container was just made so."""
        self._use[container_id] = use

    def started(self, container_id: str) -> None:
        """A container was just started: it is not paused."""
        self._paused[container_id] = False

    def turned(self, container_id: str) -> None:
        """A container was paused or goes on: look the next time."""
        self._paused.pop(container_id, None)

    def changed(self, container_id: str) -> None:
        """A container's limits were changed, or are about to be."""
        self._use.pop(container_id, None)

    def doubt(self) -> None:
        """Whether containers are paused is not known any more."""
        self._paused.clear()

    def forget(self, container_id: str) -> None:
        """A container was removed."""
        for memory in (self._use, self._paused, self.sandboxes):
            memory.pop(container_id, None)

    def keep(self, living: set[str]) -> None:
        """Forget all others."""
        for gone in (self._use.keys() | self._paused.keys() | self.sandboxes.keys()) - living:
            self.forget(gone)

    async def paused_in(self, sandbox_id: str) -> list[str]:
        """The paused containers of a sandbox, of those that were seen."""
        inside = [cid for cid, sandbox in self.sandboxes.items() if sandbox == sandbox_id]
        return [cid for cid in inside if await self.paused(cid)]


async def _no() -> bool:
    return False
