"""The way of a request to the image service: token, body, handler, answer; and Glance's form of errors."""

from __future__ import annotations

import html
import http
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from askos.model import errors
from askos.model.identity import Caller
from askos.ports.identity import Identity
from askos.ports.image_store import ImageReader, ImageStore

_log = logging.getLogger(__name__)

Json = dict[str, Any]
BASE = "/image/v2"
MAX_BODY = 1 << 20

_ERRORS: tuple[tuple[type[errors.AskosError], int], ...] = (
    (errors.InvalidError, 400),
    (errors.UnauthorizedError, 401),
    (errors.ForbiddenError, 403),
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (errors.StorageFullError, 413),
    (errors.UnavailableError, 503),
)


class Ask:
    """One request: who sends it, and what."""

    def __init__(self, raw: web.Request, caller: Caller) -> None:
        self.raw = raw
        self.caller = caller
        self.reader = ImageReader(caller.project_id, caller.is_admin)

    @property
    def uuid(self) -> str:
        """The image that the path names."""
        return self.raw.match_info["image_id"]

    async def body(self, kind: type) -> Any:
        """The JSON of a body. InvalidError."""
        data = await self.raw.content.read(MAX_BODY + 1) if self.raw.can_read_body else b""
        while len(data) <= MAX_BODY and (more := await self.raw.content.read(MAX_BODY)):
            data += more
        if len(data) > MAX_BODY:
            raise errors.InvalidError(f"The body of the request is larger than {MAX_BODY} bytes.")
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise errors.InvalidError("JSON body is malformed: it cannot be read.") from None
        if not isinstance(value, kind):
            raise errors.InvalidError(
                f"JSON body is malformed: it must be {'an object' if kind is dict else 'a list'}."
            )
        return value

    def may_write(self) -> None:
        """ForbiddenError for who has the role reader alone."""
        if {role.lower() for role in self.caller.roles} == {"reader"}:
            raise errors.ForbiddenError("The role reader may look, and change nothing.")


Handler = Callable[[Ask], Awaitable[web.StreamResponse]]


class Context:
    """The store, the callers' identity, and the URL that clients shall use (None: the one they used)."""

    def __init__(self, store: ImageStore, identity: Identity, public_url: str | None) -> None:
        self.store = store
        self._identity = identity
        self._public_url = public_url.rstrip("/") if public_url else None

    def url(self, request: web.Request) -> str:
        """Where the cloud is reached."""
        return self._public_url or f"{request.scheme}://{request.host}"

    def handled(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The handler with everything around it."""

        async def run(request: web.Request) -> web.StreamResponse:
            request_id = f"req-{uuid.uuid4()}"
            response: web.StreamResponse
            try:
                caller = await self._identity.validate(request.headers.get("X-Auth-Token", ""))
                response = await handler(Ask(request, caller))
            except errors.AskosError as error:
                status = next((status for kind, status in _ERRORS if isinstance(error, kind)), 500)
                response = refusal(request, status, error.message)
                if status == 401:
                    response = refusal(request, 401, "This server could not verify that you may see this document.")
                    response.headers["WWW-Authenticate"] = f'Keystone uri="{self.url(request)}/identity"'
            except web.HTTPException as error:
                response = refusal(request, error.status, f"{error.reason}.")
            except Exception:
                _log.exception("%s %s %s failed", request_id, request.method, request.path)
                why = f"The server failed to handle this request. Its log has more, under {request_id}."
                response = refusal(request, 500, why)
            if not response.prepared:
                response.headers["X-Openstack-Request-Id"] = request_id
            return response

        return run


def refusal(request: web.Request, status: int, message: str) -> web.Response:
    """An error as Glance says it: a small page, or JSON for those who ask for that."""
    phrase = http.HTTPStatus(status).phrase if status != 413 else "Request Entity Too Large"
    if "json" in request.headers.get("Accept", ""):
        response = reply({"message": message, "code": f"{status} {phrase}", "title": phrase}, status)
    else:
        page = (
            f"<html>\n <head>\n  <title>{status} {phrase}</title>\n </head>\n <body>\n  <h1>{status} {phrase}</h1>\n"
            f"  {html.escape(message)}<br /><br />\n\n\n\n </body>\n</html>"
        )
        response = web.Response(text=page, status=status, content_type="text/html", charset="UTF-8")
    if request.body_exists and not request.content.is_eof():
        # What is left of a large body is not read.
        response.force_close()
    return response


def reply(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
