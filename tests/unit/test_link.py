"""The link over a unix socket: snapshots, deltas, reports of any size, and sessions."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest

from askos.adapters.link import agent as agent_side
from askos.adapters.link import server as server_side
from askos.adapters.link.agent import LinkClient
from askos.adapters.link.proto import askos_link_pb2 as pb
from askos.model import errors
from askos.model.capsules import Assignment, CapsuleReport, Report
from askos.model.pods import ConfigMap, Content, Secret
from askos.ports.calls import HostCall
from askos.ports.store import Change

from .cloud import HOST, facts
from .link_pair import SOON_S, FakeOrders, Pair, assignment, hello, pair, raw, until

__all__ = ["pair"]  # fixtures

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
