"""The files of the volume service: one sparse file with an ext4 file system for each volume.

A file is formatted only when it is made, under another name; it gets its own name when it is whole. What a file with
a volume's name holds is never touched: either it is that volume's file system, or nothing at all, or nobody uses it
before a person has looked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import time
import uuid as uuids
from pathlib import Path

from askos.adapters.volumes import kernel, loop
from askos.model.errors import ConflictError, RuntimeFailedError

_MIB = 1 << 20
_SUPERBLOCK, _MAGIC_AT, _UUID_AT = 1024, 56, 104
_EXT_MAGIC = b"\x53\xef"
_KEEP_FREE = 0.05
"""Of the host's disk: beyond that, space is not reserved but taken as it is used."""
_MKFS_S = 300
_FREE_TRIES, _FREE_WAIT_S = 10, 0.05
_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_SIGNATURES: list[tuple[str, int, bytes]] = [
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("xfs", 0, b"XFSB"),
    ("squashfs", 0, b"hsqs"),
    ("qcow2", 0, b"QFI\xfb"),
    ("gzip", 0, b"\x1f\x8b"),
    ("ntfs", 3, b"NTFS    "),
    ("vfat", 54, b"FAT"),
    ("vfat", 82, b"FAT32"),
    ("exfat", 3, b"EXFAT   "),
    ("a partition table (GPT)", 512, b"EFI PART"),
    ("LVM", 512, b"LABELONE"),
    ("an ext file system", _SUPERBLOCK + _MAGIC_AT, _EXT_MAGIC),
    ("f2fs", 1024, b"\x10\x20\xf5\xf2"),
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
    ("swap", 4086, b"SWAPSPACE2"),
    ("iso9660", 32769, b"CD001"),
    ("btrfs", 65600, b"_BHRfS_M"),
    ("a boot sector", 510, b"\x55\xaa"),
]


