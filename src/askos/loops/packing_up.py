"""Reading files out of a container as a tar archive, as docker does: what was asked for is at the top by its name.

Folders are walked by open descriptors and links are never followed, so whatever a container makes of its links
meanwhile, nothing of the host is read. What lies in the kernel's own file systems (/proc) is left out.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from askos.loops.inroot import is_kernels_own, open_in
from askos.model.errors import InvalidError, NotFoundError

_CHUNK = 256 * 1024
_DEEPEST = 500
"""Folders within folders: each takes a descriptor, of which the whole agent has some thousands."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GO_BITS = {
    stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFBLK: 1 << 26, stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24, stat.S_IFCHR: 1 << 26 | 1 << 21, stat.S_IFREG: 0,
}  # fmt: skip
_GO_SPECIAL = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


class Source:
    """A file or folder of a container, held open. Blocks: use it in threads."""

    def __init__(self, root: Path, path: str) -> None:
        """NotFoundError when there is no such path."""
        path = posixpath.join("/", path)
        self._name = posixpath.basename(posixpath.normpath(path)) or "/"
        follows = path.endswith(("/", "/."))
        root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._fd = open_in(root_fd, path, os.O_PATH | (0 if follows else os.O_NOFOLLOW))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"There is no {path!r} in the container.", "no-such-path") from None
        except OSError as error:
            raise InvalidError(f"{path!r} cannot be read: {error.strerror}.") from None
        finally:
            os.close(root_fd)
        self._folder = posixpath.dirname(path)
        self._links: dict[tuple[int, int], str] = {}
        if is_kernels_own(self._fd):
            self.close()
            raise InvalidError(f"{path!r} cannot be read: it is the kernel's own.")

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def stat(self) -> dict[str, Any]:
        """What docker tells of a path: name, size, mode (as Go counts it), mtime (RFC 3339), linkTarget."""
        info = os.fstat(self._fd)
        target = ""
        if stat.S_ISLNK(info.st_mode):
            target = posixpath.normpath(posixpath.join(self._folder, os.readlink("", dir_fd=self._fd)))
        mode = stat.S_IMODE(info.st_mode) & 0o777 | _GO_BITS.get(stat.S_IFMT(info.st_mode), 0)
        mode |= sum(bit for special, bit in _GO_SPECIAL.items() if info.st_mode & special)
        moment = datetime.fromtimestamp(info.st_mtime_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        fraction = f".{info.st_mtime_ns % 1_000_000_000:09d}".rstrip("0").rstrip(".")
        return {
            "name": self._name, "size": info.st_size, "mode": mode, "mtime": f"{moment}{fraction}Z",
            "linkTarget": target,
        }  # fmt: skip

    def pieces(self) -> Iterator[bytes]:
        """The archive."""
        info = os.fstat(self._fd)
        top = "." if self._name == "/" else self._name
        if stat.S_ISDIR(info.st_mode):
            fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            yield from self._tree(fd, top)
        elif stat.S_ISREG(info.st_mode):
            fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            yield from self._file(fd, top)
        else:
            link = os.readlink("", dir_fd=self._fd) if stat.S_ISLNK(info.st_mode) else ""
            yield _head(top, info, link)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _tree(self, fd: int, name: str) -> Iterator[bytes]:
        """A folder and what is in it; closes the descriptor."""
        # Not by recursion: a container's folders may be deeper than Python's stack.
        waiting: list[tuple[int, str, list[str]]] = []
        try:
            yield _head(f"{name}/", os.fstat(fd))
            waiting.append((fd, name, _entries(fd)))
            while waiting:
                here, at, names = waiting[-1]
                if not names:
                    os.close(here)
                    waiting.pop()
                    continue
                entry = names.pop()
                inner = yield from self._entry(here, entry, f"{at}/{entry}")
                if inner is not None and len(waiting) >= _DEEPEST:
                    os.close(inner)
                    raise InvalidError(f"Folders in {name!r} are nested deeper than {_DEEPEST}. Ask for a part of it.")
                if inner is not None:
                    waiting.append((inner, f"{at}/{entry}", _entries(inner)))
        finally:
            for here, _, _ in waiting:
                os.close(here)

    def _entry(self, folder: int, entry: str, name: str) -> Any:
        """One entry of a folder. Returns the descriptor of one that is a folder and is to be walked."""
        try:
            info = os.stat(entry, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                fd = os.open(entry, _READ | os.O_DIRECTORY, dir_fd=folder)
                yield _head(f"{name}/", os.fstat(fd))
                if is_kernels_own(fd):
                    os.close(fd)
                    return None
                return fd
            if stat.S_ISREG(info.st_mode):
                yield from self._file(os.open(entry, _READ, dir_fd=folder), name)
            elif stat.S_ISLNK(info.st_mode):
                yield _head(name, info, os.readlink(entry, dir_fd=folder))
            elif not stat.S_ISSOCK(info.st_mode):
                yield _head(name, info)
        except OSError:
            # It is gone, or has become something else: an archive of what lives is never of one moment.
            return None
        return None

    def _file(self, fd: int, name: str) -> Iterator[bytes]:
        """A regular file; closes the descriptor."""
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                return
            key = (info.st_dev, info.st_ino)
            if info.st_nlink > 1 and key in self._links:
                yield _head(name, info, self._links[key], hard=True)
                return
            self._links[key] = name
            yield _head(name, info)
            left = info.st_size
            while left:
                data = os.read(fd, min(_CHUNK, left)) or bytes(min(_CHUNK, left))  # zeros for what was cut off
                left -= len(data)
                yield data
            if rest := -info.st_size % tarfile.BLOCKSIZE:
                yield bytes(rest)
        finally:
            os.close(fd)


def _entries(fd: int) -> list[str]:
    return sorted(os.listdir(fd), reverse=True)


def _head(name: str, info: os.stat_result, link: str = "", *, hard: bool = False) -> bytes:
    head = tarfile.TarInfo(name)
    head.mode = stat.S_IMODE(info.st_mode)
    head.uid, head.gid = info.st_uid, info.st_gid
    head.mtime = int(info.st_mtime)
    head.linkname = link
    if hard:
        head.type = tarfile.LNKTYPE
    elif stat.S_ISDIR(info.st_mode):
        head.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(info.st_mode):
        head.type = tarfile.SYMTYPE
    elif stat.S_ISFIFO(info.st_mode):
        head.type = tarfile.FIFOTYPE
    elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        head.type = tarfile.CHRTYPE if stat.S_ISCHR(info.st_mode) else tarfile.BLKTYPE
        head.devmajor, head.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
    else:
        head.size = info.st_size
    return head.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
