"""Zun's /v1/quotas and /v1/quota_classes."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from askos.api import policy, schemas
from askos.api.core import Request, json_response
from askos.api.microversion import Version
from askos.model.quotas import DEFAULT_CLASS, RESOURCES, Limits
from askos.ports.admin_store import QuotaStore

_LIMIT: schemas.Schema = {
    "type": ["integer", "string"],
    "minimum": -1,
    "maximum": 2**31 - 1,
    "pattern": "^(-1|[0-9]+)$(?!\n)",
    "maxLength": 9,
}
_BODY: schemas.Schema = {
    "type": "object",
    "properties": dict.fromkeys(RESOURCES, _LIMIT),
    "additionalProperties": False,
}


class Quotas:
    """The handlers."""

    def __init__(self, store: QuotaStore) -> None:
        self._store = store

    def schema(self, _version: Version) -> schemas.Schema:
        """The schema of a change's body."""
        return _BODY

    async def show(self, request: Request) -> web.Response:
        """GET the limits of a project; with `usages`, whatever it says, also what is in use."""
        project = request.arguments["project"]
        policy.enforce(request.caller, "quota:get", project)
        limits = _shown(await self._store.limits(project))
        if "usages" not in request.query:
            return json_response(limits)
        used = (await self._store.usage(project)).shown()
        return json_response({name: {"limit": limit, "in_use": used[name]} for name, limit in limits.items()})

    async def show_defaults(self, request: Request) -> web.Response:
        """GET the limits of projects without their own."""
        policy.enforce(request.caller, "quota:get_default", request.arguments["project"])
        return json_response(_shown(await self._store.class_limits(DEFAULT_CLASS)))

    async def update(self, request: Request) -> web.Response:
        """PUT some limits of a project."""
        policy.enforce(request.caller, "quota:update")
        return json_response(_shown(await self._store.set_limits(request.arguments["project"], _changes(request.body))))

    async def delete(self, request: Request) -> web.Response:
        """DELETE a project's own limits: the defaults count again."""
        policy.enforce(request.caller, "quota:delete")
        await self._store.forget_limits(request.arguments["project"])
        return json_response(None)

    async def show_class(self, request: Request) -> web.Response:
        """GET the limits of a class."""
        policy.enforce(request.caller, "quota_class:get")
        return json_response(_shown(await self._store.class_limits(request.arguments["name"])))

    async def update_class(self, request: Request) -> web.Response:
        """PUT some limits of a class."""
        policy.enforce(request.caller, "quota_class:update")
        changes = _changes(request.body)
        return json_response(_shown(await self._store.set_class_limits(request.arguments["name"], changes)))


def _shown(limits: Limits) -> dict[str, Any]:
    return msgspec.structs.asdict(limits)


def _changes(body: dict[str, Any]) -> dict[str, int]:
    return {name: int(value) for name, value in body.items()}
