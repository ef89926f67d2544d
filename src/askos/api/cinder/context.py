"""The way of a request to the block storage service: token, body, handler, answer; and Cinder's form of errors."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from askos.model import errors
from askos.model.identity import Caller
from askos.ports.identity import Identity
from askos.ports.volume_store import VolumeStore

_log = logging.getLogger(__name__)

Json = dict[str, Any]
BASE = "/volume/v3"
VERSION, MIN_VERSION = "3.59", "3.0"

_ERRORS: tuple[tuple[type[errors.AskosError], int, str], ...] = (
    (errors.InvalidError, 400, "badRequest"),
    (errors.UnauthorizedError, 401, "unauthorized"),
    (errors.ForbiddenError, 403, "forbidden"),
    (errors.NotFoundError, 404, "itemNotFound"),
    # Cinder says 400 to what does not fit the state of a volume.
    (errors.ConflictError, 400, "badRequest"),
    (errors.UnavailableError, 503, "serviceUnavailable"),
)


class Ask:
    """One request: who sends it, and what."""

    def __init__(self, raw: web.Request, caller: Caller, base: str) -> None:
        self.raw = raw
        self.caller = caller
        self.base = base
        """Where this API is reached, with the project if the client named one."""

    @property
    def scope(self) -> str | None:
        """The project that is looked into; None for administrators: all of them."""
        return None if self.caller.is_admin else self.caller.project_id

    async def body(self, single: str) -> Json:
        """What is inside of {single: {...}}. InvalidError."""
        try:
            whole = msgspec.json.decode(await self.raw.read() or b"null")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise errors.InvalidError("Malformed request body: it is not JSON.") from None
        if not isinstance(whole, dict) or not isinstance(whole.get(single), dict):
            raise errors.InvalidError(f"Missing required element '{single}' in request body.")
        return dict(whole[single])


Handler = Callable[[Ask], Awaitable[web.Response]]


class Context:
    """The store, the callers' identity, and the URL that clients shall use (None: the one they used)."""

    def __init__(self, store: VolumeStore, identity: Identity, public_url: str | None) -> None:
        self.store = store
        self._identity = identity
        self._public_url = public_url.rstrip("/") if public_url else None

    def url(self, request: web.Request) -> str:
        """Where the cloud is reached."""
        return self._public_url or f"{request.scheme}://{request.host}"

    def both(self, method: str, path: str, handler: Handler) -> list[web.RouteDef]:
        """Routes for a path with and without a project in it, as clients of all ages call it."""
        run = self.handled(handler)
        return [
            web.route(method, f"{BASE}{path}", run),
            web.route(method, f"{BASE}/{{project_id:[0-9a-f]{{32}}|[0-9a-f-]{{36}}}}{path}", run),
        ]

    def handled(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The handler with everything around it."""

        async def run(request: web.Request) -> web.StreamResponse:
            request_id = f"req-{uuid.uuid4()}"
            try:
                caller = await self._identity.validate(request.headers.get("X-Auth-Token", ""))
                project = request.match_info.get("project_id")
                if project is not None and project != caller.project_id and not caller.is_admin:
                    raise errors.InvalidError("Malformed request url: it names another project than the token.")
                base = f"{self.url(request)}{BASE}" + (f"/{project}" if project else "")
                response = await handler(Ask(request, caller, base))
            except errors.AskosError as error:
                response = self._refusal(request, error)
            except web.HTTPException as error:
                response = _error(error.status, "badRequest", f"{error.reason}.")
            except Exception:
                _log.exception("%s %s %s failed", request_id, request.method, request.path)
                why = f"The server failed to handle this request. Its log has more, under {request_id}."
                response = _error(500, "computeFault", why)
            response.headers["X-Openstack-Request-Id"] = request_id
            response.headers["OpenStack-API-Version"] = f"volume {VERSION}"
            response.headers["Vary"] = "OpenStack-API-Version"
            return response

        return run

    def _refusal(self, request: web.Request, error: errors.AskosError) -> web.Response:
        status, word = next(((s, w) for kind, s, w in _ERRORS if isinstance(error, kind)), (500, "computeFault"))
        if status == 401:
            message = "The request you have made requires authentication."
            answer = reply({"error": {"code": 401, "title": "Unauthorized", "message": message}}, 401)
            answer.headers["WWW-Authenticate"] = f'Keystone uri="{self.url(request)}/identity"'
            return answer
        return _error(status, word, error.message)


def _error(status: int, word: str, message: str) -> web.Response:
    return reply({word: {"code": status, "message": message}}, status)


def reply(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
