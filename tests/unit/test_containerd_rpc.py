"""Calls to containerd that meet an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from askos.adapters.containerd import rpc
from askos.adapters.containerd.making import Maker
from askos.adapters.containerd.rpc import Client, RpcError


def failing(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


CLOSED = failing(grpc.StatusCode.UNKNOWN, "failed to stop sandbox: ttrpc: closed: unknown")
GONE = failing(grpc.StatusCode.NOT_FOUND, "no such sandbox")
OTHER = failing(grpc.StatusCode.UNKNOWN, "something else")


class Calls:
    """Stands for one method of the channel."""

    def __init__(self, *answers: Exception | str) -> None:
        self.answers = list(answers)

    async def __call__(self, _request: Any, **_how: Any) -> str:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def asked(method: str, *answers: Exception | str) -> tuple[Any, int]:
    """What a call gives or raises, and how many answers were not asked for."""
    client = Client(Path("/nonexistent"))
    calls = client._methods[method] = Calls(*answers)
    try:
        ask = client.call if "/" in method else client.cri
        try:
            return await ask(method, None, 1), len(calls.answers)
        except RpcError as error:
            return error.text, len(calls.answers)
    finally:
        await client.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "_ENDED_S", 0)


@pytest.mark.parametrize("method", ["StopPodSandbox", "StopContainer", "tasks.v1.Tasks/Kill", "tasks.v1.Tasks/Get"])
async def test_what_ended_meanwhile_is_asked_again(method: str) -> None:
    assert await asked(method, CLOSED, CLOSED, "yes") == ("yes", 0)
    assert await asked(method, CLOSED, GONE) == ("no such sandbox", 0)


async def test_what_stays_wrong_is_told() -> None:
    assert await asked("StopContainer", OTHER, "unasked") == ("something else", 1)
    assert await asked("StopContainer", CLOSED, OTHER, "unasked") == ("something else", 1)
    assert await asked("StopContainer", *[CLOSED] * 4, "unasked") == (CLOSED.details(), 1)


async def test_what_makes_something_is_asked_once() -> None:
    assert await asked("StartContainer", CLOSED, "unasked") == (CLOSED.details(), 1)


async def test_what_is_gone_is_stopped() -> None:
    client = Client(Path("/nonexistent"))
    client._methods["StopPodSandbox"] = Calls(CLOSED, GONE)
    await Maker(client).stop_sandbox("s")
    await client.close()
