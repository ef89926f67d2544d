"""The link over a unix socket: snapshots, deltas, reports, and calls that stream, fail, stall and break off."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest
import pytest_asyncio

from askos.adapters.link import agent as agent_side
from askos.adapters.link import server as server_side
from askos.adapters.link.agent import LinkClient
from askos.adapters.link.proto import askos_link_pb2 as pb
from askos.adapters.link.proto import askos_link_pb2_grpc as pb_grpc
from askos.adapters.link.server import LinkServer
from askos.model import errors
from askos.model.capsules import Assignment, CapsuleReport, CapsuleSpec, ContainerSpec, Report, Wish
from askos.model.hosts import HostFacts
from askos.model.pods import ConfigMap, Content, Secret
from askos.ports.calls import Frame, HostCall
from askos.ports.store import Change

from .cloud import HOST, facts

SOON_S = 5.0


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


# -- what a host should run -------------------------------------------------------------------------------------------


async def test_a_snapshot_comes_first(pair: Pair) -> None:
    pair.store.wanted = {u: assignment(u) for u in ("a", "b")}
    await pair.connect()
    assert pair.orders.told == [("snapshot", ["a", "b"])]
    assert pair.store.registered == [facts()]
    assert pair.host_changes == 1


async def test_what_arrives_is_what_was_sent(pair: Pair) -> None:
    received: list[Assignment] = []
    pair.orders.snapshot = received.extend  # type: ignore[method-assign,assignment]
    sent = msgspec.structs.replace(assignment("a", 3), report=Report(2, True, "exited", "r\u00e4tsel"))
    pair.store.wanted = {"a": sent}
    pair.dial()
    await until(lambda: received)
    assert received == [sent]


async def test_a_ring_sends_what_is_new(pair: Pair) -> None:
    pair.store.wanted = {"a": assignment("a")}
    await pair.connect()
    pair.ring("a")  # nothing new about it
    pair.store.wanted["b"] = assignment("b")
    pair.ring("b")
    await until(lambda: len(pair.orders.told) == 2)
    pair.store.wanted["a"] = assignment("a", generation=2)
    pair.ring("a")
    await until(lambda: len(pair.orders.told) == 3)
    pair.store.wanted["a"] = assignment("a", generation=2, epoch=2)
    pair.ring("a")
    pair.ring("a")
    await until(lambda: len(pair.orders.told) == 4)
    await asyncio.sleep(0.05)
    assert pair.orders.told[1:] == [("changed", ["b:1.1"]), ("changed", ["a:1.2"]), ("changed", ["a:2.2"])]


async def test_what_is_gone_is_dropped(pair: Pair) -> None:
    pair.store.wanted = {u: assignment(u) for u in ("a", "b")}
    await pair.connect()
    del pair.store.wanted["a"]
    pair.ring("a")
    await until(lambda: len(pair.orders.told) == 2)
    pair.store.wanted["a"] = assignment("a")  # given to the host again, the same as before
    pair.ring("a")
    await until(lambda: len(pair.orders.told) == 3)
    assert pair.orders.told[1:] == [("dropped", ["a"]), ("changed", ["a:1.1"])]


async def test_a_ring_for_another_host_is_not_heard(pair: Pair) -> None:
    await pair.connect()
    pair.store.wanted["a"] = assignment("a")
    pair.server.changed(Change(1, "container", "a", deleted=False, host_uuid="elsewhere"))
    pair.server.changed(Change(1, "container", "a", deleted=False))
    pair.server.changed(Change(1, "host", HOST, deleted=False, host_uuid=HOST))
    await asyncio.sleep(0.1)
    assert len(pair.orders.told) == 1


async def test_a_lost_ring_costs_time_alone(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_side, "RESYNC_S", 0.1)
    pair.store.wanted = {"a": assignment("a"), "c": assignment("c")}
    await pair.connect()
    pair.store.wanted = {"a": assignment("a", 2), "b": assignment("b")}
    await until(lambda: len(pair.orders.told) == 3)
    kind, uuids = pair.orders.told[1]
    assert (kind, sorted(uuids)) == ("changed", ["a:1.2", "b:1.1"])
    assert pair.orders.told[2] == ("dropped", ["c"])


# -- reports ----------------------------------------------------------------------------------------------------------


def reported(uuid: str, state: str = "running") -> CapsuleReport:
    return CapsuleReport(uuid, 1, Report(1, True, state))  # type: ignore[arg-type]


async def test_reports_arrive_in_order(pair: Pair) -> None:
    await pair.connect()
    sent = [reported(f"c{i}", state) for i in range(100) for state in ("created", "running")]
    for one in sent:
        pair.client.send([one])
    pair.client.send([])
    await until(lambda: len(pair.store.reports) == len(sent))
    assert pair.store.reports == sent
    assert len(pair.store.batches) < 50  # what queues up travels together


async def test_what_arrives_during_a_transaction_is_written_by_the_next_one(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.connect()
    writing, free = asyncio.Event(), asyncio.Event()
    real = pair.store.apply_reports

    async def slow(host_uuid: str, reports: list[CapsuleReport]) -> list[str]:
        writing.set()
        await free.wait()
        return await real(host_uuid, reports)

    monkeypatch.setattr(pair.store, "apply_reports", slow)
    sent = [reported(f"c{i}") for i in range(30)]
    pair.client.send(sent[:1])
    await writing.wait()
    for one in sent[1:]:
        pair.client.send([one])
        await asyncio.sleep(0.005)  # each a message of its own
    await asyncio.sleep(0.2)
    free.set()
    await until(lambda: len(pair.store.reports) == len(sent))
    assert pair.store.reports == sent
    assert pair.store.batches == [1, 29]


async def test_the_host_hears_what_it_may_forget(pair: Pair) -> None:
    await pair.connect()
    pair.store.forget = {"x"}
    pair.client.send([reported("x"), reported("y")])
    await until(lambda: len(pair.orders.told) == 2)
    assert pair.orders.told[1] == ("dropped", ["x"])


async def test_after_a_reconnect_the_newest_reports_are_sent_again(pair: Pair) -> None:
    pair.orders.known = [reported("a", "created")]
    await pair.connect()
    await until(lambda: pair.store.reports == [reported("a", "created")])
    await pair.server.stop()
    await until(lambda: pair.client._outbox is None)
    pair.client.send([reported("a", "exited")])  # not connected: dropped, because `known` says it better
    pair.orders.known = [reported("a", "running")]
    pair.store.wanted = {"n": assignment("n")}
    await pair.restart_server()
    await until(lambda: len(pair.orders.told) == 2)
    assert pair.orders.told[1] == ("snapshot", ["n"])
    await until(lambda: len(pair.store.reports) == 2)
    assert pair.store.reports[1] == reported("a", "running")
    assert len(pair.store.registered) == 2


# -- sessions ---------------------------------------------------------------------------------------------------------


async def test_the_end_of_a_link_is_noted(pair: Pair) -> None:
    await pair.connect()
    pair.agents[0].cancel()
    await until(lambda: (HOST, 1, False) in pair.store.seen)
    with pytest.raises(errors.UnavailableError, match="not connected"):
        await pair.call()


async def test_a_silent_agent_is_taken_for_gone(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_side, "SILENCE_S", 0.2)
    await pair.connect()  # its heartbeat is due in ten seconds
    await until(lambda: (HOST, 1, False) in pair.store.seen)
    await until(lambda: len(pair.store.registered) == 2)  # alive after all, it dials again


async def test_heartbeats_keep_a_link(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_side, "SILENCE_S", 0.3)
    monkeypatch.setattr(server_side, "HEARTBEAT_S", 1)
    real = agent_side._send
    monkeypatch.setattr(agent_side, "_send", lambda stream, outbox, _s: real(stream, outbox, 0.05))  # type: ignore[arg-type]
    await pair.connect()
    await asyncio.sleep(0.6)
    assert len(pair.store.registered) == 1
    assert set(pair.store.seen) == {(HOST, 1, True)}


async def test_reports_stand_for_heartbeats(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_side, "HEARTBEAT_S", 1)
    await pair.connect()
    pair.client.send([reported("a")])
    await until(lambda: pair.store.reports)
    assert pair.store.seen == [(HOST, 1, True)]


async def test_the_newest_link_of_a_host_counts(pair: Pair) -> None:
    await pair.connect()
    orders = FakeOrders()
    pair.dial(LinkClient(pair.address), orders)
    await until(lambda: orders.told)
    pair.agents[0].cancel()
    await until(lambda: (HOST, 1, False) in pair.store.seen)
    pair.store.wanted["a"] = assignment("a")
    pair.ring("a")
    await until(lambda: orders.told[-1] == ("changed", ["a:1.1"]))

    async def answer(_call: HostCall) -> str:
        return "here"

    pair.handler = answer
    assert await pair.call() == "here"


async def test_an_agent_that_is_refused_tries_again(pair: Pair) -> None:
    pair.store.refuse = 'Another host is registered under the name "host-1".'
    pair.dial()
    await asyncio.sleep(0.2)
    assert pair.orders.told == []
    pair.store.refuse = None
    await until(lambda: pair.orders.told)


async def raw(pair: Pair, *messages: pb.AgentMessage) -> tuple[Any, Any]:
    """A hand-made agent: its channel and its control stream."""
    channel = grpc.aio.insecure_channel(pair.address)
    stream = pb_grpc.LinkStub(channel).Connect()
    for message in messages:
        await stream.write(message)
    return channel, stream


def hello(protocol: int = 1) -> pb.AgentMessage:
    return pb.AgentMessage(hello=pb.Hello(protocol=protocol, facts_json=msgspec.json.encode(facts())))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (pb.AgentMessage(heartbeat=pb.Heartbeat()), grpc.StatusCode.INVALID_ARGUMENT),
        (hello(protocol=99), grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
async def test_who_does_not_speak_the_protocol_is_refused(pair: Pair, message: Any, code: Any) -> None:
    channel, stream = await raw(pair, message)
    try:
        assert await asyncio.wait_for(stream.code(), SOON_S) == code
    finally:
        await channel.close()
    assert pair.store.registered == []


# -- calls ------------------------------------------------------------------------------------------------------------


async def test_a_question_and_an_answer(pair: Pair) -> None:
    async def answer(call: HostCall) -> Any:
        return {"method": call.method, "arguments": call.arguments, "n": [1, None, 2.5]}

    pair.handler = answer
    await pair.connect()
    asked = [pair.call(f"m{i}", i=i, text="\u00e4\x00") for i in range(20)]
    for i, found in enumerate(await asyncio.gather(*asked)):
        assert found == {"method": f"m{i}", "arguments": {"i": i, "text": "\u00e4\x00"}, "n": [1, None, 2.5]}
    assert pair.server._calls == {}


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidError("bad"),
        errors.NotFoundError("gone"),
        errors.ConflictError("not now"),
        errors.ForbiddenError("no"),
        errors.UnavailableError("away"),
        errors.RuntimeFailedError("broke", retryable=True),
        errors.RuntimeFailedError("broke", retryable=False),
    ],
)
async def test_errors_arrive_as_what_they_are(pair: Pair, error: errors.AskosError) -> None:
    async def fail(_call: HostCall) -> Any:
        raise error

    pair.handler = fail
    await pair.connect()
    with pytest.raises(errors.AskosError) as caught:
        await pair.call()
    assert type(caught.value) is type(error)
    assert caught.value.message == error.message
    assert getattr(caught.value, "retryable", None) == getattr(error, "retryable", None)


async def test_other_errors_tell_nothing_of_the_inside(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_call: HostCall) -> Any:
        raise KeyError("secret")

    pair.handler = fail
    await pair.connect()
    with pytest.raises(errors.RuntimeFailedError, match="its log tells why") as caught:
        await pair.call("broken")
    assert "secret" not in caught.value.message
    assert any("broken" in r.getMessage() and r.exc_info for r in caplog.records)


async def test_what_cannot_be_encoded_is_a_failure_not_a_silence(pair: Pair) -> None:
    async def fail(_call: HostCall) -> Any:
        return object()

    pair.handler = fail
    await pair.connect()
    with pytest.raises(errors.RuntimeFailedError):
        await pair.call(timeout_s=2)


async def test_a_host_that_is_not_there(pair: Pair) -> None:
    with pytest.raises(errors.UnavailableError, match="not connected"):
        await pair.call()
    with pytest.raises(errors.UnavailableError, match="not connected"):
        await pair.server.open("elsewhere", "m", {})


async def test_a_call_that_takes_too_long(pair: Pair) -> None:
    ended: list[str] = []

    async def hang(_call: HostCall) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    pair.handler = hang
    await pair.connect()
    with pytest.raises(errors.UnavailableError, match=r"did not answer within 0\.2 seconds"):
        await pair.call(timeout_s=0.2)
    await until(lambda: ended)  # and the host does not go on with it
    assert pair.server._calls == {}


async def test_an_agent_that_does_not_take_up_calls(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_side, "_OPEN_S", 0.2)
    channel, _stream = await raw(pair, hello())
    try:
        await until(lambda: pair.store.registered)
        with pytest.raises(errors.UnavailableError, match="does not answer"):
            await pair.server.open(HOST, "m", {})
        assert pair.server._calls == {}
    finally:
        await channel.close()


async def test_a_caller_that_leaves_as_the_agent_takes_up_the_call(pair: Pair) -> None:
    channel, _stream = await raw(pair, hello())
    try:
        await until(lambda: pair.store.registered)
        opening = asyncio.create_task(pair.server.open(HOST, "m", {}))
        await until(lambda: pair.server._calls)
        (call,) = pair.server._calls.values()
        call.attached.set_result(None)
        opening.cancel()
        assert isinstance((await asyncio.gather(opening, return_exceptions=True))[0], asyncio.CancelledError)
        assert call.over.is_set()  # so that the agent is told
    finally:
        await channel.close()


async def test_a_call_cannot_be_taken_up_by_guessing(pair: Pair) -> None:
    channel = grpc.aio.insecure_channel(pair.address)
    try:
        for metadata in ((), (("askos-call", ""),), (("askos-call", "0" * 32),)):
            stream = pb_grpc.LinkStub(channel).Call(metadata=metadata)
            assert await asyncio.wait_for(stream.code(), SOON_S) == grpc.StatusCode.NOT_FOUND
    finally:
        await channel.close()


# -- streams ----------------------------------------------------------------------------------------------------------


async def echo(call: HostCall) -> int:
    """Send back what comes, until the end; result: how many bytes."""
    size = 0
    async for frame in call.frames():
        if frame.control is not None:
            await call.send(Frame(control={"heard": frame.control}))
            continue
        size += len(frame.data)
        await call.send(Frame(1, frame.data, frame.eof))
        if frame.eof:
            return size
    return -1


async def test_streams_in_both_directions(pair: Pair) -> None:
    pair.handler = echo
    await pair.connect()
    stream = await pair.server.open(HOST, "echo", {})
    big = bytes(range(256)) * 4096  # more than one message takes
    await stream.send(Frame(0, b"one"))
    await stream.send(Frame(control={"resize": [80, 24]}))
    await stream.send(Frame(0, big))
    await stream.send(Frame(0, b"", eof=True))
    got = [frame async for frame in stream.frames()]
    assert got[0] == Frame(1, b"one")
    assert got[1] == Frame(control={"heard": {"resize": [80, 24]}})
    assert b"".join(f.data for f in got[2:]) == big
    assert [f.eof for f in got] == [False] * (len(got) - 1) + [True]
    assert stream.result == 3 + len(big)
    await stream.send(Frame(0, b"too late"))  # dropped
    await stream.close()


async def test_a_large_last_frame_ends_with_its_last_piece(pair: Pair) -> None:
    big = bytes(range(256)) * 4096

    async def swap(call: HostCall) -> list[Any]:
        got = [frame async for frame in call.frames()]  # until the caller half-closes
        await call.send(Frame(2, big, eof=True))
        return [b"".join(f.data for f in got) == big, [f.eof for f in got]]

    async def until_eof(call: HostCall) -> Any:
        class Cut:
            method, arguments, send = call.method, call.arguments, call.send

            async def frames(self) -> AsyncIterator[Frame]:
                async for frame in call.frames():
                    yield frame
                    if frame.eof:
                        return

        return await swap(Cut())

    pair.handler = until_eof
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    await stream.send(Frame(0, big, eof=True))
    back = [f async for f in stream.frames()]
    assert b"".join(f.data for f in back) == big
    assert len(back) == 4
    for eofs in ([f.eof for f in back], stream.result[1]):
        assert eofs == [False] * 3 + [True]
    assert stream.result[0] is True


async def test_many_streams_at_once_do_not_mix(pair: Pair) -> None:
    pair.handler = echo
    await pair.connect()

    async def one(i: int) -> bytes:
        stream = await pair.server.open(HOST, "echo", {})
        for _ in range(5):
            await stream.send(Frame(0, f"<{i}>".encode()))
        await stream.send(Frame(0, b"", eof=True))
        return b"".join([f.data async for f in stream.frames()])

    for i, found in enumerate(await asyncio.gather(*(one(i) for i in range(20)))):
        assert found == f"<{i}>".encode() * 5


FIFTY_MB = 50 << 20
PIECE = 1 << 20
AHEAD = 16 << 20
"""How far a sender may be ahead of a reader that has stopped: what gRPC and the sockets hold."""


async def test_a_caller_that_does_not_read_holds_up_the_host(pair: Pair) -> None:
    sent = 0
    digest = hashlib.sha256()

    async def pour(call: HostCall) -> str:
        nonlocal sent
        for i in range(FIFTY_MB // PIECE):
            data = bytes([i]) * PIECE
            await call.send(Frame(1, data))
            digest.update(data)
            sent += len(data)
        return digest.hexdigest()

    pair.handler = pour
    await pair.connect()
    stream = await pair.server.open(HOST, "pour", {})
    frames = stream.frames()
    first = await anext(frames)
    await asyncio.sleep(0.3)
    stopped_at = sent
    assert 0 < stopped_at < AHEAD
    await asyncio.sleep(0.1)
    assert sent == stopped_at
    received = hashlib.sha256(first.data)
    size = len(first.data)
    async for frame in frames:
        received.update(frame.data)
        size += len(frame.data)
    assert size == FIFTY_MB
    assert stream.result == received.hexdigest()


async def test_a_host_that_does_not_read_holds_up_the_caller(pair: Pair) -> None:
    go = asyncio.Event()

    async def drink(call: HostCall) -> list[Any]:
        await go.wait()
        size, digest = 0, hashlib.sha256()
        async for frame in call.frames():
            size += len(frame.data)
            digest.update(frame.data)
            if frame.eof:
                break
        return [size, digest.hexdigest()]

    pair.handler = drink
    await pair.connect()
    stream = await pair.server.open(HOST, "drink", {})
    sent = 0
    digest = hashlib.sha256()

    async def pour() -> None:
        nonlocal sent
        for i in range(FIFTY_MB // PIECE):
            data = bytes([i]) * PIECE
            await stream.send(Frame(0, data))
            digest.update(data)
            sent += len(data)
        await stream.send(Frame(0, b"", eof=True))

    pouring = asyncio.create_task(pour())
    await asyncio.sleep(0.3)
    stopped_at = sent
    assert stopped_at < AHEAD
    await asyncio.sleep(0.1)
    assert sent == stopped_at
    go.set()
    assert [f async for f in stream.frames()] == []
    await pouring
    assert stream.result == [FIFTY_MB, digest.hexdigest()]


# -- breaking off -----------------------------------------------------------------------------------------------------


class Endless:
    """A handler that sends for ever, and notes how it ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def __call__(self, call: HostCall) -> Any:
        try:
            await call.send(Frame(1, b"begun"))
            await asyncio.sleep(60)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise


