"""What Zun's words say about a capsule: status, status_reason, task_state and status_detail.

Nobody writes these words; they follow from the user's wish, the placement and the agent's report. A request that
is accepted but not yet fulfilled shows as a task_state; what the agent saw shows as the status.
"""

from __future__ import annotations

from typing import NamedTuple

from askos.model.capsules import CapsuleState, ContainerReport, Placement, Report, Task, Wish

TASK_STATES: dict[Task, str | None] = {
    "creating": "container_creating",
    "starting": "container_starting",
    "stopping": "container_stopping",
    "rebooting": "container_rebooting",
    "killing": "container_killing",
    "pausing": "container_pausing",
    "unpausing": "container_unpausing",
    "rebuilding": "container_rebuilding",
    "deleting": "container_deleting",
    "updating": None,
    "network_attaching": "network_attaching",
    "network_detaching": "network_detaching",
    "sg_adding": "sg_adding",
    "sg_removing": "sg_removing",
}
_CHANGES = frozenset({"updating", "network_attaching", "network_detaching", "sg_adding", "sg_removing"})
"""Tasks that change a container where it stands: its status is the one it has."""

STATUSES: dict[CapsuleState, str] = {
    "none": "Creating",
    "created": "Created",
    "running": "Running",
    "paused": "Paused",
    "restarting": "Restarting",
    "exited": "Stopped",
    "error": "Error",
}


class View(NamedTuple):
    """The three derived words."""

    status: str
    status_reason: str | None
    task_state: str | None


def view(wish: Wish, placement: Placement, report: Report) -> View:
    """The words for one capsule."""
    if wish.state == "deleted":
        return View("Deleting", report.reason, TASK_STATES["deleting"])
    mine = report.generation == wish.generation
    if mine and report.settled:
        return View(STATUSES[report.state], report.reason or _why_ended(report), None)
    if placement.failure is not None:
        return View("Error", placement.failure, None)
    task_state = (report.progress if mine else None) or TASK_STATES[wish.task]
    reason = report.reason if mine else None
    if mine and report.progress == "container_rebuilding":
        return View("Rebuilding", reason, task_state)
    if mine and report.state == "restarting":
        return View("Restarting", reason, task_state)
    if wish.task == "creating":
        return View("Creating", reason, task_state)
    if wish.task in ("rebooting", "rebuilding"):
        return View("Restarting" if wish.task == "rebooting" else "Rebuilding", reason, task_state)
    if wish.task in _CHANGES:
        return View(STATUSES[report.state], report.reason, task_state)
    if report.state == "error":
        # On its way out of Error: "Error" now would make waiting clients give up.
        return View("Created", reason, task_state)
    return View(STATUSES[report.state], reason, task_state)


def _why_ended(report: Report) -> str | None:
    """What a person cannot see from the exit code: 137 is a kill of any kind."""
    if report.state in ("exited", "restarting") and any(c.reason == "OOMKilled" for c in report.containers):
        return "It needed more memory than its limit, and was killed. Give it more."
    return None


def is_settled(wish: Wish, placement: Placement, report: Report) -> bool:
    """Whether nothing will change unless somebody asks or a process ends."""
    fulfilled = report.generation == wish.generation and report.settled
    return wish.state != "deleted" and (fulfilled or placement.failure is not None)


_UNITS = ((86_400, "days"), (3_600, "hours"), (60, "mins"), (1, "seconds"))


def _ago(seconds: int) -> str:
    for size, word in _UNITS:
        if seconds >= size:
            return f"{seconds // size} {word}"
    return "0 seconds"


def detail_until_us(status: str, container: ContainerReport | None, now_us: int) -> int | None:
    """When `status_detail` will read otherwise than now, in microseconds; None: as long as nothing is reported."""
    if container is None:
        return None
    if status in ("Running", "Paused"):
        since_us = container.started_us
    elif status in ("Stopped", "Error") and container.exit_code is not None:
        since_us = container.finished_us
    else:
        return None
    if since_us is None:
        return None
    age = max(0, (now_us - since_us) // 1_000_000)
    size = next((size for size, _word in _UNITS if age >= size), 1)
    return since_us + (age // size + 1) * size * 1_000_000


_HEALTH = {"": "", "starting": " (health: starting)", "healthy": " (healthy)", "unhealthy": " (unhealthy)"}
"""Docker's words."""


def status_detail(status: str, container: ContainerReport | None, now_us: int) -> str | None:
    """Zun's one-line detail, such as "Up 5 mins" or "Exited(0) 8 mins ago "; None when there is nothing to say."""
    if container is None:
        return "Created" if status == "Created" else None
    if status == "Running" and container.started_us is not None:
        return f"Up {_ago((now_us - container.started_us) // 1_000_000)}{_HEALTH[container.health]}"
    if status == "Paused" and container.started_us is not None:
        return f"Up {_ago((now_us - container.started_us) // 1_000_000)} (paused)"
    if status in ("Restarting", "Paused"):
        return status
    if status in ("Stopped", "Error") and container.finished_us is not None and container.exit_code is not None:
        ago = _ago((now_us - container.finished_us) // 1_000_000)
        return f"Exited({container.exit_code}) {ago} ago " + ("(error)" if container.exit_code else "")
    return "Created" if status == "Created" else None
