"""The log of what was asked of a container: who asked for what, when, and how it went."""

from __future__ import annotations

from typing import Literal

import msgspec


class NewAction(msgspec.Struct, frozen=True):
    """A request that is to be logged in the transaction of what it changes."""

    action: str
    """Zun's word, such as create or network_attach."""
    request_id: str
    user_id: str
    project_id: str


class ActionEvent(msgspec.Struct, frozen=True):
    """A step of an action that has ended."""

    event: str
    """Such as compute__do_container_start."""
    start_us: int
    finish_us: int
    result: Literal["Success", "Error"]
    reason: str | None = None
    """Why it failed."""


class Action(msgspec.Struct, frozen=True):
    """A logged request. `finish_us` None: it goes on."""

    action: str
    capsule_uuid: str
    request_id: str
    user_id: str
    project_id: str
    start_us: int
    finish_us: int | None = None
    failed: bool = False
    events: list[ActionEvent] = []
    """The newest first."""
