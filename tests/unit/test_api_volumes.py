"""The native API's volumes: what they look like, who sees them, what is refused, and how pods come to them."""

from __future__ import annotations

import uuid as uuids
from typing import Any

import pytest

from askos.api.errors import ApiError
from askos.api.volume_grants import grants
from askos.model.capsules import VolumeGrant
from askos.model.pods import CinderVolume, ClaimVolume, Container, EmptyDir, Pod, PodMetadata, PodSpec, Volume
from askos.model.volumes import GIB

from .cloud import HOST, Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/askos/v1/volumes"
ROOT = "root:elsewhere:admin"


async def made(cloud: Cloud, token: str, name: str = "data", **more: Any) -> dict[str, Any]:
    got = await cloud.ask("POST", PATH, token, body={"name": name, "size_gib": 3, **more})
    assert got.status == 201, got
    return dict(got.body)


def pod(*volumes: Volume) -> dict[str, Any]:
    """A create's body that mounts nothing but has volumes."""
    listed: list[dict[str, Any]] = []
    for volume in volumes:
        if volume.cinder is not None:
            listed.append({"name": volume.name, "cinder": {"volumeID": volume.cinder.volume_id}})
        elif volume.persistent_volume_claim is not None:
            claim = {"claimName": volume.persistent_volume_claim.claim_name}
            listed.append({"name": volume.name, "persistentVolumeClaim": claim})
    spec = {"containers": [{"name": "app", "image": "busybox"}], "volumes": listed}
    return {"metadata": {"name": f"p{uuids.uuid4().hex[:8]}"}, "spec": spec}


def claim(name: str, ident: str) -> Volume:
    return Volume(name, persistent_volume_claim=ClaimVolume(ident))


async def test_a_volume_from_create_to_delete(cloud: Cloud) -> None:
    token = cloud.project()
    shown = await made(cloud, token, multiattach=True)
    assert shown == {
        "id": shown["id"], "name": "data", "size_gib": 3, "status": "available", "status_reason": None,
        "multiattach": True, "host": None, "attachments": [], "project_id": token.split(":")[1],
        "created_at": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    for ident in (shown["id"], "data"):
        got = await cloud.ask("GET", f"{PATH}/{ident}", token)
        assert (got.status, got.body) == (200, shown)
    assert (await cloud.ask("GET", PATH, token)).body == {"volumes": [shown]}
    (await cloud.ask("POST", PATH, token, body={"name": "data", "size_gib": 1})).refused(409, "conflict")
    got = await cloud.ask("DELETE", f"{PATH}/data", token)
    assert (got.status, got.body) == (202, {**shown, "status": "deleting"})
    (await cloud.ask("GET", f"{PATH}/data", token)).refused(404, "volume-not-found")
    (await cloud.ask("DELETE", f"{PATH}/data", token)).refused(404, "volume-not-found")
    assert (await cloud.ask("GET", PATH, token)).body == {"volumes": []}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ([], ""),
        ({"name": "x"}, ""),
        ({"size_gib": 1}, ""),
        ({"name": "x", "size_gib": 0}, "size_gib"),
        ({"name": "x", "size_gib": -1}, "size_gib"),
        ({"name": "x", "size_gib": 10_001}, "size_gib"),
        ({"name": "x", "size_gib": 1.5}, "size_gib"),
        ({"name": "x", "size_gib": "10"}, "size_gib"),
        ({"name": "x", "size_gib": True}, "size_gib"),
        ({"name": "x", "size_gib": None}, "size_gib"),
        ({"name": "", "size_gib": 1}, "name"),
        ({"name": "a/b", "size_gib": 1}, "name"),
        ({"name": "..", "size_gib": 1}, "name"),
        ({"name": "a\n", "size_gib": 1}, "name"),
        ({"name": "a" * 256, "size_gib": 1}, "name"),
        ({"name": 5, "size_gib": 1}, "name"),
        ({"name": "x", "size_gib": 1, "multiattach": "yes"}, "multiattach"),
        ({"name": "x", "size_gib": 1, "host": "h"}, ""),
    ],
)
async def test_what_is_wrong_is_named(cloud: Cloud, body: Any, field: str) -> None:
    token = cloud.project()
    got = await cloud.ask("POST", PATH, token, body=body)
    error = got.refused(400, "schema-validation-error")
    assert field in error["title"]
    assert (await cloud.ask("GET", PATH, token)).body == {"volumes": []}


async def test_a_body_of_another_type_is_refused(cloud: Cloud) -> None:
    got = await cloud.ask("POST", PATH, data=b"name=x", headers={"Content-Type": "text/plain"})
    assert got.status == 415
    got = await cloud.ask("POST", PATH, data=b"{", headers={"Content-Type": "application/json"})
    got.refused(400, "schema-validation-error", "Malformed request body")
    got = await cloud.ask("POST", PATH, data=b"[]", headers={"Content-Type": "application/json"})
    got.refused(400, "schema-validation-error", "Cannot create a volume")
    got = await cloud.ask("POST", PATH, data=b" " * (1 << 21), headers={"Content-Type": "application/json"})
    assert got.status == 413


