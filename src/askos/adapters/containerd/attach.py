"""A connection to a container's own process, through CRI's Attach.

CRI holds the pipes of a container's process and hands them to its logs, so its streaming server is the only way to
them. It takes the end of a client's input for the end of the container's with stdin_once, and else for the end of the
client: so the end is only sent in the first case.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Literal

from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import Client, RpcError, failed
from askos.adapters.containerd.streaming import Connection, Name, StreamingError
from askos.model.errors import AskosError, ConflictError, RuntimeFailedError, UnavailableError

_CALL_S = 15.0
_WAIT_S = 300.0
_PROMPT_S = 0.05
_EOT = b"\x04"

Chunk = tuple[Literal["stdout", "stderr"], bytes]


class Attach:
    """One attached client; see `ports.runtime.AttachSession`."""

    def __init__(self, client: Client, container_id: str, *, stdin: bool, tty: bool) -> None:
        self._client = client
        self._container = container_id
        self._wants_stdin = stdin
        self._tty = tty
        self._once = False
        self._connection: Connection | None = None
        self._writable = False
        # One for each stream: a process that does not read must not hold up the terminal's size.
        self._sending: dict[Name, asyncio.Lock] = {"stdin": asyncio.Lock(), "resize": asyncio.Lock()}
        self._gone: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Connect. Raises ConflictError when the container does not run or was made otherwise."""
        try:
            await self._check()
            self._connection = await self._connect()
            self._writable = self._wants_stdin
        except BaseException as error:
            await self.close()
            if isinstance(error, StreamingError):
                message = f"Could not attach to the container: {error}. Check containerd's log and the host's loopback."
                raise RuntimeFailedError(message) from None
            if isinstance(error, RpcError):
                raise _refused(error) from None
            raise

    async def write(self, data: bytes) -> None:
        """Send to standard input; waits while the process does not read, dropped once it has ended."""
        if self._writable and data:
            await self._until_gone("stdin", data)

    async def close_stdin(self) -> None:
        """Half-close this client's input; with stdin_once the process reads end of file.

        A terminal cannot be half-closed: there the process gets the end-of-file character instead.
        """
        if not self._writable:
            return
        if self._once:
            await self._until_gone("stdin", _EOT if self._tty else None)
        self._writable = False

    async def output(self) -> AsyncIterator[Chunk]:
        """Chunks from now on, until the process has ended. UnavailableError when containerd went away meanwhile."""
        assert self._connection is not None, "start() comes first"
        outcome = b""
        while (piece := await self._connection.receive()) is not None:
            match piece:
                case ("stdout" | "stderr") as stream, data:
                    yield stream, data
                case "error", data:
                    outcome += data
        if not self._closed:
            await self._judge(outcome)

    async def resize(self, width: int, height: int) -> None:
        """Change the terminal's size; nothing without a tty, or when the process has ended."""
        if self._tty:
            size = json.dumps({"Width": width, "Height": height}).encode()
            await self._until_gone("resize", size)

    async def close(self) -> None:
        """Detach. The process goes on; with stdin_once and no terminal its input has ended."""
        self._closed = True
        self._writable = False
        if self._connection is not None:
            self._connection.close()
        if self._gone is not None:
            self._gone.cancel()
            await asyncio.gather(self._gone, return_exceptions=True)

    # Connecting

    async def _check(self) -> None:
        request = cri.ContainerStatusRequest(container_id=self._container, verbose=True)
        answer = await self._client.cri("ContainerStatus", request, _CALL_S)
        if answer.status.state != cri.CONTAINER_RUNNING:
            raise _not_running()
        config: dict[str, Any] = json.loads(answer.info.get("info", "{}")).get("config") or {}
        if self._wants_stdin and not config.get("stdin"):
            raise ConflictError("Cannot attach to the standard input: the container was made without one.")
        if self._tty != bool(config.get("tty")):
            raise ConflictError("Cannot attach: with a terminal or not, it must be as the container was made.")
        self._once = bool(config.get("stdin_once"))

    async def _connect(self) -> Connection:
        request = cri.AttachRequest(
            container_id=self._container,
            stdin=self._wants_stdin,
            stdout=True,
            stderr=not self._tty,
            tty=self._tty,
        )
        answer = await self._client.cri("Attach", request, _CALL_S)
        names: list[Name] = ["error", "stdout", "resize" if self._tty else "stderr"]
        # The input last: what the process answers to it is not missed.
        return await Connection.open(answer.url, [*names, "stdin"] if self._wants_stdin else names)

    # Running

    async def _send(self, name: Name, data: bytes | None) -> None:
        """Send to a stream; None: its end."""
        assert self._connection is not None, "start() comes first"
        async with self._sending[name]:
            with contextlib.suppress(OSError):
                if data is None:
                    await self._connection.end(name)
                else:
                    await self._connection.send(name, data)

    async def _until_gone(self, name: Name, data: bytes | None) -> None:
        """Send, but give up when the process has ended: then nobody reads any more."""
        if self._gone is not None and self._gone.done():
            return
        doing = asyncio.create_task(self._send(name, data))
        try:
            await asyncio.wait({doing}, timeout=_PROMPT_S)
            if not doing.done():
                if self._gone is None:
                    self._gone = asyncio.create_task(self._wait_gone(), name=f"attach {self._container[:12]}")
                await asyncio.wait({doing, self._gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)

    async def _wait_gone(self) -> None:
        while True:
            try:
                request = api.WaitRequest(container_id=self._container)
                await self._client.call("tasks.v1.Tasks/Wait", request, _WAIT_S)
            except RpcError as error:
                # A restarted containerd finds the process again through its shim.
                if not error.away and error.code not in ("deadline_exceeded", "cancelled"):
                    return
                await asyncio.sleep(0.3)
            else:
                return

    async def _judge(self, outcome: bytes) -> None:
        """The stream of output has ended: whether that was the process, or the connection."""
        status: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            status = json.loads(outcome) if outcome else {}
        if status.get("status") == "Success":
            return
        if status.get("message"):
            if "state" in status["message"]:
                raise _not_running()
            raise RuntimeFailedError(f"Could not attach to the container: {status['message']}")
        request = cri.ContainerStatusRequest(container_id=self._container)
        with contextlib.suppress(RpcError):
            answer = await self._client.cri("ContainerStatus", request, _CALL_S)
            if answer.status.state != cri.CONTAINER_RUNNING:
                return
        raise UnavailableError("The connection to the container was lost: containerd was restarted. Attach again.")


def _not_running() -> ConflictError:
    return ConflictError("Cannot attach: the container does not run. Start it first.")


def _refused(error: RpcError) -> AskosError:
    if error.not_found or "CONTAINER_" in error.text:
        return _not_running()
    return failed(error, "attach to the container")
