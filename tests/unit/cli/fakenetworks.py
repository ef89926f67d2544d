"""Neutron's part of the made-up cloud: things in dictionaries, with Neutron's bodies and errors."""

from __future__ import annotations

import uuid

from aiohttp import web

SINGLE = {
    "networks": "network", "subnets": "subnet", "ports": "port", "security-groups": "security_group",
    "security-group-rules": "security_group_rule", "floatingips": "floatingip",
}  # fmt: skip


def problem(status, kind, message):
    body = {"NeutronError": {"type": kind, "message": message, "detail": ""}}
    return web.json_response(body, status=status)


class FakeNetworks:
    def __init__(self):
        self.things = {path: {} for path in SINGLE}
        self.offered = True
        self.add("networks", id="out", name="public", **{"router:external": True, "shared": False})
        self.add("security-groups", id="sg-1", name="default", description="", security_group_rules=[])

    def add(self, path, **thing):
        thing.setdefault("id", str(uuid.uuid4()))
        self.things[path][thing["id"]] = thing
        return thing

    def routes(self):
        base = "/networking/v2.0/{path}"
        return [
            web.get(base, self._list),
            web.post(base, self._create),
            web.get(base + "/{id}", self._show),
            web.put(base + "/{id}", self._update),
            web.delete(base + "/{id}", self._remove),
        ]

    def _of(self, request):
        path = request.match_info["path"]
        return path, SINGLE[path], self.things[path].get(request.match_info.get("id"))

    async def _list(self, request):
        path, _single, _ = self._of(request)
        query = request.query
        found = [t for t in self.things[path].values() if all(str(t.get(k)) == v for k, v in query.items())]
        plural = path.replace("-", "_")
        return web.json_response({plural: found})

    async def _create(self, request):
        path, single, _ = self._of(request)
        body = (await request.json())[single]
        if body.get("cidr") == "0.0.0.0/0":
            return problem(400, "InvalidInput", "Invalid input for operation: that is everything.")
        if path == "floatingips":
            usual = {"floating_ip_address": "172.24.4.7", "fixed_ip_address": None, "port_id": None, "status": "DOWN"}
            body = {**usual, **body}
        return web.json_response({single: self.add(path, **body)}, status=201)

    async def _show(self, request):
        _, single, found = self._of(request)
        if found is None:
            return problem(404, "NotFound", "It could not be found.")
        return web.json_response({single: found})

    async def _update(self, request):
        _, single, found = self._of(request)
        found |= (await request.json())[single]
        return web.json_response({single: found})

    async def _remove(self, request):
        path, _, found = self._of(request)
        if found is None:
            return problem(404, "NotFound", "It could not be found.")
        if found.get("name") == "busy":
            return problem(409, "NetworkInUse", "Unable to complete operation on network busy. It is in use.")
        del self.things[path][found["id"]]
        return web.Response(status=204)
