"""The store port: everything the control plane keeps.

Every verb is one transaction, committed when it returns. A verb that takes a function (`change`, `choose`) calls it
inside the transaction with what is true at that moment; the function must be plain and quick, and what it raises
rolls everything back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from askos.model.actions import Action, NewAction
from askos.model.capsules import Assignment, Capsule, CapsuleReport, CapsuleSpec, VolumeGrant, Wish
from askos.model.hosts import Host, HostFacts
from askos.model.networks import NetWish
from askos.model.pods import Content, Event
from askos.plan.placement import Claim, Load, Nowhere

Kind = Literal["container", "capsule"]


class NewCapsule(msgspec.Struct, frozen=True):
    """What a create writes."""

    uuid: str
    kind: Kind
    project_id: str
    user_id: str
    name: str
    spec: CapsuleSpec
    wish: Wish
    token: str = ""
    """The client's own id of this create (a pod's uid), unique within the project; empty: none."""
    content: Content = Content()
    volumes: list[VolumeGrant] = []
    """Existing volumes to attach."""
    new_volumes: list[VolumeGrant] = []
    """Volumes to be made in the same transaction, and attached."""
    nets: list[NetWish] = []
    """The networks to be on, in the order of interfaces; empty: the project's usual one. `spec.security_groups` are
    the groups of the ports; empty: the project's default group (ports of users keep theirs)."""
    unique_name: bool = False
    """Refuse a second one of this name (and the pod's namespace) in the project that is not being deleted."""
    action: NewAction | None = None
    """To be logged."""


class Roomless(msgspec.Struct, frozen=True):
    """A pod without a host, for which there was no room."""

    uuid: str
    claim: Claim
    failure: str
    """What it was told."""
    volume_hosts: frozenset[str] = frozenset()
    """The hosts that have volumes of it: it can only be placed there."""


class Requirement(msgspec.Struct, frozen=True):
    """One term of a label selector."""

    key: str
    operator: Literal["in", "notin", "exists", "missing"]
    values: list[str] = []
    """For in and notin. `notin` also holds without the label, as in Kubernetes."""


class Query(msgspec.Struct, frozen=True):
    """A list request. `project_id` None: of all projects. `filters`: column to value, exact."""

    kind: Kind = "container"
    project_id: str | None = None
    filters: dict[str, str | bool] = {}
    sort_key: str = "id"
    sort_dir: Literal["asc", "desc"] = "asc"
    limit: int = 1000
    marker: str | None = None
    selector: list[Requirement] = []
    namespace: str | None = None
    """Of pods, as `selector` is."""
    after: int | None = None
    """Only ids above this one (sorted by id, ascending): unlike a marker it survives its row."""


class Change(msgspec.Struct, frozen=True):
    """One committed change. `host_uuid`: the host concerned, if any."""

    revision: int
    kind: str
    uuid: str
    deleted: bool
    host_uuid: str | None = None
    project_id: str | None = None
    last: Capsule | None = None
    """Of a deleted pod: as it was in the end."""
    created: bool = False
    """This change is the capsule's first."""
    labels_before: dict[str, str] | None = None
    """What a pod's labels were, when this change replaced them."""


class Moved(msgspec.Struct, frozen=True):
    """A pod that has changed since a revision."""

    capsule: Capsule
    """As it is now, or was in the end."""
    first: int
    """Its first change since then: who has seen all pods that moved before, and this one, may go on from here."""
    deleted: bool = False
    created: bool = False
    """Since then."""
    labels_before: dict[str, str] | None = None
    """The labels that it had then, if they were replaced since."""


