"""The agent: containerd, the host's network and the capsules of this host, linked to a server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable

from askos.adapters.bridge.network import BridgeNetwork
from askos.adapters.containerd import log_files
from askos.adapters.containerd.adopting import Plug
from askos.adapters.containerd.packing import make_busybox_archive
from askos.adapters.containerd.runtime import ContainerdRuntime
from askos.adapters.containerd.supervise import PrivateContainerd
from askos.adapters.containerd.sweep import sweep
from askos.adapters.link.agent import LinkClient
from askos.adapters.volumes.host import Volumes
from askos.loops.agent import Agent
from askos.loops.calls import Calls
from askos.loops.image_rights import ImageRights
from askos.model.errors import RuntimeFailedError
from askos.model.images import normalise
from askos.ports.clock import now_us
from askos.programs import facts, locks
from askos.settings import Settings

_log = logging.getLogger(__name__)

FIRST_IMAGE = "busybox"
LOGS_S = 10.0
"""How often the length of containers' logs is looked at."""


class Host:
    """containerd and the network of this machine, without a link: what both `up` and `down` need."""

    def __init__(self, settings: Settings, plug: Plug | None = None) -> None:
        paths = settings.paths
        self.instance = facts.instance(settings.data)
        self.containerd: PrivateContainerd | None = None
        socket = settings.runtime.socket
        if socket is None:
            self.containerd = PrivateContainerd(
                settings.data, self.instance, cni_bin_dir=paths.cni_bin, cni_conf_dir=paths.cni_conf
            )
            socket = self.containerd.socket
        self.runtime = ContainerdRuntime(
            socket,
            self.instance,
            log_root=paths.container_logs,
            state_root=paths.run,
            pull_stall_s=settings.runtime.pull_stall_s,
            adoption_root=paths.adopted,
            plug=plug,
        )
        self.volumes = Volumes(paths.capsules, paths.volumes)
        self.network = BridgeNetwork(
            self.instance,
            paths.run / "network",
            paths.cni_socket,
            paths.cni_bin,
            paths.cni_conf,
            transit_cidr=settings.network.transit_cidr,
        )

    async def start_runtime(self) -> None:
        """Adopt or start the private containerd, if that is what is used, and talk to it."""
        if self.containerd is not None:
            await self.containerd.start()
            self.runtime.snapshotter = self.containerd.snapshotter
            self.runtime.oci_handlers = self.containerd.handlers
        await self.runtime.start()


class AgentProgram:
    """Start it, run it, stop it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._host = Host(settings, self._plug)
        if self._host.containerd is not None:
            # Before anything is set up that would be left behind.
            self._host.containerd.check()
        self._lock = locks.Lock(settings.paths.lock)
        self._lock.take("Askos")
        self._uplink = LinkClient(f"unix:{settings.link_socket}")
        self.agent = Agent(
            self._host.runtime,
            self._host.network,
            settings.paths.container_logs,
            self._uplink.send,
            now_us,
            sweep=self._sweep if self._host.containerd is not None else None,
            volumes=self._host.volumes,
            env=facts.environment(settings, self._host.instance),
            image_rights=ImageRights(settings.data / "image-rights.json"),
        )
        uploads = settings.paths.run / "uploads"
        # What was on its way to an agent that has ended does not come any more.
        shutil.rmtree(uploads, ignore_errors=True)
        self._calls = Calls(self.agent, uploads, self._host.volumes)

    async def _sweep(self) -> list[str]:
        containerd = self._host.containerd
        assert containerd is not None
        return await sweep(self._host.runtime, containerd.root, containerd.state, containerd.socket)

    async def start(self, step: Callable[[str], None]) -> None:
        """Bring containerd and the network up. Raises SetupError in one line."""
        step("preparing the network")
        await self._host.network.start(self.agent.attachment)
        step("starting containerd")
        await self._host.start_runtime()
        await self._first_image(step)
        await self._host.runtime.prepare(self._settings.host.warm_sandboxes)

    async def _plug(self, sandbox_id: str, netns: str, capsule_uuid: str) -> None:
        """Connect a sandbox that was made in advance to the networks of the capsule that takes it."""
        attachment = await self.agent.attachment(capsule_uuid)
        if attachment is None:
            raise RuntimeFailedError(f"Cannot wire capsule {capsule_uuid}: it is not assigned to this host (any more).")
        await self._host.network.attach(sandbox_id, netns, attachment)

    async def _first_image(self, step: Callable[[str], None]) -> None:
        """Make the first image from Debian's busybox, once: who removes it does not get it back."""
        marker = self._settings.data / "first-image"
        if marker.exists() or self._host.containerd is None:
            return
        if await self._host.runtime.image(normalise(FIRST_IMAGE)) is None:
            step(f"making the image {FIRST_IMAGE}")
            archive = self._settings.paths.run / "busybox.tar"
            try:
                await asyncio.to_thread(make_busybox_archive, archive)
                await self._host.runtime.import_image(str(archive))
            finally:
                archive.unlink(missing_ok=True)
        marker.touch()

    async def run(self) -> None:
        """Keep the link and the capsules, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.agent.run())
            known = facts.gather(self._settings, self._host.runtime.handlers())
            group.create_task(self._uplink.run(known, self.agent, self._calls))
            group.create_task(self._keep_logs_short())

    async def _keep_logs_short(self) -> None:
        """Look after the logs of containers, for ever."""
        while True:
            await asyncio.sleep(LOGS_S)
            logs, step = self._settings.paths.container_logs, self._settings.limits.log_mib << 20
            for path in await asyncio.to_thread(log_files.trim, logs, step * self._settings.limits.log_files, step):
                _log.info("the log %s was cut: it had become too long", path)

    async def stop(self) -> None:
        """Stop working. Capsules, containerd and their network go on; the next start adopts them."""
        await self.agent.stop_workers()
        await self._host.runtime.warm.close()
        await self._host.network.stop()
        with contextlib.suppress(Exception):
            await self._host.runtime.close()
        if self._host.containerd is not None:
            await self._host.containerd.detach()
        self._lock.release()
