"""How watches hear of what other servers write: one reader of the change log for all watches of this process.

Changes of this process ring the notices at once. Everything else is found here, by a look every second; the reader
wakes those who follow the projects concerned, and they read what has moved for themselves. So a lost ring or a look
that failed costs latency, never a line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from askos.api.notices import Watch
from askos.ports.store import Store

_log = logging.getLogger(__name__)


class Feed:
    """Looks while somebody follows. `poll_s`: how often, in seconds."""

    def __init__(self, store: Store, notices: Watch, poll_s: Callable[[], float]) -> None:
        self._store = store
        self._notices = notices
        self._poll_s = poll_s
        self._followers = 0
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Keeps it looking."""
        self._followers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="change feed")
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        seen: int | None = None
        while True:
            await asyncio.sleep(self._poll_s())
            try:
                seen = await self._look(seen)
            except Exception:
                # What was missed is not known: once the store answers again, all look for themselves.
                _log.warning("the change log cannot be read now; watches learn late of changes", exc_info=True)
                seen = None

    async def _look(self, seen: int | None) -> int:
        """Wake whoever follows a project in which something has changed; returns how far that goes. None: everybody
        looks, since nothing is known of before."""
        newest = await self._store.revision()
        if seen is None:
            self._notices.changed_in(None)
        elif newest != seen:
            for project_id in await self._store.moved_projects(seen):
                self._notices.changed_in(project_id)
        return newest