async def test_projects_are_walls(cloud: Cloud) -> None:
    mine, theirs = cloud.project(), cloud.project()
    shown = await made(cloud, mine, "wall")
    for ident in (shown["id"], "wall"):
        for method in ("GET", "DELETE"):
            (await cloud.ask(method, f"{PATH}/{ident}", theirs)).refused(404, "volume-not-found")
    assert (await cloud.ask("GET", PATH, theirs)).body == {"volumes": []}
    (await cloud.ask("GET", f"{PATH}?all_projects=1", theirs)).refused(403, "policy-not-authorized")
    (await cloud.ask("GET", f"{PATH}?all_projects=maybe", theirs)).refused(400, "schema-validation-error")
    refused = await cloud.ask("POST", "/askos/v1/capsules", theirs, body=pod(claim("v", shown["id"])))
    refused.refused(400, "schema-validation-error")
    assert shown["id"] in refused.error["detail"]
    # The name is free for others, and means theirs.
    other = await made(cloud, theirs, "wall")
    assert (await cloud.ask("GET", f"{PATH}/wall", theirs)).body == other
    # Administrators: all on request, and one by its id.
    found = (await cloud.ask("GET", f"{PATH}?all_projects=true", ROOT)).body["volumes"]
    assert {shown["id"], other["id"]} <= {v["id"] for v in found}
    assert (await cloud.ask("GET", f"{PATH}/{shown['id']}", ROOT)).body == shown
    (await cloud.ask("GET", f"{PATH}/wall", ROOT)).refused(404, "volume-not-found")
    assert (await cloud.ask("GET", PATH, None)).status == 401


async def test_a_volume_in_use_stays_and_shows_by_whom(cloud: Cloud) -> None:
    token = cloud.project()
    shown = await made(cloud, token)
    created = await cloud.ask("POST", "/askos/v1/capsules", token, body=pod(claim("v", "data")))
    assert created.status == 201, created
    capsule = created.body["id"]
    await cloud.place(capsule)
    got = (await cloud.ask("GET", f"{PATH}/data", token)).body
    assert got == {**shown, "status": "in-use", "attachments": [capsule]}
    root = f"root:{token.split(':')[1]}:admin"
    assert (await cloud.ask("GET", f"{PATH}/data", root)).body["host"] == "host-1"
    refused = await cloud.ask("DELETE", f"{PATH}/data", token)
    assert capsule in refused.refused(409, "conflict", "Cannot delete volume")["title"]
    again = await cloud.ask("POST", "/askos/v1/capsules", token, body=pod(claim("v", shown["id"])))
    assert capsule in again.refused(409, "conflict")["title"]
    (assignment,) = await cloud.store.assignments_of(HOST, [capsule])
    assert assignment.volumes == [VolumeGrant(shown["id"], "v", 3 * GIB)]


async def test_grants_name_every_field_that_leads_nowhere(cloud: Cloud) -> None:
    project = cloud.project().split(":")[1]
    token = f"ann:{project}:member"
    data, more = await made(cloud, token), await made(cloud, token, "more")
    foreign = await made(cloud, cloud.project())

    async def of(*volumes: Volume) -> list[VolumeGrant]:
        spec = PodSpec([Container("app", "busybox")], volumes=list(volumes))
        return await grants(Pod(PodMetadata("n"), spec), project, cloud.volumes)

    assert await of(Volume("tmp", empty_dir=EmptyDir())) == []
    assert await of(
        Volume("tmp"),
        Volume("a", cinder=CinderVolume(data["id"], read_only=True)),
        Volume("b", persistent_volume_claim=ClaimVolume("more")),
        Volume("c", persistent_volume_claim=ClaimVolume(more["id"], read_only=True)),
    ) == [
        VolumeGrant(data["id"], "a", 3 * GIB, read_only=True),
        VolumeGrant(more["id"], "b", 3 * GIB),
        VolumeGrant(more["id"], "c", 3 * GIB, read_only=True),
    ]
    with pytest.raises(ApiError) as refused:
        await of(
            Volume("a", cinder=CinderVolume(data["id"])),
            Volume("b", cinder=CinderVolume("data")),
            claim("c", foreign["id"]),
            claim("d", "nothing"),
            Volume("e", cinder=CinderVolume(str(uuids.uuid4()))),
        )
    assert refused.value.status == 400
    assert [line.partition(":")[0] for line in refused.value.detail.splitlines()] == [
        "spec.volumes[1].cinder.volumeID",
        "spec.volumes[2].persistentVolumeClaim.claimName",
        "spec.volumes[3].persistentVolumeClaim.claimName",
        "spec.volumes[4].cinder.volumeID",
    ]
