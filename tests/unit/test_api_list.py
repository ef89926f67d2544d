"""Finding containers: lists with filters, order and pages; one by name or uuid; walls between projects."""

from __future__ import annotations

import itertools
import uuid as uuids
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from askos.api import listing

from .cloud import HOST, Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = "root:elsewhere:admin"
SORT_KEYS = [
    "id", "uuid", "name", "project_id", "user_id", "image", "memory", "cpu", "status", "status_reason", "task_state",
    "auto_remove", "host", "created_at", "updated_at",
]  # fmt: skip


async def listed(cloud: Cloud, query: str, token: str) -> list[str]:
    got = await cloud.ask("GET", f"/v1/containers{query}", token)
    assert got.status == 200, got
    return [c["uuid"] for c in got.body["containers"]]


async def varied(cloud: Cloud, token: str) -> dict[str, str]:
    """Seven containers that differ in everything; by a nickname."""
    made = {
        "fresh": await cloud.create(token, name="b", memory=64),
        "lost": await cloud.in_status(token, "Error without a host", name="a"),
        "run1": await cloud.in_status(token, "Running", name="c", image="alpine", cpu=2),
        "run2": await cloud.in_status(token, "Running", name="C", memory=64),
        "done": await cloud.in_status(token, "Stopped", name="b", auto_remove=False),
        "broken": await cloud.in_status(token, "Error", name="d", image="alpine:3"),
        "twin": await cloud.create(token, name="c", memory=64),
    }
    cloud.now += 1_500_000
    return made


# -- the list ---------------------------------------------------------------------------------------------------------


async def test_items_of_a_list_are_as_shown_but_without_links(cloud: Cloud) -> None:
    token = cloud.project()
    made = await varied(cloud, token)
    for caller in (token, f"root:{token.split(':')[1]}:admin"):
        for _ in range(2):  # the second answer comes from what was rendered for the first
            got = await cloud.ask("GET", "/v1/containers", caller)
            items = got.body["containers"]
            assert [i["uuid"] for i in items] == list(made.values())
            for item in items:
                alone = (await cloud.ask("GET", f"/v1/containers/{item['uuid']}", caller)).body
                alone.pop("links")
                assert item == alone
                assert ("host" in item) == caller.endswith("admin")


async def test_status_detail_goes_with_the_time(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.create(token, run=True)
    await cloud.place(uuid)
    await cloud.report(uuid, "running", container={"state": "running", "started_us": cloud.now - 59_000_000})
    for later_s, words in ((0, "Up 59 seconds"), (1, "Up 1 mins"), (3600, "Up 1 hours")):
        cloud.now += later_s * 1_000_000
        (item,) = (await cloud.ask("GET", "/v1/containers", token)).body["containers"]
        assert item["status_detail"] == words
        assert (await cloud.show(uuid))["status_detail"] == words


async def test_a_list_is_never_stale(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.create(token, run=True)

    async def status() -> tuple[str, str | None]:
        (item,) = (await cloud.ask("GET", "/v1/containers", token)).body["containers"]
        return item["status"], item["task_state"]

    assert await status() == ("Creating", "container_creating")
    await cloud.place(uuid)
    await cloud.report(uuid, "none", settled=False, progress="image_pulling")
    assert await status() == ("Creating", "image_pulling")
    await cloud.report(uuid, "running")
    assert await status() == ("Running", None)
    await cloud.ask("POST", f"/v1/containers/{uuid}/stop", token)
    assert await status() == ("Running", "container_stopping")
    await cloud.report(uuid, "exited")
    assert await status() == ("Stopped", None)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("name=c", {"run1", "twin"}),
        ("name=C", {"run2"}),
        ("name=", set()),
        ("name=nobody", set()),
        ("image=alpine", {"run1"}),
        ("image=busybox", {"fresh", "lost", "run2", "done", "twin"}),
        ("memory=64", {"fresh", "run2", "twin"}),
        ("memory=512", {"lost", "run1", "done", "broken"}),
        ("memory=64m", set()),
        ("memory=", set()),
        ("memory=99999999999999999999999999", set()),
        ("memory=%C2%B2", set()),
        ("status=Running", {"run1", "run2"}),
        ("status=running", {"run1", "run2"}),
        ("status=Creating", {"fresh", "twin"}),
        ("status=Error", {"lost", "broken"}),
        ("task_state=container_creating", {"fresh", "twin"}),
        ("task_state=x", set()),
        ("auto_remove=false", {"fresh", "lost", "run1", "run2", "done", "broken", "twin"}),
        ("auto_remove=1", set()),
        ("user_id=ann", {"fresh", "lost", "run1", "run2", "done", "broken", "twin"}),
        ("user_id=bob", set()),
        ("name=c&status=Running", {"run1"}),
        ("name=c&status=Running&image=busybox", set()),
    ],
)
async def test_filters(cloud: Cloud, query: str, expected: set[str]) -> None:
    token = "ann:filters:member"
    if not await listed(cloud, "", token):
        await varied(cloud, token)
    made = dict(
        zip(("fresh", "lost", "run1", "run2", "done", "broken", "twin"), await listed(cloud, "", token), strict=True)
    )
    assert set(await listed(cloud, f"?{query}", token)) == {made[nick] for nick in expected}


