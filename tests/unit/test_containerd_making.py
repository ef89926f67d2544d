"""Removing through CRI, with a client that answers as it is told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from askos.adapters.containerd import making
from askos.adapters.containerd.making import BusyError, Maker


class Slow:
    """Makes what it is asked for when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.done = asyncio.Event()

    async def cri(self, method: str, request: Any, timeout_s: float) -> Any:
        self.asked += 1
        await self.done.wait()
        return SimpleNamespace(pod_sandbox_id="s")


async def nobody() -> None:
    return None


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_nothing_is_made_while_it_is_held() -> None:
    client = Slow()
    maker = Maker(client)  # type: ignore[arg-type]
    async with maker.held():
        waiting = asyncio.create_task(maker.sandbox(None, nobody))
        await turns()
        assert client.asked == 0
    client.done.set()
    assert await waiting == "s"
    async with maker.held():
        pass


async def test_what_takes_long_does_not_hold_up_others_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "HELD_S", 0.01)
    client = Slow()
    maker = Maker(client)  # type: ignore[arg-type]
    slow = asyncio.create_task(maker.sandbox(None, nobody))
    await turns()
    with pytest.raises(BusyError):
        async with maker.held():
            raise AssertionError("it is not idle")
    other = asyncio.create_task(maker.sandbox(None, nobody))
    await turns()
    assert client.asked == 2
    client.done.set()
    assert await asyncio.gather(slow, other) == ["s", "s"]


async def test_who_is_cancelled_leaves_the_gate_as_it_was() -> None:
    client = Slow()
    maker = Maker(client)  # type: ignore[arg-type]
    making_it = asyncio.create_task(maker.sandbox(None, nobody))
    await turns()
    holding = asyncio.create_task(_hold(maker))
    waiting = asyncio.create_task(maker.sandbox(None, nobody))
    await turns()
    for task in (making_it, holding, waiting):
        task.cancel()
        task.cancel()
    await asyncio.gather(making_it, holding, waiting, return_exceptions=True)
    async with asyncio.timeout(5), maker.held():
        pass


async def _hold(maker: Maker) -> None:
    async with maker.held():
        await asyncio.sleep(60)
