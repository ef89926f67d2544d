"""Zun's actions that wish a container elsewhere: start, stop, reboot, pause, kill, rebuild."""

from __future__ import annotations

import asyncio
import signal

import msgspec
from aiohttp import web

from askos.api import create, state
from askos.api.containers import Containers, action
from askos.api.core import Request, raw_json
from askos.api.errors import ApiError, invalid_query
from askos.model.capsules import Capsule, CapsuleSpec, Task, Wish, WishState
from askos.model.errors import AskosError

SIGNAL_TIMEOUT_S = 10.0


class Lifecycle:
    """The handlers."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._store = containers.store
        self._clock = containers.clock

    async def _wish(
        self,
        request: Request,
        word: str,
        wanted: WishState,
        task: Task,
        *,
        run: bool = False,
        timeout_s: int | None = None,
    ) -> web.Response:
        capsule = await self._containers.find(request, word)

        def change(now: Capsule) -> Wish:
            state.check(word, now)
            return state.next_wish(now, wanted, task, self._clock(), timeout_s=timeout_s, run=run)

        await self._store.wish(capsule.uuid, change, action(request, word))
        return raw_json(b"null", 202)

    async def start(self, request: Request) -> web.Response:
        """POST start."""
        return await self._wish(request, "start", "running", "starting", run=True)

    async def stop(self, request: Request) -> web.Response:
        """POST stop: SIGTERM, then SIGKILL after `timeout` seconds."""
        return await self._wish(request, "stop", "stopped", "stopping", timeout_s=_timeout(request))

    async def reboot(self, request: Request) -> web.Response:
        """POST reboot: stop if it runs, then start."""
        return await self._wish(request, "reboot", "running", "rebooting", run=True, timeout_s=_timeout(request))

    async def pause(self, request: Request) -> web.Response:
        """POST pause: its processes stand still."""
        return await self._wish(request, "pause", "paused", "pausing")

    async def unpause(self, request: Request) -> web.Response:
        """POST unpause: they go on."""
        return await self._wish(request, "unpause", "running", "unpausing")

    async def kill(self, request: Request) -> web.Response:
        """POST kill. KILL ends the container for good, as docker does; other signals are only delivered."""
        number = _signal(request.query.get("signal"))
        if number == signal.SIGKILL:
            return await self._wish(request, "kill", "stopped", "killing", timeout_s=0)
        capsule = await self._containers.find(request, "kill")
        state.check("kill", capsule)
        logged = await self._store.begin_action(capsule.uuid, action(request, "kill"))
        failure: str | None = "It was broken off."
        try:
            await self._containers.call(capsule, "signal", {"signal": number}, SIGNAL_TIMEOUT_S)
            failure = None
        except AskosError as error:
            failure = error.message
            raise
        finally:
            await asyncio.shield(self._store.end_action(logged, failure))
        return raw_json(b"null", 202)

    async def rebuild(self, request: Request) -> web.Response:
        """POST rebuild: fresh files, from another image if one is named; it runs again if it ran."""
        query = request.query
        image, driver = query.get("image"), query.get("image_driver")
        if driver not in (None, "docker", "glance"):
            title = "Invalid input for image_driver, it should be within the image drivers list"
            raise ApiError(400, title, code="container.validation-error")
        capsule = await self._containers.find(request, "rebuild")
        old = capsule.spec.containers[0]
        changes: dict[str, str] = {}
        if image or driver not in (None, old.image_driver):
            image, driver = image or old.image, driver or old.image_driver
            create.check_image("image", image, driver)
            found = await self._containers.lookups.image(image, driver, request.caller)
            changes = {"image": image, "image_driver": driver, "image_uuid": found}

        def change(now: Capsule) -> tuple[CapsuleSpec, Wish]:
            state.check("rebuild", now)
            container = msgspec.structs.replace(now.spec.containers[0], **changes)
            return msgspec.structs.replace(now.spec, containers=[container]), state.rebuilt(now, self._clock())

        await self._store.update_capsule(capsule.uuid, change, action=action(request, "rebuild"))
        return raw_json(b"null", 202)


def _timeout(request: Request) -> int | None:
    value = request.query.get("timeout")
    return None if value is None or value == "" else int(value)


def _signal(value: object) -> int:
    """A signal by name (with or without SIG, any case) or number. Default KILL."""
    if value is None or value == "None":
        return signal.SIGKILL
    text = str(value)
    if text.isascii() and text.isdigit():
        if 1 <= int(text) <= 64:
            return int(text)
    else:
        name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
        if name in signal.Signals.__members__:
            return signal.Signals[name].value
    raise invalid_query("signal", value, "it is neither the name nor the number of a signal")