class Images:
    """The folder of files. The caller sees to it that one volume is worked on by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, uuid: str) -> Path:
        """A volume's file. RuntimeFailedError for what is no uuid: it becomes a file's name."""
        try:
            if str(uuids.UUID(uuid)) == uuid:
                return self._folder / f"{uuid}.img"
        except ValueError:
            pass
        raise RuntimeFailedError(f"Cannot use volume {uuid!r}: that is no volume's id.", retryable=False)

    def _draft(self, uuid: str) -> Path:
        return self._folder / f".{uuid}.new"

    def mount(self, uuid: str, size_bytes: int, target: str, *, read_only: bool) -> None:
        """Mount a volume; makes its file at its first use. Nothing happens where it is mounted already."""
        path = self.path(uuid)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = self._open(path, uuid, size_bytes)
        try:
            point = kernel.mounted(target)
            if point is not None and not (point.device[0] == 7 and loop.backs(point.device[1], fd)):
                kernel.unmount(target)
                point = None
            if point is None:
                self._grow(fd, size_bytes)
                # All mounts of a volume share its one loop device and the kernel's one superblock, which is
                # writable: the file system's journal and other capsules need that.
                with loop.device_of(fd) as device:
                    kernel.mount(device, target, "ext4", kernel.MS_NODEV)
                kernel.make_private(target)
            if read_only != (point is not None and "ro" in point.options):
                flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_NODEV
                kernel.mount("none", target, None, flags | (kernel.MS_RDONLY if read_only else 0))
        finally:
            os.close(fd)

    def remove(self, uuid: str) -> None:
        """Remove a volume's file. ConflictError while it is mounted, in whatever namespace."""
        path = self.path(uuid)
        self._draft(uuid).unlink(missing_ok=True)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if not _is_free(fd):
                raise ConflictError(f"Cannot remove volume {uuid}: it is still mounted on its host.")
            path.unlink()
        finally:
            os.close(fd)
        kernel.sync_folder(str(self._folder))

    def _open(self, path: Path, uuid: str, size_bytes: int) -> int:
        """A descriptor of the volume's file, which has the volume's file system."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, flags)
            try:
                if holds(fd, uuid):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        self._make(path, uuid, size_bytes)
        return os.open(path, flags)

    def _grow(self, fd: int, size_bytes: int) -> None:
        """Give a file that nobody uses the size that is wanted by now, and its file system with it. Done again
        when it was broken off: a larger file with a smaller file system is whole at any moment."""
        if loop.is_attached(fd):
            return
        if os.fstat(fd).st_size < size_bytes:
            os.ftruncate(fd, size_bytes)
        if _blocks_bytes(fd) >= size_bytes - _MIB:
            return
        path = os.readlink(f"/proc/self/fd/{fd}")
        for program, *arguments in (("e2fsck", "-f", "-p"), ("resize2fs",)):
            found = shutil.which(program, path=_PATH)
            if found is None:
                raise RuntimeFailedError(f"Cannot grow a volume: {program} is missing on the host. Install e2fsprogs.")
            done = subprocess.run(
                [found, *arguments, path], capture_output=True, text=True, timeout=_MKFS_S, check=False
            )
            # 1: e2fsck has repaired something.
            if done.returncode not in (0, 1):
                said = (done.stderr or done.stdout).strip().splitlines()
                raise RuntimeFailedError(f"Cannot grow the volume: {program} says: {said[-1] if said else 'nothing'}.")

    def _make(self, path: Path, uuid: str, size_bytes: int) -> None:
        draft = self._draft(uuid)
        draft.unlink(missing_ok=True)
        try:
            fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                _size(fd, size_bytes)
                _format(str(draft), uuid)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        kernel.sync_folder(str(self._folder))


def _blocks_bytes(fd: int) -> int:
    """How large the ext4 file system in a file says it is (its lower 32 bits of blocks are enough for 16 TiB)."""
    head = os.pread(fd, 32, _SUPERBLOCK)
    return int.from_bytes(head[4:8], "little") * (1024 << int.from_bytes(head[24:28], "little"))


def _is_free(fd: int) -> bool:
    """Whether a file has no loop device. Waits a little: the kernel ends one when its last user has gone, which may
    be a process that is just ending, or somebody who only looked."""
    for _ in range(_FREE_TRIES):
        if not loop.is_attached(fd):
            return True
        time.sleep(_FREE_WAIT_S)
    return False


def holds(fd: int, uuid: str) -> bool:
    """Whether an open file has the volume's file system; False when it holds nothing at all. RuntimeFailedError
    when it holds anything else."""
    head = os.pread(fd, _MIB, 0)
    magic = head[_SUPERBLOCK + _MAGIC_AT : _SUPERBLOCK + _MAGIC_AT + 2]
    if magic == _EXT_MAGIC:
        found = head[_SUPERBLOCK + _UUID_AT : _SUPERBLOCK + _UUID_AT + 16]
        if found == uuids.UUID(uuid).bytes:
            return True
        owner = f"the file system of {uuids.UUID(bytes=found)}"
        raise _foreign(fd, owner)
    for name, offset, signature in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            raise _foreign(fd, name)
    size = os.fstat(fd).st_size
    if head.count(0) != len(head) or _has_content(fd, max(0, size - _MIB), size) or _has_content_anywhere(fd, size):
        raise _foreign(fd, "something that is no file system known here")
    return False


def _foreign(fd: int, what: str) -> RuntimeFailedError:
    path = os.readlink(f"/proc/self/fd/{fd}")
    return RuntimeFailedError(
        f"Cannot use the volume: its file {path} holds {what}. Nothing was changed. Move the file away to start "
        "with an empty volume, or put the right one in its place.",
        retryable=True,
    )


def _has_content_anywhere(fd: int, size: int) -> bool:
    """Whether any part that takes space on disk is not zero. Holes and reserved space are not read."""
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return False
            raise
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        if _has_content(fd, begin, end):
            return True
        at = end
    return False


def _has_content(fd: int, begin: int, end: int) -> bool:
    while begin < end:
        piece = os.pread(fd, min(_MIB, end - begin), begin)
        if not piece:
            return False
        if piece.count(0) != len(piece):
            return True
        begin += len(piece)
    return False


def _size(fd: int, size_bytes: int) -> None:
    os.ftruncate(fd, size_bytes)
    room = os.fstatvfs(fd)
    if (room.f_bavail * room.f_frsize - size_bytes) < room.f_blocks * room.f_frsize * _KEEP_FREE:
        return
    try:
        kernel.reserve(fd, size_bytes)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        # Others were quicker: give back what was taken, and grow by use.
        os.ftruncate(fd, 0)
        os.ftruncate(fd, size_bytes)


def _format(path: str, uuid: str) -> None:
    program = shutil.which("mkfs.ext4", path=_PATH)
    if program is None:
        raise RuntimeFailedError("Cannot make volumes: mkfs.ext4 is missing on the host. Install e2fsprogs.")
    # -m 0: whoever runs in a container is to get all of the size. nodiscard: keep what was reserved.
    command = [program, "-q", "-F", "-m", "0", "-U", uuid, "-E", "nodiscard,lazy_itable_init=1", path]
    try:
        # Python starts programs with vfork, so the threads and locks of this process are not copied.
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_MKFS_S, check=False, cwd="/"
        )
    except subprocess.TimeoutExpired:
        raise RuntimeFailedError(f"Cannot make a file system in {path}: mkfs.ext4 did not end in time.") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise RuntimeFailedError(f"Cannot make a file system in {path}: {said[-1]}")
