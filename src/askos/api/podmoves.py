"""What has moved since a revision, asked once for all readers who are at the same place.

A thousand idle watches of one project ask the store once a second together, not a thousand times; and after a change
the first of them to wake asks for all.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from askos.api.notices import Watch
from askos.ports.store import Moved, Store

Answer = tuple[int, list[Moved]]


class _Asked(NamedTuple):
    version: int
    at_s: float
    answer: asyncio.Task[Answer]


class Moves:
    """`Store.moved` with a short memory: an answer counts until something changes here, and for `fresh_s` at most,
    as other servers write, too."""

    def __init__(self, store: Store, notices: Watch, fresh_s: float) -> None:
        self._store = store
        self._notices = notices
        self._fresh_s = fresh_s
        self._asked: dict[tuple[str | None, int, int], _Asked] = {}

    async def moved(self, after: int, project_id: str | None, limit: int) -> Answer:
        """See `ports.store.Store`. Only for those who follow the project's notices."""
        loop = asyncio.get_running_loop()
        key, version, now_s = (project_id, after, limit), self._notices.version(project_id), loop.time()
        known = self._asked.get(key)
        if known is None or known.version != version or now_s - known.at_s >= self._fresh_s:
            self._forget(now_s)
            task = asyncio.create_task(self._store.moved(after, project_id, limit), name="moved")
            task.add_done_callback(_heard)
            known = self._asked[key] = _Asked(version, now_s, task)
        # One reader who leaves does not take the answer from the others.
        return await asyncio.shield(known.answer)

    def _forget(self, now_s: float) -> None:
        for key in [k for k, asked in self._asked.items() if now_s - asked.at_s >= self._fresh_s]:
            if self._asked[key].answer.done():
                del self._asked[key]


def _heard(task: asyncio.Task[Answer]) -> None:
    """Its error is for those who wait; there may be nobody any more."""
    if not task.cancelled():
        task.exception()
