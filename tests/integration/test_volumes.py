"""Capsules' volumes with real mounts: limits, swaps, single files, measuring and removing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import subprocess
import threading
import time
import uuid as uuids
from pathlib import Path

import pytest

from askos.adapters.volumes import content, host, kernel, tree
from askos.model.errors import AskosError, ConflictError, InvalidError, RuntimeFailedError
from askos.ports.volumes import File, HostVolume

from .volume_fixtures import BLOCK, CAPSULE, MIB, OTHER, VOLUME, Bench, bench, fill

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
)
__all__ = ["bench"]  # fixtures

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
        end, n = time.monotonic() + 60, 0
        while n < 60 or (len(seen) <= 3 and time.monotonic() < end):
            n += 1
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
    shell = subprocess.Popen(["sleep", "600"], cwd=path)
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
