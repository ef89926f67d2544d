"""Zun's /v1/capsules over HTTP: both forms, who sees what, paging, create and delete."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import yaml

from askos.model.capsules import CapsuleReport, Report
from askos.model.pods import Ended, PodContainerReport, PodReport
from askos.plan import zun_capsules

from .cloud import HOST, Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = "root:elsewhere:admin"
LISTED = ["uuid", "links", "project_id", "user_id", "status", "status_reason", "annotations", "cpu", "memory", "addresses",
          "created_at", "updated_at", "containers", "init_containers", "restart_policy"]  # fmt: skip
NEW = {*LISTED, "name", "labels"}
OLD = {
    *LISTED,
    "meta_name",
    "meta_labels",
    "volumes_info",
    "containers_uuids",
    "init_containers_uuids",
    "capsule_version",
}
INNER = {
    "uuid", "name", "project_id", "user_id", "image", "command", "entrypoint", "cpu", "cpu_policy", "memory", "disk", "status",
    "status_reason", "status_detail", "task_state", "environment", "labels", "workdir", "hostname", "ports", "addresses",
    "restart_policy", "interactive", "tty", "auto_remove", "auto_heal", "image_driver", "security_groups", "healthcheck",
    "registry_id", "created_at", "updated_at",
}  # fmt: skip
INNER_ADMIN = INNER | {"host", "image_pull_policy", "privileged", "runtime"}


class Address(msgspec.Struct, forbid_unknown_fields=True):
    """As gophercloud decodes it: types are strict there."""

    preserve_on_delete: bool
    addr: str
    port: str
    version: float
    subnet_id: str


class Inner(msgspec.Struct):
    """gophercloud's Container."""

    addresses: dict[str, list[Address]]
    uuid: str
    user_id: str
    project_id: str
    cpu: float | None
    memory: str | None
    image: str
    labels: dict[str, str]
    created_at: str
    updated_at: str | None
    workdir: str | None
    disk: int
    restart_policy: dict[str, str]
    command: list[str]
    ports: list[int]
    security_groups: list[str]
    environment: dict[str, str]
    status: str
    hostname: str | None
    interactive: bool
    tty: bool


class OldCapsule(msgspec.Struct):
    """gophercloud's Capsule."""

    uuid: str
    user_id: str
    project_id: str
    cpu: float
    memory: str
    meta_name: str
    meta_labels: dict[str, str]
    links: list[dict[str, str]]
    capsule_version: str
    restart_policy: str
    status: str
    status_reason: str | None
    addresses: dict[str, list[Address]]
    volumes_info: dict[str, list[str]]
    containers: list[Inner]
    containers_uuids: list[str]
    created_at: str
    updated_at: str | None


class NewCapsule(msgspec.Struct):
    """gophercloud's CapsuleV132."""

    uuid: str
    cpu: float
    memory: str
    name: str
    labels: dict[str, str]
    restart_policy: dict[str, str]
    annotations: dict[str, str]
    status: str
    addresses: dict[str, list[Address]]
    containers: list[Inner]
    init_containers: list[Inner]
    created_at: str
    updated_at: str | None


