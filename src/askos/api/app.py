"""The HTTP application: Zun's and the native API through one dispatcher, and whatever else is mounted beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import msgspec
from aiohttp import web

from askos import __version__
from askos.api import openapi, schemas, table
from askos.api.containers import Containers
from askos.api.core import Dispatcher, Request, Route, raw_json
from askos.api.discovery import Discovery
from askos.api.native import Native
from askos.ports.calls import HostCalls
from askos.ports.identity import Identity
from askos.ports.store import Store


class Watch:
    """Lets requests wait for changes of one capsule."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def changed(self, uuid: str) -> None:
        """Something of this capsule has changed."""
        event = self._events.pop(uuid, None)
        if event is not None:
            event.set()

    async def wait(self, uuid: str, timeout_s: float) -> None:
        """Wait for a change or for the time to pass."""
        event = self._events.setdefault(uuid, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return


def application(
    *,
    store: Store,
    calls: HostCalls,
    identity: Identity,
    clock: Callable[[], int],
    healthy: Callable[[], Awaitable[None]],
    watch: Watch,
    zones: set[str],
    limits: schemas.Limits = schemas.DEFAULT_LIMITS,
    mounted: Iterable[web.AbstractRouteDef] = (),
) -> web.Application:
    """The whole application. `mounted`: routes of other services (Keystone's) on the same port."""
    containers = Containers(store, calls, clock, zones, limits)
    native = Native(store, calls, containers, watch.wait)
    routes = table.routes(Discovery(healthy), containers, native)
    described = msgspec.json.encode(openapi.document(routes, __version__))

    async def show_document(_request: Request) -> web.Response:
        return raw_json(described)

    routes.append(Route("GET", "/openapi.json", show_document, "This document", public=True))
    dispatcher = Dispatcher(routes, identity, "/identity/v3")
    app = web.Application(client_max_size=1 << 20)
    app.add_routes(mounted)
    app.router.add_route("*", "/{path:.*}", dispatcher.__call__)
    return app
