"""The agent: makes this host hold exactly the capsules it was assigned, and reports what it sees.

One worker per capsule: `containers.ContainerWorker` for Zun containers, `pods.PodWorker` for pods.

Nothing is kept on disk here: assignments come from the server, the state of things from the runtime. Until the first
snapshot has come, nothing is touched.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from askos.loops import assembly
from askos.loops.container_work import ContainerWork
from askos.loops.containers import ContainerWorker
from askos.loops.cores import Cores
from askos.loops.health import HealthChecks
from askos.loops.image_rights import ImageRights
from askos.loops.passing_images import PassingImages
from askos.loops.pod_work import PodTools
from askos.loops.pods import PodWorker
from askos.loops.probes import Prober, runner
from askos.loops.service_images import ServiceImages
from askos.loops.wake import Bell
from askos.loops.worker import Worker
from askos.model.capsules import Assignment, CapsuleReport, Network, Report
from askos.model.errors import AskosError, RuntimeFailedError
from askos.model.pods import Event
from askos.plan import reconcile
from askos.ports import runtime as rt
from askos.ports.network import Attachment, HostNetwork, Names
from askos.ports.volumes import HostVolumes

_log = logging.getLogger(__name__)

RELIST_S = 10.0
"""How often everything is listed, to find what events did not tell."""
COLLECT_S = 60.0
"""How often leftovers are looked for."""
TIDIED_S = (0.008, 0.02, 0.05, 0.1, 0.2, 0.3)
"""When to look after the runtime has tidied up, until the end is seen: on a busy disk its records take a while."""
SECOND_LOOK_S = 0.5
"""When to look again after a process has ended, also when that was seen: that memory ran out is told later."""
_UNSEEN = Report()


class Agent:
    """All workers of one host; `ports.link.Orders` for the link."""

    def __init__(
        self,
        runtime: rt.Runtime,
        network: HostNetwork,
        log_root: Path,
        send: Callable[[list[CapsuleReport]], None],
        clock: Callable[[], int],
        *,
        parallel_starts: int = 4,
        sweep: Callable[[], Any] | None = None,
        volumes: HostVolumes | None = None,
        env: assembly.HostEnv | None = None,
        image_rights: ImageRights | None = None,
        cores: set[int] | None = None,
    ) -> None:
        """`cores`: those of this host that containers may use; None: all that this process may."""
        self.runtime = runtime
        self.network = network
        self.log_root = log_root
        self.send = send
        self.clock = clock
        self.image_rights = image_rights or ImageRights(None)
        self.service_images = ServiceImages(runtime, self.image_rights)
        self.passing_images = PassingImages(runtime)
        self.workers: dict[str, Worker] = {}
        self.synced = asyncio.Event()
        self.starts = asyncio.Semaphore(parallel_starts)
        """Held while a sandbox is made or a pod's container started: more at a time only slow each other down."""
        self.volumes = volumes
        self.cores = Cores(runtime, self._is_dedicated, cores)
        self.health = HealthChecks(runner(runtime), clock, self.poke)
        self._pods: PodTools | None = None
        """None: this agent has Zun containers alone."""
        if volumes is not None and env is not None:
            prober = Prober(network.connect, runner(runtime), clock, self.poke, self._told)
            self._pods = PodTools(volumes=volumes, prober=prober, env=env)
        self._sweep = sweep
        self._owners: dict[str, str] = {}
        self._names = Bell()
        self._relist = Bell()
        self._collect_at = 0.0
        """When leftovers are looked for next, in the event loop's time."""

    # -- orders ------------------------------------------------------------------------------------------------

    def snapshot(self, assignments: list[Assignment]) -> None:
        """See `ports.link.Orders`."""
        wanted = {a.capsule_uuid for a in assignments}
        self.changed(assignments)
        self.dropped([uuid for uuid in self.workers if uuid not in wanted])
        self.synced.set()
        self._relist.ring()

    def changed(self, assignments: list[Assignment]) -> None:
        """See `ports.link.Orders`."""
        for a in assignments:
            worker = self.workers.get(a.capsule_uuid)
            if worker is None or worker.gone:
                # Whatever was here before this process is in its first snapshot. What came later, and was nowhere
                # before, has nothing on this host: it need not be looked for.
                fresh = worker is None and self.synced.is_set() and a.epoch == 1 and a.report == _UNSEEN
                self.workers[a.capsule_uuid] = self._worker(a, fresh=fresh)
            else:
                worker.give(a)
        self._names.ring()

    def _worker(self, a: Assignment, *, fresh: bool) -> Worker:
        if a.spec.pod is None:
            return ContainerWorker(self, a, fresh=fresh)
        if self._pods is None:
            raise RuntimeFailedError("This agent was started without what pods need.")
        return PodWorker(self, a, self._pods, fresh=fresh)

    def container_work(self, worker: ContainerWorker) -> ContainerWork:
        """What looks and acts for a Zun container."""
        return ContainerWork(self, worker)

    def dropped(self, capsule_uuids: list[str]) -> None:
        """See `ports.link.Orders`. What is still on the host is found by the relist and removed."""
        for uuid in capsule_uuids:
            worker = self.workers.pop(uuid, None)
            if worker is not None:
                worker.stop()
            self.health.drop(uuid)
        self._names.ring()
        self._relist.ring()

    def reports(self) -> list[CapsuleReport]:
        """See `ports.link.Orders`."""
        return [w.report for w in self.workers.values() if w.report is not None]

    def done(self, worker: Worker) -> None:
        """A worker has nothing left; it stays known (as gone) until the server drops it."""
        self._names.ring()
        _log.debug("capsule %s is gone", worker.assignment.capsule_uuid)

    def own(self, runtime_id: str, capsule_uuid: str) -> None:
        """Note whose sandbox or container this is: the runtime's events name nothing else."""
        self._owners[runtime_id] = capsule_uuid

    def disown(self, runtime_id: str) -> None:
        """Forget a removed sandbox or container."""
        self._owners.pop(runtime_id, None)

    async def look(self, capsule_uuid: str) -> tuple[list[reconcile.Sandbox], list[reconcile.Container]]:
        """The sandboxes and containers of one capsule, as decisions see them."""
        sandboxes, containers = await self.runtime.observe(capsule_uuid)
        for runtime_id in [s.id for s in sandboxes] + [c.id for c in containers]:
            self.own(runtime_id, capsule_uuid)
        return [reconcile.Sandbox(s.id, s.attempt, s.ready) for s in sandboxes], [_container(c) for c in containers]

    async def start_sandbox(self, a: Assignment, config: rt.SandboxConfig) -> str:
        """Make and start a sandbox, with as many at a time as the host takes well; returns its id."""
        async with self.starts:
            made = await self.runtime.run_sandbox(config)
        self.own(made, a.capsule_uuid)
        return made

    async def image(self, a: Assignment, ref: str) -> rt.Image | None:
        """An image on this host that the capsule's project may use without fetching it, by its normalised name."""
        found = await self.runtime.image(ref)
        usable = found is not None and self.image_rights.may_use(ref, found.id, a.project_id)
        return found if usable else None

    # -- standing loops ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_events())
            group.create_task(self._relist_loop())
            group.create_task(self._names_loop())

    async def stop_workers(self) -> None:
        """Stop working; leaves everything on the host as it is."""
        for worker in self.workers.values():
            worker.stop()
        await asyncio.gather(*(w.task for w in self.workers.values()), return_exceptions=True)
        for uuid in self.workers:
            self.health.drop(uuid)
        self.workers.clear()

    async def _watch_events(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async for event in self.runtime.events():
                    if event.kind == "start":
                        # Only workers start anything, and look when they have. A second look would come just when
                        # the server is busy with their report.
                        continue
                    owner = self._owners.get(event.container_id)
                    if event.kind == "ended":
                        # The runtime has tidied up after a process, and writes its end down in this moment.
                        for delay_s in TIDIED_S:
                            loop.call_later(delay_s, self._look_for_end, owner, event.container_id)
                        continue
                    self.poke(owner)
                    if event.kind == "exit":
                        # The runtime tells of an end before its own records say so.
                        loop.call_later(SECOND_LOOK_S, self.poke, owner)
            except AskosError as error:
                _log.debug("no events from the runtime now: %s", error)
            # Whatever was missed meanwhile, or left by a runtime that died, is found by looking.
            self._collect_at = 0.0
            self._relist.ring()
            await asyncio.sleep(0.5)

    def poke(self, capsule_uuid: str | None) -> None:
        """Something of a capsule may have changed: look."""
        worker = self.workers.get(capsule_uuid) if capsule_uuid else None
        if worker is not None:
            worker.bell.ring()

    def _look_for_end(self, capsule_uuid: str | None, runtime_id: str) -> None:
        """A sandbox or container has ended: look, unless that was seen already."""
        worker = self.workers.get(capsule_uuid) if capsule_uuid else None
        if worker is None:
            return
        ended = any(c.id == runtime_id and c.state == "exited" for c in worker.seen.containers)
        if not ended and not any(s.id == runtime_id and not s.ready for s in worker.seen.sandboxes):
            worker.bell.ring()

    def _is_dedicated(self, capsule_uuid: str) -> bool:
        """Whether a capsule asked for cores of its own."""
        worker = self.workers.get(capsule_uuid)
        specs = worker.assignment.spec.containers if worker is not None else []
        return any(spec.cpu_policy == "dedicated" for spec in specs)

    def _told(self, capsule_uuid: str, event: Event) -> None:
        worker = self.workers.get(capsule_uuid)
        if worker is not None:
            worker.tell(event)

    async def _relist_loop(self) -> None:
        await self.synced.wait()
        loop = asyncio.get_running_loop()
        while True:
            try:
                sandboxes, containers = await self.runtime.observe()
                self._poke_changed(sandboxes, containers)
                await self._remove_strangers(sandboxes, containers)
                await self.cores.confine()
                if loop.time() >= self._collect_at:
                    self._collect_at = loop.time() + COLLECT_S
                    await self._collect()
            except AskosError as error:
                _log.info("cannot list what is on this host: %s", error)
            except Exception:
                _log.exception("listing what is on this host failed")
            await self._relist.wait(RELIST_S)

    def _poke_changed(self, sandboxes: list[rt.Sandbox], containers: list[rt.Container]) -> None:
        states: dict[str, set[tuple[str, str]]] = {}
        for s in sandboxes:
            states.setdefault(s.capsule_uuid, set()).add((s.id, str(s.ready)))
        for c in containers:
            states.setdefault(c.capsule_uuid, set()).add((c.id, c.state))
        for uuid, worker in self.workers.items():
            known = {(s.id, str(s.ready)) for s in worker.seen.sandboxes}
            known |= {(c.id, c.state) for c in worker.seen.containers}
            if known != states.get(uuid, set()):
                worker.bell.ring()

    async def _remove_strangers(self, sandboxes: list[rt.Sandbox], containers: list[rt.Container]) -> None:
        """Remove what belongs to capsules that are not this host's (any more)."""
        for c in containers:
            if c.capsule_uuid not in self.workers:
                _log.info("removing container %s of capsule %s, which is not assigned here", c.id, c.capsule_uuid)
                await _tried(self.runtime.remove_container(c.id))
        for s in sandboxes:
            if s.capsule_uuid not in self.workers:
                _log.info("removing sandbox %s of capsule %s, which is not assigned here", s.id, s.capsule_uuid)
                await _tried(self.runtime.stop_sandbox(s.id))
                await _tried(self.runtime.remove_sandbox(s.id))

    async def _collect(self) -> None:
        if self._sweep is not None:
            for removed in await self._sweep():
                _log.info("removed a leftover: %s", removed)
        if self._pods is not None:
            for removed in await self._pods.volumes.collect(set(self.workers)):
                _log.info("removed a leftover: %s", removed)
            for uuid in await self.runtime.capsule_groups() - set(self.workers):
                await _tried(self.runtime.discard_group(uuid))
        used = {spec.image_uuid for w in self.workers.values() for spec in w.assignment.spec.containers}
        for removed in await self.service_images.collect(used):
            _log.info("removed an image that no capsule uses here: %s", removed)
        for removed in await self.passing_images.collect():
            _log.info("removed a leftover: %s", removed)
        live = await self.runtime.observe()
        await self.network.collect({s.id for s in live[0] if s.ready}, self._networks())
        for folder in self.log_root.iterdir() if self.log_root.is_dir() else ():
            if folder.name not in self.workers:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    # -- names and networks ------------------------------------------------------------------------------------

    def _networks(self) -> list[Network]:
        found = {n.uuid: n for w in self.workers.values() if not w.gone for n in w.assignment.networks}
        return list(found.values())

    async def _names_loop(self) -> None:
        known: set[str] = set()
        while True:
            await self._names.wait(None)
            try:
                await self.network.set_names(self._all_names())
            except AskosError as error:
                _log.warning("names inside networks are not up to date: %s", error)
            left = {n.uuid for n in self._networks()}
            if self.synced.is_set() and known - left:
                # The last capsule of a network has gone, and its bridge goes with it.
                self._collect_at = 0.0
                self._relist.ring()
            known = left

    def _all_names(self) -> list[Names]:
        names: dict[str, dict[str, list[str]]] = {n.uuid: {} for n in self._networks()}
        for worker in self.workers.values():
            if worker.gone or worker.assignment.wish.state == "deleted":
                continue
            a = worker.assignment
            for port in a.ports:
                known = names.setdefault(port.network_uuid, {})
                for name in {a.name.lower(), host_name(a).lower()}:
                    known.setdefault(name, []).extend(ip for ip in (port.address, port.address6) if ip)
        return [Names(n, names[n.uuid]) for n in self._networks()]

    async def attachment(self, capsule_uuid: str) -> Attachment | None:
        """What the CNI plugin asks: the ports of a capsule of this host."""
        if not self.synced.is_set():
            try:
                async with asyncio.timeout(10):
                    await self.synced.wait()
            except TimeoutError:
                return None
        worker = self.workers.get(capsule_uuid)
        if worker is None or worker.gone:
            return None
        a = worker.assignment
        return Attachment(capsule_uuid, host_name(a), a.ports, a.networks)


async def _tried(removal: Awaitable[None]) -> None:
    """One leftover that cannot be removed now must not keep the others."""
    try:
        await removal
    except AskosError as error:
        _log.info("it has to wait: %s", error)


def host_name(a: Assignment) -> str:
    """The name that a capsule is known by in its network, beside its own."""
    return reconcile.hostname(a) if a.spec.pod is None else assembly.hostname(a)


def _container(c: rt.Container) -> reconcile.Container:
    return reconcile.Container(
        id=c.id,
        sandbox_id=c.sandbox_id,
        name=c.name,
        run=c.run,
        attempt=c.attempt,
        state=c.state,
        image_id=c.image_id,
        exit_code=c.exit_code,
        reason=c.reason,
        message=c.message,
        started_us=c.started_us,
        finished_us=c.finished_us,
        spec_hash=c.spec_hash,
        cpu_shares=c.cpu_shares,
        memory_bytes=c.memory_bytes,
        cpus=c.cpus,
    )
