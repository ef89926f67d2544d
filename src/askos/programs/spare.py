"""Keeping the process small, where the C library is glibc; elsewhere nothing is done."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time

_M_ARENA_MAX = -8
LOOK_S = 3.0
"""How often it is looked whether work is over; the first time when a start is, with all that follows it."""
WORKED_S = 0.3
"""CPU time after which there may be something to give back."""
QUIET = 0.1
"""The share of a core under which the program counts as having nothing to do."""
AT_LEAST_EVERY_S = 300.0
"""How often memory is given back where there is always something to do."""


def one_heap() -> None:
    """Let all threads share one heap: each thread that ever allocates would get one of its own, and keep what was once
    its most. Few of ours allocate at the same time. Call it before there are threads."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


async def stay_small() -> None:
    """Return free memory to the kernel whenever work is over: a start, or many containers at a time, need much more
    than what follows; until cancelled."""
    # What is here now stays for good: no collection of garbage has to look at it again.
    gc.collect()
    gc.freeze()
    await asyncio.sleep(LOOK_S)
    while True:
        give_back()
        given_back_s, cpu_s = time.monotonic(), time.process_time()
        while not await _is_over(cpu_s) and time.monotonic() - given_back_s < AT_LEAST_EVERY_S:
            pass


async def _is_over(since_cpu_s: float) -> bool:
    """Look for a while: whether there was work, and is none any more."""
    before_s, before_cpu_s = time.monotonic(), time.process_time()
    await asyncio.sleep(LOOK_S)
    now_s, now_cpu_s = time.monotonic(), time.process_time()
    return now_cpu_s - since_cpu_s > WORKED_S and now_cpu_s - before_cpu_s < QUIET * (now_s - before_s)


def give_back() -> None:
    """Return free memory to the kernel; takes a few milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
