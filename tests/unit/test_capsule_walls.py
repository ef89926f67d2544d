"""Projects are walls: every route of the capsule surface, asked by everybody who has no business there.

Routes come from the application's own table, so a new one is tested from its first day.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from askos.api.app import ROUTES
from askos.api.core import Route
from askos.model.pods import Event
from askos.ports.calls import Frame

from .cloud import Answer, Cloud
from .pods_world import CAPSULES, make, pod, remove, report, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

VOLUMES = "/askos/v1/volumes"
MARK = "owners-mark"
"""In every name and text of the owner's: nobody else may ever be answered with it."""
NOWHERE = {"id": "00000000-0000-4000-8000-000000000000", "name": "not-a-thing-here"}
UPGRADE = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip
QUERIES = {"archive": "?path=/", "exec": "?command=id", "attach": "?stdout=true", "portforward": "?port=80"}


class Owned(NamedTuple):
    """What a project has: one of each kind, with ids and names by the noun in the path."""

    token: str
    ids: dict[str, str]
    names: dict[str, str]
    revision: str


async def _owned(cloud: Cloud) -> Owned:
    token = cloud.project()
    names = {kind: f"{MARK}-{kind[:-1]}-{secrets.token_hex(3)}" for kind in ("capsules", "containers", "volumes")}
    revision = (await cloud.ask("GET", CAPSULES, token, version=None)).body["metadata"]["resourceVersion"]
    volume = await cloud.ask("POST", VOLUMES, token, version=None, body={"name": names["volumes"], "size_gib": 1})
    assert volume.status == 201
    metadata = {"uid": f"{MARK}-uid", "labels": {"mark": MARK}, "annotations": {"mark": MARK}}
    content = {"secrets": {"login": {"stringData": {"word": f"{MARK}-secret"}}}}
    claim = [{"name": "data", "persistentVolumeClaim": {"claimName": names["volumes"]}}]
    made = await make(cloud, token, names["capsules"], metadata=metadata, content=content, volumes=claim)
    container = await cloud.create(token, name=names["containers"])
    await cloud.place(made["id"])
    await cloud.place(container)
    events = [Event("Warning", "Unhealthy", f"{MARK} said something", "app")]
    await report(cloud, made["id"], running(), events=events)
    ids = {"capsules": made["id"], "containers": container, "volumes": volume.body["id"]}
    return Owned(token, ids, names, revision)


