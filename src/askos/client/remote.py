"""A remote process over a WebSocket: exec and attach.

Loaded only by the commands that need it, for aiohttp costs a quarter of a second. Both directions have
back-pressure: nothing is read from the server while the local reader is slow, and the other way round. Local
files are never made non-blocking, since a terminal shares that flag with the shell that started us.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import aiohttp

from askos.client import wire
from askos.client.errors import ApiError, ClientError, ConnectionBrokenError, NoAnswerError, api_error
from askos.client.session import Query, Session

CHUNK = 64 * 1024
CONNECT_TIMEOUT_S = 30.0
MAX_MESSAGE = 16 * 1024 * 1024


class Streams(NamedTuple):
    """The local ends: file descriptors, `stdin` None when nothing is to be sent."""

    stdin: int | None = 0
    stdout: int = 1
    stderr: int = 2
    terminal_size: Callable[[], tuple[int, int]] | None = None
    """(width, height), asked again when the window changes; None without a terminal."""
    detach_keys: bytes = b""
    """What is typed to leave the process alone; b"": nothing is."""


class Detached(Exception):
    """The user has typed the keys that leave the process running."""


def run(session: Session, path: str, query: Query, streams: Streams) -> wire.Result | None:
    """Carry a remote process until it ends. None: the server closed without saying how it ended.

    ApiError when the server refuses, NoAnswerError when none answers, ConnectionBrokenError when it goes
    away.
    """
    session.login()
    try:
        try:
            return asyncio.run(_run(session, path, query, streams))
        except ApiError as error:
            if error.status != 401 or not session.renew(session.login()):
                raise
        session.login()
        return asyncio.run(_run(session, path, query, streams))
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None


async def _run(session: Session, path: str, query: Query, streams: Streams) -> wire.Result | None:
    async with connect(session, session.url("native", path, query)) as socket_:
        output = asyncio.create_task(_receive(socket_, streams))
        helpers: list[asyncio.Task[None]] = []
        if streams.stdin is not None:
            helpers.append(asyncio.create_task(_send_stdin(socket_, streams.stdin, streams.detach_keys, output)))
        if streams.terminal_size is not None:
            helpers.append(asyncio.create_task(_send_sizes(socket_, streams.terminal_size)))
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        assert me is not None
        interrupted = False

        def interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            me.cancel()

        # So that the terminal is put right on these ways out, too. Ctrl-C as well: asyncio's own handler cancels
        # between any two instructions, also between a look at a future and its result.
        for number, handler in ((signal.SIGTERM, me.cancel), (signal.SIGHUP, me.cancel), (signal.SIGINT, interrupt)):
            with contextlib.suppress(RuntimeError, ValueError):
                loop.add_signal_handler(number, handler)
        try:
            try:
                return await output
            except asyncio.CancelledError:
                if any(h.done() and not h.cancelled() and isinstance(h.exception(), Detached) for h in helpers):
                    raise Detached from None
                if interrupted:
                    raise KeyboardInterrupt from None
                raise
        finally:
            for task in (*helpers, output):
                task.cancel()
            await asyncio.gather(*helpers, output, return_exceptions=True)


@contextlib.asynccontextmanager
async def connect(session: Session, url: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket to the cloud, closed in the end. Raises as `run` does."""
    base = url.split("/askos/v1", 1)[0]
    trust = session.http.trust() if url.startswith("https") else True
    refusal = Refusal()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, middlewares=(refusal.keep,)) as client:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                socket_ = await client.ws_connect(
                    url,
                    protocols=(wire.SUBPROTOCOL,),
                    headers=session.headers(),
                    max_msg_size=MAX_MESSAGE,
                    ssl=trust,
                    autoclose=False,
                )
        except aiohttp.WSServerHandshakeError as error:
            if refusal.status >= 300:
                raise api_error(refusal.status, error.message, refusal.body) from None
            raise ClientError(f"{base} does not speak WebSocket here: {error.message}") from None
        except aiohttp.ClientConnectorError as error:
            reason = (error.os_error.strerror or str(error)).lower()
            raise NoAnswerError(base, reason) from None
        except TimeoutError:
            raise NoAnswerError(base, f"no answer within {CONNECT_TIMEOUT_S:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswerError(base, str(error) or type(error).__name__) from None
        _keep_alive(socket_)
        try:
            yield socket_
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(socket_.close(), 2)


class Refusal:
    """Keeps the body of a refused handshake, which aiohttp's exception leaves out."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""

    async def keep(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """An aiohttp client middleware."""
        answer = await handler(request)
        self.status = answer.status
        if answer.status >= 300:
            self.body = await answer.read()
        return answer


def _keep_alive(socket_: aiohttp.ClientWebSocketResponse) -> None:
    """Notice a dead peer through TCP: WebSocket pings would take a paused pager for one."""
    raw = socket_.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)


async def _receive(socket_: aiohttp.ClientWebSocketResponse, streams: Streams) -> wire.Result | None:
    """Write what comes until the error channel tells the end, or the server closes."""
    targets = {wire.STDOUT: streams.stdout, wire.STDERR: streams.stderr}
    async for message in socket_:
        if message.type is aiohttp.WSMsgType.ERROR:
            break
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], memoryview(message.data)[1:]
        if channel == wire.ERROR and data:
            return wire.result(bytes(data))
        if channel in targets and data:
            await asyncio.to_thread(write_all, targets[channel], data)
    if socket_.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION:
        raise ClientError(
            "your rights ended, and with them the connection: the token was revoked, the user or project disabled, or "
            "a role taken away. The process may still run"
        )
    if socket_.close_code != aiohttp.WSCloseCode.OK:
        raise ConnectionBrokenError("the connection broke before the process ended. It may still run")
    return None


async def _send_stdin(
    socket_: aiohttp.ClientWebSocketResponse, descriptor: int, keys: bytes, output: asyncio.Task[wire.Result | None]
) -> None:
    """Send standard input, then its end. Once `keys` are typed, `output` is given up. Detached."""
    typed = Typed(keys)
    async for piece in read_chunks(descriptor):
        data, detached = typed.feed(piece)
        if detached:
            output.cancel()
            raise Detached
        if not data:
            continue
        try:
            await socket_.send_bytes(wire.frame(wire.STDIN, data))
        except (ConnectionError, aiohttp.ClientError):
            return  # The receiving side tells what happened.
    with contextlib.suppress(ConnectionError, aiohttp.ClientError):
        await socket_.send_bytes(wire.half_close(wire.STDIN))


async def _send_sizes(socket_: aiohttp.ClientWebSocketResponse, terminal_size: Callable[[], tuple[int, int]]) -> None:
    """Send the terminal's size now, and again whenever the window changes."""
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGWINCH, changed.set)
    while True:
        width, height = terminal_size()
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            await socket_.send_bytes(wire.resize(width, height))
        await changed.wait()
        changed.clear()


