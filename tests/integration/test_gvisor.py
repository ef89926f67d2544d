"""gVisor as an OCI runtime, on a real containerd: each container of a sandbox lives and ends by itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import pytest_asyncio

from askos.adapters.containerd import cgroups, processes, teardown
from askos.adapters.containerd.sweep import sweep
from askos.model.errors import RuntimeFailedError
from askos.ports.runtime import Container, ExecRequest, Limits, Mount, RuntimeEvent, SandboxConfig

from .containerd_fixtures import Bench, close_bench, open_bench

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

_T = TypeVar("_T")
_DEADLINE_S = 60.0


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

    async def said(self, name: str, words: str) -> None:
        """Wait until a container has written these words, so that its program surely runs."""
        async with asyncio.timeout(_DEADLINE_S):
            while not (self.bench.logs / self.uuid / name / "0.log").exists() or words not in self.log(name):
                await asyncio.sleep(0.02)

    def log(self, name: str) -> str:
        return (self.bench.logs / self.uuid / name / "0.log").read_text()


@pytest_asyncio.fixture(loop_scope="module")
async def capsule(bench: Bench) -> AsyncIterator[Capsule]:
    config = msgspec.structs.replace(bench.sandbox(), handler="runsc")
    config = msgspec.structs.replace(config, cgroup_parent=cgroups.parent_of(bench.instance, config.capsule_uuid))
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
            # `os.walk` does not mind what vanishes as it looks.
            found += [f"group {at}/{name}" for at, names, _ in os.walk(folder) for name in names if len(name) == 64]
        return found

    async with asyncio.timeout(_DEADLINE_S):
        while left():
            await asyncio.sleep(0.1)
    listed = await asyncio.to_thread(
        subprocess.run, ["runsc", "--root", str(root), "list", "--quiet"], capture_output=True, timeout=60, check=True
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
        script = "echo out; echo err >&2; cat /proc/version; until test -e /end; do sleep 0.1; done; exit 3"
        short = await capsule.start("short", "sh", "-c", script)
        script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
        long = await capsule.start("long", "sh", "-c", script)
        assert (await capsule.seen("long")).state == "running"
        await capsule.said("long", "ready")
        # Its end is its own, and a second after its begin at least.
        await asyncio.sleep(1)
        assert (await capsule.exec(short, "touch", "/end"))[0] == 0

        ended = await capsule.ended("short")
        assert (ended.id, ended.exit_code, ended.reason) == (short, 3, "Error")
        assert ended.started_us is not None
        assert ended.finished_us is not None
        assert ended.finished_us - ended.started_us > 900_000
        async with asyncio.timeout(_DEADLINE_S):
            while (event := await events.get()) != RuntimeEvent("exit", short):
                assert event.container_id != long or event.kind == "start"
        log = capsule.log("short")
        assert "stdout F out" in log
        assert "stderr F err" in log
        assert "Linux version 4.4.0" in log, "the kernel inside is gVisor's"

        # The other one has not noticed.
        assert (await capsule.seen("long")).state == "running"
        assert (await capsule.exec(long, "sh", "-c", "echo in; echo on >&2; exit 7")) == (7, b"in\n", b"on\n")
        await soon(bench.runtime.stop_container(long, 50))
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
    told = await capsule.start("told", "sh", "-c", "trap 'exit 10' USR1; echo ready; while :; do sleep 0.1; done")
    deaf = await capsule.start("deaf", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    for name in ("told", "deaf"):
        await capsule.said(name, "ready")
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


async def test_mounts_are_the_hosts_files_as_they_change(capsule: Capsule, tmp_path: Path) -> None:
    folder, single = tmp_path / "folder", tmp_path / "single"
    folder.mkdir()
    (folder / "v1").write_text("one\n")
    (folder / "now").symlink_to("v1")
    single.touch()
    mounts = [
        Mount(str(folder), "/data", read_only=True),
        Mount(str(single), "/dev/termination-log"),
    ]
    container = await capsule.start("main", "sh", "-c", "echo why >/dev/termination-log; sleep 1000", mounts=mounts)
    assert await capsule.exec(container, "cat", "/data/now") == (0, b"one\n", b"")
    # As files of a config map are swapped.
    (folder / "v2").write_text("two\n")
    (folder / "new").symlink_to("v2")
    (folder / "new").rename(folder / "now")
    assert await capsule.exec(container, "cat", "/data/now") == (0, b"two\n", b"")
    assert (await capsule.exec(container, "touch", "/data/x"))[0] != 0
    assert single.read_text() == "why\n"


async def test_closing_an_exec_ends_it(bench: Bench, capsule: Capsule) -> None:
    container = await capsule.start("main", "sleep", "1000")
    session = await soon(bench.runtime.exec(container, ExecRequest(["sleep", "777"])))
    assert b"sleep 777" in (await capsule.exec(container, "ps"))[1]
    await soon(session.close())
    async with asyncio.timeout(_DEADLINE_S):
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


async def test_a_program_that_is_not_there(bench: Bench, capsule: Capsule) -> None:
    with pytest.raises(RuntimeFailedError, match='cannot start "/nowhere": no such file in the image') as caught:
        await capsule.start("main", "/nowhere")
    assert not caught.value.retryable
    container = await capsule.start("other", "sleep", "1000")
    with pytest.raises(RuntimeFailedError, match='cannot start "nowhere": no such file in the image'):
        await soon(bench.runtime.exec(container, ExecRequest(["nowhere"])))


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


async def test_memory_is_limited_for_the_whole_capsule(bench: Bench) -> None:
    config = msgspec.structs.replace(bench.sandbox(), handler="runsc")
    await soon(bench.runtime.prepare_group(config.capsule_uuid, 500, Limits(memory_bytes=128 << 20)))
    config = msgspec.structs.replace(config, cgroup_parent=cgroups.parent_of(bench.instance, config.capsule_uuid))
    sandbox_id = await soon(bench.runtime.run_sandbox(config))
    capsule = Capsule(bench, config, sandbox_id)
    try:
        await capsule.start("main", "tail", "/dev/zero")
        ended = await capsule.ended("main")
        assert (ended.exit_code, ended.oom_killed) == (137, True)
    finally:
        await soon(bench.runtime.stop_sandbox(sandbox_id))
        await soon(bench.runtime.remove_sandbox(sandbox_id))
        await soon(bench.runtime.discard_group(config.capsule_uuid))
    await nothing_left(bench)


async def test_the_network_is_the_sandboxes_own(bench: Bench, capsule: Capsule) -> None:
    (netns,) = (bench.containerd.state / "io.containerd.grpc.v1.cri" / "netns").iterdir()
    inside = ["nsenter", f"--net={netns}"]

    def run(*argv: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(argv, capture_output=True, timeout=60, check=False)

    assert (await asyncio.to_thread(run, *inside, "ip", "link", "set", "lo", "up")).returncode == 0
    await capsule.start("main", "sh", "-c", "echo seen > /tmp/page && httpd -f -p 17017 -h /tmp")
    fetch = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:17017/page"]
    async with asyncio.timeout(_DEADLINE_S):
        while (await asyncio.to_thread(run, *inside, *fetch)).stdout != b"seen\n":
            await asyncio.sleep(0.1)
    assert (await asyncio.to_thread(run, *fetch)).returncode != 0, "it listens in the host's own network"


async def test_containerd_is_restarted_and_containers_live_on(bench: Bench, capsule: Capsule) -> None:
    container = await capsule.start("main", "sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.1; done")
    await capsule.said("main", "ready")
    assert bench.containerd.pid is not None
    restarts = bench.containerd.restarts
    killed = processes.identify(bench.containerd.pid)
    assert killed is not None
    processes.send(killed, 9)
    async with asyncio.timeout(_DEADLINE_S):
        while bench.containerd.restarts == restarts:
            await asyncio.sleep(0.1)
    assert (await capsule.seen("main")).state == "running"
    assert await capsule.exec(container, "true") == (0, b"", b"")
    await soon(bench.runtime.stop_container(container, 50))
    assert (await capsule.ended("main")).exit_code == 6


async def test_a_shim_that_dies_leaves_nothing_behind(bench: Bench, capsule: Capsule) -> None:
    await capsule.start("main", "sleep", "1000")
    shim = teardown.shims(bench.containerd.socket)[capsule.sandbox_id]
    processes.send(shim, 9)
    assert (await capsule.ended("main")).state == "exited"
    await soon(bench.runtime.stop_sandbox(capsule.sandbox_id))
    await soon(bench.runtime.remove_sandbox(capsule.sandbox_id))
    # containerd cleans up after it; what it leaves (an empty control group) a sweep finds.
    c = bench.containerd
    await soon(sweep(bench.runtime, c.root, c.state, c.socket))


async def test_a_sweep_removes_records_of_containers_that_are_gone(bench: Bench, capsule: Capsule) -> None:
    await capsule.start("main", "sleep", "1000")
    root = bench.containerd.state / "runsc" / "k8s.io"
    mine = {path.name for path in root.iterdir()}
    for end in ("lock", "state"):
        (root / f"{'0' * 64}_sandbox:{'0' * 64}.{end}").touch()
    c = bench.containerd
    removed = await soon(sweep(bench.runtime, c.root, c.state, c.socket))
    assert sorted(removed) == [f"runsc record {'0' * 64}_sandbox:{'0' * 64}.{end}" for end in ("lock", "state")]
    assert {path.name for path in root.iterdir()} == mine
    assert (await capsule.seen("main")).state == "running"


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
