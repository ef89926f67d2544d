"""What is seen on a host of a Zun container, what can be done about it, and what a decision is.

The decisions themselves are in `plan.reconcile`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from askos.model.capsules import Report


class Sandbox(msgspec.Struct, frozen=True):
    """A sandbox as seen; the fields of `ports.runtime.Sandbox` that decisions need."""

    id: str
    attempt: int
    ready: bool


class Container(msgspec.Struct, frozen=True):
    """A container as seen; the fields of `ports.runtime.Container` that decisions need."""

    id: str
    sandbox_id: str
    name: str
    run: int
    attempt: int
    state: str
    image_id: str = ""
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None
    started_us: int | None = None
    finished_us: int | None = None
    spec_hash: str = ""
    cpu_shares: int = 0
    """What it has now; 0: not known."""
    memory_bytes: int = 0
    """As `cpu_shares`."""
    cpus: str = ""
    """The cores that it is confined to, such as "0,3"; empty: none in particular."""


class Image(msgspec.Struct, frozen=True):
    """The image of a container spec as found on the host."""

    id: str
    entrypoint: list[str]
    command: list[str]
    exposed_ports: list[str] = []


class Health(msgspec.Struct, frozen=True):
    """What a container's health check says, and the words of the run that made it say so."""

    state: Literal["", "starting", "healthy", "unhealthy"] = ""
    output: str = ""


class Trouble(msgspec.Struct, frozen=True):
    """An action failed while working on `generation`. `final`: trying again cannot help."""

    generation: int
    message: str
    final: bool
    retry_us: int = 0


class Observed(msgspec.Struct, frozen=True):
    """Everything seen on the host for one capsule. `pulled`: the generation for which a pull has succeeded."""

    sandboxes: list[Sandbox] = []
    containers: list[Container] = []
    image: Image | None = None
    pulled: int = 0
    logs: bool = False
    """Whether the capsule's log folder exists."""
    volumes: bool = False
    """Whether the volumes are known to be set up."""
    folders: bool = False
    """Whether anything of the capsule's volumes is on the host's disk."""
    wired: dict[str, list[str]] = {}
    """The uuids of the ports that a sandbox is known to be plugged into, by the sandbox's id."""
    health: dict[str, Health] = {}
    """By container id."""
    committing: bool = False
    """An image is being made of it, for which it is paused."""
    refused: dict[str, str] = {}
    """Why actions of these names, which harm nobody when they are left undone, were given up for this generation."""


class PullImage(msgspec.Struct, frozen=True, tag=True):
    """Fetch the image."""

    ref: str


class SetUpVolumes(msgspec.Struct, frozen=True, tag=True):
    """Make what the container mounts, and the file system of its own files if that has a limit."""


class RunSandbox(msgspec.Struct, frozen=True, tag=True):
    """Make a sandbox with its network."""

    attempt: int


class SyncNetwork(msgspec.Struct, frozen=True, tag=True):
    """Plug a sandbox into the capsule's present ports, and out of those that it has no more."""

    sandbox_id: str


class CreateContainer(msgspec.Struct, frozen=True, tag=True):
    """Make a container in a ready sandbox."""

    sandbox_id: str
    sandbox_attempt: int
    run: int
    attempt: int
    image_id: str


class CarryLayer(msgspec.Struct, frozen=True, tag=True):
    """Exchange the writable layers of two containers that do not run; done once for each pair, however often."""

    from_id: str
    to_id: str


class StartContainer(msgspec.Struct, frozen=True, tag=True):
    """Start a created container."""

    container_id: str


class UpdateLimits(msgspec.Struct, frozen=True, tag=True):
    """Give a container what the spec says now."""

    container_id: str


class PauseContainer(msgspec.Struct, frozen=True, tag=True):
    """Freeze a running container."""

    container_id: str


class UnpauseContainer(msgspec.Struct, frozen=True, tag=True):
    """Let a paused container go on."""

    container_id: str


class StopContainer(msgspec.Struct, frozen=True, tag=True):
    """Stop a container (a paused one goes on first): its stop signal, and SIGKILL after the grace."""

    container_id: str
    timeout_s: int


class RemoveContainer(msgspec.Struct, frozen=True, tag=True):
    """Remove a container that is not needed any more."""

    container_id: str


class StopSandbox(msgspec.Struct, frozen=True, tag=True):
    """Stop a sandbox; frees its network."""

    sandbox_id: str


class RemoveSandbox(msgspec.Struct, frozen=True, tag=True):
    """Remove a stopped sandbox with its containers."""

    sandbox_id: str


class TearDown(msgspec.Struct, frozen=True, tag=True):
    """Remove the capsule's volumes, and its log folder last."""


Action = (
    PullImage
    | SetUpVolumes
    | RunSandbox
    | SyncNetwork
    | CreateContainer
    | CarryLayer
    | StartContainer
    | UpdateLimits
    | PauseContainer
    | UnpauseContainer
    | StopContainer
    | RemoveContainer
    | StopSandbox
    | RemoveSandbox
    | TearDown
)

GENTLE = (UpdateLimits, PauseContainer, UnpauseContainer, SyncNetwork)
"""Actions that a container lives on without: their failure is told and harms it no further."""


class Decision(msgspec.Struct, frozen=True):
    """What to do now, what to tell the server, and when to look again at the latest (None: when woken)."""

    actions: list[Action]
    report: Report
    gone: bool = False
    look_us: int | None = None


def with_made(seen: Observed, action: Action, made: str, name: str) -> Observed:
    """What is seen once an action has made something, whose id is `made`. `name`: of the container's spec."""
    if isinstance(action, RunSandbox):
        return msgspec.structs.replace(seen, sandboxes=[*seen.sandboxes, Sandbox(made, action.attempt, ready=True)])
    if isinstance(action, CreateContainer):
        new = Container(
            id=made,
            sandbox_id=action.sandbox_id,
            name=name,
            run=action.run,
            attempt=action.attempt,
            state="created",
            image_id=action.image_id,
        )
        return msgspec.structs.replace(seen, containers=[*seen.containers, new])
    return seen


def with_started(seen: Observed, container_id: str, started_us: int) -> Observed:
    """What is seen once a container was started and runs."""
    containers = [
        msgspec.structs.replace(c, state="running", started_us=started_us) if c.id == container_id else c
        for c in seen.containers
    ]
    return msgspec.structs.replace(seen, containers=containers)
