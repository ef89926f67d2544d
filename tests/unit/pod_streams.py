"""The API's streams of capsules over the host's own call handler, with nothing but an in-memory link between them.

The host is a `FakeRuntime` with one pod in it; its network connects to servers on this machine's loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from askos.api.core import Dispatcher, Request
from askos.api.podstats import Stats
from askos.api.rights import Rights
from askos.api.streams import Streams
from askos.api.table import stream_routes
from askos.loops.calls import Calls
from askos.model.capsules import (
    Assignment,
    Capsule,
    CapsuleReport,
    CapsuleSpec,
    Placement,
    Report,
    Wish,
)
from askos.model.errors import NotFoundError, UnavailableError
from askos.model.pods import Container, Pod, PodContainerReport, PodMetadata, PodReport, PodSpec
from askos.ports import runtime as rt
from askos.ports.calls import Frame, HostCall
from askos.ports.clock import now_us

from .fake_runtime import BUSYBOX, FakeRuntime
from .fakes import FakeIdentity

UUID = "22222222-0000-4000-8000-000000000002"
HOST = "11111111-0000-4000-8000-000000000001"
TOKEN = {"X-Auth-Token": "ann:p1:member"}
RIGHTS_EVERY_S = 0.05
_END: Any = object()


class _Line:
    """Both ends of a call, as the link carries it: `ports.calls.CallStream` and `HostCall` in one."""

    def __init__(self, method: str, arguments: dict[str, Any]) -> None:
        self.method = method
        self.arguments: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(arguments))
        self.result: Any = None
        self.closed = False
        self.task: asyncio.Task[Any]
        self._down: asyncio.Queue[Frame] = asyncio.Queue(4)
        self._up: asyncio.Queue[Any] = asyncio.Queue(4)

    async def serve(self, calls: Calls) -> None:
        """The agent's task."""
        try:
            result = await calls(_Host(self))
            await self._up.put((_END, msgspec.json.decode(msgspec.json.encode(result))))
        except Exception as error:
            await self._up.put((_END, error))

    async def send(self, frame: Frame) -> None:
        if not self.task.done() and not self.closed:
            putting = asyncio.ensure_future(self._down.put(frame))
            await asyncio.wait({putting, self.task}, return_when=asyncio.FIRST_COMPLETED)
            putting.cancel()

    async def frames(self) -> AsyncIterator[Frame]:
        while True:
            got = await self._up.get()
            if isinstance(got, Frame):
                yield got
                continue
            if isinstance(got[1], Exception):
                raise got[1]
            self.result = got[1]
            return

    async def close(self) -> None:
        self.closed = True
        self.task.cancel()
        while not self._up.empty():
            self._up.get_nowait()
        # Whoever still waits learns that it is over.
        self._up.put_nowait((_END, UnavailableError("The call was given up.")))


class _Host:
    """The host's end."""

    def __init__(self, line: _Line) -> None:
        self.method, self.arguments, self._line = line.method, line.arguments, line

    async def send(self, frame: Frame) -> None:
        await self._line._up.put(frame)

    async def frames(self) -> AsyncIterator[Frame]:
        while True:
            yield await self._line._down.get()


