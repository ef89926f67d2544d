"""What Zun's words say about a capsule and its containers: status, reason and detail.

Zun writes these once, when a capsule has been created; here they follow from the wish, the placement and the report,
and so keep being true. The words are those of Zun's containers.
"""

from __future__ import annotations

import uuid
from typing import Literal, NamedTuple

from askos.model.capsules import Capsule, ContainerReport
from askos.model.pods import Container, Ended, PodContainerReport, PodReport
from askos.plan import zun_status

Status = Literal["Creating", "Running", "Stopped", "Restarting", "Error", "Deleting"]
Place = Literal["init", "app"]

_ON_THE_WAY = frozenset({"", "ContainerCreating", "PodInitializing"})
_CRASHING = "CrashLoopBackOff"
_NEVER_RAN = frozenset({"StartError", "ContainerCannotRun"})
_LOST = "ContainerStatusUnknown"


class View(NamedTuple):
    """The derived words of a capsule."""

    status: Status
    status_reason: str | None


class ContainerWords(NamedTuple):
    """What does not change with time of a container's view, and what its detail is made from."""

    status: Status
    status_reason: str | None
    timed: ContainerReport | None = None
    """For `zun_status.status_detail`; None: there is none."""


class ContainerView(NamedTuple):
    """The derived words of one container of a capsule."""

    status: Status
    status_reason: str | None
    status_detail: str | None


def container_uuid(capsule_uuid: str, place: Place, name: str) -> str:
    """A container's own uuid: always the same for the same capsule, place and name."""
    return str(uuid.uuid5(uuid.UUID(capsule_uuid), f"{place}/{name}"))


def view(capsule: Capsule) -> View:
    """The words for a capsule.

    A capsule whose containers cannot be started now is in Error, though that is tried again: clients wait for Running
    or Error, and the reason is for a person to act on. When it is started after all, it is Running.
    """
    if capsule.wish.state == "deleted":
        return View("Deleting", capsule.report.reason)
    report = capsule.report.pod
    if report is not None and report.phase in ("Succeeded", "Failed"):
        return _over(capsule, report)
    if capsule.placement.failure is not None:
        # There is no host for it, or its host has been silent for too long.
        return View("Error", capsule.placement.failure)
    if report is None:
        return View("Creating", None)
    every = [*report.init_containers, *report.containers]
    for c in every:
        if c.state == "waiting" and c.reason not in _ON_THE_WAY and c.reason != _CRASHING:
            return View("Error", _told(c))
    for c in every:
        if c.state == "waiting" and c.reason == _CRASHING:
            return View("Restarting", _told(c))
    if report.phase == "Running":
        return View("Running", None)
    return View("Creating", report.message or capsule.report.reason)


def _over(capsule: Capsule, report: PodReport) -> View:
    """Every container has ended for good."""
    if report.reason or capsule.report.state == "error":
        why = f"{report.reason}: {report.message}" if report.reason and report.message else report.reason
        return View("Error", why or report.message or capsule.report.reason)
    for c in (*report.init_containers, *report.containers):
        if c.ended is not None and c.ended.reason in _NEVER_RAN:
            return View("Error", _told_end(c.name, c.ended))
    for c in (*report.init_containers, *report.containers):
        if c.ended is not None and c.ended.exit_code != 0:
            return View("Stopped", _told_end(c.name, c.ended))
    return View("Stopped", None)


def _told(c: PodContainerReport) -> str:
    why = f"{c.reason}: {c.message}" if c.message else c.reason
    return f"Container {c.name}: {why}"


def _told_end(name: str, ended: Ended) -> str | None:
    return f"Container {name}: {_why_ended(ended) or f'it ended with exit code {ended.exit_code}'}"


def _why_ended(ended: Ended) -> str | None:
    """What a person cannot see from the exit code."""
    if ended.reason == "OOMKilled":
        return "It needed more memory than its limit, and was killed. Give it more."
    if ended.reason in _NEVER_RAN or ended.reason == _LOST:
        return f"{ended.reason}: {ended.message}" if ended.message else ended.reason
    return ended.message or None


def container_view(capsule: Capsule, spec: Container, place: Place, now_us: int) -> ContainerView:
    """The words for one container of a capsule."""
    status, reason, timed = container_words(capsule, spec, place)
    detail = None if timed is None else zun_status.status_detail(status, timed, now_us)
    return ContainerView(status, reason, detail)


def container_words(capsule: Capsule, spec: Container, place: Place) -> ContainerWords:
    """The words for one container of a capsule, but for those that change with time."""
    pod = capsule.report.pod
    reports = [] if pod is None else pod.init_containers if place == "init" else pod.containers
    c = next((r for r in reports if r.name == spec.name), None)
    if c is None or (c.state == "waiting" and c.reason in _ON_THE_WAY):
        whole = view(capsule)
        if whole.status in ("Error", "Stopped") and (c is None or pod is None or pod.phase in ("Succeeded", "Failed")):
            # It will never run: the capsule ended, or was never placed.
            return ContainerWords("Error", whole.status_reason)
        return ContainerWords("Deleting" if whole.status == "Deleting" else "Creating", None)
    if c.state == "running":
        return ContainerWords("Running", None, _timed(c, None))
    if c.state == "waiting":
        why = f"{c.reason}: {c.message}" if c.message else c.reason
        return ContainerWords("Restarting" if c.reason == _CRASHING else "Error", why, _timed(c, c.last))
    ended = c.ended or Ended(0)
    status: Status = "Error" if ended.reason in _NEVER_RAN else "Stopped"
    return ContainerWords(status, _why_ended(ended), _timed(c, ended))


def _timed(c: PodContainerReport, ended: Ended | None) -> ContainerReport:
    return ContainerReport(
        name=c.name,
        exit_code=None if ended is None else ended.exit_code,
        started_us=c.started_us,
        finished_us=None if ended is None else ended.finished_us,
    )
