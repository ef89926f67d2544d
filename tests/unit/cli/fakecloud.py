"""A cloud for the tests of client and CLI: Keystone's login, Zun's containers, and our native API, over real HTTP.

Bodies have the shape of those recorded from a real Zun. "Containers" are local processes, so that exit codes,
signals, streams and terminals are real ones. It runs in a thread of its own and listens on loopback only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import struct
import threading
import uuid

from aiohttp import web
from fakecapsules import FakeCapsules
from fakecontainer import Container, problem
from fakeexec import Exec
from fakenetworks import FakeNetworks

WORDS = {"unknown:1": "image unknown:1 was not found in any registry"}
PROGRAMS = {"sh", "cat", "sleep", "echo", "true", "head", "env", "pwd", "stty", "printf"}


def timed(log):
    """The whole lines of a log with times in front; some have the same one."""
    texts = [(channel, line) for channel, data in log for line in data.splitlines(keepends=True)]
    stamps = (b"2026-11-21T08:00:00.%03d5Z " % (number // 2) for number in range(len(texts)))
    return [(channel, stamp + line) for (channel, line), stamp in zip(texts, stamps, strict=True)]


class FakeCloud:
    """Start it as a context manager. `seen` holds "METHOD path?query" of all requests, in order."""

    def __init__(self, tls=None):
        self.tls = tls
        self.user, self.password, self.project = "admin", "s3cr't $pass", "demo"
        self.containers: list[Container] = []
        self.images = {"busybox:latest": b""}
        self.volumes = {}
        self.capsules = FakeCapsules()
        self.networks = FakeNetworks()
        self.files: dict[str, bytes] = {}
        self.registries = {}
        self.tokens: set[str] = set()
        self.seen: list[str] = []
        self.bodies: list[dict] = []
        self.logins = 0
        self.page_size = 1000
        self.native = True
        self.attach = False
        self.break_logs_after: list[int] = []
        self.create_delay_s = 0.0
        self.pull_lines: list[dict] = []
        self.imported: list[tuple[str, int]] = []

    # -- running it

    def __enter__(self):
        started = threading.Event()

        def serve():
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
            self.loop.run_until_complete(self._start())
            started.set()
            self.loop.run_forever()
            self.loop.run_until_complete(self._stop())
            self.loop.close()

        self.thread = threading.Thread(target=serve)
        self.thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)
        assert not self.thread.is_alive()

    async def _start(self):
        app = web.Application(middlewares=[self._guard], client_max_size=1 << 30)
        app.add_routes(
            [
                web.get("/", self._root),
                web.get("/v3", self._keystone),
                web.post("/v3/auth/tokens", self._login),
                web.get("/v1/containers", self._list),
                web.post("/v1/containers", self._create),
                web.get("/v1/containers/{id}", self._show),
                web.delete("/v1/containers/{id}", self._delete),
                web.get("/v1/containers/{id}/logs", self._zun_logs),
                web.post("/v1/containers/{id}/{action}", self._act),
                web.get("/askos/v1/containers/{id}/logs", self._logs),
                web.get("/askos/v1/containers/{id}/wait", self._wait),
                web.get("/askos/v1/containers/{id}/exec", self._exec),
                web.get("/askos/v1/containers/{id}/attach", self._attach),
                web.get("/askos/v1/images", self._images),
                web.post("/askos/v1/images/pull", self._pull),
                web.post("/askos/v1/images/import", self._import),
                web.delete("/askos/v1/images", self._remove_image),
                web.get("/askos/v1/volumes", self._volumes),
                web.post("/askos/v1/volumes", self._create_volume),
                web.get("/askos/v1/volumes/{id}", self._show_volume),
                web.delete("/askos/v1/volumes/{id}", self._remove_volume),
                web.patch("/v1/containers/{id}", self._update),
                web.get("/v1/containers/{id}/{what}", self._ask),
                web.get("/askos/v1/containers/{id}/archive", self._get_archive),
                web.put("/askos/v1/containers/{id}/archive", self._put_archive),
                web.post("/v1/registries", self._add_registry),
                web.get("/v1/registries", self._list_registries),
                web.get("/v1/quotas/{project}", self._quota),
                *self.networks.routes(),
                *self.capsules.routes(),
            ]
        )
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        scheme = "https" if self.tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self.runner.addresses[0][1]}"

    async def _stop(self):
        for container in self.containers:
            if container.process and container.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(container.process.pid, signal.SIGKILL)
                await container.process.wait()
        await self.runner.cleanup()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0.05)

    # -- identity

    @web.middleware
    async def _guard(self, request, handler):
        query = f"?{request.query_string}" if request.query_string else ""
        self.seen.append(f"{request.method} {request.path}{query}")
        if request.path not in {"/", "/v3", "/v3/auth/tokens"}:
            if request.headers.get("X-Auth-Token") not in self.tokens:
                message = "The request you have made requires authentication."
                body = {"error": {"code": 401, "title": "Unauthorized", "message": message}}
                return web.json_response(body, status=401)
            if not self.native and request.path.startswith("/askos"):
                return problem(404, "", "The resource could not be found.")
            ended = request.path.endswith("_security_group")
            assert request.headers["OpenStack-API-Version"] == f"container {'1.14' if ended else '1.40'}"
        return await handler(request)

    async def _root(self, request):
        version = {"id": "v1", "links": [], "status": "CURRENT", "max_version": "1.40", "min_version": "1.1"}
        body = {"name": "OpenStack Zun API", "versions": [version], "default_version": version}
        return web.json_response(body)

    async def _keystone(self, request):
        links = [{"rel": "self", "href": f"{self.url}/v3/"}]
        return web.json_response({"version": {"id": "v3.14", "status": "stable", "links": links}})

    async def _login(self, request):
        auth = (await request.json())["auth"]
        identity = auth["identity"]
        self.logins += 1
        if identity["methods"] == ["password"]:
            user = identity["password"]["user"]
            good = (user["name"], user["password"], user["domain"]) == (
                self.user,
                self.password,
                {"id": "default"},
            )
            good = good and auth["scope"] == {"project": {"name": self.project, "domain": {"id": "default"}}}
        else:
            good = identity.get("application_credential") == {"id": "cred", "secret": "shh"} and "scope" not in auth
        if not good:
            return web.json_response(
                {"error": {"code": 401, "message": "refused", "title": "Unauthorized"}}, status=401
            )
        token = uuid.uuid4().hex
        self.tokens.add(token)
        endpoint = {
            "interface": "public",
            "region": "RegionOne",
            "region_id": "RegionOne",
            "url": f"{self.url}/v1",
        }
        body = {
            "token": {
                "expires_at": "2099-01-01T00:00:00.000000Z",
                "methods": identity["methods"],
                "catalog": [
                    {"type": "identity", "endpoints": []},
                    {"type": "container", "name": "zun", "endpoints": [endpoint]},
                    *([self._network_service()] if self.networks.offered else []),
                ],
                "project": {"id": "p" * 32, "name": self.project},
            }
        }
        return web.json_response(body, status=201, headers={"X-Subject-Token": token})

    def _network_service(self):
        endpoint = {"interface": "public", "region": "RegionOne", "url": f"{self.url}/networking"}
        return {"type": "network", "name": "neutron", "endpoints": [endpoint]}

    # -- Zun

    def find(self, ident):
        return next((c for c in self.containers if not c.gone and ident in {c.uuid, c.body["name"]}), None)

    def _missing(self, request):
        return problem(404, "container-not-found", f"Container {request.match_info['id']} could not be found.")

    async def _list(self, request):
        assert request.query.get("sort_dir") == "desc"
        alive = [c for c in reversed(self.containers) if not c.gone]
        marker = request.query.get("marker")
        if marker:
            alive = alive[[c.uuid for c in alive].index(marker) + 1 :]
        page = alive[: self.page_size]
        more = (
            f"http://elsewhere:1/v1/containers?sort_dir=desc&marker={page[-1].uuid}" if len(alive) > len(page) else None
        )
        return web.json_response({"containers": [c.view(listed=True) for c in page], "next": more})

    async def _create(self, request):
        body = await request.json()
        self.bodies.append(body)
        known = {
            "image",
            "name",
            "command",
            "entrypoint",
            "environment",
            "workdir",
            "labels",
            "cpu",
            "memory",
            "hostname",
            "restart_policy",
            "image_pull_policy",
            "interactive",
            "tty",
            "auto_remove",
            *("mounts", "nets", "exposed_ports", "security_groups", "healthcheck", "disk", "cpu_policy", "auto_heal"),
            *("registry", "image_driver", "availability_zone", "hints", "host", "runtime", "privileged"),
        }
        if set(body) - known or len(body["image"]) < 2:
            return problem(400, "schema-validation-error", "Invalid input for field 'image'.Value: 'x'.")
        body.setdefault("name", f"omega-{len(self.containers) + 1}-container")
        container = Container(str(uuid.uuid4()), body)
        self.containers.append(container)
        answer = web.json_response(container.view(), status=202)
        asyncio.get_running_loop().create_task(self._made(container, run=request.query["run"] == "true"))
        return answer

    async def _made(self, container, *, run):
        await asyncio.sleep(self.create_delay_s)
        if container.body["image"] in WORDS:
            container.status, container.reason, container.task = "Error", WORDS[container.body["image"]], None
            return
        container.status = "Created"
        if run:
            await self._run(container)
        container.task = None

    async def _run(self, container):
        argv = container.body.get("command") or ["true"]
        container.reason = None
        if argv[0] not in PROGRAMS:
            container.reason = f'exec: "{argv[0]}": executable file not found in $PATH'
            return
        pipe = asyncio.subprocess.PIPE
        environment = {"PATH": os.environ["PATH"], **(container.body.get("environment") or {})}
        container.process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            env=environment,
            start_new_session=True,
        )
        container.status, container.exit_code = "Running", None
        asyncio.get_running_loop().create_task(self._watch(container, container.process))

    async def _watch(self, container, process):
        async def copy(channel, stream):
            while data := await stream.read(65536):
                container.log.append((channel, data))

        await asyncio.gather(copy(1, process.stdout), copy(2, process.stderr))
        code = await process.wait()
        container.exit_code = 128 - code if code < 0 else code
        container.status = "Stopped"

    async def _show(self, request):
        container = self.find(request.match_info["id"])
        return web.json_response(container.view()) if container else self._missing(request)

    async def _delete(self, request):
        container = self.find(request.match_info["id"])
        if container is None:
            return self._missing(request)
        if container.status == "Running" and request.query.get("stop") != "true":
            return problem(409, "invalid-state-exception", f"Cannot delete container {container.uuid} in Running state")
        container.task = "container_deleting"

        async def remove():
            self._signal(container, signal.SIGKILL)
            await asyncio.sleep(0.1)
            container.gone = True

        asyncio.get_running_loop().create_task(remove())
        return web.Response(status=204)

    async def _act(self, request):
        container, action = self.find(request.match_info["id"]), request.match_info["action"]
        if container is None:
            return self._missing(request)
        if action.endswith(("_attach", "_detach", "_group")):
            return web.json_response(None, status=202)
        if action == "commit":
            return web.json_response({"uuid": "image-1"}, status=202)
        if action in {"pause", "unpause"}:
            if container.status != ("Running" if action == "pause" else "Paused"):
                message = f"Cannot {action} container {container.uuid} in {container.status} state"
                return problem(409, "invalid-state-exception", message)
            container.status = "Paused" if action == "pause" else "Running"
            return web.json_response(None, status=202)
        allowed = {
            "start": {"Created", "Stopped"},
            "stop": {"Running"},
            "kill": {"Running"},
            "reboot": {"Created", "Running", "Stopped"},
        }[action]
        if container.status not in allowed:
            return problem(
                409,
                "invalid-state-exception",
                f"Cannot {action} container {container.uuid} in {container.status} state",
            )
        if action == "kill":
            name = request.query.get("signal", "KILL")
            self._signal(container, signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
        else:
            container.task = f"container_{action}ing"
            asyncio.get_running_loop().create_task(self._do(container, action))
        return web.json_response(None, status=202)

    async def _update(self, request):
        container = self.find(request.match_info["id"])
        if container is None:
            return self._missing(request)
        container.body |= await request.json()
        return web.json_response(container.view())

    async def _ask(self, request):
        container = self.find(request.match_info["id"])
        if container is None:
            return self._missing(request)
        what = request.match_info["what"]
        if what == "top":
            return web.json_response({"Titles": ["PID", "CMD"], "Processes": [["7", request.query.get("ps_args", "")]]})
        if what == "stats":
            used = {"CONTAINER": container.body["name"], "CPU %": 12.5, "MEM USAGE(MiB)": 32.0}
            used |= {"MEM LIMIT(MiB)": 64.0, "MEM %": 50.0, "BLOCK I/O(B)": "0/4096", "NET I/O(B)": "1500/20"}
            return web.json_response(used)
        if what == "container_actions":
            action = {"action": "create", "request_id": "req-1", "user_id": "u" * 32, "message": None}
            action |= {"start_time": "2026-11-21T07:00:00.000000", "finish_time": "2026-11-21T07:00:01.500000"}
            return web.json_response({"containerActions": [action]})
        return problem(404, "", "The resource could not be found.")

    async def _get_archive(self, request):
        data = self.files.get(request.query["path"])
        if data is None:
            return problem(404, "no-such-path", f"There is no '{request.query['path']}' in the container.")
        return web.Response(body=data)

    async def _put_archive(self, request):
        data, path = await request.read(), request.query["path"]
        if path not in {"/", "/tmp", "/tmp/"}:
            return problem(404, "no-such-path", f"There is no folder '{path}' in the container.")
        if data.strip(b"\0"):
            self.files[f"put {path}"] = data
        return web.Response(status=204)

    async def _add_registry(self, request):
        body = (await request.json())["registry"]
        self.registries[body["name"]] = body
        return web.json_response({"registry": {**body, "uuid": "r-1", "password": "***"}}, status=201)

    async def _list_registries(self, request):
        shown = [
            {**r, "uuid": "r-1", "username": r.get("username"), "password": "***"} for r in self.registries.values()
        ]
        return web.json_response({"registries": shown, "next": None})

    async def _quota(self, request):
        assert request.match_info["project"] == "p" * 32
        return web.json_response({"containers": {"limit": 40, "in_use": 2}, "memory": {"limit": -1, "in_use": 512.0}})

    async def _do(self, container, action):
        await asyncio.sleep(0.1)
        if action in {"stop", "reboot"}:
            self._signal(container, signal.SIGTERM)
            while container.status == "Running":
                await asyncio.sleep(0.02)
        if action in {"start", "reboot"}:
            await self._run(container)
        container.task = None

    def _signal(self, container, number):
        if container.process and container.process.returncode is None:
            os.killpg(container.process.pid, number)

    async def _zun_logs(self, request):
        container = self.find(request.match_info["id"])
        wanted = {1} if request.query["stdout"] == "true" else {2}
        return web.json_response(b"".join(d for c, d in container.log if c in wanted).decode())

    # -- native

    async def _logs(self, request):
        container = self.find(request.match_info["id"])
        if container is None:
            return self._missing(request)
        answer = web.StreamResponse()
        await answer.prepare(request)
        limit = self.break_logs_after.pop(0) if self.break_logs_after else None
        stamped = request.query.get("timestamps")
        tail = request.query.get("tail", "all")
        log = timed(container.log) if stamped else container.log
        position = 0 if tail == "all" else max(0, len(log) - int(tail))
        while True:
            settled = container.gone or (container.status != "Running" and container.task is None)
            log = timed(container.log) if stamped else container.log
            for channel, data in log[position:]:
                record = struct.pack(">BI", channel, len(data)) + data
                position += 1
                if limit is not None and len(record) >= limit:
                    await answer.write(record[:limit])
                    request.transport.abort()
                    return answer
                await answer.write(record)
            if not request.query.get("follow") or (settled and position == len(log)):
                await answer.write_eof()
                return answer
            await asyncio.sleep(0.02)

    async def _wait(self, request):
        container = self.find(request.match_info["id"])
        if container is None:
            return self._missing(request)
        for _ in range(int(float(request.query["timeout"]) * 50)):
            if container.gone:
                return self._missing(request)
            if container.status in {"Stopped", "Error", "Created"} and container.task is None:
                return web.json_response(
                    {
                        "status": container.status,
                        "status_reason": container.reason,
                        "exit_code": container.exit_code,
                    }
                )
            await asyncio.sleep(0.02)
        return web.Response(status=204)

    async def _exec(self, request):
        container = self.find(request.match_info["id"])
        if container is None:
            return self._missing(request)
        if container.status != "Running":
            return problem(
                409,
                "invalid-state-exception",
                f"Cannot execute container {container.uuid} in {container.status} state",
            )
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await socket.prepare(request)
        argv = request.query.getall("command")
        if argv[0] not in PROGRAMS:
            await self._status(
                socket,
                {
                    "status": "Failure",
                    "reason": "InternalError",
                    "message": f'exec: "{argv[0]}": executable file not found in $PATH',
                },
            )
        else:
            with contextlib.suppress(ConnectionError):
                await Exec(socket, request.query).run(argv, self._status)
        await socket.close()
        return socket

    async def _attach(self, request):
        if not self.attach:
            return problem(404, "", "The resource could not be found.")
        container = self.find(request.match_info["id"])
        if container is None:
            return self._missing(request)
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await socket.prepare(request)
        position = 0
        while container.status == "Running" or position < len(container.log):
            for channel, data in container.log[position:]:
                position += 1
                await socket.send_bytes(bytes([channel]) + data)
            await asyncio.sleep(0.02)
        await self._status(socket, {"status": "Success"})
        await socket.close()
        return socket

    async def _status(self, socket, status):
        await socket.send_bytes(b"\3" + json.dumps(status).encode())

    async def _images(self, request):
        images = [
            {"id": f"sha256:{n:064x}", "tags": [tag], "digests": [], "size_bytes": 4_300_000 + n}
            for n, tag in enumerate(self.images)
        ]
        return web.json_response({"images": images})

    async def _pull(self, request):
        ref = (await request.json())["ref"]
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        for line in self.pull_lines or [
            {"status": "pulling", "current": 5, "total": 10},
            {"status": "done", "image": {"id": "sha256:1", "tags": [ref]}},
        ]:
            await answer.write(json.dumps(line).encode() + b"\n")
        await answer.write_eof()
        return answer

    async def _import(self, request):
        size = 0
        async for piece in request.content.iter_chunked(65536):
            size += len(piece)
        ref = request.query.get("ref", "imported:1")
        self.imported.append((ref, size))
        return web.json_response({"refs": [ref]})

    async def _volumes(self, request):
        return web.json_response({"volumes": list(self.volumes.values())})

    async def _create_volume(self, request):
        body = await request.json()
        if body["name"] in self.volumes:
            return problem(
                409, "conflict", f'Cannot create volume "{body["name"]}": this project has one of that name.'
            )
        made = {
            "id": str(uuid.uuid4()), "name": body["name"], "size_gib": body["size_gib"], "status": "available",
            "status_reason": None, "multiattach": body["multiattach"], "host": None, "attachments": [],
            "project_id": "p", "created_at": "2026-11-21T07:15:52Z",
        }  # fmt: skip
        self.volumes[body["name"]] = made
        return web.json_response(made, status=201)

    def _volume(self, request):
        ident = request.match_info["id"]
        return next((v for v in self.volumes.values() if ident in (v["id"], v["name"])), None)

    async def _show_volume(self, request):
        found = self._volume(request)
        if found is None:
            return problem(404, "volume-not-found", f"Volume {request.match_info['id']} could not be found.")
        return web.json_response(found)

    async def _remove_volume(self, request):
        found = self._volume(request)
        if found is None:
            return problem(404, "volume-not-found", f"Volume {request.match_info['id']} could not be found.")
        if found["attachments"]:
            return problem(409, "conflict", f'Cannot delete volume "{found["name"]}": it is in use.')
        del self.volumes[found["name"]]
        return web.json_response({**found, "status": "deleting"}, status=202)

    async def _remove_image(self, request):
        ref = request.query["ref"]
        if ref not in self.images:
            return problem(404, "image-not-found", f"Image {ref} could not be found.")
        del self.images[ref]
        return web.Response(status=204)
