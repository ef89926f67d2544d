"""The catalog, and /v3/services, /v3/endpoints and /v3/regions, which show the same in other words."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web

from askos.api.keystone import wire
from askos.api.keystone.context import Catalog, Context, Handler, reply
from askos.api.keystone.wire import Json
from askos.model.errors import NotFoundError

__all__ = ["Catalog", "default_catalog", "routes"]

REGION = "RegionOne"

_IDS = uuid.UUID("7f0a4c1e-8a63-5f6d-9d3b-0d6a5a3a9c11")
"""Ids are made from names below this one, so that they are the same on every server and after every start."""


def default_catalog(base_url: str, project_id: str | None) -> list[dict[str, Any]]:
    """What the cloud itself offers. The same for all projects but for block storage, whose clients want the project in
    the path."""
    storage = f"{base_url}/volume/v3" + (f"/{project_id}" if project_id else "")
    return [
        _service("identity", "keystone", f"{base_url}/identity/v3"),
        _service("container", "zun", f"{base_url}/v1"),
        _service("network", "neutron", f"{base_url}/networking"),
        _service("image", "glance", f"{base_url}/image"),
        _service("block-storage", "cinder", storage),
        # What older clients ask for.
        _service("volumev3", "cinderv3", storage),
    ]


def _service(kind: str, name: str, url: str) -> dict[str, Any]:
    return {
        "id": uuid.uuid5(_IDS, kind).hex,
        "type": kind,
        "name": name,
        "endpoints": [
            {
                "id": uuid.uuid5(_IDS, f"{kind}/{interface}").hex,
                "interface": interface,
                "region": REGION,
                "region_id": REGION,
                "url": url,
            }
            for interface in ("public", "internal", "admin")
        ],
    }


def routes(context: Context) -> list[web.RouteDef]:
    """Routes of services, endpoints and regions. The first two are for administrators, as in Keystone."""
    found: list[web.RouteDef] = []
    for many, single, read, filters in (
        ("services", "service", _services, ("name", "type")),
        ("endpoints", "endpoint", _endpoints, ("interface", "service_id", "region_id", "region")),
        ("regions", "region", _regions, ("parent_region_id",)),
    ):
        every, one = _handlers(context, many, single, read, filters)
        found.append(web.get(f"/identity/v3/{many}", context.guarded(every)))
        found.append(web.get(f"/identity/v3/{many}/{{item_id}}", context.guarded(one)))
    return found


def _handlers(
    context: Context,
    many: str,
    single: str,
    read: Callable[[list[Json]], list[Json]],
    filters: tuple[str, ...],
) -> tuple[Handler, Handler]:
    async def items(request: web.Request) -> list[Json]:
        token = await (context.token(request) if many == "regions" else context.admin(request))
        catalog = context.catalog(request, None if token.project is None else token.project.id)
        v3 = context.v3(request)
        return [{**item, "links": {"self": f"{v3}/{many}/{item['id']}"}} for item in read(catalog)]

    async def every(request: web.Request) -> web.Response:
        query = request.query
        fitting = [
            item for item in await items(request) if all(item[name] == query[name] for name in filters if name in query)
        ]
        return reply(wire.listing(context.v3(request), many, many, fitting))

    async def one(request: web.Request) -> web.Response:
        item_id = request.match_info["item_id"]
        for item in await items(request):
            if item["id"] == item_id:
                return reply({single: item})
        raise NotFoundError(f"Could not find {single}: {item_id}.")

    return every, one


def _services(catalog: list[Json]) -> list[Json]:
    return [
        {"id": one["id"], "name": one["name"], "type": one["type"], "description": "", "enabled": True}
        for one in catalog
    ]


def _endpoints(catalog: list[Json]) -> list[Json]:
    return [{**endpoint, "service_id": one["id"], "enabled": True} for one in catalog for endpoint in one["endpoints"]]


def _regions(catalog: list[Json]) -> list[Json]:
    ids = dict.fromkeys(endpoint["region_id"] for one in catalog for endpoint in one["endpoints"])
    return [{"id": region, "description": "", "parent_region_id": None} for region in ids]
