"""One run of a probe or a hook: a command, an HTTP request, a connection, a gRPC health check.

Connections are made by `Dial` inside the pod's network. What is needed for HTTP and gRPC is imported at its first
use: most hosts run many capsules without probes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from askos.model.errors import AskosError, InvalidError, RuntimeFailedError
from askos.model.pods import Container, ExecAction, GrpcAction, HttpGet, TcpSocket

if TYPE_CHECKING:
    import ssl

Dial = Callable[[str, str, int, float], Awaitable[socket.socket]]
"""(sandbox id, address or name, port, timeout in s): `ports.network.HostNetwork.connect`."""
Run = Callable[[str, list[str], float], Awaitable[tuple[int, bytes]]]
"""(container id, argv, timeout in s): exit code and the begin of the output. TimeoutError after killing it."""

MAX_OUTPUT = 10 * 1024
"""Bytes kept of a command's output or an answer's body."""
MAX_REDIRECTS = 10
PROBE_AGENT = "kube-probe/1.35"
HOOK_AGENT = "kube-lifecycle/1.35"


class Outcome(NamedTuple):
    """What a run says. `good` None: it could not be run, which says nothing about the container (`output` tells why,
    unless the container is just going away). `warning`: good, but worth telling."""

    good: bool | None
    output: str = ""
    warning: str = ""


class Place(NamedTuple):
    """Where a check happens."""

    sandbox_id: str
    pod_ip: str
    container_id: str
    container: Container


async def command(run: Run, place: Place, action: ExecAction, timeout_s: float) -> Outcome:
    """A command in the container: good when it exits with 0."""
    try:
        async with asyncio.timeout(timeout_s):
            code, output = await run(place.container_id, action.command, timeout_s)
    except TimeoutError:
        return Outcome(False, f"command timed out: {shlex.join(action.command)} ran longer than {timeout_s:g} s")
    except AskosError as error:
        return _unknown(error)
    return Outcome(code == 0, output[:MAX_OUTPUT].decode(errors="replace"))


async def tcp(dial: Dial, place: Place, action: TcpSocket, timeout_s: float) -> Outcome:
    """A connection: good when it opens."""
    try:
        port = port_number(place.container, action.port)
        async with asyncio.timeout(timeout_s):
            address = destination(action.host or place.pod_ip)
            (await dial(place.sandbox_id, address, port, timeout_s)).close()
    except OSError as error:
        return Outcome(False, f"dial tcp {action.host or place.pod_ip}:{action.port}: {why(error, timeout_s)}")
    except AskosError as error:
        return _unknown(error)
    except ValueError as error:
        return Outcome(None, str(error))
    return Outcome(True)


async def http(
    dial: Dial, place: Place, action: HttpGet, timeout_s: float, *, agent: str = PROBE_AGENT, any_status: bool = False
) -> Outcome:
    """A GET: good with a status from 200 to 399. Redirects are followed on the same host only.

    `any_status`: an answer of any status is good, as for hooks.
    """
    try:
        port = port_number(place.container, action.port)
    except ValueError as error:
        return Outcome(None, str(error))
    host = action.host or place.pod_ip
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    first = f"{action.scheme.lower()}://{f'[{host}]' if ':' in host else host}:{port}{path}"
    try:
        async with asyncio.timeout(timeout_s):
            status, body, foreign = await _follow(_Asking(dial, place, action, agent, timeout_s), first)
    except OSError as error:
        return Outcome(False, f'Get "{first}": {why(error, timeout_s)}')
    except AskosError as error:
        return _unknown(error)
    except ValueError as error:
        return Outcome(False, f'Get "{first}": {error}')
    text = body.decode(errors="replace")
    if any_status:
        return Outcome(True)
    if not 200 <= status < 400:
        return Outcome(False, f"HTTP probe failed with statuscode: {status}")
    if foreign:
        return Outcome(True, text, f"Probe terminated redirects to {foreign}, Response body: {text}")
    return Outcome(True, text)


class _Asking(NamedTuple):
    """What all requests of one check have in common."""

    dial: Dial
    place: Place
    action: HttpGet
    agent: str
    timeout_s: float


async def _follow(asking: _Asking, first: str) -> tuple[int, bytes, str]:
    """Status, body, and the address of another host at which following ended."""
    url, origin = first, urlsplit(first).hostname
    for _ in range(MAX_REDIRECTS):
        status, location, body = await _get(asking, urlsplit(url))
        if status not in (301, 302, 303, 307, 308) or not location:
            return status, body, ""
        url = urljoin(url, location)
        target = urlsplit(url)
        if target.hostname != origin or target.scheme not in ("http", "https"):
            return status, body, url
    raise ValueError(f"stopped after {MAX_REDIRECTS} redirects")


async def _get(asking: _Asking, url: SplitResult) -> tuple[int, str, bytes]:
    """One request: status, Location, and at most `MAX_OUTPUT` bytes of the body."""
    import h11

    secure = url.scheme == "https"
    host = url.hostname or ""
    given = {header.name.lower(): header.value for header in asking.action.http_headers}
    headers = [(header.name, header.value) for header in asking.action.http_headers]
    defaults = [("Host", url.netloc), ("User-Agent", asking.agent), ("Accept", "*/*"), ("Connection", "close")]
    headers = [item for item in defaults if item[0].lower() not in given] + headers
    # As with Go's client, a default is taken away by an empty value.
    headers = [item for item in headers if item[1] or item[0].lower() not in ("user-agent", "accept")]
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    connection = h11.Connection(h11.CLIENT)
    port = url.port or (443 if secure else 80)
    sock = await asking.dial(asking.place.sandbox_id, destination(host), port, asking.timeout_s)
    reader, writer = await _streams(sock, given.get("host", "").partition(":")[0] or host if secure else None)
    try:
        request = h11.Request(method="GET", target=target.encode(), headers=headers)
        writer.write(connection.send(request) or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        status, location, body = 0, "", b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(64 * 1024))
            elif isinstance(event, h11.Response):
                status = event.status_code
                location = next((v.decode("latin-1") for k, v in event.headers if k == b"location"), "")
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
                if len(body) >= MAX_OUTPUT:
                    break
            elif not isinstance(event, h11.InformationalResponse):
                break
        return status, location, body[:MAX_OUTPUT]
    except h11.RemoteProtocolError as error:
        raise ValueError(f"malformed HTTP response: {error}") from error
    except h11.LocalProtocolError as error:
        raise ValueError(f"the request cannot be written: {error}") from error
    finally:
        writer.transport.abort()


async def _streams(sock: socket.socket, server_name: str | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Streams over a connected socket; with TLS when there is a server name. OSError when TLS fails."""
    try:
        if server_name is None:
            return await asyncio.open_connection(sock=sock)
        return await asyncio.open_connection(sock=sock, ssl=_context(), server_hostname=server_name)
    except BaseException:
        sock.close()
        raise


