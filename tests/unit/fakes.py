"""Fakes of the ports: a runtime, a host network, calls to hosts, callers and a link's call, all in memory.

`FakeRuntime` is held to the same conformance suite as the real one (tests/conformance/test_runtime.py): it obeys the
port's contract and refuses what containerd refuses. Its programs are real enough to matter: a tiny shell with
files, so that a layer that is carried over, or carried twice, can be told apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from askos.model.capsules import Network
from askos.model.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    RuntimeFailedError,
    UnauthorizedError,
    UnavailableError,
)
from askos.model.identity import Caller
from askos.model.images import is_image_id, normalise
from askos.ports import runtime as rt
from askos.ports.calls import Frame
from askos.ports.clock import now_us
from askos.ports.network import Attachment, AttachmentLookup, Names

BUSYBOX = "docker.io/library/busybox:latest"

# -- programs ---------------------------------------------------------------------------------------------------------

_FOREVER = 10**6


class Signalled(Exception):
    """A signal that a program has a trap for."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class Stdio:
    """Where a process reads and writes."""

    write: Callable[[str, bytes], Awaitable[None]]
    read: Callable[[], Awaitable[bytes]]
    traps: dict[int, int] = field(default_factory=dict)
    """Signal number to the exit code that `trap 'exit N' SIG` asked for."""


_PROGRAMS = {"sh", "echo", "cat", "sleep", "true", "false"}


async def run_program(argv: list[str], environment: dict[str, str], files: dict[str, str], io: Stdio) -> int:
    """Run a command of the tiny shell; returns its exit code."""
    if argv[:2] == ["sh", "-c"]:
        code = 0
        for statement in argv[2].split(";"):
            words = shlex.split(statement)
            if not words:
                continue
            if words[0] == "exit":
                return int(words[1])
            if words[0] == "trap":
                io.traps[signal.Signals[f"SIG{words[2]}"]] = int(words[1].split()[1])
                continue
            words = [environment.get(w[1:], "") if w.startswith("$") else w for w in words]
            code = await run_program(words, environment, files, io)
        return code
    name, arguments = argv[0], list(argv[1:])
    if name == "sh":  # without arguments it reads commands; ours only waits for the end of its input
        while await io.read():
            pass
        return 0
    if name == "sleep":
        await asyncio.sleep(float(arguments[0]))
    elif name == "false":
        return 1
    elif name == "echo":
        where, mode = "stdout", ""
        for mark in (">>", ">"):
            if mark in arguments:
                at = arguments.index(mark)
                where, mode, arguments = arguments[at + 1], mark, arguments[:at]
        if arguments and arguments[-1] == ">&2":
            where, arguments = "stderr", arguments[:-1]
        line = " ".join(arguments) + "\n"
        if mode:
            files[where] = (files.get(where, "") if mode == ">>" else "") + line
        else:
            await io.write(where, line.encode())
    elif name == "cat":
        if not arguments:
            while data := await io.read():
                await io.write("stdout", data)
            return 0
        for path in arguments:
            if path not in files:
                await io.write("stderr", f"cat: can't open '{path}': No such file or directory\n".encode())
                return 1
            await io.write("stdout", files[path].encode())
    return 0


def _check_program(argv: list[str]) -> None:
    if not argv:
        raise RuntimeFailedError("Could not start the container: nothing says what to run", retryable=False)
    if argv[0] not in _PROGRAMS:
        raise RuntimeFailedError(f'cannot start "{argv[0]}": no such file in the image', retryable=False)


# -- the runtime ------------------------------------------------------------------------------------------------------


@dataclass
class _Made:
    """A container of the fake."""

    seen: rt.Container
    config: rt.ContainerConfig
    argv: list[str]
    files: dict[str, str] = field(default_factory=dict)
    """The writable layer: path to contents."""
    mark: tuple[str, str] | None = None
    process: asyncio.Task[None] | None = None
    traps: dict[int, int] = field(default_factory=dict)
    broken: RuntimeFailedError | None = None


