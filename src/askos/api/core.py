"""The way of an HTTP request: path, token, microversion, parameters, handler, answer.

Routes live in one table (`table.py`); the dispatcher does what is the same for all of them. Zun's clients need more
tolerant paths than a framework's router offers (empty segments, a missing /v1, a .json suffix), so paths are matched
here, segment by segment.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

import msgspec
from aiohttp import web

from askos.api import microversion, policy, schemas
from askos.api.errors import ApiError, from_askos
from askos.api.microversion import Version
from askos.api.rights import Rights
from askos.model.errors import AskosError, UnauthorizedError
from askos.model.identity import Caller
from askos.ports.identity import Identity

_log = logging.getLogger(__name__)

MAX_BODY = 1 << 20
"""Largest JSON body in bytes."""

PARAMETER_BODY = "parameters"
"""Route.body of actions: query and JSON object are one set of parameters; unknown body keys are ignored."""


class Request:
    """One request on its way: what the handler needs."""

    def __init__(self, raw: web.Request, route: Route, arguments: dict[str, str]) -> None:
        self.raw = raw
        self.route = route
        self.arguments = arguments
        self.caller: Caller = _NOBODY
        self.token = ""
        self.version: Version = microversion.MIN
        self.query: dict[str, Any] = {}
        self.body: Any = None
        self.request_id = ""

    @property
    def host_url(self) -> str:
        """Scheme and authority as the client sees them; no path prefix, as Zun does."""
        return f"{self.raw.scheme}://{self.raw.host}"


Handler = Callable[[Request], Awaitable[web.StreamResponse]]


_INSIDE = (("attach",), ("get_archive",), ("archive",))
"""The ends of paths that reach into a container by a GET."""


class Route(NamedTuple):
    """One line of the table. `body`: None, PARAMETER_BODY, or a function from version to schema."""

    method: str
    path: str
    handler: Handler
    summary: str
    success: int = 200
    answer: str | None = None
    """Name of the answer's schema in the OpenAPI document."""
    query: schemas.Schema | None = None
    body: Any = None
    since: Version = microversion.MIN
    until: Version = microversion.MAX
    public: bool = False
    native: bool = False
    """Below /askos: no microversions."""
    body_limit: int = MAX_BODY
    """Bytes that the body may have."""

    @property
    def for_writers(self) -> bool:
        """Whether it is more than a look. Streams into a container, and Zun's URL for one, are a GET and do what
        they like there; its files may be secrets."""
        return self.method != "GET" or self.success == 101 or self.segments[-1:] in _INSIDE

    @property
    def streams(self) -> bool:
        """Whether its answer may take hours, and so is looked after by `rights`. A watch looks after itself."""
        return self.native and not self.public and (self.success == 101 or self.segments[-1:] == ("logs",))

    @property
    def segments(self) -> tuple[str, ...]:
        """The path's parts."""
        return tuple(s for s in self.path.split("/") if s)


_NOBODY = Caller(user_id="", project_id="", is_admin=False)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return raw_json(msgspec.json.encode(value), status, headers)


def raw_json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """An answer that is JSON already."""
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


class Dispatcher:
    """Answers everything that no other route of the application takes."""

    def __init__(self, routes: list[Route], identity: Identity, auth_path: str, rights: Rights) -> None:
        self._identity = identity
        self._rights = rights
        self._auth_path = auth_path
        self._by_length: dict[int, list[tuple[tuple[str, ...], Route]]] = {}
        for route in routes:
            self._by_length.setdefault(len(route.segments), []).append((route.segments, route))

    async def __call__(self, raw: web.Request) -> web.StreamResponse:
        """Handle one request; every outcome is an answer."""
        request_id = f"req-{uuid.uuid4()}"
        extra: dict[str, str] = {}
        try:
            response = await self._answer(raw, request_id, extra)
        except ApiError as error:
            response = self._refusal(raw, error, request_id)
        except AskosError as error:
            response = self._refusal(raw, from_askos(error), request_id)
        except web.HTTPException as error:
            title = f"Cannot read the request: {error.reason}."
            response = self._refusal(raw, ApiError(error.status, title), request_id)
        except web.RequestPayloadError:
            title = "Cannot read the request: its body is not encoded as its headers say."
            response = self._refusal(raw, ApiError(400, title), request_id)
        except (ConnectionResetError, TimeoutError) as error:
            _log.debug("%s: the client has gone (%s)", request_id, error)
            raise
        except Exception:
            _log.exception("%s %s %s failed", request_id, raw.method, raw.path)
            detail = f"The server failed to handle this request. Its log has more, under {request_id}."
            response = self._refusal(raw, ApiError(500, "Internal Server Error", detail=detail), request_id)
        if not response.prepared:
            response.headers["X-Openstack-Request-Id"] = request_id
            response.headers.update(extra)
        return response

    def _refusal(self, raw: web.Request, error: ApiError, request_id: str) -> web.Response:
        headers = dict(error.headers)
        if error.status == 401:
            headers["WWW-Authenticate"] = f'Keystone uri="{raw.scheme}://{raw.host}{self._auth_path}"'
        return raw_json(error.body(request_id), error.status, headers)

    async def _answer(self, raw: web.Request, request_id: str, extra: dict[str, str]) -> web.StreamResponse:
        segments = _segments(raw.rel_url.raw_path)
        route, arguments, allowed = self._match(raw.method, segments)
        request = Request(raw, route or _NO_ROUTE, arguments)
        request.request_id = request_id
        if raw.method == "OPTIONS" and route is None and allowed:
            return web.Response(status=200)
        if route is None or not route.public:
            # Like Keystone's middleware in front: without a token nobody learns which paths exist.
            token = raw.headers.get("X-Auth-Token")
            if not token:
                raise ApiError(401, "The request you have made requires authentication.")
            try:
                request.caller = policy.seen(await self._identity.validate(token))
            except UnauthorizedError as error:
                raise ApiError(401, "The request you have made requires authentication.") from error
            request.token = token
        if route is None:
            if allowed and len(segments) <= 3:
                raise ApiError(405, "Method Not Allowed", detail="", headers={"Allow": ", ".join(sorted(allowed))})
            raise ApiError(404, "Not Found", detail="")
        if route.for_writers:
            policy.enforce_writer(request.caller)
        if segments[:1] == ("v1",):
            request.version = microversion.negotiate(raw.headers.get(microversion.HEADER))
            extra.update(microversion.headers(request.version))
            if not route.since <= request.version <= route.until:
                what = f"{route.method} {route.path}"
                raise microversion.elsewhere(request.version, what, route.since, route.until)
            _check_accept(raw)
        await _read_parameters(request)
        if not route.streams:
            return await route.handler(request)
        with self._rights.held(raw, request.token, request.caller):
            return await route.handler(request)

    def _match(self, method: str, segments: tuple[str, ...]) -> tuple[Route | None, dict[str, str], set[str]]:
        allowed: set[str] = set()
        for pattern, route in self._by_length.get(len(segments), ()):
            arguments: dict[str, str] = {}
            for want, have in zip(pattern, segments, strict=True):
                if want[0] == "{":
                    arguments[want[1:-1]] = unquote(have)
                elif want != have:
                    break
            else:
                if route.method == method:
                    return route, arguments, allowed
                allowed.add(route.method)
        return None, {}, allowed


