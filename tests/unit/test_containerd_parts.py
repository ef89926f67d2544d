"""The small parts of the containerd adapter that need no containerd."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest

from askos.adapters.containerd import layers, mounts, processes
from askos.adapters.containerd.config import Settings, render
from askos.adapters.containerd.fifo import Reader, Writer
from askos.adapters.containerd.packing import pause_elf


def test_the_configuration_is_toml_whatever_the_path(tmp_path: Path) -> None:
    odd = tmp_path / 'a "b" \\c é'
    settings = Settings(
        root=odd, state=odd / "s", socket=odd / "c.sock", certs=odd, cni_bin_dir=odd, cni_conf_dir=odd,
        snapshotter="native", restrict_oom_score=True, disable_apparmor=True, enable_selinux=False,
    )  # fmt: skip
    read = tomllib.loads(render(settings))
    assert read["root"] == str(odd)
    assert read["grpc"]["address"] == str(odd / "c.sock")
    cri = read["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["netns_mounts_under_state_dir"] is True
    assert cri["stream_idle_timeout"] == "0s"
    assert cri["containerd"]["snapshotter"] == "native"
    assert cri["containerd"]["runtimes"]["runc"]["options"]["Root"] == str(odd / "s" / "runc")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is written for x86-64")
def test_the_pause_program_waits_and_reaps(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(pause_elf() or b"")
    program.chmod(0o755)
    # A child that was there before the program began, and one that ends later.
    script = f"sleep 0.2 & sleep 0.6 & exec {program}"
    paused = subprocess.Popen(["sh", "-c", script])
    try:
        time.sleep(0.1)
        assert len(_children(paused.pid)) == 2
        deadline = time.monotonic() + 5
        while _children(paused.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _children(paused.pid) == []
        assert paused.poll() is None
        before = _cpu(paused.pid)
        time.sleep(0.2)
        assert _cpu(paused.pid) == before
    finally:
        paused.kill()
        assert paused.wait(5) == -signal.SIGKILL


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _cpu(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for trusted attributes")
def test_layers_change_hands_once_whatever_crashes(tmp_path: Path) -> None:
    old, new = tmp_path / "1" / "fs", tmp_path / "2" / "fs"
    for folder in (old, new):
        folder.mkdir(parents=True)
    (old / "data").write_text("precious")
    os.setxattr(old, "trusted.overlay.opaque", b"y")
    # A crash after the mark and before the exchange.
    os.setxattr(old, "trusted.askos.layer", b"a>b")
    for _ in range(3):
        layers.hand_over(old, new, "a", "b")
        assert (new / "data").read_text() == "precious"
        assert os.getxattr(new, "trusted.overlay.opaque") == b"y"
        assert list(old.iterdir()) == []
    third = tmp_path / "3" / "fs"
    third.mkdir(parents=True)
    layers.hand_over(new, third, "b", "c")
    layers.hand_over(new, third, "b", "c")
    assert (third / "data").read_text() == "precious"
    with pytest.raises(OSError, match="No such file"):
        layers.hand_over(tmp_path / "missing", third, "x", "y")


async def test_pipes_wait_for_who_reads(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "p")
    other = os.open(tmp_path / "p", os.O_RDONLY | os.O_NONBLOCK)
    writing = asyncio.create_task(writer.write(b"x" * (1 << 20)))
    await asyncio.sleep(0.05)
    assert not writing.done()
    finishing = asyncio.create_task(writer.finish())
    count = 0
    while True:
        try:
            data = os.read(other, 1 << 16)
        except BlockingIOError:
            await asyncio.sleep(0)
            continue
        if not data:
            break
        count += len(data)
    assert count == 1 << 20
    await asyncio.gather(writing, finishing)
    os.close(other)
    await writer.write(b"dropped")


async def test_closing_a_pipe_frees_who_waits_on_it(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "w")
    writing = asyncio.create_task(writer.write(b"x" * (1 << 20)))
    reader = Reader(tmp_path / "r")
    keeper = os.open(tmp_path / "r", os.O_WRONLY)
    reading = asyncio.create_task(reader.read())
    await asyncio.sleep(0.05)
    assert await reader.read(0.05) is None
    writer.close()
    reader.close()
    async with asyncio.timeout(2):
        await writing
        assert await reading == b""
    os.close(keeper)


async def test_processes_are_known_by_their_start(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec("sh", "-c", "read x", str(tmp_path), stdin=asyncio.subprocess.PIPE)
    try:
        found = processes.identify(child.pid)
        assert found is not None
        async with asyncio.timeout(5):
            while processes.with_arguments("read x", str(tmp_path)) != [found]:  # until it has become sh
                await asyncio.sleep(0.01)
        assert not processes.alive(processes.Process(found.pid, found.started + 1))
        processes.send(processes.Process(found.pid, found.started + 1), signal.SIGKILL)
        assert not await processes.ended(found, 0.1)
        assert processes.alive(found)
        processes.send(found, signal.SIGKILL)
        assert await processes.ended(found, 5)
        assert processes.identify(child.pid) is None or not processes.alive(found)
    finally:
        await child.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for mounts")
def test_mounts_with_odd_names_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "a b é"
    (folder / "in side").mkdir(parents=True)
    (folder / "file").write_text("x")
    subprocess.run(["mount", "-t", "tmpfs", "askos-test", str(folder / "in side")], check=True)
    try:
        assert mounts.below(folder) == [folder / "in side"]
        mounts.remove_tree(folder)
        assert not folder.exists()
        assert mounts.below(tmp_path) == []
    finally:
        for path in mounts.below(tmp_path):
            mounts.unmount(path)
