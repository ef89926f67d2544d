"""The host network port: makes a capsule's ports real on one host.

Everything is idempotent. What the adapter makes carries the cloud's own mark (an instance id in names and
tables), so that two clouds on one machine do not touch each other and leftovers can be told apart.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from askos.model.capsules import Network, Port
from askos.model.networks import NetworkState


class Attachment(msgspec.Struct, frozen=True):
    """What one sandbox is to be plugged into. Interface i is `eth<i>`; the first carries the default route."""

    capsule_uuid: str
    hostname: str
    ports: list[Port]
    networks: list[Network]


AttachmentLookup = Callable[[str], Awaitable[Attachment | None]]
"""Asks for the attachment of a capsule uuid (CNI's K8S_POD_UID). None: not a capsule of this host; may wait
a moment for the first assignments after a restart."""


class Names(msgspec.Struct, frozen=True):
    """What the name service of one network answers: lower-case names to IPv4 and IPv6 addresses."""

    network: Network
    addresses: dict[str, list[str]]


class HostNetwork(Protocol):
    """Networks, veths, addresses, NAT, isolation and names on one host. Networks may overlap."""

    async def start(self, lookup: AttachmentLookup) -> None:
        """Begin to answer calls of the CNI plugin; adopt what exists. UnavailableError/SetupError if impossible."""

    async def stop(self) -> None:
        """Stop answering. Leaves interfaces and rules as they are: running capsules keep their network."""

    async def attach(self, sandbox_id: str, netns: str, attachment: Attachment) -> None:
        """Plug a sandbox that was made before its capsule (see `Runtime.prepare`) into its networks; `netns` is the
        path of its network namespace. Beginning anew when repeated; taken away as for other sandboxes. Raises
        RuntimeFailedError, OSError."""

    async def sync(self, sandbox_id: str, attachment: Attachment) -> None:
        """Plug and unplug interfaces of a wired sandbox until they are those of `attachment`; what is right already is
        not touched. NotFoundError when the sandbox is not wired. Interface numbers are those that are free."""

    async def set_state(self, state: NetworkState) -> None:
        """Make security groups and floating addresses true, in one step for packets. Ports that no state has named
        yet let nobody in. What was set last goes on after a restart, until a new state comes."""

    async def set_names(self, names: list[Names]) -> None:
        """Replace everything that the name services answer (networks not listed are served no more)."""

    async def collect(self, live_sandboxes: set[str], networks: list[Network]) -> None:
        """Remove what belongs to sandboxes not in `live_sandboxes`, and networks neither listed nor used by a live
        sandbox; mend what others broke."""

    async def connect(self, sandbox_id: str, address: str, port: int, timeout_s: float) -> socket.socket:
        """A TCP connection made inside a sandbox's network, non-blocking. `address` is numeric, or a name, which the
        name service of that network looks up. Raises OSError (refused, no route, no such name), TimeoutError;
        NotFoundError when the sandbox is not wired."""

    async def remove_all(self) -> None:
        """Remove every interface, rule and address of this cloud from the host."""
