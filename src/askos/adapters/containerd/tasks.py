"""What containerd's tasks API does with a container's own process: freezing it, its terminal, its pids."""

from __future__ import annotations

import contextlib

from askos.adapters.containerd.details import Details
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import Client, RpcError, failed
from askos.model.errors import ConflictError

_CALL_S = 20.0
_SIGKILL = 9
_RUNS = 2
_STOPPED = ("not_found", "failed_precondition")


class Tasks:
    """Methods raise errors of the port, but for `thaw`."""

    def __init__(self, client: Client, details: Details) -> None:
        self._client = client
        self._details = details

    async def pause(self, container_id: str) -> None:
        """Freeze a running container; nothing when it is paused. ConflictError when it does not run."""
        try:
            if await self._details.paused(container_id):
                return
            await self._client.call("tasks.v1.Tasks/Pause", api.PauseTaskRequest(container_id=container_id), _CALL_S)
        except RpcError as error:
            if error.code in _STOPPED or await self._status(container_id) not in (_RUNS, None):
                raise ConflictError("Cannot pause: the container does not run. Start it first.") from None
            raise failed(error, "pause the container") from None
        finally:
            self._details.turned(container_id)

    async def unpause(self, container_id: str) -> None:
        """Let a paused container go on; nothing when it is not paused."""
        try:
            await self._resume(container_id)
        except RpcError as error:
            raise failed(error, "let the container go on") from None

    async def _resume(self, container_id: str) -> None:
        request = api.ResumeTaskRequest(container_id=container_id)
        try:
            await self._client.call("tasks.v1.Tasks/Resume", request, _CALL_S)
        except RpcError as error:
            if error.away:
                raise
            self._details.turned(container_id)
            if await self._details.paused(container_id):
                raise
        finally:
            self._details.turned(container_id)

    async def thaw(self, container_id: str, *, kill: bool) -> bool:
        """Let a paused container go on so that it can end; with `kill` it does not run another step of its own.
        Returns whether it was paused. Raises RpcError."""
        if not await self._details.paused(container_id):
            return False
        if kill:
            request = api.KillRequest(container_id=container_id, signal=_SIGKILL, all=True)
            with contextlib.suppress(RpcError):
                await self._client.call("tasks.v1.Tasks/Kill", request, _CALL_S)
        try:
            await self._resume(container_id)
        except RpcError as error:
            # runc thaws by itself what it kills on control groups v1: then nothing is left to resume.
            if error.away or not kill:
                raise
        return True

    async def processes(self, container_id: str) -> list[int]:
        """Host pids of everything that runs in a container."""
        request = api.ListPidsRequest(container_id=container_id)
        try:
            answer = await self._client.call("tasks.v1.Tasks/ListPids", request, _CALL_S)
        except RpcError as error:
            if error.code in _STOPPED:
                return []
            raise failed(error, "list the processes of the container") from None
        return sorted(process.pid for process in answer.processes)

    async def resize(self, container_id: str, width: int, height: int) -> None:
        """Change the size of the container's own terminal."""
        request = api.ResizePtyRequest(container_id=container_id, width=width, height=height)
        try:
            await self._client.call("tasks.v1.Tasks/ResizePty", request, _CALL_S)
        except RpcError as error:
            if error.code in _STOPPED:
                raise ConflictError("Cannot resize the terminal: the container does not run.") from None
            raise failed(error, "resize the container's terminal") from None

    async def pid(self, container_id: str) -> int:
        """The first process of a container; 0: it does not run. Raises RpcError."""
        try:
            request = api.GetTaskRequest(container_id=container_id)
            answer = await self._client.call("tasks.v1.Tasks/Get", request, _CALL_S)
        except RpcError as error:
            if error.not_found:
                return 0
            raise
        stopped = 3
        return 0 if answer.process.status == stopped else int(answer.process.pid)

    async def _status(self, container_id: str) -> int | None:
        """containerd's number for what the process does; None: not known."""
        try:
            request = api.GetTaskRequest(container_id=container_id)
            answer = await self._client.call("tasks.v1.Tasks/Get", request, _CALL_S)
        except RpcError as error:
            return 0 if error.not_found else None
        return int(answer.process.status)
