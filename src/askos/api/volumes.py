"""The native API's volumes, `/askos/v1/volumes`: files of a fixed size that outlive the capsules that use them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from askos.api import policy, schemas
from askos.api.core import Request, json_response, read_json
from askos.api.errors import ApiError, invalid_query
from askos.api.microversion import Version
from askos.api.schemas import Schema
from askos.model.volumes import Volume
from askos.ports.store import Store
from askos.ports.volume_store import VolumeStore

MAX_SIZE_GIB = 10_000
"""File systems of hosts have no longer files."""

CREATE: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": schemas.NAME},
        "size_gib": {"type": "integer", "minimum": 1, "maximum": MAX_SIZE_GIB},
        "multiattach": {"type": "boolean"},
    },
    "required": ["name", "size_gib"],
    "additionalProperties": False,
}


class Volumes:
    """The handlers. What a caller sees is what the project has; administrators see all."""

    def __init__(self, volumes: VolumeStore, store: Store) -> None:
        self._volumes = volumes
        self._store = store

    @staticmethod
    def create_schema(_version: Version) -> Schema:
        """What a create takes; the native API has no versions."""
        return CREATE

    async def create(self, request: Request) -> web.Response:
        """POST."""
        policy.enforce(request.caller, "volume:create")
        if request.raw.content_type != "application/json":
            raise ApiError(415, "Cannot read the body: send application/json.")
        body = await read_json(request.raw)
        if not isinstance(body, dict):
            raise ApiError(
                400,
                'Cannot create a volume: the body must be {"name": "<name>", "size_gib": <number>}.',
                code="container.schema-validation-error",
            )
        schemas.check_body(CREATE, body)
        made = await self._volumes.create(
            request.caller.project_id,
            request.caller.user_id,
            body["name"],
            int(body["size_gib"]),
            multiattach=body.get("multiattach", False),
        )
        return json_response(shown(made, None), 201)

    async def list(self, request: Request) -> web.Response:
        """GET all of the project; with all_projects of every project."""
        policy.enforce(request.caller, "volume:get_all")
        everywhere = _flag(request.query.get("all_projects"))
        if everywhere:
            policy.enforce(request.caller, "volume:get_all_all_projects")
        found = await self._volumes.volumes(None if everywhere else request.caller.project_id)
        names = await self._host_names(request)
        return json_response({"volumes": [shown(v, names.get(v.host_uuid or "")) for v in found]})

    async def show(self, request: Request) -> web.Response:
        """GET one, by id or name."""
        policy.enforce(request.caller, "volume:get_one")
        found = await self._find(request)
        names = await self._host_names(request)
        return json_response(shown(found, names.get(found.host_uuid or "")))

    async def delete(self, request: Request) -> web.Response:
        """DELETE one, by id or name: 202, and it is gone when its host has removed it."""
        policy.enforce(request.caller, "volume:delete")
        deleted = await self._volumes.delete((await self._find(request)).uuid)
        names = await self._host_names(request)
        return json_response(shown(deleted, names.get(deleted.host_uuid or "")), 202)

    async def _find(self, request: Request) -> Volume:
        ident, caller = request.arguments["ident"], request.caller
        # A name means the project's own; only an id reaches further, and for administrators alone.
        scope = None if caller.is_admin and _is_id(ident) else caller.project_id
        return await self._volumes.volume(ident, scope)

    async def _host_names(self, request: Request) -> dict[str, str]:
        if not policy.allows(request.caller, "volume:get:host"):
            return {}
        return {host.facts.uuid: host.facts.hostname for host in await self._store.hosts()}


def shown(volume: Volume, host_name: str | None) -> dict[str, Any]:
    """A volume on the wire. `host` is null for those who may not know, and until it is used first."""
    created = datetime.fromtimestamp(volume.created_us // 1_000_000, UTC)
    return {
        "id": volume.uuid,
        "name": volume.name,
        "size_gib": volume.size_gib,
        "status": volume.status,
        "status_reason": volume.failure,
        "multiattach": volume.multiattach,
        "host": host_name,
        "attachments": volume.attachments,
        "project_id": volume.project_id,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _is_id(ident: str) -> bool:
    return len(ident) == 36 and ident.count("-") == 4


def _flag(value: Any) -> bool:
    if value is not None and value not in schemas.TRUE and value not in schemas.FALSE:
        raise invalid_query("all_projects", value, "it is not a boolean word")
    return schemas.boolean(value, False)
