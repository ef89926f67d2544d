"""The capsules of the fake cloud: objects in Kubernetes' shape whose states follow a script of the test."""

from __future__ import annotations

import asyncio
import copy
import json
import struct
import uuid
from datetime import UTC, datetime

from aiohttp import web


def now():
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind, status, **more):
    return {"type": kind, "status": "True" if status else "False", "lastTransitionTime": now(), **more}


def waiting(reason, message="", restarts=0, **more):
    """A container's status: it waits."""
    return {
        "state": {"waiting": {"reason": reason, "message": message}},
        "ready": False,
        "restartCount": restarts,
        **more,
    }


def running(*, ready=True, restarts=0):
    """A container's status: it runs."""
    return {"state": {"running": {"startedAt": now()}}, "ready": ready, "started": True, "restartCount": restarts}


def ended(code=0, reason="", restarts=0, **more):
    """A container's status: it has ended."""
    reason = reason or ("Error" if code else "Completed")
    inner = {"exitCode": code, "reason": reason, "startedAt": now(), "finishedAt": now(), **more}
    return {"state": {"terminated": inner}, "ready": False, "restartCount": restarts}


def status(phase, *containers, inits=(), conditions=(), observed=1, **more):
    """A PodStatus. Containers in the order of the spec; conditions that are not given follow from them."""
    kinds = {c["type"] for c in conditions}
    alright = phase == "Running" and all(c["ready"] for c in containers)
    derived = [condition("PodScheduled", True), condition("Initialized", phase != "Pending" or not inits)]
    derived.append(condition("Ready", alright))
    return {
        "phase": phase,
        "conditions": [*conditions, *(c for c in derived if c["type"] not in kinds)],
        "observedGeneration": observed,
        "qosClass": "BestEffort",
        "podIP": "10.64.0.2",
        "podIPs": [{"ip": "10.64.0.2"}],
        "startTime": now(),
        "initContainerStatuses": list(inits),
        "containerStatuses": list(containers),
        **more,
    }


def unplaced(why):
    """A PodStatus: no host takes it."""
    none = [condition("PodScheduled", False, reason="Unschedulable", message=why)]
    return {"phase": "Pending", "conditions": none, "containerStatuses": [waiting("ContainerCreating")]}


def problem(code, kind, message, detail=None):
    error = {"code": f"container.{kind}", "status": code, "title": message, "detail": detail or message}
    return web.json_response({"errors": [error]}, status=code)


