"""The volumes adapter is killed at any moment, and goes on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from askos.adapters.volumes import loop
from askos.ports.volumes import File, HostVolume

from .volume_fixtures import BLOCK, CAPSULE, MIB, VOLUME, Bench, bench

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
)
__all__ = ["bench"]  # fixtures

# -- being killed ------------------------------------------------------------------------------------------------------

_LIFE = """
import asyncio, sys
from pathlib import Path
from askos.adapters.volumes.host import Volumes
from askos.ports.volumes import File, HostVolume
async def main():
    root, files, capsule, volume = sys.argv[1:]
    volumes = Volumes(Path(root), Path(files))
    text = b"0"
    print("ready", flush=True)
    while True:
        text = b"%d" % (int(text) + 1)
        kinds = [HostVolume("data", "block", 32 << 20, uuid=volume), HostVolume("m", "memory"),
                 HostVolume("f", "folder"), HostVolume("s", "files", files=[File("a", text), File("b/c", text)],
                 secret=True)]
        made = await volumes.set_up(capsule, kinds, 5)
        await volumes.sub_path(capsule, "f", "x/y", "app")
        await volumes.sub_path(capsule, "data", "z", "app")
        mark = Path(made["data"], "mark")
        if not mark.exists():
            mark.write_text("first")
        print("marked", flush=True)
        await volumes.tear_down(capsule)
asyncio.run(main())
"""


async def test_killed_at_any_moment_it_goes_on(bench: Bench) -> None:
    dice = random.Random(7)
    for number in range(12):
        command = [sys.executable, "-c", _LIFE, str(bench.root), str(bench.files), CAPSULE, VOLUME]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == b"ready\n"
            if number == 0:  # a first one comes around, so that there is something to lose
                assert child.stdout.readline() == b"marked\n"
            await asyncio.sleep(dice.random() * 0.5)
            child.send_signal(signal.SIGKILL)
            child.wait()
        bench.volumes = bench.again()
        (data, _memory, _folder, secret) = await bench.make(
            BLOCK, HostVolume("m", "memory"), HostVolume("f", "folder"),
            HostVolume("s", "files", files=[File("a", b"new")], secret=True), group=5,
        )  # fmt: skip
        assert len(bench.loops()) == 1
        assert (secret / "a").read_bytes() == b"new"
        # Once there, the file system is never made again.
        assert (data / "mark").read_text() == "first"
        assert sorted(os.listdir(bench.files)) == [f"{VOLUME}.img"]
        await bench.volumes.tear_down(CAPSULE)
        bench.clean()


def test_a_loop_device_ends_with_its_last_user(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(MIB))
    fd = os.open(file, os.O_RDWR)
    try:
        assert not loop.is_attached(fd)
        with loop.device_of(fd) as first, loop.device_of(fd) as second:
            assert first == second
            assert loop.is_attached(fd)
        end = time.monotonic() + 60
        while loop.is_attached(fd) and time.monotonic() < end:
            time.sleep(0.01)
        assert not loop.is_attached(fd)
    finally:
        os.close(fd)
