"""Putting a tar archive into a container: owners, modes and times are kept, nothing is written outside.

Each name is looked up anew by the kernel within the container's root (see `inroot`), and what is made is made in the
folder that was opened. Device files are refused: they would open the host's devices.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import posixpath
import stat
import tarfile
import zlib
from pathlib import Path
from typing import IO

from askos.loops.inroot import is_kernels_own, open_in
from askos.model.errors import InvalidError, NotFoundError

_CHUNK = 1 << 20
_ENTRIES = 1_000_000
_FOLDER = os.O_PATH | os.O_DIRECTORY
_ITSELF = os.O_NOFOLLOW | os.O_CLOEXEC


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
                into = _Into(root_fd, path, tar)
                for count, member in enumerate(tar):
                    if count >= _ENTRIES:
                        raise InvalidError(f"The archive has more than {_ENTRIES} entries.")
                    into.put(member)
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
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


class _Into:
    """A folder of a container that an archive goes into."""

    def __init__(self, root: int, path: str, tar: tarfile.TarFile) -> None:
        self._root = root
        self._path = path
        self._tar = tar

    def put(self, member: tarfile.TarInfo) -> None:
        """One entry."""
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise InvalidError(f"The archive has an entry that leads out of the folder: {member.name[:200]!r}.")
        if not parts:
            return  # The folder itself: it is there, and stays as it is.
        try:
            parent = self._parent(parts[:-1])
            try:
                self._make(parent, parts[-1], member)
            finally:
                os.close(parent)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InvalidError(f"{member.name[:200]!r} cannot be put there: {reason}.") from None

    def _parent(self, parts: list[str]) -> int:
        """The folder that an entry belongs into; those on the way that are missing are made."""
        here = _target(self._root, self._path)
        at = self._path
        for part in parts:
            at = posixpath.join(at, part)
            try:
                inner = self._folder(here, part, at)
            finally:
                os.close(here)
            here = inner
        return here

    def _folder(self, parent: int, name: str, path: str) -> int:
        try:
            return open_in(self._root, path, _FOLDER)
        except FileNotFoundError:
            os.mkdir(name, 0o755, dir_fd=parent)
            return open_in(self._root, path, _FOLDER)

    def _make(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        shown = member.name[:200]
        if member.ischr() or member.isblk():
            raise InvalidError(f"The archive has a device file, which is not allowed in a container: {shown!r}.")
        if is_kernels_own(parent):
            raise InvalidError(f"{shown!r} cannot be put there: the folder is the kernel's own.")
        if not (member.isfile() or member.isdir() or member.issym() or member.islnk() or member.isfifo()):
            raise InvalidError(f"The archive has an entry of a kind that is not known: {shown!r}.")
        _make_room(parent, name, folder=member.isdir())
        if member.isdir():
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
            _dress(os.open(name, os.O_RDONLY | os.O_DIRECTORY | _ITSELF, dir_fd=parent), member)
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        elif member.islnk():
            self._link(parent, name, member)
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
            _dress(os.open(name, os.O_RDONLY | os.O_NONBLOCK | _ITSELF, dir_fd=parent), member)
        else:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _ITSELF, 0o600, dir_fd=parent)
            try:
                self._fill(fd, member)
            except BaseException:
                os.close(fd)
                raise
            _dress(fd, member)

    def _fill(self, fd: int, member: tarfile.TarInfo) -> None:
        source = self._tar.extractfile(member)
        assert source is not None, "it is a regular file"
        while data := source.read(_CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]

    def _link(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        target = [part for part in member.linkname.split("/") if part not in ("", ".")]
        if ".." in target:
            raise InvalidError(f"The archive has a link that leads out of the folder: {member.name[:200]!r}.")
        fd = open_in(self._root, posixpath.join(self._path, *target), os.O_PATH | os.O_NOFOLLOW)
        try:
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=parent, follow_symlinks=True)
        finally:
            os.close(fd)


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


def _dress(fd: int, member: tarfile.TarInfo) -> None:
    """Owner, mode and time; closes the descriptor. The mode comes last: a change of owner takes set-id bits away."""
    try:
        os.fchown(fd, member.uid, member.gid)
        os.fchmod(fd, member.mode & 0o7777)
        os.utime(fd, (member.mtime, member.mtime))
    finally:
        os.close(fd)
