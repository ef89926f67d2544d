"""The runtime port: sandboxes, containers and images on one host.

The words are CRI's. Every call is idempotent in the direction of its name: removing what is gone succeeds,
starting what runs succeeds, creating what exists (same capsule, run and attempt) returns the existing id.
Every call has a deadline inside the adapter; a broken runtime raises `RuntimeFailedError`, one that is away
(it is being restarted) `UnavailableError`; none hangs.
Only objects of this cloud are seen: other users of the same containerd stay invisible.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Literal, Protocol

import msgspec


class Sandbox(msgspec.Struct, frozen=True):
    """A pod sandbox as the runtime sees it. `attempt` grows with each new sandbox of the same capsule."""

    id: str
    capsule_uuid: str
    attempt: int
    ready: bool
    created_us: int


class Container(msgspec.Struct, frozen=True):
    """A container as the runtime sees it. `run` and `attempt` are read back from its labels."""

    id: str
    sandbox_id: str
    capsule_uuid: str
    name: str
    run: int
    attempt: int
    state: Literal["created", "running", "exited", "unknown"]
    created_us: int
    image_id: str = ""
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None
    started_us: int | None = None
    finished_us: int | None = None


class Image(msgspec.Struct, frozen=True):
    """An image on the host. `id` is the config digest; `size_bytes` what it takes on disk."""

    id: str
    tags: list[str]
    digests: list[str]
    size_bytes: int
    entrypoint: list[str] = []
    command: list[str] = []


class SandboxConfig(msgspec.Struct, frozen=True):
    """What a sandbox is made from. `dns_servers`: addresses for resolv.conf."""

    capsule_uuid: str
    name: str
    project_id: str
    attempt: int
    hostname: str
    dns_servers: list[str]
    dns_search: list[str] = []
    labels: dict[str, str] = {}


class ContainerConfig(msgspec.Struct, frozen=True):
    """What a container is made from. The log is written to `<log folder of the capsule>/<run>-<attempt>.log`."""

    capsule_uuid: str
    name: str
    run: int
    attempt: int
    image_ref: str
    entrypoint: list[str] | None
    command: list[str] | None
    environment: dict[str, str]
    workdir: str | None
    interactive: bool
    tty: bool
    cpu: float
    memory_bytes: int
    image_id: str = ""
    hosts_file: str | None = None
    """Host path of the file to be seen as /etc/hosts. None: the runtime's default, which may be the host's own."""


class RuntimeEvent(msgspec.Struct, frozen=True):
    """Something happened to a container or sandbox. Only a hint to look: events may be lost."""

    kind: str
    container_id: str


class ExecRequest(msgspec.Struct, frozen=True):
    """One process beside a container's own. With `tty`, output comes on stdout alone."""

    argv: list[str]
    tty: bool = False
    stdin: bool = False
    width: int = 80
    height: int = 24


class ExecSession(Protocol):
    """A started process. Close it always; closing kills a process that still runs."""

    async def write(self, data: bytes) -> None:
        """Send to standard input. Waits while the process does not read."""

    async def close_stdin(self) -> None:
        """Half-close: the process reads end of file."""

    def output(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        """Chunks as they come, until both streams have ended."""

    async def resize(self, width: int, height: int) -> None:
        """Change the terminal's size; nothing without a tty."""

    async def wait(self) -> int:
        """The exit code; 128 + n for signal n."""

    async def close(self) -> None:
        """Kill if still running, and free everything."""


PullProgress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in total as far as known) while a pull goes on."""


class Runtime(Protocol):
    """Sandboxes, containers and images. See the module's docstring for the rules of all verbs."""

    async def observe(self, capsule_uuid: str | None = None) -> tuple[list[Sandbox], list[Container]]:
        """Everything there is of one capsule, or of all."""

    async def run_sandbox(self, config: SandboxConfig) -> str:
        """Make and start a sandbox with its network; returns its id. Raises RuntimeFailedError."""

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill what runs in it and take its network away."""

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Remove the sandbox and every container in it."""

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        """Make a container, not started; returns its id."""

    async def start_container(self, container_id: str) -> None:
        """Start a created container. A program that cannot be started: RuntimeFailedError(retryable=False)."""

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        """The image's stop signal (SIGTERM by default), then SIGKILL after `timeout_s`."""

    async def remove_container(self, container_id: str) -> None:
        """Remove a container; kills it first when it runs."""

    async def signal(self, container_id: str, signum: int) -> None:
        """Send a signal to the container's first process. ConflictError when it does not run."""

    async def carry_layer(self, from_id: str, to_id: str) -> None:
        """Exchange the writable layers of two containers that do not run; one of them has never started. Done once
        for each pair and direction, however often it is called. ConflictError otherwise."""

    async def exec(self, container_id: str, request: ExecRequest) -> ExecSession:
        """Start a process in a running container. ConflictError when the container does not run;
        RuntimeFailedError(retryable=False) with the runtime's reason when the program cannot be started."""

    async def image(self, ref: str) -> Image | None:
        """The image on the host by reference or id, or None."""

    async def images(self) -> list[Image]:
        """All images on the host, without the sandbox image."""

    async def pull(self, ref: str, progress: PullProgress | None = None) -> Image:
        """Fetch an image. Raises NotFoundError when the registry has none, UnavailableError when no registry
        answers, RuntimeFailedError otherwise."""

    async def import_image(self, path: str, ref: str | None = None) -> list[str]:
        """Load a tar archive (OCI layout or docker save; also gzipped) from a local path; `ref` names it where the
        archive names none. Returns the references made. InvalidError for anything else."""

    async def remove_image(self, ref: str) -> None:
        """Remove an image by reference or id."""

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """Events from now on; ends or raises UnavailableError when the runtime goes away."""
