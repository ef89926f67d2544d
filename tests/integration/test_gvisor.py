"""gVisor as an OCI runtime, on a real containerd: each container of a sandbox lives and ends by itself."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import pytest_asyncio

from askos.adapters.containerd import cgroups, processes
from askos.ports.runtime import Container, ExecRequest, RuntimeEvent, SandboxConfig

from .containerd_fixtures import Bench, close_bench, open_bench

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

_T = TypeVar("_T")
_DEADLINE_S = 40.0


async def soon(doing: Awaitable[_T], timeout_s: float = _DEADLINE_S) -> _T:
    """A broken runtime makes calls hang: nothing here waits longer than this."""
    return await asyncio.wait_for(doing, timeout_s)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[Bench]:
    if shutil.which("runsc") is None:
        pytest.skip("needs gVisor's runsc")
    bench = await open_bench()
    try:
        yield bench
    finally:
        await close_bench(bench)


class Capsule:
    """A sandbox of gVisor's, and short ways to use it."""

    def __init__(self, bench: Bench, config: SandboxConfig, sandbox_id: str) -> None:
        self.bench = bench
        self.config = config
        self.sandbox_id = sandbox_id
        self.uuid = config.capsule_uuid

    async def start(self, name: str, *argv: str, **more: object) -> str:
        config = self.bench.container(self.uuid, *argv, name=name, log_name=f"{name}/0.log", **more)
        made = await soon(self.bench.runtime.create_container(self.sandbox_id, config, self.config))
        await soon(self.bench.runtime.start_container(made))
        return made

    async def seen(self, name: str) -> Container:
        _, containers = await soon(self.bench.runtime.observe(self.uuid))
        return next(c for c in containers if c.name == name)

    async def ended(self, name: str) -> Container:
        async with asyncio.timeout(_DEADLINE_S):
            while (found := await self.seen(name)).state != "exited":
                await asyncio.sleep(0.05)
        return found

    async def exec(self, container: str, *argv: str, stdin: bytes | None = None) -> tuple[int, bytes, bytes]:
        request = ExecRequest(list(argv), stdin=stdin is not None)
        session = await soon(self.bench.runtime.exec(container, request))
        out = {"stdout": b"", "stderr": b""}

        async def whole() -> int:
            if stdin is not None:
                await session.write(stdin)
                await session.close_stdin()
            async for stream, data in session.output():
                out[stream] += data
            return await session.wait()

        try:
            return await soon(whole()), out["stdout"], out["stderr"]
        finally:
            await soon(session.close())

    def log(self, name: str) -> str:
        return (self.bench.logs / self.uuid / name / "0.log").read_text()


@pytest_asyncio.fixture(loop_scope="module")
async def capsule(bench: Bench) -> AsyncIterator[Capsule]:
    config = msgspec.structs.replace(bench.sandbox(), handler="runsc")
    config = msgspec.structs.replace(
        config, cgroup_parent=f"{cgroups.parent_of(bench.instance)}/{config.capsule_uuid}"
    )
    sandbox_id = await soon(bench.runtime.run_sandbox(config))
    try:
        yield Capsule(bench, config, sandbox_id)
    finally:
        await soon(bench.runtime.stop_sandbox(sandbox_id))
        await soon(bench.runtime.remove_sandbox(sandbox_id))
    await nothing_left(bench)


async def nothing_left(bench: Bench) -> None:
    """No process, mount, record or control group of gVisor's."""
    root = bench.containerd.state / "runsc" / "k8s.io"

    def left() -> list[str]:
        found = [f"process {p.pid}: {processes.command_line(p.pid)}" for p in running(bench)]
        found += [f"record {path.name}" for path in root.iterdir()] if root.is_dir() else []
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [line for line in mounts if f"{bench.containerd.state}/io.containerd.runtime" in line]
        for folder in cgroups.roots(bench.instance):
            found += [f"group {path}" for path in folder.rglob("*") if path.is_dir() and len(path.name) == 64]
        return found

    async with asyncio.timeout(10):
        while left():
            await asyncio.sleep(0.1)
    listed = await asyncio.to_thread(
        subprocess.run, ["runsc", "--root", str(root), "list", "--quiet"], capture_output=True, timeout=20, check=True
    )
    assert listed.stdout.strip() == b""


def running(bench: Bench) -> list[processes.Process]:
    """gVisor's processes of this cloud, and the stand-ins."""
    found = processes.with_arguments("--root", str(bench.containerd.state / "runsc" / "k8s.io"))
    return found + processes.with_arguments(f"--root={bench.containerd.state / 'runsc' / 'k8s.io'}")


async def test_it_is_offered(bench: Bench) -> None:
    assert bench.containerd.handlers == ["runc", "runsc"]


