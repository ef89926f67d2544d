"""Wake-ups: a change pokes the loops that may care. A lost poke costs latency, never correctness."""

from __future__ import annotations

import asyncio


class Bell:
    """One loop's bell. Rings between two waits are remembered as one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake the waiter, now or at its next wait."""
        self._event.set()

    async def wait(self, timeout_s: float | None) -> bool:
        """Wait for a ring, or for the time to pass. True when it rang."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
