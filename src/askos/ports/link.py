"""The agent's side of the link: what a server tells an agent, and how the agent answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from askos.model.capsules import Assignment, CapsuleReport
from askos.model.hosts import HostFacts
from askos.ports.calls import HostCall

CallHandler = Callable[[HostCall], Awaitable[Any]]
"""Performs one call and returns its result (JSON-able); raises AskosError to fail it."""


class Orders(Protocol):
    """What the link delivers to the agent. None of it blocks."""

    def snapshot(self, assignments: list[Assignment]) -> None:
        """All assignments of this host: what is not among them is no longer its business."""

    def changed(self, assignments: list[Assignment]) -> None:
        """New or changed assignments."""

    def dropped(self, capsule_uuids: list[str]) -> None:
        """No longer this host's."""

    def reports(self) -> list[CapsuleReport]:
        """The newest report of every capsule: sent again after each reconnect."""


class Uplink(Protocol):
    """Keeps a connection to a server, for as long as it runs."""

    async def run(self, facts: HostFacts, orders: Orders, handler: CallHandler) -> None:
        """Connect, deliver, reconnect; until cancelled."""

    def send(self, reports: list[CapsuleReport]) -> None:
        """Queue reports. What is queued while not connected is dropped: `Orders.reports` is sent on connecting."""
