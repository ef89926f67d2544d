"""Streams end with the rights of who opened them.

A token is looked at when a request begins. Exec, attach, port forwarding and logs that are followed go on for hours, so
their tokens are looked at again and again: all at once, each token once however many streams it has. A stream ends when
the token was revoked, its user or project disabled, or a role taken away. That the token has expired meanwhile ends
nothing: whoever may log in again would only have to begin anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from aiohttp import web

from askos.api import policy
from askos.model.errors import AskosError, UnauthorizedError
from askos.model.identity import Caller
from askos.ports.identity import Identity

EVERY_S = 60.0
"""How often. A stream outlives its rights by this, and what the identity service remembers of a token, at most."""
CLOSE_CODE = 1008
"""How a WebSocket is closed then: "policy violation"."""
REASON = "Your rights have ended: the token was revoked, the user or project disabled, or a role taken away."

_LOST = web.RequestKey("askos_rights_lost", asyncio.Event)


def lost(raw: web.Request) -> asyncio.Event:
    """What is set when the rights of this request's stream end. Of a request that is not held nothing ever sets it."""
    return raw.get(_LOST) or asyncio.Event()


class Rights:
    """The streams of this server."""

    def __init__(self, identity: Identity, every_s: float = EVERY_S) -> None:
        self._identity = identity
        self._every_s = every_s
        self._held: dict[str, dict[asyncio.Event, Caller]] = {}
        """By token: each stream's event, and who opened it."""
        self._looking: asyncio.Task[None] | None = None

    async def caller(self, token: str) -> Caller:
        """Who has this token, which may have expired. UnauthorizedError when it is worth nothing any more."""
        return policy.seen(await self._identity.validate(token, allow_expired=True))

    @contextlib.contextmanager
    def held(self, raw: web.Request, token: str, caller: Caller) -> Iterator[None]:
        """While a request's stream is open. `caller`: who may have it."""
        event = raw[_LOST] = asyncio.Event()
        self._held.setdefault(token, {})[event] = caller
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            streams = self._held[token]
            del streams[event]
            if not streams:
                del self._held[token]
            if not self._held:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            for token in list(self._held):
                await self._check(token)

    async def _check(self, token: str) -> None:
        now: Caller | None
        try:
            now = await self.caller(token)
        except UnauthorizedError:
            now = None
        except AskosError:
            return  # the identity service does not answer now: no reason to break what goes well
        for event, caller in self._held.get(token, {}).items():
            if now is None or not _has_all(now, caller):
                event.set()


def _has_all(now: Caller, before: Caller) -> bool:
    return now.is_admin >= before.is_admin and set(before.roles) <= set(now.roles)
