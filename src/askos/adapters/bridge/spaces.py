"""Network namespaces that stand for networks, and work done inside of one.

Each is kept alive by a bind mount on `<root>/<network uuid>`, as `ip netns` does it below /run/netns. Everything
blocks and belongs into a worker thread. A namespace is entered by a thread that ends afterwards: no fork (which live
gRPC channels do not survive), and no thread that would have to find its way back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from askos.model.errors import RuntimeFailedError

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MNT_DETACH = 4096, 2
_OWN = "/proc/thread-self/ns/net"
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


class SpaceGoneError(Exception):
    """The namespace of a network is not there (any more): make it again."""


class Spaces:
    """The namespaces `<root>/<network uuid>` of one cloud. The root's name carries the cloud's mark, so that mounts
    which are left over can be told apart."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, uuid: str) -> Path:
        if _NAME.fullmatch(uuid) is None:
            raise RuntimeFailedError(f"Cannot make a network namespace for {uuid!r}: it is not a network's uuid.")
        return self._root / uuid

    def uuids(self) -> list[str]:
        """The networks that have a namespace."""
        return [path.name for path in self._paths() if _is_namespace(path)]

    def sweep(self) -> None:
        """Remove the files that a killed maker or a reboot left without a namespace. Only while nobody makes one."""
        for path in self._paths():
            if not _is_namespace(path):
                path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(self._root.iterdir()) if self._root.is_dir() else []

    def make(self, uuid: str) -> None:
        """Make the namespace; one that is there is fine. RuntimeFailedError when the kernel does not allow it."""
        path = self._path(uuid)
        if _is_namespace(path):
            return
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            _in_thread(lambda: _new_at(path))
        except OSError as error:
            raise RuntimeFailedError(
                f"Cannot make the network namespace {path}: {error.strerror}. This program needs CAP_SYS_ADMIN, and "
                "the folder a file system on which mounts are allowed."
            ) from None

    def open(self, uuid: str) -> int:
        """A descriptor of the namespace, which the caller closes. SpaceGoneError when there is none."""
        path = self._path(uuid)
        if not _is_namespace(path):
            raise SpaceGoneError(uuid)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise SpaceGoneError(uuid) from None

    @contextlib.contextmanager
    def opened(self, uuid: str) -> Iterator[int]:
        """The same, closed in the end."""
        fd = self.open(uuid)
        try:
            yield fd
        finally:
            os.close(fd)

    def inside(self, uuid: str, work: Callable[[], _T]) -> _T:
        """Do `work` in a thread inside the namespace of a network. SpaceGoneError when there is none."""
        with self.opened(uuid) as fd:
            return within(fd, work)

    def remove(self, uuid: str) -> None:
        """Let go of the namespace: the kernel removes it with everything in it. One that is gone is fine."""
        path = self._path(uuid)
        while _is_namespace(path):
            if _libc.umount2(os.fsencode(path), _MNT_DETACH) != 0:
                code = ctypes.get_errno()
                raise OSError(code, f"{path}: {os.strerror(code)}")
        path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove the folder when nothing is in it."""
        if self._root.is_dir() and not any(self._root.iterdir()):
            self._root.rmdir()


def within(fd: int, work: Callable[[], _T]) -> _T:
    """Do `work` in a short-lived thread inside the namespace of this descriptor. OSError when it cannot be entered."""

    def enter() -> _T:
        _enter(fd)
        return work()

    return _in_thread(enter)


def in_each(fds: list[int], make: Callable[[], _T]) -> list[_T]:
    """The same in several namespaces, one after the other, with one thread."""

    def walk() -> list[_T]:
        made = []
        for fd in fds:
            _enter(fd)
            made.append(make())
        return made

    return _in_thread(walk)


def is_own(fd: int) -> bool:
    """Whether this is the namespace that the program itself is in."""
    return os.fstat(fd).st_ino == os.stat(_OWN).st_ino


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _new_at(path: Path) -> None:
    if _libc.unshare(_CLONE_NEWNET) != 0 or _libc.mount(
        _OWN.encode(), os.fsencode(path), None, ctypes.c_ulong(_MS_BIND), None
    ):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _is_namespace(path: Path) -> bool:
    try:
        return os.stat(path).st_dev == os.stat(_OWN).st_dev
    except FileNotFoundError:
        return False


def _in_thread(work: Callable[[], _T]) -> _T:
    done: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # handed to who waits
            failed.append(error)

    thread = threading.Thread(target=run, name="askos-netns", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
