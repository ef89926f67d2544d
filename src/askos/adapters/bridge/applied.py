"""The tables of packet rules as they were last made true, of the host and of each network."""

from __future__ import annotations

import logging

from askos.adapters.bridge import nft, tables
from askos.adapters.bridge.spaces import Spaces
from askos.adapters.bridge.tables import Table
from askos.adapters.bridge.workers import Workers
from askos.model.errors import SetupError

_log = logging.getLogger(__name__)
HOST = ""
"""The key of the host's own table among those of the networks, which have their uuids."""


class Applied:
    """Who calls holds the lock of the fabric."""

    def __init__(self, spaces: Spaces, workers: Workers) -> None:
        self._spaces = spaces
        self._workers = workers
        self._tables: dict[str, Table] = {}
        self.replaced = 0
        """How often a table was replaced as a whole."""

    def __contains__(self, key: str) -> bool:
        return key in self._tables

    def forget(self, key: str) -> None:
        """What stands is not known: the next table is made as a whole."""
        self._tables.pop(key, None)

    def clear(self) -> None:
        """Nothing stands."""
        self._tables = {}

    async def apply(self, key: str, table: Table) -> None:
        """Make a table true: by what differs from what was applied last, or as a whole. SetupError when nft or the
        kernel cannot."""
        before = self._tables.get(key)
        text = None if before is None else tables.change(before, table)
        if text == "":
            return
        if before is not None and text is not None:
            # Until it has succeeded nobody knows what stands.
            del self._tables[key]
            try:
                await self._nft(key, text)
            except nft.NftError as error:
                _log.warning("The rules of %s are made anew: %s", key or "the host", error.strerror)
            else:
                self._tables[key] = tables.changed(before, table)
                return
        try:
            await self._nft(key, tables.replacement(table))
        except nft.NftError as error:
            raise SetupError(
                f"Cannot set the packet rules inet {table.name}: nft says: {error.strerror} "
                "The kernel needs nf_tables with NAT (modules nf_tables, nft_nat, nft_masq, nft_ct) and this program "
                "CAP_NET_ADMIN; nftables must be 1.0 or newer (package nftables)."
            ) from None
        self.replaced += 1
        self._tables[key] = table

    async def _nft(self, key: str, text: str) -> None:
        if key == HOST:
            await self._workers.run(lambda _: nft.run(text))
        else:
            await self._workers.run(lambda _: self._spaces.inside(key, lambda: nft.run(text)))
