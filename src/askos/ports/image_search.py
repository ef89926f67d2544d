"""Looking for images by name, where all the world has them."""

from __future__ import annotations

from typing import Protocol

import msgspec


class FoundImage(msgspec.Struct, frozen=True):
    """One image that a registry offers."""

    name: str
    description: str = ""
    is_official: bool = False
    is_automated: bool = False
    star_count: int = 0


class ImageSearch(Protocol):
    """A registry's search."""

    async def search(self, term: str) -> list[FoundImage]:
        """Images whose name or description has the term, the best first. UnavailableError when nobody answers."""
