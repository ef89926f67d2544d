"""Zun's commit: a container's files as an image of the image service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from askos.api import state
from askos.api.containers import Containers, action
from askos.api.core import Request, json_response
from askos.api.errors import ApiError, invalid_query
from askos.model.capsules import Capsule
from askos.model.errors import AskosError
from askos.model.identity import Caller

Over = Callable[[str | None], Awaitable[None]]
"""Told how it went: None, or why it failed."""


class Committer(Protocol):
    """Makes images of containers."""

    async def commit(self, capsule: Capsule, repository: str, tag: str, caller: Caller, over: Over) -> str:
        """Make an image record for the caller's project, and let the container's host fill it; returns its uuid as
        soon as it is there, and calls `over` when the image is whole or has failed. What it raises itself is no
        image at all: then `over` is not called. InvalidError for a name that cannot be; UnavailableError."""


class Commits:
    """The handler. Without a `committer` this cloud has no image service."""

    def __init__(self, containers: Containers, committer: Committer | None = None) -> None:
        self._containers = containers
        self._committer = committer

    async def commit(self, request: Request) -> web.Response:
        """POST commit: a 202 with the image's uuid."""
        repository, tag = request.query.get("repository"), request.query.get("tag")
        if not repository:
            raise ApiError(400, "'repository' is a required property", code="container.schema-validation-error")
        capsule = await self._containers.find(request, "commit")
        state.check("commit", capsule)
        if self._committer is None:
            raise invalid_query("repository", repository, "this cloud has no image service to keep it in")
        store = self._containers.store
        logged = await store.begin_action(capsule.uuid, action(request, "commit"))

        async def over(failure: str | None) -> None:
            await store.end_action(logged, failure)

        try:
            uuid = await self._committer.commit(capsule, str(repository), tag or "", request.caller, over)
        except AskosError as error:
            await over(error.message)
            raise
        return json_response({"uuid": uuid}, 202)
