"""All routes of the image service, for the main application to add."""

from __future__ import annotations

from aiohttp import web

from askos.api.glance import schema
from askos.api.glance.context import BASE, Ask, Context
from askos.api.glance.images import Images
from askos.api.service import Json, reply
from askos.model.errors import NotFoundError
from askos.ports.identity import Identity
from askos.ports.image_store import ImageStore

VERSIONS = ("v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0")
"""The newest that needs nothing that is not here: later ones import from elsewhere."""


def routes(store: ImageStore, identity: Identity, public_url: str | None = None) -> list[web.RouteDef]:
    """Everything under /image. `public_url` is where clients reach the cloud (without path); None takes the scheme and
    Host of each request."""
    context = Context(store, identity, public_url)
    found = _versions(context)
    images = Images(context)
    for method, path, handler in (
        ("GET", "/images", images.index),
        ("POST", "/images", images.create),
        ("GET", "/images/{image_id}", images.show),
        ("PATCH", "/images/{image_id}", images.update),
        ("DELETE", "/images/{image_id}", images.delete),
        ("GET", "/images/{image_id}/file", images.download),
        ("PUT", "/images/{image_id}/file", images.upload),
        ("PUT", "/images/{image_id}/tags/{tag}", images.tag),
        ("DELETE", "/images/{image_id}/tags/{tag}", images.tag),
        ("GET", "/images/{image_id}/members", images.members),
        ("GET", "/schemas/{name}", _schema),
        ("GET", "/info/stores", _stores),
        ("GET", "/info/import", _import),
    ):
        found.append(web.route(method, f"{BASE}{path}", context.handled(handler)))

    found.append(context.missing())
    return found


def _versions(context: Context) -> list[web.RouteDef]:
    """What clients read first, without a token."""

    def every(request: web.Request) -> Json:
        links = [{"rel": "self", "href": f"{context.url(request)}{BASE}/"}]
        versions = [
            {"id": version, "status": "SUPPORTED" if number else "CURRENT", "links": links}
            for number, version in enumerate(VERSIONS)
        ]
        return {"versions": versions}

    async def choices(request: web.Request) -> web.Response:
        return reply(every(request), 300)

    async def listed(request: web.Request) -> web.Response:
        return reply(every(request))

    return [
        *(web.get(path, choices) for path in ("/image", "/image/", BASE, f"{BASE}/")),
        *(web.get(path, listed) for path in ("/image/versions", "/image/versions/")),
    ]


async def _schema(ask: Ask) -> web.Response:
    name = ask.raw.match_info["name"]
    if name not in schema.SCHEMAS:
        raise NotFoundError(f"There is no schema {name[:100]}.")
    return reply(schema.SCHEMAS[name])


async def _stores(_ask: Ask) -> web.Response:
    return reply({"stores": [{"id": "local", "description": "A folder of the server.", "default": "true"}]})


async def _import(_ask: Ask) -> web.Response:
    methods = {"description": "Import methods available.", "type": "array", "value": []}
    return reply({"import-methods": methods})
