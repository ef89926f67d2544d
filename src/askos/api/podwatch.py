"""The watch of capsules: NDJSON lines, one for each change, from a revision on and without a gap.

The store's change log is read from the reader's revision on. A capsule that changed several times meanwhile is told
once, as it is now; its `resourceVersion` is then the revision of the first of these changes, so that a reader who was
told up to any line may go on from there. Such a reader may be told something twice, and never misses anything.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from askos.api import selectors
from askos.api.core import Request
from askos.api.errors import ApiError, from_askos
from askos.api.notices import Watch
from askos.api.podfeed import Feed
from askos.api.podmoves import Moves
from askos.model.capsules import Capsule
from askos.model.errors import AskosError, InvalidError, UnauthorizedError
from askos.ports.identity import Identity
from askos.ports.store import Moved, Query, Requirement, Store

POLL_S = 1.0
"""What other servers write is found by looking so often, once for all watches (`podfeed`)."""
LOOKS = 5
"""A watch looks itself after so many times of that, whatever it was told, and whether its reader is still there."""
BOOKMARK_S = 30.0
TOKEN_S = 5.0
"""How often the reader's token is looked at again."""
_LAST_S = 10.0
_PAGE = 500

Render = Callable[[Capsule, int], Awaitable[bytes]]
"""A capsule as JSON, with this resourceVersion."""
Told = tuple[str, Capsule, int]
"""What a reader is told: the type, the capsule, and the resourceVersion to show."""


class Scope(msgspec.Struct, frozen=True):
    """Which capsules a reader wants. `project_id` None: of all projects."""

    project_id: str | None
    namespace: str | None = None
    selector: list[Requirement] = []

    def has(self, capsule: Capsule, labels: dict[str, str] | None = None) -> bool:
        """Whether a capsule is within, as it is or with other labels."""
        pod = capsule.spec.pod
        if pod is None or (self.namespace is not None and pod.metadata.namespace != self.namespace):
            return False
        return selectors.matches(self.selector, capsule.spec.labels if labels is None else labels)


def gone(error: InvalidError) -> ApiError:
    """The answer to a revision that the change log does not reach."""
    return ApiError(410, error.message, code="container.revision-gone")


class Following:
    """One reader on its way along the change log."""

    def __init__(self, store: Store | Moves, scope: Scope, revision: int) -> None:
        self._store = store
        self._scope = scope
        self.revision = revision
        """Everything up to here is told."""
        self._ahead: dict[str, int] = {}
        """Capsules that were told as they are beyond `revision`, with their own."""

    async def next(self) -> list[Told]:
        """What to tell now. Nothing: there is no more at present. InvalidError "revision-gone"."""
        while True:
            before = self.revision
            self.revision, found = await self._store.moved(before, self._scope.project_id, _PAGE)
            told = [event for moved in found if (event := self._event(moved)) is not None]
            self._ahead = {uuid: seen for uuid, seen in self._ahead.items() if seen > self.revision}
            if told or self.revision == before:
                return told

    def _event(self, moved: Moved) -> Told | None:
        capsule, scope = moved.capsule, self._scope
        if self._ahead.get(capsule.uuid, 0) >= capsule.revision:
            return None
        if capsule.revision > self.revision:
            self._ahead[capsule.uuid] = capsule.revision
        had = not moved.created and scope.has(capsule, moved.labels_before)
        has = scope.has(capsule)
        if moved.deleted:
            # One that came and went meanwhile is told, too: its creator may know it and wait.
            return ("DELETED", capsule, moved.first) if had or has else None
        if has:
            return ("MODIFIED" if had else "ADDED", capsule, moved.first)
        return ("DELETED", capsule, moved.first) if had else None


async def everything(store: Store, scope: Scope) -> AsyncIterator[Capsule]:
    """All capsules within the scope, a page at a time."""
    after = 0
    while True:
        query = Query(
            kind="capsule",
            project_id=scope.project_id,
            namespace=scope.namespace,
            selector=scope.selector,
            limit=_PAGE,
            after=after,
        )
        page = await store.capsules(query)
        for capsule in page:
            yield capsule
        if len(page) < _PAGE:
            return
        after = page[-1].id


