"""Quotas: what counts, who may see and set them, and that nobody gets past them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from askos.model.errors import ForbiddenError
from askos.model.quotas import Limits, Usage, check, override

from .cloud import Cloud

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


async def test_capsules_and_other_projects_do_not_count(cloud: Cloud) -> None:
    token, other = cloud.project(), cloud.project()
    await allow(cloud, token, containers=1, cpu=1)
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}
    for name in ("p", "q"):
        pod["metadata"] = {"name": name}
        assert (await cloud.ask("POST", "/askos/v1/capsules", token, body=pod)).status == 201
    await cloud.create(other)
    await cloud.create(token)
    await refused(cloud, token, ["containers", "cpu"])
    await cloud.create(other)


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
