"""An agent on a runtime and a network in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from askos.loops.agent import Agent
from askos.model.capsules import (
    Assignment,
    CapsuleReport,
    CapsuleSpec,
    ContainerSpec,
    Network,
    Port,
    Report,
    RestartPolicy,
    Wish,
)
from askos.plan import backoff
from askos.ports.clock import now_us

from .fakes import FakeNetwork, FakeRuntime

SOON_S = 30.0
NET = Network("net-1", "p", "default", "10.64.0.0/22", "10.64.0.1", "subnet-1")


def assignment(uuid: str, *command: str, wish: Wish | None = None, policy: str = "no", **more: Any) -> Assignment:
    """A capsule with one busybox; it sleeps if nothing else is said."""
    number = sum(uuid.encode()) % 1000 + 2
    port = Port(f"port-{uuid}", NET.uuid, uuid, f"10.64.{number // 256}.{number % 256}", "mac")
    container = ContainerSpec("main", more.pop("image", "busybox"), command=list(command or ("sleep", "1000")), **more)
    spec = CapsuleSpec([container], restart_policy=RestartPolicy(policy))  # type: ignore[arg-type]
    wish = wish or Wish("running", 1, 1, at_us=now_us())
    return Assignment(uuid, "p", f"name-{uuid}", 1, spec, wish, [port], [NET])


def rewish(a: Assignment, state: str, *, run: int | None = None, timeout_s: int = 10) -> Assignment:
    wish = msgspec.structs.replace(
        a.wish, state=state, generation=a.wish.generation + 1, run=a.wish.run if run is None else run,
        stop_timeout_s=timeout_s, at_us=now_us(),
    )  # fmt: skip
    return msgspec.structs.replace(a, wish=wish)


class Host:
    """A machine with an agent that can be restarted; `sent` is every report."""

    def __init__(self, folder: Path) -> None:
        self.logs = folder / "logs"
        self.network = FakeNetwork()
        self.runtime = FakeRuntime(self.logs, network=self.network)
        self.runtime.add_image()
        self.sent: list[CapsuleReport] = []
        self.swept = 0
        self._task: asyncio.Task[None] | None = None
        self.agent: Agent

    async def start(self) -> None:
        self.agent = Agent(self.runtime, self.network, self.logs, self.sent.extend, now_us, sweep=self._sweep)
        await self.network.start(self.agent.attachment)
        self._task = asyncio.create_task(self.agent.run())

    async def _sweep(self) -> list[str]:
        self.swept += 1
        return []

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.agent.stop_workers()

    def last(self, uuid: str) -> Report:
        return [r.report for r in self.sent if r.capsule_uuid == uuid][-1]

    async def settled(self, a: Assignment, state: str | None = None) -> Report:
        """The report that settles the wish of this assignment."""

        def found() -> bool:
            mine = [r.report for r in self.sent if r.capsule_uuid == a.capsule_uuid]
            return (
                bool(mine)
                and mine[-1].settled
                and mine[-1].generation == a.wish.generation
                and (state is None or mine[-1].state == state)
            )

        await until(found)
        return self.last(a.capsule_uuid)

    async def gone(self, uuid: str) -> None:
        await until(lambda: any(r.gone for r in self.sent if r.capsule_uuid == uuid))

    def empty(self, uuid: str) -> bool:
        """Whether nothing of a capsule is left on the machine."""
        r = self.runtime
        return not (
            any(s.capsule_uuid == uuid for s in r.sandboxes.values())
            or any(c.seen.capsule_uuid == uuid for c in r.containers.values())
            or (self.logs / uuid).exists()
            or uuid in self.network.plugged
            or self.network.addresses(f"name-{uuid}")
        )

    def containers(self, uuid: str) -> list[tuple[int, int, str]]:
        """(run, attempt, state) of each container."""
        seen = [c.seen for c in self.runtime.containers.values() if c.seen.capsule_uuid == uuid]
        return sorted((c.run, c.attempt, c.state) for c in seen)


async def until(true: Callable[[], object], timeout_s: float = SOON_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.002)


@pytest_asyncio.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
        await made.runtime.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retries come at once."""
    monkeypatch.setattr(backoff, "retry_delay_us", lambda _failures: 1000)
    monkeypatch.setattr(backoff, "restart_delay_us", lambda _attempt, _lasted: 1000)
    return iter(())
