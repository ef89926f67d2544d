"""Keeping the process small, where the C library is glibc; elsewhere nothing is done."""

from __future__ import annotations

import asyncio
import ctypes
import gc

_M_ARENA_MAX = -8
_ARENAS = 2
SETTLED_S = 3.0
"""When a start is over with all that follows it."""
EVERY_S = 300.0


def few_arenas() -> None:
    """Let all threads share two heaps: each thread that ever allocates would get one of its own, and keep what was
    once its most. Call it before there are threads."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


async def stay_small() -> None:
    """Return free memory to the kernel soon after the start, which needs much more than what follows, and now and
    then; until cancelled."""
    # What is here now stays for good: no collection of garbage has to look at it again.
    gc.collect()
    gc.freeze()
    delay_s = SETTLED_S
    while True:
        await asyncio.sleep(delay_s)
        give_back()
        delay_s = EVERY_S


def give_back() -> None:
    """Return free memory to the kernel; takes a few milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
