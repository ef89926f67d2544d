"""The fake runtime: held to the same conformance suite as the real one (tests/conformance/test_runtime.py).

It obeys the port's contract and refuses what containerd refuses. Its programs (tests/unit/fake_shell.py) are real
enough to matter: a tiny shell with files, so that a layer that is carried over, or carried twice, can be told apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from askos.adapters.containerd import signals
from askos.model.errors import ConflictError, InvalidError, NotFoundError, RuntimeFailedError, UnavailableError
from askos.model.images import is_image_id, normalise
from askos.ports import runtime as rt
from askos.ports.clock import now_us

from .fake_living import FakeLiving
from .fake_shell import Files, OutOfMemoryError, Pipes, Process, Stream, check_program, run_program

BUSYBOX = "docker.io/library/busybox:latest"
_KILLED = 128 + signal.SIGKILL
_QUEUE = 4


class _Network(Protocol):
    async def plug(self, capsule_uuid: str) -> None:
        """What the CNI plugin does for a new sandbox."""

    def unplug(self, capsule_uuid: str) -> None:
        """What it does for a sandbox that stops."""


@dataclass
class _Made:
    """A container of the fake."""

    seen: rt.Container
    config: rt.ContainerConfig
    argv: list[str]
    files: dict[str, str] = field(default_factory=dict)
    """The writable layer: path to contents."""
    mark: tuple[str, str] | None = None
    task: asyncio.Task[None] | None = None
    process: Process | None = None
    attached: list[FakeAttach] = field(default_factory=list)
    broken: RuntimeFailedError | None = None
    pids: list[int] = field(default_factory=list)
    """What `processes` says."""

    @property
    def limits(self) -> rt.Limits:
        """What it may use now."""
        return self.config.limits or rt.Limits(int(self.config.cpu * 1024), memory_bytes=self.config.memory_bytes)


class FakeRuntime(FakeLiving):
    """`ports.runtime.Runtime` in memory.

    With `network`, a sandbox asks it for its attachment as the CNI plugin would. `registry` holds what can be pulled,
    `private` the credential that it takes for a name; `fail[verb]` is a list of errors that the next calls of that verb raise; `stall[verb]` makes calls of it wait for
    an event; `calls` is every verb called, in order.
    """

    def __init__(
        self,
        log_root: Path | None = None,
        *,
        network: _Network | None = None,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self.log_root = log_root
        self.network = network
        self.clock = clock
        self.sandboxes: dict[str, rt.Sandbox] = {}
        self.configs: dict[str, rt.SandboxConfig] = {}
        """What the sandboxes were made from, by id."""
        self.containers: dict[str, _Made] = {}
        self.stored: dict[str, rt.Image] = {}
        self.registry: dict[str, rt.Image] = {}
        self.private: dict[str, rt.Credential] = {}
        self.groups: dict[str, tuple[int, rt.Limits]] = {}
        """The capsules with a control group: their pids_max and limits."""
        self.oci_handlers = ["runc"]
        self.fail: dict[str, list[Exception]] = {}
        self.stall: dict[str, asyncio.Event] = {}
        self.calls: list[tuple[str, ...]] = []
        self.cancelled: list[str] = []
        self.prepared = 0
        """How many sandboxes are to be kept ready."""
        self._listeners: set[asyncio.Queue[rt.RuntimeEvent | None]] = set()

    def add_image(self, ref: str = BUSYBOX, command: tuple[str, ...] = ("sh",), **more: str) -> rt.Image:
        """Put an image on the host; `user` and `stop_signal` may be given."""
        image = fake_image(ref, command, **more)
        self.stored[image.id] = image
        return image

    async def _enter(self, verb: str, *detail: str) -> None:
        self.calls.append((verb, *detail))
        if verb in self.stall:
            try:
                await self.stall[verb].wait()
            except asyncio.CancelledError:
                self.cancelled.append(verb)
                raise
        else:
            await asyncio.sleep(0)
        if self.fail.get(verb):
            raise self.fail[verb].pop(0)

    def verbs(self, *wanted: str) -> list[str]:
        """The calls of some verbs, in order."""
        return [call[0] for call in self.calls if call[0] in wanted]

    # Sandboxes

    async def observe(self, capsule_uuid: str | None = None) -> tuple[list[rt.Sandbox], list[rt.Container]]:
        await self._enter("observe")
        mine = (None, capsule_uuid) if capsule_uuid else None
        sandboxes = [s for s in self.sandboxes.values() if mine is None or s.capsule_uuid == capsule_uuid]
        made = [c.seen for c in self.containers.values() if mine is None or c.seen.capsule_uuid == capsule_uuid]
        return sandboxes, made

    async def run_sandbox(self, config: rt.SandboxConfig) -> str:
        await self._enter("run_sandbox", config.capsule_uuid)
        for s in self.sandboxes.values():
            if (s.capsule_uuid, s.attempt) == (config.capsule_uuid, config.attempt):
                return s.id
        if config.handler and config.handler not in self.oci_handlers:
            raise RuntimeFailedError(f'Could not make the sandbox: no runtime for "{config.handler}" is configured')
        if self.network is not None:
            await self.network.plug(config.capsule_uuid)
        if self.log_root is not None:
            (self.log_root / config.capsule_uuid).mkdir(parents=True, exist_ok=True)
        new = uuid.uuid4().hex * 2
        self.sandboxes[new] = rt.Sandbox(new, config.capsule_uuid, config.attempt, True, self.clock())
        self.configs[new] = config
        return new

    async def prepare(self, count: int) -> None:
        await self._enter("prepare", str(count))
        self.prepared = count

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await self._enter("stop_sandbox", sandbox_id)
        sandbox = self.sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        for made in self._in(sandbox_id):
            await self._end(made, _KILLED)
        if self.network is not None:
            self.network.unplug(sandbox.capsule_uuid)
        self.sandboxes[sandbox_id] = msgspec.structs.replace(sandbox, ready=False)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        await self._enter("remove_sandbox", sandbox_id)
        for made in self._in(sandbox_id):
            self.containers.pop(made.seen.id)
        self.sandboxes.pop(sandbox_id, None)
        self.configs.pop(sandbox_id, None)

    def _in(self, sandbox_id: str) -> list[_Made]:
        return [c for c in self.containers.values() if c.seen.sandbox_id == sandbox_id]

    # Containers

    async def create_container(self, sandbox_id: str, config: rt.ContainerConfig, sandbox: rt.SandboxConfig) -> str:
        await self._enter("create_container", config.capsule_uuid)
        for made in self._in(sandbox_id):
            if (made.seen.name, made.seen.run, made.seen.attempt) == (config.name, config.run, config.attempt):
                return made.seen.id
        image = await self._find(config.image_id or config.image_ref)
        if image is None:
            raise NotFoundError(f"Image {config.image_ref} is not on this host. Pull it first.", "image-not-found")
        holder = self.sandboxes.get(sandbox_id)
        if holder is None or not holder.ready:
            raise RuntimeFailedError("Could not make the container: its sandbox does not run.")
        entrypoint = image.entrypoint if config.entrypoint is None else config.entrypoint
        command = config.command
        if not command:
            command = image.command if not config.entrypoint else []
        new = uuid.uuid4().hex * 2
        seen = rt.Container(
            new, sandbox_id, config.capsule_uuid, config.name, config.run, config.attempt, "created", self.clock(),
            image_id=image.id, spec_hash=config.spec_hash, cpus=config.cpus,
        )  # fmt: skip
        made = self.containers[new] = _Made(seen, config, [*entrypoint, *command])
        made.files.update(self.committed.get(image.id, {}))
        self._set(made, cpu_shares=max(2, made.limits.cpu_shares), memory_bytes=made.limits.memory_bytes)
        return new

    def _known(self, container_id: str, what: str) -> _Made:
        made = self.containers.get(container_id)
        if made is None:
            raise RuntimeFailedError(f"Could not {what}: container {container_id[:12]} is not found")
        return made

    async def start_container(self, container_id: str) -> int | None:
        await self._enter("start_container", container_id)
        made = self._known(container_id, "start the container")
        if made.broken is not None:
            raise made.broken
        if made.seen.state != "created":
            return None
        if not self.sandboxes[made.seen.sandbox_id].ready:
            raise RuntimeFailedError("Could not start the container: its sandbox does not run.")
        try:
            check_program(made.argv)
        except RuntimeFailedError as error:
            made.broken = error
            now = self.clock()
            self._set(made, state="exited", exit_code=128, reason="StartError", finished_us=now)
            raise
        started_us = self.clock()
        self._set(made, state="running", started_us=started_us)
        made.process = self._process(made)
        made.task = asyncio.create_task(self._live(made, made.process))
        self._event("start", container_id)
        return started_us

    def _process(self, made: _Made) -> Process:
        config, security = made.config, made.config.security
        sandbox = self.configs[made.seen.sandbox_id]
        image = self.stored.get(made.seen.image_id)
        user, _, group = (image.user if image is not None else "").partition(":")

        async def emit(stream: Stream, data: bytes) -> None:
            self._log(config, stream, data)
            for client in list(made.attached):
                await client.give(stream, data)

        def listing() -> list[str]:
            seen = self._in(made.seen.sandbox_id) if config.share_pid else [made]
            return [" ".join(m.argv) for m in seen if m.seen.state == "running"]

        return Process(
            environment=config.environment,
            files=Files(made.files, config.mounts, read_only=security.read_only_root, sysctls=sandbox.sysctls),
            pipes=Pipes(emit, stdin=config.interactive, tty=config.tty),
            uid=int(user or 0) if security.run_as_user is None else security.run_as_user,
            gid=int((group if security.run_as_user is None else "") or 0)
            if security.run_as_group is None
            else security.run_as_group,
            groups=security.supplemental_groups,
            memory_bytes=made.limits.memory_bytes,
            listing=listing,
        )

    def _log(self, config: rt.ContainerConfig, stream: Stream, data: bytes) -> None:
        if self.log_root is None:
            return
        name = config.log_name or f"{config.run}-{config.attempt}.log"
        path = self.log_root / config.capsule_uuid / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            for line in data.splitlines():
                file.write(b"2024-01-01T00:00:00.000000000Z " + stream.encode() + b" F " + line + b"\n")

    async def _live(self, made: _Made, process: Process) -> None:
        try:
            code = await run_program(made.argv, process)
        except OutOfMemoryError:
            self.exit(made.seen.id, _KILLED, out_of_memory=True)
        except asyncio.CancelledError:
            return
        else:
            self.exit(made.seen.id, code)

    def exit(self, container_id: str, code: int, *, out_of_memory: bool = False) -> None:
        """The process ends by itself."""
        made = self.containers[container_id]
        if made.seen.state not in ("running", "paused"):
            return
        if made.task is not None:
            made.task.cancel()
        for client in made.attached:
            client.ended()
        reason = "OOMKilled" if out_of_memory else "Completed" if code == 0 else "Error"
        self._set(
            made, state="exited", exit_code=code, reason=reason, finished_us=self.clock(), oom_killed=out_of_memory,
            cpu_shares=0, memory_bytes=0, cpus="",
        )  # fmt: skip
        if out_of_memory:
            self._event("oom", container_id)
        self._event("exit", container_id)

    async def _end(self, made: _Made, code: int) -> None:
        if made.task is not None:
            made.task.cancel()
            await asyncio.gather(made.task, return_exceptions=True)
        if made.seen.state == "created":
            # As containerd does: what never started has ended as well.
            self._set(made, state="exited", exit_code=0, finished_us=self.clock())
        self.exit(made.seen.id, code)

    async def stop_container(self, container_id: str, timeout_s: int, stop_signal: str | None = None) -> None:
        await self._enter("stop_container", container_id)
        made = self.containers.get(container_id)
        image = self.stored.get(made.seen.image_id) if made is not None else None
        signum = signals.number(stop_signal or (image.stop_signal if image is not None else "") or "SIGTERM")
        if made is not None and made.seen.state == "paused":
            self._set(made, state="running")
        if made is None or made.seen.state != "running":
            return
        if timeout_s > 0 and not await self._deliver(made, signum):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    assert made.task is not None
                    await asyncio.wait({made.task})
        await self._end(made, _KILLED)

    async def _deliver(self, made: _Made, signum: int) -> bool:
        """Send a signal to a running container's process; whether it has ended by it."""
        assert made.process is not None
        traps = made.process.traps
        if signum in traps or signum == signal.SIGKILL or made.config.share_pid:
            # The first process of a pid namespace ignores what it does not handle; with a shared one it is another.
            await self._end(made, traps.get(signum, 128 + signum))
            return True
        return False

    async def remove_container(self, container_id: str) -> None:
        await self._enter("remove_container", container_id)
        made = self.containers.get(container_id)
        if made is not None:
            await self._end(made, _KILLED)
            self.containers.pop(container_id, None)

    async def signal(self, container_id: str, signum: int) -> None:
        await self._enter("signal", container_id, str(signum))
        made = self.containers.get(container_id)
        if made is None or made.seen.state != "running":
            raise ConflictError("Cannot send a signal: the container does not run. Start it first.")
        await self._deliver(made, signum)

    async def carry_layer(self, from_id: str, to_id: str) -> None:
        await self._enter("carry_layer", from_id, to_id)
        source = self._known(from_id, "keep the container's files")
        target = self._known(to_id, "keep the container's files")
        still = ("created", "exited")
        if source.seen.state not in still or target.seen.state not in still:
            raise ConflictError("Cannot exchange the files of a container that has not ended. Stop it first.")
        if source.seen.started_us and target.seen.started_us:
            raise ConflictError("Cannot give files to a container that was started already.")
        if target.mark != (from_id, to_id):
            source.mark = (from_id, to_id)
            source.files, target.files = target.files, source.files
            source.mark, target.mark = target.mark, source.mark

    async def exec(self, container_id: str, request: rt.ExecRequest) -> FakeExec:
        await self._enter("exec", container_id)
        made = self.containers.get(container_id)
        program = request.argv[0] if request.argv else ""
        if made is not None and made.seen.state == "paused":
            raise ConflictError(f"Cannot run {program!r}: the container is paused. Unpause it first.")
        if made is None or made.seen.state != "running":
            raise ConflictError(f"Cannot run {program!r}: the container does not run. Start it first.")
        check_program(request.argv)
        assert made.process is not None
        return FakeExec(made.process, request)

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> FakeAttach:
        await self._enter("attach", container_id)
        made = self.containers.get(container_id)
        if made is None or made.seen.state != "running":
            raise ConflictError("Cannot attach: the container does not run. Start it first.")
        if stdin and not made.config.interactive:
            raise ConflictError("Cannot attach to the standard input: the container was made without one.")
        if tty != made.config.tty:
            raise ConflictError("Cannot attach: with a terminal or not, it must be as the container was made.")
        client = FakeAttach(made, stdin=stdin)
        made.attached.append(client)
        return client

    async def update_limits(self, container_id: str, limits: rt.Limits) -> None:
        await self._enter("update_limits", container_id)
        made = self._known(container_id, "change the limits of the container")
        made.config = msgspec.structs.replace(made.config, limits=limits)
        self._set(made, cpu_shares=max(2, limits.cpu_shares), memory_bytes=limits.memory_bytes)
        if made.process is not None:
            made.process.memory_bytes = limits.memory_bytes

    async def stats(self, capsule_uuid: str | None = None) -> list[rt.ContainerStats]:
        await self._enter("stats")
        now = self.clock()
        return [
            rt.ContainerStats(
                made.seen.id, made.seen.capsule_uuid, made.seen.name, now,
                cpu_ns=(now - (made.seen.started_us or now)) * 10, memory_bytes=1 << 20,
                memory_usage_bytes=(1 << 20) + 4096, rss_bytes=1 << 19,
                layer_bytes=sum(map(len, made.files.values())), pids=1,
            )
            for made in self.containers.values()
            if made.seen.state == "running" and capsule_uuid in (None, made.seen.capsule_uuid)
        ]  # fmt: skip

    # Control groups and handlers

    async def prepare_group(self, capsule_uuid: str, pids_max: int, limits: rt.Limits) -> None:
        await self._enter("prepare_group", capsule_uuid)
        self.groups[capsule_uuid] = (pids_max, limits)

    async def discard_group(self, capsule_uuid: str) -> None:
        await self._enter("discard_group", capsule_uuid)
        self.groups.pop(capsule_uuid, None)

    async def capsule_groups(self) -> set[str]:
        await self._enter("capsule_groups")
        return set(self.groups)

    def group_of(self, capsule_uuid: str) -> str:
        return f"/askos-fake/{capsule_uuid}"

    def handlers(self) -> list[str]:
        return list(self.oci_handlers)

    # Images

    async def _find(self, ref: str) -> rt.Image | None:
        wanted = (ref if ref.startswith("sha256:") else f"sha256:{ref}") if is_image_id(ref) else normalise(ref)
        return next((i for i in self.stored.values() if wanted == i.id or wanted in i.tags), None)

    async def image(self, ref: str) -> rt.Image | None:
        await self._enter("image", ref)
        return await self._find(ref)

    async def images(self) -> list[rt.Image]:
        await self._enter("images")
        return list(self.stored.values())

    async def pull(
        self, ref: str, progress: rt.PullProgress | None = None, credential: rt.Credential | None = None
    ) -> rt.Image:
        if progress is not None:
            progress(1, 2)
        await self._enter("pull", ref)
        image = self.registry.get(normalise(ref))
        if image is None:
            raise UnavailableError(f"Could not pull {ref}: no registry answers.")
        wanted = self.private.get(normalise(ref))
        if wanted is not None and wanted != credential:
            raise NotFoundError(f"Image {ref} does not exist in the registry, or needs a login.", "image-not-found")
        self.stored[image.id] = image
        return image

    async def import_image(self, path: str, ref: str | None = None, *, rename: bool = False) -> list[str]:
        await self._enter("import_image", path)
        data = Path(path).read_bytes()
        if not data.startswith(b"image:"):
            raise InvalidError(f"Cannot load {path}: it is not an image archive.")
        name = ref or data.decode().removeprefix("image:")
        self.add_image(name)
        return [name]

    async def remove_image(self, ref: str) -> None:
        await self._enter("remove_image", ref)
        image = await self._find(ref)
        if image is not None:
            self.stored.pop(image.id)

    # Events

    async def events(self) -> AsyncIterator[rt.RuntimeEvent]:
        queue: asyncio.Queue[rt.RuntimeEvent | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
            raise UnavailableError("The events ended.")
        finally:
            self._listeners.discard(queue)

    def end_events(self) -> None:
        """Break every stream of events, as a restarting runtime does."""
        for queue in self._listeners:
            queue.put_nowait(None)

    def _event(self, kind: str, container_id: str) -> None:
        for queue in self._listeners:
            queue.put_nowait(rt.RuntimeEvent(kind, container_id))

    def _set(self, made: _Made, **values: object) -> None:
        made.seen = msgspec.structs.replace(made.seen, **values)

    async def close(self) -> None:
        """End every process."""
        for made in self.containers.values():
            await self._end(made, _KILLED)


def fake_image(ref: str = BUSYBOX, command: tuple[str, ...] = ("sh",), **more: str) -> rt.Image:
    """An image with an id made from its name; `user` and `stop_signal` may be given."""
    digest = uuid.uuid5(uuid.NAMESPACE_URL, ref).hex * 2
    return rt.Image(f"sha256:{digest}", [normalise(ref)], [], 1000, [], list(command), **more)


class FakeExec:
    """`ports.runtime.ExecSession` of the fake."""

    def __init__(self, container: Process, request: rt.ExecRequest) -> None:
        self._request = request
        self._output: asyncio.Queue[tuple[Stream, bytes] | None] = asyncio.Queue(_QUEUE)
        self._closing = False
        size = (request.width, request.height)
        self._pipes = Pipes(self._emit, stdin=request.stdin, tty=request.tty, size=size)
        self._task = asyncio.create_task(self._run(container))

    @property
    def size(self) -> tuple[int, int]:
        """The terminal's width and height."""
        return self._pipes.size

    async def _emit(self, stream: Stream, data: bytes) -> None:
        await self._output.put((stream, data))

    async def _run(self, container: Process) -> int:
        given = dict(value.partition("=")[::2] for value in self._request.environment)
        process = Process(
            {**container.environment, **given}, container.files, self._pipes, container.uid, container.gid, container.groups,
            listing=container.listing,
        )  # fmt: skip
        try:
            return await run_program(self._request.argv, process)
        except asyncio.CancelledError:
            return _KILLED
        finally:
            if not self._closing:
                await self._output.put(None)

    async def write(self, data: bytes) -> None:
        if data and not self._task.done():
            feeding = asyncio.ensure_future(self._pipes.feed(data))
            await asyncio.wait({feeding, self._task}, return_when=asyncio.FIRST_COMPLETED)
            feeding.cancel()

    async def close_stdin(self) -> None:
        if not self._task.done():
            ending = asyncio.ensure_future(self._pipes.end())
            await asyncio.wait({ending, self._task}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while (chunk := await self._output.get()) is not None:
            yield chunk

    async def resize(self, width: int, height: int) -> None:
        if self._request.tty:
            self._pipes.size = (width, height)

    async def wait(self) -> int:
        return await asyncio.shield(self._task)

    async def close(self) -> None:
        self._closing = True
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


class FakeAttach:
    """`ports.runtime.AttachSession` of the fake."""

    def __init__(self, made: _Made, *, stdin: bool) -> None:
        assert made.process is not None
        assert made.task is not None
        self._made = made
        self._task = made.task
        self._pipes = made.process.pipes
        self._stdin = stdin
        self._output: asyncio.Queue[tuple[Stream, bytes] | None] = asyncio.Queue()
        self._taken = asyncio.Event()
        self._closed = False

    async def give(self, stream: Stream, data: bytes) -> None:
        """Output of the process; waits while nobody reads."""
        self._output.put_nowait((stream, data))
        while self._output.qsize() > _QUEUE and not self._closed:
            self._taken.clear()
            await self._taken.wait()

    def ended(self) -> None:
        """The process has ended."""
        self._output.put_nowait(None)

    async def write(self, data: bytes) -> None:
        if self._stdin and not self._task.done():
            feeding = asyncio.ensure_future(self._pipes.feed(data))
            await asyncio.wait({feeding, self._task}, return_when=asyncio.FIRST_COMPLETED)
            feeding.cancel()

    async def close_stdin(self) -> None:
        if not self._stdin:
            return
        if self._made.config.stdin_once and not self._task.done():
            doing = self._pipes.feed(b"\x04") if self._pipes.tty else self._pipes.end()
            ending = asyncio.ensure_future(doing)
            await asyncio.wait({ending, self._task}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
        self._stdin = False

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while not self._closed and (chunk := await self._output.get()) is not None:
            self._taken.set()
            yield chunk

    async def resize(self, width: int, height: int) -> None:
        if self._pipes.tty:
            self._pipes.size = (width, height)

    async def close(self) -> None:
        if not self._pipes.tty:
            await self.close_stdin()
        self._closed = True
        self._taken.set()
        self._output.put_nowait(None)
        if self in self._made.attached:
            self._made.attached.remove(self)
