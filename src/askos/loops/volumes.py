"""The end of volumes: their hosts are asked to remove the files, again and again, until they say that it is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from askos.loops.wake import Bell
from askos.model.errors import AskosError, UnavailableError
from askos.model.volumes import Volume
from askos.ports.calls import HostCalls
from askos.ports.volume_store import VolumeStore

_log = logging.getLogger(__name__)

CALL_S = 60.0
"""How long one removal may take: it is the unlinking of a large file."""


class VolumeLoop:
    """Runs until cancelled."""

    def __init__(
        self, volumes: VolumeStore, calls: HostCalls, *, every_s: float = 5.0, silent_us: int = 60_000_000
    ) -> None:
        self._volumes = volumes
        self._calls = calls
        self._every_s = every_s
        self._silent_us = silent_us
        self.bell = Bell()

    async def run(self) -> None:
        """Remove what is to be removed; again at every ring and every few seconds."""
        while True:
            try:
                await self.once()
            except AskosError as error:
                _log.warning("volumes could not be removed: %s", error)
            except Exception:
                _log.exception("removing volumes failed; trying again")
            await self.bell.wait(self._every_s)

    async def once(self) -> None:
        """One pass: hosts side by side, the volumes of each one after the other."""
        by_host: dict[str, list[Volume]] = {}
        for volume in await self._volumes.to_remove():
            by_host.setdefault(volume.host_uuid or "", []).append(volume)
        await asyncio.gather(*(self._on_host(host, volumes) for host, volumes in by_host.items()))
        for uuid in await self._volumes.drop_silent(self._silent_us):
            _log.info("volume %s: its host does not answer; its user need not wait any longer", uuid)

    async def _on_host(self, host_uuid: str, volumes: Iterable[Volume]) -> None:
        for volume in volumes:
            try:
                await self._calls.call(host_uuid, "volume_remove", {"uuid": volume.uuid}, CALL_S)
            except UnavailableError:
                # Not connected, or not to this server: then another one does it, or the host comes back.
                return
            except AskosError as error:
                _log.warning("volume %s could not be removed: %s", volume.uuid, error)
                await self._volumes.failed(volume.uuid, error.message)
            else:
                await self._volumes.removed(volume.uuid, host_uuid)