class Network:
    """`connect` of `ports.network.HostNetwork`; remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []

    async def connect(self, sandbox_id: str, address: str, port: int, timeout_s: float) -> socket.socket:
        self.asked.append((sandbox_id, address, port))
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(made, (address, port))
        except BaseException:
            made.close()
            raise
        return made


class Stage:
    """A pod on a host, and the API in front of it."""

    def __init__(self, folder: Path) -> None:
        self.logs = folder / "logs"
        self.runtime = FakeRuntime(self.logs)
        self.runtime.add_image()
        self.network = Network()
        self.lines: list[_Line] = []
        self.agent: Any = SimpleNamespace(
            service_images=SimpleNamespace(wants=None, take=None),
            workers={},
            runtime=self.runtime,
            network=self.network,
            log_root=self.logs,
            clock=now_us,
        )
        self.calls = Calls(self.agent, folder / "uploads")
        self.placed = True
        self.identity = FakeIdentity()
        self.streams = Streams(self.find, self, now_us)
        self.pod: Pod
        self.sandbox = rt.SandboxConfig(UUID, "web", "p1", 0, "web", [])
        self.sandbox_id = ""
        self.url = ""
        self.client: aiohttp.ClientSession

    # What the API asks

    async def find(self, request: Request) -> Capsule:
        if request.arguments["ident"] != UUID:
            raise NotFoundError("Capsule could not be found.", "capsule-not-found")
        return self.capsule

    @property
    def capsule(self) -> Capsule:
        worker = self.agent.workers[UUID]
        return Capsule(
            UUID, "p1", "ann", "web", "capsule", CapsuleSpec(pod=self.pod), Wish("running"),
            Placement(HOST if self.placed else None), worker.report.report, 0,
        )  # fmt: skip

    async def capsules(self, query: Any) -> list[Capsule]:
        assert query.project_id in (None, "p1")
        return [self.capsule] if not query.after else []

    async def open(self, host_uuid: str, method: str, arguments: dict[str, Any]) -> _Line:
        assert host_uuid == HOST
        line = _Line(method, arguments)
        line.task = asyncio.create_task(line.serve(self.calls))
        self.lines.append(line)
        return line

    async def call(self, host_uuid: str, method: str, arguments: dict[str, Any], timeout_s: float) -> Any:
        line = await self.open(host_uuid, method, arguments)
        async for _ in line.frames():
            pass
        return line.result

    # What is on the host

    async def run(self, *containers: Container, annotations: dict[str, str] | None = None) -> None:
        """Make the pod of these containers; none of them is started yet."""
        self.pod = Pod(PodMetadata("web", annotations=annotations or {}), PodSpec(list(containers)))
        assignment = Assignment(UUID, "p1", "web", 1, CapsuleSpec(pod=self.pod), Wish("running"), [], [])
        self.agent.workers[UUID] = SimpleNamespace(
            assignment=assignment, gone=False, report=None, seen=SimpleNamespace(sandboxes=[], containers=[])
        )
        self.report(*(PodContainerReport(c.name, reason="ContainerCreating") for c in containers), phase="Pending")
        self.sandbox_id = await self.runtime.run_sandbox(self.sandbox)

    def report(self, *containers: PodContainerReport, phase: Any = "Running") -> None:
        """What the pod's worker has reported."""
        pod = PodReport(phase, containers=list(containers))
        report = CapsuleReport(UUID, 1, Report(1, True, "running" if phase == "Running" else "none", pod=pod))
        self.agent.workers[UUID].report = report

    async def start(self, name: str, *argv: str, attempt: int = 0) -> str:
        """Start an instance of a container; returns its id."""
        spec = next(c for c in self.pod.spec.containers if c.name == name)
        (self.logs / UUID / name).mkdir(parents=True, exist_ok=True)
        config = rt.ContainerConfig(
            UUID, name, 1, attempt, BUSYBOX, list(argv), [], {}, None, spec.stdin, spec.tty, 1, 0,
            log_name=f"{name}/{attempt}.log", stdin_once=spec.stdin_once,
        )  # fmt: skip
        made = await self.runtime.create_container(self.sandbox_id, config, self.sandbox)
        await self.runtime.start_container(made)
        await self.look()
        self.report(*(PodContainerReport(c.name, "running") for c in self.pod.spec.containers))
        return made

    async def look(self) -> list[rt.Container]:
        """What the pod's worker does at each look."""
        _, containers = await self.runtime.observe(UUID)
        self.agent.workers[UUID].seen = SimpleNamespace(sandboxes=[], containers=containers)
        return containers

    async def ended(self, container_id: str) -> None:
        """Wait until an instance has ended, and let its worker see it."""
        async with asyncio.timeout(10):
            while not any(c.id == container_id and c.state == "exited" for c in await self.look()):
                await asyncio.sleep(0.005)

    # What a client does

    def socket(self, path: str, protocol: str | None = "v5.channel.k8s.io") -> Any:
        protocols = (protocol,) if protocol else ()
        url = f"{self.url}/askos/v1/capsules/{UUID}/{path}"
        return self.client.ws_connect(url, headers=TOKEN, protocols=protocols)

    async def refused(self, path: str, *, upgrade: bool = True) -> tuple[int, str]:
        """Status and title of a refusal."""
        headers = dict(TOKEN)
        if upgrade:
            headers.update({
                "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            })  # fmt: skip
        url = f"{self.url}/askos/v1/capsules/{path if path.startswith('other') else f'{UUID}/{path}'}"
        async with self.client.get(url, headers=headers) as got:
            (error,) = (await got.json())["errors"]
            return got.status, error["title"]

    async def over(self) -> None:
        """Wait until nothing of any call goes on on the host."""
        async with asyncio.timeout(5):
            while not all(line.task.done() for line in self.lines):
                await asyncio.sleep(0.005)


@asynccontextmanager
async def stage_at(folder: Path) -> AsyncIterator[Stage]:
    stage = Stage(folder)
    store: Any = stage
    routes = stream_routes(stage.streams, Stats(stage.find, store, stage))
    dispatcher = Dispatcher(routes, stage.identity, "/identity", Rights(stage.identity, RIGHTS_EVERY_S))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", dispatcher.__call__)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stage.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    stage.client = aiohttp.ClientSession()
    try:
        yield stage
    finally:
        await stage.client.close()
        await runner.cleanup()
        for line in stage.lines:
            line.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await line.task
        await stage.runtime.close()


_: type[HostCall] = _Host
