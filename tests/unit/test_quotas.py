"""Quotas: what counts, who may see and set them, and that nobody gets past them."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic import command
from alembic.config import Config

from askos.adapters.sql import migrate
from askos.adapters.sql.database import Database, sqlite_url
from askos.adapters.sql.sealing import Sealer
from askos.adapters.sql.store import SqlStore
from askos.model.capsules import CapsuleSpec, ContainerSpec, Report, Wish
from askos.model.errors import ForbiddenError
from askos.model.pods import Container, Pod, PodMetadata, PodSpec, Resources
from askos.model.quotas import Limits, Usage, check, override

from .cloud import CONTENT_KEY, Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROOT = "root:elsewhere:admin"
RESOURCES = ("containers", "memory", "cpu", "disk")


def project_of(token: str) -> str:
    return token.split(":")[1]


async def allow(cloud: Cloud, token: str, **limits: Any) -> dict[str, int]:
    got = await cloud.ask("PUT", f"/v1/quotas/{project_of(token)}", ROOT, body=limits)
    assert got.status == 200, got
    return dict(got.body)


async def usages(cloud: Cloud, token: str) -> dict[str, dict[str, float]]:
    got = await cloud.ask("GET", f"/v1/quotas/{project_of(token)}?usages=false", token)
    assert got.status == 200, got
    return dict(got.body)


async def refused(cloud: Cloud, token: str, names: list[str], **fields: Any) -> None:
    got = await cloud.ask("POST", "/v1/containers", token, body={"image": "busybox", **fields})
    got.refused(403, "over-quota", f"Quota exceeded for resources: {names}")


async def test_fifty_creates_at_once_against_a_quota_of_forty_make_forty(cloud: Cloud) -> None:
    token = cloud.project()
    await allow(cloud, token, containers=40)
    answers = await asyncio.gather(
        *(cloud.ask("POST", "/v1/containers", token, body={"image": "busybox"}) for _ in range(50))
    )
    assert sorted(a.status for a in answers) == [202] * 40 + [403] * 10
    for answer in answers:
        if answer.status == 403:
            answer.refused(403, "over-quota", "Quota exceeded for resources: ['containers']")
    assert len((await cloud.ask("GET", "/v1/containers", token)).body["containers"]) == 40


async def test_what_is_granted_counts_also_when_it_was_not_asked_for(cloud: Cloud) -> None:
    token = cloud.project()
    await allow(cloud, token, cpu=2, memory=1024)
    uuid = await cloud.create(token)
    assert await usages(cloud, token) == {
        "containers": {"limit": -1, "in_use": 1},
        "memory": {"limit": 1024, "in_use": 512},
        "cpu": {"limit": 2, "in_use": 1.0},
        "disk": {"limit": -1, "in_use": 0},
    }
    await refused(cloud, token, ["memory", "cpu"], cpu=1.1, memory=513)
    await cloud.create(token, cpu=1, memory=512)
    await refused(cloud, token, ["memory", "cpu"], cpu=0.1, memory=4)
    assert (await cloud.ask("DELETE", f"/v1/containers/{uuid}", token)).status == 204
    assert (await usages(cloud, token))["cpu"]["in_use"] == 1.0
    await cloud.create(token)


async def test_disk_counts_where_a_limit_of_it_was_asked_for(cloud: Cloud) -> None:
    token = cloud.project()
    await allow(cloud, token, disk=5)
    await cloud.create(token, disk=3)
    await refused(cloud, token, ["disk"], disk=3)
    await cloud.create(token, disk=2)
    assert (await usages(cloud, token))["disk"] == {"limit": 5, "in_use": 5}


async def test_a_change_counts_by_its_difference(cloud: Cloud) -> None:
    token = cloud.project()
    await allow(cloud, token, cpu=3, memory=1000)
    uuid = await cloud.in_status(token, "Running", cpu=1, memory=512)
    path = f"/v1/containers/{uuid}"
    assert (await cloud.ask("PATCH", path, token, body={"cpu": 3})).status == 200
    got = await cloud.ask("PATCH", path, token, body={"cpu": 3.5, "memory": "1001"})
    got.refused(403, "over-quota", "Quota exceeded for resources: ['memory', 'cpu']")
    assert (await cloud.show(uuid))["cpu"] == 3.0, "a refused change changes nothing"
    assert (await cloud.ask("PATCH", path, token, body={"memory": "1000"})).status == 200
    await allow(cloud, token, cpu=1, memory=1)
    # Less is always possible, and so is what takes nothing.
    assert (await cloud.ask("PATCH", path, token, body={"memory": "600", "name": "renamed"})).status == 200


async def test_other_projects_do_not_count(cloud: Cloud) -> None:
    token, other = cloud.project(), cloud.project()
    await allow(cloud, token, containers=1, cpu=1)
    await cloud.create(other)
    await cloud.create(token)
    await refused(cloud, token, ["containers", "cpu"])
    await cloud.create(other)


def box(name: str, cpu: str = "", memory: str = "", **more: Any) -> dict[str, Any]:
    """A pod's container with limits."""
    limits = {key: text for key, text in (("cpu", cpu), ("memory", memory)) if text}
    return {"name": name, "image": "busybox", "resources": {"limits": limits}, **more}


