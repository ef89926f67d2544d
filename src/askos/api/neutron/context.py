"""The way of a request to the network service: token, body, handler, answer; and Neutron's form of errors."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from askos.model import errors
from askos.model.identity import Caller
from askos.ports.identity import Identity
from askos.ports.network_store import NetworkStore, Who

_log = logging.getLogger(__name__)

Json = dict[str, Any]
BASE = "/networking/v2.0"
MAX_BODY = 1 << 20

_STATUSES: tuple[tuple[type[errors.AskosError], int], ...] = (
    (errors.InvalidError, 400),
    (errors.UnauthorizedError, 401),
    (errors.ForbiddenError, 403),
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (errors.UnavailableError, 503),
)
_PLAIN = {
    "invalid": "InvalidInput",
    "conflict": "Conflict",
    "policy-not-authorized": "PolicyNotAuthorized",
    "not-found": "HTTPNotFound",
    "unavailable": "ServiceUnavailable",
}
"""Codes whose Neutron word is another."""


class Ask:
    """One request: who sends it, and what."""

    def __init__(self, raw: web.Request, caller: Caller) -> None:
        self.raw = raw
        self.caller = caller
        self.who = Who(caller.project_id, caller.is_admin)

    @property
    def scope(self) -> str | None:
        """The project that lists are limited to; None for administrators."""
        return None if self.caller.is_admin else self.caller.project_id

    @property
    def item(self) -> str:
        """The id in the path."""
        return self.raw.match_info["item"]

    def values(self, name: str) -> list[str]:
        """All values of a query parameter."""
        return self.raw.query.getall(name, [])

    def owner(self, body: Json) -> str:
        """The project that something is made for. ForbiddenError when it is another's, for who is no administrator."""
        wanted = body.pop("tenant_id", None)
        wanted = body.pop("project_id", None) or wanted or self.caller.project_id
        if not isinstance(wanted, str) or len(wanted) > 64:
            raise bad(f"Invalid input for project_id. Reason: '{wanted}' is not a valid project id.")
        if wanted != self.caller.project_id and not self.caller.is_admin:
            raise errors.ForbiddenError("Specifying 'project_id' other than the authenticated project is not allowed.")
        return wanted

    def check_owner(self, project_id: str, what: str) -> None:
        """ForbiddenError unless it is the caller's, or the caller is an administrator."""
        if project_id != self.caller.project_id and not self.caller.is_admin:
            raise errors.ForbiddenError(f"{what} is disallowed by policy: it belongs to another project.")

    def check_admin(self, what: str) -> None:
        """ForbiddenError unless the caller is an administrator."""
        if not self.caller.is_admin:
            raise errors.ForbiddenError(f"{what} is disallowed by policy: an administrator can do it.")

    async def body(self, single: str) -> Json:
        """What is inside of {single: {...}}."""
        try:
            whole = msgspec.json.decode(await self.raw.read() or b"null")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise bad(
                "The server could not comply with the request: its body is not JSON.", "http-bad-request"
            ) from None
        if not isinstance(whole, dict) or not isinstance(whole.get(single), dict):
            raise bad(f'Resource body required: {{"{single}": {{...}}}}.', "http-bad-request")
        return dict(whole[single])


Handler = Callable[[Ask], Awaitable[web.Response]]


class Context:
    """The store, the callers' identity, and the URL that clients shall use (None: the one they used)."""

    def __init__(self, store: NetworkStore, identity: Identity, public_url: str | None) -> None:
        self.store = store
        self._identity = identity
        self._public_url = public_url.rstrip("/") if public_url else None

    def base(self, request: web.Request) -> str:
        """Where this API is reached, such as http://cloud.example:9517/networking."""
        return f"{self._public_url or f'{request.scheme}://{request.host}'}/networking"

    def handled(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The handler with everything around it."""

        async def run(request: web.Request) -> web.StreamResponse:
            request_id = f"req-{uuid.uuid4()}"
            try:
                caller = await self._identity.validate(request.headers.get("X-Auth-Token", ""))
                if request.method not in ("GET", "HEAD") and {r.lower() for r in caller.roles} == {"reader"}:
                    raise errors.ForbiddenError("The role reader may look, and change nothing.")
                response = await handler(Ask(request, caller))
            except errors.AskosError as error:
                response = self._refusal(request, error)
            except web.HTTPException as error:
                response = _error(error.status, f"HTTP{error.reason.replace(' ', '')}", f"{error.reason}.")
            except Exception:
                _log.exception("%s %s %s failed", request_id, request.method, request.path)
                why = f"Request Failed: internal server error while processing your request. Its log has {request_id}."
                response = _error(500, "HTTPInternalServerError", why)
            response.headers["X-Openstack-Request-Id"] = request_id
            return response

        return run

    def _refusal(self, request: web.Request, error: errors.AskosError) -> web.Response:
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
        if status == 401:
            message = "The request you have made requires authentication."
            answer = reply({"error": {"code": 401, "title": "Unauthorized", "message": message}}, 401)
            base = self.base(request).removesuffix("/networking")
            answer.headers["WWW-Authenticate"] = f'Keystone uri="{base}/identity"'
            return answer
        return _error(status, type_of(error.code), error.message)


def type_of(code: str) -> str:
    """Neutron's word for an error's code: network-in-use is NetworkInUse."""
    plain = _PLAIN.get(code)
    if plain is not None:
        return plain
    name = "".join(word.capitalize() for word in code.split("-"))
    return name.replace("Http", "HTTP") if name.startswith("Http") else name


def bad(message: str, code: str = "http-bad-request") -> errors.InvalidError:
    """A 400 in the framework's name."""
    return errors.InvalidError(message, code)


def _error(status: int, kind: str, message: str) -> web.Response:
    return reply({"NeutronError": {"type": kind, "message": message, "detail": ""}}, status)


def reply(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def nothing() -> web.Response:
    """204: done."""
    return web.Response(status=204)


def time_of(us: int) -> str:
    """Neutron's form of times: 2026-01-31T12:00:00Z."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
