"""The agent's end of the link: dials a server, and dials again whenever the connection breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import msgspec

from askos.adapters.link import frames
from askos.adapters.link.proto import askos_link_pb2 as pb
from askos.adapters.link.proto import askos_link_pb2_grpc as pb_grpc
from askos.model.capsules import Assignment, CapsuleReport
from askos.model.hosts import HostFacts
from askos.ports.calls import Frame
from askos.ports.link import CallHandler, Orders

_log = logging.getLogger(__name__)

PROTOCOL = 1
_RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_MOST_REPORTS = 200
"""In one message, which is one transaction of the server."""

_assignment_of = msgspec.json.Decoder(Assignment).decode
_encode = msgspec.json.encode


class _AgentCall:
    """`ports.calls.HostCall` over the stream that this agent opened."""

    def __init__(self, offer: pb.CallOffer, stream: Any) -> None:
        self.method = offer.method
        self.arguments: dict[str, Any] = msgspec.json.decode(offer.arguments_json)
        self._stream = stream
        self._received: asyncio.Queue[Frame | None] = asyncio.Queue(16)
        self._over = False

    async def pump(self) -> None:
        """Read from the wire for as long as the call lasts. A reader that is cancelled would end the whole call
        (gRPC cancels the call with the read), so readers wait on a queue instead."""
        while True:
            message = await self._stream.read()
            if message is grpc.aio.EOF:
                await self._received.put(None)
                return
            if not self._over:
                await self._received.put(frames.from_wire(message))

    def discard(self) -> None:
        """Nobody wants what still comes: the caller, who may be waiting to send it, must come to read the reply."""
        self._over = True
        while not self._received.empty():
            self._received.get_nowait()

    async def send(self, frame: Frame) -> None:
        for start in range(0, max(len(frame.data), 1), frames.CHUNK):
            last = start + frames.CHUNK >= len(frame.data)
            piece = Frame(frame.channel, frame.data[start : start + frames.CHUNK], frame.eof and last, frame.control)
            await self._stream.write(frames.to_wire(piece))

    async def frames(self) -> AsyncIterator[Frame]:
        while True:
            frame = await self._received.get()
            if frame is None:
                return
            yield frame


class LinkClient:
    """`ports.link.Uplink` to one gRPC address."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._outbox: asyncio.Queue[pb.AgentMessage] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def send(self, reports: list[CapsuleReport]) -> None:
        """See `ports.link.Uplink`."""
        if self._outbox is not None and reports:
            for part in frames.batches((_encode(r) for r in reports), _MOST_REPORTS):
                self._outbox.put_nowait(pb.AgentMessage(reports=pb.Reports(report_json=part)))

    async def run(self, facts: HostFacts, orders: Orders, handler: CallHandler) -> None:
        """See `ports.link.Uplink`."""
        failures = 0
        while True:
            try:
                await self._session(facts, orders, handler)
                failures = 0
            except grpc.aio.AioRpcError as error:
                level = logging.WARNING if failures == 3 else logging.DEBUG
                _log.log(level, "no link to the server at %s: %s", self._address, error.details())
            except Exception:
                _log.exception("the link failed; dialling again")
            finally:
                self._outbox = None
            await asyncio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
            failures += 1

    async def _session(self, facts: HostFacts, orders: Orders, handler: CallHandler) -> None:
        options = [("grpc.max_receive_message_length", frames.MAX_MESSAGE)]
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            stub = pb_grpc.LinkStub(channel)
            stream = stub.Connect()
            hello = pb.Hello(protocol=PROTOCOL, facts_json=_encode(facts))
            await stream.write(pb.AgentMessage(hello=hello))
            outbox: asyncio.Queue[pb.AgentMessage] = asyncio.Queue()
            heartbeat_s = 10
            sender: asyncio.Task[None] | None = None
            snapshot: list[Assignment] = []
            try:
                while True:
                    message = await stream.read()
                    if message is grpc.aio.EOF:
                        # Raises AioRpcError with the server's reason, if it gave one.
                        await stream.wait_for_connection()
                        return
                    kind = message.WhichOneof("body")
                    if kind == "welcome":
                        heartbeat_s = message.welcome.heartbeat_s or heartbeat_s
                    elif kind == "snapshot":
                        snapshot += [_assignment_of(a) for a in message.snapshot.assignment_json]
                        if message.snapshot.more:
                            continue
                        orders.snapshot(snapshot)
                        snapshot = []
                        self._outbox = outbox
                        self.send(orders.reports())
                        if sender is None:
                            sender = asyncio.create_task(_send(stream, outbox, heartbeat_s))
                    elif kind == "changed":
                        orders.changed([_assignment_of(a) for a in message.changed.assignment_json])
                    elif kind == "dropped":
                        orders.dropped(list(message.dropped.capsule_uuid))
                    elif kind == "call":
                        task = asyncio.create_task(_serve_call(stub, message.call, handler))
                        self._calls.add(task)
                        task.add_done_callback(self._calls.discard)
            finally:
                if sender is not None:
                    sender.cancel()
                for task in self._calls:
                    task.cancel()
                stream.cancel()


async def _send(stream: Any, outbox: asyncio.Queue[pb.AgentMessage], heartbeat_s: int) -> None:
    while True:
        try:
            async with asyncio.timeout(heartbeat_s):
                message = await outbox.get()
        except TimeoutError:
            message = pb.AgentMessage(heartbeat=pb.Heartbeat())
        # Reports that queued up meanwhile travel as one message and become one transaction.
        while (
            message.WhichOneof("body") == "reports"
            and len(message.reports.report_json) < _MOST_REPORTS
            and message.ByteSize() < frames.BATCH
        ):
            try:
                more = outbox.get_nowait()
            except asyncio.QueueEmpty:
                break
            message.reports.report_json.extend(more.reports.report_json)
        try:
            await stream.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return


async def _serve_call(stub: Any, offer: pb.CallOffer, handler: CallHandler) -> None:
    stream = stub.Call(metadata=(("askos-call", offer.id),))
    call = _AgentCall(offer, stream)
    pump = asyncio.create_task(call.pump())
    try:
        try:
            async with asyncio.timeout(offer.deadline_ms / 1000 or None):
                result = await _until_caller_leaves(stream, handler, call)
            reply = pb.CallFrame(result_json=_encode(result))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return
        except Exception as error:
            reply = frames.failure(error)
            if reply.failure.kind == "internal":
                _log.exception("call %s failed", offer.method)
        call.discard()
        await stream.write(reply)
        await stream.done_writing()
        # The server ends the stream when it has read the reply.
        await stream.code()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        _log.debug("the caller of %s has gone", offer.method)
    finally:
        pump.cancel()
        stream.cancel()
        await asyncio.gather(pump, return_exceptions=True)


async def _until_caller_leaves(stream: Any, handler: CallHandler, call: _AgentCall) -> Any:
    """Run the handler; cancel it when the server ends the stream first."""
    work = asyncio.ensure_future(handler(call))
    loop = asyncio.get_running_loop()
    stream.add_done_callback(lambda _call: loop.call_soon_threadsafe(work.cancel))
    try:
        return await work
    except asyncio.CancelledError:
        if work.cancelled() and stream.done():
            raise asyncio.InvalidStateError("the caller has gone") from None
        work.cancel()
        raise
