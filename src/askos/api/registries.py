"""Zun's /v1/registries."""

from __future__ import annotations

import re
import uuid
from typing import Any

import msgspec
from aiohttp import web

from askos.api import paging, policy, schemas
from askos.api.core import Request, json_response
from askos.api.errors import invalid_field, invalid_value
from askos.api.microversion import Version
from askos.model.errors import InvalidError
from askos.model.identity import Caller
from askos.model.images import normalise
from askos.model.registries import Registry, RegistryChange
from askos.ports.admin_store import RegistryStore

_FILTERS = ("name", "domain", "username", "project_id", "user_id")
_PAGING = ("limit", "marker", "sort_key", "sort_dir", "all_projects")
_COLLECTION = paging.Collected("registries", ("uuid", *_FILTERS))
_TEXT: schemas.Schema = {"type": ["string", "null"], "maxLength": 255, "pattern": "^[^\\x00-\\x1f]*$(?!\n)"}
_PROPERTIES: dict[str, schemas.Schema] = {
    "name": {"type": ["string", "null"], "minLength": 2, "maxLength": 255, "pattern": schemas.NAME},
    "domain": {"type": "string", "minLength": 1, "maxLength": 255},
    "username": {**_TEXT, "pattern": "^[^\\x00-\\x1f:]*$(?!\n)"},
    "password": {**_TEXT, "maxLength": 4096},
}


def _body(required: list[str]) -> schemas.Schema:
    inner = {"type": "object", "properties": _PROPERTIES, "required": required, "additionalProperties": False}
    return {
        "type": "object",
        "properties": {"registry": inner},
        "required": ["registry"],
        "additionalProperties": False,
    }


_CREATE, _UPDATE = _body(["domain"]), _body([])


class Registries:
    """The handlers."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store

    def create_schema(self, _version: Version) -> schemas.Schema:
        """The schema of a create's body."""
        return _CREATE

    def update_schema(self, _version: Version) -> schemas.Schema:
        """The schema of a change's body."""
        return _UPDATE

    async def find(self, ident: str, caller: Caller) -> str:
        """The uuid of a registry that a container may be made with: the project's own, also for administrators."""
        return (await self._store.registry(ident, caller.project_id)).uuid

    async def list(self, request: Request) -> web.Response:
        """GET a page."""
        policy.enforce(request.caller, "registry:get_all")
        given = request.query
        unknown = sorted(set(given) - {*_FILTERS, *_PAGING})
        if unknown:
            raise invalid_value(f"Unknown parameters: {', '.join(unknown)}")
        word = given.get("all_projects")
        if word is not None and word not in schemas.TRUE and word not in schemas.FALSE:
            raise invalid_value(f"Invalid value for all_projects: '{word}' is not a boolean word")
        everywhere = schemas.boolean(word, False)
        if everywhere:
            policy.enforce(request.caller, "registry:get_all_all_projects")
        found = await self._store.registries(None if everywhere else request.caller.project_id)
        items = [paging.Item(r.uuid, r.id, _shown(r)) for r in found]
        wanted = {name: given[name] for name in _FILTERS if name in given}
        items = [i for i in items if all(i.shown[name] == value for name, value in wanted.items())]
        return json_response(paging.page(request, _COLLECTION, items))

    async def show(self, request: Request) -> web.Response:
        """GET one."""
        policy.enforce(request.caller, "registry:get_one")
        return _answer(request, await self._store.registry(request.arguments["ident"], _scope(request.caller)))

    async def create(self, request: Request) -> web.Response:
        """POST."""
        caller, body = request.caller, request.body["registry"]
        policy.enforce(caller, "registry:create")
        _check_domain(body["domain"])
        name, username = body.get("name"), body.get("username")
        new = Registry(str(uuid.uuid4()), caller.project_id, caller.user_id, name, body["domain"], username)
        made = await self._store.create_registry(new, body.get("password"))
        location = f"{request.host_url}/v1/registries/{made.uuid}"
        return _answer(request, made, 201, {"Location": location})

    async def update(self, request: Request) -> web.Response:
        """PATCH."""
        policy.enforce(request.caller, "registry:update")
        body = request.body["registry"]
        if "domain" in body:
            _check_domain(body["domain"])
        change = msgspec.convert(body, RegistryChange)
        ident, scope = request.arguments["ident"], _scope(request.caller)
        return _answer(request, await self._store.update_registry(ident, scope, change))

    async def delete(self, request: Request) -> web.Response:
        """DELETE; a 409 while a container uses it."""
        policy.enforce(request.caller, "registry:delete")
        await self._store.delete_registry(request.arguments["ident"], _scope(request.caller))
        return web.Response(status=204)


def _scope(caller: Caller) -> str | None:
    """Administrators find those of all projects."""
    return None if caller.is_admin else caller.project_id


def _check_domain(domain: str) -> None:
    """Raises a 400 for what images cannot be named by."""
    try:
        # A domain without dot or port is read as a part of the name, unless it is localhost: pulls would go elsewhere.
        told = "/" not in domain and re.search(r"[.:]|^localhost$", domain) is not None
        fits = told and bool(normalise(f"{domain}/image"))
    except InvalidError:
        fits = False
    if not fits:
        raise invalid_field("domain", domain, "it must be a registry's address, such as registry.example:5000")


def _shown(registry: Registry) -> dict[str, Any]:
    return {
        "uuid": registry.uuid,
        "name": registry.name,
        "project_id": registry.project_id,
        "user_id": registry.user_id,
        "domain": registry.domain,
        "username": registry.username,
        "password": "***",
    }


def _answer(
    request: Request, registry: Registry, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    shown = {**_shown(registry), "links": paging.links(request, "registries", registry.uuid)}
    return json_response({"registry": shown}, status, headers)
