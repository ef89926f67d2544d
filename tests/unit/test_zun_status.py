"""Zun's words for what was wished, decided and seen."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import pytest

from askos.model.capsules import CapsuleState, ContainerReport, Placement, Report, Task, Wish, WishState
from askos.plan import zun_status
from askos.plan.zun_status import View, status_detail, view

PLACED = Placement("host", 1)
NOWHERE = Placement(None, 0, "There are not enough hosts available.")
SILENT = Placement("host", 1, "The host is silent.")
ZUN = {"Creating", "Created", "Running", "Stopped", "Paused", "Restarting", "Rebuilding", "Error", "Deleting"}
TASKS = {
    "image_pulling", "container_creating", "container_starting", "container_deleting", "container_stopping",
    "container_rebooting", "container_killing", "container_pausing", "container_unpausing", "container_rebuilding",
    "network_attaching", "network_detaching", "sg_adding", "sg_removing",
}  # fmt: skip


def settled(state: CapsuleState, reason: str | None = None, generation: int = 1) -> Report:
    return Report(generation, True, state, reason)


@pytest.mark.parametrize(
    ("wish", "placement", "report", "expected"),
    [
        # A life.
        (Wish("running", 1, 1, "creating"), Placement(), Report(), ("Creating", None, "container_creating")),
        (Wish("running", 1, 1, "creating"), PLACED, Report(), ("Creating", None, "container_creating")),
        (
            Wish("running", 1, 1, "creating"), PLACED, Report(1, state="none", progress="image_pulling"),
            ("Creating", None, "image_pulling"),
        ),
        (
            Wish("running", 1, 1, "creating"), PLACED, Report(1, state="none", progress="container_starting"),
            ("Creating", None, "container_starting"),
        ),
        (Wish("created", 1, 0, "creating"), PLACED, settled("created"), ("Created", None, None)),
        (Wish("running", 1, 1, "creating"), PLACED, settled("running"), ("Running", None, None)),
        (Wish("running", 1, 1, "creating"), PLACED, settled("exited"), ("Stopped", None, None)),
        (Wish("running", 1, 1, "creating"), PLACED, settled("restarting"), ("Restarting", None, None)),
        (Wish("running", 1, 1, "creating"), PLACED, settled("error", "no image"), ("Error", "no image", None)),
        # A request that the agent has not taken up.
        (Wish("stopped", 2, 1, "stopping"), PLACED, settled("running"), ("Running", None, "container_stopping")),
        (Wish("stopped", 2, 1, "killing"), PLACED, settled("running"), ("Running", None, "container_killing")),
        (Wish("running", 2, 2, "starting"), PLACED, settled("exited"), ("Stopped", None, "container_starting")),
        (Wish("running", 2, 2, "starting"), PLACED, settled("created"), ("Created", None, "container_starting")),
        (Wish("running", 2, 2, "rebooting"), PLACED, settled("running"), ("Restarting", None, "container_rebooting")),
        # On its way out of Error it must not look like Error: waiting clients give up at that word.
        (Wish("running", 2, 2, "starting"), PLACED, settled("error", "old"), ("Created", None, "container_starting")),
        (
            Wish("running", 2, 2, "starting"), PLACED,
            Report(2, False, "exited", "trying again", "container_starting"),
            ("Stopped", "trying again", "container_starting"),
        ),
        # An old report does not settle a new wish, and its reason and progress are of the past.
        (
            Wish("running", 3, 2, "starting"), PLACED, Report(2, False, "exited", "old", "image_pulling"),
            ("Stopped", None, "container_starting"),
        ),
        # Nowhere to run.
        (Wish("running", 1, 1, "creating"), NOWHERE, Report(), ("Error", NOWHERE.failure, None)),
        (Wish("running", 1, 1, "creating"), SILENT, Report(), ("Error", SILENT.failure, None)),
        (Wish("stopped", 2, 1, "stopping"), SILENT, settled("running"), ("Error", SILENT.failure, None)),
        (Wish("running", 1, 1, "creating"), SILENT, settled("running"), ("Running", None, None)),
        # Deleting, whatever else is said.
        (Wish("deleted", 2, 1, "deleting"), PLACED, settled("running"), ("Deleting", None, "container_deleting")),
        (
            Wish("deleted", 2, 1, "deleting"), PLACED, Report(2, True, "error", "stuck"),
            ("Deleting", "stuck", "container_deleting"),
        ),
        (Wish("deleted", 2, 1, "deleting"), NOWHERE, Report(), ("Deleting", None, "container_deleting")),
        # Pausing, rebuilding, and changing where it stands.
        (Wish("paused", 2, 1, "pausing"), PLACED, settled("running"), ("Running", None, "container_pausing")),
        (Wish("paused", 2, 1, "pausing"), PLACED, settled("paused", None, 2), ("Paused", None, None)),
        (Wish("running", 3, 1, "unpausing"), PLACED, settled("paused", None, 2), ("Paused", None, "container_unpausing")),
        (Wish("running", 2, 2, "rebuilding"), PLACED, settled("running"), ("Rebuilding", None, "container_rebuilding")),
        (
            Wish("running", 2, 2, "rebuilding"), PLACED, Report(2, False, "none", progress="image_pulling"),
            ("Rebuilding", None, "image_pulling"),
        ),
        (Wish("running", 2, 1, "updating"), PLACED, settled("running"), ("Running", None, None)),
        # What happens by itself: a restart by policy, and one that is made again.
        (
            Wish("running", 1, 1, "creating"), PLACED, Report(1, False, "restarting", progress="container_starting"),
            ("Restarting", None, "container_starting"),
        ),
        (
            Wish("running", 1, 1, "creating"), PLACED,
            Report(1, False, "running", "Its health check failed.", "container_rebuilding"),
            ("Rebuilding", "Its health check failed.", "container_rebuilding"),
        ),
    ],
)  # fmt: skip
def test_words(wish: Wish, placement: Placement, report: Report, expected: tuple[str, str | None, str | None]) -> None:
    assert view(wish, placement, report) == View(*expected)
    assert zun_status.is_settled(wish, placement, report) == (expected[2] is None and wish.task != "updating")


def test_every_combination_has_words_that_zuns_clients_know() -> None:
    seen = set()
    for state, task, generation, progress, is_settled, told, where in product(
        get_args(WishState), get_args(Task), (0, 1), (None, "image_pulling"), (False, True), get_args(CapsuleState),
        (Placement(), PLACED, NOWHERE, SILENT),
    ):  # fmt: skip
        wish = Wish(state, 1, 1, task)
        found = view(wish, where, Report(generation, is_settled, told, progress=progress))
        seen.add(found.status)
        assert found.status in ZUN
        assert found.task_state is None or found.task_state in TASKS
        # What is finished has no task; what is not finished, and has not failed, has one.
        finished = generation == 1 and is_settled
        settled_for_all = state != "deleted" and (finished or where.failure is not None)
        assert zun_status.is_settled(wish, where, Report(generation, is_settled, told)) == settled_for_all
        wordless = task == "updating" and (generation == 0 or progress is None) and state != "deleted"
        assert (found.task_state is None) == (settled_for_all or wordless)
        assert (found.status == "Deleting") == (state == "deleted")
    assert seen == ZUN


NOW = 1_700_000_000_000_000


def ago(seconds: float) -> int:
    return NOW - int(seconds * 1e6)


@pytest.mark.parametrize(
    ("status", "container", "expected"),
    [
        ("Creating", None, None),
        ("Created", None, "Created"),
        ("Running", None, None),
        ("Created", {}, "Created"),
        ("Creating", {}, None),
        ("Running", {"started_us": ago(0)}, "Up 0 seconds"),
        ("Running", {"started_us": ago(59.9)}, "Up 59 seconds"),
        ("Running", {"started_us": ago(60)}, "Up 1 mins"),
        ("Running", {"started_us": ago(3599)}, "Up 59 mins"),
        ("Running", {"started_us": ago(3600)}, "Up 1 hours"),
        ("Running", {"started_us": ago(86_399)}, "Up 23 hours"),
        ("Running", {"started_us": ago(86_400 * 3)}, "Up 3 days"),
        ("Running", {"started_us": ago(-5)}, "Up 0 seconds"),
        ("Running", {"started_us": ago(5), "health": "starting"}, "Up 5 seconds (health: starting)"),
        ("Running", {"started_us": ago(5), "health": "healthy"}, "Up 5 seconds (healthy)"),
        ("Running", {"started_us": ago(5), "health": "unhealthy"}, "Up 5 seconds (unhealthy)"),
        ("Paused", {"started_us": ago(300), "health": "healthy"}, "Up 5 mins (paused)"),
        ("Running", {}, None),
        ("Stopped", {"finished_us": ago(480), "exit_code": 0}, "Exited(0) 8 mins ago "),
        ("Stopped", {"finished_us": ago(7200), "exit_code": 1}, "Exited(1) 2 hours ago (error)"),
        ("Stopped", {"finished_us": ago(1), "exit_code": 137}, "Exited(137) 1 seconds ago (error)"),
        ("Error", {"finished_us": ago(1), "exit_code": 2}, "Exited(2) 1 seconds ago (error)"),
        ("Error", {}, None),
        ("Stopped", {"finished_us": ago(1)}, None),
        ("Restarting", {"started_us": ago(1)}, "Restarting"),
        ("Deleting", {"started_us": ago(1)}, None),
    ],
)
def test_details(status: str, container: dict[str, Any] | None, expected: str | None) -> None:
    report = None if container is None else ContainerReport("main", **container)
    assert status_detail(status, report, NOW) == expected