async def test_when_the_caller_leaves_the_host_stops(pair: Pair) -> None:
    endless = pair.handler = Endless()
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    assert await anext(stream.frames()) == Frame(1, b"begun")
    await stream.close()
    await until(lambda: endless.ended == ["CancelledError"])
    calling = asyncio.create_task(pair.call(timeout_s=30))
    await asyncio.sleep(0.1)
    calling.cancel()
    await until(lambda: endless.ended == ["CancelledError"] * 2)
    assert pair.server._calls == {}


async def test_when_the_agent_dies_the_caller_hears_it(pair: Pair) -> None:
    endless = pair.handler = Endless()
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    frames = stream.frames()
    assert await anext(frames) == Frame(1, b"begun")
    calling = asyncio.create_task(pair.call(timeout_s=30))
    await asyncio.sleep(0.1)
    pair.agents[0].cancel()
    with pytest.raises(errors.UnavailableError, match="went away"):
        await asyncio.wait_for(anext(frames), SOON_S)
    with pytest.raises(errors.UnavailableError, match="went away"):
        await asyncio.wait_for(calling, SOON_S)
    await stream.send(Frame(0, b"nobody hears this"))
    await stream.close()
    await until(lambda: len(endless.ended) == 2)


async def test_when_the_server_dies_the_host_stops(pair: Pair) -> None:
    endless = pair.handler = Endless()
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    assert await anext(stream.frames()) == Frame(1, b"begun")
    await pair.server.stop()
    await until(lambda: len(endless.ended) == 1)
    await pair.restart_server()
    await until(lambda: len(pair.orders.told) == 2)

    async def answer(_call: HostCall) -> str:
        return "again"

    pair.handler = answer
    assert await pair.call() == "again"


