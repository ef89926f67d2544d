"""Pages of Zun's containers: filters, sorting, and the rendered items."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import web

from askos.api import policy, representation, schemas
from askos.api.core import Request, raw_json
from askos.api.errors import invalid_value
from askos.api.hostnames import HostNames
from askos.api.rendered import Rendered
from askos.ports.store import Query, Store

MAX_LIMIT = 1000
FILTERS = frozenset({"name", "image", "project_id", "user_id", "memory", "host", "task_state", "status", "auto_remove"})
_PAGING = frozenset({"limit", "marker", "sort_key", "sort_dir", "all_projects"})


class Listing:
    """The handler."""

    def __init__(self, store: Store, clock: Callable[[], int], host_names: HostNames) -> None:
        self._store = store
        self._clock = clock
        self._rendered = Rendered(32 << 20)
        self._host_names = host_names

    async def list(self, request: Request) -> web.Response:
        """GET a page."""
        seen = representation.seen_by(request.caller)
        query = await self._query(request)
        page = await self._store.page(query)
        pieces = await self._rendered.page(
            page, seen, self._store, lambda capsule: representation.container_piece(capsule, seen=seen)
        )
        names = await self._host_names.of({p.host_uuid for p in pieces}) if "host" in seen else {}
        now_us = self._clock()
        items = b",".join([p.filled(now_us, host_name=names.get(p.host_uuid)) for p in pieces])
        following = None
        if len(page) == query.limit:
            kept = {k: v for k, v in request.query.items() if k not in ("marker", "sort_key", "sort_dir", "limit")}
            parameters = {
                "sort_key": query.sort_key,
                "sort_dir": query.sort_dir,
                "limit": query.limit,
                "marker": page[-1][0],
                **kept,
            }
            following = f"{request.host_url}/v1/containers?{urlencode(parameters, quote_via=quote)}"
        return raw_json(b'{"containers":[' + items + b'],"next":' + msgspec.json.encode(following) + b"}")

    async def _query(self, request: Request) -> Query:
        given = request.query
        unknown = sorted(set(given) - FILTERS - _PAGING)
        if unknown:
            raise invalid_value(f"Unknown parameters: {', '.join(unknown)}")
        caller = request.caller
        policy.enforce(caller, "container:get_all")
        everywhere = schemas.boolean(_boolean_word("all_projects", given.get("all_projects")), False)
        if everywhere:
            policy.enforce(caller, "container:get_all_all_projects")
        filters: dict[str, str | bool] = {}
        for key in FILTERS & set(given):
            if key == "host":
                policy.enforce(caller, "container:get_one:host")
                filters[key] = await self._host_names.uuid(given[key]) or given[key]
            elif key == "auto_remove":
                filters[key] = schemas.boolean(_boolean_word(key, given[key]), False)
            else:
                filters[key] = given[key]
        sort_dir = given.get("sort_dir", "asc")
        if sort_dir not in ("asc", "desc"):
            raise invalid_value(f"Invalid sort direction: {sort_dir}. Acceptable values are 'asc' or 'desc'")
        return Query(
            project_id=None if everywhere else caller.project_id,
            filters=filters,
            sort_key=given.get("sort_key", "id"),
            sort_dir=sort_dir,
            limit=_limit(given.get("limit")),
            marker=given.get("marker"),
        )


def _boolean_word(name: str, value: str | None) -> str | None:
    if value is not None and value not in schemas.TRUE and value not in schemas.FALSE:
        raise invalid_value(f"Invalid value for {name}: '{value}' is not a boolean word")
    return value


def _limit(value: str | None) -> int:
    if value is None:
        return MAX_LIMIT
    if not value.isascii() or not value.isdigit() or int(value[:10]) == 0:
        raise invalid_value("Limit must be positive integer")
    return min(int(value[:10]), MAX_LIMIT)
