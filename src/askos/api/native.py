"""The native API below /askos/v1: streaming exec and logs, waiting, images."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from askos.api import policy, schemas, state
from askos.api.channels import STDERR, STDIN, STDOUT, Channels, carry, check_upgrade
from askos.api.containers import Containers, host_of, settled
from askos.api.core import Request, json_response, read_json
from askos.api.errors import ApiError, invalid_query
from askos.api.inside import since_us, tail_lines
from askos.api.logstream import respond
from askos.api.sessions import MAIN
from askos.model.capsules import Capsule
from askos.model.errors import AskosError, InvalidError, NotFoundError, UnavailableError
from askos.model.images import normalise
from askos.plan import zun_status
from askos.ports.calls import Frame, HostCalls, deliver
from askos.ports.store import Store

WaitForChange = Callable[[str, float], Awaitable[None]]
"""Waits until something of a capsule (by uuid) may have changed, or for so many seconds."""
LOOK_S = 1.0
"""Who waits for a container looks at it as often without being told."""


class Native:
    """The handlers."""

    def __init__(self, store: Store, calls: HostCalls, containers: Containers, wait: WaitForChange) -> None:
        self._store = store
        self._calls = calls
        self._containers = containers
        self._wait = wait

    async def _placed(self, request: Request, action: str) -> tuple[Capsule, str]:
        capsule = await self._containers.find(request)
        state.check(action, capsule)
        if capsule.placement.host_uuid is None:
            raise ApiError(400, "Cannot operate an uncreated container.", code="container.invalid")
        return capsule, capsule.placement.host_uuid

    # -- exec --------------------------------------------------------------------------------------------------

    async def exec(self, request: Request) -> web.StreamResponse:
        """A process over a WebSocket, in Kubernetes' channel protocol (v5, v4)."""
        query = request.query
        argv = request.raw.query.getall("command", [])
        if not argv:
            raise invalid_query("command", "", "a command is required")
        check_upgrade(request.raw)
        capsule, host = await self._placed(request, "execute")
        environment, workdir = request.raw.query.getall("env", []), str(query.get("workdir", ""))
        for value in environment:
            if not value.partition("=")[0] or "=" not in value or "\0" in value:
                raise invalid_query("env", value, "it is not NAME=value")
        if workdir and (not workdir.startswith("/") or "\0" in workdir):
            raise invalid_query("workdir", workdir, "it is not an absolute path")
        exec_request = {
            "argv": argv,
            "environment": environment,
            "workdir": workdir,
            "tty": flag(query, "tty", False),
            "stdin": flag(query, "stdin", False),
            "width": int(schemas.number("width", query.get("width", "80"), 1, 10_000)),
            "height": int(schemas.number("height", query.get("height", "24"), 1, 10_000)),
        }
        stream = await self._calls.open(host, "exec", {"capsule": capsule.uuid, "request": exec_request})
        try:
            frames = stream.frames()
            # The first frame says that the process has started; a failure before it is an HTTP error.
            await anext(frames, None)
            async with Channels(request.raw) as channels:
                await carry(channels, stream, frames, wanted={STDIN, STDOUT, STDERR})
            return channels.response
        finally:
            await stream.close()

    async def attach(self, request: Request) -> web.StreamResponse:
        """The container's own process over a WebSocket, in the same protocol. `logs`: what it wrote before comes first;
        of one that has ended meanwhile, that is all."""
        query = request.query
        sizes = {
            name: int(schemas.number(name, query.get(name, default), 1, 10_000))
            for name, default in (("width", "80"), ("height", "24"))
        }
        with_logs, stdin = flag(query, "logs", False), flag(query, "stdin", False)
        tty = flag(query, "tty", False)
        capsule = await self._containers.find(request, "attach")
        check_upgrade(request.raw)
        host = host_of(capsule)
        spec = capsule.spec.containers[0]
        if stdin and not spec.interactive:
            title = "Container doesn't support to be attached, please check the interactive set properly"
            raise ApiError(400, title, code="container.no-interactive-flag")
        if not with_logs:
            state.check("attach", capsule)
        arguments = {"capsule": capsule.uuid, "container": MAIN, "stdin": stdin, "tty": tty, "logs": with_logs}
        stream = await self._calls.open(host, "attach", arguments)
        try:
            frames = stream.frames()
            await anext(frames, None)
            if tty and spec.tty:
                # Two sizes: a program draws its screen, and a shell its prompt, anew when the size changes.
                for more in (1, 0):
                    await stream.send(Frame(control={"resize": [sizes["width"] + more, sizes["height"] + more]}))
            async with Channels(request.raw) as channels:
                await carry(channels, stream, frames, wanted={STDIN, STDOUT, STDERR} if stdin else {STDOUT, STDERR})
            return channels.response
        finally:
            await stream.close()

    # -- logs and waiting --------------------------------------------------------------------------------------

    async def logs(self, request: Request) -> web.StreamResponse:
        """The log as a stream; with follow until the container has ended."""
        capsule, host = await self._placed(request, "logs")
        query = request.query
        framed = flag(query, "streams", False)
        arguments = {
            "capsule": capsule.uuid,
            "stdout": flag(query, "stdout", True),
            "stderr": flag(query, "stderr", True),
            "timestamps": flag(query, "timestamps", False),
            "tail": tail_lines(query.get("tail")),
            "since_us": since_us(query.get("since")),
            "follow": flag(query, "follow", False),
        }
        stream = await self._calls.open(host, "logs", arguments)
        return await respond(request, stream, stream.frames(), framed=framed)

    async def wait(self, request: Request) -> web.Response:
        """Long poll until the container does not change by itself any more, or (`until=running`) runs."""
        until = request.query.get("until", "ended")
        if until not in ("ended", "running"):
            raise invalid_query("until", until, "it is neither ended nor running")
        timeout_s = schemas.number("timeout", request.query.get("timeout", "30"), 0, 300)
        deadline = asyncio.get_running_loop().time() + timeout_s
        uuid = (await self._containers.find(request)).uuid
        request.arguments["ident"] = uuid
        while True:
            capsule = await self._containers.find(request)
            view = zun_status.view(capsule.wish, capsule.placement, capsule.report)
            if settled(capsule) or (until == "running" and view.status == "Running" and view.task_state is None):
                codes = [c.exit_code for c in capsule.report.containers]
                body = {"status": view.status, "status_reason": view.status_reason}
                return json_response({**body, "exit_code": codes[0] if codes else None})
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return web.Response(status=204)
            await self._wait(uuid, min(left, LOOK_S))

    # -- images ------------------------------------------------------------------------------------------------

    async def _image_host(self) -> str:
        """The host whose images are meant. With several hosts, the first by name that is connected."""
        hosts = sorted((h for h in await self._store.hosts() if h.connected), key=lambda h: h.facts.hostname)
        if not hosts:
            raise UnavailableError("No host is connected now. Try again in a moment.")
        return hosts[0].facts.uuid

    async def images(self, request: Request) -> web.Response:
        """GET the images on the host."""
        policy.enforce(request.caller, "image:get_all")
        found = await self._calls.call(await self._image_host(), "images", {}, 30.0)
        return json_response({"images": found})

    async def image_pull(self, request: Request) -> web.StreamResponse:
        """POST: pull, with progress as NDJSON lines."""
        policy.enforce(request.caller, "image:pull")
        body = await read_json(request.raw)
        ref = body.get("ref") if isinstance(body, dict) else None
        if not isinstance(ref, str):
            raise InvalidError('Cannot pull: the body must be {"ref": "<image>"}.')
        stream = await self._calls.open(await self._image_host(), "image_pull", {"ref": normalise(ref)})
        response = web.StreamResponse(headers={"X-Openstack-Request-Id": request.request_id})
        response.content_type = "application/x-ndjson"
        try:
            await response.prepare(request.raw)
            try:
                async for frame in stream.frames():
                    await _line(response, {"status": "pulling", **(frame.control or {})})
                await _line(response, {"status": "done", "image": stream.result})
            except AskosError as error:
                await _line(response, {"status": "error", "message": error.message})
            await response.write_eof()
        finally:
            await stream.close()
        return response

    async def image_import(self, request: Request) -> web.Response:
        """POST: import the tar archive that is the body."""
        policy.enforce(request.caller, "image:pull")
        ref = request.query.get("ref")
        arguments = {"ref": normalise(ref) if ref else None}
        stream = await self._calls.open(await self._image_host(), "image_import", arguments)
        try:
            await deliver(stream, stream.frames(), request.raw.content.iter_chunked(256 * 1024))
            return json_response({"refs": stream.result})
        finally:
            await stream.close()

    async def image_remove(self, request: Request) -> web.Response:
        """DELETE ?ref=."""
        policy.enforce(request.caller, "image:delete")
        ref = request.query.get("ref")
        if not ref:
            raise NotFoundError("Which image? Give ?ref=.", "image-not-found")
        await self._calls.call(await self._image_host(), "image_remove", {"ref": ref}, 60.0)
        return web.Response(status=204)


def flag(query: dict[str, Any], name: str, default: bool) -> bool:
    """A boolean word of the query."""
    value = query.get(name)
    if value is not None and value not in schemas.TRUE and value not in schemas.FALSE:
        raise invalid_query(name, value, "it is not a boolean word")
    return schemas.boolean(value, default)


async def _line(response: web.StreamResponse, value: dict[str, Any]) -> None:
    await response.write(msgspec.json.encode(value) + b"\n")
