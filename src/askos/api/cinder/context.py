"""The way of a request to the block storage service, and Cinder's form of errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from askos.api import service
from askos.api.service import Json, reply
from askos.model import errors
from askos.model.identity import Caller
from askos.ports.volume_store import VolumeStore

BASE = "/volume/v3"
VERSION, MIN_VERSION = "3.59", "3.0"

_WORDS = {
    400: "badRequest",
    403: "forbidden",
    404: "itemNotFound",
    503: "serviceUnavailable",
}


class Ask(service.Ask):
    """One request: who sends it, and what."""

    def __init__(self, raw: web.Request, caller: Caller, base: str) -> None:
        super().__init__(raw, caller)
        self.base = base
        """Where this API is reached, with the project if the client named one."""

    async def body(self, single: str) -> Json:
        """What is inside of {single: {...}}. InvalidError."""
        return await self.inside(
            single,
            errors.InvalidError("Malformed request body: it is not JSON."),
            errors.InvalidError(f"Missing required element '{single}' in request body."),
        )


Handler = Callable[[Ask], Awaitable[web.Response]]


class Context(service.Service[VolumeStore, Ask]):
    """What all handlers share."""

    root = "/volume"
    kind, model = "block storage", "Cinder"
    # Cinder says 400 to what does not fit the state of a volume.
    statuses = ((errors.ConflictError, 400), *service.STATUSES)

    def both(self, method: str, path: str, handler: Handler) -> list[web.RouteDef]:
        """Routes for a path with and without a project in it, as clients of all ages call it."""
        run = self.handled(handler)
        return [
            web.route(method, f"{BASE}{path}", run),
            web.route(method, f"{BASE}/{{project_id:[0-9a-f]{{32}}|[0-9a-f-]{{36}}}}{path}", run),
        ]

    def ask(self, raw: web.Request, caller: Caller) -> Ask:
        """What handlers get. InvalidError for another's project in the path."""
        project = raw.match_info.get("project_id")
        if project is not None and project != caller.project_id and not caller.is_admin:
            raise errors.InvalidError("Malformed request url: it names another project than the token.")
        return Ask(raw, caller, f"{self.url(raw)}{BASE}" + (f"/{project}" if project else ""))

    def refused(self, request: web.Request, status: int, error: errors.AskosError) -> web.Response:
        """The answer to what was refused."""
        return _error(status, _WORDS.get(status, "computeFault"), error.message)

    def rejected(self, request: web.Request, error: web.HTTPException) -> web.Response:
        """The answer to what HTTP itself does not allow."""
        return _error(error.status, "badRequest", f"{error.reason}.")

    def failed(self, request: web.Request, request_id: str) -> web.Response:
        """The answer when we are at fault."""
        why = f"The server failed to handle this request. Its log has more, under {request_id}."
        return _error(500, "computeFault", why)

    def finish(self, response: web.StreamResponse) -> None:
        """Headers that all answers have."""
        response.headers["OpenStack-API-Version"] = f"volume {VERSION}"
        response.headers["Vary"] = "OpenStack-API-Version"


def _error(status: int, word: str, message: str) -> web.Response:
    return reply({word: {"code": status, "message": message}}, status)