def template(name: str | None = "pod1", spec: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    return {
        "kind": "capsule",
        "metadata": {} if name is None else {"name": name},
        "spec": {"containers": [{"image": "busybox", "command": ["sleep", "1000"], **container}], **(spec or {})},
    }


async def create(cloud: Cloud, token: str, given: Any = None, version: str | None = "1.40") -> dict[str, Any]:
    got = await cloud.ask("POST", "/v1/capsules", token, version=version, body={"template": given or template()})
    assert got.status == 202, got
    assert got.headers["Location"] == f"{cloud.url}/v1/capsules/{got.body['uuid']}"
    return dict(got.body)


async def show(cloud: Cloud, uuid: str, token: str = ADMIN, version: str | None = "1.40") -> dict[str, Any]:
    got = await cloud.ask("GET", f"/v1/capsules/{uuid}", token, version=version)
    assert got.status == 200, got
    return dict(got.body)


async def report(cloud: Cloud, uuid: str, pod: PodReport, **more: Any) -> None:
    """What the capsule's agent would say."""
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    if capsule.placement.host_uuid is None:
        await cloud.place(uuid)
        (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    sent = CapsuleReport(uuid, capsule.placement.epoch, Report(capsule.wish.generation, pod=pod, **more))
    assert await cloud.store.apply_reports(HOST, [sent]) == []


FULL = {
    "kind": "capsule",
    "metadata": {"name": "full", "labels": {"app": "web"}, "annotations": {"note": "hello"}},
    "spec": {
        "restartPolicy": "OnFailure",
        "initContainers": [{"image": "busybox", "name": "prepare", "command": ["true"], "resources": {"requests": {"memory": 200}}}],
        "containers": [
            {"image": "busybox", "name": "first", "command": ["sleep"], "args": ["$HOME"], "env": {"A": "$(B)"},
             "workDir": "/tmp", "ports": [{"containerPort": 80}], "stdin": True, "tty": True,
             "resources": {"requests": {"cpu": 0.2, "memory": 64}}},
            {"image": "busybox", "resources": {"requests": {"cpu": 0.1, "memory": 32}}},
        ],
    },
}  # fmt: skip


async def test_both_forms(cloud: Cloud) -> None:
    token = cloud.project()
    made = await create(cloud, token, FULL)
    assert set(made) == NEW
    assert made["status"] == "Creating"
    assert made["created_at"] == "2023-11-14 22:13:20.123456"
    uuid = made["uuid"]
    for version, keys in (("1.1", OLD), (None, OLD), ("1.31", OLD), ("1.32", NEW), ("1.40", NEW)):
        shown = await show(cloud, uuid, token, version)
        assert set(shown) == keys, version
        assert all(set(c) == INNER for c in (*shown["containers"], *shown["init_containers"]))
        admins = await show(cloud, uuid, ADMIN, version)
        assert set(admins) == keys | {"host"}
        assert all(set(c) == INNER_ADMIN for c in (*admins["containers"], *admins["init_containers"]))
        msgspec.convert(shown, OldCapsule if keys == OLD else NewCapsule)
    old, new = await show(cloud, uuid, token, "1.31"), await show(cloud, uuid, token, "1.32")
    assert old["restart_policy"] == "on-failure"
    assert new["restart_policy"] == {"Name": "on-failure", "MaximumRetryCount": "0"}
    assert (old["meta_name"], old["meta_labels"]) == (new["name"], new["labels"]) == ("full", {"app": "web"})
    assert (old["volumes_info"], old["containers_uuids"], old["capsule_version"]) == ({}, [], "")
    assert new["annotations"] == {"note": "hello"}
    assert new["created_at"] == "2023-11-14 22:13:20"
    assert (new["cpu"], new["memory"]) == (0.3, "200"), "the sum, or the largest init container"
    assert new["links"] == [
        {"href": f"{cloud.url}/v1/capsules/{uuid}", "rel": "self"},
        {"href": f"{cloud.url}/capsules/{uuid}", "rel": "bookmark"},
    ]
    ((address,),) = new["addresses"].values()
    assert address["version"] == 4 and not address["preserve_on_delete"]


async def test_containers_of_a_capsule(cloud: Cloud) -> None:
    made = await create(cloud, cloud.project(), FULL)
    first, second = made["containers"]
    (init,) = made["init_containers"]
    assert first["uuid"] == zun_capsules.container_uuid(made["uuid"], "app", "first")
    assert init["uuid"] == zun_capsules.container_uuid(made["uuid"], "init", "prepare")
    assert (first["name"], init["name"]) == ("first", "prepare")
    assert second["name"].startswith("capsule-full-")
    assert first["command"] == ["sleep", "$HOME"] and first["entrypoint"] == []
    assert first["environment"] == {"A": "$(B)"}
    assert (first["cpu"], first["memory"]) == (0.2, "64") and (init["cpu"], init["memory"]) == (None, "200")
    assert (first["workdir"], first["ports"], first["interactive"], first["tty"]) == ("/tmp", [80], True, True)
    assert first["status"] == init["status"] == "Creating"
    assert first["addresses"] == {}
    got = await cloud.ask("GET", f"/v1/containers/{first['uuid']}", ADMIN)
    got.refused(404, "container-not-found")
    got = await cloud.ask("GET", f"/v1/containers/{made['uuid']}", ADMIN)
    got.refused(404, "container-not-found")


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
async def test_as_gophercloud_asks(cloud: Cloud, dump: Any) -> None:
    token = cloud.project()
    body = {"template": dump(FULL)}
    got = await cloud.ask("POST", "/v1/capsules", token, version=None, body=body)
    assert got.status == 202
    assert got.headers["OpenStack-API-Version"] == "container 1.1"
    assert set(got.body) == OLD
    msgspec.convert(got.body, OldCapsule)
    listed = await cloud.ask("GET", "/v1/capsules", token, version=None)
    (item,) = listed.body["capsules"]
    assert msgspec.convert(item, OldCapsule).meta_name == "full"
    # With an unversioned endpoint it leaves v1 out.
    assert (await cloud.ask("GET", f"/capsules/{got.body['uuid']}", token, version=None)).status == 200
    assert (await cloud.ask("DELETE", f"/capsules/{got.body['uuid']}", token, version=None)).status == 204


async def test_statuses_follow_the_reports(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = (await create(cloud, token, FULL))["uuid"]
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    assert capsule.spec.pod is not None
    first, second = (c.name for c in capsule.spec.pod.spec.containers)
    done = PodContainerReport("prepare", "terminated", ended=Ended(0, finished_us=cloud.now))
    run = [PodContainerReport(name, "running", started_us=cloud.now - 90_000_000) for name in (first, second)]
    await report(
        cloud, uuid, PodReport("Running", init_containers=[done], containers=run), state="running", settled=True
    )
    shown = await show(cloud, uuid)
    assert shown["status"] == "Running" and shown["status_reason"] is None
    assert shown["host"] == "host-1"
    assert [c["status"] for c in (*shown["init_containers"], *shown["containers"])] == ["Stopped", "Running", "Running"]
    assert shown["containers"][0]["status_detail"] == "Up 1 mins"
    crash = PodContainerReport(second, reason="CrashLoopBackOff", message="back-off 10s", last=Ended(1))
    await report(cloud, uuid, PodReport("Running", init_containers=[done], containers=[run[0], crash]), state="running")
    shown = await show(cloud, uuid)
    assert (shown["status"], shown["status_reason"]) == (
        "Restarting",
        f"Container {second}: CrashLoopBackOff: back-off 10s",
    )
    assert [c["status"] for c in shown["containers"]] == ["Running", "Restarting"]
    over = [PodContainerReport(name, "terminated", ended=Ended(0)) for name in (first, second)]
    await report(
        cloud, uuid, PodReport("Succeeded", init_containers=[done], containers=over), state="exited", settled=True
    )
    assert (await show(cloud, uuid))["status"] == "Stopped"
    assert (await cloud.ask("DELETE", f"/v1/capsules/{uuid}", token)).status == 204
    shown = await show(cloud, uuid)
    assert shown["status"] == "Deleting"


async def test_no_host(cloud: Cloud) -> None:
    uuid = (await create(cloud, cloud.project()))["uuid"]
    assert await cloud.store.place(uuid, lambda _c, _l: None, "There are not enough hosts available.")
    shown = await show(cloud, uuid)
    assert (shown["status"], shown["status_reason"]) == ("Error", "There are not enough hosts available.")


# -- who sees what ----------------------------------------------------------------------------------------------


async def test_projects_are_walls(cloud: Cloud) -> None:
    mine, other = cloud.project(), cloud.project()
    uuid = (await create(cloud, mine, template("secret")))["uuid"]
    for ident in (uuid, "secret"):
        for suffix in ("", "?all_projects=1"):
            (await cloud.ask("GET", f"/v1/capsules/{ident}{suffix}", other)).refused(404, "container-not-found")
        (await cloud.ask("DELETE", f"/v1/capsules/{ident}", other)).refused(404, "container-not-found")
    (await cloud.ask("DELETE", f"/v1/capsules/{uuid}?all_projects=1", other)).refused(403, "policy-not-authorized")
    listed = await cloud.ask("GET", "/v1/capsules?all_projects=1", other)
    assert (listed.status, listed.body) == (200, {"capsules": [], "next": None})
    assert (await show(cloud, "secret", mine))["uuid"] == uuid
    assert (await show(cloud, uuid, mine))["name"] == "secret"
    assert (await show(cloud, uuid, ADMIN))["uuid"] == uuid
    assert (await cloud.ask("GET", "/v1/capsules", ADMIN)).body["capsules"] == []
    everywhere = await cloud.ask("GET", "/v1/capsules?all_projects=1", ADMIN)
    assert uuid in [c["uuid"] for c in everywhere.body["capsules"]]
    assert (await cloud.ask("GET", f"/v1/capsules/{uuid}", None)).status == 401


async def test_several_of_one_name(cloud: Cloud) -> None:
    token = cloud.project()
    for _ in range(2):
        await create(cloud, token, template("twin"))
    (await cloud.ask("GET", "/v1/capsules/twin", token)).refused(409, "conflict")


async def test_containers_and_capsules_are_listed_apart(cloud: Cloud) -> None:
    token = cloud.project()
    container = await cloud.create(token)
    capsule = (await create(cloud, token))["uuid"]
    assert [c["uuid"] for c in (await cloud.ask("GET", "/v1/containers", token)).body["containers"]] == [container]
    assert [c["uuid"] for c in (await cloud.ask("GET", "/v1/capsules", token)).body["capsules"]] == [capsule]
    (await cloud.ask("GET", f"/v1/capsules/{container}", token)).refused(404, "container-not-found")


# -- lists ------------------------------------------------------------------------------------------------------


async def test_pages(cloud: Cloud) -> None:
    token = cloud.project()
    uuids = [(await create(cloud, token, template(name)))["uuid"] for name in ("b", "c", "a")]
    seen, path = [], "/v1/capsules/?limit=2&sort_key=name&sort_dir=desc&unknown=1"
    while path:
        got = await cloud.ask("GET", path, token)
        seen += [c["name"] for c in got.body["capsules"]]
        assert all("links" in c for c in got.body["capsules"])
        following = got.body["next"]
        assert following is None or following.startswith(
            f"{cloud.url}/v1/capsules?sort_key=name&sort_dir=desc&limit=2&marker="
        )
        path = following and following.removeprefix(cloud.url)
    assert seen == ["c", "b", "a"]
    got = await cloud.ask("GET", "/v1/capsules", token)
    assert [c["uuid"] for c in got.body["capsules"]] == uuids
    assert got.body["next"] is None
    # Zun has no filters here, and ignores what it does not know.
    assert len((await cloud.ask("GET", "/v1/capsules?name=a", token)).body["capsules"]) == 3
    everywhere = await cloud.ask("GET", "/v1/capsules?all_projects=1&limit=1", ADMIN)
    assert everywhere.body["next"].endswith("&all_projects=1")


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [("limit=0", 400, "invalid-value"), ("limit=x", 400, "invalid-value"), ("sort_dir=up", 400, "invalid-value"),
     ("sort_key=foo", 400, "invalid-parameter-value"), ("all_projects=maybe", 400, "invalid-value"),
     ("marker=00000000-0000-4000-8000-000000000000", 404, "capsule-not-found")],
)  # fmt: skip
async def test_bad_lists(cloud: Cloud, query: str, status: int, code: str) -> None:
    (await cloud.ask("GET", f"/v1/capsules?{query}")).refused(status, code)


# -- create -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "title"),
    [({}, "'template' is a required property"),
     ({"template": None}, "Invalid input for field 'template'"),
     ({"template": []}, "Invalid input for field 'template'"),
     ({"template": template(), "foo": 1}, "Additional properties are not allowed ('foo' was unexpected)"),
     ({"template": {**template(), "nets": []}}, "Cannot use this template: nets: there is no such field"),
     ({"template": "kind: ["}, "Cannot use this template: template: it cannot be read"),
     ({"template": "x" * 900_000}, "Cannot use this template: template: it must be an object"),
     ({"template": template(image="")}, "Cannot use this template: spec.containers[0].image: it is required")],
)  # fmt: skip
async def test_bad_bodies(cloud: Cloud, body: Any, title: str) -> None:
    token = cloud.project()
    (await cloud.ask("POST", "/v1/capsules", token, body=body)).refused(400, "schema-validation-error", title)
    assert (await cloud.ask("GET", "/v1/capsules", token)).body["capsules"] == [], "nothing is left behind"


async def test_what_has_no_effect_is_said(cloud: Cloud) -> None:
    given = template("warn", {"nodeName": "x"}, ports=[{"containerPort": 80, "hostPort": 8080}])
    got = await cloud.ask("POST", "/v1/capsules", cloud.project(), body={"template": given})
    assert got.status == 202
    first, second = got.headers.getall("Warning")
    assert first.startswith('299 - "spec.nodeName has no effect') and "hostPort has no effect" in second


async def test_volumes(cloud: Cloud) -> None:
    token = cloud.project()
    project = token.split(":")[1]
    old = await cloud.volumes.create(project, "ann", "data", 3, multiattach=False)
    mounts = [{"name": "work", "mountPath": "/w"}, {"name": "old", "mountPath": "/o", "readOnly": True}]
    spec = {
        "volumes": [
            {"name": "work", "cinder": {"size": 2, "autoRemove": True}},
            {"name": "old", "cinder": {"volumeID": old.uuid}},
        ]
    }
    uuid = (await create(cloud, token, template("vols", spec, volumeMounts=mounts)))["uuid"]
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    grants = {grant.name: grant for grant in capsule.volumes}
    assert grants["old"].uuid == old.uuid and not grants["old"].auto_remove
    assert grants["work"].auto_remove and grants["work"].size_bytes == 2 << 30
    assert {v.uuid: v.size_gib for v in await cloud.volumes.volumes(project)} == {old.uuid: 3, grants["work"].uuid: 2}
    again = await cloud.ask(
        "POST", "/v1/capsules", token, body={"template": template("more", spec, volumeMounts=mounts)}
    )
    again.refused(409, "conflict", "Cannot attach volume")
    other = await cloud.ask(
        "POST", "/v1/capsules", cloud.project(), body={"template": template("x", spec, volumeMounts=mounts)}
    )
    assert (
        f"spec.volumes[1].cinder.volumeID: there is no volume {old.uuid}"
        in other.refused(400, "schema-validation-error")["detail"]
    )
    assert (await cloud.ask("DELETE", f"/v1/capsules/{uuid}", token)).status == 204
    assert [v.uuid for v in await cloud.volumes.volumes(project)] == [old.uuid], "autoRemove took the new one along"


# -- delete and the rest ----------------------------------------------------------------------------------------


async def test_delete(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cloud.project()
    made = await create(cloud, token, template("gone"))
    got = await cloud.ask("DELETE", "/v1/capsules/gone", token)
    assert (got.status, got.raw) == (204, b"")
    assert got.headers["OpenStack-API-Version"] == "container 1.40"
    (await cloud.ask("GET", f"/v1/capsules/{made['uuid']}", token)).refused(404, "container-not-found")
    (await cloud.ask("DELETE", f"/v1/capsules/{made['uuid']}", token)).refused(404, "container-not-found")
    placed = (await create(cloud, token, template("placed")))["uuid"]
    await cloud.place(placed)
    assert (await cloud.ask("DELETE", f"/v1/capsules/{placed}", token)).status == 204
    (capsule,) = await cloud.store.capsules_by_uuid([placed])
    monkeypatch.setattr(cloud, "now", cloud.now + 5_000_000)
    assert (await cloud.ask("DELETE", f"/v1/capsules/{placed}", token)).status == 204
    (again,) = await cloud.store.capsules_by_uuid([placed])
    assert again.wish == capsule.wish, "a second delete does not begin the grace anew"
    assert capsule.wish.state == "deleted" and capsule.wish.generation == 2
    assert (await show(cloud, placed, token))["status"] == "Deleting"


async def test_verbs_that_are_not_there(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = (await create(cloud, token))["uuid"]
    for method, path in (
        ("PATCH", f"/v1/capsules/{uuid}"),
        ("POST", f"/v1/capsules/{uuid}"),
        ("DELETE", "/v1/capsules"),
    ):
        got = await cloud.ask(method, path, token, body={"name": "x"})
        got.refused(405, "", "Method Not Allowed")
        assert got.headers["Allow"]
    assert (await cloud.ask("POST", f"/v1/capsules/{uuid}/stop", token)).status == 404


# -- two APIs, one capsule --------------------------------------------------------------------------------------


async def test_native_and_zun_see_the_same_capsules(cloud: Cloud) -> None:
    token = cloud.project()
    pod = {
        "metadata": {"name": "native", "labels": {"a": "b"}},
        "spec": {
            "restartPolicy": "Never",
            "initContainers": [{"name": "side", "image": "busybox", "restartPolicy": "Always", "resources": {"limits": {"cpu": "250m"}}}],
            "containers": [
                {"name": "app", "image": "busybox", "command": ["sh", "-c"], "args": ["echo $(A)"],
                 "env": [{"name": "A", "value": "1"}, {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                 "resources": {"limits": {"memory": "1536Ki"}}}
            ],
        },
        "content": {"secrets": {"s": {"stringData": {"k": "hunter2"}}}},
    }  # fmt: skip
    made = await cloud.ask("POST", "/askos/v1/capsules", token, body=pod)
    assert made.status == 201, made
    shown = await show(cloud, "native", token)
    assert (shown["uuid"], shown["labels"], shown["cpu"], shown["memory"]) == (made.body["id"], {"a": "b"}, 0.25, "2")
    (app,), (side,) = shown["containers"], shown["init_containers"]
    assert (app["entrypoint"], app["command"]) == (["sh", "-c"], ["echo $(A)"])
    assert app["environment"] == {"A": "1"} and "hunter2" not in json.dumps(shown)
    assert (app["restart_policy"]["Name"], side["restart_policy"]["Name"]) == ("no", "always")
    msgspec.convert(shown, NewCapsule)
    zun = await create(cloud, token, FULL)
    native = (await cloud.ask("GET", f"/askos/v1/capsules/{zun['uuid']}", token)).body
    assert native["metadata"]["name"] == "full"
    assert [c["name"] for c in native["spec"]["containers"]] == [c["name"] for c in zun["containers"]]
    selected = await cloud.ask("GET", "/askos/v1/capsules?labelSelector=app%3Dweb", token)
    assert [item["id"] for item in selected.body["items"]] == [zun["uuid"]]
    assert (await cloud.ask("DELETE", "/v1/capsules/native", token)).status == 204
    (await cloud.ask("GET", f"/askos/v1/capsules/{made.body['id']}", token)).refused(404, "capsule-not-found")


async def test_versions_document_names_capsules(cloud: Cloud) -> None:
    got = await cloud.ask("GET", "/v1", None)
    assert [link["rel"] for link in got.body["capsules"]] == ["self", "bookmark"]
