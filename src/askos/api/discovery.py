"""The documents that tell clients what there is: / and /v1, health, OpenAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from askos.api.core import Request, json_response
from askos.api.microversion import MAX, MIN

RESOURCES = (
    *("services", "containers", "images", "networks", "hosts", "capsules", "availability_zones", "quotas"),
    *("quota_classes", "registries"),
)


class Discovery:
    """The handlers. `healthy` raises when the store does not answer."""

    def __init__(self, healthy: Callable[[], Awaitable[None]]) -> None:
        self._healthy = healthy

    async def root(self, request: Request) -> web.Response:
        """GET /."""
        version = {
            "id": "v1",
            "links": [{"href": f"{request.host_url}/v1/", "rel": "self"}],
            "status": "CURRENT",
            "max_version": str(MAX),
            "min_version": str(MIN),
        }
        return json_response(
            {
                "name": "OpenStack Zun API",
                "description": "Askos, a serverless container cloud, speaking the API of OpenStack Zun.",
                "versions": [version],
                "default_version": version,
            }
        )

    async def v1(self, request: Request) -> web.Response:
        """GET /v1."""
        host = request.host_url
        document: dict[str, object] = {
            "id": "v1",
            "media_types": [{"base": "application/json", "type": "application/vnd.openstack.zun.v1+json"}],
            "links": [
                {"href": f"{host}/v1/", "rel": "self"},
                {"href": f"{host}/openapi.json", "rel": "describedby", "type": "application/json"},
            ],
        }
        for resource in RESOURCES:
            document[resource] = [
                {"href": f"{host}/v1/{resource}/", "rel": "self"},
                {"href": f"{host}/{resource}/", "rel": "bookmark"},
            ]
        return json_response(document)

    async def health(self, _request: Request) -> web.Response:
        """GET /healthcheck."""
        await self._healthy()
        return json_response({"detailed": False, "reasons": ["OK"]})
