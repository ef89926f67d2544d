"""What a look at a pod comes to, gathered piece by piece: actions, waits, events, and when to look again."""

from __future__ import annotations

import msgspec

from askos.model.pods import Event
from askos.plan.pods import steps
from askos.plan.pods.steps import Action
from askos.plan.pods.view import Life, View

MAKING = frozenset(
    {
        "FailedMount",
        "FailedCreatePodSandBox",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
"""Why things cannot be made. That never holds up ending them, which goes by the same keys."""
_ENDING = (steps.Terminate, steps.Remove, steps.StopSandbox, steps.RemoveSandbox, steps.TearDown)


class Wait(msgspec.Struct, frozen=True):
    """Why a container does not run (yet). `reason` empty: it is on its way."""

    reason: str = ""
    message: str = ""


class Draft:
    """Gathers one decision. Of one key there is one action at most, and none that is at work or has to wait."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.actions: dict[str, Action] = {}
        self.waits: dict[str, Wait] = {}
        self.events: list[Event] = []
        self.look_us: int | None = None
        self.timed = False
        """Whether something goes on by itself when its time has come."""

    def add(self, action: Action) -> bool:
        """Do this now, if its key is free and no trouble holds it up. Returns whether it is done now."""
        key = steps.key(action)
        trouble = self.view.seen.troubles.get(key)
        if trouble is not None and not (isinstance(action, _ENDING) and trouble.reason in MAKING):
            if trouble.final:
                return False
            if self.view.now_us < trouble.retry_us:
                self.look(trouble.retry_us)
                return False
        return self.force(action)

    def force(self, action: Action) -> bool:
        """As `add`, for an action whose troubles have been judged already."""
        key = steps.key(action)
        if key in self.view.seen.busy or key in self.actions:
            return False
        self.actions[key] = action
        return True

    def busy(self, key: str) -> bool:
        """Whether something is at work on this key, or will be now."""
        return key in self.view.seen.busy or key in self.actions

    def look(self, at_us: int, *, timed: bool = True) -> None:
        """Look again then, if not before."""
        self.timed = self.timed or timed
        self.look_us = at_us if self.look_us is None else min(self.look_us, at_us)

    def warn(self, reason: str, message: str, container: str = "") -> None:
        """A Warning event."""
        self.events.append(Event("Warning", reason, message, container))

    def tell(self, reason: str, message: str, container: str = "") -> None:
        """A Normal event."""
        self.events.append(Event("Normal", reason, message, container))

    def terminate(self, life: Life, deadline_us: int, why: str) -> None:
        """End a live container."""
        assert life.newest is not None, "a live container has an instance"
        hook = life.spec.lifecycle is not None and life.spec.lifecycle.pre_stop is not None
        known = life.newest.state == "running"
        pre_stop = hook and known and deadline_us > self.view.now_us
        if self.add(steps.Terminate(life.name, life.newest.id, deadline_us, pre_stop, why)):
            self.tell("Killing", why, life.name)
