"""How requests hear of changes in this process. A hint only: what other servers change is found by looking."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager


class Watch:
    """Lets requests wait for changes: of one capsule, or of anything in a project."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}
        self._followers: dict[str | None, set[asyncio.Event]] = {}
        self._versions: dict[str | None, int] = {}
        self._numbers = itertools.count(1)

    def changed(self, uuid: str, project_id: str | None = None) -> None:
        """Something of this capsule has changed. Without a project all followers look."""
        event = self._events.pop(uuid, None)
        if event is not None:
            event.set()
        self.changed_in(project_id)

    def changed_in(self, project_id: str | None) -> None:
        """Something in this project has changed, or (None) perhaps anything anywhere: its followers look."""
        whose = self._followers if project_id is None else (project_id, None)
        for key in whose:
            if key in self._followers:
                self._versions[key] = next(self._numbers)
            for follower in self._followers.get(key, ()):
                follower.set()

    def version(self, project_id: str | None) -> int:
        """A number that is another one after each change in a project (None: in any) that somebody follows."""
        return self._versions.get(project_id, 0)

    async def wait(self, uuid: str, timeout_s: float) -> None:
        """Wait for a change or for the time to pass."""
        event = self._events.setdefault(uuid, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return

    @contextmanager
    def follow(self, project_id: str | None) -> Iterator[asyncio.Event]:
        """An event that is set at every change in a project (None: in any). Clear it before looking."""
        event = asyncio.Event()
        if project_id not in self._followers:
            # What changed while nobody listened was not noted.
            self._versions[project_id] = next(self._numbers)
        mine = self._followers.setdefault(project_id, set())
        mine.add(event)
        try:
            yield event
        finally:
            mine.discard(event)
            if not mine and self._followers.get(project_id) is mine:
                del self._followers[project_id]
                self._versions.pop(project_id, None)
