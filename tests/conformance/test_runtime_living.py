"""The verbs of the runtime port beyond CRI, held against the fake and against containerd: see test_runtime."""

from __future__ import annotations

import asyncio
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from askos.adapters.containerd.runtime import ContainerdRuntime
from askos.model.errors import AskosError, ConflictError, NotFoundError
from askos.ports.runtime import Limits

from .subjects import QUICK_S, UNKNOWN, Subject, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["fake", "containerd"])
async def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    async with opened(request.param, tmp_path_factory.mktemp("logs")) as made:
        yield made


async def gone(subject: Subject, sandbox: str) -> None:
    await subject.runtime.stop_sandbox(sandbox)
    await subject.runtime.remove_sandbox(sandbox)


async def test_pausing_and_going_on(subject: Subject) -> None:
    capsule, sandbox, container = await subject.up("sleep", "infinity")
    await subject.runtime.pause(container)
    assert (await subject.see(capsule, container)).state == "paused"
    await subject.runtime.pause(container)
    assert (await subject.see(capsule, container)).state == "paused"
    await subject.runtime.unpause(container)
    assert (await subject.see(capsule, container)).state == "running"
    await subject.runtime.unpause(container)
    assert (await subject.see(capsule, container)).state == "running"
    assert (await subject.run(container, "echo", "back"))[1] == b"back\n"
    await gone(subject, sandbox)


async def test_what_is_paused_does_nothing(subject: Subject) -> None:
    if not subject.real:
        pytest.skip("the fake's programs are not frozen")
    # It tells when it does something: a line may be on its way for long.
    capsule, sandbox, container = await subject.awake("while :; do cat /proc/uptime; sleep 0.01; done")

    def told() -> list[float]:
        return [float(line.split()[1]) for line in subject.log(capsule)]

    await subject.runtime.pause(container)
    begin = _uptime()
    await asyncio.sleep(0.5)
    end = _uptime()
    await subject.runtime.unpause(container)
    async with asyncio.timeout(QUICK_S):
        while told()[-1] <= end:
            await asyncio.sleep(0.02)
    assert [at for at in told() if begin < at < end] == []
    await gone(subject, sandbox)


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


async def test_only_what_runs_can_be_paused(subject: Subject) -> None:
    capsule, sandbox, container = await subject.made("true")
    with pytest.raises(ConflictError):
        await subject.runtime.pause(container)
    await subject.runtime.start_container(container)
    await subject.ended(capsule, container)
    with pytest.raises(ConflictError):
        await subject.runtime.pause(container)
    await subject.runtime.unpause(container)
    await gone(subject, sandbox)


@pytest.mark.parametrize("how", ["stop", "kill", "remove", "sandbox"])
async def test_what_is_paused_can_be_ended(subject: Subject, how: str) -> None:
    capsule, sandbox, container = await subject.awake("echo ready; exec sleep infinity")
    await subject.runtime.pause(container)
    assert (await subject.see(capsule, container)).state == "paused"
    async with asyncio.timeout(QUICK_S):
        if how == "stop":
            await subject.runtime.stop_container(container, 1)
            assert (await subject.ended(capsule, container)).exit_code == 137
        elif how == "kill":
            await subject.runtime.stop_container(container, 0)
            assert (await subject.ended(capsule, container)).exit_code == 137
        elif how == "remove":
            await subject.runtime.remove_container(container)
            assert (await subject.runtime.observe(capsule))[1] == []
        else:
            await subject.runtime.stop_sandbox(sandbox)
            assert (await subject.ended(capsule, container)).exit_code == 137
    await gone(subject, sandbox)


async def test_a_new_connection_sees_what_is_paused(subject: Subject) -> None:
    if not isinstance(subject.runtime, ContainerdRuntime):
        pytest.skip("the fake has no connection")
    capsule, sandbox, container = await subject.up("sleep", "infinity")
    await subject.runtime.pause(container)
    again = ContainerdRuntime(
        subject.runtime.client.socket, subject.runtime.instance, log_root=subject.logs,
        state_root=subject.logs.parent / "again", snapshotter=subject.runtime.snapshotter,
    )  # fmt: skip
    try:
        _, containers = await again.observe(capsule)
        assert [c.state for c in containers] == ["paused"]
        await again.remove_sandbox(sandbox)
    finally:
        await again.close()
    assert (await subject.runtime.observe(capsule)) == ([], [])
    assert container not in [c.id for c in (await subject.runtime.observe())[1]]


