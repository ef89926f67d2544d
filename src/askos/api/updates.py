"""Changes of a container that stays where it is: PATCH, resize_container, rename."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from askos.api import create, schemas, state
from askos.api.containers import Containers
from askos.api.core import Request, json_response
from askos.api.errors import invalid_query
from askos.api.microversion import Version
from askos.model.capsules import Capsule, CapsuleSpec, Wish
from askos.model.errors import ConflictError
from askos.plan.placement import DEFAULT_RATIOS, Load, Ratios, room


class Updates:
    """The handlers. `ratios`: those that placement goes by."""

    def __init__(self, containers: Containers, ratios: Ratios = DEFAULT_RATIOS) -> None:
        self._containers = containers
        self._store = containers.store
        self._limits = containers.limits
        self._ratios = ratios

    def schema(self, _version: Version) -> schemas.Schema:
        """The schema of a change's body; it is the same at every version."""
        return schemas.update(self._limits)

    async def update(self, request: Request) -> web.Response:
        """PATCH: the container with its new values."""
        capsule = await self._containers.find(request, "update")
        after = await self._change(capsule, request.body, "update")
        return json_response(await self._containers.shown(request, after))

    async def resize_container(self, request: Request) -> web.Response:
        """POST resize_container: a 202 with the old values, as Zun does it."""
        given = {**request.body, **request.query}
        schemas.check_body(self.schema(request.version), given)
        capsule = await self._containers.find(request, "resize_container")
        before = await self._containers.shown(request, capsule)
        await self._change(capsule, given, "resize_container")
        return json_response(before, 202)

    async def rename(self, request: Request) -> web.Response:
        """POST rename: the container with its new name. Up to 1.13."""
        name = request.query.get("name")
        if not name:
            raise invalid_query("name", "", "a name is required")
        capsule = await self._containers.find(request, "rename")
        state.check("rename", capsule)
        if name == capsule.name:
            raise ConflictError("The new name for the container is the same as the old name.")
        after = await self._store.update_capsule(capsule.uuid, lambda now: (now.spec, now.wish), name=name)
        return json_response(await self._containers.shown(request, after))

    async def _change(self, capsule: Capsule, given: dict[str, Any], word: str) -> Capsule:
        def change(now: Capsule) -> tuple[CapsuleSpec, Wish]:
            state.check(word, now)
            spec = self._spec(now.spec, given)
            wish = now.wish if spec == now.spec else state.changed(now, "updating", self._containers.clock())
            return spec, wish

        return await self._store.update_capsule(capsule.uuid, change, fits=self._fits, name=given.get("name"))

    def _spec(self, spec: CapsuleSpec, given: dict[str, Any]) -> CapsuleSpec:
        before = spec.containers[0]
        container = msgspec.structs.replace(
            before,
            cpu=create.cpu_of(given, self._limits, before.cpu),
            memory_mib=create.memory_of(given, self._limits, before.memory_mib),
        )
        create.check_cores(container.cpu_policy, container.cpu)
        heal = schemas.boolean(given.get("auto_heal"), spec.auto_heal)
        return msgspec.structs.replace(spec, containers=[container], auto_heal=heal)

    def _fits(self, load: Load) -> None:
        cpu, memory = room(load, self._ratios)
        for left, what in ((cpu, "cpu"), (memory, "memory")):
            if left < 0:
                raise ConflictError(
                    f"Cannot give the container so much {what}: its host has not so much left. Ask for less, or "
                    "create it anew, so that it may get another host."
                )
