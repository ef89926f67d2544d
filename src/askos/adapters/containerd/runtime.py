"""The runtime port over containerd: see `ports.runtime` for what each verb promises.

Sandboxes and containers go through CRI; signals, exec, layers and events through containerd's own API. Everything
of ours carries the label askos.io/instance, and nothing else is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd import cgroups, disk, images, layers, mounts, spec, stats, teardown
from askos.adapters.containerd import limits as capsule_limits
from askos.adapters.containerd.adopting import Plug
from askos.adapters.containerd.adoptions import Adoptions
from askos.adapters.containerd.details import Use
from askos.adapters.containerd.execs import Exec
from askos.adapters.containerd.living import Living
from askos.adapters.containerd.look import Observer
from askos.adapters.containerd.making import Maker, Ongoing
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.pull import STALL_S, pull
from askos.adapters.containerd.reasons import describe
from askos.adapters.containerd.rpc import LIST_S, Client, RpcError, failed
from askos.adapters.containerd.stopping import Stopper
from askos.adapters.containerd.warm import Warm
from askos.model.errors import ConflictError, NotFoundError, RuntimeFailedError, UnavailableError
from askos.ports.runtime import (
    Container,
    ContainerConfig,
    ContainerStats,
    Credential,
    ExecRequest,
    Image,
    Limits,
    PullProgress,
    RuntimeEvent,
    Sandbox,
    SandboxConfig,
)

if TYPE_CHECKING:
    from askos.adapters.containerd.attach import Attach

_START_S = 60.0
_TOPICS = {
    "/tasks/exit": "exit", "/tasks/delete": "ended", "/tasks/oom": "oom", "/tasks/start": "start",
    "/tasks/paused": "paused", "/tasks/resumed": "resumed",
}  # fmt: skip
_T = TypeVar("_T")


class ContainerdRuntime(Living):
    """`ports.runtime.Runtime` over the containerd at `socket`.

    `instance`: the cloud's short hex id. Logs go to `<log_root>/<capsule uuid>/`; `state_root` holds the pipes of
    exec sessions and temporary files. `snapshotter` must be the one that CRI is configured with. `adoption_root` keeps
    whose the prepared sandboxes have become, as long as the sandboxes are; by default it is in `state_root`. `plug`
    connects such a sandbox to its capsule's networks, where the network plugin leaves that to us.
    """

    def __init__(
        self,
        socket: Path,
        instance: str,
        *,
        log_root: Path,
        state_root: Path,
        snapshotter: str = "overlayfs",
        cgroup_parent: str | None = None,
        pull_stall_s: float = STALL_S,
        adoption_root: Path | None = None,
        plug: Plug | None = None,
    ) -> None:
        super().__init__(Client(socket), state_root / "files")
        self.instance = instance
        self.snapshotter = snapshotter
        self.exec_root = state_root / "exec"
        self.live_execs: set[str] = set()
        """The names of the folders of this process's own exec sessions."""
        self.oci_handlers = ["runc"]
        """What containerd is configured with, the default first."""
        self._scratch = state_root / "import"
        self._log_root = log_root
        self._parent = cgroup_parent or cgroups.parent_of(instance)
        self._stall_s = pull_stall_s
        self._removing_images = asyncio.Lock()
        self._adoptions = Adoptions(adoption_root or state_root / "adopted")
        self._observer = Observer(self.client, instance, self._adoptions, self._details)
        self._maker = Maker(self.client)
        self.pulls = Ongoing()
        self.warm = Warm(
            self.client,
            self._maker,
            self._adoptions,
            instance,
            make_config=self._sandbox_config,
            plug=plug,
            default_handler=lambda: self.oci_handlers[0],
        )
        self._stopper = Stopper(self.client)
        self._ends_groups = cgroups.ends_groups()

    async def start(self) -> None:
        """Make sure that the sandbox image is there; call it once containerd answers, and after it came back."""
        await _told("prepare the sandbox image", images.ensure_pause(self.client, self._scratch))
        # What a predecessor had mounted to look into.
        await asyncio.to_thread(mounts.remove_tree, self._files.scratch)

    async def close(self) -> None:
        """Close the connection. Nothing in containerd ends by it."""
        await self.warm.close()
        await self.client.close()

    def held(self) -> AbstractAsyncContextManager[None]:
        """Hold up the making of sandboxes and containers (for `sweep`)."""
        return self._maker.held()

    async def cri_lists(self) -> tuple[list[Any], list[Any]]:
        """CRI's lists of all sandboxes and containers, whosever they are (for `sweep`). Raises RpcError."""
        return await self._observer.lists({})

    # Sandboxes and containers

    async def observe(self, capsule_uuid: str | None = None) -> tuple[list[Sandbox], list[Container]]:
        """Everything there is of one capsule, or of all."""
        return await _told("look at the containers", self._observer.observe(capsule_uuid))

    async def run_sandbox(self, config: SandboxConfig) -> str:
        """Make and start a sandbox with its network; returns its id. Raises RuntimeFailedError."""
        self._make_log_folder(config.capsule_uuid)
        request = cri.RunPodSandboxRequest(config=self._sandbox_config(config), runtime_handler=config.handler)

        async def existing() -> tuple[str, bool] | None:
            found = await self._observer.sandboxes(config.capsule_uuid)
            return next(((s.id, s.ready) for s in found if s.attempt == config.attempt), None)

        with self.warm.starting():
            making = self.warm.run(config, existing, lambda: self._maker.sandbox(request, existing))
            return await _told("make the sandbox", making)

    async def prepare(self, count: int) -> None:
        """Keep so many sandboxes ready; see `ports.runtime.Runtime.prepare`."""
        await _told("prepare sandboxes", self.warm.prepare(count))

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill what runs in it and take its network away."""
        await self.warm.settled(sandbox_id)
        await _told("stop the sandbox", self._thaw_all(sandbox_id))
        await _told("stop the sandbox", self._maker.stop_sandbox(sandbox_id))

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Remove the sandbox and every container in it."""
        await self.warm.settled(sandbox_id)
        await _told("remove the sandbox", self._empty(sandbox_id))
        await _told("remove the sandbox", self._maker.remove_sandbox(sandbox_id))
        # containerd forgets the socket of a shim whose start was broken off.
        teardown.shim_socket(self.client.socket, sandbox_id).unlink(missing_ok=True)
        self._adoptions.remove(sandbox_id)

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        """Make a container, not started; returns its id. NotFoundError when its image is not on the host."""
        self._make_log_folder(config.capsule_uuid, spec.log_name(config))
        image = config.image_id or images.resolvable(config.image_ref)
        known = await self._known(image)
        command, args = _command(config, known)
        request = cri.CreateContainerRequest(
            pod_sandbox_id=sandbox_id,
            config=spec.container_config(
                config,
                self.instance,
                image,
                command=command,
                args=args,
                image_user=known.user if known is not None else "",
                ends_groups=self._ends_groups,
            ),
            sandbox_config=self._sandbox_config(sandbox, privileged=config.security.privileged),
        )

        new = True

        async def existing() -> tuple[str, bool] | None:
            labels = {
                spec.INSTANCE: self.instance,
                spec.CAPSULE: config.capsule_uuid,
                spec.NAME: config.name,
                spec.RUN: str(config.run),
                spec.ATTEMPT: str(config.attempt),
            }
            _, containers = await self._observer.lists(labels)
            found = [c for c in containers if c.pod_sandbox_id == sandbox_id]
            nonlocal new
            new = False
            return (found[0].id, found[0].state != cri.CONTAINER_UNKNOWN) if found else None

        try:
            with self.warm.starting():
                making = self._maker.container(request, existing)
                made, _ = await asyncio.gather(making, self.warm.finished(sandbox_id))
            if new:
                limits = spec.limits_of(config)
                self._details.made(made, Use(limits.cpu_shares, limits.memory_bytes, config.cpus))
            if config.layer_folder:
                await self._place(made, config.layer_folder)
            return made
        except RpcError as error:
            if error.not_found and "resolve image" in error.text:
                message = f"Image {config.image_ref} is not on this host. Pull it first."
                raise NotFoundError(message, "image-not-found") from None
            raise failed(error, "make the container") from None

    async def start_container(self, container_id: str) -> int | None:
        """Start a created container; see `ports.runtime.Runtime`."""
        try:
            request = cri.StartContainerRequest(container_id=container_id)
            with self.warm.starting():
                await self.client.cri("StartContainer", request, _START_S)
            self._details.started(container_id)
        except RpcError as error:
            if "CONTAINER_RUNNING state" in error.text:
                return None
            if "CONTAINER_EXITED state" not in error.text:
                raise failed(error, "start the container") from None
        else:
            return await _told("look at the container", self._observer.started(container_id))
        # It was started before: either it has run and ended, or that start had failed.
        status = await _told("look at the container", self._observer.status(container_id))
        if not status.started_at:
            reason, retryable = describe(status.message)
            raise RuntimeFailedError(f"Could not start the container: {reason}", retryable=retryable)
        return None

    async def stop_container(self, container_id: str, timeout_s: int, stop_signal: str | None = None) -> None:
        """The stop signal (`stop_signal`, else the image's, else SIGTERM), then SIGKILL after `timeout_s`.

        InvalidError for a signal that there is not.
        """
        await _told("stop the container", self._thaw(container_id, kill=timeout_s <= 0))
        await _told("stop the container", self._stopper.stop(container_id, timeout_s, stop_signal))

    async def remove_container(self, container_id: str) -> None:
        """Remove a container; kills it first when it runs."""
        await _told("remove the container", self._remove(container_id))

    async def signal(self, container_id: str, signum: int) -> None:
        """Send a signal to the container's first process. ConflictError when it does not run."""
        try:
            request = api.KillRequest(container_id=container_id, signal=signum)
            await self.client.call("tasks.v1.Tasks/Kill", request, LIST_S)
        except RpcError as error:
            if error.not_found or error.code == "failed_precondition":
                message = "Cannot send a signal: the container does not run. Start it first."
                raise ConflictError(message) from None
            raise failed(error, f"send signal {signum}") from None

    async def update_limits(self, container_id: str, limits: Limits) -> None:
        """Change what a created or running container may use, in place. The oom score stays as it was."""
        await self._update(container_id, spec.changed_resources(limits), "change the limits of the container")

    async def carry_layer(self, from_id: str, to_id: str) -> None:
        """Exchange the writable layers of two containers that do not run, one of which has never started."""
        source, target = await _told("keep the container's files", self._carried(from_id, to_id))
        try:
            async with self._files.held(from_id):
                await asyncio.to_thread(layers.hand_over, source, target, from_id, to_id)
        except OSError as error:
            message = f"Could not keep the container's files: {error.strerror} ({source})."
            raise RuntimeFailedError(message) from None

    async def exec(self, container_id: str, request: ExecRequest) -> Exec:
        """Start a process in a running container; see `ports.runtime.Runtime.exec`."""
        session = Exec(self.client, container_id, request, self.exec_root, self.live_execs)
        await session.start()
        return session

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> Attach:
        """Connect to the streams of a running container; see `ports.runtime.Runtime.attach`."""
        from askos.adapters.containerd.attach import Attach

        session = Attach(self.client, container_id, stdin=stdin, tty=tty)
        await session.start()
        return session

    async def stats(self, capsule_uuid: str | None = None) -> list[ContainerStats]:
        """Of the running containers of one capsule, or of all."""
        return await _told("measure the containers", stats.read(self.client, self.instance, capsule_uuid))

    # Control groups

    async def prepare_group(self, capsule_uuid: str, pids_max: int, limits: Limits) -> None:
        """Make the capsule's control group, or change its limits; see `ports.runtime.Runtime.prepare_group`."""
        await capsule_limits.prepare(self.instance, capsule_uuid, pids_max, limits)

    async def discard_group(self, capsule_uuid: str) -> None:
        """Kill what is left in the capsule's control group and remove it; nothing when there is none."""
        await capsule_limits.discard(self.instance, capsule_uuid)

    async def capsule_groups(self) -> set[str]:
        """The capsules that have a control group."""
        return await asyncio.to_thread(cgroups.capsules, self.instance)

    def group_of(self, capsule_uuid: str) -> str:
        """What `SandboxConfig.cgroup_parent` must say for a capsule with a group."""
        return cgroups.parent_of(self.instance, capsule_uuid)

    def handlers(self) -> list[str]:
        """The OCI runtimes that sandboxes can ask for; the first is the default."""
        return list(self.oci_handlers)

    # Images

    async def image(self, ref: str) -> Image | None:
        """The image on the host by reference or id, or None."""
        found = images.find(self.client, images.resolvable(ref), self._images)
        return await _told("look at an image", found)

    async def images(self) -> list[Image]:
        """All images on the host, without the sandbox image."""
        return await _told("list the images", images.every(self.client, self._images))

    async def pull(self, ref: str, progress: PullProgress | None = None, credential: Credential | None = None) -> Image:
        """Fetch an image; see `ports.runtime.Runtime.pull` for the errors."""
        name = images.resolvable(ref)
        with self.pulls:
            pulled = await pull(self.client, name, progress, self._stall_s, credential)
        found = await self.image(pulled)
        if found is None:
            raise RuntimeFailedError(f"Pulled {name}, but it is gone again. It is tried again.")
        return found

    async def import_image(self, path: str, ref: str | None = None, *, rename: bool = False) -> list[str]:
        """Load a tar archive; see `ports.runtime.Runtime.import_image`."""
        return await _told(f"load {path}", images.load(self.client, path, ref, self._scratch, rename=rename))

    async def remove_image(self, ref: str) -> None:
        """Remove an image by reference or id."""
        # One at a time: two that take the last two names of an image must not both leave the rest to the other.
        async with self._removing_images:
            await _told(f"remove the image {ref}", images.remove(self.client, images.resolvable(ref)))

    # Events

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        """Events from now on; raises UnavailableError when the runtime goes away."""
        filters = [f'namespace==k8s.io,topic=="{topic}"' for topic in _TOPICS]
        request = api.SubscribeRequest(filters=filters)
        try:
            self._details.doubt()
            async for envelope in self.client.stream("events.v1.Events/Subscribe", request, None):
                kind = _TOPICS.get(envelope.topic)
                if kind is None:
                    continue
                event = api.TaskEvent.FromString(envelope.event.value)
                if kind in ("paused", "resumed"):
                    self._details.turned(event.container_id)
                # The end of an exec session has an id of its own and says nothing about the container.
                if kind != "exit" or event.id == event.container_id:
                    yield RuntimeEvent(kind, event.container_id)
        except RpcError as error:
            raise UnavailableError(f"containerd's events ended: {error.text or error.code}") from None
        raise UnavailableError("containerd's events ended.")

    # Helpers

    def _sandbox_config(self, config: SandboxConfig, *, privileged: bool = False) -> Any:
        return spec.sandbox_config(config, self.instance, self._parent, self._log_root, privileged=privileged)

    def _make_log_folder(self, capsule_uuid: str, log_name: str = "") -> None:
        folder = self._log_root / capsule_uuid
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        (folder / log_name).parent.mkdir(parents=True, exist_ok=True, mode=0o750)

    async def _known(self, image: str) -> Image | None:
        """What an image's configuration says, which for an id never changes."""
        return self._images.get(image) or await self.image(image)

    async def _carried(self, from_id: str, to_id: str) -> tuple[Path, Path]:
        old, new = await asyncio.gather(self._observer.status(from_id), self._observer.status(to_id))
        still = (cri.CONTAINER_CREATED, cri.CONTAINER_EXITED)
        if old.state not in still or new.state not in still:
            raise ConflictError("Cannot exchange the files of a container that has not ended. Stop it first.")
        if old.started_at and new.started_at:
            raise ConflictError("Cannot give files to a container that was started already.")
        source, target = await asyncio.gather(self._layer(from_id), self._layer(to_id))
        return source, target

    async def _remove(self, container_id: str) -> None:
        folder = await disk.folder_of(self.client, container_id)
        if await self._thaw(container_id, kill=True) or folder:
            # CRI refuses to remove what has just been killed and is not yet known to have ended, and nothing may write
            # any more when the file system goes.
            await self._stopper.stop(container_id, 0, None)
        if folder:
            await self._unplace(container_id)
        await self._maker.remove_container(container_id)
        self._observer.forget(container_id)
        await self._discard(container_id, folder)

    async def _empty(self, sandbox_id: str) -> None:
        """Remove what has to be removed with care before a sandbox goes."""
        _, containers = await self._observer.lists({spec.INSTANCE: self.instance})
        for item in containers:
            if item.pod_sandbox_id == sandbox_id and disk.LABEL in item.labels:
                await self._remove(item.id)
        await self._thaw_all(sandbox_id)


def _command(config: ContainerConfig, image: Image | None) -> tuple[list[str], list[str]]:
    """CRI's command and args for OCI's entrypoint and command."""
    command = config.command or []
    if config.entrypoint is None:
        return [], command
    if config.entrypoint:
        return config.entrypoint, command
    # No entrypoint at all, not even the image's: CRI can only say that with a command of its own.
    return command or (image.command if image is not None else []), []


async def _told(what: str, doing: Awaitable[_T]) -> _T:
    """Turn a failed call into an error that says what could not be done."""
    try:
        return await doing
    except RpcError as error:
        raise failed(error, what) from None
