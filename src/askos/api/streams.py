"""Streams of capsules below /askos/v1/capsules/{id}: exec, attach and portforward over WebSockets, and logs.

The words of the queries and the protocols are Kubernetes', so that a virtual node can pass on what its clients send.
Whatever can be refused is refused before the upgrade, as an ordinary HTTP error.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

from aiohttp import web

from askos.api.channels import CLOSE, STDERR, STDIN, STDOUT, Channels, carry, check_upgrade
from askos.api.core import Request
from askos.api.errors import ApiError, invalid_query
from askos.api.logstream import respond
from askos.api.native import flag
from askos.api.sockets import IDLE_S
from askos.model.capsules import Capsule
from askos.model.errors import AskosError, ConflictError, InvalidError, NotFoundError
from askos.model.pods import Pod
from askos.ports.calls import CallStream, Frame, HostCalls

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
MAX_PORTS = 64
"""Ports of one port-forward connection."""
_LOG_STREAMS = {"All": (True, True), "Stdout": (True, False), "Stderr": (False, True)}

Find = Callable[[Request], Awaitable[Capsule]]
"""The capsule of a request's path, within what the caller may see."""


class Streams:
    """The handlers."""

    def __init__(self, find: Find, calls: HostCalls, clock: Callable[[], int], *, idle_s: float = IDLE_S) -> None:
        self._find = find
        self._calls = calls
        self._clock = clock
        self._idle_s = idle_s

    # -- processes ---------------------------------------------------------------------------------------------

    async def exec(self, request: Request) -> web.StreamResponse:
        """A process beside a container's own."""
        query = request.query
        argv = request.raw.query.getall("command", [])
        if not argv or not argv[0]:
            raise invalid_query("command", "", "a command is required")
        wanted = _wanted(query)
        tty = flag(query, "tty", False)
        if tty:
            wanted.discard(STDERR)
        exec_request = {
            "argv": argv,
            "tty": tty,
            "stdin": STDIN in wanted,
            "width": _whole(query, "width", 1, 10_000) or 80,
            "height": _whole(query, "height", 1, 10_000) or 24,
        }
        return await self._process(request, "exec", {"request": exec_request}, wanted)

    async def attach(self, request: Request) -> web.StreamResponse:
        """A container's own process. How it ends is told when it ends meanwhile."""
        wanted = _wanted(request.query)
        arguments = {"stdin": STDIN in wanted, "tty": flag(request.query, "tty", False)}
        return await self._process(request, "attach", arguments, wanted)

    async def _process(
        self, request: Request, method: str, arguments: dict[str, Any], wanted: set[int]
    ) -> web.StreamResponse:
        check_upgrade(request.raw)
        capsule = await self._find(request)
        name = container_of(_pod(capsule), request.query.get("container"))
        stream = await self._calls.open(
            _host(capsule), method, {"capsule": capsule.uuid, "container": name, **arguments}
        )
        try:
            frames = stream.frames()
            try:
                # The first frame says that it has begun; a failure before it is an HTTP error.
                await anext(frames, None)
            except NotFoundError:
                # It exists, but its host has not heard of it yet.
                raise ConflictError(f'Container "{name}" of pod "{capsule.name}" is not running.') from None
            async with Channels(request.raw, idle_s=self._idle_s) as channels:
                with contextlib.suppress(ConnectionResetError):
                    # Clients wait for a first message, which is empty, on the lowest channel that we write to.
                    await channels.send(min(wanted - {STDIN}, default=3), b"")
                    await carry(channels, stream, frames, wanted=wanted)
            return channels.response
        finally:
            await stream.close()

    # -- ports -------------------------------------------------------------------------------------------------

    async def portforward(self, request: Request) -> web.StreamResponse:
        """Connections into a pod: for the i-th port of the query, channel 2i carries data, 2i + 1 what went wrong."""
        ports = _ports([*request.raw.query.getall("port", []), *request.raw.query.getall("ports", [])])
        check_upgrade(request.raw)
        capsule = await self._find(request)
        host = _host(capsule)
        phase = capsule.report.pod.phase if capsule.report.pod is not None else "Pending"
        if phase != "Running":
            raise ConflictError(f'Cannot forward ports of pod "{capsule.name}": it is not running, but {phase}.')
        async with Channels(request.raw, idle_s=self._idle_s) as channels:
            forwards = [Forward(channels, number, port) for number, port in enumerate(ports)]
            with contextlib.suppress(ConnectionResetError):
                for forward in forwards:
                    await forward.greet()
            tasks = [asyncio.create_task(f.run(self._calls, host, capsule.uuid)) for f in forwards]
            reader = asyncio.create_task(_distribute(channels, forwards))
            try:
                # Over when every port is done, or when the client has gone.
                done = asyncio.create_task(_all(tuple(tasks)))
                tasks.append(done)
                await asyncio.wait([done, reader], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (reader, *tasks):
                    task.cancel()
                await asyncio.gather(reader, *tasks, return_exceptions=True)
        return channels.response

    # -- logs --------------------------------------------------------------------------------------------------

    async def logs(self, request: Request) -> web.StreamResponse:
        """The log of one container: of its present instance, or of the one before."""
        query = request.query
        arguments = self._log_arguments(query)
        capsule = await self._find(request)
        name = container_of(_pod(capsule), query.get("container"))
        waiting = f'container "{name}" in pod "{capsule.name}" is waiting to start: ContainerCreating'
        if capsule.placement.host_uuid is None:
            raise InvalidError(waiting)
        arguments = {"capsule": capsule.uuid, "container": name, **arguments}
        stream = await self._calls.open(capsule.placement.host_uuid, "pod_logs", arguments)
        try:
            frames = stream.frames()
            await anext(frames, None)
        except BaseException as error:
            await stream.close()
            if isinstance(error, NotFoundError):
                # It exists, but its host has not heard of it yet.
                raise InvalidError(waiting) from None
            raise
        return await respond(request, stream, frames, framed=flag(query, "streams", False))

    def _log_arguments(self, query: dict[str, Any]) -> dict[str, Any]:
        seconds, since = _whole(query, "sinceSeconds", 1), query.get("sinceTime")
        if seconds is not None and since:
            raise invalid_query("sinceTime", since, "at most one of sinceTime and sinceSeconds may be given")
        since_us = _time_us(since) if since else None
        if seconds is not None:
            since_us = self._clock() - seconds * 1_000_000
        which = query.get("stream") or "All"
        if which not in _LOG_STREAMS:
            raise invalid_query("stream", which, "it is none of All, Stdout, Stderr")
        stdout, stderr = _LOG_STREAMS[which]
        return {
            "previous": flag(query, "previous", False),
            "follow": flag(query, "follow", False),
            "timestamps": flag(query, "timestamps", False),
            "tail": _whole(query, "tailLines", 0),
            "since_us": since_us,
            "limit_bytes": _whole(query, "limitBytes", 1),
            "stdout": stdout,
            "stderr": stderr,
        }


class Forward:
    """One port of a connection."""

    def __init__(self, channels: Channels, number: int, port: int) -> None:
        self.data, self.error = 2 * number, 2 * number + 1
        self._channels = channels
        self._port = port
        self._given: asyncio.Queue[Frame] = asyncio.Queue(4)
        self._over = False

    async def greet(self) -> None:
        """Both channels begin with the port's number."""
        for channel in (self.data, self.error):
            await self._channels.send(channel, struct.pack("<H", self._port))

    async def give(self, frame: Frame) -> None:
        """What the client sends; waits while the program in the pod does not read."""
        if not self._over:
            await self._given.put(frame)

    async def run(self, calls: HostCalls, host: str, capsule_uuid: str) -> None:
        """Carry it until the program in the pod has ended it; what went wrong is told on the error channel."""
        stream: CallStream | None = None
        feeder: asyncio.Task[None] | None = None
        try:
            stream = await calls.open(host, "portforward", {"capsule": capsule_uuid, "port": self._port})
            feeder = asyncio.create_task(self._feed(stream))
            await self._drain(stream.frames())
        except AskosError as error:
            with contextlib.suppress(ConnectionResetError):
                await self._channels.send(self.error, error.message.encode())
                await self._channels.end(self.error)
                await self._channels.end(self.data)
        except ConnectionResetError:
            return
        finally:
            self._over = True
            if feeder is not None:
                feeder.cancel()
                await asyncio.gather(feeder, return_exceptions=True)
            while not self._given.empty():
                self._given.get_nowait()
            if stream is not None:
                await stream.close()

    async def _feed(self, stream: CallStream) -> None:
        while True:
            await stream.send(await self._given.get())

    async def _drain(self, frames: AsyncIterator[Frame]) -> None:
        async for frame in frames:
            if frame.data:
                await self._channels.send(self.data, frame.data)
            if frame.eof:
                await self._channels.end(self.data)
                if not self._channels.half_closes:
                    # This client can neither be told, nor tell that it has ended: nobody would ever end it.
                    return


async def _all(tasks: tuple[asyncio.Task[None], ...]) -> None:
    await asyncio.wait(tasks)


async def _distribute(channels: Channels, forwards: list[Forward]) -> None:
    """From the client to the ports, until it has gone."""
    by_channel = {forward.data: forward for forward in forwards}
    async for channel, data in channels.messages():
        if channel in by_channel and data:
            await by_channel[channel].give(Frame(0, data))
        elif channel == CLOSE and channels.half_closes and data and data[0] in by_channel:
            await by_channel[data[0]].give(Frame(0, b"", eof=True))


# -- what is meant ----------------------------------------------------------------------------------------------------


def container_of(pod: Pod, asked: str | None) -> str:
    """The container that a request means. InvalidError that names them all when it names none, or a wrong one."""
    name = pod.metadata.name
    apps = [c.name for c in pod.spec.containers]
    inits = [c.name for c in pod.spec.init_containers]
    if asked:
        if asked not in apps + inits:
            raise InvalidError(f"container {asked} is not valid for pod {name}")
        return asked
    default = pod.metadata.annotations.get(DEFAULT_CONTAINER)
    if default in apps + inits:
        return str(default)
    if len(apps) == 1:
        return apps[0]
    also = f" or one of the init containers: [{' '.join(inits)}]" if inits else ""
    raise InvalidError(f"a container name must be specified for pod {name}, choose one of: [{' '.join(apps)}]{also}")


def _pod(capsule: Capsule) -> Pod:
    assert capsule.spec.pod is not None, "a capsule of kind capsule has a pod"
    return capsule.spec.pod


def _host(capsule: Capsule) -> str:
    if capsule.placement.host_uuid is None:
        raise ConflictError(f'pod "{capsule.name}" does not have a host assigned')
    return capsule.placement.host_uuid


def _wanted(query: dict[str, Any]) -> set[int]:
    flags = {
        STDIN: flag(query, "stdin", False),
        STDOUT: flag(query, "stdout", True),
        STDERR: flag(query, "stderr", True),
    }
    wanted = {channel for channel, given in flags.items() if given}
    if not wanted:
        title = "Nothing to do: ask for at least one of stdin, stdout and stderr."
        raise ApiError(400, title, code="container.invalid")
    return wanted


def _ports(given: list[str]) -> list[int]:
    """The ports of the query; each value may be several, with commas between."""
    words = [word.strip() for value in given for word in value.split(",")]
    if not words:
        raise invalid_query("port", "", "at least one port is required")
    if len(words) > MAX_PORTS:
        raise invalid_query("port", f"{len(words)} ports", f"at most {MAX_PORTS} fit one connection")
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) <= 5 and 1 <= int(word) <= 65535):
            raise invalid_query("port", word[:50], "it is not a number from 1 to 65535")
    return [int(word) for word in words]


def _whole(query: dict[str, Any], name: str, minimum: int, maximum: int = 2**53) -> int | None:
    """A whole number of the query, or None when it is not there."""
    value = query.get(name)
    if value is None or value == "":
        return None
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) <= 17 and minimum <= int(text) <= maximum):
        raise invalid_query(name, text[:50], f"it is not a whole number of at least {minimum}")
    return int(text)


def _time_us(text: str) -> int:
    """An RFC 3339 time in microseconds."""
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None or "T" not in text.upper():
            raise ValueError
        return int(found.timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        raise invalid_query(
            "sinceTime", text[:50], "it is not an RFC 3339 time, such as 2026-01-31T12:00:00Z"
        ) from None
