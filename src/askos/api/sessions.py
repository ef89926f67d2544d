"""Zun's interactive sessions: attach and exec over a WebSocket that carries a terminal's bytes and nothing else.

A request with a token makes a ticket; whoever comes with the ticket's own token within ten minutes is connected, once.
Any server of the cloud takes it. What is kept of a ticket is a hash, and the token of who asked for it, which only the
ticket itself opens: the session ends with that token's rights.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from askos.api import policy, state
from askos.api.core import Request
from askos.api.errors import ApiError
from askos.api.rights import Rights
from askos.api.sockets import Socket
from askos.model.capsules import Capsule
from askos.model.errors import AskosError, ConflictError, InvalidError, RuntimeFailedError, UnauthorizedError
from askos.model.identity import Caller
from askos.ports.calls import CallStream, Frame, HostCalls
from askos.ports.store import Store
from askos.ports.tickets import Ticket, TicketStore

PATH = "/askos/v1/sessions"
LIFETIME_US = 600 * 1_000_000
MOST_TICKETS = 100
"""Tickets of one container that wait for somebody; beyond, the oldest is worth nothing any more."""
_NONCE_BYTES = 12
MAIN = "main"
"""The name of a Zun container's only container."""
_NOT_OPEN = "This session is not open (any more): ask for a new one with attach or execute."
_ORIGIN = re.compile(r"(https?)://(\[[^\]]*\]|[^:/\[\]]+)(?::[^/]*)?/?", re.IGNORECASE)


class Sessions:
    """Tickets, and what becomes of them. `public_url`: how clients reach this API, None: as the request did.
    `allowed_origins`: hosts of web pages that may connect beside the API's own."""

    def __init__(
        self,
        store: Store,
        calls: HostCalls,
        clock: Callable[[], int],
        rights: Rights,
        tickets: TicketStore,
        *,
        public_url: str | None = None,
        allowed_origins: frozenset[str] = frozenset(),
    ) -> None:
        self._store = store
        self._calls = calls
        self._clock = clock
        self._rights = rights
        self._public_url = public_url
        self._allowed_origins = allowed_origins
        self._tickets = tickets
        self._running: dict[str, tuple[str, CallStream]] = {}
        """Execs that somebody is connected to: the container and the stream, by exec id."""

    # -- tickets -----------------------------------------------------------------------------------------------

    async def for_attach(self, request: Request, capsule: Capsule) -> str:
        """A URL for the container's own process."""
        return await self._url(request, capsule, None, None)

    async def for_exec(self, request: Request, capsule: Capsule, argv: list[str]) -> tuple[str, str]:
        """An exec's id, and a URL for it."""
        exec_id = secrets.token_hex(32)
        return exec_id, await self._url(request, capsule, argv, exec_id)

    async def _url(self, request: Request, capsule: Capsule, argv: list[str] | None, exec_id: str | None) -> str:
        secret = secrets.token_urlsafe(32)
        credential = _encrypted(secret, request.token)
        expires_us = self._clock() + LIFETIME_US
        ticket = Ticket(_digest(secret), capsule.uuid, argv, exec_id, credential, expires_us)
        await self._tickets.add_ticket(ticket, MOST_TICKETS)
        base = (self._public_url or request.host_url).rstrip("/")
        scheme, _, rest = base.partition("://")
        url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}{PATH}?token={secret}&uuid={capsule.uuid}"
        return url if exec_id is None else f"{url}&exec_id={exec_id}"

    async def _take(self, secret: str, capsule_uuid: str, exec_id: str | None) -> tuple[Ticket, str, Caller]:
        """The ticket of this secret, which is worth nothing from now on; whose it is, by token. A 403 for any other."""
        ticket = await self._tickets.take_ticket(_digest(secret))
        if ticket is None or ticket.capsule_uuid != capsule_uuid or ticket.exec_id != exec_id:
            raise ApiError(403, _NOT_OPEN, code="container.invalid-session")
        token = _decrypted(secret, ticket.credential)
        try:
            return ticket, token, await self._rights.caller(token)
        except UnauthorizedError as error:
            raise ApiError(403, _NOT_OPEN, code="container.invalid-session") from error

    async def resize(self, capsule_uuid: str, exec_id: str, width: int, height: int) -> None:
        """The terminal of an exec. ConflictError before somebody is connected, InvalidError for an unknown one."""
        running = self._running.get(exec_id)
        if running is not None and running[0] == capsule_uuid:
            await running[1].send(Frame(control={"resize": [width, height]}))
            return
        if await self._tickets.awaits(capsule_uuid, exec_id):
            raise ConflictError(f"Exec {exec_id} has not started: it does when its proxy_url is connected to.")
        raise InvalidError(f"no such exec instance: {exec_id}")

    # -- the WebSocket -----------------------------------------------------------------------------------------

    async def connect(self, request: Request) -> web.StreamResponse:
        """GET with an upgrade: the session of a ticket. Refusals are ordinary answers, before the upgrade."""
        raw, query = request.raw, request.query
        if raw.headers.get("Upgrade", "").lower() != "websocket":
            raise ApiError(400, "This is a WebSocket endpoint: connect with an Upgrade.", code="container.invalid")
        self._check_origin(raw)
        secret, uuid, exec_id = query.get("token", ""), query.get("uuid", ""), query.get("exec_id")
        ticket, token, caller = await self._take(secret, uuid, exec_id)
        policy.enforce_writer(caller)
        with self._rights.held(raw, token, caller):
            return await self._connected(raw, ticket)

    async def _connected(self, raw: web.Request, ticket: Ticket) -> web.StreamResponse:
        capsule = await self._store.capsule(ticket.capsule_uuid, None, "container")
        state.check("attach" if ticket.argv is None else "execute", capsule)
        if capsule.placement.host_uuid is None:
            raise ApiError(400, "Cannot operate an uncreated container.", code="container.invalid")
        method, arguments = _call(ticket)
        stream = await self._calls.open(capsule.placement.host_uuid, method, arguments)
        try:
            frames = stream.frames()
            refusal = b""
            try:
                # The first frame says that it has begun.
                await anext(frames, None)
            except RuntimeFailedError as error:
                # A program that is not there is told where its output would be, as docker does.
                refusal = f"{error.message}\r\n".encode()
            async with Socket(raw, ("binary",)) as socket:
                with contextlib.suppress(ConnectionError):
                    await self._carry(socket, ticket, stream, frames, refusal)
                await socket.leave(b"Target closed")
            return socket.response
        finally:
            await stream.close()

    async def _carry(
        self, socket: Socket, ticket: Ticket, stream: CallStream, frames: AsyncIterator[Frame], refusal: bytes
    ) -> None:
        if refusal:
            await socket.response.send_bytes(refusal)
            return
        if ticket.exec_id is not None:
            self._running[ticket.exec_id] = (ticket.capsule_uuid, stream)
        feeder = asyncio.create_task(_feed(socket, stream))
        try:
            await _drain(socket, frames)
        finally:
            if ticket.exec_id is not None:
                self._running.pop(ticket.exec_id, None)
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)

    def _check_origin(self, raw: web.Request) -> None:
        """Keeps web pages of others out. Programs send no Origin, or one made from the URL, however odd its port."""
        origin = raw.headers.get("Origin")
        if origin is None:
            return
        parts = _ORIGIN.fullmatch(origin)
        scheme = raw.headers.get("X-Forwarded-Proto") or (parts[1] if parts else "")
        wanted = urlsplit(self._public_url).scheme if self._public_url else raw.scheme
        host = parts[2].lower() if parts else ""
        own = self._public_url or f"//{raw.host}"
        known = {urlsplit(f"//{raw.host}").hostname or "", urlsplit(own).hostname or "", *self._allowed_origins}
        if host.strip("[]") in {name.lower() for name in known} and scheme.lower() == wanted:
            return
        title = f"Sessions are not for pages of {origin[:200]}, neither this API's own origin nor an allowed one."
        raise ApiError(403, title, code="container.origin-not-allowed")