_tls: list[ssl.SSLContext] = []


def _context() -> ssl.SSLContext:
    """A context that trusts whomever it meets: the probe asks whether somebody answers, not who."""
    import ssl

    if not _tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        _tls.append(context)
    return _tls[0]


async def grpc(dial: Dial, place: Place, action: GrpcAction, timeout_s: float) -> Outcome:
    """grpc.health.v1.Health/Check: good when it answers SERVING."""
    from askos.loops import grpc_health

    at = f"{place.pod_ip}:{action.port}"
    try:
        async with asyncio.timeout(timeout_s):
            try:
                sock = await dial(place.sandbox_id, place.pod_ip, action.port, timeout_s)
            except OSError as error:
                return Outcome(False, f'failed to connect to service "{at}": {why(error, timeout_s)}')
            reader, writer = await _streams(sock, None)
            try:
                answer = await grpc_health.check(reader, writer, at, action.service, PROBE_AGENT)
            finally:
                writer.transport.abort()
    except TimeoutError:
        return Outcome(False, f"timeout: health rpc did not complete within {timeout_s:g} s")
    except (OSError, ValueError) as error:
        return Outcome(False, f"health rpc failed: {error}")
    except AskosError as error:
        return _unknown(error)
    if answer.code == grpc_health.UNIMPLEMENTED:
        return Outcome(
            False,
            f"this server does not implement the grpc health protocol (grpc.health.v1.Health): {answer.message}",
        )
    if answer.code:
        return Outcome(False, f"health rpc failed: {answer.message or 'no reason given'} (code {answer.code})")
    if answer.status != "SERVING":
        return Outcome(False, f'service unhealthy (responded with "{answer.status}")')
    return Outcome(True)


def _unknown(error: AskosError) -> Outcome:
    refused = isinstance(error, RuntimeFailedError | InvalidError)
    return Outcome(None, error.message if refused else "")


def port_number(container: Container, port: int | str) -> int:
    """A port by number, or by the name that the container's ports give it. ValueError when there is no such name."""
    if isinstance(port, int):
        return port
    for known in container.ports:
        if known.name == port:
            return known.container_port
    if port.isascii() and port.isdigit():
        return int(port)
    raise ValueError(f'couldn\'t find port: container {container.name} has no port named "{port}"')


def destination(host: str) -> str:
    """The address or name to connect to. Names are looked up by the pod's own name service, never by this host's
    resolver: it knows names that are no business of a pod."""
    with contextlib.suppress(ValueError):
        return str(ip_address(host))
    return "127.0.0.1" if host == "localhost" else host


def why(error: OSError, timeout_s: float) -> str:
    """What stands behind a failed connection or request, for people."""
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if error.errno and (isinstance(error, ConnectionError) or type(error) is OSError):
        return os.strerror(error.errno).lower()
    return (error.strerror or str(error) or type(error).__name__).lower()
