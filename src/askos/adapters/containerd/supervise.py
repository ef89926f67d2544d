"""A containerd of our own under the data folder: started, adopted, watched, restarted and ended.

It lives in its own session and is init's child, so it outlives this program, even when that is killed; the
next start adopts it. Two programs on one data folder would fight over it, so a lock is held while we watch it.

    <data>/containerd               images, snapshots, metadata
    <data>/run/containerd           socket, state, record of the process
    <data>/log/containerd.log       its log; cut off at 32 MiB, the older half is kept as containerd.log.1
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd import cnicache, config, gvisor, processes, reviving, teardown
from askos.adapters.containerd.processes import Process
from askos.adapters.containerd.rpc import Client, RpcError
from askos.model.errors import SetupError

_SOCKET_LIMIT = 107
_LOG_LIMIT = 32 << 20
_READY_S = 60.0
_FIRST_DELAY_S = 0.1
_LAST_DELAY_S = 5.0
_STEADY_S = 30.0
_LOG = logging.getLogger(__name__)
# The umask: containers' root folders and their /etc/resolv.conf get their modes through it, and not only root inside
# must be able to read them. From outside everything is behind the data folder, which is closed to others.
_LAUNCH = 'umask 022; echo $$ > "$1.new" && mv "$1.new" "$1" && shift && exec "$@"'

CameBack = Callable[[], Awaitable[None]]
"""Awaited after containerd has been restarted and answers again."""


class _Record(msgspec.Struct, frozen=True):
    process: Process
    config_sha256: str


class PrivateContainerd:
    """One containerd under `data`. `instance`: the cloud's short hex id, which its cgroups carry.

    The CNI folders are given, because the network adapter owns them.
    """

    def __init__(
        self,
        data: Path,
        instance: str,
        *,
        cni_bin_dir: Path,
        cni_conf_dir: Path,
        came_back: CameBack | None = None,
        binary: str = "containerd",
    ) -> None:
        self.data = data.resolve()
        self.instance = instance
        self.root = self.data / "containerd"
        self.state = self.data / "run" / "containerd"
        self.socket = self.state / "c.sock"
        self.log = self.data / "log" / "containerd.log"
        self.snapshotter = "overlayfs"
        self.handlers = ["runc"]
        """The OCI runtimes it is configured with, the default first; known once it is started."""
        self.restarts = 0
        self.answering = asyncio.Event()
        """Set while containerd is known to answer."""
        self._cni = (cni_bin_dir.resolve(), cni_conf_dir.resolve())
        self._came_back = came_back
        self._binary = binary
        self._config_path = self.state / "config.toml"
        self._record_path = self.state / "process.json"
        self._process: Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._lock_fd: int | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the containerd that is watched now."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Adopt the containerd that lives here, or start one; returns when it answers. Raises SetupError."""
        self.check()
        for folder in (self.root, self.state, self.log.parent, self.data / "certs.d"):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.root, self.state, self.log.parent):
            folder.chmod(0o700)
        self._lock()
        try:
            await self._start()
        except BaseException:
            self._unlock()
            raise
        self._watcher = asyncio.create_task(self._watch(), name="containerd watcher")

    async def detach(self) -> None:
        """Stop watching; containerd and everything in it go on, to be adopted by the next start."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        self._unlock()

    async def stop(self) -> None:
        """End containerd, its shims and every process in its containers, and take its mounts away.

        What it keeps on disk (images, snapshots, metadata) stays. Networks are the network adapter's to
        remove: stop the sandboxes first where they matter.
        """
        await self.detach()
        process = self._process or self._find()
        if process is not None:
            await self._end(process)
        self._process = None
        self.answering.clear()
        await teardown.end_everything(self.root, self.state, self.socket, self.instance)
        _remove(self._record_path, self._record_path.with_suffix(".pid"), self.socket)

    # Starting

    def check(self) -> None:
        """SetupError, with what to do, when containerd cannot be started here at all."""
        for program, package in ((self._binary, "containerd"), ("runc", "runc")):
            if shutil.which(program) is None:
                raise SetupError(f"{program} is not installed: install the package {package}.")
        if os.geteuid() != 0:
            raise SetupError("containerd needs root: run askos as root, or give the socket of a running containerd.")
        # containerd opens a second socket beside the first, with ".ttrpc" at its end.
        length = len(os.fsencode(self.socket)) + len(".ttrpc")
        if length > _SOCKET_LIMIT:
            raise SetupError(
                f"The data folder's path is {length - _SOCKET_LIMIT} characters too long for unix sockets: "
                f"choose a shorter one than {self.data}."
            )

    async def _start(self) -> None:
        text = await self._make_config(self.socket)
        process = self._find()
        if process is not None:
            record = self._read_record()
            same = record is not None and record.process == process and record.config_sha256 == _digest(text)
            if same and await self._answers(process, self.socket, 20.0):
                self._process = process
                self.answering.set()
                return
            # Containers live on in their shims; only the daemon itself is replaced.
            await self._end(process)
        for name in await asyncio.to_thread(cnicache.remove_broken, self.instance):
            _LOG.info("removed a CNI record that containerd had not finished: %s", name)
        paused = await asyncio.to_thread(reviving.paused, self.instance)
        if paused:
            # Where nobody else looks: to others these containers would seem to be lost.
            aside = self.socket.with_name("r.sock")
            process = await self._launch(await self._make_config(aside), aside)
            await reviving.resume(aside, paused)
            await self._end(process)
            _remove(aside, aside.with_name(f"{aside.name}.ttrpc"))
        self._process = await self._launch(text, self.socket)
        self.answering.set()

    async def _make_config(self, socket: Path) -> str:
        self.snapshotter = "overlayfs" if await config.carries_overlay(self.root) else "native"
        runsc = gvisor.installed()
        program = self.state / "askos-runsc"
        if runsc is not None:
            await asyncio.to_thread(gvisor.write_program, program, runsc)
        self.handlers = ["runc"] if runsc is None else ["runc", gvisor.HANDLER]
        return config.render(
            config.Settings(
                root=self.root,
                state=self.state,
                socket=socket,
                certs=self.data / "certs.d",
                cni_bin_dir=self._cni[0],
                cni_conf_dir=self._cni[1],
                snapshotter=self.snapshotter,
                restrict_oom_score=not config.may_lower_oom_score(),
                disable_apparmor=not config.has_apparmor(),
                enable_selinux=config.has_selinux(),
                runsc=None if runsc is None else program,
            )
        )

    async def _launch(self, text: str, socket: Path) -> Process:
        """Start one with this configuration; returns when it answers."""
        self._config_path.write_text(text)
        pid_path = self._record_path.with_suffix(".pid")
        _remove(pid_path, socket)
        self._trim_log()
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # setsid -f makes it init's child in its own session: it neither dies with us nor is our zombie.
            launcher = await asyncio.create_subprocess_exec(
                "setsid", "-f", "sh", "-c", _LAUNCH, "sh", str(pid_path),
                self._binary, "--config", str(self._config_path),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
            )  # fmt: skip
            await asyncio.wait_for(launcher.wait(), 30)
        finally:
            os.close(log)
        process = await self._launched(pid_path)
        if process is None:
            raise SetupError(f"containerd did not start: {self._last_words()}")
        _write_atomically(self._record_path, msgspec.json.encode(_Record(process, _digest(text))))
        if not await self._answers(process, socket, _READY_S):
            died = not processes.alive(process)
            if not died:
                await self._end(process)
            what = "ended at once" if died else f"did not answer within {_READY_S:.0f} s"
            raise SetupError(f"containerd {what}: {self._last_words()}")
        return process

    async def _launched(self, pid_path: Path) -> Process | None:
        for _ in range(500):
            with contextlib.suppress(OSError, ValueError):
                process = processes.identify(int(pid_path.read_text()))  # noqa: ASYNC240 - a few bytes of /run
                if process is None:
                    return None
                if self._is_ours(process.pid):
                    return process
            await asyncio.sleep(0.01)
        return None

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return f"see {self.log}" + (f"; its last line: {lines[-1][-300:]}" if lines else "")

    # Finding and ending

    def running(self) -> Process | None:
        """The containerd of this folder that lives now, watched by us or not."""
        return self._find()

    def _is_ours(self, pid: int) -> bool:
        arguments = processes.command_line(pid)
        return len(arguments) >= 3 and arguments[-2:] == ["--config", str(self._config_path)]

    def _read_record(self) -> _Record | None:
        try:
            return msgspec.json.decode(self._record_path.read_bytes(), type=_Record)
        except (OSError, msgspec.DecodeError):
            return None

    def _find(self) -> Process | None:
        record = self._read_record()
        if record is not None and processes.alive(record.process) and self._is_ours(record.process.pid):
            return record.process
        # We may have been killed between starting it and writing the record.
        for process in processes.with_arguments("--config", str(self._config_path)):
            if self._is_ours(process.pid):
                return process
        return None

    @staticmethod
    async def _answers(process: Process, socket: Path, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        client = Client(socket)
        try:
            while time.monotonic() < deadline and processes.alive(process):
                try:
                    await client.cri("Status", cri.StatusRequest(), 5.0)
                except RpcError as error:
                    if error.code == "unimplemented":  # it runs, but could not load its CRI part
                        return False
                    await asyncio.sleep(0.03)
                else:
                    return True
            return False
        finally:
            await client.close()

    async def _end(self, process: Process) -> None:
        processes.send(process, signal.SIGTERM)
        if not await processes.ended(process, 10.0):
            processes.send(process, signal.SIGKILL)
            await processes.ended(process, 10.0)

    # Watching

    async def _watch(self) -> None:
        delay = _FIRST_DELAY_S
        while True:
            assert self._process is not None
            since = time.monotonic()
            while not await processes.ended(self._process, 60.0):
                self._trim_log()
            self.answering.clear()
            if time.monotonic() - since > _STEADY_S:
                delay = _FIRST_DELAY_S
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LAST_DELAY_S)
            while True:
                try:
                    await self._start()
                    break
                except (SetupError, OSError, TimeoutError) as error:
                    _LOG.error("containerd cannot be started again: %s", error)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, _LAST_DELAY_S)
            self.restarts += 1
            _LOG.warning("containerd had ended and was started again")
            if self._came_back is not None:
                try:
                    await self._came_back()
                except Exception:
                    _LOG.exception("could not do what follows on a restart of containerd")

    def _trim_log(self) -> None:
        # containerd keeps the file open, so it is copied and cut rather than renamed.
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > _LOG_LIMIT:
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
                os.truncate(self.log, 0)

    def _lock(self) -> None:
        fd = os.open(self.state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise SetupError(
                f"Another askos already uses the data folder {self.data}: stop it, or choose another folder."
            ) from None
        self._lock_fd = fd

    def _unlock(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write_atomically(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)
