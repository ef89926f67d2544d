"""Capsules: what a user asked for, what was decided, and what the agent last saw.

A capsule is one sandbox with containers in it. A Zun container is a capsule of kind "container" with exactly one
`ContainerSpec`, whose name is "main": it can be stopped and started again and keeps its files. A capsule of kind
"capsule" has a `Pod` instead, and lives as a pod does (`plan.pods`).

One writer per part:

- the user writes `CapsuleSpec` once and `Wish` again and again (through the API);
- placement writes `Placement`;
- the host's agent writes `Report`.

Everything a reader sees beyond that (status words, task states) is derived: see `plan/zun_status.py`.

Times are integers: microseconds since the epoch, UTC (`*_us`). Sizes carry their unit in the name.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from askos.model.pods import Content, Event, Pod, PodReport

WishState = Literal["created", "running", "stopped", "paused", "deleted"]
"""Where the user wants the capsule to be. "deleted" is final: no other wish follows it."""

Task = Literal[
    "creating",
    "starting",
    "stopping",
    "rebooting",
    "killing",
    "pausing",
    "unpausing",
    "rebuilding",
    "deleting",
    "updating",
    "network_attaching",
    "network_detaching",
    "sg_adding",
    "sg_removing",
]
"""Which request led to the present wish; shown as Zun's task_state until the agent has fulfilled it ("updating" is not
shown: Zun has no word for it)."""

CapsuleState = Literal["none", "created", "running", "paused", "restarting", "exited", "error"]
"""What the agent sees. "none": nothing is on the host (yet). "created": ready to start. "restarting": ended, and
its restart policy will start it again after a while. "error": see reason."""

ContainerState = Literal["waiting", "running", "exited"]
"""Kubernetes' three container states: waiting (with a reason), running, exited ("terminated")."""


PullPolicy = Literal["never", "always", "ifnotpresent"]
"""When to ask the registry for an image."""


class RestartPolicy(msgspec.Struct, frozen=True):
    """What to do when a process ends by itself. `max_retries` counts only for on-failure; 0 means no limit."""

    name: Literal["no", "always", "on-failure", "unless-stopped"] = "no"
    max_retries: int = 0


class Healthcheck(msgspec.Struct, frozen=True):
    """A shell command that is run inside again and again; `retries` failures in a row make the container unhealthy."""

    test: str
    interval_s: int = 30
    retries: int = 3
    timeout_s: int = 30


class ContainerMount(msgspec.Struct, frozen=True):
    """Something seen at `destination` inside a Zun container: a volume (`volume`: the name of a `VolumeGrant`), or a
    single file (`content`: a key of the sealed content's secret "mounts")."""

    destination: str
    volume: str = ""
    content: str = ""


class PlacementWish(msgspec.Struct, frozen=True):
    """Where the user wants a capsule to be placed; empty things do not matter."""

    host: str = ""
    """A host's name."""
    zone: str = ""
    hints: dict[str, str] = {}


class ContainerSpec(msgspec.Struct, frozen=True):
    """One container as the user asked for it.

    `entrypoint` and `command` are OCI's Entrypoint and Cmd: None leaves the image's own.
    """

    name: str
    image: str
    entrypoint: list[str] | None = None
    command: list[str] | None = None
    environment: dict[str, str] = {}
    workdir: str | None = None
    interactive: bool = False
    """Keep standard input open."""
    tty: bool = False
    cpu: float = 1.0
    """Shares: 1.0 is 1024 shares of the kernel's cpu controller."""
    memory_mib: int = 512
    """Hard limit."""
    image_pull_policy: PullPolicy = "ifnotpresent"
    privileged: bool = False
    cpu_policy: Literal["shared", "dedicated"] = "shared"
    """dedicated: whole cores of its own, as many as `cpu` says."""
    disk_gib: int = 0
    """Limit of the writable layer; 0: none."""
    mounts: list[ContainerMount] = []
    healthcheck: Healthcheck | None = None
    exposed_ports: list[str] = []
    """Such as "80/tcp"."""
    registry_uuid: str | None = None
    """Whose log-in is used for the pull."""
    image_driver: Literal["docker", "glance"] = "docker"
    image_uuid: str = ""
    """With the driver glance: the image of the image service that `image` named when the user said it."""


class CapsuleSpec(msgspec.Struct, frozen=True):
    """What the user asked for. Exactly one of `containers` (one) and `pod` is there; `labels` are the pod's too."""

    containers: list[ContainerSpec] = []
    hostname: str | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    labels: dict[str, str] = {}
    pod: Pod | None = None
    runtime: str = ""
    """The OCI runtime's name; empty: the host's default."""
    auto_heal: bool = False
    """Make it again when its container vanishes from the host, or its health check fails."""
    placement: PlacementWish = PlacementWish()
    security_groups: list[str] = []
    """Uuids; of all its ports."""


