"""`ports.volumes.HostVolumes`: every capsule has a folder, and nothing of it lies anywhere else.

    <root>/<capsule uuid>/folder/<name>         emptyDir on disk
                          memory/<name>         tmpfs
                          files/<name>          content
                          secret/<name>         content in a tmpfs
                          block/<name>          the volume service's, by loop device
                          parts/<holder>/<id>   sub paths, bound
                          single/<name>         single files
                          messages/<container>/<attempt>
                          given/<name>          which group a volume was given to

What is there says what was done; nothing is remembered in memory but locks, so a new process goes on where the last
one was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import stat
import threading
import uuid as uuids
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from askos.adapters.volumes import content, kernel, subpath, tree
from askos.adapters.volumes.image import Images
from askos.model.errors import AskosError, InvalidError, NotFoundError, RuntimeFailedError
from askos.ports.volumes import HostVolume

MESSAGE_LIMIT = 4096
_KINDS = ("folder", "memory", "files", "secret", "block")
_CONTENT_LIMIT = "64m"
"""Of a tmpfs with secrets: they are limited long before, this only keeps a mistake from eating the host's memory."""
_THREADS = 8
LOCK_S = 60.0
"""How long work waits for earlier work on the same capsule or volume. Making a file system may take longer: then it
is tried again."""
_T = TypeVar("_T")