async def test_two_containers_live_and_end_each_by_itself(bench: Bench, capsule: Capsule) -> None:
    events: asyncio.Queue[RuntimeEvent] = asyncio.Queue()

    async def listen() -> None:
        async for event in bench.runtime.events():
            events.put_nowait(event)

    listener = asyncio.create_task(listen())
    try:
        await asyncio.sleep(0.2)
        short = await capsule.start("short", "sh", "-c", "echo out; echo err >&2; cat /proc/version; sleep 1; exit 3")
        long = await capsule.start("long", "sh", "-c", "trap 'echo bye; exit 5' TERM; while :; do sleep 0.1; done")
        assert (await capsule.seen("long")).state == "running"

        ended = await capsule.ended("short")
        assert (ended.id, ended.exit_code, ended.reason) == (short, 3, "Error")
        assert ended.started_us is not None
        assert ended.finished_us is not None
        assert ended.finished_us - ended.started_us > 900_000
        async with asyncio.timeout(10):
            while (event := await events.get()) != RuntimeEvent("exit", short):
                assert event.container_id != long or event.kind == "start"
        log = capsule.log("short")
        assert "stdout F out" in log
        assert "stderr F err" in log
        assert "Linux version 4.4.0" in log, "the kernel inside is gVisor's"

        # The other one has not noticed.
        assert (await capsule.seen("long")).state == "running"
        assert (await capsule.exec(long, "sh", "-c", "echo in; echo on >&2; exit 7")) == (7, b"in\n", b"on\n")
        await soon(bench.runtime.stop_container(long, 10))
        stopped = await capsule.ended("long")
        assert stopped.exit_code == 5
        assert "bye" in capsule.log("long")
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
    # Each can be removed while the sandbox lives on, and another one be started.
    await soon(bench.runtime.remove_container(short))
    await soon(bench.runtime.remove_container(long))
    await capsule.start("again", "true")
    assert (await capsule.ended("again")).exit_code == 0


async def test_signals_and_kills(bench: Bench, capsule: Capsule) -> None:
    told = await capsule.start("told", "sh", "-c", "trap 'exit 10' USR1; while :; do sleep 0.1; done")
    deaf = await capsule.start("deaf", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    await soon(bench.runtime.signal(told, 10))
    assert (await capsule.ended("told")).exit_code == 10
    await soon(bench.runtime.stop_container(deaf, 1))
    assert (await capsule.ended("deaf")).exit_code == 137


async def test_streams_into_and_out_of_exec(capsule: Capsule) -> None:
    container = await capsule.start("main", "sleep", "1000")
    code, out, err = await capsule.exec(container, "dmesg")
    assert (code, err) == (0, b"")
    assert b"gVisor" in out
    data = b"0123456789abcdef" * 20_000
    assert await capsule.exec(container, "cat", stdin=data) == (0, data, b"")


async def test_closing_an_exec_ends_it(bench: Bench, capsule: Capsule) -> None:
    container = await capsule.start("main", "sleep", "1000")
    session = await soon(bench.runtime.exec(container, ExecRequest(["sleep", "777"])))
    assert b"sleep 777" in (await capsule.exec(container, "ps"))[1]
    await soon(session.close())
    async with asyncio.timeout(10):
        while b"sleep 777" in (await capsule.exec(container, "ps"))[1]:
            await asyncio.sleep(0.1)


async def test_a_terminal(bench: Bench, capsule: Capsule) -> None:
    container = await capsule.start("main", "sh", "-c", "test -t 0 && echo terminal; sleep 1000", tty=True)
    request = ExecRequest(["sh", "-c", "read x; stty size; exit $x"], tty=True, stdin=True, width=91)
    session = await soon(bench.runtime.exec(container, request))
    seen = b""
    try:
        await session.write(b"4\n")
        async with asyncio.timeout(_DEADLINE_S):
            async for _, data in session.output():
                seen += data
            assert await session.wait() == 4
    finally:
        await soon(session.close())
    assert b"24 91" in seen
    assert "terminal" in capsule.log("main")


async def test_a_program_that_is_not_there(capsule: Capsule) -> None:
    with pytest.raises(Exception, match="nowhere"):
        await capsule.start("main", "/nowhere")


async def test_removing_a_sandbox_ends_what_runs_in_it(capsule: Capsule) -> None:
    await capsule.start("one", "sleep", "1000")
    await capsule.start("two", "sleep", "1000")
    # The fixture removes the sandbox, and sees that nothing is left.


async def test_a_sandbox_that_dies_takes_its_containers_along(bench: Bench, capsule: Capsule) -> None:
    await capsule.start("main", "sleep", "1000")
    sentries = [p for p in running(bench) if processes.command_line(p.pid)[:1] == ["runsc-sandbox"]]
    assert len(sentries) == 1
    processes.send(sentries[0], 9)
    assert (await capsule.ended("main")).exit_code == 137
    async with asyncio.timeout(_DEADLINE_S):
        while (await soon(bench.runtime.observe(capsule.uuid)))[0][0].ready:
            await asyncio.sleep(0.1)


async def test_stopping_containerd_leaves_nothing(bench: Bench) -> None:
    other = await open_bench()
    try:
        config = msgspec.structs.replace(other.sandbox(), handler="runsc")
        sandbox_id = await soon(other.runtime.run_sandbox(config))
        await Capsule(other, config, sandbox_id).start("main", "sleep", "1000")
        assert running(other) != []
    finally:
        await other.runtime.close()
        await soon(other.containerd.stop())
    assert running(other) == []
    await nothing_left(other)
    shutil.rmtree(other.data, ignore_errors=True)