class Wish(msgspec.Struct, frozen=True):
    """Where the user wants the capsule to be; every accepted request makes a new one with generation + 1."""

    state: WishState
    generation: int = 1
    run: int = 0
    """How often a start was asked for (create with run, start, reboot). The agent starts each run at most once;
    restarts by policy are attempts within a run. 0: never."""
    task: Task = "creating"
    stop_timeout_s: int = 10
    """Grace between SIGTERM and SIGKILL when this wish stops something. A pod's deletion counts it from `at_us`."""
    at_us: int = 0
    rebuilt_run: int = 0
    """The last run that a rebuild asked for: containers of this and later runs begin with fresh files and the spec's
    present image; those before are removed."""


class ContainerReport(msgspec.Struct, frozen=True):
    """One container as the agent last saw it."""

    name: str
    state: ContainerState = "waiting"
    reason: str | None = None
    """CamelCase word, such as Completed, Error, OOMKilled, ErrImagePull."""
    message: str | None = None
    run: int = 0
    restarts: int = 0
    """Restarts by policy within this run."""
    exit_code: int | None = None
    started_us: int | None = None
    finished_us: int | None = None
    image_id: str | None = None
    entrypoint: list[str] | None = None
    """Effective, with the image's defaults filled in."""
    command: list[str] | None = None
    container_id: str = ""
    health: Literal["", "starting", "healthy", "unhealthy"] = ""
    health_output: str = ""
    """What the last check said, cut."""
    exposed_ports: list[str] = []
    """Those of the image and of the spec."""
    cpus: str = ""
    """The cores of a container with dedicated ones, such as "0,3"."""


class Report(msgspec.Struct, frozen=True):
    """What the agent last saw of one capsule.

    `generation` is the wish it worked on; `settled` says that this wish is fulfilled (or failed for good),
    so no task is shown any more.
    """

    generation: int = 0
    settled: bool = False
    state: CapsuleState = "none"
    reason: str | None = None
    """For people: why the state is "error", or why work does not go on."""
    progress: str | None = None
    """Zun's task_state word while working: image_pulling, container_creating ..."""
    hostname: str | None = None
    containers: list[ContainerReport] = []
    observed_us: int = 0
    pod: PodReport | None = None
    """Of kind "capsule"; `containers` is empty then."""


class Network(msgspec.Struct, frozen=True):
    """A tenant network: one IPv4 subnet, one gateway (by default its first address), a name service on the gateway; and
    an IPv6 subnet beside it or none. Networks may overlap."""

    uuid: str
    project_id: str
    name: str
    cidr: str
    gateway: str
    subnet_uuid: str
    gateway_disabled: bool = False
    """The user wants no gateway: nothing leads out of it; the name service still answers on `gateway`."""
    cidr6: str = ""
    """The IPv6 range beside it, if it has one; what follows is of that."""
    gateway6: str = ""
    subnet6_uuid: str = ""
    gateway6_disabled: bool = False


class Port(msgspec.Struct, frozen=True):
    """One address on a network. A capsule's own is claimed from accept until the delete is done; one that a user made
    (`preserve`) outlives the capsules that use it."""

    uuid: str
    network_uuid: str
    capsule_uuid: str
    """Empty while no capsule has it."""
    address: str
    mac: str
    preserve: bool = False
    address6: str = ""
    """The IPv6 address beside it; empty where the network has no such subnet, or the port was not to have one."""


class Placement(msgspec.Struct, frozen=True):
    """Which host has the capsule. `epoch` grows with each decision; a report with an older one is dropped."""

    host_uuid: str | None = None
    epoch: int = 0
    failure: str | None = None
    """Why no host could be found for the present generation."""


class VolumeGrant(msgspec.Struct, frozen=True):
    """A volume of the volume service that a capsule may use. `name`: the pod's volume that it stands for."""

    uuid: str
    name: str
    size_bytes: int
    read_only: bool = False
    auto_remove: bool = False
    """Remove the volume with the capsule."""


class Capsule(msgspec.Struct, frozen=True):
    """Everything the control plane knows of one capsule."""

    uuid: str
    project_id: str
    user_id: str
    name: str
    kind: Literal["container", "capsule"]
    spec: CapsuleSpec
    wish: Wish
    placement: Placement
    report: Report
    created_us: int
    updated_us: int | None = None
    revision: int = 0
    id: int = 0
    ports: list[Port] = []
    networks: list[Network] = []
    """The networks of `ports`, in their order."""
    volumes: list[VolumeGrant] = []
    content_revision: int = 0
    """Grows with each change of the content, which itself is encrypted and read by `Store.content` alone."""


class Assignment(msgspec.Struct, frozen=True):
    """What an agent is told about one capsule of its host: everything it needs to run it, and nothing more."""

    capsule_uuid: str
    project_id: str
    name: str
    epoch: int
    spec: CapsuleSpec
    wish: Wish
    ports: list[Port]
    networks: list[Network]
    report: Report = Report()
    """What the agent itself reported last, so that a restarted one knows what it had done."""
    kind: Literal["container", "capsule"] = "container"
    volumes: list[VolumeGrant] = []
    content: Content = Content()
    content_revision: int = 0
    created_us: int = 0


class CapsuleReport(msgspec.Struct, frozen=True):
    """A report on its way from agent to server. `gone`: nothing of the capsule is left on the host."""

    capsule_uuid: str
    epoch: int
    report: Report
    gone: bool = False
    events: list[Event] = []
    """New since the last report that was sent."""