async def test_what_a_container_may_use_is_seen(subject: Subject) -> None:
    capsule, sandbox, container = await subject.up("sleep", "infinity", cpu=0.5, memory_bytes=96 << 20)
    seen = await subject.see(capsule, container)
    assert (seen.cpu_shares, seen.memory_bytes, seen.cpus) == (512, 96 << 20, "")
    await subject.runtime.update_limits(container, Limits(1024, memory_bytes=128 << 20))
    seen = await subject.see(capsule, container)
    assert (seen.cpu_shares, seen.memory_bytes) == (1024, 128 << 20)
    await subject.runtime.stop_container(container, 0)
    assert (await subject.ended(capsule, container)).cpu_shares == 0
    await gone(subject, sandbox)


async def test_cores(subject: Subject) -> None:
    capsule, sandbox, container = await subject.up("sleep", "infinity", cpus="0")
    assert (await subject.see(capsule, container)).cpus == "0"
    everything = f"0-{(os.cpu_count() or 1) - 1}" if (os.cpu_count() or 1) > 1 else "0"
    if subject.real:
        assert (await subject.text(container, "grep", "Cpus_allowed_list", "/proc/self/status")).split()[1] == "0"
    await subject.runtime.set_cpus(container, everything)
    assert (await subject.see(capsule, container)).cpus == everything
    if subject.real:
        told = (await subject.text(container, "grep", "Cpus_allowed_list", "/proc/self/status")).split()[1]
        assert told == everything
    await gone(subject, sandbox)


async def test_pids(subject: Subject) -> None:
    _, sandbox, container = await subject.up("sh", "-c", "sleep 1000 & sleep 1000; true")

    async def names() -> list[str]:
        found = await subject.runtime.processes(container)
        # runc's own are gone again at once.
        return sorted(p.read_text().strip() for pid in found if (p := Path(f"/proc/{pid}/comm")).exists())

    if subject.real:
        async with asyncio.timeout(QUICK_S):
            while await names() != ["sh", "sleep", "sleep"]:
                await asyncio.sleep(0.02)
    await subject.runtime.stop_container(container, 0)
    assert await subject.runtime.processes(container) == []
    await gone(subject, sandbox)


async def test_the_containers_own_terminal_has_a_size(subject: Subject) -> None:
    capsule, sandbox, container = await subject.up("sh", interactive=True, tty=True)
    await subject.runtime.resize(container, 91, 33)
    session = await subject.runtime.attach(container, stdin=True, tty=True)
    try:
        await session.write(b"stty size\n")
        kept = b""
        async with asyncio.timeout(QUICK_S):
            async for _stream, data in session.output():
                kept += data
                if b"33 91" in kept:
                    break
    finally:
        await session.close()
    await subject.runtime.stop_container(container, 0)
    await subject.ended(capsule, container)
    with pytest.raises(ConflictError):
        await subject.runtime.resize(container, 80, 24)
    await gone(subject, sandbox)


async def test_without_a_terminal_there_is_nothing_to_resize(subject: Subject) -> None:
    _, sandbox, container = await subject.up("sleep", "infinity")
    await subject.runtime.resize(container, 91, 33)
    await gone(subject, sandbox)


async def test_files_of_a_running_container(subject: Subject) -> None:
    _, sandbox, container = await subject.up("sh", "-c", "echo in > /tmp/a; sleep infinity")
    async with asyncio.timeout(QUICK_S):
        while (await subject.run(container, "cat", "/tmp/a"))[1] != b"in\n":
            await asyncio.sleep(0.02)
    async with await subject.runtime.root(container) as root:
        assert (root / "tmp" / "a").read_text() == "in\n"
        (root / "tmp" / "b").write_text("out\n")
    assert await subject.text(container, "cat", "/tmp/b") == "out\n"
    await gone(subject, sandbox)


