"""Version discovery: what clients read first."""

from __future__ import annotations

from aiohttp import web

from askos.api.keystone.context import Context, reply
from askos.api.keystone.wire import Json


def routes(context: Context) -> list[web.RouteDef]:
    """GET /identity and GET /identity/v3, both with and without a slash at the end."""

    def v3(request: web.Request) -> Json:
        return {
            "id": "v3.14",
            "status": "stable",
            "updated": "2020-04-07T00:00:00Z",
            "links": [{"rel": "self", "href": f"{context.v3(request)}/"}],
            "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
        }

    async def every(request: web.Request) -> web.Response:
        return reply({"versions": {"values": [v3(request)]}}, 300)

    async def one(request: web.Request) -> web.Response:
        return reply({"version": v3(request)})

    return [
        web.get(path, context.guarded(handler))
        for path, handler in (
            ("/identity", every),
            ("/identity/", every),
            ("/identity/v3", one),
            ("/identity/v3/", one),
        )
    ]
