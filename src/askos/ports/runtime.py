"""The runtime port: sandboxes, containers and images on one host.

The words are CRI's. Every call is idempotent in the direction of its name: removing what is gone succeeds,
starting what runs succeeds, creating what exists (same capsule, run and attempt) returns the existing id.
Every call has a deadline inside the adapter; a broken runtime raises `RuntimeFailedError`, one that is away
(it is being restarted) `UnavailableError`; none hangs.
Only objects of this cloud are seen: other users of the same containerd stay invisible.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, Protocol

import msgspec


class Mount(msgspec.Struct, frozen=True):
    """A path of the host inside a container; propagation is private."""

    host_path: str
    container_path: str
    read_only: bool = False


class Limits(msgspec.Struct, frozen=True):
    """What a container may use. `cpu_quota_us` per `cpu_period_us`, 0: no limit; `memory_bytes` 0: no limit."""

    cpu_shares: int = 2
    cpu_quota_us: int = 0
    cpu_period_us: int = 100_000
    memory_bytes: int = 0
    oom_score_adj: int | None = None


class Security(msgspec.Struct, frozen=True):
    """How a container is confined. The defaults are the safe ones; capabilities without CAP_, `add` and `drop`
    change the default set, "ALL" is allowed in both."""

    run_as_user: int | None = None
    """None: the image's user."""
    run_as_group: int | None = None
    supplemental_groups: list[int] = []
    add_capabilities: list[str] = []
    drop_capabilities: list[str] = []
    no_new_privileges: bool = True
    read_only_root: bool = False
    seccomp: Literal["default", "unconfined"] = "default"
    privileged: bool = False


class Credential(msgspec.Struct, frozen=True):
    """A log-in at a registry, for one pull; kept nowhere and shown in no message."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""


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
    state: Literal["created", "running", "paused", "exited", "unknown"]
    created_us: int
    image_id: str = ""
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None
    started_us: int | None = None
    finished_us: int | None = None
    spec_hash: str = ""
    """`ContainerConfig.spec_hash` of its making."""
    oom_killed: bool = False
    cpu_shares: int = 0
    """What it may use now; 0: not known, as of one that has ended."""
    memory_bytes: int = 0
    """As `cpu_shares`."""
    cpus: str = ""
    """The cores that it is confined to, such as "0,3"; empty: none in particular."""


class Image(msgspec.Struct, frozen=True):
    """An image on the host. `id` is the config digest; `size_bytes` what it takes on disk."""

    id: str
    tags: list[str]
    digests: list[str]
    size_bytes: int
    entrypoint: list[str] = []
    command: list[str] = []
    user: str = ""
    """As the image says it: a name or number, with or without ":group". Empty: root."""
    stop_signal: str = ""
    """Such as SIGQUIT; empty: SIGTERM."""
    exposed_ports: list[str] = []
    """Such as "80/tcp"."""


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
    dns_options: list[str] = []
    sysctls: dict[str, str] = {}
    share_pid: bool = False
    """One process namespace for all containers."""
    handler: str = ""
    """The OCI runtime's name, one of `Runtime.handlers`; empty: the default."""
    cgroup_parent: str | None = None
    """None: the cloud's own."""
    first: bool = False
    """Nothing of the capsule was ever on this host: no sandbox of it needs to be looked for."""


class ContainerConfig(msgspec.Struct, frozen=True):
    """What a container is made from. The log is written to `<log folder of the capsule>/<log_name>`, by default
    `<run>-<attempt>.log`."""

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
    log_name: str = ""
    mounts: list[Mount] = []
    limits: Limits | None = None
    """None: from `cpu` and `memory_bytes`."""
    security: Security = Security()
    share_pid: bool = False
    """As in its sandbox."""
    stdin_once: bool = False
    """End of file for the process when the first attached client ends its input."""
    spec_hash: str = ""
    """Tells containers that were made from an older spec."""
    cpus: str = ""
    """The cores that it may use, such as "0,3"; empty: all."""
    layer_folder: str = ""
    """A folder of the host in whose file system the writable layer is to be, which limits it. Two containers of a
    capsule that hand their files over have the same one."""


class ContainerStats(msgspec.Struct, frozen=True):
    """What a running container uses now."""

    container_id: str
    capsule_uuid: str
    name: str
    at_us: int
    cpu_ns: int
    """Since its start; grows only."""
    memory_bytes: int
    """Working set: usage without inactive page cache."""
    memory_usage_bytes: int
    rss_bytes: int
    layer_bytes: int
    """The writable layer, as last measured by the runtime."""
    pids: int = 0


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
    environment: list[str] = []
    """NAME=value, beside and before the container's own."""
    workdir: str = ""
    """Empty: the container's."""


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


