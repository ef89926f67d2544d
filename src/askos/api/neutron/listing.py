"""Lists: filters, fields, sorting and paging, the same for every kind of thing."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from askos.api.neutron.context import Ask, bad
from askos.api.service import Json, reply
from askos.model.errors import NotFoundError

_WORDS = {"fields", "limit", "marker", "sort_key", "sort_dir", "page_reverse"}
_UNSHOWN = {"tags", "tags-any", "not-tags", "not-tags-any"}


def shaped(ask: Ask, view: Json) -> Json:
    """One thing with the fields that were asked for."""
    wanted = {name for value in ask.values("fields") for name in value.split(",") if name}
    return {key: value for key, value in view.items() if key in wanted} if wanted else view


def answer(ask: Ask, plural: str, views: list[Json], known: frozenset[str]) -> web.Response:
    """The list that was asked for. `known`: the fields that can be filtered and sorted by."""
    query = ask.raw.query
    unknown = sorted(key for key in set(query) - _WORDS if key not in known)
    if unknown:
        raise bad(f"{unknown} is invalid attribute for filtering")
    for key in set(query) - _WORDS:
        wanted = query.getall(key)
        views = [view for view in views if _fits(key, view.get(key), wanted)]
    views = _sorted(ask, views, known)
    limit = _number(query.get("limit"))
    marker = query.get("marker")
    if query.get("page_reverse", "").lower() in ("true", "1"):
        views.reverse()
    if marker:
        at = next((i for i, view in enumerate(views) if view["id"] == marker), None)
        if at is None:
            raise NotFoundError(f"The marker {marker} could not be found.", "marker-not-found")
        views = views[at + 1 :]
    body: Json = {plural: [shaped(ask, view) for view in (views[:limit] if limit else views)]}
    if limit and len(views) > limit:
        following = ask.raw.url.update_query(marker=views[limit - 1]["id"])
        body[f"{plural}_links"] = [{"rel": "next", "href": str(following)}]
    return reply(body)


def _number(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise bad(f"Invalid value for limit: '{text}' is not a number.")
    return int(text)


def _sorted(ask: Ask, views: list[Json], known: frozenset[str]) -> list[Json]:
    keys, ways = ask.values("sort_key"), ask.values("sort_dir")
    found = list(views)
    for i in reversed(range(len(keys))):
        way = ways[i] if i < len(ways) else "asc"
        if keys[i] not in known:
            raise bad(f"{keys[i]} is invalid attribute for sort_keys")
        if way not in ("asc", "desc"):
            raise bad(f"{way} is invalid value for sort_dirs, possible value is 'asc' and 'desc'")
        key = keys[i]
        found.sort(key=lambda view, key=key: _order(view.get(key)), reverse=way == "desc")  # type: ignore[misc]
    return found


def _order(value: Any) -> tuple[bool, Any]:
    if isinstance(value, int | float):
        return (value is not None, f"{value:020.6f}")
    return (value is not None, "" if value is None else str(value))


def _fits(key: str, value: Any, wanted: list[str]) -> bool:
    if key in _UNSHOWN:
        return not value and key.startswith("not-")
    if key == "fixed_ips":
        return all(_fits_address(value or [], term) for term in wanted)
    if isinstance(value, bool):
        return any(value == (term.lower() in ("true", "1", "yes", "on")) for term in wanted)
    if isinstance(value, list):
        return any(term in value for term in wanted)
    if value is None:
        return "" in wanted or "null" in wanted
    return str(value) in wanted


def _fits_address(has: list[Json], term: str) -> bool:
    name, _, text = term.partition("=")
    if name == "ip_address_substr":
        return any(text in one["ip_address"] for one in has)
    if name not in ("ip_address", "subnet_id"):
        raise bad(f"Invalid filter fixed_ips={term}: it has the form ip_address=<address> or subnet_id=<id>.")
    return any(one[name] == text for one in has)
