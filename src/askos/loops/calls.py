"""What an agent answers when it is called: exec, attach, port forwarding, logs, signals, usage and images."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from askos.loops import forwarding, logs, pod_logs
from askos.loops.agent import Agent
from askos.loops.attaching import Attached, Past
from askos.loops.container_calls import ContainerCalls
from askos.loops.image_calls import ImageCalls
from askos.loops.usage import Usage
from askos.loops.worker import Worker
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.model.networks import NetworkState
from askos.model.pods import Container, Ended, PodContainerReport
from askos.ports import runtime as rt
from askos.ports.calls import Frame, HostCall
from askos.ports.volumes import HostVolumes

POLL_S = 0.1
"""How often a log that is followed, and the end of an attached container, are looked at."""
END_S = 5.0
"""How long after the end of its output a container may take to be seen as ended."""


class Streams(Protocol):
    """What exec and attach sessions have in common."""

    async def write(self, data: bytes) -> None:
        """See `ports.runtime.ExecSession`."""

    async def close_stdin(self) -> None:
        """See `ports.runtime.ExecSession`."""

    def output(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        """See `ports.runtime.ExecSession`."""

    async def resize(self, width: int, height: int) -> None:
        """See `ports.runtime.ExecSession`."""


class Calls:
    """The handler that the link is given."""

    def __init__(self, agent: Agent, upload_root: Path, volumes: HostVolumes | None = None) -> None:
        self._agent = agent
        self._volumes = volumes
        self._usage = Usage(agent)
        images = ImageCalls(agent.runtime, upload_root)
        self._methods: dict[str, Callable[[HostCall], Awaitable[Any]]] = {
            "exec": self._exec,
            "attach": self._attach,
            "portforward": self._portforward,
            "run": self._run,
            "logs": self._logs,
            "pod_logs": self._pod_logs,
            "signal": self._signal,
            "stats": self._stats,
            "images": images.images,
            "image_pull": images.pull,
            "image_import": images.import_,
            "image_remove": images.remove,
            "image_wants": agent.service_images.wants,
            "image_supply": images.supply(agent.service_images),
            "volume_remove": self._volume_remove,
            "network_state": self._network_state,
            **ContainerCalls(agent, self._usage, upload_root).methods,
        }

    async def _network_state(self, call: HostCall) -> None:
        state = msgspec.convert(call.arguments["state"], NetworkState)
        await self._agent.network.set_state(state)

    async def __call__(self, call: HostCall) -> Any:
        """Perform a call."""
        method = self._methods.get(call.method)
        if method is None:
            raise InvalidError(f'This host\'s agent is too old for "{call.method}".')
        return await method(call)

    async def _volume_remove(self, call: HostCall) -> None:
        """Remove the file of a volume that its user has deleted. ConflictError while a capsule has it mounted."""
        if self._volumes is None:
            raise InvalidError("This host has no volumes.")
        await self._volumes.remove_volume(str(call.arguments["uuid"]))

    # -- finding -----------------------------------------------------------------------------------------------

    def _worker(self, capsule_uuid: str) -> Worker:
        worker = self._agent.workers.get(capsule_uuid)
        if worker is None:
            raise NotFoundError(f"Container {capsule_uuid} is not on this host.", "container-not-found")
        return worker

    async def _running(self, capsule_uuid: str, name: str | None = None) -> str:
        """The id of the running container of this name; without one, of the only container."""
        worker = self._worker(capsule_uuid)
        what = f"Container {capsule_uuid}"
        if name is not None:
            _spec(worker, name)
            what = f'Container "{name}" of pod "{worker.assignment.name}"'
        _, containers = await self._agent.runtime.observe(capsule_uuid)
        running = [c for c in containers if c.state == "running" and name in (None, c.name)]
        if not running:
            raise ConflictError(f"{what} is not running.")
        return max(running, key=lambda c: (c.run, c.attempt)).id

    # -- processes ---------------------------------------------------------------------------------------------

    async def _exec(self, call: HostCall) -> dict[str, int]:
        """A process with streams. Result: {"exit_code": n}."""
        request = msgspec.convert(call.arguments["request"], rt.ExecRequest)
        container_id = await self._running(call.arguments["capsule"], call.arguments.get("container"))
        session = await self._agent.runtime.exec(container_id, request)
        try:
            await _carry(call, session)
            return {"exit_code": await session.wait()}
        finally:
            await session.close()

    async def _attach(self, call: HostCall) -> dict[str, int | None]:
        """The streams of a container's own process, until it ends. Result: {"exit_code": n}, None if not known.

        Whether there is a terminal, and whether there is any input, is as the container was made.
        """
        uuid, name = str(call.arguments["capsule"]), str(call.arguments["container"])
        worker = self._worker(uuid)
        if worker.assignment.spec.pod is None:
            return await self._attach_main(call, worker)
        spec = _spec(worker, name)
        container_id = await self._running(uuid, name)
        stdin = bool(call.arguments.get("stdin")) and spec.stdin
        session = await self._agent.runtime.attach(container_id, stdin=stdin, tty=spec.tty)
        try:
            await _carry(call, session, stdin=stdin)
        finally:
            await session.close()
        return {"exit_code": await self._exit_code(uuid, container_id)}

    async def _attach_main(self, call: HostCall, worker: Worker) -> dict[str, int | None]:
        """The same for a Zun container. With `logs` what it wrote before comes first; of one that has ended meanwhile,
        that is all."""
        uuid, spec = worker.assignment.capsule_uuid, worker.assignment.spec.containers[0]
        past = Past(self._agent.log_root / uuid) if call.arguments.get("logs") else None
        try:
            container_id = await self._running(uuid)
        except ConflictError:
            if past is None or not await self._has_ended(uuid):
                raise
            await call.send(Frame(control={"started": True}))
            await past.tell(_sender(call))
            known = worker.report.report.containers if worker.report is not None else []
            return {"exit_code": known[0].exit_code if known else None}
        if past is not None:
            await call.send(Frame(control={"started": True}))
            await past.tell(_sender(call))
        stdin = bool(call.arguments.get("stdin")) and spec.interactive
        session = await self._agent.runtime.attach(container_id, stdin=stdin, tty=spec.tty)
        try:
            since = await past.close_gap(_sender(call)) if past is not None else {}
            await _carry(call, Attached(session, since), stdin=stdin)
        finally:
            await session.close()
        return {"exit_code": await self._exit_code(uuid, container_id)}

    async def _exit_code(self, capsule_uuid: str, container_id: str) -> int | None:
        """How a container ended whose output has just ended."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + END_S
        while loop.time() < deadline:
            _, containers = await self._agent.runtime.observe(capsule_uuid)
            found = next((c for c in containers if c.id == container_id), None)
            if found is None:
                ends = [end for report in self._reports(capsule_uuid) for end in (report.ended, report.last)]
                known: list[Ended] = [end for end in ends if end is not None and end.container_id == container_id]
                return known[0].exit_code if known else None
            if found.state == "exited":
                return found.exit_code
            await asyncio.sleep(POLL_S)
        return None

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

    async def _signal(self, call: HostCall) -> None:
        container = await self._running(call.arguments["capsule"])
        await self._agent.runtime.signal(container, int(call.arguments["signal"]))

    async def _portforward(self, call: HostCall) -> None:
        """One connection to a port on the pod's loopback: channel 0 goes in, channel 1 comes out."""
        uuid, port = str(call.arguments["capsule"]), int(call.arguments["port"])
        name = self._worker(uuid).assignment.name
        sandboxes, _ = await self._agent.runtime.observe(uuid)
        ready = [s for s in sandboxes if s.ready]
        if not ready:
            raise ConflictError(f'Cannot forward to port {port} of pod "{name}": it is not running.')
        newest = max(ready, key=lambda s: s.attempt)
        sock = await forwarding.dial(self._agent.network, newest.id, port, name)
        try:
            await call.send(Frame(control={"started": True}))
            await forwarding.relay(call, sock)
        finally:
            sock.close()

    async def _stats(self, call: HostCall) -> list[dict[str, Any]]:
        """What containers use now: see `Usage.of`."""
        return await self._usage.of(call.arguments.get("capsules"))

    # -- logs --------------------------------------------------------------------------------------------------

    async def _logs(self, call: HostCall) -> None:
        """The log as stdout and stderr frames; with `follow` until the capsule's container has ended."""
        uuid = str(call.arguments["capsule"])
        reader = logs.Reader(self._agent.log_root / uuid)
        selection = _selection(call.arguments)
        send = _sender(call)
        await reader.history(selection, send)
        while call.arguments.get("follow"):
            # Ask first, then read: what was written before the end is always read.
            ended = await self._has_ended(uuid)
            await reader.more(selection, send)
            if ended:
                return
            await asyncio.sleep(POLL_S)

    async def _has_ended(self, capsule_uuid: str) -> bool:
        worker = self._agent.workers.get(capsule_uuid)
        if worker is None or worker.gone or worker.report is None:
            return worker is None or worker.gone
        report = worker.report.report
        fresh = report.generation == worker.assignment.wish.generation
        return fresh and report.settled and report.state not in ("running", "restarting")

    async def _pod_logs(self, call: HostCall) -> None:
        """The log of one instance of a pod's container; with `follow` until that instance has ended."""
        arguments = call.arguments
        uuid, name = str(arguments["capsule"]), str(arguments["container"])
        worker = self._worker(uuid)
        _spec(worker, name)
        folder = self._agent.log_root / uuid / name
        _, containers = await self._agent.runtime.observe(uuid)
        report = next((r for r in self._reports(uuid) if r.name == name), None)
        previous = bool(arguments.get("previous"))
        meant = pod_logs.instance(worker.assignment.name, name, containers, report, folder, previous=previous)
        # Only now is it known that there is something to read: until here the caller can answer with an error.
        await call.send(Frame(control={"started": True}))
        log = pod_logs.InstanceLog(folder / f"{meant.attempt}.log")
        selection = _selection(arguments)
        send = _sender(call)
        limit = arguments.get("limit_bytes")
        if limit is not None:
            send = _limited(send, int(limit))
        with contextlib.suppress(_EnoughError):
            await log.history(selection, send)
            ended = not meant.running
            while arguments.get("follow") and not ended:
                ended = await self._instance_has_ended(uuid, name, meant)
                await log.more(selection, send)
                if not ended:
                    await asyncio.sleep(POLL_S)

    async def _instance_has_ended(self, capsule_uuid: str, name: str, meant: pod_logs.Instance) -> bool:
        worker = self._agent.workers.get(capsule_uuid)
        if worker is None or worker.gone:
            return True
        seen = [c for c in worker.seen.containers if c.name == name]
        mine = [c for c in seen if c.id == meant.container_id]
        if not mine:
            # Its worker has not seen it yet, or not any more.
            _, containers = await self._agent.runtime.observe(capsule_uuid)
            return not any(c.id == meant.container_id and c.state == "running" for c in containers)
        return mine[0].state == "exited" or any(c.attempt > meant.attempt for c in seen)

    def _reports(self, capsule_uuid: str) -> list[PodContainerReport]:
        worker = self._agent.workers.get(capsule_uuid)
        pod = worker.report.report.pod if worker is not None and worker.report is not None else None
        return [*pod.init_containers, *pod.containers] if pod is not None else []