class Volumes:
    """The volumes of one host. `root`: capsules' folders; `volume_root`: files of the volume service.

    All work is done in threads of its own; work on one capsule, and on one file of the volume service, one after the
    other, also when the caller was cancelled in between.
    """

    def __init__(self, root: Path, volume_root: Path) -> None:
        # Links in the path would hide our mounts from us: the kernel lists them without.
        self._root = Path(os.path.realpath(root))
        self._images = Images(Path(os.path.realpath(volume_root)))
        self._locks = _Locks()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="askos-volumes")
        self._measuring = ThreadPoolExecutor(1, thread_name_prefix="askos-usage")

    # -- making ------------------------------------------------------------------------------------------------

    async def set_up(
        self, capsule_uuid: str, volumes: list[HostVolume], fs_group: int | None, *, on_root_mismatch: bool = False
    ) -> dict[str, str]:
        """See `ports.volumes.HostVolumes`."""

        def work() -> dict[str, str]:
            self._folder(capsule_uuid).mkdir(mode=0o700, parents=True, exist_ok=True)
            made = {}
            for volume in volumes:
                path = self._path(capsule_uuid, volume)
                with _telling(f'set up volume "{volume.name}"'):
                    self._make(path, volume, fs_group)
                    if fs_group is not None and volume.kind in ("folder", "block"):
                        self._give(capsule_uuid, path, volume, fs_group, on_root_mismatch)
                made[volume.name] = str(path)
            return made

        return await self._run(capsule_uuid, work)

    async def write_files(self, capsule_uuid: str, volume: HostVolume, fs_group: int | None) -> None:
        """See `ports.volumes.HostVolumes`."""

        def work() -> None:
            with _telling(f'write the files of volume "{volume.name}"'):
                self._make(self._path(capsule_uuid, volume), volume, fs_group)

        await self._run(capsule_uuid, work)

    def _make(self, path: Path, volume: HostVolume, fs_group: int | None) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if volume.kind == "folder":
            _open_folder(path)
            return
        path.mkdir(mode=0o700, exist_ok=True)
        if volume.kind == "memory":
            size = f",size={volume.size_bytes}" if volume.size_bytes else ""
            # The group by mount option: a tmpfs is new, and root's, after each start of the machine.
            rights = "mode=0777" if fs_group is None else f"mode=02777,gid={fs_group}"
            self._tmpfs(path, rights + size, "")
        elif volume.kind == "files":
            content.check(volume.files)
            if volume.secret:
                self._tmpfs(path, f"mode=0755,size={_CONTENT_LIMIT}", ",noswap")
            content.write(str(path), volume.files, fs_group)
        else:
            with self._locks.held(f"volume {volume.uuid}"):
                self._images.mount(volume.uuid, volume.size_bytes, str(path), read_only=volume.read_only)

    def _tmpfs(self, path: Path, options: str, better: str) -> None:
        """`better`: options that only newer kernels know."""
        if kernel.mounted(str(path)) is not None:
            return
        for more in dict.fromkeys((better, "")):
            try:
                kernel.mount("tmpfs", str(path), "tmpfs", kernel.MS_NODEV, options + more)
            except OSError:
                if not more:
                    raise
            else:
                break
        kernel.make_private(str(path))

    def _give(self, capsule_uuid: str, path: Path, volume: HostVolume, group: int, on_root_mismatch: bool) -> None:
        """Once for each capsule: a million files are not looked at again when the agent is restarted."""
        if volume.kind == "block" and volume.read_only:
            return
        note = self._folder(capsule_uuid) / "given" / volume.name
        with contextlib.suppress(FileNotFoundError):
            if note.read_text() == str(group):
                return
        # Only root has business in what e2fsck finds.
        but = "lost+found" if volume.kind == "block" else ""
        tree.give_to_group(str(path), group, only_if_root_differs=on_root_mismatch, but=but)
        note.parent.mkdir(mode=0o700, exist_ok=True)
        note.write_text(str(group))

    async def sub_path(self, capsule_uuid: str, volume: str, sub_path: str, holder: str) -> str:
        """See `ports.volumes.HostVolumes`."""
        parts = subpath.check(sub_path)
        mark = hashlib.sha256(f"{volume}\0{'/'.join(parts)}".encode()).hexdigest()[:16]
        target = self._folder(capsule_uuid) / "parts" / _word(holder) / mark

        def work() -> str:
            base = next((p for k in _KINDS if (p := self._folder(capsule_uuid) / k / _word(volume)).is_dir()), None)
            if base is None:
                raise NotFoundError(f'Cannot use the sub path {sub_path!r}: there is no volume "{volume}".')
            with _telling(f'use the sub path {sub_path!r} of volume "{volume}"'):
                subpath.hold(str(base), parts, target)
            return str(target)

        return await self._run(capsule_uuid, work)

    async def file(self, capsule_uuid: str, name: str, data: bytes, mode: int = 0o644) -> str:
        """See `ports.volumes.HostVolumes`."""
        path = self._folder(capsule_uuid) / "single" / _word(name)

        def work() -> str:
            with _telling(f"write the file {name}"):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                try:
                    if os.pread(fd, len(data) + 1, 0) != data:
                        written = 0
                        while written < len(data):
                            written += os.pwrite(fd, data[written:], written)
                        os.ftruncate(fd, len(data))
                    os.fchmod(fd, mode)
                finally:
                    os.close(fd)
            return str(path)

        return await self._run(capsule_uuid, work)

    # -- messages and measures ---------------------------------------------------------------------------------

    def _message(self, capsule_uuid: str, container: str, attempt: int) -> Path:
        return self._folder(capsule_uuid) / "messages" / _word(container) / str(int(attempt))

    async def message_file(self, capsule_uuid: str, container: str, attempt: int) -> str:
        """See `ports.volumes.HostVolumes`."""
        path = self._message(capsule_uuid, container, attempt)

        def work() -> str:
            with _telling(f"make a file for the termination message of {container}"):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                try:
                    # Not by the mode of open, which the umask would cut.
                    os.fchmod(fd, 0o666)
                finally:
                    os.close(fd)
            return str(path)

        return await self._run(capsule_uuid, work)

    async def message(self, capsule_uuid: str, container: str, attempt: int) -> bytes:
        """See `ports.volumes.HostVolumes`."""
        path = self._message(capsule_uuid, container, attempt)
        return await self._in_thread(lambda: _tail_of_file(path))

    async def usage(self, capsule_uuid: str) -> dict[str, int]:
        """See `ports.volumes.HostVolumes`."""

        def work() -> dict[str, int]:
            folder = self._folder(capsule_uuid) / "folder"
            used = {}
            for name in (n for n in _names(folder) if not n.startswith(".")):
                with contextlib.suppress(FileNotFoundError):
                    used[name] = tree.usage(str(folder / name))
            return used

        # By itself, and without the capsule's lock: a big tree takes its time, and nobody waits for this.
        with _telling(f"measure the volumes of capsule {capsule_uuid}"):
            return await asyncio.get_running_loop().run_in_executor(self._measuring, work)

    # -- removing ----------------------------------------------------------------------------------------------

    async def tear_down(self, capsule_uuid: str) -> None:
        """See `ports.volumes.HostVolumes`."""
        await self._run(capsule_uuid, partial(self._tear_down, capsule_uuid))

    def _tear_down(self, capsule_uuid: str) -> None:
        with _telling(f"remove the volumes of capsule {capsule_uuid}"):
            folder = str(self._folder(capsule_uuid))
            kernel.unmount_below(folder)
            tree.remove(folder)

    async def remove_volume(self, uuid: str) -> None:
        """See `ports.volumes.HostVolumes`."""

        def work() -> None:
            with self._locks.held(f"volume {uuid}"), _telling(f"remove volume {uuid}"):
                self._images.remove(uuid)

        await self._in_thread(work)

    def present(self, capsule_uuid: str) -> bool:
        """See `ports.volumes.HostVolumes`."""
        return self._folder(capsule_uuid).exists()

    async def collect(self, live: set[str]) -> list[str]:
        """See `ports.volumes.HostVolumes`."""
        # Looked up before anything else happens: what is set up from now on is not in the caller's `live`.
        strange = [name for name in _names(self._root) if name not in live and _is_uuid(name)]
        for name in strange:
            await self.tear_down(name)
        return strange

    async def unmount_all(self) -> None:
        """See `ports.volumes.HostVolumes`."""

        def work() -> None:
            with _telling("unmount the volumes of all capsules"):
                kernel.unmount_below(str(self._root))

        await self._in_thread(work)

    # -- threads -----------------------------------------------------------------------------------------------

    def _folder(self, capsule_uuid: str) -> Path:
        return self._root / _word(capsule_uuid)

    def _path(self, capsule_uuid: str, volume: HostVolume) -> Path:
        kind = "secret" if volume.kind == "files" and volume.secret else volume.kind
        return self._folder(capsule_uuid) / kind / _word(volume.name)

    async def _run(self, capsule_uuid: str, work: Callable[[], _T]) -> _T:
        """Work on one capsule, when what was begun before is done."""

        def locked() -> _T:
            with self._locks.held(f"capsule {capsule_uuid}"):
                return work()

        return await self._in_thread(locked)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


