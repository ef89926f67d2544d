"""The way of a request to the network service, and Neutron's form of errors."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from askos.api import service
from askos.api.service import Json, reply
from askos.model import errors
from askos.model.identity import Caller
from askos.ports.network_store import NetworkStore, Who

BASE = "/networking/v2.0"

_PLAIN = {
    "invalid": "InvalidInput",
    "conflict": "Conflict",
    "policy-not-authorized": "PolicyNotAuthorized",
    "not-found": "HTTPNotFound",
    "unavailable": "ServiceUnavailable",
}
"""Codes whose Neutron word is another."""


class Ask(service.Ask):
    """One request: who sends it, and what."""

    def __init__(self, raw: web.Request, caller: Caller) -> None:
        super().__init__(raw, caller)
        self.who = Who(caller.project_id, caller.is_admin)

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
        """What is inside of {single: {...}}. InvalidError."""
        return await self.inside(
            single,
            bad("The server could not comply with the request: its body is not JSON."),
            bad(f'Resource body required: {{"{single}": {{...}}}}.'),
        )


class Context(service.Service[NetworkStore, Ask]):
    """What all handlers share."""

    root = "/networking"
    kind, model = "network", "Neutron"

    def base(self, request: web.Request) -> str:
        """Where this API is reached, such as http://cloud.example:9517/networking."""
        return f"{self.url(request)}{self.root}"

    def ask(self, raw: web.Request, caller: Caller) -> Ask:
        """What handlers get. ForbiddenError for a reader who wants to change something."""
        ask = Ask(raw, caller)
        if raw.method not in ("GET", "HEAD"):
            ask.may_write()
        return ask

    def refused(self, request: web.Request, status: int, error: errors.AskosError) -> web.Response:
        """The answer to what was refused."""
        return _error(status, type_of(error.code), error.message)

    def rejected(self, request: web.Request, error: web.HTTPException) -> web.Response:
        """The answer to what HTTP itself does not allow."""
        return _error(error.status, f"HTTP{error.reason.replace(' ', '')}", f"{error.reason}.")

    def failed(self, request: web.Request, request_id: str) -> web.Response:
        """The answer when we are at fault."""
        why = f"Request Failed: internal server error while processing your request. Its log has {request_id}."
        return _error(500, "HTTPInternalServerError", why)


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


def time_of(us: int) -> str:
    """Neutron's form of times: 2026-01-31T12:00:00Z."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
