"""Putting a tar archive into a container: owners, modes and times are kept, nothing is written outside.

Each name is looked up anew by the kernel within the container's root (see `inroot`), and what is made is made in the
folder that was opened. Device files are refused: they would open the host's devices.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
import tarfile
from pathlib import Path
from typing import IO

from askos.loops.inroot import is_kernels_own, open_in
from askos.model.errors import InvalidError, NotFoundError

_CHUNK = 1 << 20
_ENTRIES = 1_000_000
_FOLDER = os.O_PATH | os.O_DIRECTORY


def unpack(root: Path, path: str, archive: IO[bytes]) -> None:
    """Put the archive (plain or compressed) into the folder `path` of a container. Blocks.

    NotFoundError when there is no such folder; InvalidError for what cannot be put there, which names it. What came
    before it in the archive is there then.
    """
    root_fd = os.open(root, _FOLDER | os.O_CLOEXEC)
    try:
        os.close(_target(root_fd, path))
        try:
            with tarfile.open(fileobj=archive, mode="r|*", errorlevel=2) as tar:
                for count, member in enumerate(tar):
                    if count >= _ENTRIES:
                        raise InvalidError(f"The archive has more than {_ENTRIES} entries.")
                    _put(root_fd, path, tar, member)
        except (tarfile.TarError, EOFError) as error:
            raise InvalidError(f"What was sent is not a tar archive ({error}).") from None
    finally:
        os.close(root_fd)


def _target(root: int, path: str) -> int:
    try:
        fd = open_in(root, path, _FOLDER)
    except FileNotFoundError:
        raise NotFoundError(f"There is no folder {path!r} in the container.", "no-such-path") from None
    except NotADirectoryError:
        raise InvalidError(f"{path!r} is not a folder. Name the folder into which the archive is to be put.") from None
    except OSError as error:
        raise InvalidError(f"The folder {path!r} cannot be used: {error.strerror}.") from None
    if is_kernels_own(fd):
        os.close(fd)
        raise InvalidError(f"Nothing can be put into {path!r}: it is the kernel's own.")
    return fd


def _put(root: int, path: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidError(f"The archive has an entry that leads out of the folder: {member.name[:200]!r}.")
    try:
        if not parts:
            # The folder itself: it is there, and stays as it is but for its mode.
            return
        parent = _parent(root, path, parts[:-1])
        try:
            _make(root, path, parent, parts[-1], tar, member)
        finally:
            os.close(parent)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidError(f"{member.name[:200]!r} cannot be put there: {reason}.") from None


def _parent(root: int, path: str, parts: list[str]) -> int:
    """The folder that an entry belongs into; those on the way that are missing are made."""
    here = _target(root, path)
    at = path
    for part in parts:
        at = posixpath.join(at, part)
        try:
            inner = open_in(root, at, _FOLDER)
        except FileNotFoundError:
            try:
                os.mkdir(part, 0o755, dir_fd=here)
                inner = open_in(root, at, _FOLDER)
            except BaseException:
                os.close(here)
                raise
        except BaseException:
            os.close(here)
            raise
        os.close(here)
        here = inner
    return here


def _make(root: int, path: str, parent: int, name: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    if member.ischr() or member.isblk():
        raise InvalidError(f"The archive has a device file, which is not allowed in a container: {member.name[:200]!r}.")
    if is_kernels_own(parent):
        raise InvalidError(f"{member.name[:200]!r} cannot be put there: the folder is the kernel's own.")
    _make_room(parent, name, folder=member.isdir())
    if member.isdir():
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        _dress(fd, member)
    elif member.issym():
        os.symlink(member.linkname, name, dir_fd=parent)
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
    elif member.islnk():
        _link(root, path, parent, name, member)
    elif member.isfifo():
        os.mkfifo(name, 0o600, dir_fd=parent)
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        _dress(fd, member)
    elif member.isfile():
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            _fill(fd, tar, member)
        except BaseException:
            os.close(fd)
            raise
        _dress(fd, member)
    else:
        raise InvalidError(f"The archive has an entry of a kind that is not known: {member.name[:200]!r}.")


def _make_room(parent: int, name: str, *, folder: bool) -> None:
    """Take away what is replaced. A folder stays for a folder, and is never replaced by a file."""
    try:
        there = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(there.st_mode):
        os.unlink(name, dir_fd=parent)
    elif not folder:
        raise InvalidError(f"A folder is in the way of {name!r}.")


def _fill(fd: int, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    source = tar.extractfile(member)
    assert source is not None, "it is a regular file"
    while data := source.read(_CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]


def _dress(fd: int, member: tarfile.TarInfo) -> None:
    """Owner, mode and time; closes the descriptor. The mode comes last: a change of owner takes set-id bits away."""
    try:
        os.fchown(fd, member.uid, member.gid)
        os.fchmod(fd, member.mode & 0o7777)
        os.utime(fd, (member.mtime, member.mtime))
    finally:
        os.close(fd)


def _link(root: int, path: str, parent: int, name: str, member: tarfile.TarInfo) -> None:
    target = [part for part in member.linkname.split("/") if part not in ("", ".")]
    if ".." in target:
        raise InvalidError(f"The archive has a link that leads out of the folder: {member.name[:200]!r}.")
    fd = open_in(root, posixpath.join(path, *target), os.O_PATH | os.O_NOFOLLOW)
    try:
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=parent, follow_symlinks=True)
    finally:
        os.close(fd)