class Store(Protocol):
    """See the module's docstring for what all verbs have in common."""

    async def create_capsule(self, new: NewCapsule) -> Capsule:
        """Write a capsule with its ports. With a `token` that exists already, the capsule that has it is returned and
        nothing is written. ConflictError when no address is left or a wished one is taken, for an external network,
        when `unique_name` is broken, or when a volume is not there for this project or in use (multi-attach not
        allowed). InvalidError port-in-use, port-not-usable, or for an address outside of its network; NotFoundError
        network-not-found, port-not-found; ForbiddenError over-quota.

        Without a wish for networks it goes on the project's oldest network, else on the oldest shared one, else on
        the project's "default", which is then made."""

    async def attach_port(self, uuid: str, wish: NetWish, action: NewAction | None = None) -> Capsule:
        """Plug a container into one more network; its wish's generation grows (task "network_attaching"). Raises what
        `create_capsule` does, and InvalidError when it is on that network already."""

    async def detach_port(
        self, uuid: str, *, network_uuid: str = "", port_uuid: str = "", action: NewAction | None = None
    ) -> Capsule:
        """Unplug a container from a network, or one port of it; its wish's generation grows (task
        "network_detaching"). Ports of users are freed, others removed. InvalidError when it is not attached."""

    async def secure(
        self, uuid: str, change: Callable[[list[str]], list[str]], action: NewAction | None = None
    ) -> Capsule:
        """Replace the security groups of a capsule (`spec.security_groups`, uuids) and of its ports by what `change`
        returns for the present ones; none: the project's default group. NotFoundError."""

    async def update_capsule(
        self,
        uuid: str,
        change: Callable[[Capsule], tuple[CapsuleSpec, Wish]],
        content: Content | None = None,
        fits: Callable[[Load], None] | None = None,
        *,
        name: str | None = None,
        action: NewAction | None = None,
    ) -> Capsule:
        """Replace spec and wish by what `change` returns for the present capsule, and the content if one is given
        (content_revision grows), and the name. When a placed capsule's claim grows, `fits` sees its host as it would
        be loaded. Nothing is written when nothing changes. NotFoundError."""

    async def content(self, uuid: str) -> Content:
        """The capsule's config maps and secrets, decrypted."""

    async def events(self, uuid: str) -> list[Event]:
        """What was told about a capsule, oldest first; equal ones counted; at most the newest 200."""

    async def capsule(self, ident: str, project_id: str | None, kind: Kind, namespace: str | None = None) -> Capsule:
        """By uuid, else by exact name (and namespace, if one is given); within a project, or in all (None). One that
        is not being deleted goes before those that are. NotFoundError; ConflictError when several have that name."""

    async def capsules(self, query: Query) -> list[Capsule]:
        """One page. NotFoundError for an unknown marker; InvalidError for an unknown sort key."""

    async def page(self, query: Query) -> list[tuple[str, int]]:
        """One page as (uuid, revision) pairs: enough to know what a reader has already."""

    async def page_now(self, query: Query) -> tuple[int, list[tuple[str, int]]]:
        """The same, and a revision from which on a watch misses nothing of what comes after the page."""

    async def capsules_by_uuid(self, uuids: list[str]) -> list[Capsule]:
        """Those that exist, in no particular order."""

    async def wish(self, uuid: str, change: Callable[[Capsule], Wish], action: NewAction | None = None) -> Capsule:
        """Replace the wish by what `change` returns for the present capsule, and log the action. NotFoundError."""

    async def actions(self, uuid: str) -> list[Action]:
        """What was asked of a container, the newest first."""

    async def begin_action(self, uuid: str, action: NewAction) -> int | None:
        """Log an action that makes no wish; its number for `end_action`. None when the container has gone."""

    async def end_action(self, number: int | None, failure: str | None) -> None:
        """Log how it went; nothing when the container has gone meanwhile."""

    async def break_off_actions(self) -> None:
        """At the start of a server: log that actions which make no wish have failed, and go on no more."""

    async def unplaced(self) -> list[str]:
        """Uuids of capsules that have a wish but neither a host nor a placement failure."""

    async def roomless(self) -> list[Roomless]:
        """The pods that no host could take, the oldest first: they wait for room."""

    async def loads(self) -> list[Load]:
        """All hosts, and what is claimed on them."""

    async def place(
        self, uuid: str, choose: Callable[[Capsule, list[Load]], str | Nowhere | None], failure: str
    ) -> bool:
        """Give the capsule the host that `choose` returns, with a new epoch; None writes `failure`, Nowhere its own
        reason. `Load.has_volumes` says whether the capsule's volumes can be used there. False when there was nothing
        to place any more."""

    async def assignments(self, host_uuid: str) -> list[Assignment]:
        """Everything that belongs on a host."""

    async def assignments_of(self, host_uuid: str, uuids: list[str]) -> list[Assignment]:
        """Those of the given capsules that belong on the host."""

    async def generations(self, host_uuid: str) -> dict[str, tuple[int, int]]:
        """Epoch and wish's generation of everything that belongs on a host, by capsule uuid."""

    async def apply_reports(self, host_uuid: str, reports: list[CapsuleReport]) -> list[str]:
        """Write what an agent saw; drops what has an old epoch or another host. Removes capsules that are gone.
        Returns the uuids that the host should forget."""

    async def register_host(self, facts: HostFacts, availability_zone: str) -> int:
        """Write a host's facts at the begin of a link; returns the new session number."""

    async def host_seen(self, host_uuid: str, session: int, *, connected: bool) -> None:
        """Note a heartbeat or the end of a link; ignored from a session that is not the newest."""

    async def hosts(self) -> list[Host]:
        """All hosts."""

    async def host_names(self) -> dict[str, str]:
        """The name of each host by its uuid."""

    async def drop_orphans(self, silent_us: int) -> list[str]:
        """Remove capsules that are to be deleted and whose host has been silent for `silent_us`."""

    async def fail_waiting(self, silent_us: int, failure: str) -> list[str]:
        """Write `failure` for capsules that wait for a host which has been silent for `silent_us`. Returns them."""

    async def changes(
        self, after: int, limit: int = 1000, *, kind: Kind | None = None, project_id: str | None = None
    ) -> list[Change]:
        """Committed changes after a revision, oldest first, of one kind or project or of all. InvalidError with code
        "revision-gone" when some of them are forgotten already."""

    async def moved(self, after: int, project_id: str | None, limit: int = 500) -> tuple[int, list[Moved]]:
        """Pods that changed after a revision, each once, in the order of `first`; and the revision up to which this
        covers all changes (those of at most `limit` at a time). InvalidError with code "revision-gone" when some are
        forgotten already, or when there is no such revision yet."""

    async def moved_projects(self, after: int) -> list[str]:
        """The projects of the pods that changed after a revision, as far as the change log still knows."""

    async def revision(self) -> int:
        """The newest revision."""