class _EnoughError(Exception):
    """The limit of bytes is reached."""


def _spec(worker: Worker, name: str) -> Container:
    pod = worker.assignment.spec.pod
    for container in [*pod.spec.init_containers, *pod.spec.containers] if pod is not None else []:
        if container.name == name:
            return container
    raise NotFoundError(f'Pod "{worker.assignment.name}" has no container "{name}".', "container-not-found")


async def _carry(call: HostCall, session: Streams, *, stdin: bool = True) -> None:
    """Carry a process' streams until its output has ended."""
    feeder = asyncio.create_task(_feed(call, session, stdin=stdin))
    try:
        # An empty frame tells the caller that the process has started.
        await call.send(Frame(control={"started": True}))
        async for stream, data in session.output():
            await call.send(Frame(1 if stream == "stdout" else 2, data))
    finally:
        feeder.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await feeder


async def _feed(call: HostCall, session: Streams, *, stdin: bool) -> None:
    async for frame in call.frames():
        if frame.control is not None:
            size = frame.control.get("resize")
            if isinstance(size, list) and len(size) == 2:
                await session.resize(int(size[0]), int(size[1]))
            continue
        if frame.data and stdin:
            await session.write(frame.data)
        if frame.eof and stdin:
            await session.close_stdin()


def _selection(arguments: dict[str, Any]) -> logs.Selection:
    return logs.Selection(
        stdout=bool(arguments.get("stdout", True)),
        stderr=bool(arguments.get("stderr", True)),
        tail=arguments.get("tail"),
        since_us=arguments.get("since_us"),
        timestamps=bool(arguments.get("timestamps")),
    )


def _sender(call: HostCall) -> logs.Send:
    async def send(channel: int, data: bytes) -> None:
        await call.send(Frame(channel, data))

    return send


def _limited(send: logs.Send, limit: int) -> logs.Send:
    """Send so many bytes and no more; then raise _EnoughError."""
    left = limit

    async def limited(channel: int, data: bytes) -> None:
        nonlocal left
        data, left = data[:left], left - len(data)
        if data:
            await send(channel, data)
        if left <= 0:
            raise _EnoughError

    return limited
