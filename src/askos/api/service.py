"""What the embedded OpenStack services have in common: the way of a request from token to answer.

Each service says in its own `context` what its requests carry and what its errors look like.
"""

from __future__ import annotations

import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from aiohttp import web

from askos.model import errors
from askos.model.identity import Caller
from askos.ports.identity import Identity

Json = dict[str, Any]
Statuses = tuple[tuple[type[errors.AskosError], int], ...]

STATUSES: Statuses = (
    (errors.InvalidError, 400),
    (errors.UnauthorizedError, 401),
    (errors.ForbiddenError, 403),
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (errors.UnavailableError, 503),
)
"""What most services answer. One that differs puts its own before these: the first that fits is taken."""


class Ask:
    """One request: who sends it, and what."""

    def __init__(self, raw: web.Request, caller: Caller) -> None:
        self.raw = raw
        self.caller = caller

    @property
    def scope(self) -> str | None:
        """The project that is looked into; None for administrators: all of them."""
        return None if self.caller.is_admin else self.caller.project_id

    def may_write(self) -> None:
        """ForbiddenError for who has the role reader alone."""
        if {role.lower() for role in self.caller.roles} == {"reader"}:
            raise errors.ForbiddenError("The role reader may look, and change nothing.")

    async def inside(self, single: str, malformed: errors.InvalidError, missing: errors.InvalidError) -> Json:
        """What is inside of {single: {...}}. The errors are raised for a body that is no JSON, and of another shape."""
        whole = decoded(await self.raw.read() or b"null", malformed)
        if not isinstance(whole, dict) or not isinstance(whole.get(single), dict):
            raise missing
        return dict(whole[single])


AskT = TypeVar("AskT", bound=Ask)
StoreT = TypeVar("StoreT")


class Service(ABC, Generic[StoreT, AskT]):
    """The store, the callers' identity, and the URL that clients shall use (None: the one they used)."""

    root: ClassVar[str]
    """The path of all of it, such as /volume."""
    kind: ClassVar[str]
    """What it is, and whose API it speaks: such as block storage, and Cinder."""
    model: ClassVar[str]
    statuses: ClassVar[Statuses] = STATUSES

    def __init__(self, store: StoreT, identity: Identity, public_url: str | None) -> None:
        self.store = store
        self._identity = identity
        self._public_url = public_url.rstrip("/") if public_url else None
        self._log = logging.getLogger(type(self).__module__)

    def url(self, request: web.Request) -> str:
        """Where the cloud is reached, such as http://cloud.example:9517."""
        return self._public_url or f"{request.scheme}://{request.host}"

    # -- what a service says itself ----------------------------------------------------------------------------

    @abstractmethod
    def ask(self, raw: web.Request, caller: Caller) -> AskT:
        """What handlers get. AskosError for what is refused whatever it asks for."""

    @abstractmethod
    def refused(self, request: web.Request, status: int, error: errors.AskosError) -> web.Response:
        """The answer to what was refused; not for 401."""

    @abstractmethod
    def rejected(self, request: web.Request, error: web.HTTPException) -> web.Response:
        """The answer to what HTTP itself does not allow, such as a body that is too large."""

    @abstractmethod
    def failed(self, request: web.Request, request_id: str) -> web.Response:
        """The answer when we are at fault."""

    def unauthorized(self, request: web.Request) -> web.Response:
        """The answer to who has no token, in the form of Keystone's middleware."""
        message = "The request you have made requires authentication."
        return reply({"error": {"code": 401, "title": "Unauthorized", "message": message}}, 401)

    def finish(self, response: web.StreamResponse) -> None:
        """Headers that all answers have, besides the request's id."""

    # -- what is the same for all ------------------------------------------------------------------------------

    def handled(
        self, handler: Callable[[AskT], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The handler with everything around it."""

        async def run(request: web.Request) -> web.StreamResponse:
            request_id = f"req-{uuid.uuid4()}"
            response: web.StreamResponse
            try:
                caller = await self._identity.validate(request.headers.get("X-Auth-Token", ""))
                response = await handler(self.ask(request, caller))
            except errors.AskosError as error:
                response = self._refusal(request, error)
            except web.HTTPException as error:
                response = self.rejected(request, error)
            except Exception:
                self._log.exception("%s %s %s failed", request_id, request.method, request.path)
                response = self.failed(request, request_id)
            if not response.prepared:
                response.headers["X-Openstack-Request-Id"] = request_id
                self.finish(response)
            return response

        return run

    def missing(self) -> web.RouteDef:
        """What answers, below the root, where no other route does. It goes last."""

        async def missing(ask: AskT) -> web.Response:
            raise errors.NotFoundError(
                f"The resource could not be found: {ask.raw.method} {ask.raw.path}. This cloud's {self.kind} service "
                f"is the part of {self.model} that users of containers need."
            )

        return web.route("*", f"{self.root}/{{rest:.*}}", self.handled(missing))

    def _refusal(self, request: web.Request, error: errors.AskosError) -> web.Response:
        status = next((status for kind, status in self.statuses if isinstance(error, kind)), 500)
        if status != 401:
            return self.refused(request, status, error)
        response = self.unauthorized(request)
        response.headers["WWW-Authenticate"] = f'Keystone uri="{self.url(request)}/identity"'
        return response


def decoded(data: bytes, malformed: errors.InvalidError) -> Any:
    """The value of a JSON text; raises `malformed` if it is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise malformed from None


def reply(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def nothing() -> web.Response:
    """204: done."""
    return web.Response(status=204)
