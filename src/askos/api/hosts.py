"""Zun's /v1/hosts, /v1/availability_zones and /v1/services: three views of the machines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from askos.api import paging, policy, schemas
from askos.api.core import Request, json_response
from askos.api.errors import invalid_query
from askos.model.errors import NotFoundError
from askos.model.hosts import Host, HostUse
from askos.ports.admin_store import ServiceStore

BINARY = "zun-compute"
"""What Zun calls the program of a host."""
DOWN_AFTER_US = 180_000_000
"""A host that is silent for so long is down, as in Zun."""

_HOSTS = paging.Collected(
    "hosts",
    (
        *("uuid", "hostname", "mem_total", "mem_used", "cpus", "cpu_used", "disk_total", "disk_used"),
        *("total_containers", "architecture", "os_type", "os", "kernel_version"),
    ),
    "hostname",
)
_ZONES = paging.Collected("availability_zones", ("availability_zone",), "availability_zone")

_NAME: schemas.Schema = {"type": "string", "minLength": 1, "maxLength": 255}
SERVICE_QUERY: schemas.Schema = {
    "type": "object",
    "properties": {"host": _NAME, "binary": _NAME},
    "additionalProperties": False,
}
DISABLE_QUERY: schemas.Schema = {
    "type": "object",
    "properties": {"host": _NAME, "binary": _NAME, "disabled_reason": {"type": "string", "maxLength": 255}},
    "additionalProperties": False,
}
FORCE_DOWN_QUERY: schemas.Schema = {
    "type": "object",
    "properties": {"host": _NAME, "binary": _NAME, "forced_down": schemas.BOOLEAN},
    "additionalProperties": False,
}


class Hosts:
    """The handlers."""

    def __init__(self, store: ServiceStore, clock: Callable[[], int], zones: set[str]) -> None:
        self._store = store
        self._clock = clock
        self._zones = zones

    # -- hosts -------------------------------------------------------------------------------------------------

    async def list(self, request: Request) -> web.Response:
        """GET a page of hosts."""
        policy.enforce(request.caller, "host:get_all")
        uses = await self._store.host_uses()
        items = [paging.Item(u.host.facts.uuid, u.host.number, _host(request, u)) for u in uses]
        return json_response(paging.page(request, _HOSTS, items))

    async def show(self, request: Request) -> web.Response:
        """GET one, by uuid or name."""
        policy.enforce(request.caller, "host:get")
        ident = request.arguments["ident"]
        for use in await self._store.host_uses():
            if ident in (use.host.facts.uuid, use.host.facts.hostname):
                return json_response(_host(request, use))
        raise NotFoundError(f"Compute node {ident} could not be found.", "compute-node-not-found")

    async def zones(self, request: Request) -> web.Response:
        """GET the zones of the hosts, and those that creates may name."""
        policy.enforce(request.caller, "availability_zones:get_all")
        names = {u.host.availability_zone for u in await self._store.host_uses()} | self._zones
        items = [paging.Item(n, order, {"availability_zone": n}) for order, n in enumerate(sorted(names))]
        return json_response(paging.page(request, _ZONES, items))

    # -- services ----------------------------------------------------------------------------------------------

    async def services(self, request: Request) -> web.Response:
        """GET all services: one for each host."""
        policy.enforce(request.caller, "zun-service:get_all")
        found = sorted((u.host for u in await self._store.host_uses()), key=lambda host: host.number)
        return json_response({"services": [self._service(host) for host in found]})

    async def enable(self, request: Request) -> web.Response:
        """PUT: the host gets capsules again."""
        policy.enforce(request.caller, "zun-service:enable")
        host = await self._store.change_service(_named(request), disabled=False)
        return json_response({"service": _switched(host)})

    async def disable(self, request: Request) -> web.Response:
        """PUT: the host gets no more capsules; those that it has stay."""
        policy.enforce(request.caller, "zun-service:disable")
        reason = request.query.get("disabled_reason")
        host = await self._store.change_service(_named(request), disabled=True, disabled_reason=reason)
        return json_response({"service": _switched(host)})

    async def force_down(self, request: Request) -> web.Response:
        """PUT: the host counts as down, or not any more."""
        policy.enforce(request.caller, "zun-service:force_down")
        name, word = _named(request), request.query.get("forced_down")
        if word is None:
            raise invalid_query("forced_down", "", "a boolean word is required")
        host = await self._store.change_service(name, forced_down=schemas.boolean(word, False))
        shown = {"host": host.facts.hostname, "binary": BINARY, "forced_down": host.forced_down}
        return json_response({"service": shown})

    async def delete(self, request: Request) -> web.Response:
        """DELETE the record of a host that is gone."""
        policy.enforce(request.caller, "zun-service:delete")
        await self._store.forget_service(_named(request))
        return json_response(None)

    def _service(self, host: Host) -> dict[str, Any]:
        fresh = host.connected and self._clock() - host.last_seen_us <= DOWN_AFTER_US
        return {
            "id": host.number,
            "host": host.facts.hostname,
            "binary": BINARY,
            "state": "up" if fresh and not host.forced_down else "down",
            "disabled": host.disabled,
            "disabled_reason": host.disabled_reason,
            "forced_down": host.forced_down,
            "last_seen_up": _time(host.last_seen_us),
            "report_count": host.report_count,
            "availability_zone": host.availability_zone,
            "created_at": _time(host.created_us),
            "updated_at": _time(host.updated_us),
        }


def _named(request: Request) -> str:
    """The host that is meant. A 400 when something is missing, a 404 when there is no such program."""
    for name in ("host", "binary"):
        if not request.query.get(name):
            raise invalid_query(name, "", "it is required")
    host, binary = str(request.query["host"]), str(request.query["binary"])
    if binary != BINARY:
        raise NotFoundError(f"Zun service {binary} on host {host} could not be found.", "zun-service-not-found")
    return host


def _switched(host: Host) -> dict[str, Any]:
    return {
        "host": host.facts.hostname,
        "binary": BINARY,
        "disabled": host.disabled,
        "disabled_reason": host.disabled_reason,
    }


def _host(request: Request, use: HostUse) -> dict[str, Any]:
    facts = use.host.facts
    return {
        "uuid": facts.uuid,
        "links": paging.links(request, "hosts", facts.uuid),
        "hostname": facts.hostname,
        "mem_total": facts.memory_mib,
        "mem_used": use.memory_mib,
        "cpus": facts.cpus,
        "cpu_used": use.cpu_milli / 1000,
        "disk_total": facts.disk_gib,
        "disk_used": use.disk_gib,
        "disk_quota_supported": True,
        "total_containers": use.capsules,
        "architecture": facts.architecture,
        "os_type": "linux",
        "os": facts.os,
        "kernel_version": facts.kernel_version,
        "labels": facts.labels,
        "runtimes": list(facts.runtimes),
        "enable_cpu_pinning": True,
    }


def _time(us: int) -> str:
    """Here with a "T", and whole seconds: Zun's services alone have it so."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000")
