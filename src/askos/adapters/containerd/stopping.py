"""Ending a container's process: its stop signal, the grace, then SIGKILL.

CRI knows one stop signal for each image. One of the container's own goes through containerd's tasks, and CRI is only
asked to see to the end.
"""

from __future__ import annotations

import asyncio

from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd import signals
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import LIST_S, Client, RpcError

_STOP_S = 15.0
_KILLED_S = 10.0
_SEEN_S = 5.0
_LOOK_S = 0.02
_AGAIN_S = 0.3
_SIGKILL = 9


class Stopper:
    """Stops containers. Methods raise RpcError."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._signalled: set[str] = set()

    async def stop(self, container_id: str, timeout_s: int, stop_signal: str | None) -> None:
        """Returns when the process has ended. A signal is sent once, however often it is asked for (as CRI does)."""
        signum = signals.number(stop_signal) if stop_signal else 0
        if signum and timeout_s > 0:
            if container_id in self._signalled or await self._kill(container_id, signum):
                self._signalled.add(container_id)
                await self._ended(container_id, timeout_s)
            timeout_s = 0
        await self._finish(container_id, timeout_s)
        await self._seen(container_id)
        self._signalled.discard(container_id)

    async def _finish(self, container_id: str, timeout_s: int) -> None:
        request = cri.StopContainerRequest(container_id=container_id, timeout=timeout_s)
        try:
            await self._client.cri("StopContainer", request, timeout_s + _STOP_S)
        except RpcError as error:
            if error.not_found:
                return
            if error.code != "deadline_exceeded":
                raise
            await self._kill(container_id, _SIGKILL, everything=True)
            again = cri.StopContainerRequest(container_id=container_id, timeout=0)
            await self._client.cri("StopContainer", again, _KILLED_S)

    async def _seen(self, container_id: str) -> None:
        """Wait until CRI says that it has ended: a process that goes by itself while it is being stopped has no task
        any more before its exit code is known, and then StopContainer does not wait for that."""
        request = cri.ContainerStatusRequest(container_id=container_id)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _SEEN_S
        while loop.time() < deadline:
            try:
                status = (await self._client.cri("ContainerStatus", request, LIST_S)).status
            except RpcError as error:
                if error.not_found:
                    return
                raise
            if status.state != cri.CONTAINER_RUNNING:
                return
            await asyncio.sleep(_LOOK_S)

    async def _kill(self, container_id: str, signum: int, *, everything: bool = False) -> bool:
        """Send a signal; False when there is nothing to send it to."""
        request = api.KillRequest(container_id=container_id, signal=signum, all=everything)
        try:
            await self._client.call("tasks.v1.Tasks/Kill", request, LIST_S)
        except RpcError as error:
            if error.not_found or error.code == "failed_precondition":
                return False
            raise
        return True

    async def _ended(self, container_id: str, timeout_s: float) -> None:
        """Wait for the end of the first process, at most so long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while (left := deadline - loop.time()) > 0:
            try:
                await self._client.call("tasks.v1.Tasks/Wait", api.WaitRequest(container_id=container_id), left)
            except RpcError as error:
                if error.code == "deadline_exceeded":
                    return
                # A restarted containerd finds the process again through its shim.
                if not error.away and error.code != "cancelled":
                    return
                await asyncio.sleep(min(_AGAIN_S, left))
            else:
                return