async def test_files_of_a_stopped_container_go_on_with_it(subject: Subject) -> None:
    config = subject.sandbox()
    capsule, sandbox, first = await subject.up("sh", "-c", "echo in > /tmp/a", within=config)
    await subject.ended(capsule, first)
    async with await subject.runtime.root(first) as root:
        assert (root / "tmp" / "a").read_text() == "in\n"
        (root / "tmp" / "b").write_text("put\n")
    second = await subject.runtime.create_container(
        sandbox, subject.container(capsule, "sleep", "infinity", run=2), config
    )
    await subject.runtime.carry_layer(first, second)
    await subject.runtime.start_container(second)
    assert await subject.text(second, "cat", "/tmp/a", "/tmp/b") == "in\nput\n"
    await gone(subject, sandbox)


async def test_files_of_nothing(subject: Subject) -> None:
    with pytest.raises(AskosError):
        async with await subject.runtime.root(UNKNOWN):
            pass


async def test_an_image_of_a_container(subject: Subject, tmp_path: Path) -> None:
    capsule, sandbox, container = await subject.up(
        "sh", "-c", "echo kept > /kept; sleep infinity", environment={"COLOUR": "red"}
    )
    async with asyncio.timeout(QUICK_S):
        while (await subject.run(container, "cat", "/kept"))[1] != b"kept\n":
            await asyncio.sleep(0.02)
    image = await subject.runtime.commit(container, "docker.io/library/made-here:1")
    assert image.tags == ["docker.io/library/made-here:1"]
    assert (await subject.see(capsule, container)).state == "running"
    assert image.command[-1] == "echo kept > /kept; sleep infinity"
    found = await subject.runtime.image("made-here:1")
    assert found is not None
    assert found.id == image.id
    # A container of it has the file, the variable and the command.
    other, second, copy = await subject.up(
        "sh", "-c", "echo $COLOUR; cat /kept", image_ref="docker.io/library/made-here:1"
    )
    await subject.ended(other, copy)
    lines = subject.log(other)
    assert "stdout kept" in lines
    if subject.real:
        assert "stdout red" in lines
    # As a file it is an image that can be loaded.
    path = tmp_path / "made.tar"
    await subject.runtime.export_image("made-here:1", str(path))
    if subject.real:
        with tarfile.open(path) as tar:
            assert {"oci-layout", "index.json"} <= set(tar.getnames())
    await gone(subject, second)
    await subject.runtime.remove_image("made-here:1")
    assert await subject.runtime.image("made-here:1") is None
    assert await subject.runtime.import_image(str(path)) == ["docker.io/library/made-here:1"]
    loaded = await subject.runtime.image("made-here:1")
    assert loaded is not None
    if subject.real:
        assert loaded.id == image.id
    await subject.runtime.remove_image("made-here:1")
    await gone(subject, sandbox)


async def test_an_image_of_a_container_that_has_ended_or_is_paused(subject: Subject) -> None:
    capsule, sandbox, container = await subject.up("sleep", "infinity")
    await subject.runtime.pause(container)
    await subject.runtime.commit(container, "docker.io/library/made-here:2")
    assert (await subject.see(capsule, container)).state == "paused"
    await subject.runtime.stop_container(container, 0)
    await subject.ended(capsule, container)
    image = await subject.runtime.commit(container, "docker.io/library/made-here:2")
    assert image.tags == ["docker.io/library/made-here:2"]
    await subject.runtime.remove_image("made-here:2")
    await gone(subject, sandbox)
    with pytest.raises(AskosError):
        await subject.runtime.commit(container, "docker.io/library/made-here:3")


async def test_an_image_that_is_not_there_is_not_written(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        await subject.runtime.export_image("not-here:1", str(tmp_path / "x.tar"))
    assert list(tmp_path.iterdir()) == []


async def test_events_tell_of_pauses(subject: Subject) -> None:
    _, sandbox, container = await subject.up("sleep", "infinity")
    async with subject.listening() as seen:
        await subject.runtime.pause(container)
        await subject.runtime.unpause(container)
        async with asyncio.timeout(QUICK_S):
            # Its start may be told of only now.
            while [e.kind for e in seen if e.container_id == container and e.kind != "start"] != ["paused", "resumed"]:
                await asyncio.sleep(0.02)
    await gone(subject, sandbox)
