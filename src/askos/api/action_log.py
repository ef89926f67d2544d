"""Zun's container_actions: what was asked of a container, by whom, and how it went."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from askos.api import policy
from askos.api.containers import Containers
from askos.api.core import Request, json_response
from askos.model.actions import Action, ActionEvent
from askos.model.errors import NotFoundError


class ActionLog:
    """The handlers."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._store = containers.store

    async def list(self, request: Request) -> web.Response:
        """GET all, the newest first."""
        capsule = await self._containers.find(request, "actions")
        found = await self._store.actions(capsule.uuid)
        return json_response({"containerActions": [_action(action) for action in found]})

    async def show(self, request: Request) -> web.Response:
        """GET one by its request's id, with its events."""
        capsule = await self._containers.find(request, "actions")
        wanted = request.arguments["request_id"]
        found = [a for a in await self._store.actions(capsule.uuid) if a.request_id == wanted]
        if not found:
            raise NotFoundError(f"The Action resource {wanted} could not be found.", "resource-not-found")
        reasons = policy.allows(request.caller, "container:action:events")
        events = [_event(event, reasons=reasons) for event in found[0].events]
        return json_response({**_action(found[0]), "events": events})


def _action(action: Action) -> dict[str, Any]:
    return {
        "action": action.action,
        "container_uuid": action.capsule_uuid,
        "request_id": action.request_id,
        "user_id": action.user_id,
        "project_id": action.project_id,
        "start_time": _time(action.start_us),
        "finish_time": _time(action.finish_us),
        "message": "Error" if action.failed else None,
    }


def _event(event: ActionEvent, *, reasons: bool) -> dict[str, Any]:
    return {
        "event": event.event,
        "start_time": _time(event.start_us),
        "finish_time": _time(event.finish_us),
        "result": event.result,
        "traceback": event.reason if reasons else None,
    }


def _time(us: int | None) -> str | None:
    """With a T, unlike everywhere else in Zun."""
    return None if us is None else datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
