"""Files of the volume service as block devices: what is formatted, mounted and shared, and what never is."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import stat
import subprocess
import uuid as uuids
from pathlib import Path

import pytest

from askos.adapters.volumes import image, kernel
from askos.model.errors import ConflictError, RuntimeFailedError
from askos.ports.volumes import HostVolume

from .volume_fixtures import BLOCK, CAPSULE, MIB, OTHER, VOLUME, Bench, bench, fill

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
)
__all__ = ["bench"]  # fixtures

# -- the volume service's files ----------------------------------------------------------------------------------------


async def test_a_block_volume_keeps_its_files_and_its_size(bench: Bench) -> None:
    (path,) = await bench.make(BLOCK)
    assert os.listdir(path) == ["lost+found"]
    assert stat.S_IMODE((path / "lost+found").stat().st_mode) == 0o700
    assert (path / "lost+found").stat().st_uid == 0
    (path / "kept").write_text("yes")
    written = fill(path / "big", 64 * MIB)
    assert 20 * MIB < written < 32 * MIB
    assert bench.image().stat().st_size == 32 * MIB
    assert len(bench.loops()) == 1
    await bench.volumes.tear_down(CAPSULE)
    bench.clean()
    assert bench.image().exists()
    bench.volumes = bench.again()
    (path,) = await bench.make(BLOCK, capsule=OTHER)
    assert (path / "kept").read_text() == "yes"
    with pytest.raises(ConflictError, match="still mounted"):
        await bench.volumes.remove_volume(VOLUME)
    await bench.volumes.tear_down(OTHER)
    await bench.volumes.remove_volume(VOLUME)
    await bench.volumes.remove_volume(VOLUME)
    assert os.listdir(bench.files) == []
    bench.clean()


async def test_two_capsules_share_one_device(bench: Bench) -> None:
    (first,) = await bench.make(BLOCK)
    bench.volumes = bench.again()
    reader = HostVolume("ro", "block", 32 * MIB, uuid=VOLUME, read_only=True)
    (second,) = await bench.make(reader, capsule=OTHER)
    assert len(bench.loops()) == 1
    assert first.stat().st_dev == second.stat().st_dev
    (first / "x").write_text("shared")
    assert (second / "x").read_text() == "shared"
    with pytest.raises(OSError, match="Read-only"):
        (second / "y").write_text("")
    # The first one goes; the second is none the worse, and the file cannot be removed.
    await bench.volumes.tear_down(CAPSULE)
    assert (second / "x").read_text() == "shared"
    with pytest.raises(ConflictError):
        await bench.volumes.remove_volume(VOLUME)
    # Read-only is said again by a process that comes later.
    kernel.mount("none", str(second), None, kernel.MS_REMOUNT | kernel.MS_BIND)
    await bench.again().set_up(OTHER, [reader], None)
    with pytest.raises(OSError, match="Read-only"):
        (second / "y").write_text("")
    await bench.volumes.tear_down(OTHER)
    bench.clean()


async def test_two_set_ups_at_once_mount_once(bench: Bench) -> None:
    capsules = [str(uuids.uuid4()) for _ in range(6)]
    await asyncio.gather(*(bench.make(BLOCK, capsule=c) for c in capsules), *(bench.make(BLOCK) for _ in range(3)))
    assert len(bench.mounts()) == 7
    assert len(bench.loops()) == 1
    await bench.volumes.collect(set())
    bench.clean()


async def test_a_mount_in_another_namespace_keeps_the_device_and_the_file(bench: Bench, tmp_path: Path) -> None:
    (path,) = await bench.make(BLOCK)
    (path / "x").write_text("1")
    seen = tmp_path / "seen by a container"
    seen.mkdir()
    script = 'mount --bind "$0" "$1" && touch "$1/held" && exec sleep 600'
    holder = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", script, path, seen])
    try:
        while not (path / "held").exists():
            assert holder.poll() is None
            await asyncio.sleep(0.01)
        await bench.volumes.tear_down(CAPSULE)
        assert bench.mounts() == [] and not bench.volumes.present(CAPSULE)
        with pytest.raises(ConflictError):
            await bench.volumes.remove_volume(VOLUME)
        # Used again meanwhile: by the same device, for two would ruin the file system.
        (path,) = await bench.make(BLOCK, capsule=OTHER)
        assert len(bench.loops()) == 1
        assert (path / "x").read_text() == "1"
        await bench.volumes.tear_down(OTHER)
    finally:
        holder.kill()
        holder.wait()
    bench.without_loops()
    await bench.volumes.remove_volume(VOLUME)
    bench.clean()


def xfs(size: int) -> bytes:
    return b"XFSB\0\0\x10\0" + bytes(size - 8)


def vfat(size: int) -> bytes:
    head = bytearray(size)
    head[0:3], head[3:11], head[54:62], head[510:512] = b"\xeb\x3c\x90", b"mkfs.fat", b"FAT16   ", b"\x55\xaa"
    return bytes(head)


FOREIGN = {
    "xfs": xfs(MIB),
    "vfat": vfat(MIB),
    "something": random.Random(1).randbytes(MIB),
    "something else": bytes(5 * MIB) + b"x" + bytes(MIB),
    "something at the end": bytes(3 * MIB - 1) + b"\x01",
    "a few bytes": b"note to self",
}


@pytest.mark.parametrize("what", FOREIGN)
async def test_what_holds_anything_is_never_formatted(bench: Bench, what: str) -> None:
    bench.files.mkdir()
    bench.image().write_bytes(FOREIGN[what])
    with pytest.raises(RuntimeFailedError, match="Nothing was changed") as caught:
        await bench.make(BLOCK)
    assert str(bench.image()) in caught.value.message
    if what in ("xfs", "vfat"):
        assert f"holds {what}" in caught.value.message
    assert bench.image().read_bytes() == FOREIGN[what]
    await bench.volumes.tear_down(CAPSULE)
    bench.clean()


async def test_a_sparse_file_with_one_byte_far_in_is_not_formatted(bench: Bench) -> None:
    bench.files.mkdir()
    with bench.image().open("wb") as file:
        file.truncate(1 << 36)
        file.seek(40 << 30)
        file.write(b"x")
    with pytest.raises(RuntimeFailedError):
        await bench.make(BLOCK)
    with bench.image().open("rb") as file:
        file.seek(40 << 30)
        assert file.read(1) == b"x"


async def test_another_volumes_file_system_is_not_mounted(bench: Bench) -> None:
    (path,) = await bench.make(BLOCK)
    (path / "x").write_text("mine")
    await bench.volumes.tear_down(CAPSULE)
    other = str(uuids.uuid4())
    shutil.copyfile(bench.image(), bench.image(other))
    before = bench.image(other).read_bytes()
    with pytest.raises(RuntimeFailedError, match=f"the file system of {VOLUME}"):
        await bench.make(HostVolume("data", "block", 32 * MIB, uuid=other))
    assert bench.image(other).read_bytes() == before


async def test_a_damaged_superblock_is_not_formatted_over(bench: Bench) -> None:
    (path,) = await bench.make(BLOCK)
    (path / "x").write_text("mine")
    await bench.volumes.tear_down(CAPSULE)
    with bench.image().open("r+b") as file:
        file.write(bytes(4096))
    before = bench.image().read_bytes()
    with pytest.raises(RuntimeFailedError, match="Nothing was changed"):
        await bench.make(BLOCK)
    assert bench.image().read_bytes() == before


@pytest.mark.parametrize("size", [0, 8 * MIB])
async def test_an_empty_file_is_as_good_as_none(bench: Bench, size: int) -> None:
    bench.files.mkdir()
    bench.image().touch()
    os.truncate(bench.image(), size)
    (path,) = await bench.make(BLOCK)
    assert os.listdir(path) == ["lost+found"]
    assert bench.image().stat().st_size == 32 * MIB


async def test_a_format_that_fails_leaves_no_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str, uuid: str) -> None:
        Path(path).write_bytes(b"half a file system")
        raise RuntimeFailedError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(image, "_format", broken)
        with pytest.raises(RuntimeFailedError, match="killed"):
            await bench.make(BLOCK)
    assert os.listdir(bench.files) == []
    # Killed in the middle of it, the draft stays; the next one begins anew.
    (bench.files / f".{VOLUME}.new").write_bytes(b"half a file system")
    (path,) = await bench.make(BLOCK)
    assert os.listdir(path) == ["lost+found"]
    assert os.listdir(bench.files) == [f"{VOLUME}.img"]


async def test_no_room_is_an_error_and_leaves_nothing(bench: Bench) -> None:
    bench.files.mkdir()
    kernel.mount("tmpfs", str(bench.files), "tmpfs", 0, "size=128k")
    try:
        with pytest.raises(RuntimeFailedError, match=r"(?i)space"):
            await bench.make(BLOCK)
        assert os.listdir(bench.files) == []
    finally:
        await bench.volumes.collect(set())
        kernel.unmount(str(bench.files))


@pytest.mark.parametrize("uuid", ["", "../../etc/passwd", "x", VOLUME.upper(), f"{VOLUME}/.."])
async def test_a_volumes_id_is_no_path(bench: Bench, uuid: str) -> None:
    with pytest.raises(RuntimeFailedError, match="no volume's id"):
        await bench.make(HostVolume("data", "block", MIB, uuid=uuid))
    with pytest.raises(RuntimeFailedError, match="no volume's id"):
        await bench.volumes.remove_volume(uuid)


# -- groups ------------------------------------------------------------------------------------------------------------


async def test_a_group_gets_a_block_volume_and_nothing_that_links_lead_to(bench: Bench, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o600)
    (path,) = await bench.make(BLOCK)
    (path / "d/e").mkdir(parents=True, mode=0o700)
    (path / "d/e/file").write_text("")
    (path / "d/e/file").chmod(0o4700)
    (path / "link").symlink_to(outside)
    (path / "folder link").symlink_to("/etc")
    etc = Path("/etc").stat()
    await bench.volumes.set_up(CAPSULE, [BLOCK], 4321)
    assert stat.S_IMODE((path / "d/e").stat().st_mode) & 0o2770 == 0o2770
    lost = (path / "lost+found").stat()
    assert (lost.st_gid, stat.S_IMODE(lost.st_mode)) == (0, 0o700)
    assert (path / "d/e/file").stat().st_gid == 4321
    assert stat.S_IMODE((path / "d/e/file").stat().st_mode) == 0o4760
    assert (path / "link").lstat().st_gid == 4321
    assert (outside.stat().st_gid, stat.S_IMODE(outside.stat().st_mode)) == (0, 0o600)
    assert (Path("/etc").stat().st_gid, Path("/etc").stat().st_mode) == (etc.st_gid, etc.st_mode)
    # OnRootMismatch looks at the root alone; another group is looked after at once.
    (path / "d/new").write_text("")
    os.chown(path / "d/new", 0, 0)
    await bench.volumes.tear_down(CAPSULE)
    await bench.volumes.set_up(OTHER, [BLOCK], 4321, on_root_mismatch=True)
    new = bench.root / OTHER / "block/data/d/new"
    assert new.stat().st_gid == 0
    await bench.volumes.set_up(OTHER, [BLOCK], 4322, on_root_mismatch=True)
    assert new.stat().st_gid == 4322
    await bench.volumes.tear_down(OTHER)
    bench.clean()
