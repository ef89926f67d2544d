"""The native API's part of the OpenAPI document, and Zun's capsules: what every route answers is as the document says.

Each route of the table is asked at least once, with success, or it is named here why not.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator, FormatChecker

from askos.api import podwatch
from askos.api.app import ROUTES
from askos.api.routedocs import DOCS
from askos.model.errors import UnavailableError
from askos.model.pods import Event
from askos.ports.calls import Frame

from .cloud import NOW, Cloud
from .pods_world import CAPSULES, ended, make, pod, report, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

VOLUMES = "/askos/v1/volumes"
ZUN = "/v1/capsules"
WEBSOCKETS = {f"{CAPSULES}/{{ident}}/{word}" for word in ("exec", "attach", "portforward")}
CONTENT = {"configMaps": {"c": {"data": {"a": "b"}}}, "secrets": {"s": {"stringData": {"p": "q"}}}}
SAMPLE = {
    "name": "app", "at_us": NOW, "cpu_ns": 5, "nano_cores": 7, "memory_usage_bytes": 9, "memory_bytes": 8,
    "rss_bytes": 6, "layer_bytes": 4, "pids": 2, "started_us": NOW,
}  # fmt: skip


class Asked(NamedTuple):
    """One request: route, what comes in place of {ident}, and what is sent."""

    method: str
    path: str
    ident: str = ""
    query: str = ""
    body: Any = None
    status: int = 200


class World:
    """Capsules in many states."""

    def __init__(self, cloud: Cloud, document: dict[str, Any]) -> None:
        self.cloud = cloud
        self.document = document
        self.token = cloud.project()
        self.root = f"root:{self.token.split(':')[1]}:admin"

    async def placed(self, name: str, **more: Any) -> str:
        made = await make(self.cloud, self.token, name, **more)
        await self.cloud.place(made["id"])
        return str(made["id"])

    def fits(self, answer: dict[str, Any], value: Any, media: str = "application/json") -> list[str]:
        """What does not fit the schema of an answer."""
        schema = {**answer["content"][media]["schema"], "components": self.document["components"]}
        found = Draft202012Validator(schema, format_checker=FormatChecker()).iter_errors(value)
        return [f"{list(e.absolute_path)} {e.message[:200]}" for e in found]

    async def check(self, asked: Asked, token: str) -> Any:
        path = asked.path.replace("{ident}", asked.ident) + asked.query
        more = {} if asked.body is None else {"body": asked.body}
        got = await self.cloud.ask(asked.method, path, token, version=None, **more)
        assert got.status == asked.status, (asked, got)
        told = self.document["paths"][asked.path][asked.method.lower()]["responses"]
        assert str(got.status) in told, (asked, "is not told")
        answer = told[str(got.status)]
        if got.status >= 400 or "application/json" in answer.get("content", {}):
            assert got.headers["Content-Type"].startswith("application/json")
            assert self.fits(answer, got.body) == [], asked
        elif answer.get("content"):
            assert got.headers["Content-Type"].partition(";")[0] in answer["content"]
        else:
            assert got.raw == b"", asked
        return got.body


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(cloud: Cloud) -> World:
    made = World(cloud, (await cloud.ask("GET", "/openapi.json", None)).body)

    def sample(arguments: dict[str, Any]) -> Any:
        return [{**SAMPLE, "capsule_uuid": uuid} for uuid in arguments["capsules"]]

    cloud.calls.answers = {"stats": sample, "pod_logs": ([Frame(control={}), Frame(1, b"hello\n")], None)}
    return made


async def states(world: World) -> list[str]:
    """Ids of capsules in every state that looks otherwise."""
    cloud, init = world.cloud, [{"name": "first", "image": "busybox"}]
    rich = await world.placed(
        "rich",
        initContainers=init, content=CONTENT, metadata={"labels": {"a": "b"}, "annotations": {"c": "d"}, "uid": "u-1"},
        volumes=[{"name": "tmp", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c"}}],
    )  # fmt: skip
    told = [Event("Normal", "Pulled", "got it", "app", NOW), Event("Warning", "BackOff", "again")]
    await report(cloud, rich, running(restarts=1, last=ended(code=3).ended), events=told)
    done = await world.placed("done")
    await report(cloud, done, ended(code=1), phase="Failed", reason="Evicted", message="why")
    leaving = await world.placed("leaving")
    await report(cloud, leaving, running())
    await world.check(
        Asked("DELETE", f"{CAPSULES}/{{ident}}", leaving, "?gracePeriodSeconds=7", status=202), world.token
    )
    nowhere = (await make(cloud, world.token, "nowhere"))["id"]
    await cloud.store.place(nowhere, lambda _c, _l: None, "none")
    fresh = (await make(cloud, world.token, "fresh"))["id"]
    lost = await world.placed("lost")
    await report(cloud, lost, running())
    cloud.now += 400_000_000
    try:
        await cloud.store.fail_waiting(300_000_000, "silent")
    finally:
        cloud.now = NOW
    for uuid in (rich, leaving):
        # They were on that host, too, and it speaks again.
        await report(cloud, uuid, running())
    return [rich, done, leaving, nowhere, fresh, lost]


async def test_every_answer_fits(world: World) -> None:
    cloud, one = world.cloud, f"{CAPSULES}/{{ident}}"
    ids = await states(world)
    rich = ids[0]
    reads = [Asked("GET", CAPSULES), Asked("GET", CAPSULES, query="?limit=2&labelSelector=!x"), Asked("GET", ZUN)]
    reads += [Asked("GET", path, uuid) for uuid in ids for path in (one, f"{one}/events", f"{ZUN}/{{ident}}")]
    reads += [Asked("GET", f"{CAPSULES}/stats"), Asked("GET", f"{CAPSULES}/stats", query="?namespace=default")]
    reads += [Asked("GET", f"{one}/stats", rich), Asked("GET", f"{one}/stats", ids[3])]
    reads += [Asked("GET", f"{one}/logs", rich), Asked("GET", f"{one}/logs", rich, "?streams=true&tailLines=3")]
    for token in (world.token, world.root):
        for asked in reads:
            await world.check(asked, token)
    same = pod("rich", metadata={"uid": "u-2"})
    template = {"kind": "capsule", "metadata": {"name": "z"}, "spec": {"containers": [{"image": "busybox"}]}}
    changes = [
        Asked("POST", CAPSULES, body=same | {"metadata": {"name": "twice", "uid": "u-2"}}, status=201),
        Asked("POST", CAPSULES, body=same | {"metadata": {"name": "twice", "uid": "u-2"}}, status=200),
        Asked("PATCH", one, rich, body={"metadata": {"labels": {"x": "y"}}}),
        Asked("PUT", one, "fresh", body=pod("fresh", metadata={"labels": {"x": "y"}})),
        Asked("PUT", f"{one}/content", rich, body={"configMaps": {}}),
        Asked("POST", ZUN, body={"template": template}, status=202),
        Asked("DELETE", f"{ZUN}/{{ident}}", "z", status=204),
        Asked("POST", VOLUMES, body={"name": "data", "size_gib": 1}, status=201),
        Asked("GET", VOLUMES),
        Asked("GET", VOLUMES, query="?all_projects=false"),
        Asked("GET", f"{VOLUMES}/{{ident}}", "data"),
        Asked("DELETE", f"{VOLUMES}/{{ident}}", "data", status=202),
        # And refusals: each as it is told.
        Asked("POST", CAPSULES, body={"spec": {}}, status=400),
        Asked("POST", CAPSULES, body=pod("rich"), status=409),
        Asked("PATCH", one, rich, body={"metadata": {"resourceVersion": "1", "labels": {}}}, status=409),
        Asked("GET", one, "nobody", status=404),
        Asked("GET", f"{one}/stats", "nobody", status=404),
        Asked("GET", f"{one}/logs", rich, "?container=x", status=400),
        Asked("GET", f"{one}/exec", rich, "?command=id", status=400),
        Asked("GET", f"{one}/attach", rich, status=400),
        Asked("GET", f"{one}/portforward", rich, "?port=80", status=400),
        Asked("GET", CAPSULES, query="?watch=true&resourceVersion=999999999", status=410),
        Asked("GET", CAPSULES, query="?all_projects=true", status=403),
        Asked("GET", f"{VOLUMES}/{{ident}}", "nobody", status=404),
        Asked("POST", VOLUMES, body={"name": ""}, status=400),
        Asked("DELETE", f"{ZUN}/{{ident}}", "nobody", status=404),
    ]
    for asked in changes:
        await world.check(asked, world.token)
    cloud.calls.answers["stats"] = UnavailableError("The container's host is not connected now.")
    await world.check(Asked("GET", f"{one}/stats", rich, status=503), world.token)
    asked_with_success = {(a.method, a.path) for a in (*reads, *changes) if a.status < 400} | {("DELETE", one)}
    routes = {(r.method, r.path) for r in cloud.app()[ROUTES] if r.path.startswith((CAPSULES, VOLUMES, ZUN))}
    assert routes - asked_with_success == {("GET", path) for path in WEBSOCKETS}
    assert routes == {key for key in DOCS if key[1].startswith((CAPSULES, VOLUMES, ZUN))}


async def test_every_line_of_a_watch_fits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podwatch, "BOOKMARK_S", 0.0)
    monkeypatch.setattr(podwatch, "POLL_S", 0.05)
    cloud = world.cloud
    answer = world.document["paths"][CAPSULES]["get"]["responses"]["200"]
    url = f"{cloud.url}{CAPSULES}?watch=true&allowWatchBookmarks=true"
    token = cloud.project()
    seen: set[str] = set()
    real = cloud.store.moved

    async def forgotten(_after: int, *more: Any) -> Any:
        return await real(10**9, *more)

    async with cloud.session.get(url, headers={"X-Auth-Token": token}) as response:
        made = await make(cloud, token)
        await cloud.place(made["id"])
        await cloud.ask("DELETE", f"{CAPSULES}/web", token, version=None)
        await report(cloud, made["id"], ended(), phase="Failed", gone=True)
        async for line in response.content:
            value = json.loads(line)
            assert world.fits(answer, value, "application/x-ndjson") == []
            seen.add(value["type"])
            if "DELETED" in seen:
                monkeypatch.setattr(cloud.store, "moved", forgotten)
    assert seen >= {"DELETED", "BOOKMARK", "ERROR"}, seen


@pytest.mark.parametrize(
    ("path", "query", "names"),
    [
        ("/stats", "bogus=1", "bogus"),
        ("/x/stats", "container=a", "container"),
        ("/x/exec", "command=id&comand=x", "comand"),
        ("/x/exec", "command=id&tty=perhaps", "tty"),
        ("/x/exec", "command=id&width=wide", "width"),
        ("/x/attach", "command=id", "command"),
        ("/x/attach", "stdin=2", "stdin"),
        ("/x/portforward", "port=http", "port"),
        ("/x/portforward", "prot=80", "prot"),
        ("/x/logs", "tail=5", "tail"),
        ("/x/logs", "tailLines=-1", "tailLines"),
        ("/x/logs", "stream=Both", "stream"),
        ("", "fieldSelector=a", "fieldSelector"),
        ("/x", "watch=true", "watch"),
    ],
)
async def test_what_is_unknown_or_wrong_is_named(cloud: Cloud, path: str, query: str, names: str) -> None:
    got = await cloud.ask("GET", f"{CAPSULES}{path}?{query}", cloud.project(), version=None)
    assert got.status == 400, got
    assert names in got.error["title"] + got.error["detail"]


async def test_what_kubernetes_clients_send_is_taken(world: World) -> None:
    """What a kubelet's or an API server's clients put into such queries."""
    uuid = await world.placed("kubectl")
    await report(world.cloud, uuid, running())
    for path, query in (
        ("logs", "container=app&follow=true&limitBytes=10&previous=false&sinceSeconds=5&tailLines=2&timestamps=true"),
        ("logs", "container=app&insecureSkipTLSVerifyBackend=true&pretty=true&sinceTime=2026-01-31T12%3A00%3A00Z"),
    ):
        got = await world.cloud.ask("GET", f"{CAPSULES}/{uuid}/{path}?{query}", world.token, version=None)
        assert got.status == 200, got
    for path in ("exec?command=sh&command=-c&command=id&container=app&stdin=true&stdout=true&stderr=true&tty=false",
                 "attach?container=app&stdin=true&stdout=true&tty=true", "portforward?ports=80&ports=443",
                 "portforward?port=80,443"):  # fmt: skip
        got = await world.cloud.ask("GET", f"{CAPSULES}/{uuid}/{path}", world.token, version=None)
        # The query is right: what is missing is the upgrade.
        assert got.status == 400
        assert got.error["title"].startswith("This is a WebSocket endpoint"), path
