"""Zun's /v1/containers: finding, showing, creating and deleting. What is done with them is in the modules beside."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from askos.api import create, policy, representation, schemas, state
from askos.api.core import Request, json_response
from askos.api.errors import ApiError
from askos.api.hostnames import HostNames
from askos.api.listing import Listing
from askos.api.lookups import Lookups
from askos.api.microversion import Version
from askos.model.actions import NewAction
from askos.model.capsules import Capsule, Wish
from askos.plan import zun_status
from askos.ports.calls import CallStream, HostCalls
from askos.ports.store import NewCapsule, Store


class Containers:
    """The handlers. `zones` names the availability zones that a create may ask for."""

    def __init__(
        self,
        store: Store,
        calls: HostCalls,
        clock: Callable[[], int],
        zones: set[str],
        limits: schemas.Limits = schemas.DEFAULT_LIMITS,
        *,
        lookups: Lookups | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.limits = limits
        self.lookups = lookups or Lookups(store)
        self._calls = calls
        self._zones = zones
        self._host_names = HostNames(store)
        self.list = Listing(store, clock, self._host_names).list

    # -- reading -----------------------------------------------------------------------------------------------

    async def find(self, request: Request, rule: str = "get_one") -> Capsule:
        """The container of the path, within what the caller may see and, by the rule's name, may do."""
        caller = request.caller
        policy.enforce(caller, f"container:{rule}")
        if schemas.boolean(request.query.get("all_projects"), False):
            policy.enforce(caller, "container:get_one_all_projects")
        scope = None if caller.is_admin else caller.project_id
        return await self.store.capsule(request.arguments["ident"], scope, "container")

    async def shown(self, request: Request, capsule: Capsule, *, links: bool = True) -> dict[str, Any]:
        """One container as the caller may see it."""
        seen = representation.seen_by(request.caller)
        host_name = await self._host_names.one(capsule.placement.host_uuid) if "host" in seen else None
        shown = representation.container(capsule, self.clock(), seen=seen, host_name=host_name)
        if links:
            shown["links"] = representation.links(request.host_url, capsule.uuid)
        return shown

    async def show(self, request: Request) -> web.Response:
        """GET one."""
        return json_response(await self.shown(request, await self.find(request)))

    # -- create and delete -------------------------------------------------------------------------------------

    def create_schema(self, version: Version) -> schemas.Schema:
        """The schema of a create's body at a version."""
        return schemas.create(version, self.limits)

    async def create(self, request: Request) -> web.Response:
        """POST: accepted is committed, and everything was checked before."""
        caller, body = request.caller, request.body
        name, spec = create.spec_of(body, request.version, caller, self._zones, self.limits)
        groups = await self.lookups.groups(body.get("security_groups"), caller)
        nets = await self.lookups.nets(body.get("nets"), caller)
        image_uuid = await self.lookups.image(spec.containers[0].image, spec.containers[0].image_driver, caller)
        registry = await self.lookups.registry(body.get("registry"), caller)
        mounts = await self.lookups.mounts(body.get("mounts"), caller)
        await self.lookups.check_host(spec.placement.host)
        await self.lookups.check_runtime(spec.runtime)
        container = msgspec.structs.replace(
            spec.containers[0], mounts=mounts.mounts, registry_uuid=registry, image_uuid=image_uuid
        )
        run = schemas.boolean(request.query.get("run"), False)
        new = NewCapsule(
            uuid=str(uuid.uuid4()),
            kind="container",
            project_id=caller.project_id,
            user_id=caller.user_id,
            name=name,
            spec=msgspec.structs.replace(spec, containers=[container], security_groups=groups),
            wish=Wish("running" if run else "created", run=1 if run else 0, at_us=self.clock()),
            content=mounts.content,
            volumes=mounts.volumes,
            new_volumes=mounts.new_volumes,
            nets=nets,
            action=action(request, "create"),
        )
        capsule = await self.store.create_capsule(new)
        shown = await self.shown(request, capsule)
        shown["created_at"] = representation.time_text(capsule.created_us, fraction=True)
        location = f"{request.host_url}/v1/containers/{capsule.uuid}"
        return json_response(shown, 202, {"Location": location})

    async def delete(self, request: Request) -> web.Response:
        """DELETE, plain or with stop or force."""
        query = request.query
        force = schemas.boolean(query.get("force"), False)
        stop = schemas.boolean(query.get("stop"), False)
        for word, asked, since in (("force", force, (1, 7)), ("stop", stop, (1, 12))):
            if asked and request.version < since:
                raise ApiError(
                    400,
                    f"Invalid param {word} because current request version is {request.version}. {word} is only "
                    f"supported from version {since[0]}.{since[1]}",
                    code="container.invalid-param-in-version",
                )
        if stop:
            policy.enforce(request.caller, "container:stop")
        elif force:
            policy.enforce(request.caller, "container:delete_force")
        if schemas.boolean(query.get("all_projects"), False):
            policy.enforce(request.caller, "container:delete_all_projects")
        capsule = await self.find(request, "delete")

        def change(now: Capsule) -> Wish:
            if not (force or stop):
                state.check("delete", now)
            if now.wish.state == "deleted" and not force:
                return now.wish
            return state.next_wish(now, "deleted", "deleting", self.clock(), timeout_s=10 if stop else 0)

        await self.store.wish(capsule.uuid, change, action(request, "delete"))
        return web.Response(status=204)

    # -- calls to the container's host -------------------------------------------------------------------------

    async def call(self, capsule: Capsule, method: str, arguments: dict[str, Any], timeout_s: float) -> Any:
        """Ask the container's host."""
        arguments = {"capsule": capsule.uuid, **arguments}
        return await self._calls.call(host_of(capsule), method, arguments, timeout_s)

    async def open(self, capsule: Capsule, method: str, arguments: dict[str, Any]) -> CallStream:
        """A call with streams to the container's host."""
        arguments = {"capsule": capsule.uuid, **arguments}
        return await self._calls.open(host_of(capsule), method, arguments)


def host_of(capsule: Capsule) -> str:
    """The uuid of the container's host. A 400 when it has none yet."""
    if capsule.placement.host_uuid is None:
        raise ApiError(400, "Cannot operate an uncreated container.", code="container.invalid")
    return capsule.placement.host_uuid


def action(request: Request, word: str) -> NewAction:
    """What the log says of a request."""
    return NewAction(word, request.request_id, request.caller.user_id, request.caller.project_id)


def settled(capsule: Capsule) -> bool:
    """Whether the container does not change any more by itself: not running, nothing under way."""
    view = zun_status.view(capsule.wish, capsule.placement, capsule.report)
    return view.task_state is None and view.status in ("Created", "Stopped", "Error")
