"""Keeping the process small, where the C library is glibc; elsewhere nothing is done."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
import time
from pathlib import Path
from typing import ClassVar

_M_ARENA_MAX = -8
LOOK_S = 3.0
"""How often it is looked whether work is over; the first time when a start is, with all that follows it."""
WORTH = 4 << 20
"""Bytes that must have been freed since memory was given back last: what is given back comes again page by page, which
every container that starts later would wait for."""
QUIET = 0.1
"""The share of a core under which the program counts as having nothing to do."""
AT_LEAST_EVERY_S = 300.0
"""How often memory is given back where there is always something to do."""


class _Heap(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks")
    ] + [("keepcost", ctypes.c_size_t)]


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
        given_back_s, kept = time.monotonic(), unused_bytes()
        while time.monotonic() - given_back_s < AT_LEAST_EVERY_S:
            quiet = await _is_quiet()
            if quiet and unused_bytes() - kept >= WORTH:
                break


async def _is_quiet() -> bool:
    """Look for a while: whether there is nothing to do."""
    before_s, before_cpu_s = time.monotonic(), time.process_time()
    await asyncio.sleep(LOOK_S)
    return time.process_time() - before_cpu_s < QUIET * (time.monotonic() - before_s)


def unused_bytes() -> int:
    """What the process has of memory beside what it got from the C library: more of it than before is memory that was
    freed, and is not given back. 0 where nothing tells."""
    look = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if look is None:
        return 0
    look.restype = _Heap
    heap = look()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resident - int(heap.uordblks + heap.hblkhd)


def give_back() -> None:
    """Return free memory to the kernel; takes a few milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
