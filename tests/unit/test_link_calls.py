"""Calls over the link: questions and answers, errors, and hosts that do not answer."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from askos.adapters.link import server as server_side
from askos.adapters.link.proto import askos_link_pb2_grpc as pb_grpc
from askos.model import errors
from askos.ports.calls import HostCall

from .cloud import HOST
from .link_pair import SOON_S, Pair, hello, pair, raw, until

__all__ = ["pair"]  # fixtures


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
