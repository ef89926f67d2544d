"""Pages of small collections, such as hosts and registries: sorted and cut here, not by the database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from askos.api.core import Request
from askos.api.errors import invalid_value
from askos.model.errors import InvalidError, NotFoundError

MAX_LIMIT = 1000
_PAGING = ("limit", "marker", "sort_key", "sort_dir")


class Item(NamedTuple):
    """One item: what is shown, what it is sorted by beside that, and the id that markers name."""

    ident: str
    order: int
    """Its place when nothing else is asked for; the tie-breaker."""
    shown: dict[str, Any]


class Collected(NamedTuple):
    """A collection as Zun's API has it."""

    name: str
    sort_keys: Collection[str]
    """Beside id."""
    default_key: str = "id"


def page(request: Request, collection: Collected, items: Sequence[Item]) -> dict[str, Any]:
    """The answer: one page of the items, and where the next one is. Raises 400s for wrong parameters, and a 404 for an
    unknown marker."""
    given = request.query
    limit, key = _limit(given.get("limit")), given.get("sort_key", collection.default_key)
    direction = given.get("sort_dir", "asc")
    if direction not in ("asc", "desc"):
        raise invalid_value(f"Invalid sort direction: {direction}. Acceptable values are 'asc' or 'desc'")
    if key != "id" and key not in collection.sort_keys:
        raise InvalidError(f'The sort_key value "{key}" is an invalid field for sorting', "invalid-parameter-value")

    def rank(item: Item) -> tuple[bool, Any, int]:
        value = item.order if key == "id" else item.shown.get(key)
        return value is not None, "" if value is None else value, item.order

    ordered = sorted(items, key=rank, reverse=direction == "desc")
    marker = given.get("marker")
    if marker is not None:
        at = next((number for number, item in enumerate(ordered) if item.ident == marker), None)
        if at is None:
            raise NotFoundError(f"Marker {marker} could not be found.", "marker-not-found")
        ordered = ordered[at + 1 :]
    found = ordered[:limit]
    following = None
    if len(found) == limit:
        kept = {name: value for name, value in given.items() if name not in _PAGING}
        parameters = {"sort_key": key, "sort_dir": direction, "limit": limit, "marker": found[-1].ident, **kept}
        following = f"{request.host_url}/v1/{collection.name}?{urlencode(parameters, quote_via=quote)}"
    return {collection.name: [item.shown for item in found], "next": following}


def links(request: Request, noun: str, ident: str) -> list[dict[str, str]]:
    """The two links of an item."""
    return [
        {"href": f"{request.host_url}/v1/{noun}/{ident}", "rel": "self"},
        {"href": f"{request.host_url}/{noun}/{ident}", "rel": "bookmark"},
    ]


def _limit(value: str | None) -> int:
    if value is None:
        return MAX_LIMIT
    if not value.isascii() or not value.isdigit() or int(value[:10]) == 0:
        raise invalid_value("Limit must be positive integer")
    return min(int(value[:10]), MAX_LIMIT)
