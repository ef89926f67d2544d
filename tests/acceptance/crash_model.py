"""What requests tell about a thing, and threads that go on making them whoever is killed.

An accepted request has happened, a refused one has not, and one without an answer may or may not: then both are
possible until somebody looks. A thing belongs to one thread, so that its requests have an order.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from tests.acceptance.crash_fixtures import Answer, Api, Cloud, LostError

T = TypeVar("T")


class Known(Generic[T]):
    """What a value may be."""

    def __init__(self, value: T) -> None:
        self.values = [value]

    def told(self, value: T, outcome: str) -> None:
        """A request for this value has ended."""
        if outcome == "done":
            self.values = [value]
        elif outcome == "lost" and value not in self.values:
            self.values = [*self.values, value]

    def looked(self, value: T) -> bool:
        """Somebody has seen it after everything: whether it may be so. Then that is what it is."""
        fits = value in self.values
        if fits:
            self.values = [value]
        return fits

    @property
    def sure(self) -> T | None:
        return self.values[0] if len(self.values) == 1 else None

    def __repr__(self) -> str:
        return " or ".join(map(repr, self.values))


class Thing:
    """Asks, and notes what came of it."""

    def __init__(self) -> None:
        self.history: list[str] = []
        self.answer = Answer(0, b"")

    def ask(
        self, api: Api, word: str, method: str, path: str, body: Any = None, *, refused: Sequence[int], **headers: str
    ) -> str:
        """ "done", "refused" or "lost". `refused`: statuses that say that it has not happened; a 503 leaves it open, and
        any other is a mistake."""
        self.answer = Answer(0, b"")
        try:
            self.answer = api.at(method, path, body, **headers)
        except LostError as lost:
            self.history.append(f"{word}:{'lost' if lost.sent else 'away'}")
            return "lost" if lost.sent else "refused"
        status = self.answer.status
        self.history.append(f"{word}:{status}")
        if self.answer.accepted:
            return "done"
        if status == 503:
            return "lost"
        assert status in refused, f"{method} {path}: {status} {self.answer.body[:600]!r}, after {self.history[-12:]}"
        return "refused"


class Actor(Protocol):
    """Does one more thing."""

    def act(self, api: Api, chance: random.Random) -> None: ...


class Aim:
    """Lets somebody wait until a request of some kinds is on its way."""

    def __init__(self) -> None:
        self.word = ""
        """The one that it was."""
        self.hit = threading.Event()
        self._words: list[str] = []

    def at(self, words: list[str]) -> None:
        self.hit.clear()
        self.word, self._words = "", words

    def sends(self, word: str) -> None:
        if word in self._words and not self.hit.is_set():
            self.word = word
            self.hit.set()


class Crowd:
    """Threads that use the cloud until they are told to stop, also while it is away and when it comes back."""

    def __init__(self, cloud: Cloud, groups: Sequence[Sequence[Actor]], seed: str) -> None:
        self._failures: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._run, args=(cloud.api(), group, random.Random(f"{seed}/{n}")), name=f"user {n}"
            )
            for n, group in enumerate(groups)
        ]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive(), f"{thread.name} hangs"
        if self._failures:
            raise self._failures[0] from error

    def _run(self, api: Api, group: Sequence[Actor], chance: random.Random) -> None:
        try:
            while not self._stop.is_set():
                try:
                    api.log_in()
                    break
                except LostError:
                    self._stop.wait(0.1)
            while not self._stop.is_set():
                try:
                    chance.choice(group).act(api, chance)
                except LostError:
                    self._stop.wait(0.1)  # it only wanted to look at something first
                self._stop.wait(chance.uniform(0, 0.15))
        except BaseException as error:
            self._failures.append(error)
        finally:
            api.close()
