"""A real private containerd in a temporary folder, with a network plugin that does nothing but answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from askos.adapters.containerd.packing import make_busybox_archive
from askos.adapters.containerd.runtime import ContainerdRuntime
from askos.adapters.containerd.supervise import PrivateContainerd
from askos.model.errors import RuntimeFailedError
from askos.ports.runtime import Container, ContainerConfig, ExecRequest, SandboxConfig

BUSYBOX = "docker.io/library/busybox:latest"
_PLUGIN = """#!/bin/sh
# Answers as a CNI plugin would; says an address that no interface has.
cat >/dev/null
case "$CNI_COMMAND" in
  VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}' ;;
  ADD) echo '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],'\
'"ips":[{"version":"4","interface":0,"address":"10.1.2.3/24"}]}' ;;
esac
"""


def write_cni(data: Path, instance: str) -> tuple[Path, Path]:
    binaries, conf = data / "cni-bin", data / "cni-conf"
    for folder in (binaries, conf):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("nothing", "loopback"):
        (binaries / name).write_text(_PLUGIN)
        (binaries / name).chmod(0o755)
    plugins = {"cniVersion": "0.4.0", "name": f"askos-{instance}", "plugins": [{"type": "nothing"}]}
    (conf / "10-nothing.conflist").write_text(json.dumps(plugins))
    return binaries, conf


def private(data: Path, instance: str, **more: object) -> PrivateContainerd:
    binaries, conf = write_cni(data, instance)
    return PrivateContainerd(data, instance, cni_bin_dir=binaries, cni_conf_dir=conf, **more)  # type: ignore[arg-type]


class Bench:
    """A containerd, a runtime over it, and short ways to make things."""

    def __init__(self, data: Path, instance: str) -> None:
        self.data = data
        self.instance = instance
        self.containerd = private(data, instance)
        self.logs = data / "logs"
        self.runtime = self.make_runtime()

    def make_runtime(self, **more: object) -> ContainerdRuntime:
        return ContainerdRuntime(
            self.containerd.socket,
            self.instance,
            log_root=self.logs,
            state_root=self.data / "run",
            snapshotter=self.containerd.snapshotter,
            **more,  # type: ignore[arg-type]
        )

    def sandbox(self, capsule: str | None = None, attempt: int = 0) -> SandboxConfig:
        capsule = capsule or str(uuid.uuid4())
        return SandboxConfig(
            capsule_uuid=capsule,
            name="test",
            project_id="p1",
            attempt=attempt,
            hostname="box",
            dns_servers=["10.1.2.1"],
            dns_search=["askos.local"],
        )

    def container(self, capsule: str, *argv: str, run: int = 1, attempt: int = 0, **more: object) -> ContainerConfig:
        fields: dict[str, object] = {
            "capsule_uuid": capsule,
            "name": "main",
            "run": run,
            "attempt": attempt,
            "image_ref": BUSYBOX,
            "entrypoint": None,
            "command": list(argv) or None,
            "environment": {},
            "workdir": None,
            "interactive": False,
            "tty": False,
            "cpu": 1.0,
            "memory_bytes": 64 << 20,
        }
        return ContainerConfig(**{**fields, **more})  # type: ignore[arg-type]

    async def up(self, *argv: str, **more: object) -> tuple[str, str, str]:
        """A started container: (capsule uuid, sandbox id, container id)."""
        sandbox = self.sandbox()
        sandbox_id = await self.runtime.run_sandbox(sandbox)
        config = self.container(sandbox.capsule_uuid, *argv, **more)
        container_id = await self.runtime.create_container(sandbox_id, config, sandbox)
        await self.runtime.start_container(container_id)
        return sandbox.capsule_uuid, sandbox_id, container_id

    async def one(self, capsule: str) -> Container:
        _, containers = await self.runtime.observe(capsule)
        assert len(containers) == 1
        return containers[0]

    async def ended(self, capsule: str, timeout_s: float = 60) -> Container:
        async with asyncio.timeout(timeout_s):
            while (found := await self.one(capsule)).state != "exited":
                await asyncio.sleep(0.05)
        return found

    async def said(self, capsule: str, words: str) -> None:
        """Wait until the container has written these words, so that its program surely runs."""
        async with asyncio.timeout(60):
            while not (self.logs / capsule / "1-0.log").exists() or words not in self.log(capsule):
                await asyncio.sleep(0.02)

    async def clear(self) -> None:
        sandboxes, _ = await self.runtime.observe()
        await asyncio.gather(*(self.runtime.remove_sandbox(sandbox.id) for sandbox in sandboxes))

    def log(self, capsule: str, name: str = "1-0.log") -> str:
        return (self.logs / capsule / name).read_text()


async def run_in(bench: Bench, container: str, *argv: str, **more: object) -> tuple[int, bytes, bytes]:
    """Exit code and both outputs of a program in a container."""
    session = await bench.runtime.exec(container, ExecRequest(list(argv), **more))  # type: ignore[arg-type]
    out = {"stdout": b"", "stderr": b""}
    try:
        async for stream, data in session.output():
            out[stream] += data
        return await session.wait(), out["stdout"], out["stderr"]
    finally:
        await session.close()


async def back_after(bench: Bench, restarts: int) -> None:
    """Wait until containerd was restarted so often, and answers."""
    async with asyncio.timeout(60):
        while bench.containerd.restarts < restarts or not bench.containerd.answering.is_set():
            await asyncio.sleep(0.05)
        # The channel reconnects within a second.
        while True:
            with contextlib.suppress(RuntimeFailedError):
                await bench.runtime.observe()
                return
            await asyncio.sleep(0.05)


def needs_containerd() -> None:
    if os.geteuid() != 0 or shutil.which("containerd") is None or shutil.which("runc") is None:
        pytest.skip("needs root, containerd and runc")


async def open_bench() -> Bench:
    needs_containerd()
    # Short: unix sockets allow 107 characters.
    bench = Bench(Path(tempfile.mkdtemp(prefix="askos-ctd-")), uuid.uuid4().hex[:8])
    try:
        await bench.containerd.start()
        await bench.runtime.close()
        bench.runtime = bench.make_runtime()
        await bench.runtime.start()
        archive = bench.data / "busybox.tar"
        await asyncio.to_thread(make_busybox_archive, archive)
        assert await bench.runtime.import_image(str(archive)) == [BUSYBOX]
    except BaseException:
        await close_bench(bench)
        raise
    return bench


async def close_bench(bench: Bench) -> None:
    with contextlib.suppress(Exception):
        await asyncio.wait_for(bench.clear(), 60)
    await bench.runtime.close()
    await bench.containerd.stop()
    shutil.rmtree(bench.data, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[Bench]:
    bench = await open_bench()
    try:
        yield bench
    finally:
        await close_bench(bench)


@pytest_asyncio.fixture(loop_scope="module")
async def fresh() -> AsyncIterator[Bench]:
    """A bench of its own, for tests that kill containerd."""
    bench = await open_bench()
    try:
        yield bench
    finally:
        await close_bench(bench)
