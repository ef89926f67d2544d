"""Zun's /v1/capsules: the same capsules as the native API's, in Zun's words."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import web

from askos.api import capsule_view, policy, schemas, template
from askos.api.core import Request, json_response, raw_json
from askos.api.errors import invalid_value
from askos.api.hostnames import HostNames
from askos.api.microversion import Version
from askos.api.pods import Grants
from askos.api.rendered import Rendered
from askos.api.representation import time_text
from askos.model.capsules import Capsule, CapsuleSpec, VolumeGrant, Wish
from askos.model.errors import NotFoundError
from askos.model.pods import Volume
from askos.ports.store import NewCapsule, Query, Store

PATH = "/v1/capsules"
MAX_LIMIT = 1000

CREATE_BODY: schemas.Schema = {
    "type": "object",
    "properties": {
        "template": {
            "type": ["object", "string"],
            "description": "A capsule template: kind, metadata, spec. Or a string of JSON or YAML that describes one.",
        }
    },
    "required": ["template"],
    "additionalProperties": False,
}
"""What is inside of the template is checked by `template.read`, which names all that is wrong at once."""


Found = list[VolumeGrant]
Page = list[tuple[str, int]]
"""Uuids and revisions."""


def create_schema(_version: Version) -> schemas.Schema:
    """The schema of a create's body; the same at every version."""
    return CREATE_BODY


