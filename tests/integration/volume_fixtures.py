"""A volumes adapter in a folder of its own, with the kernel's mounts and loop devices."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from askos.adapters.volumes import kernel
from askos.adapters.volumes.host import Volumes
from askos.ports.volumes import HostVolume

MIB = 1 << 20
CAPSULE = "c0000000-0000-4000-8000-000000000001"
OTHER = "c0000000-0000-4000-8000-000000000002"
VOLUME = "d0000000-0000-4000-8000-000000000001"
BLOCK = HostVolume("data", "block", 32 * MIB, uuid=VOLUME)


class Bench:
    """An adapter in a folder of its own; `again` is the next process of the same host."""

    def __init__(self, folder: Path) -> None:
        self.root, self.files = folder / "capsules", folder / "volumes"
        self.volumes = self.again()

    def again(self) -> Volumes:
        return Volumes(self.root, self.files)

    def image(self, uuid: str = VOLUME) -> Path:
        return self.files / f"{uuid}.img"

    def mounts(self) -> list[str]:
        return [point.path for point in kernel.mounts(str(self.root))]

    def loops(self) -> list[str]:
        """Loop devices whose file is here, whether it still has a name or not."""
        found = []
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                if str(self.files) in file.read_text():
                    found.append(file.parent.parent.name)
        return found

    def without_loops(self) -> None:
        """No device is left, as soon as all who looked at it (other tests, too) have closed it."""
        end = time.monotonic() + 60
        while self.loops() and time.monotonic() < end:
            time.sleep(0.01)
        assert self.loops() == []

    async def make(self, *volumes: HostVolume, capsule: str = CAPSULE, group: int | None = None) -> list[Path]:
        made = await self.volumes.set_up(capsule, list(volumes), group)
        return [Path(made[volume.name]) for volume in volumes]

    def clean(self) -> None:
        assert self.mounts() == []
        self.without_loops()
        assert list(self.root.iterdir()) == []


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    try:
        yield made
    finally:
        kernel.unmount_below(str(tmp_path))


def fill(path: Path, size: int) -> int:
    """Write up to `size` bytes; returns how many there was room for."""
    done = 0
    with path.open("wb", buffering=0) as file:
        try:
            while done < size:
                done += file.write(bytes(min(MIB, size - done)))
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return done
