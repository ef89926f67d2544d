"""What keeps the process small."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import asyncio, gc, threading, ctypes
from askos.programs import spare
def heaps():
    # Heaps of threads are 64 MiB of address space each, most of it not accessible.
    lines = open("/proc/self/maps").read().splitlines()
    sizes = [int(b, 16) - int(a, 16) for a, b in (line.split()[0].split("-") for line in lines if "---p" in line)]
    return sum(1 for size in sizes if 32 << 20 <= size <= 64 << 20)
if {few}:
    spare.few_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
gate = threading.Barrier(9)
def allocate():
    libc.malloc(5000)
    gate.wait()
    gate.wait()
for _ in range(8):
    threading.Thread(target=allocate, daemon=True).start()
gate.wait()
print(heaps())
gate.wait()
spare.SETTLED_S = 0.01
def rss():
    return int(open("/proc/self/statm").read().split()[1])
kept = [libc.malloc(3000) for _ in range(20000)]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
for block in kept:
    libc.memset(block, 1, 3000)
for block in kept[:-1]:
    libc.free(block)  # the last one holds the end of the heap
before = rss()
async def run():
    task = asyncio.create_task(spare.stay_small())
    async with asyncio.timeout(20):
        while before - rss() < 10000:  # pages
            await asyncio.sleep(0.01)
    task.cancel()
asyncio.run(run())
print(gc.get_freeze_count() > 0)
"""


def _run(*, few: bool) -> tuple[int, bool]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(few=few)], check=True, capture_output=True, timeout=60, text=True
    )
    heaps, frozen = done.stdout.split()
    return int(heaps), frozen == "True"


def test_threads_share_heaps_and_what_is_free_is_given_back() -> None:
    heaps, frozen = _run(few=True)
    assert heaps <= 1, "the main heap and one more"
    assert frozen
    assert _run(few=False)[0] > 1, "this test can tell"
