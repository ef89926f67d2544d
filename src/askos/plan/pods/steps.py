"""What is seen of a pod on its host, and what can be done about it.

Actions of one pod run side by side, as long as their keys differ: pulling one image while another container stops,
and each container in its own time. `Seen.busy` names the keys that are at work; `decide` never asks for those again.
When an action ends, well or not, the agent looks again. An action that failed leaves a `Trouble` under its key.
"""

from __future__ import annotations

import msgspec

from askos.model.pods import Event, PodReport, Resources
from askos.plan.reconcile import Container, Sandbox


class Image(msgspec.Struct, frozen=True):
    """An image on the host. `digest`: by what its registry knows it, as in "docker.io/library/busybox@sha256:…"; empty
    for one that came from no registry."""

    id: str
    user: str = ""
    digest: str = ""


class ProbeState(msgspec.Struct, frozen=True):
    """What the prober says about one running container (by its id). `fatal`: why liveness or startup want it
    killed; `grace_s`: the probe's own termination grace, if it has one."""

    started: bool = False
    ready: bool = False
    fatal: str = ""
    grace_s: int | None = None


class Trouble(msgspec.Struct, frozen=True):
    """An action failed `failures` times in a row. `reason`: Kubernetes' word for it. `final`: no use trying again;
    of a start (RunContainerError) it means that the container has ended by it, and restarts by its policy.
    `spec_hash`: of the container spec that it failed with, so that a new one is tried at once."""

    failures: int
    reason: str
    message: str
    retry_us: int
    final: bool = False
    spec_hash: str = ""


class Seen(msgspec.Struct, frozen=True):
    """Everything that is known on the host about one pod.

    `images`: by normalised reference; `spec_hashes`: of each container's present spec, by name; `hooks`: by container
    id, "" when postStart went well, else why it failed; `messages`: termination messages by container id;
    `pulled`: by container name, the attempt for which "Always" has pulled already.
    """

    sandboxes: list[Sandbox] = []
    containers: list[Container] = []
    images: dict[str, Image] = {}
    spec_hashes: dict[str, str] = {}
    ready_volumes: bool = False
    written_content: int = 0
    """The content_revision that the content volumes have."""
    leftovers: bool = False
    """Whether volumes, logs or control groups of the capsule exist."""
    probes: dict[str, ProbeState] = {}
    hooks: dict[str, str] = {}
    messages: dict[str, str] = {}
    pulled: dict[str, int] = {}
    applied: dict[str, Resources] = {}
    """By container id: the resources last given to it, as far as the agent remembers; else the prior report's."""
    busy: frozenset[str] = frozenset()
    troubles: dict[str, Trouble] = {}
    evicted: str = ""
    """Why the host wants the pod away (it uses more disk than it may); empty: it does not."""
    host_ip: str = ""
    returned: bool = False
    """The agent has just started and looks for the first time: what ended together with its sandbox ended with the
    host (it was switched off, or taken down in order) and not by itself."""


class SetUpVolumes(msgspec.Struct, frozen=True, tag=True):
    """Make volumes, files and control group. Key "volumes"."""


class WriteContent(msgspec.Struct, frozen=True, tag=True):
    """Bring the content volumes up to date. Key "content"."""

    revision: int


class RunSandbox(msgspec.Struct, frozen=True, tag=True):
    """Make a sandbox with its network. Key "sandbox". `stop`: sandboxes that have failed, to be stopped before, so that
    the network is free for the new one."""

    attempt: int
    stop: list[str] = []


class PullImage(msgspec.Struct, frozen=True, tag=True):
    """Fetch an image for a container. Key "pull/<ref>"."""

    container: str
    ref: str
    attempt: int
    always: bool = False


class Launch(msgspec.Struct, frozen=True, tag=True):
    """Create and start a container. Key "container/<name>". `attempt`: its restarts so far."""

    container: str
    attempt: int
    sandbox_id: str
    sandbox_attempt: int
    image_ref: str
    image_id: str


class Start(msgspec.Struct, frozen=True, tag=True):
    """Start a container that was created, but whose start was not seen. Key "container/<name>"."""

    container: str
    container_id: str


class PostStart(msgspec.Struct, frozen=True, tag=True):
    """Run the hook. Key "hook/<container id>"."""

    container: str
    container_id: str


class Terminate(msgspec.Struct, frozen=True, tag=True):
    """End a container: preStop (if `pre_stop`), its stop signal, SIGKILL at `deadline_us`. Key "container/<name>".

    `why` is the text of the Killing event, which the decision has already. A deadline in the past allows no hook;
    between stop signal and SIGKILL are two seconds even then, as with a kubelet.
    """

    container: str
    container_id: str
    deadline_us: int
    pre_stop: bool
    why: str


class UpdateLimits(msgspec.Struct, frozen=True, tag=True):
    """Apply the spec's resources to a running container. Key "container/<name>"."""

    container: str
    container_id: str


class Remove(msgspec.Struct, frozen=True, tag=True):
    """Remove a container that is not needed any more. Key "remove/<container id>"."""

    container: str
    container_id: str


class StopSandbox(msgspec.Struct, frozen=True, tag=True):
    """Stop a sandbox; kills what runs in it and frees its network. Key "sandbox"."""

    sandbox_id: str


class RemoveSandbox(msgspec.Struct, frozen=True, tag=True):
    """Stop (again) and remove a sandbox with its containers. Key "sandbox"."""

    sandbox_id: str


class TearDown(msgspec.Struct, frozen=True, tag=True):
    """Unmount and remove volumes, files, logs and control group. Key "volumes"."""


Action = (
    SetUpVolumes
    | WriteContent
    | RunSandbox
    | PullImage
    | Launch
    | Start
    | PostStart
    | Terminate
    | UpdateLimits
    | Remove
    | StopSandbox
    | RemoveSandbox
    | TearDown
)


def key(action: Action) -> str:
    """What an action works on; of one key one action runs at a time."""
    match action:
        case SetUpVolumes() | TearDown():
            return "volumes"
        case WriteContent():
            return "content"
        case RunSandbox() | StopSandbox() | RemoveSandbox():
            return "sandbox"
        case PullImage(ref=ref):
            return f"pull/{ref}"
        case PostStart(container_id=container_id):
            return f"hook/{container_id}"
        case Remove(container_id=container_id):
            return f"remove/{container_id}"
        case Launch(container=name) | Start(container=name) | Terminate(container=name) | UpdateLimits(container=name):
            return f"container/{name}"


class Decision(msgspec.Struct, frozen=True):
    """What to do now (all of it, side by side), what to report, whom to probe, when to look again at the latest."""

    actions: list[Action]
    pod: PodReport
    settled: bool = False
    """Nothing will change unless somebody asks, a process ends, or a probe says so."""
    gone: bool = False
    probe: list[str] = []
    """Ids of the containers that probes are to run for now. What is not listed is not probed."""
    look_us: int | None = None
    events: list[Event] = []
