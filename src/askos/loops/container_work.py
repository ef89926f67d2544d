"""How the actions of `plan.reconcile` are performed on a host, and what is remembered of them meanwhile."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from askos.model.capsules import Assignment
from askos.model.errors import AskosError, InvalidError, NotFoundError, RuntimeFailedError
from askos.plan import pull_secrets, reconcile
from askos.plan.reconcile import Health
from askos.ports import runtime as rt
from askos.ports.network import Attachment
from askos.ports.volumes import File, HostVolume, HostVolumes

if TYPE_CHECKING:
    from askos.loops.agent import Agent
    from askos.loops.containers import ContainerWorker

REGISTRY, MOUNTS = "registry", "mounts"
"""The names of the secrets of a Zun container: its log-in at a registry, and files for it."""
_DISK = "disk"


class ContainerWork:
    """Looks and acts for one Zun container."""

    def __init__(self, agent: Agent, worker: ContainerWorker) -> None:
        self._agent = agent
        self._worker = worker
        self._paths: dict[str, str] | None = None
        """Host paths of the volumes of the volume service, once everything is set up."""
        self._own: dict[str, str] = {}
        """Those of files given to it, and of its own disk."""
        self._image: rt.Image | None = None
        """The image as last looked up."""
        self._wired: dict[str, list[str]] = {}
        self._refused: tuple[int, dict[str, str]] = (0, {})
        self._committing = 0
        self._first = False
        """Whether nothing of the capsule was ever on this host, and nothing was tried to be made."""

    # -- looking -----------------------------------------------------------------------------------------------

    async def observe(self, a: Assignment, pulled: int) -> reconcile.Observed:
        """Everything on this host that belongs to the capsule."""
        sandboxes, containers, image = await self._look(a)
        known = {s.id for s in sandboxes if s.ready}
        self._wired = {sandbox_id: ports for sandbox_id, ports in self._wired.items() if sandbox_id in known}
        generation, refused = self._refused
        found = reconcile.Image(image.id, image.entrypoint, image.command, image.exposed_ports) if image else None
        return reconcile.Observed(
            sandboxes=sandboxes,
            containers=containers,
            image=found,
            pulled=pulled,
            logs=(self._agent.log_root / a.capsule_uuid).exists(),
            volumes=self._paths is not None,
            folders=self._agent.volumes is not None and self._agent.volumes.present(a.capsule_uuid),
            wired=self._wired,
            health=self._health(a, containers),
            committing=self._committing > 0,
            refused=refused if generation == a.wish.generation else {},
        )

    async def _look(self, a: Assignment) -> tuple[list[reconcile.Sandbox], list[reconcile.Container], rt.Image | None]:
        """What there is of the capsule, and its image if it may be needed."""
        wanted = a.wish.state in ("created", "running", "paused")
        self._first = self._worker.fresh
        if self._worker.fresh:
            sandboxes: list[reconcile.Sandbox] = []
            containers: list[reconcile.Container] = []
            image = await self._agent.image(a, reconcile.image_ref(a)) if wanted else None
        elif wanted and self._image is None:
            (sandboxes, containers), image = await asyncio.gather(
                self._agent.look(a.capsule_uuid), self._agent.image(a, reconcile.image_ref(a))
            )
        else:
            sandboxes, containers = await self._agent.look(a.capsule_uuid)
            image = self._image if wanted else None
            if wanted and not _stands(a, containers, image):
                # Something is to be made: the image may have gone, or be another one, meanwhile.
                image = await self._agent.image(a, reconcile.image_ref(a))
        self._image = image
        return sandboxes, containers, image

    def _health(self, a: Assignment, containers: list[reconcile.Container]) -> dict[str, Health]:
        """What the health check says, which goes on for as long as the container runs."""
        check = a.spec.containers[0].healthcheck
        live = [c for c in containers if c.run == a.wish.run and c.state in ("running", "paused")]
        if check is None or not live or a.wish.state not in ("running", "paused"):
            self._agent.health.drop(a.capsule_uuid)
            return {}
        c = live[-1]
        reported = next((r for r in a.report.containers if r.container_id == c.id), None)
        last = Health(reported.health, reported.health_output) if reported is not None else Health()
        started_us = c.started_us or self._agent.clock()
        paused = c.state == "paused" or self._committing > 0
        return {c.id: self._agent.health.want(a.capsule_uuid, c.id, check, started_us, last, paused=paused)}

    @asynccontextmanager
    async def committing(self) -> AsyncIterator[None]:
        """While an image is made of the container it is paused, and is to be left so. It is not checked, either."""
        self._committing += 1
        try:
            await self._agent.health.hold(self._worker.assignment.capsule_uuid)
            yield
        finally:
            self._committing -= 1
            self._worker.bell.ring()

    def refuse(self, a: Assignment, action: reconcile.Action, message: str) -> None:
        """Try an action no more for this wish."""
        generation, refused = self._refused
        before = refused if generation == a.wish.generation else {}
        self._refused = (a.wish.generation, {**before, type(action).__name__: message})

    # -- acting ------------------------------------------------------------------------------------------------

    async def perform(self, a: Assignment, action: reconcile.Action) -> reconcile.Observed | None:
        """Perform one action. Returns what is seen then, if it need not be looked at: nobody else makes or starts
        anything of this capsule."""
        runtime, seen, name = self._agent.runtime, self._worker.seen, a.spec.containers[0].name
        match action:
            case reconcile.PullImage(ref):
                await self._pull(a, ref)
            case reconcile.SetUpVolumes():
                await self._set_up(a)
            case reconcile.RunSandbox(attempt):
                return reconcile.with_made(seen, action, await self._run_sandbox(a, attempt), name)
            case reconcile.SyncNetwork(sandbox_id):
                await self._sync(a, sandbox_id)
            case reconcile.CreateContainer():
                return reconcile.with_made(seen, action, await self._create(a, action), name)
            case reconcile.CarryLayer(from_id, to_id):
                await runtime.carry_layer(from_id, to_id)
            case reconcile.StartContainer(container_id):
                started_us = await runtime.start_container(container_id)
                if started_us is not None and _is_plain(a):
                    return reconcile.with_started(seen, container_id, started_us)
            case reconcile.UpdateLimits(container_id):
                await runtime.update_limits(container_id, limits(a))
            case reconcile.PauseContainer(container_id):
                await self._agent.health.hold(a.capsule_uuid)
                await runtime.pause(container_id)
            case reconcile.UnpauseContainer(container_id):
                await runtime.unpause(container_id)
            case reconcile.StopContainer(container_id, timeout_s):
                await runtime.stop_container(container_id, timeout_s)
            case reconcile.RemoveContainer(container_id):
                await self._remove(a, container_id)
            case reconcile.StopSandbox(sandbox_id):
                self._wired.pop(sandbox_id, None)
                await runtime.stop_sandbox(sandbox_id)
            case reconcile.RemoveSandbox(sandbox_id):
                await runtime.remove_sandbox(sandbox_id)
                self._agent.disown(sandbox_id)
            case reconcile.TearDown():
                await self._tear_down(a)
        return None

    async def _pull(self, a: Assignment, ref: str) -> None:
        """Fetch the image: from the image service, or from its registry with each log-in that fits, or without one."""
        spec = a.spec.containers[0]
        if spec.image_driver == "glance":
            await self._agent.service_images.fetch(spec.image_uuid, a.project_id)
            return
        runtime, rights = self._agent.runtime, self._agent.image_rights
        names = [REGISTRY] if REGISTRY in a.content.secrets else []
        found = pull_secrets.credentials(a.content, names, ref)
        tries: list[rt.Credential | None] = [
            rt.Credential(c.username, c.password, c.identity_token, c.registry_token) for c in found
        ]
        before = await runtime.image(ref) if tries else None
        failure: AskosError | None = None
        for credential in tries or [None]:
            try:
                image = await runtime.pull(ref, credential=credential)
            except (NotFoundError, RuntimeFailedError) as error:
                failure = error
                continue
            there = before is not None and before.id == image.id
            await rights.fetched(ref, image.id, a.project_id, login=credential is not None, was_there=there)
            return
        assert failure is not None, "there is always one try"
        raise failure

    async def _run_sandbox(self, a: Assignment, attempt: int) -> str:
        before = _uuids(self._worker.assignment)
        first, self._first = self._first, False
        made = await self._agent.start_sandbox(a, sandbox_config(a, attempt, first=first))
        if _uuids(self._worker.assignment) == before:
            # Otherwise nobody knows which of the two it was plugged into.
            self._wired[made] = before
        return made

    async def _sync(self, a: Assignment, sandbox_id: str) -> None:
        attachment = Attachment(a.capsule_uuid, reconcile.hostname(a), a.ports, a.networks)
        await self._agent.network.sync(sandbox_id, attachment)
        await asyncio.to_thread(self._hosts_file, a)
        self._wired[sandbox_id] = _uuids(a)

    async def _create(self, a: Assignment, action: reconcile.CreateContainer) -> str:
        spec = a.spec.containers[0]
        hosts_file = await asyncio.to_thread(self._hosts_file, a)
        sandbox = sandbox_config(a, action.sandbox_attempt)
        async with self._cores(a) as cpus:
            config = msgspec.structs.replace(
                container_config(a, action, hosts_file),
                mounts=self._mounts(a),
                cpus=cpus,
                layer_folder=self._own[_DISK] if spec.disk_gib else "",
            )
            made = await self._agent.runtime.create_container(action.sandbox_id, config, sandbox)
        # Known before it starts: it may end before anybody looks again.
        self._agent.own(made, a.capsule_uuid)
        return made

    @asynccontextmanager
    async def _cores(self, a: Assignment) -> AsyncIterator[str]:
        spec = a.spec.containers[0]
        if spec.cpu_policy == "dedicated":
            async with self._agent.cores.take(spec.cpu) as cpus:
                yield cpus
        else:
            yield self._agent.cores.shared

    async def _remove(self, a: Assignment, container_id: str) -> None:
        await self._agent.runtime.remove_container(container_id)
        self._agent.disown(container_id)
        old = next((c for c in self._worker.seen.containers if c.id == container_id), None)
        if old is not None and old.run < a.wish.rebuilt_run:
            # What was rebuilt begins with an empty log, as it begins with new files.
            await asyncio.to_thread(self._forget_logs, a, old.run)

    def _forget_logs(self, a: Assignment, run: int) -> None:
        folder = self._agent.log_root / a.capsule_uuid
        for path in folder.glob(f"{run}-*.log*"):
            path.unlink(missing_ok=True)

    # -- volumes and files -------------------------------------------------------------------------------------

    def _volumes(self) -> HostVolumes:
        if self._agent.volumes is None:
            raise RuntimeFailedError("This host has no volumes.", retryable=False)
        return self._agent.volumes

    async def _set_up(self, a: Assignment) -> None:
        volumes, uuid, spec = self._volumes(), a.capsule_uuid, a.spec.containers[0]
        own = []
        if spec.disk_gib:
            # The log folder says that there is something to be removed once more.
            await asyncio.to_thread((self._agent.log_root / uuid).mkdir, parents=True, exist_ok=True)
            own.append(HostVolume(_DISK, "block", spec.disk_gib << 30, uuid=uuid))
        files = [File(mount.content, self._content(a, mount.content)) for mount in spec.mounts if mount.content]
        if files:
            own.append(HostVolume(MOUNTS, "files", files=list({f.path: f for f in files}.values()), secret=True))
        wanted = {mount.volume for mount in spec.mounts if mount.volume}
        missing = wanted - {grant.name for grant in a.volumes}
        if missing:
            raise InvalidError(f"Cannot mount {', '.join(sorted(missing))}: this host was given no such volume.")
        grants = [
            HostVolume(g.name, "block", g.size_bytes, uuid=g.uuid, read_only=g.read_only)
            for g in a.volumes
            if g.name in wanted
        ]
        self._own = await volumes.set_up(uuid, own, None)
        if files:
            # They may be there from before.
            await volumes.write_files(uuid, own[-1], None)
        self._paths = await volumes.set_up(uuid, grants, None)

    def _content(self, a: Assignment, key: str) -> bytes:
        secret = a.content.secrets.get(MOUNTS)
        if secret is None or key not in secret.data:
            raise InvalidError(f"Cannot mount the file {key!r}: its content was not given to this host.")
        return secret.data[key]

    def _mounts(self, a: Assignment) -> list[rt.Mount]:
        if not reconcile.wants_volumes(a):
            return []
        if self._paths is None:
            raise RuntimeFailedError("The volumes are not ready yet.")
        grants = {g.name: g for g in a.volumes}
        found = []
        for mount in a.spec.containers[0].mounts:
            if mount.volume:
                path = self._paths[mount.volume]
                found.append(rt.Mount(path, mount.destination, read_only=grants[mount.volume].read_only))
            else:
                found.append(rt.Mount(f"{self._own[MOUNTS]}/{mount.content}", mount.destination, read_only=True))
        return found

    async def _tear_down(self, a: Assignment) -> None:
        uuid = a.capsule_uuid
        self._agent.health.drop(uuid)
        if self._agent.volumes is not None:
            await self._agent.volumes.tear_down(uuid)
            if a.spec.containers[0].disk_gib:
                await self._agent.volumes.remove_volume(uuid)
        self._paths, self._own = None, {}
        await asyncio.to_thread(shutil.rmtree, self._agent.log_root / uuid, ignore_errors=True)

    def _hosts_file(self, a: Assignment) -> str:
        """/etc/hosts of the capsule, beside its logs. Without it containers would see the host's own."""
        path = self._agent.log_root / a.capsule_uuid / "etc-hosts"
        path.parent.mkdir(parents=True, exist_ok=True)
        ips = [ip for port in a.ports for ip in (port.address, port.address6) if ip]
        own = [f"{ip}\t{reconcile.hostname(a)}" for ip in ips]
        path.write_text("\n".join(["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost", *own, ""]))
        path.chmod(0o644)
        return str(path)


