"""The names of hosts, as administrators see them beside capsules."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from askos.ports.store import Store

FRESH_S = 1.0
"""How long names are remembered: a host may get another one, also by way of another server."""


class HostNames:
    """Names by uuid, looked up when they are older than `FRESH_S` or one is missing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: dict[str | None, str] = {}
        self._read_at = float("-inf")

    async def _read(self) -> None:
        self._names = {uuid: name for uuid, name in (await self._store.host_names()).items()}  # noqa: C416 - a wider type
        self._read_at = asyncio.get_running_loop().time()

    async def of(self, host_uuids: Collection[str | None]) -> dict[str | None, str]:
        """The names of these hosts, and perhaps of others. None, no host, has none."""
        stale = asyncio.get_running_loop().time() - self._read_at >= FRESH_S
        if stale or any(uuid is not None and uuid not in self._names for uuid in host_uuids):
            await self._read()
        return self._names

    async def one(self, host_uuid: str | None) -> str | None:
        """One host's name; None when there is no such host."""
        return (await self.of([host_uuid])).get(host_uuid) if host_uuid is not None else None

    async def uuid(self, name: str) -> str | None:
        """The host that has this name now."""
        await self._read()
        return next((uuid for uuid, known in self._names.items() if known == name), None)