async def _no_handler(_request: Request) -> web.StreamResponse:
    raise ApiError(404, "Not Found", detail="")


_NO_ROUTE = Route("", "", _no_handler, "")


def _segments(raw_path: str) -> tuple[str, ...]:
    """Path segments as Zun's clients mean them."""
    found = [s for s in raw_path.split("/") if s]
    if found and found[0] not in ("v1", "askos", "healthcheck", "openapi.json"):
        found.insert(0, "v1")
    if len(found) == 2 and found[0] == "v1" and found[1].endswith(".json"):
        found[1] = found[1].removesuffix(".json")
    return tuple(found)


def _check_accept(raw: web.Request) -> None:
    accept = raw.headers.get("Accept", "*/*")
    if not any(word in accept for word in ("*/*", "application/*", "json")) and accept.strip():
        shown = accept if len(accept) <= 100 else accept[:100] + "..."
        raise ApiError(
            406,
            f"Not Acceptable: an answer in {shown!r} was asked for. Send the header Accept: application/json, or none.",
            detail="This API answers in application/json only.",
        )


async def _read_parameters(request: Request) -> None:
    route, raw = request.route, request.raw
    query: dict[str, Any] = dict(parse_qsl(raw.rel_url.raw_query_string, keep_blank_values=True))
    if route.native:
        if route.query is not None:
            for name, schema in route.query["properties"].items():
                if name in query and schema.get("type") == "array":
                    query[name] = raw.query.getall(name)
            schemas.check_query(route.query, query)
        request.query = query
        return
    if route.query is not None:
        # What is too new for the version is said by the handler; unknown names are refused here.
        schemas.check_query(route.query, query)
    if route.body == PARAMETER_BODY:
        body = await read_json(raw) if raw.can_read_body else None
        if isinstance(body, dict) and route.query is not None:
            known = route.query["properties"]
            given = {k: v for k, v in body.items() if k in known and v is not None}
            schemas.check_query(route.query, given)
            query = {**given, **query}
    elif route.body is not None:
        _check_content_type(raw)
        body = await read_json(raw, route.body_limit)
        request.body = body if isinstance(body, dict) else {}
        schemas.check_body(route.body(request.version), request.body)
    request.query = query


def _check_content_type(raw: web.Request) -> None:
    if raw.can_read_body and raw.content_type != "application/json":
        shown = raw.headers.get("Content-Type", "none")
        raise ApiError(415, f"Cannot read a body of content type {shown}: send application/json.")


async def read_json(raw: web.Request, limit: int = MAX_BODY) -> Any:
    """The body as JSON; None when there is none. `limit` in bytes. Raises ApiError 400 for what is not JSON (Zun
    takes that as an empty object, and then complains about a field that was there)."""
    if raw.content_length is not None and raw.content_length > limit:
        raise too_large(limit)
    data = bytearray()
    async for chunk in raw.content.iter_any():
        data += chunk
        if len(data) > limit:
            raise too_large(limit)
    if not data.strip():
        return None
    try:
        return msgspec.json.decode(bytes(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        title = f"Malformed request body: it is not JSON ({why})."
        raise ApiError(400, title, code="container.schema-validation-error") from None


def too_large(limit: int = MAX_BODY) -> ApiError:
    """A body over the limit."""
    return ApiError(413, f"Cannot take this request: its body is larger than {limit >> 20} MiB.")