class AttachSession(Protocol):
    """A connection to a container's own process. Closing it leaves the process alone, but for the end of its input
    with stdin_once. A client that does not read makes the process wait, as docker's and Kubernetes' do."""

    async def write(self, data: bytes) -> None:
        """Send to standard input. Waits while the process does not read."""

    async def close_stdin(self) -> None:
        """Half-close this client's input; with stdin_once the process reads end of file."""

    def output(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        """Chunks from now on, until the process has ended."""

    async def resize(self, width: int, height: int) -> None:
        """Change the terminal's size; nothing without a tty."""

    async def close(self) -> None:
        """Detach."""


PullProgress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in total as far as known) while a pull goes on."""


class Runtime(Protocol):
    """Sandboxes, containers and images. See the module's docstring for the rules of all verbs."""

    async def observe(self, capsule_uuid: str | None = None) -> tuple[list[Sandbox], list[Container]]:
        """Everything there is of one capsule, or of all."""

    async def run_sandbox(self, config: SandboxConfig) -> str:
        """Make and start a sandbox with its network; returns its id. Raises RuntimeFailedError."""

    async def prepare(self, count: int) -> None:
        """Keep so many sandboxes ready for `run_sandbox` to take over. They are made in the background, one at a time
        and never beside a start, and are seen by nobody before they are taken. 0: remove those that are ready, and
        make no more."""

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill what runs in it and take its network away."""

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Remove the sandbox and every container in it."""

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        """Make a container, not started; returns its id."""

    async def start_container(self, container_id: str) -> int | None:
        """Start a created container. Returns when its program began, in microseconds; None when it has ended by now,
        or was started before. A program that cannot be started: RuntimeFailedError(retryable=False)."""

    async def stop_container(self, container_id: str, timeout_s: int, stop_signal: str | None = None) -> None:
        """The stop signal (`stop_signal`, else the image's, else SIGTERM), then SIGKILL after `timeout_s`."""

    async def remove_container(self, container_id: str) -> None:
        """Remove a container; kills it first when it runs."""

    async def signal(self, container_id: str, signum: int) -> None:
        """Send a signal to the container's first process. ConflictError when it does not run."""

    async def carry_layer(self, from_id: str, to_id: str) -> None:
        """Exchange the writable layers of two containers that do not run; one of them has never started. Done once
        for each pair and direction, however often it is called. ConflictError otherwise."""

    async def exec(self, container_id: str, request: ExecRequest) -> ExecSession:
        """Start a process in a running container. ConflictError when the container does not run or is paused;
        RuntimeFailedError(retryable=False) with the runtime's reason when the program cannot be started."""

    async def update_limits(self, container_id: str, limits: Limits) -> None:
        """Change what a created or running container may use, in place."""

    async def pause(self, container_id: str) -> None:
        """Freeze a running container. ConflictError when it does not run."""

    async def unpause(self, container_id: str) -> None:
        """Let a paused container go on; nothing when it is not paused."""

    async def set_cpus(self, container_id: str, cpus: str) -> None:
        """The cores that a container may use, such as "0-1"; in place."""

    async def processes(self, container_id: str) -> list[int]:
        """Host pids of everything that runs in a container."""

    async def root(self, container_id: str) -> AbstractAsyncContextManager[Path]:
        """The container's files as a host folder for as long as the context lasts: of one that runs through its
        process, else its layers mounted. What a container does with links must not lead out: use openat2 below it."""

    async def commit(self, container_id: str, name: str) -> Image:
        """Make an image of a container's files and configuration, under a (normalised) name; paused meanwhile."""

    async def export_image(self, ref: str, path: str, *, named: bool = True) -> None:
        """Write an image as an OCI archive to a local file; whether the archive says its name. NotFoundError."""

    async def resize(self, container_id: str, width: int, height: int) -> None:
        """Change the size of the container's own terminal; nothing without a tty. ConflictError when it is stopped."""

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> AttachSession:
        """Connect to the streams of a running container, whose config must have asked for `stdin` and `tty`.
        ConflictError when it does not run."""

    async def stats(self, capsule_uuid: str | None = None) -> list[ContainerStats]:
        """Of the running containers of one capsule, or of all."""

    async def prepare_group(self, capsule_uuid: str, pids_max: int, limits: Limits) -> None:
        """Make the control group of a capsule, which limits all of its containers together, or change its limits
        (`cpu_shares`, `cpu_quota_us` per `cpu_period_us`, `memory_bytes`; the oom score is the containers' own).
        `pids_max` 0: no limit. When limits shrink, shrink those of the containers first."""

    async def discard_group(self, capsule_uuid: str) -> None:
        """Kill what is left in the capsule's control group and remove it."""

    async def capsule_groups(self) -> set[str]:
        """The uuids of the capsules that have a control group."""

    def group_of(self, capsule_uuid: str) -> str:
        """What `SandboxConfig.cgroup_parent` says for a capsule with a control group of its own."""

    def handlers(self) -> list[str]:
        """The OCI runtimes that sandboxes can ask for; the first is the default."""

    async def image(self, ref: str) -> Image | None:
        """The image on the host by reference or id, or None."""

    async def images(self) -> list[Image]:
        """All images on the host, without the sandbox image."""

    async def pull(self, ref: str, progress: PullProgress | None = None, credential: Credential | None = None) -> Image:
        """Fetch an image. Raises NotFoundError when the registry has none (or, without a good credential, does not
        say), UnavailableError when no registry answers, RuntimeFailedError otherwise."""

    async def import_image(self, path: str, ref: str | None = None, *, rename: bool = False) -> list[str]:
        """Load a tar archive (OCI layout or docker save; also gzipped) from a local path; `ref` names it where the
        archive names none. With `rename` the archive must hold one image, which gets the name `ref` and no other.
        Returns the references made. InvalidError for anything else."""

    async def remove_image(self, ref: str) -> None:
        """Remove an image by reference or id."""

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """Events from now on; ends or raises UnavailableError when the runtime goes away."""
