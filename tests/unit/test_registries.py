"""Registries: their API, and how a container's host gets the log-in."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from askos.model.images import at_registry

from .cloud import HOST, Answer, Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/v1/registries"
ROOT = "root:elsewhere:admin"


async def make(cloud: Cloud, token: str, **fields: Any) -> dict[str, Any]:
    body = {"registry": {"domain": "registry.example:5000", **fields}}
    made = await cloud.ask("POST", PATH, token, body=body)
    assert made.status == 201, made
    shown = dict(made.body["registry"])
    assert made.headers["Location"] == f"{cloud.url}{PATH}/{shown['uuid']}"
    return shown


async def listed(cloud: Cloud, token: str, query: str = "") -> list[str]:
    got = await cloud.ask("GET", f"{PATH}{query}", token)
    assert got.status == 200, got
    return [item["name"] for item in got.body["registries"]]


async def test_create_show_change_delete(cloud: Cloud) -> None:
    token = cloud.project()
    made = await make(cloud, token, name="reg", username="ann", password="secret")
    uuid = made["uuid"]
    assert made == {
        "uuid": uuid,
        "links": [
            {"href": f"{cloud.url}/v1/registries/{uuid}", "rel": "self"},
            {"href": f"{cloud.url}/registries/{uuid}", "rel": "bookmark"},
        ],
        "name": "reg",
        "domain": "registry.example:5000",
        "username": "ann",
        "password": "***",
        "project_id": token.split(":")[1],
        "user_id": "ann",
    }
    for ident in (uuid, "reg"):
        assert (await cloud.ask("GET", f"{PATH}/{ident}", token)).body == {"registry": made}
    bare = await make(cloud, token)
    assert (bare["name"], bare["username"], bare["password"]) == (None, None, "***")
    changed = await cloud.ask("PATCH", f"{PATH}/reg", token, body={"registry": {"name": "new", "domain": "b.example"}})
    assert changed.body == {"registry": {**made, "name": "new", "domain": "b.example"}}
    assert (await cloud.ask("PATCH", f"{PATH}/{uuid}", token, body={"registry": {}})).body == changed.body
    assert (await cloud.ask("DELETE", f"{PATH}/new", token)).status == 204
    (await cloud.ask("DELETE", f"{PATH}/{uuid}", token)).refused(404, "registry-not-found", f"Registry {uuid} could")


async def test_projects_are_walls_and_administrators_see_over_them(cloud: Cloud) -> None:
    token, other = cloud.project(), cloud.project()
    uuid = (await make(cloud, token, name="mine"))["uuid"]
    for method in ("GET", "PATCH", "DELETE"):
        body: Any = {"body": {"registry": {}}} if method == "PATCH" else {}
        for ident in (uuid, "mine"):
            (await cloud.ask(method, f"{PATH}/{ident}", other, **body)).refused(404, "registry-not-found")
    assert (await cloud.ask("GET", f"{PATH}/{uuid}", ROOT)).status == 200
    assert await listed(cloud, other) == await listed(cloud, ROOT) == []
    assert "mine" in await listed(cloud, ROOT, "?all_projects=1")
    got = await cloud.ask("GET", f"{PATH}?all_projects=1", token)
    got.refused(403, "policy-not-authorized", "Policy doesn't allow registry:get_all_all_projects to be performed.")


async def test_lists(cloud: Cloud) -> None:
    token = cloud.project()
    for name, domain in (("bb", "x.example"), ("aa", "y.example"), ("bb", "z.example")):
        await make(cloud, token, name=name, domain=domain, username=f"u-{domain[0]}")
    assert await listed(cloud, token) == ["bb", "aa", "bb"]
    assert await listed(cloud, token, "/?name=bb") == ["bb", "bb"]
    assert await listed(cloud, token, "?domain=y.example") == ["aa"]
    assert await listed(cloud, token, "?username=u-z&name=bb") == ["bb"]
    assert await listed(cloud, token, "?sort_key=name&sort_dir=desc") == ["bb", "bb", "aa"]
    page = (await cloud.ask("GET", f"{PATH}?limit=2&sort_key=name&name=bb", token)).body
    assert "links" not in page["registries"][0]
    assert "name=bb" in page["next"] and f"marker={page['registries'][1]['uuid']}" in page["next"]
    following = page["next"].removeprefix(cloud.url)
    assert (await cloud.ask("GET", following, token)).body == {"registries": [], "next": None}
    for query, code in (
        ("foo=1", "invalid-value"), ("password=x", "invalid-value"), ("limit=0", "invalid-value"),
        ("sort_key=password", "invalid-parameter-value"), ("sort_dir=up", "invalid-value"),
        ("all_projects=maybe", "invalid-value"),
    ):  # fmt: skip
        (await cloud.ask("GET", f"{PATH}?{query}", token)).refused(400, code)
    (await cloud.ask("GET", f"{PATH}?marker=nowhere", token)).refused(404, "marker-not-found")
    (await cloud.ask("GET", f"{PATH}/bb", token)).refused(409, "conflict", "Multiple registries exist with same name")


@pytest.mark.parametrize(
    ("body", "title"),
    [
        ({}, "'registry' is a required property"),
        ({"domain": "d.example"}, "'registry' is a required property"),
        ({"registry": {}}, "Invalid input for field 'registry'.Value: '{}'. 'domain' is"),
        ({"registry": {"domain": "d.example", "foo": 1}}, "Invalid input for field 'registry'"),
        ({"registry": {"domain": 5}}, "Invalid input for field 'domain'.Value: '5'. 5 is not of type"),
        ({"registry": {"domain": ""}}, "Invalid input for field 'domain'"),
        ({"registry": {"domain": "https://d.example"}}, "Invalid input for field 'domain'"),
        ({"registry": {"domain": "plain"}}, "Invalid input for field 'domain'"),
        ({"registry": {"domain": "d.example/path"}}, "Invalid input for field 'domain'"),
        ({"registry": {"domain": "d.example", "name": "a"}}, "Invalid input for field 'name'.Value: 'a'"),
        ({"registry": {"domain": "d.example", "username": 5}}, "Invalid input for field 'username'"),
        ({"registry": {"domain": "d.example", "username": "a:b"}}, "Invalid input for field 'username'"),
    ],
)
async def test_wrong_bodies_are_refused(cloud: Cloud, body: dict[str, Any], title: str) -> None:
    (await cloud.ask("POST", PATH, cloud.project(), body=body)).refused(400, "schema-validation-error", title)


async def test_the_password_is_nowhere_to_be_seen(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = (await make(cloud, token, name="quiet", username="ann", password="hunter2-open-sesame"))["uuid"]
    answers: list[Answer] = [
        await cloud.ask("GET", f"{PATH}/{uuid}", token),
        await cloud.ask("GET", PATH, token),
        await cloud.ask("PATCH", f"{PATH}/{uuid}", token, body={"registry": {"password": "other-open-sesame"}}),
    ]
    assert all(b"open-sesame" not in answer.raw for answer in answers)
    async with cloud.database.read() as connection:
        (row,) = (await connection.execute(text("SELECT * FROM registries WHERE uuid = :u"), {"u": uuid})).all()
    assert b"open-sesame" not in repr(tuple(row)).encode()


async def test_a_containers_host_is_told_the_log_in(cloud: Cloud) -> None:
    token = cloud.project()
    await make(cloud, token, name="login", username="ann", password="s3cret")
    uuid = await cloud.create(token, image="team/app:2", registry="login", mounts=[
        {"type": "bind", "source": base64.b64encode(b"hi").decode(), "destination": "/file"}
    ])  # fmt: skip
    plain = await cloud.create(token)
    for ident in (uuid, plain):
        await cloud.place(ident)
    found = {a.capsule_uuid: a for a in await cloud.store.assignments(HOST)}
    secret = found[uuid].content.secrets["registry"]
    assert secret.type == "kubernetes.io/dockerconfigjson"
    auths = msgspec.json.decode(secret.data[".dockerconfigjson"])["auths"]
    assert auths == {
        "registry.example:5000": {
            "username": "ann",
            "password": "s3cret",
            "auth": base64.b64encode(b"ann:s3cret").decode(),
        }
    }
    assert list(found[uuid].content.secrets["mounts"].data.values()) == [b"hi"]
    assert found[uuid].spec.containers[0].image == "registry.example:5000/team/app:2"
    assert (found[plain].spec.containers[0].image, found[plain].content.secrets) == ("busybox", {})
    shown = await cloud.show(uuid)
    assert shown["image"] == "team/app:2"
    assert shown["registry_id"] == (await cloud.ask("GET", f"{PATH}/login", token)).body["registry"]["uuid"]
    # What is changed counts for the next pull.
    await cloud.ask("PATCH", f"{PATH}/login", token, body={"registry": {"password": "new", "domain": "b.example"}})
    (after,) = await cloud.store.assignments_of(HOST, [uuid])
    assert b'"b.example"' in after.content.secrets["registry"].data[".dockerconfigjson"]
    await cloud.ask("PATCH", f"{PATH}/login", token, body={"registry": {"password": None, "username": None}})
    (after,) = await cloud.store.assignments_of(HOST, [uuid])
    assert "registry" not in after.content.secrets
    assert after.spec.containers[0].image == "b.example/team/app:2"


async def test_a_registry_in_use_stays(cloud: Cloud) -> None:
    token, other = cloud.project(), cloud.project()
    made = await make(cloud, token, name="busy")
    uuid = await cloud.create(token, registry=made["uuid"])
    gone = await cloud.ask("DELETE", f"{PATH}/busy", token)
    gone.refused(409, "conflict", f"Failed to delete registry {made['uuid']} since it is in use.")
    assert (await cloud.ask("DELETE", f"/v1/containers/{uuid}", token)).status == 204
    assert (await cloud.ask("DELETE", f"{PATH}/busy", token)).status == 204
    for ident, who in (("busy", token), (made["uuid"], other), ("never", token)):
        got = await cloud.ask("POST", "/v1/containers", who, body={"image": "busybox", "registry": ident})
        got.refused(404, "registry-not-found")


async def test_names_without_a_domain_are_the_registrys() -> None:
    assert at_registry("busybox", "r.example") == "r.example/busybox"
    assert at_registry("team/app:1", "r.example:5000") == "r.example:5000/team/app:1"
    for ref in ("docker.io/library/busybox", "localhost/x", "other:5000/x:1", "sha256:" + "a" * 64):
        assert at_registry(ref, "r.example") == ref