class Capsules:
    """The handlers. `zones` names the availability zones that a create may ask for."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], int],
        zones: set[str],
        grants: Grants,
        limits: schemas.Limits = schemas.DEFAULT_LIMITS,
    ) -> None:
        self._store = store
        self._clock = clock
        self._zones = zones
        self._grants = grants
        self._limits = limits
        self._rendered = Rendered(32 << 20)
        self._host_names = HostNames(store)

    # -- reading -----------------------------------------------------------------------------------------------

    async def find(self, request: Request, rule: str = "get") -> Capsule:
        """The capsule of the path, if the rule allows. As in Zun, administrators find those of all projects."""
        policy.enforce(request.caller, f"capsule:{rule}")
        scope = None if policy.allows(request.caller, "capsule:get_one_all_projects") else request.caller.project_id
        try:
            return await self._store.capsule(request.arguments["ident"], scope, "capsule")
        except NotFoundError as error:
            raise NotFoundError(error.message, "container-not-found") from error

    async def shown(self, request: Request, capsule: Capsule) -> dict[str, Any]:
        """One capsule as the caller may see it, in the form of the request's version."""
        admin = policy.allows(request.caller, "capsule:get:host")
        host_name = await self._host_names.one(capsule.placement.host_uuid) if admin else None
        return capsule_view.capsule_json(
            capsule, self._clock(), request.version, request.host_url, admin=admin, host_name=host_name
        )

    async def show(self, request: Request) -> web.Response:
        """GET one."""
        return json_response(await self.shown(request, await self.find(request)))

    async def list(self, request: Request) -> web.Response:
        """GET a page. Parameters that Zun does not know are ignored, as it does."""
        policy.enforce(request.caller, "capsule:get_all")
        given = request.query
        everywhere = _boolean("all_projects", given.get("all_projects"))
        # For others than administrators Zun ignores it.
        everywhere = everywhere and policy.allows(request.caller, "capsule:get_all_all_projects")
        sort_dir = given.get("sort_dir", "asc")
        if sort_dir not in ("asc", "desc"):
            raise invalid_value(f"Invalid sort direction: {sort_dir}. Acceptable values are 'asc' or 'desc'")
        query = Query(
            kind="capsule",
            project_id=None if everywhere else request.caller.project_id,
            sort_key=given.get("sort_key", "id"),
            sort_dir=sort_dir,
            limit=_limit(given.get("limit")),
            marker=given.get("marker"),
        )
        page = await self._store.page(query)
        items = await self._items(request, page)
        following = None
        if len(page) == query.limit:
            parameters: dict[str, Any] = {
                "sort_key": query.sort_key,
                "sort_dir": query.sort_dir,
                "limit": query.limit,
                "marker": page[-1][0],
            }
            if everywhere:
                parameters["all_projects"] = given["all_projects"]
            following = f"{request.host_url}{PATH}?{urlencode(parameters, quote_via=quote)}"
        return raw_json(b'{"capsules":[' + items + b'],"next":' + msgspec.json.encode(following) + b"}")

    async def _items(self, request: Request, page: Page) -> bytes:
        admin, new_form = policy.allows(request.caller, "capsule:get:host"), request.version >= capsule_view.NEW_FORM
        pieces = await self._rendered.page(
            page,
            (admin, new_form),
            self._store,
            lambda capsule: capsule_view.capsule_piece(capsule, new_form=new_form, admin=admin),
        )
        names = await self._host_names.of({p.host_uuid for p in pieces}) if admin else {}
        now_us, url = self._clock(), request.host_url
        return b",".join([p.filled(now_us, url=url, host_name=names.get(p.host_uuid)) for p in pieces])

    # -- create and delete -------------------------------------------------------------------------------------

    async def create(self, request: Request) -> web.Response:
        """POST: accepted is committed."""
        policy.enforce(request.caller, "capsule:create")
        order = template.read(request.body["template"], self._zones, self._limits)
        caller, now = request.caller, self._clock()
        new = NewCapsule(
            uuid=str(uuid.uuid4()),
            kind="capsule",
            project_id=caller.project_id,
            user_id=caller.user_id,
            name=order.pod.metadata.name,
            spec=CapsuleSpec(labels=order.labels, pod=order.pod),
            wish=Wish("running", run=1, stop_timeout_s=order.pod.spec.termination_grace_period_seconds, at_us=now),
            volumes=await self._existing(order, caller.project_id),
            new_volumes=order.new_volumes,
        )
        capsule = await self._store.create_capsule(new)
        shown = await self.shown(request, capsule)
        shown["created_at"] = time_text(capsule.created_us, fraction=True)
        response = json_response(shown, 202, {"Location": f"{request.host_url}{PATH}/{capsule.uuid}"})
        for warning in order.warnings:
            response.headers.add("Warning", f'299 - "{warning}"')
        return response

    async def _existing(self, order: template.Order, project_id: str) -> Found:
        """The grants of volumes that are there already. New ones keep their places, so that messages count right."""
        wanted = {grant.name: grant for grant in order.volumes}
        spec = msgspec.structs.replace(
            order.pod.spec, volumes=[v if v.name in wanted else Volume(v.name) for v in order.pod.spec.volumes]
        )
        found = await self._grants(msgspec.structs.replace(order.pod, spec=spec), project_id)
        return [msgspec.structs.replace(g, auto_remove=wanted[g.name].auto_remove) for g in found]

    async def delete(self, request: Request) -> web.Response:
        """DELETE, in any status."""
        if _boolean("all_projects", request.query.get("all_projects")):
            policy.enforce(request.caller, "capsule:delete_all_projects")
        capsule = await self.find(request, "delete")
        now_us = self._clock()

        def change(now: Capsule) -> Wish:
            assert now.spec.pod is not None
            if now.wish.state == "deleted":
                return now.wish
            return msgspec.structs.replace(
                now.wish,
                state="deleted",
                task="deleting",
                generation=now.wish.generation + 1,
                stop_timeout_s=now.spec.pod.spec.termination_grace_period_seconds,
                at_us=now_us,
            )

        await self._store.wish(capsule.uuid, change)
        return web.Response(status=204)


def _boolean(name: str, value: str | None) -> bool:
    if value is not None and value not in schemas.TRUE and value not in schemas.FALSE:
        raise invalid_value(f"Invalid value for {name}: '{value}' is not a boolean word")
    return schemas.boolean(value, False)


def _limit(value: str | None) -> int:
    if value is None:
        return MAX_LIMIT
    if not value.isascii() or not value.isdigit() or int(value[:10]) == 0:
        raise invalid_value("Limit must be positive integer")
    return min(int(value[:10]), MAX_LIMIT)
