"""Tickets of interactive sessions: who has one may be connected to a container, once."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Ticket(msgspec.Struct, frozen=True):
    """The right to one session: with the container's own process, or (`argv`) with a new one."""

    digest: str
    """The hash under which it is kept; the ticket itself is kept nowhere."""
    capsule_uuid: str
    argv: list[str] | None
    exec_id: str | None
    """Names the exec, where there is an `argv`."""
    credential: bytes
    """The token of who asked for it, encrypted with the ticket itself."""
    expires_us: int


class TicketStore(Protocol):
    """Keeps tickets for all servers of the cloud."""

    async def add_ticket(self, ticket: Ticket, most: int) -> None:
        """Keep a ticket. Of its container's at most `most` are kept: the oldest make room. Expired ones are dropped.
        NotFoundError when the container has gone meanwhile."""

    async def take_ticket(self, digest: str) -> Ticket | None:
        """The ticket of this hash, which nobody gets a second time; None when there is none (any more)."""

    async def awaits(self, capsule_uuid: str, exec_id: str) -> bool:
        """Whether there is a ticket for this exec that nobody has taken."""