class FakeRuntime:
    """`ports.runtime.Runtime` in memory.

    With `network`, a sandbox asks it for its attachment as the CNI plugin would. `registry` holds what can be pulled;
    `fail[verb]` is a list of errors that the next calls of that verb raise; `stall[verb]` makes calls of it wait for
    an event; `calls` is every verb called, in order.
    """

    def __init__(
        self,
        log_root: Path | None = None,
        *,
        network: FakeNetwork | None = None,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self.log_root = log_root
        self.network = network
        self.clock = clock
        self.sandboxes: dict[str, rt.Sandbox] = {}
        self.containers: dict[str, _Made] = {}
        self.stored: dict[str, rt.Image] = {}
        self.registry: dict[str, rt.Image] = {}
        self.fail: dict[str, list[Exception]] = {}
        self.stall: dict[str, asyncio.Event] = {}
        self.calls: list[tuple[str, ...]] = []
        self.cancelled: list[str] = []
        self._listeners: set[asyncio.Queue[rt.RuntimeEvent | None]] = set()

    def add_image(self, ref: str = BUSYBOX, command: tuple[str, ...] = ("sh",)) -> rt.Image:
        """Put an image on the host."""
        image = fake_image(ref, command)
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
        if self.network is not None:
            await self.network.plug(config.capsule_uuid)
        if self.log_root is not None:
            (self.log_root / config.capsule_uuid).mkdir(parents=True, exist_ok=True)
        new = uuid.uuid4().hex * 2
        self.sandboxes[new] = rt.Sandbox(new, config.capsule_uuid, config.attempt, True, self.clock())
        return new

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await self._enter("stop_sandbox", sandbox_id)
        sandbox = self.sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        for made in self._in(sandbox_id):
            await self._end(made, 137)
        if self.network is not None:
            self.network.unplug(sandbox.capsule_uuid)
        self.sandboxes[sandbox_id] = msgspec.structs.replace(sandbox, ready=False)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        await self._enter("remove_sandbox", sandbox_id)
        for made in self._in(sandbox_id):
            self.containers.pop(made.seen.id)
        self.sandboxes.pop(sandbox_id, None)

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
            image_id=image.id,
        )  # fmt: skip
        self.containers[new] = _Made(seen, config, [*entrypoint, *command])
        return new

    def _known(self, container_id: str, what: str) -> _Made:
        made = self.containers.get(container_id)
        if made is None:
            raise RuntimeFailedError(f"Could not {what}: container {container_id[:12]} is not found")
        return made

    async def start_container(self, container_id: str) -> None:
        await self._enter("start_container", container_id)
        made = self._known(container_id, "start the container")
        if made.broken is not None:
            raise made.broken
        if made.seen.state != "created":
            return
        if not self.sandboxes[made.seen.sandbox_id].ready:
            raise RuntimeFailedError("Could not start the container: its sandbox does not run.")
        try:
            _check_program(made.argv)
        except RuntimeFailedError as error:
            made.broken = error
            now = self.clock()
            self._set(made, state="exited", exit_code=128, reason="StartError", finished_us=now)
            raise
        self._set(made, state="running", started_us=self.clock())
        made.process = asyncio.create_task(self._live(made))
        self._event("start", container_id)

    async def _live(self, made: _Made) -> None:
        async def write(stream: str, data: bytes) -> None:
            if self.log_root is not None:
                name = f"{made.config.run}-{made.config.attempt}.log"
                path = self.log_root / made.config.capsule_uuid / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    for line in data.splitlines():
                        file.write(b"2024-01-01T00:00:00.000000000Z " + stream.encode() + b" F " + line + b"\n")

        async def read() -> bytes:
            if made.config.interactive:
                await asyncio.sleep(_FOREVER)
            return b""

        io = Stdio(write, read, made.traps)
        try:
            code = await run_program(made.argv, made.config.environment, made.files, io)
        except asyncio.CancelledError:
            return
        self.exit(made.seen.id, code)

    def exit(self, container_id: str, code: int) -> None:
        """The process ends by itself."""
        made = self.containers[container_id]
        if made.seen.state != "running":
            return
        if made.process is not None:
            made.process.cancel()
        reason = "Completed" if code == 0 else "Error"
        self._set(made, state="exited", exit_code=code, reason=reason, finished_us=self.clock())
        self._event("exit", container_id)

    async def _end(self, made: _Made, code: int) -> None:
        if made.process is not None:
            made.process.cancel()
            await asyncio.gather(made.process, return_exceptions=True)
        if made.seen.state == "created":
            # As containerd does: what never started has ended as well.
            self._set(made, state="exited", exit_code=0, finished_us=self.clock())
        self.exit(made.seen.id, code)

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        await self._enter("stop_container", container_id)
        made = self.containers.get(container_id)
        if made is None or made.seen.state != "running":
            return
        if signal.SIGTERM in made.traps:
            await self._end(made, made.traps[signal.SIGTERM])
            return
        # The first process of a container ignores SIGTERM unless it handles it: so the grace passes.
        await asyncio.sleep(timeout_s)
        await self._end(made, 137)

    async def remove_container(self, container_id: str) -> None:
        await self._enter("remove_container", container_id)
        made = self.containers.get(container_id)
        if made is not None:
            await self._end(made, 137)
            self.containers.pop(container_id, None)

    async def signal(self, container_id: str, signum: int) -> None:
        await self._enter("signal", container_id, str(signum))
        made = self.containers.get(container_id)
        if made is None or made.seen.state != "running":
            raise ConflictError("Cannot send a signal: the container does not run. Start it first.")
        if signum == signal.SIGKILL:
            await self._end(made, 137)
        elif signum in made.traps:
            await self._end(made, made.traps[signum])

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
        if made is None or made.seen.state != "running":
            program = request.argv[0] if request.argv else ""
            raise ConflictError(f"Cannot run {program!r}: the container does not run. Start it first.")
        _check_program(request.argv)
        return FakeExec(made, request)

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

    async def pull(self, ref: str, progress: rt.PullProgress | None = None) -> rt.Image:
        if progress is not None:
            progress(1, 2)
        await self._enter("pull", ref)
        image = self.registry.get(normalise(ref))
        if image is None:
            raise UnavailableError(f"Could not pull {ref}: no registry answers.")
        self.stored[image.id] = image
        return image

    async def import_image(self, path: str, ref: str | None = None) -> list[str]:
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
            await self._end(made, 137)


