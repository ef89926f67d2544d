"""All routes of the Keystone API, for the main application to add."""

from __future__ import annotations

from aiohttp import web

from askos.api.keystone import assignments, credentials, projects, services, tokens, users, versions
from askos.api.keystone.context import Catalog, Context
from askos.model.errors import ForbiddenError, NotFoundError
from askos.ports.identity import IdentityService

_FIXED = {
    "roles": "its roles are admin, member and reader",
    "domains": "its only domain is default",
    "services": "they follow from the cloud's configuration",
    "endpoints": "they follow from the cloud's configuration",
    "regions": "they follow from the cloud's configuration",
}


def routes(
    identity: IdentityService, catalog: Catalog = services.default_catalog, public_url: str | None = None
) -> list[web.RouteDef]:
    """Everything under /identity; OS_AUTH_URL is <base>/identity/v3.

    `public_url` is where clients reach the cloud (without path), needed behind a proxy; None takes the scheme
    and Host of each request. Access is checked in here, by X-Auth-Token: the application's own checks must
    let /identity through.
    """
    context = Context(identity, catalog, public_url)
    found: list[web.RouteDef] = []
    for part in (versions, tokens, users, projects, credentials, assignments, services):
        found += part.routes(context)
    return found + _refusals(context)


def _refusals(context: Context) -> list[web.RouteDef]:
    """Answers, in Keystone's shape, to what this cloud does not do."""

    def fixed(kind: str, why: str) -> web.RouteDef:
        async def refuse(request: web.Request) -> web.Response:
            await context.admin(request)
            raise ForbiddenError(f"Cannot change the {kind} of this cloud: {why}.")

        # GET and HEAD were taken by the routes before.
        return web.route("*", f"/identity/v3/{{kind:{kind}}}{{rest:(/[^/]*)?}}", context.guarded(refuse))

    async def missing(request: web.Request) -> web.Response:
        raise NotFoundError(
            f"The resource could not be found: {request.method} {request.path}. This cloud's identity "
            "service is the part of Keystone v3 that clients of containers need."
        )

    return [
        *(fixed(kind, why) for kind, why in _FIXED.items()),
        web.route("*", "/identity/{rest:.*}", context.guarded(missing)),
    ]
