"""A server and an agent with the link between them, over a unix socket."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest_asyncio

from askos.adapters.link.agent import LinkClient
from askos.adapters.link.proto import askos_link_pb2 as pb
from askos.adapters.link.proto import askos_link_pb2_grpc as pb_grpc
from askos.adapters.link.server import LinkServer
from askos.model import errors
from askos.model.capsules import Assignment, CapsuleReport, CapsuleSpec, ContainerSpec, Wish
from askos.model.hosts import HostFacts
from askos.ports.calls import HostCall
from askos.ports.store import Change

from .cloud import HOST, facts

SOON_S = 30.0


def assignment(uuid: str, generation: int = 1, epoch: int = 1) -> Assignment:
    spec = CapsuleSpec([ContainerSpec("main", "busybox")])
    return Assignment(uuid, "p", uuid, epoch, spec, Wish("running", generation, 1), [], [])


class FakeStore:
    """What the link needs of a store. `refuse` makes registering fail; `forget` is answered to reports."""

    def __init__(self) -> None:
        self.wanted: dict[str, Assignment] = {}
        self.registered: list[HostFacts] = []
        self.seen: list[tuple[str, int, bool]] = []
        self.reports: list[CapsuleReport] = []
        self.batches: list[int] = []
        self.forget: set[str] = set()
        self.refuse: str | None = None

    async def register_host(self, facts: HostFacts, availability_zone: str) -> int:
        assert availability_zone == "nova"
        if self.refuse:
            raise errors.ConflictError(self.refuse)
        self.registered.append(facts)
        return len(self.registered)

    async def host_seen(self, host_uuid: str, session: int, *, connected: bool) -> None:
        self.seen.append((host_uuid, session, connected))

    async def assignments(self, host_uuid: str) -> list[Assignment]:
        return list(self.wanted.values()) if host_uuid == HOST else []

    async def assignments_of(self, host_uuid: str, uuids: list[str]) -> list[Assignment]:
        return [a for a in await self.assignments(host_uuid) if a.capsule_uuid in uuids]

    async def generations(self, host_uuid: str) -> dict[str, tuple[int, int]]:
        return {a.capsule_uuid: (a.epoch, a.wish.generation) for a in await self.assignments(host_uuid)}

    async def apply_reports(self, host_uuid: str, reports: list[CapsuleReport]) -> list[str]:
        assert host_uuid == HOST
        self.reports += reports
        self.batches.append(len(reports))
        return [r.capsule_uuid for r in reports if r.capsule_uuid in self.forget]


class FakeOrders:
    """The agent: `told` is what was delivered, in order; `known` what `reports` gives."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[str]]] = []
        self.known: list[CapsuleReport] = []

    def snapshot(self, assignments: list[Assignment]) -> None:
        self.told.append(("snapshot", [a.capsule_uuid for a in assignments]))

    def changed(self, assignments: list[Assignment]) -> None:
        self.told.append(("changed", [f"{a.capsule_uuid}:{a.epoch}.{a.wish.generation}" for a in assignments]))

    def dropped(self, capsule_uuids: list[str]) -> None:
        self.told.append(("dropped", capsule_uuids))

    def reports(self) -> list[CapsuleReport]:
        return self.known


Handler = Callable[[HostCall], Awaitable[Any]]


class Pair:
    """A server and its agents."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder}/link.sock"
        self.store = FakeStore()
        self.server = LinkServer(self.store)  # type: ignore[arg-type]  # the part that the link uses
        self.orders = FakeOrders()
        self.client = LinkClient(self.address)
        self.handler: Handler = self._none
        self.agents: list[asyncio.Task[None]] = []
        self.host_changes = 0
        self.server.on_host_change = self._changed

    def _changed(self) -> None:
        self.host_changes += 1

    async def _none(self, call: HostCall) -> Any:
        raise AssertionError(f"unexpected call {call.method}")

    async def _handle(self, call: HostCall) -> Any:
        return await self.handler(call)

    def dial(self, client: LinkClient | None = None, orders: FakeOrders | None = None) -> asyncio.Task[None]:
        running = (client or self.client).run(facts(), orders or self.orders, self._handle)
        self.agents.append(asyncio.create_task(running))
        return self.agents[-1]

    async def connect(self) -> None:
        before = len(self.orders.told)
        self.dial()
        await until(lambda: len(self.orders.told) > before)

    async def restart_server(self) -> None:
        await self.server.stop()
        self.server = LinkServer(self.store)  # type: ignore[arg-type]
        self.server.on_host_change = self._changed
        await self.server.start(self.address)

    def ring(self, uuid: str) -> None:
        """A change was committed."""
        self.server.changed(Change(1, "container", uuid, deleted=False, host_uuid=HOST))

    async def call(self, method: str = "m", timeout_s: float = SOON_S, **arguments: Any) -> Any:
        return await self.server.call(HOST, method, arguments, timeout_s)

    async def end(self) -> None:
        for task in self.agents:
            task.cancel()
        await asyncio.gather(*self.agents, return_exceptions=True)
        await self.server.stop()


async def until(true: Callable[[], object], timeout_s: float = SOON_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="link-") as folder:  # short: a socket's path has 107 characters
        made = Pair(Path(folder))
        await made.server.start(made.address)
        try:
            yield made
        finally:
            await made.end()


async def raw(pair: Pair, *messages: pb.AgentMessage) -> tuple[Any, Any]:
    """A hand-made agent: its channel and its control stream."""
    channel = grpc.aio.insecure_channel(pair.address)
    stream = pb_grpc.LinkStub(channel).Connect()
    for message in messages:
        await stream.write(message)
    return channel, stream


def hello(protocol: int = 1) -> pb.AgentMessage:
    return pb.AgentMessage(hello=pb.Hello(protocol=protocol, facts_json=msgspec.json.encode(facts())))
