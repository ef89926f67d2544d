"""The server's end of the link: one control stream per agent, one stream per call.

What a host should run is read from the store, never remembered here: a change only rings the host's bell with the
uuid concerned, and every `RESYNC_S` everything is compared again, so that a lost ring costs latency alone.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import msgspec

from askos.adapters.link import frames
from askos.adapters.link.proto import askos_link_pb2 as pb
from askos.adapters.link.proto import askos_link_pb2_grpc as pb_grpc
from askos.model.capsules import Assignment, CapsuleReport
from askos.model.errors import AskosError, UnavailableError
from askos.model.hosts import HostFacts
from askos.ports.calls import Frame
from askos.ports.store import Change, Store

_log = logging.getLogger(__name__)

PROTOCOL = 1
HEARTBEAT_S = 10
SILENCE_S = 35
"""An agent that is silent for so long is taken for gone."""
RESYNC_S = 15
_MOST_REPORTS = 500
"""Reports from which on no more are taken into a transaction."""
_MOST_WAITING = 50
"""Messages that may wait to be written before no more is read."""
_OPEN_S = 10.0
"""How long an agent may take to open the stream of a call that it was offered."""

_report_of = msgspec.json.Decoder(CapsuleReport).decode
_facts_of = msgspec.json.Decoder(HostFacts).decode
_encode = msgspec.json.encode


class _Session:
    """One connected agent."""

    def __init__(self, facts: HostFacts, number: int) -> None:
        self.facts = facts
        self.number = number
        self.touched: set[str] = set()
        self.wake = asyncio.Event()
        self.outbox: list[pb.ServerMessage] = []
        self.sent: dict[str, tuple[int, int]] = {}
        """Capsule uuid to (epoch, generation) as last sent."""

    def touch(self, uuid: str) -> None:
        self.touched.add(uuid)
        self.wake.set()

    def push(self, message: pb.ServerMessage) -> None:
        self.outbox.append(message)
        self.wake.set()


class _ServerCall:
    """`ports.calls.CallStream` over the stream that the agent opened."""

    def __init__(self) -> None:
        self.attached: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()
        self.result: Any = None

    async def send(self, frame: Frame) -> None:
        context = await self.attached
        if self.over.is_set():
            return
        for start in range(0, max(len(frame.data), 1), frames.CHUNK):
            last = start + frames.CHUNK >= len(frame.data)
            piece = Frame(frame.channel, frame.data[start : start + frames.CHUNK], frame.eof and last, frame.control)
            try:
                await context.write(frames.to_wire(piece))
            except (grpc.RpcError, asyncio.InvalidStateError, grpc.aio.InternalError, grpc.aio.UsageError):
                return

    async def frames(self) -> AsyncIterator[Frame]:
        context = await self.attached
        while True:
            message = await context.read()
            if message is grpc.aio.EOF:
                raise UnavailableError("The host's agent went away before the call was done.")
            kind = message.WhichOneof("body")
            if kind == "result_json":
                self.result = msgspec.json.decode(message.result_json)
                self.over.set()
                return
            if kind == "failure":
                self.over.set()
                raise frames.raised(message.failure)
            yield frames.from_wire(message)

    async def close(self) -> None:
        self.over.set()


class LinkServer(pb_grpc.LinkServicer):  # type: ignore[misc]  # generated without types
    """Serves agents; also `ports.calls.HostCalls` for the API."""

    def __init__(self, store: Store, *, availability_zone: str = "nova") -> None:
        self._store = store
        self._availability_zone = availability_zone
        self._sessions: dict[str, _Session] = {}
        self._calls: dict[str, _ServerCall] = {}
        self._server: grpc.aio.Server | None = None
        self.on_host_change: Any = lambda: None
        """Called when a host connects."""

    async def start(self, address: str) -> None:
        """Listen on a gRPC address, such as unix:/run/link.sock."""
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", frames.MAX_MESSAGE)])
        pb_grpc.add_LinkServicer_to_server(self, self._server)
        self._server.add_insecure_port(address)
        await self._server.start()

    async def stop(self) -> None:
        """Close every stream."""
        if self._server is not None:
            await self._server.stop(0.2)

    def changed(self, change: Change) -> None:
        """Tell the host concerned, soon."""
        if change.host_uuid is not None and change.kind != "host":
            session = self._sessions.get(change.host_uuid)
            if session is not None:
                session.touch(change.uuid)

    def sessions(self) -> dict[str, int]:
        """The hosts that are connected to this server, each with the number of its session."""
        return {host: session.number for host, session in self._sessions.items()}

    # -- calls -------------------------------------------------------------------------------------------------

    async def call(self, host_uuid: str, method: str, arguments: dict[str, Any], timeout_s: float) -> Any:
        """See `ports.calls.HostCalls`."""
        try:
            async with asyncio.timeout(timeout_s):
                stream = await self.open(host_uuid, method, arguments, deadline_s=timeout_s)
                try:
                    async for _frame in stream.frames():
                        pass
                    return stream.result
                finally:
                    await stream.close()
        except TimeoutError:
            raise UnavailableError(f"The host did not answer within {timeout_s:g} seconds.") from None

    async def open(
        self, host_uuid: str, method: str, arguments: dict[str, Any], *, deadline_s: float = 0
    ) -> _ServerCall:
        """See `ports.calls.HostCalls`."""
        session = self._sessions.get(host_uuid)
        if session is None:
            raise UnavailableError("The container's host is not connected now. Try again later.")
        call_id = secrets.token_hex(16)
        call = self._calls[call_id] = _ServerCall()
        offer = pb.CallOffer(
            id=call_id, method=method, arguments_json=_encode(arguments), deadline_ms=int(deadline_s * 1000)
        )
        session.push(pb.ServerMessage(call=offer))
        try:
            async with asyncio.timeout(_OPEN_S):
                await asyncio.shield(call.attached)
        except BaseException as error:
            # The agent may have taken it up in this very moment: it must not go on for nobody.
            call.over.set()
            if isinstance(error, TimeoutError):
                raise UnavailableError("The container's host does not answer. Try again later.") from None
            raise
        finally:
            self._calls.pop(call_id, None)
        return call

    async def Call(self, _requests: Any, context: Any) -> None:
        """An agent takes up a call."""
        metadata = dict(context.invocation_metadata() or ())
        call = self._calls.pop(str(metadata.get("askos-call", "")), None)
        if call is None or call.attached.done():
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such call, or its caller has gone")
            return
        call.attached.set_result(context)
        await call.over.wait()

    # -- control stream ----------------------------------------------------------------------------------------

    async def Connect(self, _requests: Any, context: Any) -> None:
        """An agent connects."""
        first = await context.read()
        if first is grpc.aio.EOF or first.WhichOneof("body") != "hello":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a hello")
        if first.hello.protocol != PROTOCOL:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"this server speaks link protocol {PROTOCOL}")
        facts = _facts_of(first.hello.facts_json)
        try:
            number = await self._store.register_host(facts, self._availability_zone)
        except AskosError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        session = _Session(facts, number)
        self._sessions[facts.uuid] = session
        _log.info("host %s connected (session %d)", facts.hostname, number)
        self.on_host_change()
        try:
            await context.write(pb.ServerMessage(welcome=pb.Welcome(session=number, heartbeat_s=HEARTBEAT_S)))
            await self._snapshot(session, context)
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send(session, context))
                await self._receive(session, context)
                sender.cancel()
        except* (AskosError, grpc.RpcError) as group_error:
            _log.warning("link to host %s broke: %s", facts.hostname, group_error.exceptions[0])
        finally:
            if self._sessions.get(facts.uuid) is session:
                del self._sessions[facts.uuid]
            _log.info("host %s disconnected", facts.hostname)
            await asyncio.shield(self._store.host_seen(facts.uuid, number, connected=False))

    async def _snapshot(self, session: _Session, context: Any) -> None:
        assignments = await self._store.assignments(session.facts.uuid)
        session.sent = {a.capsule_uuid: (a.epoch, a.wish.generation) for a in assignments}
        parts = list(frames.batches(_encode(a) for a in assignments)) or [[]]
        for number, part in enumerate(parts, 1):
            body = pb.Snapshot(assignment_json=part, more=number < len(parts))
            await context.write(pb.ServerMessage(snapshot=body))

    async def _send(self, session: _Session, context: Any) -> None:
        loop = asyncio.get_running_loop()
        resync_at = loop.time() + RESYNC_S
        while True:
            try:
                async with asyncio.timeout_at(resync_at):
                    await session.wake.wait()
            except TimeoutError:
                resync_at = loop.time() + RESYNC_S
                current = await self._store.generations(session.facts.uuid)
                session.touched.update(uuid for uuid, now in current.items() if session.sent.get(uuid) != now)
                session.touched.update(session.sent.keys() - current.keys())
            session.wake.clear()
            outbox, session.outbox = session.outbox, []
            for message in outbox:
                await context.write(message)
            touched, session.touched = session.touched, set()
            if touched:
                await self._send_touched(session, touched, context)

    async def _send_touched(self, session: _Session, touched: set[str], context: Any) -> None:
        assignments = await self._store.assignments_of(session.facts.uuid, sorted(touched))
        fresh: list[Assignment] = []
        for a in assignments:
            if session.sent.get(a.capsule_uuid) != (a.epoch, a.wish.generation):
                session.sent[a.capsule_uuid] = (a.epoch, a.wish.generation)
                fresh.append(a)
        for part in frames.batches(_encode(a) for a in fresh):
            await context.write(pb.ServerMessage(changed=pb.Assignments(assignment_json=part)))
        gone = sorted(touched - {a.capsule_uuid for a in assignments})
        for uuid in gone:
            session.sent.pop(uuid, None)
        if gone:
            await context.write(pb.ServerMessage(dropped=pb.Dropped(capsule_uuid=gone)))

    async def _receive(self, session: _Session, context: Any) -> None:
        """Read until the agent has gone. What arrives while reports are being written is written together next: an
        agent with much to tell costs few transactions, and one with little waits for nothing."""
        arrived: asyncio.Queue[list[CapsuleReport] | None] = asyncio.Queue(_MOST_WAITING)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._apply(session, arrived))
            loop = asyncio.get_running_loop()
            noted_at = loop.time()
            while True:
                try:
                    async with asyncio.timeout(SILENCE_S):
                        message = await context.read()
                except TimeoutError:
                    raise UnavailableError(f"host {session.facts.hostname} is silent") from None
                if message is grpc.aio.EOF:
                    await arrived.put(None)
                    return
                if loop.time() - noted_at >= HEARTBEAT_S - 1:
                    # A busy agent sends reports in place of heartbeats.
                    noted_at = loop.time()
                    await self._store.host_seen(session.facts.uuid, session.number, connected=True)
                if message.WhichOneof("body") != "heartbeat":
                    await arrived.put([_report_of(body) for body in message.reports.report_json])

    async def _apply(self, session: _Session, arrived: asyncio.Queue[list[CapsuleReport] | None]) -> None:
        """Write what arrives, in its order, until None."""
        reports: list[CapsuleReport] | None
        while (reports := await arrived.get()) is not None:
            over = False
            while len(reports) < _MOST_REPORTS and not arrived.empty():
                more = arrived.get_nowait()
                if more is None:
                    over = True
                    break
                reports += more
            for uuid in await self._store.apply_reports(session.facts.uuid, reports):
                session.touch(uuid)
            if over:
                return