async def test_a_host_that_ends_the_call_while_the_caller_sends(pair: Pair) -> None:
    async def enough(call: HostCall) -> str:
        async for _frame in call.frames():
            return "enough"
        return "nothing"

    pair.handler = enough
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    sending = asyncio.create_task(_send_many(stream))
    with contextlib.suppress(StopAsyncIteration):
        async for _frame in stream.frames():
            pass
    assert stream.result == "enough"
    await stream.close()
    await asyncio.wait_for(sending, SOON_S)


async def _send_many(stream: Any) -> None:
    for _ in range(100):
        await stream.send(Frame(0, b"x" * PIECE))


async def test_when_the_caller_half_closes_the_host_reads_the_end(pair: Pair) -> None:
    seen: list[Frame] = []

    async def listen(call: HostCall) -> str:
        async for frame in call.frames():
            seen.append(frame)
            if frame.eof:
                break
        return "read to the end"

    pair.handler = listen
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    await stream.send(Frame(0, b"last", eof=True))
    assert [f async for f in stream.frames()] == []
    assert stream.result == "read to the end"
    assert seen == [Frame(0, b"last", eof=True)]


async def test_content_of_many_capsules_travels_in_several_messages(pair: Pair) -> None:
    """A snapshot larger than any message; and an assignment as large as one can be."""
    worst = Content(config_maps={"c": ConfigMap(data={"k": "\x01" * (1 << 20)})})
    large = Content(secrets={"s": Secret(data={"k": bytes(1 << 20)})})
    for number in range(14):
        uuid = f"c{number:02}"
        pair.store.wanted[uuid] = msgspec.structs.replace(
            assignment(uuid), kind="capsule", content=worst if number == 5 else large
        )
    received: list[Assignment] = []
    real = pair.orders.snapshot
    pair.orders.snapshot = lambda found: (received.extend(found), real(found))[1]  # type: ignore[method-assign]
    await pair.connect()
    assert pair.orders.told == [("snapshot", sorted(pair.store.wanted))]
    assert received == list(pair.store.wanted.values())
    for uuid in pair.store.wanted:
        pair.store.wanted[uuid] = msgspec.structs.replace(pair.store.wanted[uuid], epoch=2)
        pair.server.changed(Change(1, "capsule", uuid, deleted=False, host_uuid=HOST))
    await until(lambda: sum(len(uuids) for word, uuids in pair.orders.told if word == "changed") == 14)


async def test_many_large_reports_arrive(pair: Pair) -> None:
    said = "x" * 100_000
    pair.orders.known = [CapsuleReport(f"c{n}", 1, Report(1, reason=said)) for n in range(200)]
    await pair.connect()
    await until(lambda: len(pair.store.reports) == 200)
    assert pair.store.reports == pair.orders.known
    assert len(pair.store.batches) > 1