def fake_image(ref: str = BUSYBOX, command: tuple[str, ...] = ("sh",)) -> rt.Image:
    """An image with an id made from its name."""
    digest = uuid.uuid5(uuid.NAMESPACE_URL, ref).hex * 2
    return rt.Image(f"sha256:{digest}", [normalise(ref)], [], 1000, [], list(command))


class FakeExec:
    """`ports.runtime.ExecSession` of the fake."""

    def __init__(self, made: _Made, request: rt.ExecRequest) -> None:
        self._request = request
        self._input: asyncio.Queue[bytes] = asyncio.Queue(4)
        self._output: asyncio.Queue[tuple[Literal["stdout", "stderr"], bytes] | None] = asyncio.Queue(4)
        self.size = (request.width, request.height)
        self._task = asyncio.create_task(self._run(made))
        self._closing = False
        self._input_open = request.stdin

    async def _run(self, made: _Made) -> int:
        async def write(stream: str, data: bytes) -> None:
            if self._request.tty:
                stream, data = "stdout", data.replace(b"\n", b"\r\n")
            await self._output.put((stream, data))  # type: ignore[arg-type]  # one of the two

        async def read() -> bytes:
            return await self._input.get() if self._request.stdin else b""

        try:
            return await run_program(self._request.argv, made.config.environment, made.files, Stdio(write, read))
        except asyncio.CancelledError:
            return 137
        finally:
            if not self._closing:
                await self._output.put(None)

    async def write(self, data: bytes) -> None:
        if self._input_open and data and not self._task.done():
            putting = asyncio.ensure_future(self._input.put(data))
            await asyncio.wait({putting, self._task}, return_when=asyncio.FIRST_COMPLETED)
            putting.cancel()

    async def close_stdin(self) -> None:
        if self._input_open:
            self._input_open = False
            await self._input.put(b"")

    async def output(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        while (chunk := await self._output.get()) is not None:
            yield chunk

    async def resize(self, width: int, height: int) -> None:
        if self._request.tty:
            self.size = (width, height)

    async def wait(self) -> int:
        return await asyncio.shield(self._task)

    async def close(self) -> None:
        self._closing = True
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


# -- the host network -------------------------------------------------------------------------------------------------


class FakeNetwork:
    """`ports.network.HostNetwork` in memory: `plugged` by capsule uuid, `names` as last set, `collected` calls."""

    def __init__(self) -> None:
        self.lookup: AttachmentLookup | None = None
        self.plugged: dict[str, Attachment] = {}
        self.names: list[Names] = []
        self.collected: list[tuple[set[str], list[Network]]] = []

    async def start(self, lookup: AttachmentLookup) -> None:
        self.lookup = lookup

    async def stop(self) -> None:
        self.lookup = None

    async def set_names(self, names: list[Names]) -> None:
        self.names = names

    async def collect(self, live_sandboxes: set[str], networks: list[Network]) -> None:
        self.collected.append((live_sandboxes, networks))

    async def remove_all(self) -> None:
        self.plugged.clear()

    async def plug(self, capsule_uuid: str) -> None:
        """What the CNI plugin does for a new sandbox."""
        found = await self.lookup(capsule_uuid) if self.lookup is not None else None
        if found is None:
            raise RuntimeFailedError(f"Could not make the sandbox: {capsule_uuid} is no capsule of this host.")
        self.plugged[capsule_uuid] = found

    def unplug(self, capsule_uuid: str) -> None:
        """What the CNI plugin does for a sandbox that stops."""
        self.plugged.pop(capsule_uuid, None)

    def addresses(self, name: str) -> list[str]:
        """What the name services answer for a name, over all networks."""
        return [address for n in self.names for address in n.addresses.get(name, [])]


# -- identity ---------------------------------------------------------------------------------------------------------


class FakeIdentity:
    """Tokens are `<user>:<project>:<admin|member>`; anything else is refused. `down` makes it unavailable."""

    def __init__(self) -> None:
        self.down = False

    async def validate(self, token: str) -> Caller:
        if self.down:
            raise UnavailableError("The identity service does not answer.")
        parts = token.split(":")
        if len(parts) != 3 or parts[2] not in ("admin", "member"):
            raise UnauthorizedError("The token is not valid.")
        return Caller(parts[0], parts[1], parts[2] == "admin", [parts[2]])


# -- calls to hosts ---------------------------------------------------------------------------------------------------

Answer = Callable[[dict[str, Any]], Any] | Exception | Any


class FakeCallStream:
    """`ports.calls.CallStream`: gives prepared frames, then the result or an error."""

    def __init__(self, prepared: list[Frame], result: Any) -> None:
        self._prepared = prepared
        self._outcome = result
        self.result: Any = None
        self.sent: list[Frame] = []
        self.closed = False

    async def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    async def frames(self) -> AsyncIterator[Frame]:
        for frame in self._prepared:
            yield frame
        if isinstance(self._outcome, Exception):
            raise self._outcome
        self.result = self._outcome

    async def close(self) -> None:
        self.closed = True


class FakeHostCalls:
    """`ports.calls.HostCalls`: `answers[method]` is a value, an exception to raise, or a function of the arguments.

    For `open` the answer is (frames, result). `asked` is every (host, method, arguments, timeout). Arguments are
    encoded as the real link does, so that what cannot travel fails here too.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str, dict[str, Any], float | None]] = []
        self.streams: list[FakeCallStream] = []

    def _answer(self, host: str, method: str, arguments: dict[str, Any], timeout_s: float | None) -> Any:
        self.asked.append((host, method, msgspec.json.decode(msgspec.json.encode(arguments)), timeout_s))
        answer = self.answers.get(method, UnavailableError("The container's host is not connected now."))
        if isinstance(answer, Exception):
            raise answer
        return answer(arguments) if callable(answer) else answer

    async def call(self, host_uuid: str, method: str, arguments: dict[str, Any], timeout_s: float) -> Any:
        return self._answer(host_uuid, method, arguments, timeout_s)

    async def open(self, host_uuid: str, method: str, arguments: dict[str, Any]) -> FakeCallStream:
        frames, result = self._answer(host_uuid, method, arguments, None)
        stream = FakeCallStream(list(frames), result)
        self.streams.append(stream)
        return stream


class FakeHostCall:
    """`ports.calls.HostCall`: the host's end, with prepared input; `sent` is what the host sent."""

    def __init__(self, method: str, arguments: dict[str, Any], given: list[Frame] | None = None) -> None:
        self.method = method
        self.arguments = arguments
        self.sent: list[Frame] = []
        self._given = given or []

    async def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    async def frames(self) -> AsyncIterator[Frame]:
        for frame in self._given:
            yield frame

    def text(self, channel: int = 1) -> str:
        """Everything sent on a channel."""
        return b"".join(f.data for f in self.sent if f.channel == channel).decode()
