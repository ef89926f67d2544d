"""Threads for blocking netlink work: the kernel answers within a millisecond, but a removal waits for 15."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from askos.adapters.bridge import rtnl

_T = TypeVar("_T")
_THREADS = 4


class Workers:
    """A small pool; made at first use and again after `close`."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, work: Callable[[rtnl.Netlink], _T]) -> _T:
        """Do blocking work in a thread, with a fresh route socket of the host's namespace."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="askos-net")

        def task() -> _T:
            with rtnl.Netlink() as nl:
                return work(nl)

        return await asyncio.get_running_loop().run_in_executor(self._pool, task)

    def close(self) -> None:
        """End the threads; waits for work under way."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None
