"""Which status allows which action, and what each action wishes. Zun's table, with its dead ends opened.

Differences from Zun, all towards "an owner can always get rid of what is theirs": stop and kill also work on a
container that is restarting; a plain delete also on one that is Creating or Unknown; delete with stop or force in
every status.
"""

from __future__ import annotations

import msgspec

from askos.model.capsules import Capsule, Task, Wish, WishState
from askos.model.errors import ConflictError
from askos.plan import zun_status

ALLOWED: dict[str, frozenset[str]] = {
    "start": frozenset({"Created", "Stopped", "Error"}),
    "stop": frozenset({"Running", "Restarting"}),
    "kill": frozenset({"Running", "Restarting"}),
    "reboot": frozenset({"Created", "Running", "Stopped", "Error"}),
    "execute": frozenset({"Running"}),
    "logs": frozenset({"Created", "Error", "Paused", "Running", "Stopped", "Restarting", "Creating", "Unknown"}),
    "delete": frozenset({"Created", "Error", "Stopped", "Deleted", "Dead", "Creating", "Unknown", "Deleting"}),
}


def check(action: str, capsule: Capsule) -> None:
    """Raises a 409 when the container's status does not allow the action."""
    status = zun_status.view(capsule.wish, capsule.placement, capsule.report).status
    if status not in ALLOWED[action]:
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
