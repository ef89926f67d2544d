"""A runtime under test: the fake that other tests stand on, or containerd."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from askos.ports.runtime import Container, ContainerConfig, ExecRequest, Runtime, RuntimeEvent, SandboxConfig
from tests.integration.containerd_fixtures import close_bench, needs_containerd, open_bench
from tests.unit.fakes import BUSYBOX, FakeRuntime

UNKNOWN = "0" * 64
QUICK_S = 60.0


class Subject:
    """A runtime under test, and short ways to make things."""

    def __init__(self, runtime: Runtime, logs: Path, *, real: bool) -> None:
        self.runtime = runtime
        self.logs = logs
        self.real = real

    def sandbox(self, capsule: str | None = None, attempt: int = 0, **more: Any) -> SandboxConfig:
        return SandboxConfig(capsule or str(uuid.uuid4()), "test", "p1", attempt, "box", ["10.1.2.1"], **more)

    def container(self, capsule: str, *argv: str, run: int = 1, attempt: int = 0, **more: Any) -> ContainerConfig:
        fields: dict[str, Any] = {
            "capsule_uuid": capsule, "name": "main", "run": run, "attempt": attempt, "image_ref": BUSYBOX,
            "entrypoint": None, "command": list(argv) or None, "environment": {}, "workdir": None,
            "interactive": False, "tty": False, "cpu": 1.0, "memory_bytes": 64 << 20,
        }  # fmt: skip
        return ContainerConfig(**{**fields, **more})

    async def made(self, *argv: str, within: SandboxConfig | None = None, **more: Any) -> tuple[str, str, str]:
        """A container that has not started: (capsule, sandbox id, container id)."""
        config = within or self.sandbox()
        sandbox = await self.runtime.run_sandbox(config)
        wanted = self.container(config.capsule_uuid, *argv, **more)
        return config.capsule_uuid, sandbox, await self.runtime.create_container(sandbox, wanted, config)

    async def up(self, *argv: str, within: SandboxConfig | None = None, **more: Any) -> tuple[str, str, str]:
        """A started one."""
        capsule, sandbox, container = await self.made(*argv, within=within, **more)
        await self.runtime.start_container(container)
        return capsule, sandbox, container

    async def awake(self, script: str, *, within: SandboxConfig | None = None, **more: Any) -> tuple[str, str, str]:
        """A started one whose script has written its first line.

        Until then its first process may still be runc's, which has threads of its own, and which a SIGTERM ends.
        """
        capsule, sandbox, container = await self.up("sh", "-c", script, within=within, **more)
        await self.said(capsule)
        return capsule, sandbox, container

    async def see(self, capsule: str, container: str) -> Container:
        _, containers = await self.runtime.observe(capsule)
        return next(c for c in containers if c.id == container)

    async def ended(self, capsule: str, container: str) -> Container:
        async with asyncio.timeout(QUICK_S):
            while (seen := await self.see(capsule, container)).state != "exited":
                await asyncio.sleep(0.02)
        return seen

    async def run(
        self, container: str, *argv: str, stdin: bytes | None = None, tty: bool = False
    ) -> tuple[int, bytes, bytes]:
        """An exec to its end: (code, stdout, stderr)."""
        async with asyncio.timeout(QUICK_S):
            session = await self.runtime.exec(container, ExecRequest(list(argv), tty=tty, stdin=stdin is not None))
            try:
                if stdin is not None:
                    await session.write(stdin)
                    await session.close_stdin()
                kept = {"stdout": b"", "stderr": b""}
                async for stream, data in session.output():
                    kept[stream] += data
                return await session.wait(), kept["stdout"], kept["stderr"]
            finally:
                await session.close()

    async def text(self, container: str, *argv: str) -> str:
        """What a command in the container says."""
        code, out, err = await self.run(container, *argv)
        assert code == 0, err
        return out.decode()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[list[RuntimeEvent]]:
        """All events from now on, as they come. Nothing tells when they begin: another container is paused until one
        of that has come."""
        seen: list[RuntimeEvent] = []

        async def listen() -> None:
            async for event in self.runtime.events():
                seen.append(event)

        _, sandbox, other = await self.up("sleep", "1000")
        listener = asyncio.create_task(listen())
        try:
            async with asyncio.timeout(QUICK_S):
                while not any(event.kind == "resumed" and event.container_id == other for event in seen):
                    await self.runtime.pause(other)
                    await self.runtime.unpause(other)
                    await asyncio.sleep(0.02)
            yield seen
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            await self.runtime.remove_sandbox(sandbox)

    async def said(self, capsule: str, name: str = "1-0.log") -> None:
        """Wait until the container has written a line."""
        async with asyncio.timeout(QUICK_S):
            while not (self.logs / capsule / name).exists() or not self.log(capsule, name):
                await asyncio.sleep(0.02)

    def log(self, capsule: str, name: str = "1-0.log") -> list[str]:
        """Stream and text of each line of a log; one that is being written is left out."""
        lines = (self.logs / capsule / name).read_text().rpartition("\n")[0].splitlines()
        return [f"{line.split(' ', 3)[1]} {line.split(' ', 3)[3]}" for line in lines]


@asynccontextmanager
async def opened(kind: str, logs: Path) -> AsyncIterator[Subject]:
    """The fake, which writes logs to `logs`, or for any other word a containerd of its own."""
    if kind == "fake":
        fake = FakeRuntime(logs)
        fake.add_image()
        yield Subject(fake, logs, real=False)
        await fake.close()
        return
    needs_containerd()
    bench = await open_bench()
    try:
        yield Subject(bench.runtime, bench.logs, real=True)
    finally:
        await close_bench(bench)
