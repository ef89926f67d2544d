"""Prepared sandboxes: made before anybody asks, in no project's network, taken over by the next capsule.

A sandbox is most of the cost of a start, and nothing in it depends on the capsule but its host name, three small
files and its network. A prepared one is given these when it is taken; containers get labels, logs and control groups
from their own requests. What cannot be changed afterwards (OCI runtime, sysctls, a shared process namespace) makes a
sandbox that is asked for ineligible: it is made the cold way.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd import spec
from askos.adapters.containerd.adopting import Adopter, Plug, Ready
from askos.adapters.containerd.adoptions import PREPARED, Adoptions
from askos.adapters.containerd.making import Existing, Maker
from askos.adapters.containerd.rpc import Client, RpcError
from askos.model.errors import AskosError
from askos.ports.runtime import SandboxConfig

UID_PREFIX = "prepared-"
"""How the pod uid (K8S_POD_UID) of a prepared sandbox begins."""

_QUIET_S = 0.5
_AGAIN_S = 5.0
_CALL_S = 10.0
_CLOSE_S = 5.0
_LEAST_FREE = 256 << 20
_UNSURE_LIMIT = 1000
_log = logging.getLogger(__name__)


class Warm:
    """The prepared sandboxes of one cloud in one containerd.

    `make_config` gives CRI's PodSandboxConfig for a SandboxConfig. `plug` is None where the network plugin needs no
    help (it knows no capsules). `default_handler` tells the OCI runtime that "" means.
    """

    def __init__(
        self,
        client: Client,
        maker: Maker,
        adoptions: Adoptions,
        instance: str,
        *,
        make_config: Callable[[SandboxConfig], Any],
        plug: Plug | None,
        default_handler: Callable[[], str],
    ) -> None:
        self._client = client
        self._maker = maker
        self._adoptions = adoptions
        self._instance = instance
        self._make_config = make_config
        self._adopter = Adopter(adoptions, plug, self._discard)
        self._default_handler = default_handler
        self._wanted = 0
        self._ready: list[Ready] = []
        self._root: Path | None = None
        """CRI's folder with the files of sandboxes."""
        self._keeper: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._under_way = 0
        self._last = 0.0
        """When the last start ended, in the event loop's time."""
        self._locks: dict[tuple[str, int], tuple[asyncio.Lock, int]] = {}
        self._unsure: dict[tuple[str, int], None] = {}
        """Sandboxes whose making the cold way was broken off: containerd may still be at it."""

    @property
    def ready(self) -> int:
        """How many are ready to be taken now."""
        return len(self._ready)

    # -- keeping some ready ---------------------------------------------------------------------------------------

    async def prepare(self, count: int) -> None:
        """Keep so many ready from now on; see `ports.runtime.Runtime.prepare`. Raises RpcError."""
        self._wanted = count
        if count == 0:
            await self.close()
            self._ready.clear()
            await self._recover()
        elif self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(), name="prepared sandboxes")
        else:
            self._wake.set()

    async def close(self) -> None:
        """Prepare no more. What is ready stays for the next start of the program."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self._adopter.settled(timeout_s=_CLOSE_S)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Around each step of a start: no sandbox is prepared meanwhile and just after."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._last = asyncio.get_running_loop().time()

    async def _keep(self) -> None:
        recovered = False
        while True:
            try:
                if not recovered:
                    await self._recover()
                    recovered = True
                self._wake.clear()
                if len(self._ready) > self._wanted:
                    await self._discard(self._ready.pop().id)
                elif len(self._ready) == self._wanted:
                    await self._wake.wait()
                else:
                    await self._quiet()
                    await self._make()
            except (RpcError, AskosError, OSError) as error:
                _log.info("cannot prepare sandboxes now: %s", error)
                await asyncio.sleep(_AGAIN_S)
            except Exception:
                _log.exception("preparing sandboxes failed")
                await asyncio.sleep(_AGAIN_S)

    async def _quiet(self) -> None:
        """Wait until no start is under way nor has been just now, and there is memory to spare."""
        loop = asyncio.get_running_loop()
        while True:
            if self._under_way:
                await asyncio.sleep(_QUIET_S)
            elif (rest := self._last + _QUIET_S - loop.time()) > 0:
                await asyncio.sleep(rest)
            elif (free := free_memory()) < _LEAST_FREE:
                _log.debug("no sandbox is prepared: only %d MiB of memory are free", free >> 20)
                await asyncio.sleep(_AGAIN_S)
            else:
                return

    async def _make(self) -> None:
        async def nobody() -> tuple[str, bool] | None:
            return None  # its name is new

        made = await self._maker.sandbox(cri.RunPodSandboxRequest(config=self._blank()), nobody)
        ready = await self._inspect(made)
        if ready is None:
            await self._discard(made)
        else:
            self._ready.append(ready)

    def _blank(self) -> Any:
        """The config of a sandbox that is nobody's."""
        uid = UID_PREFIX + str(uuid.uuid4())
        config = self._make_config(SandboxConfig(uid, "", "", 0, "prepared", ["127.0.0.1"]))
        config.log_directory = ""
        config.ClearField("labels")
        config.labels.update({spec.INSTANCE: self._instance, PREPARED: _fingerprint(config)})
        return config

    async def _recover(self) -> None:
        """Sort out what is there: adopt ready ones again, remove what is half anybody's, more than wanted or outdated.

        Also run with none wanted, and then removes all.
        """
        before = set(self._adoptions.all())
        labels = {spec.INSTANCE: self._instance}
        answer = await self._list(labels)
        for sandbox_id in before - {item.id for item in answer}:
            self._adoptions.remove(sandbox_id)
        kind = self._blank().labels[PREPARED]
        known = {ready.id for ready in self._ready}
        for item in answer:
            adoption = self._adoptions.all().get(item.id)
            if item.id in known or (adoption is not None and self._adoptions.valid(adoption)):
                continue
            if adoption is None and PREPARED not in item.labels:
                continue
            usable = adoption is None and item.state == cri.SANDBOX_READY and item.labels[PREPARED] == kind
            ready = await self._inspect(item.id) if usable and len(self._ready) < self._wanted else None
            if ready is not None:
                self._ready.append(ready)
            else:
                await self._discard(item.id)

    async def _list(self, labels: dict[str, str]) -> list[Any]:
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=labels))
        return list((await self._client.cri("ListPodSandbox", request, _CALL_S)).items)

    async def _inspect(self, sandbox_id: str) -> Ready | None:
        """What adopting it needs to know; None when it cannot be adopted."""
        if self._root is None:
            status = await self._client.cri("Status", cri.StatusRequest(verbose=True), _CALL_S)
            self._root = Path(json.loads(status.info["config"])["rootDir"]) / "sandboxes"
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
        try:
            answer = await self._client.cri("PodSandboxStatus", request, _CALL_S)
        except RpcError as error:
            if error.not_found:
                return None
            raise
        info = json.loads(answer.info["info"])
        namespaces = ((info.get("runtimeSpec") or {}).get("linux") or {}).get("namespaces") or []
        netns = next((n.get("path", "") for n in namespaces if n.get("type") == "network"), "")
        if not info.get("pid") or not netns or not (self._root / sandbox_id / "hostname").exists():
            _log.info("the prepared sandbox %s cannot be used: its process or files are not where expected", sandbox_id)
            return None
        return Ready(sandbox_id, info["pid"], netns, self._root / sandbox_id)

    async def _discard(self, sandbox_id: str) -> None:
        await self._maker.remove_sandbox(sandbox_id)
        self._adoptions.remove(sandbox_id)

    # -- taking one -----------------------------------------------------------------------------------------------

    def fits(self, config: SandboxConfig) -> bool:
        """Whether a prepared sandbox can become this one."""
        usual = config.handler in ("", self._default_handler()) and not config.sysctls and not config.share_pid
        return usual and self._wanted > 0

    async def run(self, config: SandboxConfig, existing: Existing, cold: Callable[[], Awaitable[str]]) -> str:
        """The sandbox of this config: the one there is, a prepared one, or else what `cold` makes.

        `existing` finds the capsule's sandbox of this attempt. Raises RpcError.
        """
        key = (config.capsule_uuid, config.attempt)
        async with self._alone(key):
            eligible = bool(self._ready) and self.fits(config) and key not in self._unsure
            if (eligible and not config.first) or self._adoptions.of_capsule(config.capsule_uuid):
                found = await existing()
                if found is not None and found[1]:
                    return found[0]
                if found is not None:
                    await self._discard(found[0])
            taken = await self._take(config) if eligible else None
            if taken is not None:
                return taken
            if len(self._unsure) > _UNSURE_LIMIT:
                del self._unsure[next(iter(self._unsure))]
            self._unsure[key] = None
            made = await cold()
            self._unsure.pop(key, None)
            return made

    async def _take(self, config: SandboxConfig) -> str | None:
        while self._ready:
            ready = self._ready.pop(0)
            self._wake.set()
            if await self._adopter.adopt(ready, config):
                return ready.id
        return None

    async def finished(self, sandbox_id: str) -> None:
        """Wait until a sandbox that was taken has its network too. Raises what kept it from that; it is gone then."""
        await self._adopter.finished(sandbox_id)

    async def settled(self, sandbox_id: str) -> None:
        """Wait until nothing is done to a sandbox here."""
        await self._adopter.settled(sandbox_id)

    @contextlib.asynccontextmanager
    async def _alone(self, key: tuple[str, int]) -> AsyncIterator[None]:
        """One call at a time for each sandbox that is asked for."""
        lock, waiting = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[key]
            if waiting == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, waiting - 1)


def free_memory() -> int:
    """Bytes that the kernel could give without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _fingerprint(config: Any) -> str:
    """Tells sandboxes of another version of this program, which may have been made differently."""
    plain = cri.PodSandboxConfig()
    plain.CopyFrom(config)
    plain.ClearField("metadata")
    return hashlib.sha256(plain.SerializeToString(deterministic=True)).hexdigest()[:16]
