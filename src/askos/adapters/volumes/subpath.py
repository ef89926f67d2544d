"""A part of a volume, held fast before a container is told of it.

Containers of the capsule may write to the volume, and swap a folder for a link to the host's /etc at the very moment
in which its path is used. So no path is used: the part is opened in one step by the kernel, which never leaves the
volume, and what was opened is mounted by its descriptor on a place that no container can reach.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from askos.adapters.volumes import kernel
from askos.model.errors import InvalidError, RuntimeFailedError

_TRIES = 16


def check(path: str) -> list[str]:
    """The parts of a sub path. InvalidError when it is absolute, or has ".." in it."""
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise InvalidError(f"Cannot use the sub path {path!r}: it must be relative, without '..'.")
    return [part for part in path.split("/") if part not in ("", ".")]


def hold(volume: str, parts: list[str], target: Path) -> None:
    """Mount a part of a volume on `target`, which is made: a folder or a file, as the part is. A part that is not
    there becomes a folder with the volume's own rights. Nothing happens when it is mounted there already."""
    root = kernel.open_folder(volume)
    try:
        fd = _open(root, parts)
        try:
            _mount(fd, parts, target)
        finally:
            os.close(fd)
    finally:
        os.close(root)


def _open(root: int, parts: list[str]) -> int:
    """An O_PATH descriptor. Links are followed by the kernel as long as they stay in the volume: content volumes
    are made of such links."""
    path = "/".join(parts) or "."
    for _ in range(_TRIES):
        try:
            return kernel.open_beneath(root, path, os.O_PATH, kernel.NO_XDEV)
        except FileNotFoundError:
            _make(root, parts)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.ELOOP):
                raise InvalidError(f"Cannot use the sub path {path!r}: a link in it leads out of the volume.") from None
            if error.errno == errno.ENOTDIR:
                raise InvalidError(f"Cannot use the sub path {path!r}: a file is in the way.") from None
            raise
    raise RuntimeFailedError(f"Cannot use the sub path {path!r}: it is removed again and again.")


def _make(root: int, parts: list[str]) -> None:
    """Make the folders that are missing, each within the one that is open."""
    info = os.fstat(root)
    here = os.dup(root)
    try:
        for depth, part in enumerate(parts, 1):
            path = "/".join(parts[:depth])
            inner = _folder(root, path)
            if inner < 0:
                made = False
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=here)
                    made = True
                inner = _folder(root, path)
                if inner < 0:
                    if made:
                        return  # Removed again: the caller tries once more.
                    raise InvalidError(f"Cannot use the sub path {path!r}: a link in it leads nowhere.")
                if made:
                    # By descriptor: rights go to what was opened, whatever has that name by now.
                    os.chown(f"/proc/self/fd/{inner}", -1, info.st_gid)
                    os.chmod(f"/proc/self/fd/{inner}", stat.S_IMODE(info.st_mode))
            os.close(here)
            here = inner
    finally:
        os.close(here)


def _folder(root: int, path: str) -> int:
    try:
        return kernel.open_beneath(root, path, os.O_PATH | os.O_DIRECTORY, kernel.NO_XDEV)
    except FileNotFoundError:
        return -1


def _mount(fd: int, parts: list[str], target: Path) -> None:
    wanted = os.fstat(fd)
    folder = stat.S_ISDIR(wanted.st_mode)
    if not folder and not stat.S_ISREG(wanted.st_mode):
        raise InvalidError(f"Cannot use the sub path {'/'.join(parts)!r}: it is neither a folder nor a file.")
    if kernel.mounted(str(target)) is not None:
        there = os.stat(target, follow_symlinks=False)
        if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino):
            return
        # What had this name before was replaced.
        kernel.unmount(str(target))
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if target.is_dir() != folder and target.exists():
        target.rmdir() if target.is_dir() else target.unlink()
    if folder:
        target.mkdir(mode=0o700, exist_ok=True)
    else:
        target.touch(mode=0o600)
    kernel.bind(fd, str(target))
