"""The real HTTP application on loopback over a real store on SQLite; only callers and hosts are made up.

Tests share one per module and keep apart by project: `cloud.project()` gives a fresh one.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiohttp import web
from multidict import CIMultiDictProxy
from yarl import URL

from askos.adapters.images.files import ImageFolder
from askos.adapters.sql.database import Database, sqlite_url
from askos.adapters.sql.images import SqlImages
from askos.adapters.sql.migrate import upgrade
from askos.adapters.sql.networking import SqlNetworking
from askos.adapters.sql.sealing import Sealer
from askos.adapters.sql.store import SqlStore
from askos.adapters.sql.volumes import SqlVolumes
from askos.api.app import Watch, application
from askos.api.glance.finding import Finder
from askos.api.glance.routes import routes as glance_routes
from askos.api.neutron.routes import routes as neutron_routes
from askos.api.schemas import DEFAULT_LIMITS
from askos.loops.commits import ImageCommitter
from askos.model.capsules import CapsuleReport, CapsuleState, ContainerReport, Report
from askos.model.errors import UnavailableError
from askos.model.hosts import HostFacts

from .fakes import FakeHostCalls, FakeIdentity, FakeSearch

HOST = "11111111-0000-4000-8000-000000000001"
ZONE = "nova"
POOL = "10.64.0.0/12"
CONTENT_KEY = b"32 bytes that encrypt the content"[:32]
NOW = 1_700_000_000_123_456
_UNSET: Any = object()


class Answer(NamedTuple):
    """An HTTP answer; `body` is decoded when it is JSON."""

    status: int
    headers: CIMultiDictProxy[str]
    body: Any
    raw: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The one error of a refusal, after a check of its form."""
        assert self.headers["Content-Type"].startswith("application/json")
        assert set(self.body) == {"errors"}, self.body
        (error,) = self.body["errors"]
        assert set(error) >= {"request_id", "code", "status", "title", "detail", "links"}
        assert error["status"] == self.status
        assert error["links"] == []
        assert error["request_id"] == self.headers["X-Openstack-Request-Id"]
        return dict(error)

    def refused(self, status: int, code: str, title: str = "") -> dict[str, Any]:
        """Check a refusal: status, the word behind "container.", and how its title begins."""
        assert self.status == status, self
        assert self.error["code"] == f"container.{code}", self.error
        assert self.error["title"].startswith(title), self.error
        return self.error


def make_template(path: Path) -> None:
    """A migrated, empty database."""

    async def make() -> None:
        database = Database(sqlite_url(path))
        try:
            await upgrade(database)
            await SqlStore(database).fact("network_pool", lambda: POOL)
        finally:
            await database.close()

    asyncio.run(make())


def facts(uuid: str = HOST, hostname: str = "host-1", **more: Any) -> HostFacts:
    """A machine with 4 CPUs and 16 GiB."""
    fields: dict[str, Any] = {
        "cpus": 4, "memory_mib": 16384, "disk_gib": 100, "architecture": "x86_64", "os": "Debian",
        "kernel_version": "6.1",
    }  # fmt: skip
    return HostFacts(uuid, hostname, **{**fields, **more})


