"""Making a prepared sandbox a capsule's.

The order is: claim, host name and files, network, whole record. The network is plugged while the caller goes on: its
first container is made meanwhile, and only that waits for the end. What fails is undone here, and a crash anywhere
leaves a claim, whose sandbox the next start removes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from askos.adapters.containerd.adoptions import Adoption, Adoptions
from askos.adapters.containerd.personal import set_hostname, write_files
from askos.adapters.containerd.rpc import RpcError
from askos.model.errors import AskosError, RuntimeFailedError
from askos.ports.clock import now_us
from askos.ports.runtime import SandboxConfig

Plug = Callable[[str, str, str], Awaitable[None]]
"""Connects a sandbox's network namespace to a capsule's networks: (sandbox id, namespace's path, capsule uuid)."""

_log = logging.getLogger(__name__)


class Ready(msgspec.Struct, frozen=True):
    """A prepared sandbox: its pause process, its network namespace, and containerd's folder with its files."""

    id: str
    pid: int
    netns: str
    folder: Path


class Adopter:
    """Does it. `discard` removes a sandbox with its record."""

    def __init__(self, adoptions: Adoptions, plug: Plug | None, discard: Callable[[str], Awaitable[None]]) -> None:
        self._adoptions = adoptions
        self._plug = plug
        self._discard = discard
        self._finishing: dict[str, asyncio.Task[None]] = {}
        """By sandbox id; what has failed stays until somebody has asked."""
        self._undoing: set[asyncio.Task[None]] = set()

    async def adopt(self, ready: Ready, config: SandboxConfig) -> bool:
        """Make a sandbox the capsule's, all but its network, which follows: see `finished`.

        False when it cannot be used; it is removed then.
        """
        adoption = Adoption(
            ready.id, config.capsule_uuid, config.attempt, config.name, config.project_id, at_us=now_us()
        )
        try:
            self._adoptions.claim(adoption)
            await asyncio.to_thread(_personalise, ready, config)
        except asyncio.CancelledError:
            # Not awaited: who cancels is not made to wait.
            undoing = asyncio.create_task(self._undo(ready.id))
            self._undoing.add(undoing)
            undoing.add_done_callback(self._undoing.discard)
            raise
        except Exception as error:
            # Whatever it is, there are other sandboxes, and the cold way; that says what is wrong if it fails too.
            odd = not isinstance(error, OSError)
            _log.log(
                logging.ERROR if odd else logging.INFO,
                "the prepared sandbox %s cannot be used: %s", ready.id, error, exc_info=odd,
            )  # fmt: skip
            await self._undo(ready.id)
            return False
        finishing = asyncio.create_task(self._finish(ready, adoption), name=f"network of {ready.id}")
        self._finishing[ready.id] = finishing
        finishing.add_done_callback(lambda task: self._finished(ready.id, task))
        return True

    async def finished(self, sandbox_id: str) -> None:
        """Wait until a sandbox is its capsule's in every respect. Raises what kept it from that, once."""
        finishing = self._finishing.get(sandbox_id)
        if finishing is not None:
            try:
                await asyncio.shield(finishing)
            finally:
                if finishing.done():
                    self._finishing.pop(sandbox_id, None)

    async def settled(self, sandbox_id: str | None = None, timeout_s: float | None = None) -> None:
        """Wait until nothing is done to a sandbox here (None: to any), well or badly, or the time has passed."""
        tasks = list(self._finishing.values()) if sandbox_id is None else [self._finishing.get(sandbox_id)]
        pending = [task for task in tasks if task is not None]
        pending += self._undoing if sandbox_id is None else []
        if pending:
            await asyncio.wait(pending, timeout=timeout_s)

    async def _finish(self, ready: Ready, adoption: Adoption) -> None:
        begun = time.perf_counter()
        try:
            if self._plug is not None:
                await self._plug(ready.id, ready.netns, adoption.capsule_uuid)
            plugged = time.perf_counter()
            await asyncio.to_thread(self._adoptions.complete, adoption)
        except Exception as error:
            await self._undo(ready.id)
            if isinstance(error, OSError):
                message = f"Could not finish the sandbox of the capsule: {error.strerror or error}. It is made again."
                raise RuntimeFailedError(message) from error
            raise
        ended = time.perf_counter()
        _log.debug(
            "capsule %s has taken sandbox %s: network %.1f ms, record %.1f ms",
            adoption.capsule_uuid, ready.id, (plugged - begun) * 1e3, (ended - plugged) * 1e3,
        )  # fmt: skip

    def _finished(self, sandbox_id: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._finishing.pop(sandbox_id, None)

    async def _undo(self, sandbox_id: str) -> None:
        self._adoptions.forsake(sandbox_id)
        try:
            await self._discard(sandbox_id)
        except (RpcError, AskosError) as error:
            _log.info("the sandbox %s, of which a capsule could not be made, stays for now: %s", sandbox_id, error)


def _personalise(ready: Ready, config: SandboxConfig) -> None:
    set_hostname(ready.pid, ready.netns, config.hostname)
    write_files(ready.folder, config)
