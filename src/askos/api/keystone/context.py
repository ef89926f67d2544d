"""What all handlers share: who asks, where we are reached, and how failures are told."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from askos.api.keystone.bodies import TooLargeError
from askos.api.keystone.wire import Json
from askos.model.errors import (
    AskosError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
)
from askos.model.identity import DOMAIN_ID, Token
from askos.ports.identity import IdentityService

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Catalog = Callable[[str, str | None], list[dict[str, Any]]]
"""Base URL (no slash at its end) and project id (None: unscoped) to Keystone's catalog: services with `id`,
`type`, `name` and `endpoints`, which have `id`, `interface`, `region`, `region_id` and `url`."""

_STATUS = (
    (TooLargeError, 413),
    (InvalidError, 400),
    (UnauthorizedError, 401),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (UnavailableError, 503),
)
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        headers={"Vary": "X-Auth-Token", **(headers or {})},
        content_type="application/json",
    )


def nothing() -> web.Response:
    """204: done, nothing to say."""
    return web.Response(status=204, headers={"Vary": "X-Auth-Token"})


class Context:
    """The identity service, the catalog, and the URL that clients shall use (None: the one they used)."""

    def __init__(self, identity: IdentityService, catalog: Catalog, public_url: str | None) -> None:
        self.identity = identity
        self._catalog = catalog
        self._public_url = public_url.rstrip("/") if public_url else None

    def base(self, request: web.Request) -> str:
        """Where this cloud is reached, such as http://cloud.example:9517."""
        if self._public_url is not None:
            return self._public_url
        host = request.host
        if not _HOST.fullmatch(host):
            raise InvalidError("Cannot read the request: its Host header is not a host name.")
        return f"{request.scheme}://{host}"

    def v3(self, request: web.Request) -> str:
        """Where this API is reached."""
        return f"{self.base(request)}/identity/v3"

    def catalog(self, request: web.Request, project_id: str | None) -> list[Json]:
        """The catalog of a project."""
        return self._catalog(self.base(request), project_id)

    async def token(self, request: web.Request) -> Token:
        """The sender's token. UnauthorizedError."""
        return await self.identity.inspect(request.headers.get("X-Auth-Token", ""))

    async def admin(self, request: web.Request) -> Token:
        """The sender's token, if that is an administrator. UnauthorizedError, ForbiddenError."""
        token = await self.token(request)
        if not token.is_admin:
            raise forbidden(request)
        return token

    async def oneself_or_admin(self, request: web.Request) -> Token:
        """The same for calls on a `user_id`, which that user may make as well.

        Nobody else learns whether there is such a user.
        """
        token = await self.token(request)
        if not token.is_admin and token.user.id != request.match_info["user_id"]:
            raise forbidden(request)
        return token

    def guarded(self, handler: Handler) -> Handler:
        """The handler with Keystone's error bodies around it."""

        async def run(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except AskosError as error:
                return self._failure(request, error)

        return run

    def _failure(self, request: web.Request, error: AskosError) -> web.Response:
        number = next((number for kind, number in _STATUS if isinstance(error, kind)), None)
        if number is None:
            raise error
        headers = {}
        if number == 401:
            base = self._public_url or f"{request.scheme}://{request.host}"
            safe = self._public_url is not None or _HOST.fullmatch(request.host)
            headers["WWW-Authenticate"] = f'Keystone uri="{base}/identity"' if safe else "Keystone"
        if number == 503:
            headers["Retry-After"] = "5"
        title = HTTPStatus(number).phrase
        return reply({"error": {"code": number, "title": title, "message": error.message}}, number, headers)


def forbidden(request: web.Request) -> ForbiddenError:
    """Keystone's sentence for what somebody may not do."""
    return ForbiddenError(
        f"You are not authorized to perform the requested action: {request.method} {request.path}. "
        "An administrator can do it."
    )


def flag(request: web.Request, name: str) -> bool | None:
    """A query parameter that means yes unless it says no; None when it is missing."""
    text = request.query.get(name)
    return None if text is None else text.strip().lower() not in {"0", "false", "no", "off", "f", "n"}


def only_default(request: web.Request, *names: str) -> bool:
    """Whether all of these query parameters, where given, point at the one domain."""
    return all(request.query.get(name, DOMAIN_ID) == DOMAIN_ID for name in names)