def pod(name: str, *containers: dict[str, Any], inits: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """A manifest of the native API."""
    return {"metadata": {"name": name}, "spec": {"containers": list(containers), "initContainers": list(inits)}}


async def test_capsules_count_as_what_they_may_take_at_any_time(cloud: Cloud) -> None:
    token = cloud.project()
    await allow(cloud, token, containers=5, cpu=4, memory=300, disk=10)
    big = box("first", "3", "16Mi")
    side = box("side", memory="100Mi", restartPolicy="Always")
    asked = box("b")
    asked["resources"] = {"requests": {"cpu": "250m", "ephemeral-storage": "1536Mi"}}
    made = await cloud.ask(
        "POST", "/askos/v1/capsules", token, body=pod("p", box("a", "500m", "64Mi"), asked, inits=(big, side))
    )
    assert made.status == 201, made
    assert {name: use["in_use"] for name, use in (await usages(cloud, token)).items()} == {
        "containers": 3, "cpu": 3.0, "memory": 164, "disk": 2,
    }  # fmt: skip
    got = await cloud.ask(
        "POST", "/askos/v1/capsules", token, body=pod("q", box("a", "1500m", "200Mi"), box("b"), box("c"))
    )
    got.refused(403, "over-quota", "Quota exceeded for resources: ['containers', 'memory', 'cpu']")
    # Containers and capsules draw from the same quota.
    await refused(cloud, token, ["memory"], memory=256, cpu=0.5)
    await cloud.create(token, memory=128, cpu=0.5)
    assert (await cloud.ask("DELETE", f"/askos/v1/capsules/{made.body['metadata']['uid']}", token)).status == 202
    assert (await usages(cloud, token))["containers"]["in_use"] == 1


async def test_zun_capsules_count_too(cloud: Cloud) -> None:
    token = cloud.project()
    await allow(cloud, token, containers=2, cpu=3)

    def template(name: str, cpu: float) -> dict[str, Any]:
        boxes = [{"image": "busybox", "resources": {"requests": {"cpu": cpu, "memory": 64}}}]
        return {"template": {"kind": "capsule", "metadata": {"name": name}, "spec": {"containers": boxes}}}

    assert (await cloud.ask("POST", "/v1/capsules", token, body=template("a", 2))).status == 202
    got = await cloud.ask("POST", "/v1/capsules", token, body=template("b", 1.5))
    got.refused(403, "over-quota", "Quota exceeded for resources: ['cpu']")
    assert (await cloud.ask("POST", "/v1/capsules", token, body=template("b", 1))).status == 202
    got = await cloud.ask("POST", "/v1/capsules", token, body=template("c", 0.5))
    got.refused(403, "over-quota", "Quota exceeded for resources: ['containers', 'cpu']")


async def test_a_capsule_grows_within_the_quota(cloud: Cloud) -> None:
    token = cloud.project()
    await allow(cloud, token, cpu=2)
    made = await cloud.ask(
        "POST", "/askos/v1/capsules", token, body=pod("p", box("a", "1", "64Mi"), box("b", "500m", "1Mi"))
    )
    path = f"/askos/v1/capsules/{made.body['metadata']['uid']}"

    async def resize(cpu: str) -> Any:
        resources = {"limits": {"cpu": cpu}, "requests": {"cpu": cpu}}
        body = {"spec": {"containers": [{"name": "a", "resources": resources}]}}
        return await cloud.ask(
            "PATCH", path, token, body=body, headers={"Content-Type": "application/strategic-merge-patch+json"}
        )

    (await resize("1600m")).refused(403, "over-quota", "Quota exceeded for resources: ['cpu']")
    shown = await cloud.ask("GET", path, token)
    assert shown.body["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "1", "a refused change changes nothing"
    assert (await resize("1500m")).status == 200
    await allow(cloud, token, cpu=1)
    assert (await resize("1200m")).status == 200, "less is always possible"
    assert (await usages(cloud, token))["cpu"]["in_use"] == 1.7


async def test_creates_of_both_kinds_at_once_never_get_past_a_quota(cloud: Cloud) -> None:
    token = cloud.project()
    await allow(cloud, token, containers=10)
    asked: list[tuple[str, Any]] = []
    for number in range(12):
        asked.append(("/v1/containers", {"image": "busybox"}))
        asked.append(("/askos/v1/capsules", pod(f"p{number}", box("a"), box("b"))))
    answers = await asyncio.gather(*(cloud.ask("POST", path, token, body=body) for path, body in asked))
    assert {a.status for a in answers} <= {201, 202, 403}
    # Twelve containers are enough to fill up whatever place the capsules leave.
    taken = sum({201: 2, 202: 1, 403: 0}[a.status] for a in answers)
    assert taken == (await usages(cloud, token))["containers"]["in_use"] == 10


async def test_capsules_from_before_count_too(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    config.attributes["url"] = f"sqlite:///{path}"
    command.upgrade(config, "0008")
    limits = Resources(limits={"cpu": "2", "memory": "1Mi", "ephemeral-storage": "3Gi"})
    spec = PodSpec(containers=[Container("a", "busybox", resources=limits), Container("b", "busybox")])
    rows = {
        "capsule": (CapsuleSpec(pod=Pod(PodMetadata("p"), spec)), 0, 0, 0),
        "container": (CapsuleSpec([ContainerSpec("main", "busybox", cpu=1.5, disk_gib=4)]), 1500, 512, 4),
    }
    encoded = [msgspec.json.encode(part).decode() for part in (Wish("running"), Report())]
    with sqlite3.connect(path) as old:
        for kind, (value, *claims) in rows.items():
            old.execute(
                "INSERT INTO capsules (uuid, project_id, user_id, name, kind, spec, cpu, memory_mib, disk_gib, wish, "
                "wish_state, epoch, report, status, image, auto_remove, revision, created_us) VALUES "
                "(?, 'p', 'u', 'n', ?, ?, ?, ?, ?, ?, 'running', 0, ?, 'Creating', 'busybox', 0, 1, 5)",
                (kind, kind, msgspec.json.encode(value).decode(), *claims, *encoded),
            )
    old.close()
    database = Database(sqlite_url(path))
    try:
        await migrate.upgrade(database)
        used = await SqlStore(database, sealer=Sealer(CONTENT_KEY)).usage("p")
        assert used == Usage(containers=3, memory_mib=513, cpu_milli=3500, disk_gib=7)
    finally:
        await database.close()


async def test_the_default_class_is_for_projects_without_their_own(cloud: Cloud) -> None:
    token, special = cloud.project(), cloud.project()
    await allow(cloud, special, containers=7)
    before = (await cloud.ask("GET", "/v1/quota_classes/default", ROOT)).body
    assert before == dict.fromkeys(RESOURCES, -1)
    changed = await cloud.ask("PUT", "/v1/quota_classes/default", ROOT, body={"containers": "2"})
    assert (changed.status, changed.body) == (200, {**before, "containers": 2})
    try:
        for path in (f"/v1/quotas/{project_of(token)}", f"/v1/quotas/{project_of(token)}/defaults"):
            assert (await cloud.ask("GET", path, token)).body["containers"] == 2
        assert (await cloud.ask("GET", f"/v1/quotas/{project_of(special)}", special)).body["containers"] == 7
        await cloud.create(token)
        await cloud.create(token)
        await refused(cloud, token, ["containers"])
        gone = await cloud.ask("DELETE", f"/v1/quotas/{project_of(special)}", ROOT)
        assert (gone.status, gone.body) == (200, None)
        assert (await cloud.ask("GET", f"/v1/quotas/{project_of(special)}", special)).body["containers"] == 2
    finally:
        await cloud.ask("PUT", "/v1/quota_classes/default", ROOT, body={"containers": -1})
    assert (await cloud.ask("GET", "/v1/quota_classes/unheard-of", ROOT)).body == before
    assert (await cloud.ask("PUT", "/v1/quota_classes/gold", ROOT, body={"cpu": 64})).body == {**before, "cpu": 64}
    assert (await cloud.ask("GET", "/v1/quota_classes/gold", ROOT)).body["cpu"] == 64
    assert (await cloud.ask("DELETE", "/v1/quota_classes/gold", ROOT)).status == 405


async def test_who_may_see_and_set(cloud: Cloud) -> None:
    token = cloud.project()
    own, others = f"/v1/quotas/{project_of(token)}", "/v1/quotas/somebody-elses"
    assert (await cloud.ask("GET", own, token, version="1.1")).status == 200
    for method, path, rule in (
        ("GET", others, "quota:get"),
        ("GET", f"{others}/defaults", "quota:get_default"),
        ("PUT", own, "quota:update"),
        ("DELETE", own, "quota:delete"),
        ("GET", "/v1/quota_classes/default", "quota_class:get"),
        ("PUT", "/v1/quota_classes/default", "quota_class:update"),
    ):
        body: Any = {"body": {}} if method == "PUT" else {}
        got = await cloud.ask(method, path, token, **body)
        got.refused(403, "policy-not-authorized", f"Policy doesn't allow {rule} to be performed.")
    assert (await cloud.ask("GET", others, ROOT)).body == dict.fromkeys(RESOURCES, -1)
    assert (await cloud.ask("GET", "/v1/quotas", ROOT)).status == 404


@pytest.mark.parametrize(
    ("body", "title"),
    [
        ({"containers": -2}, "Invalid input for field 'containers'"),
        ({"containers": "x"}, "Invalid input for field 'containers'"),
        ({"cpu": 1.5}, "Invalid input for field 'cpu'"),
        ({"memory": None}, "Invalid input for field 'memory'"),
        ({"memory": True}, "Invalid input for field 'memory'"),
        ({"disk": 2**31}, "Invalid input for field 'disk'"),
        ({"foo": 1}, "Additional properties are not allowed ('foo' was unexpected)"),
    ],
)
async def test_wrong_limits_are_refused(cloud: Cloud, body: dict[str, Any], title: str) -> None:
    for path in ("/v1/quotas/p", "/v1/quota_classes/c"):
        (await cloud.ask("PUT", path, ROOT, body=body)).refused(400, "schema-validation-error", title)


async def test_what_does_not_grow_is_not_looked_at() -> None:
    limits = override(Limits(containers=1, cpu=2), {"cpu": 3, "unheard-of": 1})
    assert limits == Limits(containers=1, cpu=3)
    over = Usage(5, 0, 9000)
    check(limits, over, Usage(1, 0, 9000), Usage(1, 0, 8000))
    check(limits, over, Usage(1, 0, 100), Usage(1, 999, 100))
    with pytest.raises(ForbiddenError, match=r"\['cpu'\]"):
        check(limits, over, Usage(1, 0, 100), Usage(1, 0, 101))
    check(Limits(cpu=1), Usage(9, 0, 900), Usage(), Usage(1, 0, 100))
