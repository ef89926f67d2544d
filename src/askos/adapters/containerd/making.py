"""Making sandboxes and containers, once for each name, and never while leftovers are being swept.

CRI keeps names unique and refuses a second request for one. After a crash of ours, or a call that came to its
deadline, what has the name may be whole (it is returned), half made (it is removed, and made again) or still in the
making (it is waited for).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd.rpc import Client, RpcError

SANDBOX_S = 90.0
CREATE_S = 300.0  # may unpack a large image first
REMOVE_S = 60.0
HELD_S = 5.0
"""How long others may be held up for what is under way."""
_WAIT_S = 20.0

Existing = Callable[[], Awaitable[tuple[str, bool] | None]]
"""Finds what has the name: its id, and whether it is whole."""


class BusyError(Exception):
    """What is under way does not come to its end."""


class Ongoing:
    """How many pieces of work of a kind were begun, and whether any goes on. One is a `with`."""

    def __init__(self) -> None:
        self.begun = 0
        self._ended = 0

    @property
    def idle(self) -> bool:
        """Whether none goes on."""
        return self.begun == self._ended

    def __enter__(self) -> None:
        self.begun += 1

    def __exit__(self, *_: object) -> None:
        self._ended += 1


class Maker:
    """Makes sandboxes and containers. Methods raise RpcError."""

    def __init__(self, client: Client) -> None:
        self._client = client
        # Nothing here waits on its way out: a task that is cancelled twice must not leave the gate closed.
        self._making = 0
        self._idle = asyncio.Event()
        self._held = False
        self._open = asyncio.Event()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold up the making of anything, after what is under way has come to its end. Raises BusyError when that
        takes too long: one container with a large image to unpack must not keep all others waiting."""
        while self._held:
            await self._open.wait()
        self._held = True
        self._open.clear()
        try:
            try:
                async with asyncio.timeout(HELD_S):
                    while self._making:
                        await self._idle.wait()
            except TimeoutError:
                raise BusyError(f"what is being made now takes longer than {HELD_S:g} s") from None
            yield
        finally:
            self._held = False
            self._open.set()

    async def sandbox(self, request: Any, existing: Existing) -> str:
        """Run a sandbox; returns its id."""
        return await self._once("RunPodSandbox", request, SANDBOX_S, existing, self.remove_sandbox)

    async def container(self, request: Any, existing: Existing) -> str:
        """Make a container; returns its id."""
        return await self._once("CreateContainer", request, CREATE_S, existing, self.remove_container)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Stop a sandbox; nothing when it has gone."""
        request = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
        await self._tolerant("StopPodSandbox", request)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Stop and remove a sandbox; nothing when it has gone."""
        await self.stop_sandbox(sandbox_id)
        request = cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        await self._tolerant("RemovePodSandbox", request)

    async def remove_container(self, container_id: str) -> None:
        """Kill and remove a container; nothing when it has gone."""
        request = cri.RemoveContainerRequest(container_id=container_id)
        await self._tolerant("RemoveContainer", request)

    async def _once(
        self,
        method: str,
        request: Any,
        timeout_s: float,
        existing: Existing,
        remove: Callable[[str], Awaitable[None]],
    ) -> str:
        while self._held:
            await self._open.wait()
        self._making += 1
        self._idle.clear()
        try:
            deadline = asyncio.get_running_loop().time() + _WAIT_S
            while True:
                try:
                    return _made(await self._client.cri(method, request, timeout_s))
                except RpcError as error:
                    late = asyncio.get_running_loop().time() > deadline
                    if late or ("is reserved for" not in error.text and error.code != "already_exists"):
                        raise
                found = await existing()
                if found is None:
                    await asyncio.sleep(0.2)
                elif found[1]:
                    return found[0]
                else:
                    await remove(found[0])
        finally:
            self._making -= 1
            if not self._making:
                self._idle.set()

    async def _tolerant(self, method: str, request: Any) -> None:
        try:
            await self._client.cri(method, request, REMOVE_S)
        except RpcError as error:
            if not error.not_found:
                raise


def _made(answer: Any) -> str:
    return str(getattr(answer, "pod_sandbox_id", "") or getattr(answer, "container_id", ""))
