"""Whole trees that containers have filled: removing, measuring and giving them to a group.

A container may have made anything: links to everywhere, folders ten thousand deep, folders that move while they are
looked at. So nothing here recurses, follows a link, needs a descriptor per level or crosses a mount.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from functools import partial

from askos.adapters.volumes import kernel

_STAY = kernel.NO_XDEV | kernel.NO_SYMLINKS
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
"""FS_IOC_*FLAGS of 64-bit kernels."""
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20


class MovedError(Exception):
    """A folder was moved while the walk was in it."""


def walk(root: int) -> Iterator[tuple[int, list[os.DirEntry[str]]]]:
    """Every folder of the tree as (descriptor, its entries), outer ones first; the descriptor is good until the next
    step. What the caller takes out of the entries is not looked into. Goes back up by "..", after a look whether that
    is where it came from: MovedError when it is not."""
    here = os.open(".", _FOLDER | os.O_CLOEXEC, dir_fd=root)
    above: list[tuple[tuple[int, int], list[str]]] = []
    try:
        while True:
            with os.scandir(here) as entries:
                found = list(entries)
            yield here, found
            todo = [entry.name for entry in found if _is_folder(entry)]
            del found
            while True:
                inner = -1
                while todo and inner < 0:
                    with contextlib.suppress(OSError):
                        # Gone meanwhile, or another file system: not ours to look into.
                        inner = kernel.open_beneath(here, todo.pop(), _FOLDER, _STAY)
                if inner >= 0:
                    above.append((_identity(here), todo))
                    os.close(here)
                    here = inner
                    break
                if not above:
                    return
                identity, todo = above.pop()
                outer = os.open("..", _FOLDER | os.O_CLOEXEC, dir_fd=here)
                os.close(here)
                here = outer
                if _identity(here) != identity:
                    raise MovedError
    finally:
        os.close(here)


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with contextlib.suppress(OSError):
        return entry.is_dir(follow_symlinks=False)
    return False


def usage(path: str) -> int:
    """Bytes that a tree takes on disk: blocks, not lengths; what has several names counts once. A tree that keeps
    moving is measured as far as it could be."""
    most = 0
    for _ in range(3):
        total, seen = 0, set[tuple[int, int]]()
        root = kernel.open_folder(path)
        try:
            total = os.fstat(root).st_blocks * 512
            for folder, entries in walk(root):
                for entry in entries:
                    try:
                        info = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
                    except OSError:
                        continue
                    if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                        if (info.st_dev, info.st_ino) in seen:
                            continue
                        seen.add((info.st_dev, info.st_ino))
                    total += info.st_blocks * 512
            return total
        except MovedError:
            most = max(most, total)
        finally:
            os.close(root)
    return most


def give_to_group(path: str, group: int, *, only_if_root_differs: bool = False, but: str = "") -> None:
    """Kubernetes' fsGroup: everything gets the group, and it the rights to read and write; folders pass their group
    on. Links themselves change hands, what they point to does not. `but` names something at the top that is left
    alone. MovedError is raised as OSError (EAGAIN)."""
    root = kernel.open_folder(path)
    try:
        info = os.fstat(root)
        wanted = stat.S_ISGID | 0o770
        if only_if_root_differs and info.st_gid == group and info.st_mode & wanted == wanted:
            return
        for depth, (folder, entries) in enumerate(walk(root)):
            if depth == 0:
                entries[:] = [entry for entry in entries if entry.name != but]
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    fd = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                    try:
                        _give(fd, group)
                    finally:
                        os.close(fd)
        # Last, so that an attempt that was cut short is not taken for done.
        _give(root, group)
    except MovedError:
        raise OSError(errno.EAGAIN, "a folder was moved at the same time", path) from None
    finally:
        os.close(root)


def _give(fd: int, group: int) -> None:
    info = os.fstat(fd)
    kernel.change_group(fd, group)
    if stat.S_ISLNK(info.st_mode):
        return
    extra = stat.S_ISGID | 0o770 if stat.S_ISDIR(info.st_mode) else 0o660
    # After the change of hands, which may take setuid bits away.
    os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(info.st_mode) | extra)


def remove(path: str) -> None:
    """Remove a tree. Raises OSError (EBUSY, EXDEV) at a mount, which is never crossed: unmount first."""
    try:
        root = kernel.open_folder(path)
    except FileNotFoundError:
        return
    except OSError as error:
        # A file or a link.
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        os.unlink(path)
        return
    try:
        _empty(root)
    finally:
        os.close(root)
    os.rmdir(path)


def _empty(root: int) -> None:
    """Folders within folders are moved up to the root before they are emptied, so depth costs nothing."""
    while True:
        with os.scandir(root) as entries:
            found = list(entries)
        if not found:
            return
        for entry in found:
            if not _is_folder(entry):
                _unlink(entry.name, root)
                continue
            folder = kernel.open_beneath(root, entry.name, _FOLDER, _STAY)
            try:
                _hoist(folder, root)
            finally:
                os.close(folder)
            _insist(partial(os.rmdir, entry.name, dir_fd=root), entry.name, root)


def _hoist(folder: int, root: int) -> None:
    while True:
        with os.scandir(folder) as entries:
            found = list(entries)
        if not found:
            return
        for entry in found:
            if not _is_folder(entry):
                _unlink(entry.name, folder)
                continue
            free = f".{os.urandom(8).hex()}"
            _insist(partial(os.rename, entry.name, free, src_dir_fd=folder, dst_dir_fd=root), entry.name, folder)


def _unlink(name: str, folder: int) -> None:
    _insist(partial(os.unlink, name, dir_fd=folder), name, folder)


def _insist(act: Callable[[], None], name: str, folder: int) -> None:
    """Do something to an entry of a folder, also when somebody has made either of them immutable."""
    try:
        act()
    except FileNotFoundError:
        return
    except PermissionError:
        _make_mutable(folder)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode):
            entry = os.open(name, flags, dir_fd=folder)
            try:
                _make_mutable(entry)
            finally:
                os.close(entry)
        act()


def _make_mutable(fd: int) -> None:
    with contextlib.suppress(OSError):
        (flags,) = struct.unpack("l", fcntl.ioctl(fd, _GET_FLAGS, bytes(8)))
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", flags & ~(_IMMUTABLE | _APPEND_ONLY)))
