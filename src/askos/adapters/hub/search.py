"""`ports.image_search.ImageSearch` by the search that `docker search` uses: GET /v1/search."""

from __future__ import annotations

import aiohttp
import msgspec

from askos.model.errors import UnavailableError
from askos.ports.image_search import FoundImage

_MOST = 25
_LARGEST = 1 << 20
_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=5)


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
    """Asks one address, such as https://index.docker.io."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    async def search(self, term: str) -> list[FoundImage]:
        """See the port."""
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session,
                session.get(f"{self._url}/v1/search", params={"q": term, "n": str(_MOST)}) as response,
            ):
                if response.status != 200:
                    raise UnavailableError(
                        f"Cannot search for {term!r}: {self._url} answered with status {response.status}. Try again "
                        "later."
                    )
                page = _page_of(await response.content.read(_LARGEST))
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
            raise UnavailableError(
                f"Cannot search for {term!r}: {self._url} gives no usable answer ({type(error).__name__}). Does the "
                "server reach it? Another address can be set as ASKOS_IMAGE_SEARCH_URL."
            ) from error
        return [
            FoundImage(r.name, r.description or "", r.is_official, r.is_automated, r.star_count) for r in page.results
        ]