@pytest.fixture(scope="module", autouse=True)
def host(cloud: Cloud) -> None:
    """A host that answers whatever it is asked."""
    cloud.calls.answers |= {
        "stats": lambda _a: [],
        "pod_logs": lambda _a: ([Frame(control={"started": True}), Frame(1, MARK.encode())], None),
        "logs": lambda _a: ([Frame(1, MARK.encode())], None),
        **{word: lambda _a: ([Frame(control={"started": True})], {"exit_code": 0}) for word in ("exec", "attach")},
        "portforward": lambda _a: ([Frame(control={"started": True})], None),
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owned(cloud: Cloud) -> Owned:
    return await _owned(cloud)


def routes(cloud: Cloud) -> list[Route]:
    """All of the native API and of Zun's capsules."""
    found = [r for r in cloud.app()[ROUTES] if r.path.startswith(("/askos/v1/", "/v1/capsules"))]
    assert len(found) > 25, "where are the routes?"
    return [r for r in found if not r.public]


def kind_of(route: Route) -> str:
    return next((s for s in route.segments if s in ("capsules", "containers", "volumes")), "")


async def call(cloud: Cloud, route: Route, token: str | None, ident: str = "", query: str = "") -> Answer:
    """Ask a route as its client would."""
    path = route.path.replace("{ident}", ident) + (query or QUERIES.get(route.segments[-1], ""))
    body: Any = {}
    if route.method == "PATCH":
        body = {"metadata": {"labels": {"broken": "in"}}}
    elif route.method == "PUT":
        body = {"secrets": {}} if path.endswith("content") else pod(ident or "x")
    elif route.method == "POST" and path == CAPSULES:
        body = pod("own")
    headers = UPGRADE if route.success == 101 else {}
    sends = {"body": body} if route.method in ("POST", "PUT", "PATCH") else {}
    return await cloud.ask(route.method, path, token, headers=dict(headers), **sends)


# -- by call ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "expired", "ann:p1:nobody"])
async def test_without_a_good_token_nothing_is_answered(cloud: Cloud, owned: Owned, token: str | None) -> None:
    for route in routes(cloud):
        got = await call(cloud, route, token, owned.ids.get(kind_of(route), ""))
        assert got.status == 401, route
        assert MARK.encode() not in got.raw


async def test_public_routes_give_nothing_to_who_only_knows_an_id(cloud: Cloud, owned: Owned) -> None:
    """Those below here carry proofs of their own."""
    asked = len(cloud.calls.asked)
    for route in cloud.app()[ROUTES]:
        if not route.public or not route.path.startswith(("/askos/v1/", "/v1/capsules")):
            continue
        for ident in (*owned.ids.values(), *owned.names.values()):
            path = re.sub(r"{[^}]*}", ident, route.path)
            for query in ("", "?token=x", f"?token={ident}", "?command=id", f"?uuid={ident}&token={ident}"):
                got = await cloud.ask(route.method, path + query, None, headers=dict(UPGRADE))
                assert got.status in (400, 401, 403, 404), (path, got)
                assert MARK.encode() not in got.raw.replace(ident.encode(), b"")
    assert len(cloud.calls.asked) == asked


@pytest.mark.parametrize("by", ["id", "name"])
@pytest.mark.parametrize("role", ["member", "reader"])
async def test_what_is_anothers_is_like_what_is_not_there(cloud: Cloud, owned: Owned, by: str, role: str) -> None:
    stranger = cloud.project().replace("member", role)
    before = [(await cloud.ask("GET", f"{CAPSULES}/{owned.ids['capsules']}", owned.token, version=None)).body]
    asked = len(cloud.calls.asked)
    for route in routes(cloud):
        if "{ident}" not in route.path:
            continue
        ident = (owned.ids if by == "id" else owned.names)[kind_of(route)]
        got = await call(cloud, route, stranger, ident)
        assert got.status == (403 if role == "reader" and route.for_writers else 404), (route.method, route.path, got)
        absent = await call(cloud, route, stranger, NOWHERE[by])
        ours = got.error["title"].replace(ident, ""), got.error["detail"].replace(ident, "")
        assert ours == tuple(absent.error[k].replace(NOWHERE[by], "") for k in ("title", "detail")), route
        assert MARK.encode() not in got.raw.replace(ident.encode(), b""), route
    assert len(cloud.calls.asked) == asked, "a host was asked for a stranger"
    after = [(await cloud.ask("GET", f"{CAPSULES}/{owned.ids['capsules']}", owned.token, version=None)).body]
    assert before == after


async def test_all_projects_is_for_administrators(cloud: Cloud, owned: Owned) -> None:
    for token, allowed in ((cloud.project(), False), ("root:elsewhere:admin", True)):
        for route in routes(cloud):
            if kind_of(route) not in ("capsules", "volumes") or route.success == 101:
                continue
            if not route.path.startswith("/askos") or route.path.endswith("logs") or route.method == "POST":
                continue
            if route.method != "GET" or (kind_of(route) == "volumes" and "{ident}" in route.path):
                continue
            got = await call(cloud, route, token, owned.names[kind_of(route)], "?all_projects=true")
            assert got.status == (200 if allowed else 403), (route, got)
            # Usage comes from hosts, and these have none to tell.
            assert (MARK.encode() in got.raw) == (allowed and not route.path.endswith("capsules/stats")), route
    # By its id an administrator finds everything; by name only on request.
    plain = await cloud.ask("GET", f"{CAPSULES}/{owned.ids['capsules']}", "root:elsewhere:admin", version=None)
    assert plain.status == 200
    named = await cloud.ask("GET", f"{CAPSULES}/{owned.names['capsules']}", "root:elsewhere:admin", version=None)
    named.refused(404, "capsule-not-found")


async def test_lists_and_watches_show_nothing_of_others(cloud: Cloud, owned: Owned) -> None:
    stranger = cloud.project()
    mine = await make(cloud, stranger, "mine", metadata={"labels": {"mark": "mine"}})
    other = await _owned(cloud)
    await cloud.ask("DELETE", f"{CAPSULES}/{other.ids['capsules']}", other.token, version=None)
    await remove(cloud, other.ids["capsules"])
    for query in (
        "", f"labelSelector=mark%3D{MARK}", "labelSelector=mark", "labelSelector=mark%21%3Dmine", "namespace=default",
        "limit=1", "limit=1&continue=MS4w", f"labelSelector=mark+in+({MARK},x)",
    ):  # fmt: skip
        for path in (CAPSULES, "/v1/capsules", VOLUMES, "/v1/containers", f"{CAPSULES}/stats"):
            got = await cloud.ask("GET", f"{path}?{query}" if path == CAPSULES else path, stranger)
            assert got.status == 200, (path, query, got)
            assert MARK.encode() not in got.raw, (path, query)
        # A watch from before all of that: creations, changes and tombstones.
        watched = await cloud.ask(
            "GET", f"{CAPSULES}?watch=true&timeoutSeconds=0&resourceVersion={owned.revision}&{query}", stranger
        )
        assert watched.status == 200, watched
        assert MARK.encode() not in watched.raw, query
    lines = await cloud.ask(
        "GET", f"{CAPSULES}?watch=true&timeoutSeconds=1&resourceVersion={owned.revision}", stranger, version=None
    )
    found = [json.loads(line)["object"]["id"] for line in lines.raw.splitlines()]
    assert set(found) == {mine["id"]}


async def test_names_and_uids_of_others_are_free(cloud: Cloud) -> None:
    owned = await _owned(cloud)
    stranger = cloud.project()
    metadata = {"uid": f"{MARK}-uid", "name": owned.names["capsules"]}
    got = await cloud.ask("POST", CAPSULES, stranger, version=None, body={**pod(), "metadata": metadata})
    assert (got.status, got.body["metadata"]["labels"]) == (201, {})
    assert got.body["id"] != owned.ids["capsules"]
    # An id of somebody else's as one's own uid finds nothing either.
    metadata = {"uid": owned.ids["capsules"], "name": "other"}
    got = await cloud.ask("POST", CAPSULES, stranger, version=None, body={**pod(), "metadata": metadata})
    assert got.status == 201
    shown = await cloud.ask("GET", f"{CAPSULES}/{owned.ids['capsules']}", stranger, version=None)
    shown.refused(404, "capsule-not-found")
    volume = await cloud.ask(
        "POST", VOLUMES, stranger, version=None, body={"name": owned.names["volumes"], "size_gib": 1}
    )
    assert volume.status == 201


@pytest.mark.parametrize("by", ["id", "name"])
async def test_nobody_attaches_anothers_volume(cloud: Cloud, owned: Owned, by: str) -> None:
    stranger = cloud.project()
    theirs = owned.ids["volumes"] if by == "id" else owned.names["volumes"]
    sources: list[Any] = [lambda ident: {"persistentVolumeClaim": {"claimName": ident}}]
    if by == "id":
        sources.append(lambda ident: {"cinder": {"volumeID": ident}})
    for source in sources:
        refused = [
            (await cloud.ask("POST", CAPSULES, stranger, version=None,
                             body=pod(volumes=[{"name": "v", **source(ident)}]))).refused(400, "schema-validation-error")
            for ident in (theirs, NOWHERE[by])
        ]  # fmt: skip
        assert refused[0]["title"].replace(theirs, "") == refused[1]["title"].replace(NOWHERE[by], "")
    template = {
        "metadata": {"name": "zun"},
        "spec": {
            "containers": [{"image": "busybox", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "cinder": {"volumeID": theirs}}],
        },
    }
    got = await cloud.ask("POST", "/v1/capsules", stranger, body={"template": template})
    assert 400 <= got.status < 500, got
    assert MARK.encode() not in got.raw.replace(theirs.encode(), b"")
    shown = await cloud.ask("GET", f"{VOLUMES}/{owned.ids['volumes']}", owned.token, version=None)
    assert shown.body["attachments"] == [owned.ids["capsules"]]


async def test_a_secret_is_shown_to_nobody(cloud: Cloud, owned: Owned) -> None:
    for token in (owned.token, owned.token.replace("member", "reader"), "root:elsewhere:admin"):
        for route in routes(cloud):
            if route.method != "GET" or route.success == 101 or "containers" in route.path:
                continue
            got = await call(cloud, route, token, owned.ids.get(kind_of(route), ""))
            assert f"{MARK}-secret".encode() not in got.raw, route


# -- by role ------------------------------------------------------------------------------------------------------


async def test_a_reader_looks_and_touches_nothing(cloud: Cloud) -> None:
    owned = await _owned(cloud)
    reader = owned.token.replace("member", "reader")
    asked = len(cloud.calls.asked)
    for route in routes(cloud):
        if route.path.endswith("/wait"):
            continue  # it only looks, and waits for what does not happen here
        ident = owned.ids.get(kind_of(route), "")
        got = await call(cloud, route, reader, ident)
        if route.for_writers:
            got.refused(403, "policy-not-authorized", "Policy doesn't allow")
            assert len(cloud.calls.asked) == asked, route
        elif "images" not in route.path:
            assert got.status in (200, 400), (route, got)
        asked = len(cloud.calls.asked)
    for path in ("/v1/containers", f"/v1/containers/{owned.ids['containers']}/execute?command=id"):
        (await cloud.ask("POST", path, reader, body={"image": "busybox"})).refused(403, "policy-not-authorized")
    for word in ("attach", "get_archive?path=/etc"):
        got = await cloud.ask("GET", f"/v1/containers/{owned.ids['containers']}/{word}", reader)
        got.refused(403, "policy-not-authorized")
    still = await cloud.ask("GET", f"{CAPSULES}/{owned.ids['capsules']}", reader, version=None)
    assert (still.body["metadata"]["labels"], still.body["metadata"]["generation"]) == ({"mark": MARK}, 1)
