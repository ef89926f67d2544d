"""Files of a volume in Kubernetes' layout, swapped all at once.

    ..2026_11_21_07_15_52.1234567890/    the files
    ..data -> ..2026_11_21_07_15_52.1234567890
    tls.crt -> ..data/tls.crt            what a container opens

A reader that opens `tls.crt` and then `tls.key` may see two versions; one that opens the folder `..data` sees one.
A write that is cut short leaves folders that nothing points to; the next write removes them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from datetime import UTC, datetime

from askos.adapters.volumes import kernel, tree
from askos.model.errors import InvalidError
from askos.ports.volumes import File

_DATA, _NEXT = "..data", "..data_tmp"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def check(files: list[File]) -> None:
    """InvalidError for paths that do not stay inside, that are ours, or that are in each other's way."""
    folders: set[str] = set()
    names: set[str] = set()
    for file in files:
        parts = file.path.split("/")
        if "\0" in file.path or any(part in ("", ".", "..") for part in parts) or parts[0].startswith(".."):
            raise InvalidError(f"Cannot write {file.path!r} into a volume: it must be a path inside, without '..'.")
        if file.path in names:
            raise InvalidError(f"Cannot write {file.path!r} into a volume twice.")
        names.add(file.path)
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    both = sorted(folders & names)
    if both:
        raise InvalidError(f"Cannot write {both[0]!r} into a volume both as a file and as a folder.")


def write(path: str, files: list[File], group: int | None) -> None:
    """Make the volume's folder show exactly these files. With a group, they are the group's to read."""
    root = kernel.open_folder(path)
    try:
        _set_rights(root, 0o755, group, folder=True)
        current = _current(root)
        if current is None or not _same(root, current, files, group):
            current = _swap(root, files, group)
        _show(root, files)
        _clean(root, path, current, files)
    finally:
        os.close(root)


def _swap(root: int, files: list[File], group: int | None) -> str:
    moment = datetime.now(UTC).strftime("%Y_%m_%d_%H_%M_%S")
    name = f"..{moment}.{int.from_bytes(os.urandom(4), 'big'):010d}"
    os.mkdir(name, 0o755, dir_fd=root)
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    try:
        _set_rights(folder, 0o755, group, folder=True)
        for file in files:
            _write_file(folder, file, group)
    finally:
        os.close(folder)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_NEXT, dir_fd=root)
    os.symlink(name, _NEXT, dir_fd=root)
    os.rename(_NEXT, _DATA, src_dir_fd=root, dst_dir_fd=root)
    return name


def _write_file(folder: int, file: File, group: int | None) -> None:
    *outer, name = file.path.split("/")
    here = os.dup(folder)
    try:
        for part in outer:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=here)
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = inner
            _set_rights(here, 0o755, group, folder=True)
        fd = os.open(name, _NEW, 0o600, dir_fd=here)
        try:
            left = memoryview(file.data)
            while left:
                left = left[os.write(fd, left) :]
            _set_rights(fd, file.mode, group, folder=False)
        finally:
            os.close(fd)
    finally:
        os.close(here)


def _rights(mode: int, group: int | None, *, folder: bool) -> int:
    if group is None:
        return mode
    return mode | (stat.S_ISGID | 0o550 if folder else 0o440)


def _set_rights(fd: int, mode: int, group: int | None, *, folder: bool) -> None:
    if group is not None:
        os.fchown(fd, -1, group)
    os.fchmod(fd, _rights(mode, group, folder=folder))


def _current(root: int) -> str | None:
    """The folder that is shown now; None when there is none, or something else is in its place."""
    try:
        name = os.readlink(_DATA, dir_fd=root)
        info = os.stat(name, dir_fd=root, follow_symlinks=False)
    except OSError:
        return None
    return name if "/" not in name and name.startswith("..") and stat.S_ISDIR(info.st_mode) else None


def _same(root: int, current: str, files: list[File], group: int | None) -> bool:
    wanted = {file.path: file for file in files}
    folder = os.open(current, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    try:
        seen = 0
        for _here, entries in tree.walk(folder):
            seen += sum(not entry.is_dir(follow_symlinks=False) for entry in entries)
        return seen == len(wanted) and all(_is_written(folder, file, group) for file in wanted.values())
    except (OSError, tree.MovedError):
        return False
    finally:
        os.close(folder)


def _is_written(folder: int, file: File, group: int | None) -> bool:
    fd = kernel.open_beneath(folder, file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, kernel.NO_SYMLINKS)
    try:
        info = os.fstat(fd)
        rights = stat.S_IMODE(info.st_mode) == _rights(file.mode, group, folder=False)
        if not stat.S_ISREG(info.st_mode) or info.st_size != len(file.data) or not rights:
            return False
        if group is not None and info.st_gid != group:
            return False
        read = 0
        while read < len(file.data):
            piece = os.pread(fd, 1 << 20, read)
            if not piece or piece != file.data[read : read + len(piece)]:
                return False
            read += len(piece)
        return True
    finally:
        os.close(fd)


def _tops(files: list[File]) -> set[str]:
    return {file.path.partition("/")[0] for file in files}


def _show(root: int, files: list[File]) -> None:
    """The links that a container opens, one for each first part of a path."""
    for name in sorted(_tops(files)):
        target = f"{_DATA}/{name}"
        with contextlib.suppress(OSError):
            if os.readlink(name, dir_fd=root) == target:
                continue
        free = f"..link.{os.urandom(4).hex()}"
        os.symlink(target, free, dir_fd=root)
        os.rename(free, name, src_dir_fd=root, dst_dir_fd=root)


def _clean(root: int, path: str, current: str, files: list[File]) -> None:
    keep = {_DATA, current} | _tops(files)
    for name in os.listdir(root):
        if name not in keep:
            tree.remove(f"{path}/{name}")