class _Locks:
    """A lock for each name that somebody holds or waits for. Of threads, not of tasks: a thread goes on when the
    task that waits for it is cancelled."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: dict[str, tuple[threading.Lock, int]] = {}

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        with self._guard:
            lock, users = self._held.get(name, (threading.Lock(), 0))
            self._held[name] = (lock, users + 1)
        try:
            # Threads cannot be called back: those that wait for one that hangs must not take up the whole pool.
            if not lock.acquire(timeout=LOCK_S):
                raise RuntimeFailedError(f"Cannot work on {name}: what was begun on it before does not end.")
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                lock, users = self._held.pop(name)
                if users > 1:
                    self._held[name] = (lock, users - 1)


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    """Says what could not be done when the kernel refuses."""
    try:
        yield
    except AskosError:
        raise
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        reason = (error.strerror or str(error)).lower()
        raise RuntimeFailedError(f"Cannot {what}: {reason}{where}.") from error


def _word(name: str) -> str:
    """A name that is one part of a path."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise InvalidError(f"Cannot use {name!r} as a name: it would lead to another folder.")
    return name


def _is_uuid(name: str) -> bool:
    try:
        return str(uuids.UUID(name)) == name
    except ValueError:
        return False


def _open_folder(path: Path) -> None:
    """A folder for everybody. It appears with its rights: what a container makes of them later is its own affair."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}")
    draft.mkdir(exist_ok=True)
    draft.chmod(0o777)
    draft.rename(path)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _tail_of_file(path: Path) -> bytes:
    """The end of a regular file; nothing of anything else. A container may have put a pipe or a link there: it is
    looked at before it is opened, and what is opened is what was looked at."""
    try:
        there = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        info = os.fstat(there)
        if not stat.S_ISREG(info.st_mode):
            return b""
        fd = os.open(f"/proc/self/fd/{there}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.pread(fd, MESSAGE_LIMIT, max(0, info.st_size - MESSAGE_LIMIT))
        finally:
            os.close(fd)
    except OSError:
        return b""
    finally:
        os.close(there)
