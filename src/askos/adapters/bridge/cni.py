"""The agent's side of the CNI plugin: a unix socket that takes calls from `askos-cni`.

On the wire: the CNI_* variables as `KEY=value`, NUL between them, two NULs, the network configuration (JSON), end
of file. The answer: the exit code in decimal, a newline, what goes to standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from askos.adapters.bridge.journal import valid_id
from askos.adapters.bridge.plugin import CNI_VERSION, SUPPORTED
from askos.model.errors import AskosError, SetupError

_log = logging.getLogger(__name__)
_LIMIT = 1 << 20
_READ_TIMEOUT_S = 10
_INVALID_ENVIRONMENT, _UNDECODABLE, _BAD_VERSION, _FAILED = 4, 6, 1, 100
TRY_AGAIN = 11


class CniError(Exception):
    """A failed call; becomes CNI's error object. `code` as in the specification, 100 and above are ours."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Call(msgspec.Struct, frozen=True):
    """One call of the plugin. `pod_uid` is K8S_POD_UID from CNI_ARGS, the capsule's uuid."""

    command: str
    container_id: str
    netns: str
    interface: str
    pod_uid: str
    version: str


Handler = Callable[[Call], Awaitable[dict[str, Any] | None]]
"""Does an ADD, DEL or CHECK; returns ADD's result without its cniVersion. Raises CniError, AskosError, OSError."""


def parse(request: bytes) -> Call:
    """A request from the wire. CniError says what is wrong with it."""
    head, _, config = request.partition(b"\0\0")
    variables = dict(item.decode(errors="replace").partition("=")[::2] for item in head.split(b"\0") if item)
    try:
        version = str(msgspec.json.decode(config or b"{}").get("cniVersion", "0.3.0"))
    except (msgspec.MsgspecError, AttributeError) as error:
        raise CniError(_UNDECODABLE, f"The network configuration is not a JSON object: {error}") from None
    if version not in SUPPORTED:
        raise CniError(_BAD_VERSION, f"CNI version {version} is not supported; use one of {', '.join(SUPPORTED)}.")
    arguments = dict(item.partition("=")[::2] for item in variables.get("CNI_ARGS", "").split(";"))
    call = Call(
        command=variables.get("CNI_COMMAND", ""),
        container_id=variables.get("CNI_CONTAINERID", ""),
        netns=variables.get("CNI_NETNS", ""),
        interface=variables.get("CNI_IFNAME", ""),
        pod_uid=arguments.get("K8S_POD_UID", ""),
        version=version,
    )
    if call.command not in {"ADD", "DEL", "CHECK"}:
        raise CniError(_INVALID_ENVIRONMENT, f"CNI_COMMAND {call.command!r} is none of ADD, DEL, CHECK.")
    if not valid_id(call.container_id):
        raise CniError(_INVALID_ENVIRONMENT, f"CNI_CONTAINERID {call.container_id!r} is not a valid id.")
    return call


def result(call: Call, value: dict[str, Any]) -> dict[str, Any]:
    """ADD's result in the form of the caller's version: before 1.0.0 each address says its IP version."""
    ips = value.get("ips", [])
    if call.version.startswith("0."):
        ips = [{"version": "6" if ":" in ip["address"] else "4", **ip} for ip in ips]
    return {"cniVersion": call.version, **value, "ips": ips}


class Server:
    """Listens on the socket; one task per call."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to listen. SetupError when the socket cannot be made or another agent has it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                _refuse_if_alive(self._path)
                self._path.unlink()
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.bind(str(self._path))
            self._path.chmod(0o600)  # before it listens: nobody else can have connected
        except OSError as error:
            raise SetupError(
                f"Cannot listen for the network plugin on {self._path}: {error.strerror}. "
                "Check that the folder exists and belongs to this user."
            ) from None
        self._server = await asyncio.start_unix_server(self._accept, sock=sock, limit=_LIMIT)

    async def stop(self) -> None:
        """Stop listening; calls that are under way get a moment to end."""
        if self._server is None:
            return
        self._server.close()
        if self._calls:
            await asyncio.wait(self._calls, timeout=5)
        for task in list(self._calls):
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        self._server = None
        self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await asyncio.wait_for(reader.read(_LIMIT), _READ_TIMEOUT_S)
            while not reader.at_eof() and len(request) < _LIMIT:
                request += await asyncio.wait_for(reader.read(_LIMIT), _READ_TIMEOUT_S)
            if not request:
                return  # only asked whether somebody listens
            code, answer = await self._answer(request)
            writer.write(b"%d\n" % code + answer)
            await writer.drain()
        except (OSError, TimeoutError):
            pass  # the caller went away; it calls again
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, request: bytes) -> tuple[int, bytes]:
        version, what = CNI_VERSION, "call"
        try:
            call = parse(request)
            version, what = call.version, f"{call.command} of {call.container_id}"
            value = await self._handler(call)
        except CniError as error:
            code, message = error.code, str(error)
        except AskosError as error:
            code, message = _FAILED, error.message
        except OSError as error:
            code, message = _FAILED, f"Cannot do the {what}: {error.strerror or error}"
        except Exception:
            # One broken call must not leave its caller without an answer: containerd would wait for its deadline.
            _log.exception("CNI %s failed.", what)
            code, message = _FAILED, f"Cannot do the {what}: an error in Askos itself, see the agent's log."
        else:
            return 0, b"" if value is None else msgspec.json.encode(result(call, value))
        _log.warning("CNI %s: %s", what, message)
        return 1, msgspec.json.encode({"cniVersion": version, "code": code, "msg": message, "details": ""})


def _refuse_if_alive(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return
    raise SetupError(f"Cannot listen on {path}: another agent answers there. Stop it first, or use another folder.")