def _call(ticket: Ticket) -> tuple[str, dict[str, Any]]:
    if ticket.argv is None:
        return "attach", {"capsule": ticket.capsule_uuid, "container": MAIN, "stdin": True, "tty": True}
    request = {"argv": ticket.argv, "tty": True, "stdin": True, "width": 80, "height": 24}
    return "exec", {"capsule": ticket.capsule_uuid, "request": request}


async def _feed(socket: Socket, stream: CallStream) -> None:
    """From the client to the process, until it has gone; an empty message is its good-bye."""
    async for message in socket.response:
        socket.touch()
        data = message.data.encode() if message.type is WSMsgType.TEXT else message.data
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY) or not data:
            break
        await stream.send(Frame(0, data))
    await stream.close()


async def _drain(socket: Socket, frames: AsyncIterator[Frame]) -> None:
    """From the process to the client, until it has ended. No character is cut in two: clients read each message as
    UTF-8 of its own."""
    kept = b""
    with contextlib.suppress(AskosError):
        async for frame in frames:
            if not frame.data:
                continue
            socket.touch()
            data, kept = whole_characters(kept + frame.data)
            if data:
                await socket.response.send_bytes(data)
    if kept:
        await socket.response.send_bytes(kept)


def whole_characters(data: bytes) -> tuple[bytes, bytes]:
    """Cut behind the last whole character: what can be sent, and the begin of one that is not complete."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue  # within a character: look for its first byte
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return (data[:-back], data[-back:]) if length > back else (data, b"")
    return data, b""


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _cipher(secret: str) -> AESGCM:
    # The secret has 256 random bits, so that a hash with a purpose of its own makes a key of it.
    return AESGCM(hashlib.sha256(b"askos session " + secret.encode()).digest())


def _encrypted(secret: str, token: str) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(secret).encrypt(nonce, token.encode(), None)


def _decrypted(secret: str, credential: bytes) -> str:
    return _cipher(secret).decrypt(credential[:_NONCE_BYTES], credential[_NONCE_BYTES:], None).decode()
