"""Which status allows which action, and what each action wishes. Zun's table, with its dead ends opened.

Differences from Zun, all towards "an owner can always get rid of what is theirs": stop and kill also work on a
container that is restarting; a plain delete also on one that is Creating, Unknown or Paused; delete with stop or force
in every status.
"""

from __future__ import annotations

import msgspec

from askos.model.capsules import Capsule, Task, Wish, WishState
from askos.model.errors import ConflictError
from askos.plan import zun_status

_RUNNING = frozenset({"Running"})
_STANDING = frozenset({"Created", "Running", "Stopped", "Paused"})
_ANY: frozenset[str] | None = None

ALLOWED: dict[str, frozenset[str] | None] = {
    "start": frozenset({"Created", "Stopped", "Error"}),
    "stop": frozenset({"Running", "Restarting"}),
    "kill": frozenset({"Running", "Restarting"}),
    "pause": _RUNNING,
    "unpause": frozenset({"Paused"}),
    "reboot": frozenset({"Created", "Running", "Stopped", "Error"}),
    "rebuild": frozenset({"Created", "Running", "Stopped", "Error"}),
    "execute": _RUNNING,
    "execute_resize": _RUNNING,
    "attach": _RUNNING,
    "resize": _RUNNING,
    "top": _RUNNING,
    "stats": _RUNNING,
    "logs": frozenset({"Created", "Error", "Paused", "Running", "Stopped", "Restarting", "Creating", "Unknown"}),
    "update": _STANDING,
    "resize_container": _STANDING,
    "add_security_group": _STANDING,
    "remove_security_group": _STANDING,
    "commit": frozenset({"Running", "Stopped", "Paused"}),
    "get_archive": _STANDING,
    "put_archive": _STANDING,
    "delete": frozenset(
        {"Created", "Error", "Stopped", "Deleted", "Dead", "Creating", "Unknown", "Deleting", "Paused"}
    ),
    "rename": _ANY,
    "network_attach": _ANY,
    "network_detach": _ANY,
}
"""None: all of them. What is not there at all is allowed in all, too: looking."""


def check(action: str, capsule: Capsule) -> None:
    """Raises a 409 when the container's status does not allow the action. Nothing is done to one that is being
    deleted but to delete it."""
    status = zun_status.view(capsule.wish, capsule.placement, capsule.report).status
    allowed = ALLOWED[action]
    fits = status != "Deleting" if allowed is None else status in allowed
    if not fits:
        raise ConflictError(f"Cannot {action} container {capsule.uuid} in {status} state", "invalid-state-exception")


def next_wish(
    capsule: Capsule,
    state: WishState,
    task: Task,
    now_us: int,
    *,
    timeout_s: int | None = None,
    run: bool = False,
) -> Wish:
    """The wish that follows. `run`: this asks for one more start."""
    wish = capsule.wish
    return msgspec.structs.replace(
        wish,
        state=state,
        task=task,
        generation=wish.generation + 1,
        run=wish.run + 1 if run else wish.run,
        stop_timeout_s=10 if timeout_s is None else timeout_s,
        at_us=now_us,
    )


def changed(capsule: Capsule, task: Task, now_us: int) -> Wish:
    """The wish that follows when something else than the state changes."""
    wish = capsule.wish
    return next_wish(capsule, wish.state, task, now_us, timeout_s=wish.stop_timeout_s)


def rebuilt(capsule: Capsule, now_us: int) -> Wish:
    """The wish that follows a rebuild: new files and the spec's present image; it runs again if it ran."""
    running = zun_status.view(capsule.wish, capsule.placement, capsule.report).status == "Running"
    wish = next_wish(capsule, "running" if running else "created", "rebuilding", now_us, run=running)
    return msgspec.structs.replace(wish, rebuilt_run=capsule.wish.run + 1)