async def test_the_projects_filter_does_not_open_the_wall(cloud: Cloud) -> None:
    mine, other = cloud.project(), cloud.project()
    uuid = await cloud.create(mine)
    project = mine.split(":")[1]
    assert await listed(cloud, f"?project_id={project}", mine) == [uuid]
    assert await listed(cloud, f"?project_id={project}", other) == []
    assert await listed(cloud, f"?project_id={project}", ROOT) == []
    assert await listed(cloud, f"?all_projects=true&project_id={project}", ROOT) == [uuid]


async def test_the_host_filter_is_for_admins_and_takes_names(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    await cloud.create(token)
    got = await cloud.ask("GET", "/v1/containers?host=host-1", token)
    got.refused(403, "policy-not-authorized", "Policy doesn't allow container:get_one:host to be performed.")
    here = f"&project_id={token.split(':')[1]}&all_projects=1"
    for host in ("host-1", HOST):
        assert await listed(cloud, f"?host={host}{here}", ROOT) == [uuid]
    assert await listed(cloud, f"?host=mars{here}", ROOT) == []


async def test_the_host_filter_knows_hosts_that_nobody_has_looked_at(cloud: Cloud) -> None:
    # A server that has just started has shown nothing yet.
    uuid = await cloud.create(cloud.project())
    await cloud.place(uuid, str(uuids.uuid4()), "brand-new")
    assert await listed(cloud, "?host=brand-new&all_projects=1", ROOT) == [uuid]


@pytest.mark.parametrize(
    ("query", "status", "code", "title"),
    [
        ("limit=0", 400, "invalid-value", "Limit must be positive integer"),
        ("limit=-1", 400, "invalid-value", "Limit must be positive integer"),
        ("limit=abc", 400, "invalid-value", "Limit must be positive integer"),
        ("limit=", 400, "invalid-value", "Limit must be positive integer"),
        ("limit=1.5", 400, "invalid-value", "Limit must be positive integer"),
        ("limit=%C2%B2", 400, "invalid-value", "Limit must be positive integer"),
        ("limit=%D9%A1", 400, "invalid-value", "Limit must be positive integer"),
        ("sort_key=foo", 400, "invalid-parameter-value", 'The sort_key value "foo" is an invalid field for sorting'),
        ("sort_key=spec", 400, "invalid-parameter-value", 'The sort_key value "spec" is'),
        ("sort_key=", 400, "invalid-parameter-value", 'The sort_key value "" is'),
        ("sort_dir=up", 400, "invalid-value", "Invalid sort direction: up. Acceptable values are 'asc' or 'desc'"),
        ("foo=bar", 400, "invalid-value", "Unknown parameters: foo"),
        ("foo=bar&baz=1", 400, "invalid-value", "Unknown parameters: baz, foo"),
        ("uuid=x", 400, "invalid-value", "Unknown parameters: uuid"),
        ("all_projects=maybe", 400, "invalid-value", ""),
        ("auto_remove=maybe", 400, "invalid-value", ""),
        ("marker=xyz", 404, "container-not-found", "Container xyz could not be found."),
        ("marker=", 404, "container-not-found", ""),
        (
            "marker=00000000-0000-4000-8000-000000000000",
            404,
            "container-not-found",
            "Container 00000000-0000-4000-8000-000000000000 could not be found.",
        ),
        (
            "all_projects=1",
            403,
            "policy-not-authorized",
            "Policy doesn't allow container:get_all_all_projects to be performed.",
        ),
    ],
)
async def test_what_a_list_refuses(cloud: Cloud, query: str, status: int, code: str, title: str) -> None:
    (await cloud.ask("GET", f"/v1/containers?{query}")).refused(status, code, title)


async def test_all_projects_is_for_admins(cloud: Cloud) -> None:
    one, two = cloud.project(), cloud.project()
    uuids_ = {await cloud.create(one), await cloud.create(two)}
    assert uuids_ <= set(await listed(cloud, "?all_projects=1", ROOT))
    assert await listed(cloud, "?all_projects=0", ROOT) == await listed(cloud, "", ROOT) == []
    assert len(await listed(cloud, "?all_projects=False", one)) == 1


# -- pages ------------------------------------------------------------------------------------------------------------


async def walk(cloud: Cloud, token: str, query: str) -> tuple[list[str], list[str]]:
    """All pages, as python-zunclient follows them: the uuids, and each `next`."""
    found: list[str] = []
    links: list[str] = []
    path = f"/v1/containers?{query}"
    while True:
        got = await cloud.ask("GET", path, token)
        assert got.status == 200, got
        assert set(got.body) == {"containers", "next"}
        found += [c["uuid"] for c in got.body["containers"]]
        following = got.body["next"]
        if following is None:
            return found, links
        links.append(following)
        assert following.startswith(f"{cloud.url}/v1/containers?")
        path = following.removeprefix(cloud.url)
        assert len(links) < 50


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("key", SORT_KEYS)
async def test_pages_are_the_list_in_pieces(cloud: Cloud, key: str, direction: str) -> None:
    token = "ann:pages:member"
    if not await listed(cloud, "", token):
        await varied(cloud, token)
    order = f"sort_key={key}&sort_dir={direction}"
    whole = await listed(cloud, f"?{order}", token)
    assert len(set(whole)) == 7
    for limit in (1, 2, 3):
        found, links = await walk(cloud, token, f"{order}&limit={limit}")
        assert found == whole, (key, direction, limit)
        assert len(links) == 7 // limit


async def value(cloud: Cloud, uuid: str, key: str) -> Any:
    shown = await cloud.show(uuid)
    return float(shown[key]) if key == "memory" else shown[key]


@pytest.mark.parametrize("key", [k for k in SORT_KEYS if k not in ("id", "host")])
async def test_order(cloud: Cloud, key: str) -> None:
    token = "ann:order:member"
    if not await listed(cloud, "", token):
        await varied(cloud, token)
    made = await listed(cloud, "", token)
    up = await listed(cloud, f"?sort_key={key}", token)
    values = [await value(cloud, uuid, key) for uuid in up]
    present = [v for v in values if v is not None]
    assert present == sorted(present)
    assert values[: len(values) - len(present)] == [None] * (len(values) - len(present))
    # Ties go by age.
    for (one, first), (other, second) in itertools.pairwise(zip(up, values, strict=True)):
        assert first != second or key == "updated_at" or made.index(one) < made.index(other)
    assert await listed(cloud, f"?sort_key={key}&sort_dir=desc", token) == up[::-1]


async def test_next_carries_what_was_asked_for(cloud: Cloud) -> None:
    token = cloud.project()
    project = token.split(":")[1]
    made = [await cloud.create(token, name="same", memory=64) for _ in range(5)]
    await cloud.create(token, name="other", memory=64)
    found, links = await walk(cloud, token, "limit=2&name=same&memory=64")
    assert found == made
    assert len(links) == 2
    asked = parse_qs(urlsplit(links[0]).query)
    assert asked == {
        "limit": ["2"], "name": ["same"], "memory": ["64"], "marker": [made[1]], "sort_key": ["id"],
        "sort_dir": ["asc"],
    }  # fmt: skip
    everywhere = f"limit=2&all_projects=1&project_id={project}&sort_key=name&sort_dir=desc"
    found, links = await walk(cloud, ROOT, everywhere)
    assert len(found) == 6
    assert parse_qs(urlsplit(links[0]).query)["all_projects"] == ["1"]


async def test_next_is_there_only_when_the_page_is_full(cloud: Cloud) -> None:
    token = cloud.project()
    for _ in range(2):
        await cloud.create(token)
    for limit, more in ((1, True), (2, True), (3, False), (5000, False), (10**30, False)):
        got = await cloud.ask("GET", f"/v1/containers?limit={limit}", token)
        assert (got.body["next"] is not None) == more, limit
    assert (await cloud.ask("GET", "/v1/containers", token)).body["next"] is None


async def test_no_page_is_larger_than_the_limit_of_the_service(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_LIMIT", 3)
    token = cloud.project()
    made = [await cloud.create(token) for _ in range(4)]
    for query in ("", "?limit=4", "?limit=999999999999"):
        got = await cloud.ask("GET", f"/v1/containers{query}", token)
        assert [c["uuid"] for c in got.body["containers"]] == made[:3]
        assert "limit=3&" in got.body["next"]


async def test_a_marker_of_another_project_is_unknown(cloud: Cloud) -> None:
    other = await cloud.create(cloud.project())
    got = await cloud.ask("GET", f"/v1/containers?marker={other}", cloud.project())
    got.refused(404, "container-not-found", f"Container {other} could not be found.")


# -- one --------------------------------------------------------------------------------------------------------------


async def test_by_name_and_by_uuid(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.create(token, name="web-1")
    for ident in (uuid, "web-1"):
        got = await cloud.ask("GET", f"/v1/containers/{ident}", token)
        assert got.body["uuid"] == uuid
    for ident in ("web", "WEB-1", "web-1%00", uuid[:-1], str(uuids.uuid4()), "%27%20OR%201=1", "%FF"):
        got = await cloud.ask("GET", f"/v1/containers/{ident}", token)
        got.refused(404, "container-not-found", "Container ")


async def test_a_name_that_several_have(cloud: Cloud) -> None:
    token = cloud.project()
    made = [await cloud.create(token, name="twin") for _ in range(2)]
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/start")):
        got = await cloud.ask(method, f"/v1/containers/twin{path}", token)
        got.refused(409, "conflict", "Multiple containers exist with same name. Please use the container uuid instead.")
    assert await listed(cloud, "", token) == made


async def test_a_name_that_is_somebodys_uuid_does_not_hide_it(cloud: Cloud) -> None:
    token = cloud.project()
    first = await cloud.create(token)
    await cloud.create(token, name=first)
    assert (await cloud.ask("GET", f"/v1/containers/{first}", token)).body["uuid"] == first


async def test_a_name_is_looked_up_in_ones_own_project(cloud: Cloud) -> None:
    one, two = cloud.project(), cloud.project()
    mine = await cloud.create(one, name="web")
    theirs = await cloud.create(two, name="web")
    assert (await cloud.ask("GET", "/v1/containers/web", one)).body["uuid"] == mine
    assert (await cloud.ask("GET", "/v1/containers/web", two)).body["uuid"] == theirs


ACTIONS = [
    ("GET", ""), ("DELETE", ""), ("DELETE", "?stop=true"), ("POST", "/start"), ("POST", "/stop"), ("POST", "/reboot"),
    ("POST", "/kill"), ("GET", "/logs"), ("POST", "/execute?command=id"),
]  # fmt: skip
NATIVE = ["logs", "wait", "exec?command=id"]


@pytest.mark.parametrize("ident", ["uuid", "name"])
async def test_somebody_elses_container_does_not_exist(cloud: Cloud, ident: str) -> None:
    owner, other = cloud.project(), cloud.project()
    uuid = await cloud.in_status(owner, "Running", name=f"secret-{cloud.project().split(':')[1]}")
    wanted = uuid if ident == "uuid" else (await cloud.show(uuid))["name"]
    before = await cloud.store.capsules_by_uuid([uuid])
    asked = len(cloud.calls.asked)
    for method, rest in ACTIONS:
        got = await cloud.ask(method, f"/v1/containers/{wanted}{rest}", other)
        got.refused(404, "container-not-found", f"Container {wanted} could not be found.")
    for rest in NATIVE:
        headers = {"Connection": "Upgrade", "Upgrade": "websocket"} if rest.startswith("exec") else {}
        got = await cloud.ask("GET", f"/askos/v1/containers/{wanted}/{rest}", other, headers=headers)
        got.refused(404, "container-not-found", f"Container {wanted} could not be found.")
    assert await cloud.store.capsules_by_uuid([uuid]) == before
    assert len(cloud.calls.asked) == asked


async def test_an_admin_finds_every_container(cloud: Cloud) -> None:
    uuid = await cloud.create(cloud.project())
    for query in ("", "?all_projects=True", "?all_projects=False"):
        assert (await cloud.ask("GET", f"/v1/containers/{uuid}{query}", ROOT)).status == 200
    got = await cloud.ask("GET", f"/v1/containers/{uuid}?all_projects=True", cloud.project())
    got.refused(403, "policy-not-authorized", "Policy doesn't allow container:get_one_all_projects to be performed.")


async def test_a_capsule_is_no_container(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.create(token)
    async with cloud.database.write() as connection:
        from sqlalchemy import text

        await connection.execute(text("UPDATE capsules SET kind = 'capsule' WHERE uuid = :u"), {"u": uuid})
    assert await listed(cloud, "", token) == []
    (await cloud.ask("GET", f"/v1/containers/{uuid}", token)).refused(404, "container-not-found")