class Stream:
    """One watch request. `revision` 0: begin with everything that is there."""

    def __init__(
        self,
        request: Request,
        *,
        store: Store,
        identity: Identity,
        notices: Watch,
        moves: Moves,
        feed: Feed,
        scope: Scope,
        revision: int,
        timeout_s: float | None,
        bookmarks: bool,
        render: Render,
    ) -> None:
        self._request = request
        self._store = store
        self._identity = identity
        self._notices = notices
        self._moves = moves
        self._feed = feed
        self._scope = scope
        self._revision = revision
        # Spread, so that readers who came together do not come back together.
        self._timeout_s = random.uniform(300, 600) if timeout_s is None else timeout_s  # noqa: S311 - hides nothing
        self._bookmarks = bookmarks
        self._render = render
        self._response = web.StreamResponse(headers={"X-Openstack-Request-Id": request.request_id})
        self._response.content_type = "application/x-ndjson"

    async def run(self) -> web.StreamResponse:
        """Answer until the time is over, the token is not valid any more, or the reader has gone. Raises an ApiError
        410 when the revision is forgotten already."""
        following = Following(self._moves, self._scope, self._revision)
        try:
            with self._notices.follow(self._scope.project_id) as changed, self._feed.followed():
                if self._revision == 0:
                    following.revision = await self._store.revision()
                    first = None
                else:
                    first = await following.next()
                await self._response.prepare(self._request.raw)
                try:
                    async with asyncio.timeout(self._timeout_s):
                        await self._follow(following, changed, first)
                except TimeoutError:
                    pass
                # Whoever does not even take these last lines is cut off.
                async with asyncio.timeout(_LAST_S):
                    await self._bookmark(following.revision)
                    await self._response.write_eof()
        except InvalidError as error:
            if not self._response.prepared:
                raise gone(error) from error
            await self._end(gone(error))
        except AskosError as error:
            if not self._response.prepared:
                raise
            await self._end(from_askos(error))
        except ConnectionResetError:
            pass  # the reader has gone
        return self._response

    async def _follow(self, following: Following, changed: asyncio.Event, first: list[Told] | None) -> None:
        """Tell what happens, until cancelled, the token has ended or the reader has gone."""
        loop = asyncio.get_running_loop()
        bookmark_at = loop.time() + BOOKMARK_S
        token_at = loop.time() + TOKEN_S
        if first is None:
            async for capsule in everything(self._store, self._scope):
                await self._tell("ADDED", capsule, capsule.revision)
        for event in first or []:
            await self._tell(*event)
        while not _has_gone(self._request.raw):
            changed.clear()
            told = await following.next()
            for event in told:
                # A slow reader is waited for here: nothing is kept for it in memory.
                await self._tell(*event)
            if loop.time() >= token_at:
                token_at = loop.time() + TOKEN_S
                if not await self._still_valid():
                    return
            if loop.time() >= bookmark_at:
                bookmark_at = loop.time() + BOOKMARK_S
                await self._bookmark(following.revision)
            if not told:
                until = min(token_at, bookmark_at, loop.time() + LOOKS * POLL_S)
                try:
                    async with asyncio.timeout_at(until):
                        await changed.wait()
                except TimeoutError:
                    continue

    async def _still_valid(self) -> bool:
        try:
            await self._identity.validate(self._request.raw.headers.get("X-Auth-Token", ""))
        except UnauthorizedError:
            return False
        except AskosError:
            return True  # the identity service does not answer now: no reason to break what goes well
        return True

    async def _tell(self, kind: str, capsule: Capsule, revision: int) -> None:
        await self._line(kind, await self._render(capsule, revision))

    async def _bookmark(self, revision: int) -> None:
        if self._bookmarks:
            await self._json("BOOKMARK", {
                "apiVersion": "askos/v1", "kind": "Capsule", "metadata": {"resourceVersion": str(revision)},
            })  # fmt: skip

    async def _end(self, error: ApiError) -> None:
        async with asyncio.timeout(_LAST_S):
            await self._json("ERROR", {
                "kind": "Status", "status": "Failure", "code": error.status, "message": error.title,
                "reason": "Expired" if error.status == 410 else "InternalError",
            })  # fmt: skip
            await self._response.write_eof()

    async def _json(self, kind: str, value: dict[str, Any]) -> None:
        await self._line(kind, msgspec.json.encode(value))

    async def _line(self, kind: str, body: bytes) -> None:
        await self._response.write(b'{"type":"' + kind.encode() + b'","object":' + body + b"}\n")


def _has_gone(raw: web.Request) -> bool:
    """Whether the connection is closed. A reader of whom nothing is written would not be noticed to have gone."""
    return raw.transport is None or raw.transport.is_closing()
