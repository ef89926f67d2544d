"""Local files to a tar archive, and back again, bit by bit.

An archive may come from a container that means ill: nothing is written outside of where the user wants it, not through
links either, and no special files or set-user-id bits are taken over; owners only if the user says so.
"""

from __future__ import annotations

import io
import itertools
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from askos.client.errors import ClientError

CHUNK = 256 * 1024
Complain = Callable[[str], None]


def pack(source: Path, name: str, complain: Complain, *, owners: bool = False) -> Iterator[bytes]:
    """The archive of a file or folder, with `name` at its top ("" for only what is in the folder); owned by root, or
    with `owners` by whom it is owned here.

    Links are packed as links. What is neither file, folder nor link is left out and complained about. OSError.
    """
    for path, inner in _walk(source, name):
        info = tarfile.TarInfo(inner)
        found = path.lstat()
        info.mode, info.mtime = stat.S_IMODE(found.st_mode), int(found.st_mtime)
        if owners:
            info.uid, info.gid = found.st_uid, found.st_gid
        if stat.S_ISLNK(found.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        elif stat.S_ISDIR(found.st_mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISREG(found.st_mode):
            yield from _file(path, info)
            continue
        else:
            complain(f"{path} is left out: it is neither a file nor a folder nor a link")
            continue
        yield _head(info)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _walk(source: Path, name: str) -> Iterator[tuple[Path, str]]:
    if name:
        yield source, name
    if source.is_symlink() and name:
        return
    if source.is_dir():
        for entry in sorted(os.listdir(source)):
            inner = f"{name}/{entry}" if name else entry
            yield from _walk(source / entry, inner)


def _file(path: Path, info: tarfile.TarInfo) -> Iterator[bytes]:
    with path.open("rb") as source:
        info.size = os.fstat(source.fileno()).st_size
        yield _head(info)
        left = info.size
        while left:
            # A file that shrinks meanwhile is filled up: the archive has promised its size.
            data = source.read(min(CHUNK, left)) or bytes(min(CHUNK, left))
            left -= len(data)
            yield data
    yield bytes(-info.size % tarfile.BLOCKSIZE)


def _head(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class _Reader(io.RawIOBase):
    """Pieces as a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def top_link(pieces: Iterator[bytes]) -> tuple[str | None, Iterator[bytes]]:
    """Where the link at the top of an archive leads to, None if there is none there; and the whole archive again."""
    seen: list[bytes] = []

    def noted() -> Iterator[bytes]:
        for piece in pieces:
            seen.append(piece)
            yield piece

    try:
        with tarfile.open(fileobj=io.BufferedReader(_Reader(noted()), tarfile.RECORDSIZE), mode="r|") as tar:
            first = tar.next()
    except tarfile.TarError:
        first = None  # Who unpacks it says so.
    link = first.linkname if first is not None and first.issym() else None
    return link, itertools.chain(seen, pieces)


def unpack(
    pieces: Iterable[bytes],
    destination: str,
    *,
    contents: bool,
    complain: Complain,
    name: str = "",
    owners: bool = False,
) -> None:
    """Put an archive with one thing at its top where the user wants it, by docker's rules: into a folder that is there,
    else under that name. `contents`: of a folder only what is in it. `name`: what its top is called here, if not as
    in the archive. `owners`: files keep uid and gid. ClientError, OSError.
    """
    target: _Target | None = None
    source = io.BufferedReader(_Reader(pieces), CHUNK)
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            for member in tar:
                top, _, inner = member.name.strip("/").partition("/")
                if target is None:
                    at = _base(destination, name or top, folder=member.isdir(), contents=contents)
                    target = _Target(at, complain, owners=owners)
                target.put(tar, member, inner)
    except tarfile.TarError as error:
        raise ClientError(f"what came is not a tar archive ({error}). Try again") from None
    if target is None:
        raise ClientError("what came is an empty archive. Try again")
    target.finish()


def _base(destination: str, name: str, *, folder: bool, contents: bool) -> Path:
    """Where the top of the archive goes."""
    there = Path(destination)
    if there.is_dir():
        return there if folder and contents else there / name
    if there.exists():
        if folder:
            raise ClientError(f"{destination} is a file, and what is to be copied is a folder. Name a folder")
        return there
    if destination.endswith("/") and not folder:
        raise ClientError(f"there is no folder {destination}. Make it first, or leave the last / out")
    if not there.parent.is_dir():
        raise ClientError(f"there is no folder {there.parent}. Make it first")
    return there


class _Target:
    def __init__(self, base: Path, complain: Complain, *, owners: bool) -> None:
        self._base = base
        self._owners = owners
        self._root = Path(os.path.realpath(base))
        self._complain = complain
        self._folders: list[tuple[Path, tarfile.TarInfo]] = []

    def put(self, tar: tarfile.TarFile, member: tarfile.TarInfo, inner: str) -> None:
        path = self._inside(inner)
        if member.isdir():
            if inner and path.is_symlink():
                path.unlink()
            path.mkdir(exist_ok=True)
            self._folders.append((path, member))
        elif member.isreg():
            data = tar.extractfile(member)
            assert data is not None
            self._write(path, data, member, top=not inner)
        elif member.issym():
            self._clear(path)
            path.symlink_to(member.linkname)
            self._give(path, member)
        elif member.islnk():
            self._clear(path)
            os.link(self._inside(member.linkname.strip("/").partition("/")[2]), path, follow_symlinks=False)
        else:
            self._complain(f"{member.name} is left out: it is neither a file nor a folder nor a link")

    def finish(self) -> None:
        """Modes and times of folders, last: one that may not be written to could not be filled."""
        for path, member in reversed(self._folders):
            self._look_like(path, member)

    def _inside(self, inner: str) -> Path:
        """The local path. ClientError when it leads outside of the destination."""
        parts = inner.split("/") if inner else []
        path = self._base.joinpath(*parts)
        if parts:
            parent = Path(os.path.realpath(path.parent))
            if {"", ".", ".."} & set(parts) or not parent.is_relative_to(self._root):
                raise ClientError(
                    f"the archive has an entry that leads out of its folder: {inner!r}. Nothing more is copied"
                )
        return path

    @staticmethod
    def _clear(path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            raise ClientError(f"{path} is a folder, and what is to be copied there is not. Remove it first")
        path.unlink(missing_ok=True)

    def _write(self, path: Path, data: IO[bytes], member: tarfile.TarInfo, *, top: bool) -> None:
        # What the user names himself is written to as it is, also through a link of his own.
        if not (top and path.exists() and not path.is_dir()):
            self._clear(path)
        with path.open("wb") as target:
            while piece := data.read(CHUNK):
                target.write(piece)
        self._look_like(path, member)

    def _look_like(self, path: Path, member: tarfile.TarInfo) -> None:
        self._give(path, member)
        path.chmod(member.mode & 0o777)
        os.utime(path, (member.mtime, member.mtime))

    def _give(self, path: Path, member: tarfile.TarInfo) -> None:
        """Its owner, before its mode. ClientError when that is somebody else, and we are not root."""
        if not self._owners:
            return
        try:
            os.chown(path, member.uid, member.gid, follow_symlinks=not member.issym())
        except PermissionError:
            raise ClientError(
                f"{path} cannot be given to {member.uid}:{member.gid}: only root may do that. Leave out -a"
            ) from None
