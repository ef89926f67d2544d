"""A process beside a container's own, through containerd's tasks API and pipes of ours.

CRI's own exec answers with an address to stream from, over which an exact exit code, half-closing and
back-pressure are hard to get. Here the shim copies between the process and three named pipes.

The folder of the pipes is named `<container id>.<exec id>`: after a crash of ours, `sweep` knows by it what to kill.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

from google.protobuf import any_pb2

from askos.adapters.containerd import fifo
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import Client, RpcError, failed
from askos.model.errors import AskosError, ConflictError, RuntimeFailedError
from askos.ports.runtime import ExecRequest

_PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
_CALL_S = 15.0
_START_S = 45.0
_WAIT_S = 300.0
# After the process has ended, a child of its own may keep the streams open for ever: this long silence ends them.
_SILENCE_S = 2.0
_KILLED_S = 5.0
_QUEUE = 8
_EOT = b"\x04"

Chunk = tuple[Literal["stdout", "stderr"], bytes]


class Exec:
    """One started process; see `ports.runtime.ExecSession`."""

    def __init__(self, client: Client, container_id: str, request: ExecRequest, root: Path, live: set[str]) -> None:
        self._client = client
        self._container = container_id
        self._request = request
        self._id = uuid.uuid4().hex
        self._folder = root / f"{container_id}.{self._id}"
        self._live = live
        self._stdin: fifo.Writer | None = None
        self._readers: dict[Literal["stdout", "stderr"], fifo.Reader] = {}
        self._exit: asyncio.Task[int] | None = None
        self._closed = False

    async def start(self) -> None:
        """Start the process. Raises ConflictError when the container does not run or is paused, else
        RuntimeFailedError."""
        spec = await self._process_spec()
        self._live.add(self._folder.name)
        self._folder.mkdir(parents=True, mode=0o700)
        try:
            self._open_pipes()
            await self._add(spec)
            try:
                await self._call("Start", api.StartRequest, _START_S)
            except BaseException:
                with contextlib.suppress(RpcError):
                    await self._call("Kill", api.KillRequest, _CALL_S, signal=signal.SIGKILL)
                with contextlib.suppress(RpcError):
                    await self._call("DeleteProcess", api.DeleteProcessRequest, _CALL_S)
                raise
        except BaseException as error:
            self._close_pipes()
            self._forget()
            if isinstance(error, RpcError):
                raise self._refused(error) from None
            raise
        self._exit = asyncio.create_task(self._wait_exit(), name=f"exec {self._id}")
        # runsc does not read the size that was asked for with the process.
        await self.resize(self._request.width, self._request.height)

    async def write(self, data: bytes) -> None:
        """Send to standard input; waits while the process does not read, dropped once it has ended."""
        if self._stdin is None or self._ended.done():
            return
        writing = asyncio.create_task(self._stdin.write(data))
        try:
            await asyncio.wait({writing, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not writing.done():
                writing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await writing

    async def close_stdin(self) -> None:
        """Half-close. A terminal cannot be half-closed: there the process gets the end-of-file character."""
        if self._stdin is None:
            return
        if self._request.tty:
            await self.write(_EOT)
            return
        # The shim holds a writing end too, so that a pipe without us does not end: both must go.
        stdin, self._stdin = self._stdin, None
        finishing = asyncio.create_task(stdin.finish())
        await asyncio.wait({finishing, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        stdin.close()
        await finishing
        try:
            await self._call("CloseIO", api.CloseIORequest, _CALL_S, stdin=True)
        except RpcError as error:
            if not error.not_found and error.code != "failed_precondition":
                raise failed(error, "close the standard input of a process") from None

    async def output(self) -> AsyncIterator[Chunk]:
        """Chunks as they come, until both streams have ended."""
        queue: asyncio.Queue[Chunk | None] = asyncio.Queue(_QUEUE)
        pumps = [asyncio.create_task(self._pump(name, r, queue)) for name, r in self._readers.items()]
        try:
            left = len(pumps)
            while left:
                chunk = await queue.get()
                if chunk is None:
                    left -= 1
                else:
                    yield chunk
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def resize(self, width: int, height: int) -> None:
        """Change the terminal's size; nothing without a tty, or when the process has ended."""
        if not self._request.tty or self._ended.done():
            return
        with contextlib.suppress(RpcError):
            await self._call("ResizePty", api.ResizePtyRequest, _CALL_S, width=width, height=height)

    async def wait(self) -> int:
        """The exit code; 128 + n for signal n. RuntimeFailedError when containerd has lost the process."""
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Kill the process if it still runs, and free everything."""
        if self._closed or self._exit is None:
            return
        self._closed = True
        try:
            if not self._exit.done():
                with contextlib.suppress(RpcError):
                    await self._call("Kill", api.KillRequest, _CALL_S, signal=signal.SIGKILL)
                await asyncio.wait({self._exit}, timeout=_KILLED_S)
            self._exit.cancel()
            await asyncio.gather(self._exit, return_exceptions=True)
            # The shim deletes a process once its output has gone out: take what nobody has read.
            draining = [asyncio.create_task(_drain(reader)) for reader in self._readers.values()]
            with contextlib.suppress(RpcError):
                await self._call("DeleteProcess", api.DeleteProcessRequest, _CALL_S)
            for drain in draining:
                drain.cancel()
            await asyncio.gather(*draining, return_exceptions=True)
        finally:
            self._close_pipes()
            self._forget()

    # Starting

    async def _process_spec(self) -> dict[str, Any]:
        try:
            answer = await self._client.call(
                "containers.v1.Containers/Get", api.GetContainerRequest(id=self._container), _CALL_S
            )
        except RpcError as error:
            raise self._refused(error) from None
        # The container's own process, so that user, environment, capabilities and limits are the same.
        process: dict[str, Any] = json.loads(answer.container.spec.value)["process"]
        process["args"] = self._request.argv
        if self._request.environment:
            named = {value.partition("=")[0] for value in self._request.environment}
            own = [value for value in process.get("env", []) if value.partition("=")[0] not in named]
            process["env"] = [*own, *self._request.environment]
        if self._request.workdir:
            process["cwd"] = self._request.workdir
        process["terminal"] = self._request.tty
        process.pop("consoleSize", None)
        if self._request.tty:
            process["consoleSize"] = {"width": self._request.width, "height": self._request.height}
            if not any(value.startswith("TERM=") for value in process.get("env", [])):
                process["env"] = [*process.get("env", []), "TERM=xterm"]
        return process

    def _open_pipes(self) -> None:
        if self._request.stdin:
            self._stdin = fifo.Writer(self._folder / "stdin")
        self._readers["stdout"] = fifo.Reader(self._folder / "stdout")
        if not self._request.tty:
            self._readers["stderr"] = fifo.Reader(self._folder / "stderr")

    async def _add(self, spec: dict[str, Any]) -> None:
        request = api.ExecProcessRequest(
            container_id=self._container,
            exec_id=self._id,
            terminal=self._request.tty,
            stdin=str(self._folder / "stdin") if self._request.stdin else "",
            stdout=str(self._folder / "stdout"),
            stderr="" if self._request.tty else str(self._folder / "stderr"),
            spec=any_pb2.Any(type_url=_PROCESS_TYPE, value=json.dumps(spec).encode()),
        )
        await self._client.call("tasks.v1.Tasks/Exec", request, _CALL_S)

    def _refused(self, error: RpcError) -> AskosError:
        program = self._request.argv[0] if self._request.argv else ""
        stopped = "not running" in error.text or "stopped" in error.text
        if error.not_found or (error.code == "failed_precondition") or stopped:
            return ConflictError(f"Cannot run {program!r}: the container does not run. Start it first.")
        if "paused" in error.text:
            return ConflictError(f"Cannot run {program!r}: the container is paused. Unpause it first.")
        return failed(error, f"run {program!r} in the container")

    # Running

    async def _wait_exit(self) -> int:
        while True:
            try:
                answer = await self._call("Wait", api.WaitRequest, _WAIT_S)
                return int(answer.exit_status)
            except RpcError as error:
                # A restarted containerd finds the process again through its shim.
                if not error.away and error.code not in ("deadline_exceeded", "cancelled"):
                    message = "Lost sight of a process in the container: containerd does not know it any more."
                    raise RuntimeFailedError(message, retryable=False) from None
                await asyncio.sleep(0.3)

    async def _pump(
        self, name: Literal["stdout", "stderr"], reader: fifo.Reader, queue: asyncio.Queue[Chunk | None]
    ) -> None:
        while True:
            ended = self._ended.done()
            data = await reader.read(_SILENCE_S)
            if data is None and not ended:
                continue
            if not data:
                break
            await queue.put((name, data))
        await queue.put(None)

    @property
    def _ended(self) -> asyncio.Task[int]:
        assert self._exit is not None, "start() comes first"
        return self._exit

    def _close_pipes(self) -> None:
        if self._stdin is not None:
            self._stdin.close()
            self._stdin = None
        for reader in self._readers.values():
            reader.close()

    def _forget(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._live.discard(self._folder.name)

    async def _call(self, method: str, kind: Any, timeout_s: float, **fields: Any) -> Any:
        request = kind(container_id=self._container, exec_id=self._id, **fields)
        return await self._client.call(f"tasks.v1.Tasks/{method}", request, timeout_s)


async def _drain(reader: fifo.Reader) -> None:
    while await reader.read():
        pass
