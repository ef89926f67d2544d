"""Removing through CRI, with a client that answers as it is told."""

from __future__ import annotations

from typing import Any

import pytest

from askos.adapters.containerd.making import Maker
from askos.adapters.containerd.rpc import RpcError


class Client:
    def __init__(self, *answers: RpcError | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def cri(self, method: str, request: Any, timeout_s: float) -> None:
        self.asked.append(method)
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer


CLOSED = RpcError("Stop", "unknown", "failed to stop sandbox: ttrpc: closed: unknown")
GONE = RpcError("Stop", "not_found", "no such sandbox")
OTHER = RpcError("Stop", "unknown", "something else")


async def test_a_shim_that_ends_meanwhile_is_asked_for_again() -> None:
    client = Client(CLOSED, CLOSED, None)
    await Maker(client).stop_sandbox("s")  # type: ignore[arg-type]
    assert client.asked == ["StopPodSandbox"] * 3


async def test_what_is_gone_is_stopped() -> None:
    client = Client(CLOSED, GONE)
    await Maker(client).stop_sandbox("s")  # type: ignore[arg-type]
    assert client.answers == []


@pytest.mark.parametrize("answers", [[OTHER], [CLOSED] * 4, [CLOSED, OTHER]])
async def test_what_stays_wrong_is_told(answers: list[RpcError]) -> None:
    client = Client(*answers)
    with pytest.raises(RpcError) as caught:
        await Maker(client).stop_sandbox("s")  # type: ignore[arg-type]
    assert caught.value is answers[-1]
    assert client.answers == []
