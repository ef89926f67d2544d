"""What an agent answers when it is called: exec, logs, signals and images."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from askos.loops import logs
from askos.loops.agent import Agent
from askos.model.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from askos.model.images import normalise
from askos.ports import runtime as rt
from askos.ports.calls import Frame, HostCall


class Calls:
    """The handler that the link is given."""

    def __init__(self, agent: Agent, upload_root: Path) -> None:
        self._agent = agent
        self._uploads = upload_root
        self._methods: dict[str, Callable[[HostCall], Awaitable[Any]]] = {
            "exec": self._exec,
            "run": self._run,
            "logs": self._logs,
            "signal": self._signal,
            "images": self._images,
            "image_pull": self._image_pull,
            "image_import": self._image_import,
            "image_remove": self._image_remove,
        }

    async def __call__(self, call: HostCall) -> Any:
        """Perform a call."""
        method = self._methods.get(call.method)
        if method is None:
            raise InvalidError(f'This host\'s agent is too old for "{call.method}".')
        return await method(call)

    # -- containers --------------------------------------------------------------------------------------------

    async def _running(self, capsule_uuid: str) -> str:
        """The id of the capsule's running container."""
        worker = self._agent.workers.get(capsule_uuid)
        if worker is None:
            raise NotFoundError(f"Container {capsule_uuid} is not on this host.", "container-not-found")
        _, containers = await self._agent.runtime.observe(capsule_uuid)
        running = [c for c in containers if c.state == "running"]
        if not running:
            raise ConflictError(f"Container {capsule_uuid} is not running.")
        return running[-1].id

    async def _exec(self, call: HostCall) -> dict[str, int]:
        """A process with streams. Result: {"exit_code": n}."""
        request = msgspec.convert(call.arguments["request"], rt.ExecRequest)
        session = await self._agent.runtime.exec(await self._running(call.arguments["capsule"]), request)
        try:
            feeder = asyncio.create_task(_feed(call, session))
            try:
                # An empty frame tells the caller that the process has started.
                await call.send(Frame(control={"started": True}))
                async for stream, data in session.output():
                    await call.send(Frame(1 if stream == "stdout" else 2, data))
                return {"exit_code": await session.wait()}
            finally:
                feeder.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await feeder
        finally:
            await session.close()

    async def _run(self, call: HostCall) -> dict[str, Any]:
        """A process without input, its output kept up to a limit. Result: {"output", "exit_code"}."""
        limit = int(call.arguments["limit_bytes"])
        request = rt.ExecRequest(argv=call.arguments["argv"], tty=bool(call.arguments.get("tty")))
        session = await self._agent.runtime.exec(await self._running(call.arguments["capsule"]), request)
        kept = bytearray()
        try:
            async for _stream, data in session.output():
                if len(kept) < limit:
                    kept += data[: limit - len(kept)]
            return {"output": kept.decode(errors="replace"), "exit_code": await session.wait()}
        finally:
            await session.close()

    async def _logs(self, call: HostCall) -> None:
        """The log as stdout and stderr frames; with `follow` until the capsule's container has ended."""
        arguments = call.arguments
        uuid = str(arguments["capsule"])
        reader = logs.Reader(self._agent.log_root / uuid)
        selection = logs.Selection(
            stdout=bool(arguments.get("stdout", True)),
            stderr=bool(arguments.get("stderr", True)),
            tail=arguments.get("tail"),
            since_us=arguments.get("since_us"),
            timestamps=bool(arguments.get("timestamps")),
        )
        send = _batched(call)
        await reader.history(selection, send)
        while arguments.get("follow"):
            # Ask first, then read: what was written before the end is always read.
            ended = await self._has_ended(uuid)
            await reader.more(selection, send)
            if ended:
                return
            await asyncio.sleep(0.1)

    async def _has_ended(self, capsule_uuid: str) -> bool:
        worker = self._agent.workers.get(capsule_uuid)
        if worker is None or worker.gone or worker.report is None:
            return worker is None or worker.gone
        report = worker.report.report
        fresh = report.generation == worker.assignment.wish.generation
        return fresh and report.settled and report.state not in ("running", "restarting")

    async def _signal(self, call: HostCall) -> None:
        container = await self._running(call.arguments["capsule"])
        await self._agent.runtime.signal(container, int(call.arguments["signal"]))

    # -- images ------------------------------------------------------------------------------------------------

    async def _images(self, _call: HostCall) -> list[Any]:
        return [msgspec.to_builtins(image) for image in await self._agent.runtime.images()]

    async def _image_pull(self, call: HostCall) -> Any:
        """Pull with progress: control frames {"current", "total"} in bytes. Result: the image."""
        latest: list[tuple[int, int]] = []

        def note(current: int, total: int) -> None:
            latest[:] = [(current, total)]

        pull = asyncio.ensure_future(self._agent.runtime.pull(normalise(call.arguments["ref"]), note))
        try:
            while not pull.done():
                await asyncio.wait([pull], timeout=0.2)
                if latest:
                    current, total = latest.pop()
                    await call.send(Frame(control={"current": current, "total": total}))
            return msgspec.to_builtins(await pull)
        finally:
            pull.cancel()

    async def _image_import(self, call: HostCall) -> list[str]:
        """Import the archive that comes as data frames. Result: the references made."""
        self._uploads.mkdir(parents=True, exist_ok=True)
        path = self._uploads / f"{os.urandom(8).hex()}.tar"
        try:
            complete = False
            with path.open("wb") as file:
                async for frame in call.frames():
                    if frame.data:
                        await asyncio.to_thread(file.write, frame.data)
                    if frame.eof:
                        complete = True
                        break
            if not complete:
                raise InvalidError("Cannot import the image: the upload was cut off.")
            ref = call.arguments.get("ref")
            return await self._agent.runtime.import_image(str(path), normalise(ref) if ref else None)
        except OSError as error:
            raise UnavailableError(
                f"Cannot keep the archive on the host: {(error.strerror or str(error)).lower()}. "
                "See to the disk of its data folder, then try again."
            ) from error
        finally:
            path.unlink(missing_ok=True)

    async def _image_remove(self, call: HostCall) -> None:
        ref = str(call.arguments["ref"])
        found = await self._agent.runtime.image(ref if ref.startswith("sha256:") else normalise(ref))
        if found is None:
            raise NotFoundError(f"Image {ref} could not be found.", "image-not-found")
        await self._agent.runtime.remove_image(ref if ref.startswith("sha256:") else normalise(ref))


async def _feed(call: HostCall, session: rt.ExecSession) -> None:
    async for frame in call.frames():
        if frame.control is not None:
            size = frame.control.get("resize")
            if isinstance(size, list) and len(size) == 2:
                await session.resize(int(size[0]), int(size[1]))
            continue
        if frame.data:
            await session.write(frame.data)
        if frame.eof:
            await session.close_stdin()


def _batched(call: HostCall) -> Callable[[int, bytes], Awaitable[None]]:
    async def send(channel: int, data: bytes) -> None:
        await call.send(Frame(channel, data))

    return send
