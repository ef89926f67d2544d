"""The kernel's calls that Python has no words for: mount, umount2, openat2; and the list of mounts.

Called from threads of a program that talks gRPC, so nothing here forks. Every call raises OSError.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import time
from pathlib import Path
from typing import NamedTuple

MS_RDONLY, MS_NOSUID, MS_NODEV = 0x1, 0x2, 0x4
MS_REMOUNT, MS_BIND, MS_PRIVATE = 0x20, 0x1000, 0x40000

NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH = 0x1, 0x2, 0x4, 0x8
"""openat2's RESOLVE_*."""

_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_AT_EMPTY_PATH = 0x1000
_OPENAT2 = 437
"""The same number on all architectures."""
_HOW = struct.Struct("=QQQ")
_BUSY_TRIES, _BUSY_WAIT_S = 20, 0.05
_OCTAL = re.compile(r"\\([0-7]{3})")
_libc = ctypes.CDLL(None, use_errno=True)


class MountPoint(NamedTuple):
    """One line of mountinfo. `device`: (major, minor)."""

    path: str
    device: tuple[int, int]
    fs_type: str
    options: frozenset[str]
    """Of this mount, such as ro and nodev; not those of the file system."""


def _failed(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


def mount(source: str, target: str, fs_type: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    done = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        fs_type.encode() if fs_type else None,
        ctypes.c_ulong(flags),
        data.encode() if data else None,
    )
    if done != 0:
        raise _failed(target)


def make_private(target: str) -> None:
    """Keep what is mounted from spreading to other namespaces."""
    mount("none", target, None, MS_PRIVATE)


def bind(fd: int, target: str) -> None:
    """Mount what a descriptor is open on, whatever its name has become, on a file or folder of ours."""
    mount(f"/proc/self/fd/{fd}", target, None, MS_BIND)
    make_private(target)


def unmount(path: str) -> None:
    """Take a mount away. Waits a little for those who use it, then leaves it to the kernel to end it after them:
    from here it is gone either way. Nothing happens where nothing is mounted."""
    for attempt in range(_BUSY_TRIES + 1):
        flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if attempt == _BUSY_TRIES else 0)
        if _libc.umount2(os.fsencode(path), flags) == 0:
            return
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOENT):
            return
        if number != errno.EBUSY:
            raise OSError(number, os.strerror(number), path)
        time.sleep(_BUSY_WAIT_S)


def mounts(below: str = "/") -> list[MountPoint]:
    """The mounts at or below a folder, in the order in which they were made."""
    prefix = below.rstrip("/")
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n"):
        words = os.fsdecode(line).split(" ")
        if len(words) < 10:
            continue
        # The kernel writes blanks and such as three octal digits.
        path = _OCTAL.sub(lambda match: chr(int(match[1], 8)), words[4])
        if path == prefix or path.startswith(prefix + "/"):
            major, _, minor = words[2].partition(":")
            fs_type = words[words.index("-", 6) + 1]
            found.append(MountPoint(path, (int(major), int(minor)), fs_type, frozenset(words[5].split(","))))
    return found


def mounted(path: str) -> MountPoint | None:
    """What is mounted exactly there: the last one, if there are several."""
    return next((point for point in reversed(mounts(path)) if point.path == path), None)


def unmount_below(folder: str) -> None:
    """Unmount everything at or below a folder. Raises OSError (EBUSY) when something is left."""
    for point in reversed(mounts(folder)):
        unmount(point.path)
    left = mounts(folder)
    if left:
        raise OSError(errno.EBUSY, "still mounted", left[-1].path)


def open_beneath(root: int, path: str, flags: int, resolve: int) -> int:
    """openat2(2): open `path` without ever leaving the folder `root`, as `resolve` says. O_CLOEXEC is added."""
    how = _HOW.pack(flags | os.O_CLOEXEC, 0, resolve | BENEATH | NO_MAGICLINKS)
    for _ in range(64):
        fd: int = _libc.syscall(_OPENAT2, root, os.fsencode(path), how, len(how))
        if fd >= 0:
            return fd
        # EAGAIN: something was renamed on the way, so that the kernel could not be sure.
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    raise _failed(path)


def change_group(fd: int, group: int) -> None:
    """fchownat(2) of what a descriptor is open on, also when that is a link (O_PATH)."""
    if _libc.fchownat(fd, b"", ctypes.c_uint(0xFFFFFFFF), ctypes.c_uint(group), _AT_EMPTY_PATH) != 0:
        raise _failed(f"/proc/self/fd/{fd}")


def reserve(fd: int, size: int) -> None:
    """fallocate(2): the space of a file, from its begin. Unlike posix_fallocate, it never writes."""
    if _libc.fallocate(fd, 0, ctypes.c_int64(0), ctypes.c_int64(size)) != 0:
        raise _failed(f"/proc/self/fd/{fd}")


def open_folder(path: str) -> int:
    """Open a folder of ours; never through a link in its last component."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def sync_folder(path: str) -> None:
    """Make what was made, renamed and removed in a folder survive a power cut."""
    fd = open_folder(path)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
