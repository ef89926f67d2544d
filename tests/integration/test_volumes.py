"""Capsules' volumes with real mounts and loop devices: limits, swaps, attacks by containers, and being killed."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import uuid as uuids
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from askos.adapters.volumes import content, host, image, kernel, loop, tree
from askos.adapters.volumes.host import Volumes
from askos.model.errors import AskosError, ConflictError, InvalidError, NotFoundError, RuntimeFailedError
from askos.ports.volumes import File, HostVolume

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
)

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
        end = time.monotonic() + 10
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


# -- folders, memory, files --------------------------------------------------------------------------------------------


async def test_a_folder_is_everybodys_and_what_a_container_makes_of_it_stays(bench: Bench) -> None:
    volume = HostVolume("scratch", "folder")
    (path,) = await bench.make(volume)
    assert stat.S_IMODE(path.stat().st_mode) == 0o777
    (path / "x").write_text("kept")
    path.chmod(0o700)
    os.chown(path, 999, 999)
    assert await bench.again().set_up(CAPSULE, [volume], 2000) == {"scratch": str(path)}
    assert (path / "x").read_text() == "kept"
    # The group is new, though, and given once.
    assert (path / "x").stat().st_gid == 2000
    os.chown(path / "x", 5, 5)
    await bench.again().set_up(CAPSULE, [volume], 2000)
    assert (path / "x").stat().st_gid == 5


async def test_memory_is_limited_and_in_memory(bench: Bench) -> None:
    small, free = await bench.make(HostVolume("m", "memory", 2 * MIB), HostVolume("n", "memory"), group=1234)
    point = kernel.mounted(str(small))
    assert point is not None and point.fs_type == "tmpfs" and "nodev" in point.options
    assert stat.S_IMODE(small.stat().st_mode) == 0o2777 and small.stat().st_gid == 1234
    assert fill(small / "big", 3 * MIB) == 2 * MIB
    assert fill(free / "big", 3 * MIB) == 3 * MIB
    await bench.make(HostVolume("m", "memory", 2 * MIB), group=1234)
    assert len(bench.mounts()) == 2 and (small / "big").exists()


async def test_files_lie_as_in_kubernetes(bench: Bench) -> None:
    volume = HostVolume("conf", "files", files=[File("a", b"1"), File("d/e/f", b"2", 0o600), File("d/g", b"3", 0o755)])
    (path,) = await bench.make(volume)
    assert os.readlink(path / "a") == "..data/a"
    assert os.readlink(path / "d") == "..data/d"
    version = os.readlink(path / "..data")
    assert sorted(os.listdir(path)) == sorted(["a", "d", "..data", version])
    assert (path / "d/e/f").read_bytes() == b"2"
    assert stat.S_IMODE((path / "d/e/f").stat().st_mode) == 0o600
    assert stat.S_IMODE((path / "d/g").stat().st_mode) == 0o755
    # The same again: nothing moves.
    await bench.volumes.write_files(CAPSULE, volume, None)
    assert os.readlink(path / "..data") == version
    # Less: the name and the old version go.
    await bench.volumes.write_files(CAPSULE, HostVolume("conf", "files", files=[File("a", b"new")]), None)
    assert sorted(os.listdir(path)) == sorted(["a", "..data", os.readlink(path / "..data")])
    assert (path / "a").read_bytes() == b"new"
    assert os.readlink(path / "..data") != version
    # Nothing at all is fine, too.
    await bench.volumes.write_files(CAPSULE, HostVolume("conf", "files"), None)
    assert sorted(os.listdir(path)) == sorted(["..data", os.readlink(path / "..data")])


async def test_secrets_are_never_on_disk_and_belong_to_the_group(bench: Bench) -> None:
    volume = HostVolume("tls", "files", files=[File("k/key", b"secret", 0o400)], secret=True)
    (path,) = await bench.make(volume, group=3000)
    point = kernel.mounted(str(path))
    assert point is not None and point.fs_type == "tmpfs"
    info = (path / "k/key").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_gid) == (0o440, 3000)
    assert stat.S_IMODE((path / "k").stat().st_mode) == 0o2755
    await bench.volumes.tear_down(CAPSULE)
    bench.clean()


@pytest.mark.parametrize("path", ["", "/etc/x", "a/../b", "..", "../x", "a//b", "a/", "./a", "..data", "..x/y", "a\0b"])
async def test_files_cannot_be_written_elsewhere(bench: Bench, path: str) -> None:
    with pytest.raises(InvalidError):
        await bench.make(HostVolume("conf", "files", files=[File(path, b"x")]))


async def test_files_in_each_others_way_are_refused(bench: Bench) -> None:
    for paths in (["a", "a/b"], ["a", "a"]):
        with pytest.raises(InvalidError, match="'a'"):
            await bench.make(HostVolume("conf", "files", files=[File(path, b"") for path in paths]))


async def test_a_reader_never_sees_half_a_swap(bench: Bench) -> None:
    def version(n: int) -> HostVolume:
        text = b"%d" % n * 5000
        return HostVolume("conf", "files", files=[File("a", text), File("b", text)])

    (path,) = await bench.make(version(0))
    stop, torn, seen = threading.Event(), list[str](), set[bytes]()

    def read() -> None:
        while not stop.is_set():
            try:
                # A program that wants both files of one version opens the folder once.
                folder = os.open(path / "..data", os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                torn.append("no data")
                continue
            try:
                texts = []
                for name in ("a", "b"):
                    fd = os.open(name, os.O_RDONLY, dir_fd=folder)
                    texts.append(os.read(fd, 100_000))
                    os.close(fd)
                if texts[0] != texts[1] or len(set(texts[0])) > 2 or len(texts[0]) < 5000:
                    torn.append("mixed")
                seen.add(texts[0])
            except FileNotFoundError:
                pass  # Its version was removed: it would open the folder again.
            finally:
                os.close(folder)
            try:
                (path / "a").read_bytes()
            except FileNotFoundError:
                # Only in the moment between two links, never because the name is gone.
                if not (path / "a").is_symlink():
                    torn.append("name gone")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for n in range(1, 60):
            await bench.volumes.write_files(CAPSULE, version(n), None)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert torn == []
    assert len(seen) > 3
    assert len([n for n in os.listdir(path) if n.startswith("..2")]) == 1


async def test_a_swap_that_was_cut_short_is_done_by_the_next(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    old = HostVolume("conf", "files", files=[File("a", b"old"), File("gone", b"")])
    new = HostVolume("conf", "files", files=[File("a", b"new"), File("b", b"new")])
    (path,) = await bench.make(old)
    calls = ("mkdir", "symlink", "rename", "unlink", "rmdir", "write", "fchmod")
    for number in range(40):
        left = number

        def counted(real, *args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                raise InterruptedError("killed here")
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            for name in calls:
                real = getattr(os, name)
                patch.setattr(os, name, lambda *a, _real=real, **k: counted(_real, *a, **k))
            with contextlib.suppress(AskosError, InterruptedError):
                content.write(str(path), new.files, None)
        texts = {(path / "a").read_bytes()}
        assert texts <= {b"old", b"new"}
        content.write(str(path), new.files, None)
        assert sorted(os.listdir(path)) == sorted(["a", "b", "..data", os.readlink(path / "..data")])
        assert (path / "a").read_bytes() == (path / "b").read_bytes() == b"new"
        content.write(str(path), old.files, None)
        if left > 0:
            break
    else:
        pytest.fail("the swap has more steps than were tried")


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
    script = 'mount --bind "$0" "$1" && touch "$1/held" && exec sleep 60'
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
        end = time.monotonic() + 20
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


# -- single files and messages -----------------------------------------------------------------------------------------


async def test_a_single_file_is_written_in_place(bench: Bench, tmp_path: Path) -> None:
    path = Path(await bench.volumes.file(CAPSULE, "hosts", b"127.0.0.1 localhost\n"))
    target = tmp_path / "seen"
    target.touch()
    fd = os.open(path, os.O_PATH)
    kernel.bind(fd, str(target))
    os.close(fd)
    for text in (b"short\n", b"longer than before\n" * 10, b""):
        assert await bench.volumes.file(CAPSULE, "hosts", text) == str(path)
        assert target.read_bytes() == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    kernel.unmount(str(target))
    for name in ("", "..", "a/b", "."):
        with pytest.raises(InvalidError):
            await bench.volumes.file(CAPSULE, name, b"")


async def test_a_termination_message_is_the_end_of_a_regular_file(bench: Bench, tmp_path: Path) -> None:
    volumes = bench.volumes
    assert await volumes.message(CAPSULE, "app", 0) == b""
    path = Path(await volumes.message_file(CAPSULE, "app", 0))
    assert path.read_bytes() == b"" and stat.S_IMODE(path.stat().st_mode) == 0o666
    path.write_bytes(b"x" * 5000 + b"the end")
    assert await volumes.message_file(CAPSULE, "app", 0) == str(path)
    message = await volumes.message(CAPSULE, "app", 0)
    assert len(message) == 4096 and message.endswith(b"the end")
    assert await volumes.message_file(CAPSULE, "app", 1) != str(path)
    secret = tmp_path / "secret"
    secret.write_text("host's")

    def put(make) -> None:
        path.unlink()
        make()

    for make in (
        lambda: path.symlink_to(secret),
        lambda: os.mkfifo(path),
        lambda: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5)),
    ):
        put(make)
        assert await asyncio.wait_for(volumes.message(CAPSULE, "app", 0), 10) == b""
    path.unlink()
    path.mkdir()
    assert await volumes.message(CAPSULE, "app", 0) == b""
    await volumes.tear_down(CAPSULE)
    bench.clean()


# -- measuring and removing --------------------------------------------------------------------------------------------


async def test_usage_counts_blocks_of_folders_once(bench: Bench) -> None:
    (path, *_) = await bench.make(HostVolume("v", "folder"), HostVolume("w", "folder"), HostVolume("m", "memory"))
    empty = (await bench.volumes.usage(CAPSULE))["v"]
    fill(path / "big", 3 * MIB)
    os.link(path / "big", path / "big too")
    with (path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    (path / "out").symlink_to("/usr")
    used = await bench.again().usage(CAPSULE)
    assert set(used) == {"v", "w"}
    assert 3 * MIB <= used["v"] - empty < 3.2 * MIB
    assert await bench.volumes.usage(OTHER) == {}


def dig(folder: Path, depth: int) -> None:
    """A folder in a folder in a folder, deeper than any path may be long."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 20, dir_fd=here)
        inner = os.open("d" * 20, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    fd = os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(fd, bytes(MIB))
    os.close(fd)
    os.close(here)


async def test_depth_hides_nothing_and_stops_nothing(bench: Bench) -> None:
    (path,) = await bench.make(HostVolume("v", "folder"))
    dig(path, 3000)
    assert (await bench.volumes.usage(CAPSULE))["v"] > MIB
    await bench.volumes.set_up(CAPSULE, [HostVolume("v", "folder")], 99)
    await bench.volumes.tear_down(CAPSULE)
    bench.clean()


async def test_what_is_immutable_goes_too(bench: Bench) -> None:
    (path,) = await bench.make(HostVolume("v", "folder"))
    (path / "d/e").mkdir(parents=True)
    (path / "d/e/f").write_text("")
    (path / "log").write_text("")
    subprocess.run(["chattr", "+a", path / "log"], check=True)
    subprocess.run(["chattr", "+i", path / "d/e/f", path / "d/e", path / "d"], check=True)
    await bench.volumes.tear_down(CAPSULE)
    bench.clean()


async def test_nothing_behind_a_mount_is_ever_removed(bench: Bench, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "x").write_text("kept")
    folder = tmp_path / "tree"
    (folder / "a/b").mkdir(parents=True)
    (folder / "file").write_text("")
    fd = os.open(precious, os.O_PATH)
    kernel.bind(fd, str(folder / "a/b"))
    os.close(fd)
    with pytest.raises(OSError, match=r"(?i)busy|cross-device"):
        tree.remove(str(folder))
    assert (precious / "x").read_text() == "kept"
    # Below a capsule, it is unmounted first, however often it is mounted.
    (path,) = await bench.make(HostVolume("v", "folder"))
    for _ in range(2):
        fd = os.open(precious, os.O_PATH)
        (path / "m m").mkdir(exist_ok=True)
        kernel.bind(fd, str(path / "m m"))
        os.close(fd)
    await bench.volumes.tear_down(CAPSULE)
    assert (precious / "x").read_text() == "kept"
    bench.clean()


async def test_a_shell_that_stands_in_a_volume_does_not_stop_the_end(bench: Bench) -> None:
    (path,) = await bench.make(BLOCK)
    shell = subprocess.Popen(["sleep", "60"], cwd=path)
    try:
        await bench.volumes.tear_down(CAPSULE)
        assert bench.mounts() == [] and not bench.volumes.present(CAPSULE)
        with pytest.raises(ConflictError):
            await bench.volumes.remove_volume(VOLUME)
    finally:
        shell.kill()
        shell.wait()


async def test_collect_takes_what_nobody_has_and_nothing_else(bench: Bench) -> None:
    everything = [
        BLOCK, HostVolume("m", "memory"), HostVolume("f", "folder"),
        HostVolume("s", "files", files=[File("a", b"1")], secret=True),
    ]  # fmt: skip
    for capsule in (CAPSULE, OTHER):
        await bench.make(*everything, capsule=capsule)
        await bench.volumes.sub_path(capsule, "f", "x", "app")
        await bench.volumes.sub_path(capsule, "data", "x", "app")
        await bench.volumes.file(capsule, "hosts", b"")
        await bench.volumes.message_file(capsule, "app", 0)
        assert bench.volumes.present(capsule)
    (bench.root / "not ours").mkdir()
    late = str(uuids.uuid4())
    collecting = asyncio.ensure_future(bench.again().collect({CAPSULE}))
    await asyncio.sleep(0)
    await bench.make(HostVolume("f", "folder"), capsule=late)
    assert await collecting == [OTHER]
    assert bench.volumes.present(CAPSULE) and bench.volumes.present(late) and not bench.volumes.present(OTHER)
    assert (bench.root / CAPSULE / "secret/s/a").read_bytes() == b"1"
    assert len(bench.mounts()) == 5
    await bench.volumes.collect(set())
    (bench.root / "not ours").rmdir()
    bench.clean()
    assert bench.image().exists()
    await bench.volumes.tear_down(CAPSULE)


async def test_unmounting_everything_is_like_the_end_of_the_machine(bench: Bench) -> None:
    volumes = [
        BLOCK, HostVolume("m", "memory"), HostVolume("f", "folder"),
        HostVolume("s", "files", files=[File("a", b"1")], secret=True), HostVolume("c", "files", files=[File("a", b"2")]),
    ]  # fmt: skip
    block, memory, folder, secret, config = await bench.make(*volumes, group=4242)
    parts = [Path(await bench.volumes.sub_path(CAPSULE, name, "x", "app")) for name in ("data", "f", "m")]
    for path in (block, memory, folder, *parts):
        (path / "kept").write_text("1")
    message = Path(await bench.volumes.message_file(CAPSULE, "app", 0))
    message.write_text("bye")
    await bench.volumes.unmount_all()
    assert bench.mounts() == []
    bench.without_loops()
    assert list(memory.iterdir()) == [] and list(secret.iterdir()) == [], "a secret is on disk"
    again = bench.again()
    await again.unmount_all()
    assert await again.message(CAPSULE, "app", 0) == b"bye"
    made = await again.set_up(CAPSULE, volumes, 4242)
    assert [Path(made[v.name]) for v in volumes] == [block, memory, folder, secret, config]
    assert (block / "kept").exists() and (folder / "kept").exists() and not (memory / "kept").exists()
    assert (secret / "a").read_bytes() == b"1" and (config / "a").read_bytes() == b"2"
    assert memory.stat().st_gid == 4242
    parts = [Path(await again.sub_path(CAPSULE, name, "x", "app")) for name in ("data", "f", "m")]
    assert [(path / "kept").exists() for path in parts] == [True, True, False]
    await again.tear_down(CAPSULE)
    bench.clean()


async def test_what_hangs_takes_no_other_capsule_with_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "LOCK_S", 0.05)
    hangs = threading.Event()
    real = kernel.mount

    def mount(source: str, target: str, fs_type: str | None, flags: int, data: str = "") -> None:
        if CAPSULE in target:
            hangs.wait(60)
        real(source, target, fs_type, flags, data)

    monkeypatch.setattr(kernel, "mount", mount)
    memory = HostVolume("m", "memory")
    first = asyncio.create_task(bench.make(memory))
    while not (bench.root / CAPSULE / "memory/m").exists():
        await asyncio.sleep(0.01)
    try:
        again = await asyncio.gather(*(bench.make(memory) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(error, RuntimeFailedError) and CAPSULE in str(error) for error in again), again
        await bench.make(memory, capsule=OTHER)
    finally:
        hangs.set()
    await first
    for capsule in (CAPSULE, OTHER):
        await bench.volumes.tear_down(capsule)
    bench.clean()


async def test_names_are_not_paths(bench: Bench) -> None:
    for name in ("", "..", "a/b", "/etc"):
        with pytest.raises(InvalidError):
            await bench.make(HostVolume(name, "folder"))
        with pytest.raises(InvalidError):
            await bench.volumes.tear_down(name)
        with pytest.raises(InvalidError):
            await bench.volumes.message_file(CAPSULE, name, 0)


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
        await volumes.tear_down(capsule)
asyncio.run(main())
"""


async def test_killed_at_any_moment_it_goes_on(bench: Bench) -> None:
    dice = random.Random(7)
    marked = False
    for _ in range(12):
        command = [sys.executable, "-c", _LIFE, str(bench.root), str(bench.files), CAPSULE, VOLUME]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == b"ready\n"
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
        assert not marked or (data / "mark").exists()
        marked = marked or (data / "mark").exists()
        assert sorted(os.listdir(bench.files)) == [f"{VOLUME}.img"]
        await bench.volumes.tear_down(CAPSULE)
        bench.clean()
    assert marked


def test_a_loop_device_ends_with_its_last_user(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(MIB))
    fd = os.open(file, os.O_RDWR)
    try:
        assert not loop.is_attached(fd)
        with loop.device_of(fd) as first, loop.device_of(fd) as second:
            assert first == second
            assert loop.is_attached(fd)
        end = time.monotonic() + 10
        while loop.is_attached(fd) and time.monotonic() < end:
            time.sleep(0.01)
        assert not loop.is_attached(fd)
    finally:
        os.close(fd)
