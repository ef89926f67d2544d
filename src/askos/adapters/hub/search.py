"""`ports.image_search.ImageSearch` by the search that `docker search` uses: GET /v1/search."""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from urllib.parse import urlencode

import msgspec

from askos.model.errors import UnavailableError
from askos.ports.image_search import FoundImage

_MOST = 25
_LARGEST = 1 << 20
_TIMEOUT_S = 10


class _Result(msgspec.Struct, frozen=True):
    name: str
    description: str | None = None
    is_official: bool = False
    is_automated: bool = False
    star_count: int = 0


class _Page(msgspec.Struct, frozen=True):
    results: list[_Result] = []


_page_of = msgspec.json.Decoder(_Page).decode


class HubSearch:
    """Asks one address, such as https://index.docker.io (HTTP or HTTPS), by way of the environment's proxy."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    async def search(self, term: str) -> list[FoundImage]:
        """See the port."""
        try:
            page = _page_of(await asyncio.to_thread(self._ask, term))
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            why = f"status {error.code}" if isinstance(error, urllib.error.HTTPError) else type(error).__name__
            raise UnavailableError(
                f"Cannot search for {term!r}: {self._url} gives no usable answer ({why}). If this server cannot reach "
                "it, set another address as ASKOS_IMAGE_SEARCH_URL."
            ) from error
        return [
            FoundImage(r.name, r.description or "", r.is_official, r.is_automated, r.star_count) for r in page.results
        ]

    def _ask(self, term: str) -> bytes:
        query = urlencode({"q": term, "n": _MOST})
        # The address is the operator's, and its scheme was checked with the settings.
        with urllib.request.urlopen(f"{self._url}/v1/search?{query}", timeout=_TIMEOUT_S) as response:  # noqa: S310
            return bytes(response.read(_LARGEST))