class Cloud:
    """The application and ways to ask it."""

    def __init__(self, database: Database, image_folder: Path) -> None:
        self.now = NOW
        self.database = database
        self.watch = Watch()
        self.store = SqlStore(
            database,
            on_change=lambda c: self.watch.changed(c.uuid, c.project_id),
            clock=self.clock,
            sealer=Sealer(CONTENT_KEY),
        )
        self.volumes = SqlVolumes(database, clock=self.clock)
        self.networking = SqlNetworking(database, clock=self.clock)
        self.image_folder = image_folder
        self.images = SqlImages(database, ImageFolder(image_folder, keep_free=0), clock=self.clock)
        self.calls = FakeHostCalls()
        self.hub = FakeSearch()
        self.committer = ImageCommitter(self.images, self.calls)
        self.identity = FakeIdentity()
        self.healthy = True
        self.limits = DEFAULT_LIMITS
        self.url = ""
        self.session: aiohttp.ClientSession
        self._numbers = itertools.count(1)

    def clock(self) -> int:
        return self.now

    async def health(self) -> None:
        if not self.healthy:
            raise UnavailableError("The database does not answer.")
        await self.database.ping()

    def app(self) -> web.Application:
        return application(
            store=self.store,
            admin=self.store,
            tickets=self.store,
            volumes=self.volumes,
            networking=self.networking,
            find_image=Finder(self.images).find,
            find_images=Finder(self.images).search,
            image_names=Finder(self.images).names,
            committer=self.committer,
            image_search=self.hub,
            calls=self.calls,
            identity=self.identity,
            clock=self.clock,
            healthy=self.health,
            watch=self.watch,
            zones={ZONE},
            rights_every_s=0.1,
            limits=self.limits,
            mounted=[
                *neutron_routes(self.networking, self.identity),
                *glance_routes(self.images, self.identity),
            ],
        )

    def project(self) -> str:
        """A token of a member of a project that nothing has used yet."""
        return f"ann:p{next(self._numbers)}:member"

    async def ask(
        self,
        method: str,
        path: str,
        token: str | None = "ann:shared:member",
        *,
        version: str | None = "1.40",
        body: Any = _UNSET,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request. `version` is the microversion; `body` goes as JSON, `data` as it is."""
        sent = dict(headers or {})
        if token is not None:
            sent["X-Auth-Token"] = token
        if version is not None:
            sent["OpenStack-API-Version"] = f"container {version}"
        if body is not _UNSET:
            data = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        url = URL(self.url + path, encoded=True)
        stream = None if data is None else io.BytesIO(data)  # aiohttp warns of large bytes
        async with self.session.request(method, url, data=stream, headers=sent, allow_redirects=False) as got:
            raw = await got.read()
            decoded = json.loads(raw) if raw and got.content_type == "application/json" else None
            return Answer(got.status, got.headers, decoded, raw)

    async def create(self, token: str, *, run: bool = False, version: str = "1.40", **fields: Any) -> str:
        """Create a container; returns its uuid."""
        path = "/v1/containers?run=true" if run else "/v1/containers"
        made = await self.ask("POST", path, token, version=version, body={"image": "busybox", **fields})
        assert made.status == 202, made
        return str(made.body["uuid"])

    async def place(self, uuid: str, host: str = HOST, hostname: str = "host-1") -> None:
        """Give the container a host."""
        if all(h.facts.uuid != host for h in await self.store.hosts()):
            await self.store.register_host(facts(host, hostname), ZONE)
        assert await self.store.place(uuid, lambda _c, _l: host, "no host")

    async def report(self, uuid: str, state: CapsuleState, *, settled: bool = True, **more: Any) -> None:
        """What its agent would say; `container` holds fields of the container's report."""
        (capsule,) = await self.store.capsules_by_uuid([uuid])
        container = ContainerReport("main", **more.pop("container", {}))
        report = Report(capsule.wish.generation, settled, state, containers=[container], **more)
        sent = CapsuleReport(uuid, capsule.placement.epoch, report)
        assert await self.store.apply_reports(str(capsule.placement.host_uuid), [sent]) == []

    async def in_status(self, token: str, status: str, **fields: Any) -> str:
        """A new container with this Zun status."""
        uuid = await self.create(token, run=True, **fields)
        if status == "Creating":
            return uuid
        if status == "Error without a host":
            assert await self.store.place(uuid, lambda _c, _l: None, "There are not enough hosts available.")
            return uuid
        await self.place(uuid)
        states: dict[str, CapsuleState] = {
            "Created": "created", "Running": "running", "Stopped": "exited", "Error": "error",
            "Restarting": "restarting", "Deleting": "running", "Paused": "paused",
        }  # fmt: skip
        await self.report(uuid, states[status], reason="it broke" if status == "Error" else None)
        if status == "Deleting":
            await self.store.wish(uuid, lambda c: msgspec.structs.replace(c.wish, state="deleted", task="deleting"))
        return uuid

    async def show(self, uuid: str, token: str = "root:elsewhere:admin") -> dict[str, Any]:
        got = await self.ask("GET", f"/v1/containers/{uuid}", token)
        assert got.status == 200, got
        return dict(got.body)


@asynccontextmanager
async def open_cloud(template: Path, folder: Path) -> AsyncIterator[Cloud]:
    """A cloud on a copy of the template."""
    path = folder / "askos.db"
    shutil.copy(template, path)
    database = Database(sqlite_url(path))
    cloud = Cloud(database, folder / "images")
    runner = web.AppRunner(cloud.app(), access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    cloud.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    cloud.session = aiohttp.ClientSession()
    try:
        yield cloud
    finally:
        await cloud.session.close()
        await runner.cleanup()
        await database.close()
