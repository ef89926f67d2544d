"""Zun's words for capsules follow from what is true."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest

from askos.model.capsules import Capsule, CapsuleSpec, Placement, Report, Wish
from askos.model.pods import Container, Ended, Pod, PodContainerReport, PodMetadata, PodReport, PodSpec
from askos.plan import zun_capsules

UUID = "8c2d4f4a-3f0e-4b4a-9d0e-0c5b1f0f7a11"
SECOND = 1_000_000
NOW = 10_000 * SECOND


def capsule(pod: PodReport | None = None, **more: Any) -> Capsule:
    spec = PodSpec([Container("app", "x"), Container("web", "x")], [Container("init", "x")])
    return Capsule(
        UUID, "p", "u", "pod", "capsule", CapsuleSpec(pod=Pod(PodMetadata("pod"), spec)),
        wish=more.pop("wish", Wish("running", run=1)),
        placement=more.pop("placement", Placement("h", 1)),
        report=Report(1, pod=pod, **more),
        created_us=0,
    )  # fmt: skip


def waiting(name: str, reason: str = "ContainerCreating", message: str = "", **more: Any) -> PodContainerReport:
    return PodContainerReport(name, reason=reason, message=message, **more)


def running(name: str) -> PodContainerReport:
    return PodContainerReport(name, "running", started_us=NOW - 61 * SECOND)


def ended(name: str, code: int = 0, reason: str = "Completed", message: str = "") -> PodContainerReport:
    how = Ended(code, reason=reason, message=message, finished_us=NOW - 5 * SECOND)
    return PodContainerReport(name, "terminated", ended=how)


def pod(phase: Any, init: PodContainerReport, *apps: PodContainerReport, **more: Any) -> PodReport:
    return PodReport(phase, init_containers=[init], containers=list(apps), **more)


DONE = ended("init")
NOT_YET = [waiting("app", "PodInitializing"), waiting("web", "PodInitializing")]

CASES: list[tuple[str, PodReport | None, dict[str, Any], tuple[str, str | None], tuple[str, str, str]]] = [
    ("accepted", None, {"placement": Placement()}, ("Creating", None), ("Creating", "Creating", "Creating")),
    ("placed", None, {}, ("Creating", None), ("Creating", "Creating", "Creating")),
    ("no host", None, {"placement": Placement(failure="There are not enough hosts available.")},
     ("Error", "There are not enough hosts available."), ("Error", "Error", "Error")),
    ("init runs", pod("Pending", running("init"), *NOT_YET), {}, ("Creating", None), ("Running", "Creating", "Creating")),
    ("init fails again and again", pod("Pending", waiting("init", "CrashLoopBackOff", "back-off 10s"), *NOT_YET), {},
     ("Restarting", "Container init: CrashLoopBackOff: back-off 10s"), ("Restarting", "Creating", "Creating")),
    ("no image", pod("Pending", DONE, waiting("app", "ImagePullBackOff", "not found"), running("web")), {},
     ("Error", "Container app: ImagePullBackOff: not found"), ("Stopped", "Error", "Running")),
    ("runs", pod("Running", DONE, running("app"), running("web")), {}, ("Running", None), ("Stopped", "Running", "Running")),
    ("one is done", pod("Running", DONE, running("app"), ended("web")), {}, ("Running", None), ("Stopped", "Running", "Stopped")),
    ("crash loop", pod("Running", DONE, running("app"), waiting("web", "CrashLoopBackOff")), {},
     ("Restarting", "Container web: CrashLoopBackOff"), ("Stopped", "Running", "Restarting")),
    ("bad name goes before crash loop",
     pod("Running", DONE, waiting("app", "CrashLoopBackOff"), waiting("web", "InvalidImageName")), {},
     ("Error", "Container web: InvalidImageName"), ("Stopped", "Restarting", "Error")),
    ("all done", pod("Succeeded", DONE, ended("app"), ended("web")), {"state": "exited"},
     ("Stopped", None), ("Stopped", "Stopped", "Stopped")),
    ("one failed", pod("Failed", DONE, ended("app"), ended("web", 3, "Error")), {"state": "exited"},
     ("Stopped", "Container web: it ended with exit code 3"), ("Stopped", "Stopped", "Stopped")),
    ("no such program", pod("Failed", DONE, ended("app", 128, "StartError", "no such file"), ended("web", 137, "Error")),
     {"state": "exited"}, ("Error", "Container app: StartError: no such file"), ("Stopped", "Error", "Stopped")),
    ("init failed for good", pod("Failed", ended("init", 1, "Error"), *NOT_YET), {"state": "exited"},
     ("Stopped", "Container init: it ended with exit code 1"), ("Stopped", "Error", "Error")),
    ("deadline", pod("Failed", DONE, ended("app", 137, "DeadlineExceeded"), ended("web"), reason="DeadlineExceeded", message="too long"),
     {"state": "error"}, ("Error", "DeadlineExceeded: too long"), ("Stopped", "Stopped", "Stopped")),
    ("lost", pod("Running", DONE, running("app"), running("web")), {"placement": Placement("h", 1, "host h is silent")},
     ("Error", "host h is silent"), ("Stopped", "Running", "Running")),
    ("over, then lost", pod("Succeeded", DONE, ended("app"), ended("web")), {"placement": Placement("h", 1, "silent")},
     ("Stopped", None), ("Stopped", "Stopped", "Stopped")),
    ("deleting", pod("Running", DONE, running("app"), waiting("web")), {"wish": Wish("deleted", 2)},
     ("Deleting", None), ("Stopped", "Running", "Deleting")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("report", "more", "whole", "parts"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_words(
    report: PodReport | None, more: dict[str, Any], whole: tuple[str, str | None], parts: tuple[str, str, str]
) -> None:
    given = capsule(report, **more)
    assert zun_capsules.view(given) == whole
    assert given.spec.pod is not None
    spec = given.spec.pod.spec
    found = [zun_capsules.container_view(given, spec.init_containers[0], "init", NOW)]
    found += [zun_capsules.container_view(given, c, "app", NOW) for c in spec.containers]
    assert tuple(view.status for view in found) == parts


def test_details_and_reasons() -> None:
    report = pod("Running", DONE, running("app"), ended("web", 137, "OOMKilled"))
    given = capsule(report)
    assert given.spec.pod is not None
    app, web = (zun_capsules.container_view(given, c, "app", NOW) for c in given.spec.pod.spec.containers)
    assert app == ("Running", None, "Up 1 mins")
    assert web.status_detail == "Exited(137) 5 seconds ago (error)"
    assert web.status_reason is not None and "more memory than its limit" in web.status_reason
    back_off = msgspec.structs.replace(
        waiting("web", "CrashLoopBackOff", "back-off 20s"), last=Ended(2, finished_us=NOW)
    )
    given = capsule(pod("Running", DONE, running("app"), back_off))
    view = zun_capsules.container_view(given, Container("web", "x"), "app", NOW)
    assert view == ("Restarting", "CrashLoopBackOff: back-off 20s", "Restarting")


def test_uuids_of_containers() -> None:
    app = zun_capsules.container_uuid(UUID, "app", "web")
    assert app == str(uuid.uuid5(uuid.UUID(UUID), "app/web"))
    assert app != zun_capsules.container_uuid(UUID, "init", "web")
