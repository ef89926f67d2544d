"""What keeps the process small."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys

import pytest

from askos.programs import spare

_PROGRAM = """
import asyncio, gc, threading, ctypes
from askos.programs import spare
def heaps():
    # Heaps of threads are 64 MiB of address space each, most of it not accessible.
    lines = open("/proc/self/maps").read().splitlines()
    sizes = [int(b, 16) - int(a, 16) for a, b in (line.split()[0].split("-") for line in lines if "---p" in line)]
    return sum(1 for size in sizes if 32 << 20 <= size <= 64 << 20)
if {one}:
    spare.one_heap()
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
spare.LOOK_S, spare.QUIET = 0.01, 10
def rss():
    return int(open("/proc/self/statm").read().split()[1])
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def work():
    kept = [libc.malloc(3000) for _ in range(20000)]
    for block in kept:
        libc.memset(block, 1, 3000)
    for block in kept[:-1]:
        libc.free(block)  # the last one holds the end of the heap
async def run():
    task = None
    for _ in range(3):
        work()
        before = rss()
        task = task or asyncio.create_task(spare.stay_small())
        async with asyncio.timeout(20):
            while before - rss() < 10000:  # pages
                await asyncio.sleep(0.01)
    task.cancel()
asyncio.run(run())
print(gc.get_freeze_count() > 0)
"""


def _run(*, one: bool) -> tuple[int, bool]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(one=one)], check=True, capture_output=True, timeout=60, text=True
    )
    heaps, frozen = done.stdout.split()
    return int(heaps), frozen == "True"


def test_threads_share_a_heap_and_what_is_free_is_given_back() -> None:
    heaps, frozen = _run(one=True)
    assert heaps == 0, "beside the main one"
    assert frozen
    assert _run(one=False)[0] > 1, "this test can tell"


@pytest.mark.parametrize(("freed", "quiet"), [(1 << 20, 10), (1 << 30, -1)], ids=["too little", "work that goes on"])
async def test_nothing_is_given_back_without_reason(monkeypatch: pytest.MonkeyPatch, freed: int, quiet: float) -> None:
    given_back: list[bool] = []
    looks: list[bool] = []

    def unused_bytes() -> int:
        looks.append(True)
        return freed * (len(looks) > 1)

    async def sleep(_seconds: float) -> None:
        looks.append(False)
        await pause(0)

    pause = asyncio.sleep
    monkeypatch.setattr(spare, "QUIET", quiet)
    monkeypatch.setattr(spare, "unused_bytes", unused_bytes)
    monkeypatch.setattr(spare, "give_back", lambda: given_back.append(True))
    monkeypatch.setattr(spare.asyncio, "sleep", sleep)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    task = asyncio.create_task(spare.stay_small())
    async with asyncio.timeout(20):
        while len(looks) < 50:
            await pause(0)
    task.cancel()
    assert len(given_back) == 1
