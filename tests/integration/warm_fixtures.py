"""A private containerd whose sandboxes are wired by a real bridge network."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from askos.adapters.bridge.network import BridgeNetwork
from askos.adapters.containerd.packing import make_busybox_archive
from askos.adapters.containerd.runtime import ContainerdRuntime
from askos.adapters.containerd.supervise import PrivateContainerd
from askos.adapters.containerd.sweep import sweep
from askos.adapters.containerd.teardown import shims
from askos.model.capsules import Network, Port
from askos.plan.pools import gateway_of, mac_for
from askos.ports.network import Attachment, Names
from askos.ports.runtime import ContainerConfig, ExecRequest, SandboxConfig

from .bridge_fixtures import CAN, left_of
from .containerd_fixtures import BUSYBOX, needs_containerd


class Capsule:
    """A capsule with one port."""

    def __init__(self, name: str, network: Network, address: str) -> None:
        self.name = name
        self.uuid = str(uuid.uuid4())
        self.network = network
        self.address = address
        self.port = Port(str(uuid.uuid4()), network.uuid, self.uuid, address, mac_for(address))

    def sandbox(self, attempt: int = 0, **more: object) -> SandboxConfig:
        gateway = [self.network.gateway]
        config = SandboxConfig(self.uuid, self.name, "p1", attempt, self.name, gateway, dns_options=["ndots:1"])
        return SandboxConfig(**{**{f: getattr(config, f) for f in config.__struct_fields__}, **more})  # type: ignore[arg-type]

    def container(self, *argv: str, name: str = "main") -> ContainerConfig:
        return ContainerConfig(
            self.uuid, name, 1, 0, BUSYBOX, None, list(argv), {}, None,
            interactive=False, tty=False, cpu=1.0, memory_bytes=64 << 20,
        )  # fmt: skip


class Machine:
    """One host: containerd, bridge network and runtime, as an agent puts them together."""

    def __init__(self) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="askos-warm-"))
        self.instance = secrets.token_hex(3)
        self.capsules: list[Capsule] = []
        self.plugs = 0
        folders = self.data / "cni-bin", self.data / "cni-conf"
        for folder in folders:
            folder.mkdir()
        self.containerd = PrivateContainerd(self.data, self.instance, cni_bin_dir=folders[0], cni_conf_dir=folders[1])
        self.network = self.make_network()
        self.runtime = self.make_runtime()

    def make_network(self) -> BridgeNetwork:
        return BridgeNetwork(
            self.instance, self.data / "net", self.data / "cni.sock", self.data / "cni-bin", self.data / "cni-conf",
            upstream=[],
        )  # fmt: skip

    def make_runtime(self) -> ContainerdRuntime:
        return ContainerdRuntime(
            self.containerd.socket, self.instance, log_root=self.data / "logs", state_root=self.data / "run",
            snapshotter=self.containerd.snapshotter, adoption_root=self.adoptions, plug=self.plug,
        )  # fmt: skip

    @property
    def adoptions(self) -> Path:
        return self.data / "adopted"

    async def lookup(self, capsule_uuid: str) -> Attachment | None:
        found = next((c for c in self.capsules if c.uuid == capsule_uuid), None)
        return None if found is None else Attachment(found.uuid, found.name, [found.port], [found.network])

    async def plug(self, sandbox_id: str, netns: str, capsule_uuid: str) -> None:
        attachment = await self.lookup(capsule_uuid)
        assert attachment is not None
        self.plugs += 1
        await self.network.attach(sandbox_id, netns, attachment)

    async def reborn(self) -> None:
        """What a new process finds after the old one was killed: the same state, new objects.

        The old objects are not told to end anything; only their tasks, which die with a process, are ended.
        """
        keeper = self.runtime.warm._keeper
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await self.runtime.client.close()
        await self.network.stop()
        self.network = self.make_network()
        await self.network.start(self.lookup)
        self.runtime = self.make_runtime()
        await self.runtime.start()

    def network_of(self, cidr: str) -> Network:
        return Network(str(uuid.uuid4()), "p1", "default", cidr, gateway_of(cidr), str(uuid.uuid4()))

    def capsule(self, name: str, network: Network, address: str) -> Capsule:
        made = Capsule(name, network, address)
        self.capsules.append(made)
        return made

    async def name_all(self) -> None:
        """Tell the name services, as the agent does."""
        networks = {c.network.uuid: c.network for c in self.capsules}
        await self.network.set_names(
            [
                Names(n, {c.name: [c.address] for c in self.capsules if c.network.uuid == n.uuid})
                for n in networks.values()
            ]
        )

    async def warmed(self, count: int) -> None:
        """Ask for prepared sandboxes and wait until they are there."""
        await self.runtime.prepare(count)
        async with asyncio.timeout(60):
            while self.runtime.warm.ready != count:
                await asyncio.sleep(0.05)

    async def up(self, capsule: Capsule, *argv: str, attempt: int = 0) -> tuple[str, str]:
        """A running container: (sandbox id, container id)."""
        config = capsule.sandbox(attempt)
        sandbox = await self.runtime.run_sandbox(config)
        made = await self.runtime.create_container(sandbox, capsule.container(*(argv or ("sleep", "1000"))), config)
        await self.runtime.start_container(made)
        return sandbox, made

    async def run(self, container: str, *argv: str) -> tuple[int, str]:
        """An exec to its end: (code, output)."""
        async with asyncio.timeout(60):
            session = await self.runtime.exec(container, ExecRequest(list(argv)))
            try:
                out = b"".join([data async for _, data in session.output()])
                return await session.wait(), out.decode()
            finally:
                await session.close()

    async def in_cri(self) -> set[str]:
        """The ids of all sandboxes in containerd."""
        sandboxes, _ = await self.runtime.cri_lists()
        return {item.id for item in sandboxes}

    async def left(self) -> list[str]:
        """Everything on this machine that a removed sandbox could have left."""
        state = self.containerd.state
        found = [f"CRI {item}" for item in await self.in_cri()]
        found += [f"shim {name}" for name in shims(self.containerd.socket)]
        found += [f"netns {path.name}" for path in (state / "io.containerd.grpc.v1.cri" / "netns").glob("*")]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [line for line in mounts if str(self.data) in line]
        found += [f"journal {path.name}" for path in (self.data / "net").glob("*.json")]
        found += [f"record {path.name}" for path in self.adoptions.glob("*")]
        found += [line for line in left_of(self.instance) if f"ak{self.instance[:4]}p" in line]
        for hierarchy in Path("/sys/fs/cgroup").glob(f"*/askos-{self.instance}/*/"):
            found.append(f"control group {hierarchy}")
        return found

    async def sweep(self) -> list[str]:
        c = self.containerd
        return await sweep(self.runtime, c.root, c.state, c.socket)


@contextlib.asynccontextmanager
async def machine() -> AsyncIterator[Machine]:
    needs_containerd()
    if not CAN:
        pytest.skip("needs nft and ip")
    made = Machine()
    try:
        await made.network.start(made.lookup)
        await made.containerd.start()
        await made.reborn()
        archive = made.data / "busybox.tar"
        await asyncio.to_thread(make_busybox_archive, archive)
        await made.runtime.import_image(str(archive))
        yield made
    finally:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(60):
                await made.runtime.prepare(0)
                for sandbox in (await made.runtime.observe())[0]:
                    await made.runtime.remove_sandbox(sandbox.id)
        await made.runtime.close()
        await made.containerd.stop()
        await made.network.stop()
        await made.network.remove_all()
        shutil.rmtree(made.data, ignore_errors=True)
        assert not os.path.exists(made.data)