def _stands(a: Assignment, containers: list[reconcile.Container], image: rt.Image | None) -> bool:
    """Whether the container of this run is there, of this image, and lives: nothing is to be made of the image."""
    mine = [c for c in containers if c.run == a.wish.run]
    return image is not None and any(
        c.state in ("created", "running", "paused") and c.image_id == image.id for c in mine
    )


def _is_plain(a: Assignment) -> bool:
    """Whether all that a look would tell of its container is whether it runs, and since when."""
    spec = a.spec.containers[0]
    return spec.healthcheck is None and spec.cpu_policy != "dedicated"


def _uuids(a: Assignment) -> list[str]:
    return [port.uuid for port in a.ports]


def limits(a: Assignment) -> rt.Limits:
    """What the container may use."""
    spec = a.spec.containers[0]
    return rt.Limits(cpu_shares=reconcile.shares(spec.cpu), memory_bytes=spec.memory_mib << 20)


def sandbox_config(a: Assignment, attempt: int, *, first: bool = False) -> rt.SandboxConfig:
    """The sandbox of a capsule."""
    return rt.SandboxConfig(
        capsule_uuid=a.capsule_uuid,
        name=a.name,
        project_id=a.project_id,
        attempt=attempt,
        hostname=reconcile.hostname(a),
        dns_servers=[n.gateway for n in a.networks],
        handler=a.spec.runtime,
        first=first,
    )


def container_config(a: Assignment, action: reconcile.CreateContainer, hosts_file: str) -> rt.ContainerConfig:
    """A container of a capsule, without what has to be set up for it first."""
    spec = a.spec.containers[0]
    return rt.ContainerConfig(
        capsule_uuid=a.capsule_uuid,
        name=spec.name,
        run=action.run,
        attempt=action.attempt,
        image_ref=reconcile.image_ref(a),
        image_id=action.image_id,
        entrypoint=spec.entrypoint,
        command=spec.command,
        environment=spec.environment,
        workdir=spec.workdir,
        interactive=spec.interactive,
        tty=spec.tty,
        cpu=spec.cpu,
        memory_bytes=spec.memory_mib << 20,
        hosts_file=hosts_file,
        security=rt.Security(privileged=spec.privileged),
    )
