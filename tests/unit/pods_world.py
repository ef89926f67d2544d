"""Manifests, and capsules in states that their hosts would report."""

from __future__ import annotations

from typing import Any

import msgspec

from askos.model.capsules import CapsuleReport, Report
from askos.model.pods import Condition, Ended, Event, PodContainerReport, PodReport

from .cloud import HOST, NOW, Cloud

CAPSULES = "/askos/v1/capsules"


def pod(name: str = "web", **more: Any) -> dict[str, Any]:
    """A small manifest; `more` goes into its spec, but for metadata and content."""
    metadata = {"name": name, **more.pop("metadata", {})}
    content = more.pop("content", None)
    spec = {"containers": [{"name": "app", "image": "busybox:1.36", "command": ["sleep", "9"]}], **more}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return body if content is None else {**body, "content": content}


async def make(cloud: Cloud, token: str, name: str = "web", **more: Any) -> dict[str, Any]:
    """Create a capsule; returns it as it was answered."""
    made = await cloud.ask("POST", CAPSULES, token, version=None, body=pod(name, **more))
    assert made.status == 201, made
    return dict(made.body)


async def labelled(cloud: Cloud, token: str, name: str, **labels: str) -> str:
    """Create a capsule with labels; returns its id."""
    return str((await make(cloud, token, name, metadata={"labels": labels}))["id"])


async def relabel(cloud: Cloud, token: str, uuid: str, **labels: str | None) -> None:
    got = await cloud.ask("PATCH", f"{CAPSULES}/{uuid}", token, version=None, body={"metadata": {"labels": labels}})
    assert got.status == 200, got


def running(name: str = "app", **more: Any) -> PodContainerReport:
    return PodContainerReport(
        name, "running", started_us=NOW, ready=True, started=True, container_id="c1", image_id="sha256:1", **more
    )


def ended(name: str = "app", code: int = 0, **more: Any) -> PodContainerReport:
    how = Ended(code, reason="Completed" if code == 0 else "Error", started_us=NOW, finished_us=NOW + 5_000_000)
    return PodContainerReport(name, "terminated", ended=how, container_id="c1", **more)


async def report(
    cloud: Cloud,
    uuid: str,
    *containers: PodContainerReport,
    phase: str = "Running",
    gone: bool = False,
    events: list[Event] | None = None,
    **more: Any,
) -> None:
    """What its agent would say."""
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    ready = all(c.ready for c in containers)
    conditions = [
        Condition(word, ready, "" if ready else "ContainersNotReady", changed_us=NOW)
        for word in ("Ready", "ContainersReady")
    ]
    told = PodReport(
        phase,  # type: ignore[arg-type]
        start_us=NOW, containers=list(containers), conditions=conditions, host_ip="192.0.2.7", **more,
    )  # fmt: skip
    state: Any = {"Pending": "none", "Running": "running"}.get(phase, "exited")
    body = Report(capsule.wish.generation, True, state, pod=told)
    sent = CapsuleReport(uuid, capsule.placement.epoch, body, gone, events or [])
    await cloud.store.apply_reports(HOST, [sent])


async def remove(cloud: Cloud, uuid: str) -> None:
    """Its host has removed it."""
    await report(cloud, uuid, ended(code=143), phase="Failed", gone=True)


def without_clock(body: dict[str, Any]) -> dict[str, Any]:
    """A capsule without what grows by itself."""
    metadata = {k: v for k, v in body["metadata"].items() if k not in ("resourceVersion", "generation")}
    return {**msgspec.json.decode(msgspec.json.encode(body)), "metadata": metadata}
