"""Sub paths of volumes: containers and their links do not lead out."""

from __future__ import annotations

import asyncio
import ctypes
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from askos.adapters.volumes import kernel
from askos.model.errors import AskosError, InvalidError, NotFoundError, RuntimeFailedError
from askos.ports.volumes import File, HostVolume

from .volume_fixtures import BLOCK, CAPSULE, MIB, OTHER, VOLUME, Bench, bench

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
)
__all__ = ["bench"]  # fixtures

# -- sub paths ---------------------------------------------------------------------------------------------------------


async def test_a_sub_path_is_a_folder_or_a_file_of_the_volume(bench: Bench) -> None:
    (path,) = await bench.make(HostVolume("v", "folder"), group=77)
    (path / "file").write_text("1")
    made = Path(await bench.volumes.sub_path(CAPSULE, "v", "a/./b", "app"))
    (made / "x").write_text("2")
    assert (path / "a/b/x").read_text() == "2"
    assert stat.S_IMODE((path / "a").stat().st_mode) == stat.S_IMODE(path.stat().st_mode) == 0o2777
    assert (path / "a/b").stat().st_gid == 77
    file = Path(await bench.volumes.sub_path(CAPSULE, "v", "file", "app"))
    assert file.read_text() == "1"
    assert await bench.again().sub_path(CAPSULE, "v", "a/b", "app") == str(made)
    assert len(bench.mounts()) == 2
    # Replaced: whoever asks again gets the new one, even of another kind.
    (path / "file").unlink()
    (path / "file").mkdir()
    assert await bench.volumes.sub_path(CAPSULE, "v", "file", "app") == str(file)
    assert file.is_dir()
    assert len(bench.mounts()) == 2
    with pytest.raises(NotFoundError):
        await bench.volumes.sub_path(CAPSULE, "w", "a", "app")
    await bench.volumes.tear_down(CAPSULE)
    bench.clean()


async def test_a_sub_path_of_content_is_the_file_behind_the_links(bench: Bench) -> None:
    await bench.make(HostVolume("conf", "files", files=[File("a", b"1")]))
    assert Path(await bench.volumes.sub_path(CAPSULE, "conf", "a", "app")).read_bytes() == b"1"
    await bench.volumes.write_files(CAPSULE, HostVolume("conf", "files", files=[File("a", b"2")]), None)
    # As in Kubernetes: a container that runs keeps the old one; the next start sees the new one.
    assert Path(await bench.volumes.sub_path(CAPSULE, "conf", "a", "app")).read_bytes() == b"2"


async def test_a_sub_path_of_a_read_only_volume_is_read_only(bench: Bench) -> None:
    (path,) = await bench.make(BLOCK)
    (path / "d").mkdir()
    reader = HostVolume("ro", "block", 32 * MIB, uuid=VOLUME, read_only=True)
    await bench.make(reader, capsule=OTHER)
    part = Path(await bench.volumes.sub_path(OTHER, "ro", "d", "app"))
    with pytest.raises(OSError, match="Read-only"):
        (part / "x").write_text("")
    with pytest.raises(RuntimeFailedError, match="read-only"):
        await bench.volumes.sub_path(OTHER, "ro", "missing", "app")


@pytest.mark.parametrize("path", ["..", "a/../..", "/etc", "../../x", "a\0b"])
async def test_a_sub_path_that_climbs_is_refused(bench: Bench, path: str) -> None:
    await bench.make(HostVolume("v", "folder"))
    with pytest.raises(InvalidError):
        await bench.volumes.sub_path(CAPSULE, "v", path, "app")


async def test_links_of_a_container_do_not_lead_out(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("host's")
    (path,) = await bench.make(HostVolume("v", "folder"))
    os.symlink(secret, path / "absolute")
    os.symlink("../" * 20 + str(secret)[1:], path / "relative")
    os.symlink("/proc/self/root", path / "magic")
    os.symlink("nowhere", path / "dangling")
    os.symlink("loop", path / "loop")
    (path / "inside").mkdir()
    os.symlink("inside", path / "fine")
    for sub in ("absolute", "relative", "absolute/key", "relative/key", "magic/etc", "loop", "loop/x"):
        with pytest.raises(InvalidError, match="out of the volume"):
            await bench.volumes.sub_path(CAPSULE, "v", sub, "app")
    for sub in ("absolute/new", "relative/new", "dangling", "dangling/x"):
        with pytest.raises(InvalidError):
            await bench.volumes.sub_path(CAPSULE, "v", sub, "app")
    assert os.listdir(secret) == ["key"]
    assert not (bench.root / CAPSULE / "folder/nowhere").exists()
    assert Path(await bench.volumes.sub_path(CAPSULE, "v", "fine", "app")).samefile(path / "inside")
    os.mkfifo(path / "pipe")
    os.mknod(path / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    for sub in ("pipe", "device"):
        with pytest.raises(InvalidError, match="neither"):
            await bench.volumes.sub_path(CAPSULE, "v", sub, "app")


async def test_a_container_that_swaps_folders_and_links_gets_nothing(bench: Bench, tmp_path: Path) -> None:
    """CVE-2017-1002101 and CVE-2021-25741: exchange a folder and a link to the host while it is being mounted."""
    secret = tmp_path / "secret"
    (secret / "deep").mkdir(parents=True)
    (path,) = await bench.make(HostVolume("v", "folder"))
    (path / "a/deep").mkdir(parents=True)
    os.symlink(secret, path / "b")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            assert libc.renameat2(-100, bytes(path / "a"), -100, bytes(path / "b"), 2) == 0  # RENAME_EXCHANGE

    libc = ctypes.CDLL(None)
    attacker = threading.Thread(target=swap)
    attacker.start()
    mounted = refused = 0
    try:
        end = time.monotonic() + 60
        while (mounted < 30 or refused < 30) and time.monotonic() < end:
            try:
                part = Path(await bench.volumes.sub_path(CAPSULE, "v", "a/deep/new", "app"))
            except AskosError:
                refused += 1
                continue
            mounted += 1
            inside = os.stat(part)
            assert not (secret / "deep/new").exists()
            assert inside.st_dev == path.stat().st_dev
            await asyncio.to_thread(kernel.unmount, str(part))
    finally:
        stop.set()
        attacker.join()
    assert mounted and refused
    assert os.listdir(secret / "deep") == []
