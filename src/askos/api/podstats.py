"""What capsules use now: /askos/v1/capsules/{id}/stats and /askos/v1/capsules/stats."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from askos.api import policy, schemas
from askos.api.core import Request, json_response
from askos.api.podview import time_text
from askos.model.capsules import Capsule
from askos.model.errors import UnavailableError
from askos.ports.calls import HostCalls
from askos.ports.store import Query, Store

TIMEOUT_S = 10.0
_PAGE = 1000


class Stats:
    """The handlers. `find`: the capsule of a request's path."""

    def __init__(self, find: Callable[[Request], Awaitable[Capsule]], store: Store, calls: HostCalls) -> None:
        self._find = find
        self._store = store
        self._calls = calls

    async def show(self, request: Request) -> web.Response:
        """GET one capsule's. UnavailableError when its host does not answer."""
        capsule = await self._find(request)
        samples: list[dict[str, Any]] = []
        if capsule.placement.host_uuid is not None:
            samples = await self._ask(capsule.placement.host_uuid, [capsule])
        return json_response({"items": [_item(capsule, samples)]})

    async def all(self, request: Request) -> web.Response:
        """GET those of all running capsules of the project. What lies on hosts that do not answer is left out."""
        caller, query = request.caller, request.query
        policy.enforce(caller, "capsule:get_all")
        everywhere = schemas.boolean(query.get("all_projects"), False)
        if everywhere:
            policy.enforce(caller, "capsule:get_all_all_projects")
        capsules = await self._running(None if everywhere else caller.project_id, query.get("namespace") or None)
        by_host: dict[str, list[Capsule]] = {}
        for capsule in capsules:
            by_host.setdefault(str(capsule.placement.host_uuid), []).append(capsule)
        answers = await asyncio.gather(*(self._tried(host, mine) for host, mine in by_host.items()))
        items = [
            _item(c, samples) for mine, samples in zip(by_host.values(), answers, strict=True) for c in mine if samples
        ]
        return json_response({"items": items})

    async def _running(self, project_id: str | None, namespace: str | None) -> list[Capsule]:
        found: list[Capsule] = []
        after = 0
        while True:
            page = await self._store.capsules(
                Query(kind="capsule", project_id=project_id, namespace=namespace, limit=_PAGE, after=after)
            )
            found += [c for c in page if c.report.state == "running" and c.placement.host_uuid is not None]
            if len(page) < _PAGE:
                return found
            after = page[-1].id

    async def _tried(self, host: str, capsules: list[Capsule]) -> list[dict[str, Any]]:
        try:
            return await self._ask(host, capsules)
        except UnavailableError:
            return []

    async def _ask(self, host: str, capsules: list[Capsule]) -> list[dict[str, Any]]:
        arguments = {"capsules": [c.uuid for c in capsules]}
        return list(await self._calls.call(host, "stats", arguments, TIMEOUT_S))


def _item(capsule: Capsule, samples: list[dict[str, Any]]) -> dict[str, Any]:
    pod = capsule.spec.pod
    return {
        "id": capsule.uuid,
        "name": capsule.name,
        "namespace": pod.metadata.namespace if pod is not None else "",
        "containers": [_container(s) for s in samples if s["capsule_uuid"] == capsule.uuid],
    }


def _container(sample: dict[str, Any]) -> dict[str, Any]:
    shown = {
        "name": sample["name"],
        "time": time_text(sample["at_us"]),
        "cpuUsageNanoSeconds": sample["cpu_ns"],
        "cpuUsageNanoCores": sample["nano_cores"],
        "memoryUsageBytes": sample["memory_usage_bytes"],
        "memoryWorkingSetBytes": sample["memory_bytes"],
        "memoryRssBytes": sample["rss_bytes"],
        "rootfsUsedBytes": sample["layer_bytes"],
        "pids": sample["pids"],
        "startTime": time_text(sample["started_us"]),
    }
    return {name: value for name, value in shown.items() if value is not None}