class FakeCapsules:
    """`scripts`: by name, what comes after the create: [(seconds, status), ...]; else it is ready at once."""

    def __init__(self):
        self.items = []
        self.changes = []
        self.revision = 10
        self.scripts = {}
        self.events = {}
        self.logs = {}
        self.stats = []
        self.bodies = []
        self.queries = []
        self.warnings = []
        self.refusal = None
        self.linger_s = 0.0
        self.break_watch = False
        self.forgets = False

    def routes(self):
        base = "/askos/v1/capsules"
        return [
            web.get(base, self._list),
            web.post(base, self._create),
            web.get(f"{base}/stats", self._stats),
            web.get(base + "/{id}", self._show),
            web.put(base + "/{id}", self._replace),
            web.patch(base + "/{id}", self._patch),
            web.delete(base + "/{id}", self._delete),
            web.get(base + "/{id}/events", self._events),
            web.get(base + "/{id}/logs", self._logs),
            web.get(base + "/{id}/stats", self._stats),
            web.get(base + "/{id}/portforward", self._portforward),
        ]

    # -- state

    def add(self, name, status_, *, namespace="default", spec=None, labels=None):
        """A capsule that is there already."""
        spec = spec or {"containers": [{"name": c["name"], "image": "busybox"} for c in status_["containerStatuses"]]}
        body = {"metadata": {"name": name, "namespace": namespace, "labels": labels or {}}, "spec": spec}
        made = self._made(body)
        self._set(made, status_)
        return made

    def find(self, ident, namespace=None):
        def fits(each):
            metadata = each["metadata"]
            return ident == each["id"] or (ident == metadata["name"] and namespace in (None, metadata["namespace"]))

        return next((each for each in self.items if fits(each)), None)

    def _made(self, body):
        ident = str(uuid.uuid4())
        metadata = body["metadata"]
        made = {
            "apiVersion": "askos/v1",
            "kind": "Capsule",
            "id": ident,
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata.get("namespace", "default"),
                "uid": ident,
                "labels": metadata.get("labels", {}),
                "annotations": metadata.get("annotations", {}),
                "generation": 1,
                "creationTimestamp": now(),
                "resourceVersion": str(self.revision),
            },
            "spec": body["spec"],
            "status": {"phase": "Pending", "conditions": [condition("PodScheduled", True)], "containerStatuses": []},
            "host": "host-1",
        }
        self.items.append(made)
        self._changed("ADDED", made)
        return made

    def _set(self, each, status_):
        each["status"] = copy.deepcopy(status_)
        names = {
            "containerStatuses": [c["name"] for c in each["spec"].get("containers", [])],
            "initContainerStatuses": [c["name"] for c in each["spec"].get("initContainers", [])],
        }
        for part, known in names.items():
            for name, c in zip(known, each["status"].get(part, []), strict=False):
                c.setdefault("name", name)
        self._changed("MODIFIED", each)

    def _changed(self, kind, each):
        self.revision += 1
        each["metadata"]["resourceVersion"] = str(self.revision)
        self.changes.append((self.revision, kind, copy.deepcopy(each)))

    async def _play(self, each, script):
        for delay_s, status_ in script:
            await asyncio.sleep(delay_s)
            if each not in self.items:
                return
            if status_ is None:
                self.items.remove(each)
                self._changed("DELETED", each)
                return
            self._set(each, status_)

    def _begin(self, each, default):
        script = self.scripts.get(each["metadata"]["name"], default)
        self.task = asyncio.get_running_loop().create_task(self._play(each, script))

    # -- requests

    def _given(self, request):
        self.queries.append((request.method, request.path, dict(request.query)))
        each = self.find(request.match_info["id"], request.query.get("namespace"))
        if each is None:
            text = f"Capsule {request.match_info['id']} could not be found."
            return None, problem(404, "capsule-not-found", text)
        return each, None

    async def _list(self, request):
        query = request.query
        if query.get("watch") == "true":
            return await self._watch(request)
        self.queries.append((request.method, request.path, dict(query)))
        found = [e for e in self.items if query.get("namespace") in (None, e["metadata"]["namespace"])]
        if "labelSelector" in query:
            key, _, value = query["labelSelector"].partition("=")
            found = [e for e in found if e["metadata"]["labels"].get(key) == value]
        begin = int(query.get("continue") or 0)
        limit = min(int(query["limit"]), 2)  # so that pages are followed
        metadata = {"resourceVersion": str(self.revision)}
        if len(found) > begin + limit:
            metadata["continue"] = str(begin + limit)
        return web.json_response({"items": found[begin : begin + limit], "metadata": metadata})

    async def _watch(self, request):
        revision = int(request.query["resourceVersion"])
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        loop = asyncio.get_running_loop()
        until = loop.time() + float(request.query.get("timeoutSeconds") or 60)
        if self.forgets:
            self.forgets = False
            gone = {"type": "ERROR", "object": {"code": 410, "message": "forgotten"}}
            await answer.write(json.dumps(gone).encode() + b"\n")
        while loop.time() < until:
            if self.break_watch:
                self.break_watch = False
                request.transport.abort()
                return answer
            for number, kind, each in list(self.changes):
                if number > revision:
                    revision = number
                    await answer.write(json.dumps({"type": kind, "object": each}).encode() + b"\n")
            await asyncio.sleep(0.02)
        await answer.write_eof()
        return answer

    async def _create(self, request):
        body = await request.json()
        self.bodies.append(body)
        if self.refusal:
            return problem(400, "invalid", *self.refusal)
        if self.find(body["metadata"]["name"], body["metadata"].get("namespace", "default")):
            return problem(409, "already-exists", f'There is a capsule "{body["metadata"]["name"]}" already.')
        made = self._made(body)
        answer = web.json_response(made, status=201)
        for text in self.warnings:
            answer.headers.add("Warning", f'299 - "{text}"')
        self._begin(made, [(0.0, status("Running", *(running() for _ in made["spec"]["containers"])))])
        return answer

    async def _show(self, request):
        each, missing = self._given(request)
        return missing or web.json_response(each)

    async def _replace(self, request):
        each, missing = self._given(request)
        if missing:
            return missing
        body = await request.json()
        self.bodies.append(body)
        if each["spec"] != body["spec"] or "content" in body:
            each["spec"] = body["spec"]
            each["metadata"]["generation"] += 1
            self._changed("MODIFIED", each)
            generation = each["metadata"]["generation"]
            self._begin(each, [(0.0, status("Running", running(restarts=5), observed=generation))])
        return web.json_response(each)

    async def _patch(self, request):
        each, missing = self._given(request)
        if missing:
            return missing
        for key, value in (await request.json())["metadata"]["labels"].items():
            if value is None:
                each["metadata"]["labels"].pop(key, None)
            else:
                each["metadata"]["labels"][key] = value
        return web.json_response(each)

    async def _delete(self, request):
        each, missing = self._given(request)
        if missing:
            return missing
        grace = int(request.query.get("gracePeriodSeconds", 30))
        each["metadata"] |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": grace}
        self.gone = asyncio.get_running_loop().create_task(self._play(each, [(self.linger_s, None)]))
        return web.json_response(each, status=202)

    async def _events(self, request):
        each, missing = self._given(request)
        return missing or web.json_response({"items": self.events.get(each["metadata"]["name"], [])})

    async def _logs(self, request):
        _, missing = self._given(request)
        if missing:
            return missing
        found = self.logs.get(request.query.get("container", "main"))
        if found is None:
            return problem(400, "invalid", "it is waiting to start")
        answer = web.StreamResponse()
        await answer.prepare(request)
        for piece in found:
            await answer.write(piece)
            await asyncio.sleep(0.01)
        await answer.write_eof()
        return answer

    async def _stats(self, request):
        name = request.match_info.get("id")
        return web.json_response({"items": [s for s in self.stats if name in (None, s["name"])]})

    async def _portforward(self, request):
        """Says what it was sent, in capitals, when that has ended."""
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await socket.prepare(request)
        port = struct.pack("<H", int(request.query["port"]))
        for channel in (0, 1):
            await socket.send_bytes(bytes([channel]) + port)
        if request.query["port"] == "81":
            await socket.send_bytes(b"\1connection refused by 81")
        else:
            given = b""
            async for message in socket:
                if message.data[0] == 255:
                    break
                given += message.data[1:]
            await socket.send_bytes(b"\0" + given.upper())
        await socket.send_bytes(b"\xff\0")
        await socket.close()
        return socket
