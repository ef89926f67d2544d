"""Programs beside a container's own, in a real containerd: streams, terminals, and their ends."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path

import pytest

from askos.adapters.containerd import execs
from askos.model.errors import (
    ConflictError,
)
from askos.ports.runtime import ExecRequest

from .containerd_fixtures import Bench, bench, run_in

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
__all__ = ["bench"]  # fixtures


async def test_exec_exit_codes_and_streams(bench: Bench) -> None:
    _, _, container = await bench.up("sleep", "1000")
    assert await run_in(bench, container, "sh", "-c", "echo a; echo b >&2; exit 42") == (42, b"a\n", b"b\n")
    assert (await run_in(bench, container, "sh", "-c", "kill -9 $$"))[0] == 137
    assert (await run_in(bench, container, "true"))[0] == 0
    assert list(bench.runtime.exec_root.iterdir()) == []
    assert bench.runtime.live_execs == set()


async def test_exec_half_close(bench: Bench) -> None:
    _, _, container = await bench.up("sleep", "1000")
    session = await bench.runtime.exec(container, ExecRequest(["wc", "-c"], stdin=True))
    for _ in range(40):
        await session.write(b"x" * 10_000)
    await session.close_stdin()
    out = b"".join([data async for _, data in session.output()])
    assert out.strip() == b"400000"
    assert await session.wait() == 0
    await session.write(b"into the void")
    await session.close()


async def test_exec_terminal(bench: Bench) -> None:
    _, _, container = await bench.up("sleep", "1000")
    request = ExecRequest(["sh"], tty=True, stdin=True, width=101, height=33)
    session = await bench.runtime.exec(container, request)
    seen = b""
    output = session.output()

    async def until(words: bytes) -> None:
        nonlocal seen
        async with asyncio.timeout(60):
            while words not in seen:
                stream, data = await anext(output)
                assert stream == "stdout"
                seen += data

    await session.write(b"stty size; echo $TERM.\n")
    await until(b"33 101")
    await until(b"xterm.")
    await session.resize(80, 24)
    await session.write(b"stty size\n")
    await until(b"24 80")
    await session.write(b"exit 4\n")
    assert await asyncio.wait_for(session.wait(), 60) == 4
    async with asyncio.timeout(60):
        async for _ in output:
            pass
    await session.close()


async def test_exec_carries_a_hundred_megabytes_unharmed(bench: Bench) -> None:
    _, _, container = await bench.up("sleep", "1000")
    size = 100 << 20
    command = f"head -c {size} /dev/zero | tee /proc/self/fd/2 2>/dev/null | cat"
    session = await bench.runtime.exec(container, ExecRequest(["sh", "-c", command]))
    digest, count, memory = hashlib.sha256(), 0, _memory()
    async for stream, data in session.output():
        if stream == "stdout":
            digest.update(data)
            count += len(data)
        if count < 1 << 20:
            await asyncio.sleep(0.01)  # a slow reader: the rest has to wait in the process
    assert count == size
    assert digest.hexdigest() == hashlib.sha256(bytes(size)).hexdigest()
    assert await session.wait() == 0
    await session.close()
    assert _memory() - memory < 60 << 20


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_exec_echoes_megabytes_both_ways(bench: Bench) -> None:
    _, _, container = await bench.up("sleep", "1000")
    session = await bench.runtime.exec(container, ExecRequest(["cat"], stdin=True))
    block = random.randbytes(1 << 16)

    async def send() -> None:
        for _ in range(160):
            await session.write(block)
        await session.close_stdin()

    sender = asyncio.create_task(send())
    digest = hashlib.sha256()
    async for _, data in session.output():
        digest.update(data)
    await sender
    assert digest.hexdigest() == hashlib.sha256(block * 160).hexdigest()
    await session.close()


async def test_closing_kills_and_a_lingering_child_holds_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that nothing but what is tested ends the waiting, on a machine however busy.
    for patience in ("_KILLED_S", "_CALL_S"):
        monkeypatch.setattr(execs, patience, 500)
    _, _, container = await bench.up("sleep", "1000")
    session = await bench.runtime.exec(container, ExecRequest(["sleep", "500"]))
    async with asyncio.timeout(60):
        await session.close()
    assert b"sleep 500" not in (await run_in(bench, container, "ps"))[1]
    async with asyncio.timeout(60):
        assert await run_in(bench, container, "sh", "-c", "sleep 500 & echo done") == (0, b"done\n", b"")
    # Nobody reads the output, and the process is full of it.
    session = await bench.runtime.exec(container, ExecRequest(["yes"]))
    await asyncio.sleep(0.3)
    async with asyncio.timeout(60):
        await session.close()


async def test_no_exec_where_nothing_runs(bench: Bench) -> None:
    capsule, _, container = await bench.up("true")
    await bench.ended(capsule)
    with pytest.raises(ConflictError):
        await bench.runtime.exec(container, ExecRequest(["true"]))
    with pytest.raises(ConflictError):
        await bench.runtime.exec("0" * 64, ExecRequest(["true"]))
