"""Hashing of passwords and secrets with argon2id, off the event loop and never more than a few at a time.

Each hash takes tens of milliseconds and `memory_kib` of memory on purpose; the bounds keep a flood of log-ins
from taking all processors and all memory. A check against no hash at all costs the same as a real one, so
that the time of an answer does not tell whether a user exists.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from askos.model.errors import UnavailableError

_T = TypeVar("_T")


class Passwords:
    """Hashes and checks. The defaults are OWASP's second choice for argon2id: 19 MiB, 2 passes, 1 lane."""

    def __init__(
        self,
        *,
        time_cost: int = 2,
        memory_kib: int = 19 * 1024,
        concurrency: int = 2,
        max_waiting: int = 256,
    ) -> None:
        self._hasher = PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=1)
        self._threads = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="argon2")
        self._max_pending = concurrency + max_waiting
        self._pending = 0
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """A new salted hash in PHC format. UnavailableError when too many wait."""
        return await self._run(lambda: self._hasher.hash(_bytes(password)))

    async def check(self, stored: str | None, password: str) -> bool:
        """Whether the password fits the hash; False at the same cost for None. UnavailableError."""
        return await self._run(lambda: self._check(stored, password))

    def outdated(self, stored: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check(self, stored: str | None, password: str) -> bool:
        if stored is None:
            # Two threads may both make it at first; either is good.
            self._nobody = self._nobody or self._hasher.hash(secrets.token_bytes(16))
        target = stored if stored is not None else self._nobody
        assert target is not None
        try:
            self._hasher.verify(target, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None

    async def _run(self, work: Callable[[], _T]) -> _T:
        if self._pending >= self._max_pending:
            raise UnavailableError("Cannot check passwords now: too many log-ins wait. Try again in some seconds.")
        self._pending += 1
        future = self._threads.submit(work)
        # Counted until the thread is done, not until the caller gives up, or impatient clients
        # evade the bound.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: _call_soon(loop, self._done))
        return await asyncio.wrap_future(future)

    def _done(self) -> None:
        self._pending -= 1


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)


def _bytes(password: str) -> bytes:
    # JSON may carry lone surrogates; they are as good as any other character in a password.
    return password.encode("utf-8", "surrogatepass")