async def read_chunks(descriptor: int) -> AsyncIterator[bytes]:
    """What a blocking descriptor of any kind gives, until its end; stops reading when left.

    A thread reads, and waits for each piece to be taken before it reads the next.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes] = asyncio.Queue(1)
    stop_read, stop_write = os.pipe()

    def reader() -> None:
        try:
            while True:
                ready = poller.poll()
                if any(which == stop_read for which, _ in ready):
                    return
                try:
                    data = os.read(descriptor, CHUNK)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                asyncio.run_coroutine_threadsafe(pieces.put(data), loop).result()
                if not data:
                    return
        except (RuntimeError, concurrent.futures.CancelledError):  # The loop is gone.
            return
        finally:
            os.close(stop_read)

    poller = select.poll()
    poller.register(stop_read, select.POLLIN)
    poller.register(descriptor, select.POLLIN)
    thread = threading.Thread(target=reader, name="stdin", daemon=True)
    thread.start()
    try:
        while data := await pieces.get():
            yield data
    finally:
        with contextlib.suppress(BrokenPipeError):
            os.write(stop_write, b"x")
        os.close(stop_write)
        while not pieces.empty():
            pieces.get_nowait()


class Typed:
    """Looks for a sequence of keys in what is typed. Its begin is held back until the next key tells."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be sent on, and whether the whole sequence has been typed."""
        if not self._keys:
            return data, False
        data = self._held + data
        if self._keys in data:
            return b"", True
        held = next((n for n in range(len(self._keys) - 1, 0, -1) if data.endswith(self._keys[:n])), 0)
        self._held = data[len(data) - held :]
        return data[: len(data) - held], False


def write_all(descriptor: int, data: memoryview) -> None:
    """Write everything, waiting as long as it takes. BrokenPipeError when nobody reads any more."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def exec_query(
    command: list[str],
    *,
    stdin: bool,
    tty: bool,
    size: tuple[int, int] | None,
    environment: list[str],
    workdir: str | None,
) -> Query:
    """The exec endpoint's query."""
    query: Query = [("command", word) for word in command]
    query += [("stdin", "1")] if stdin else []
    query += [("tty", "1")] if tty else []
    query += [("width", str(size[0])), ("height", str(size[1]))] if size else []
    query += [("env", pair) for pair in environment]
    query += [("workdir", workdir)] if workdir else []
    return query
