"""The Block Storage API, through the real client, and volumes of it in real containers."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.capsule_fixtures import Pod, container, pod
from tests.acceptance.cloud_fixtures import Cloud, eventually


def openstack(cloud: Cloud, *arguments: str) -> Any:
    done = cloud.openstack(*arguments, "-f", "json")
    return json.loads(done.stdout)


def volume(cloud: Cloud, ident: str) -> Any:
    return cloud.api("GET", f"/volume/v3/volumes/{ident}")


def test_volumes_through_the_real_client(cloud: Cloud) -> None:
    made = openstack(cloud, "volume", "create", "--size", "1", "data")
    assert (made["name"], made["size"], made["status"]) == ("data", 1, "available")
    try:
        assert [v["Name"] for v in openstack(cloud, "volume", "list")] == ["data"]
        assert openstack(cloud, "volume", "show", "data")["id"] == made["id"]
        assert [t["Name"] for t in openstack(cloud, "volume", "type", "list")] == ["local"]
        mount = [{"name": "v", "mountPath": "/data"}]
        script = "df -m /data | tail -1; echo kept >> /data/x; cat /data/x; exec sleep 1000"
        body = pod(
            container("main", script, volumeMounts=mount),
            volumes=[{"name": "v", "cinder": {"volumeID": made["id"]}}],
        )
        first = Pod.create(cloud, body).ready()
        first.says("kept\n")
        seen = volume(cloud, made["id"]).json()["volume"]
        assert (seen["status"], [a["server_id"] for a in seen["attachments"]]) == ("in-use", [first.id])
        refused = cloud.openstack("volume", "delete", "data", check=False)
        assert refused.returncode != 0
        assert "in use" in refused.stderr
        first.delete(0)
        first.gone()
        # It grows when nobody uses it, and what is in it stays.
        cloud.openstack("volume", "set", "--size", "2", "data")
        body["metadata"]["name"] += "-again"
        second = Pod.create(cloud, body).ready()
        second.says("kept\nkept\n")
        assert int(second.logs().split()[1]) > 1500
        second.delete(0)
        second.gone()
    finally:
        eventually(lambda: cloud.openstack("volume", "delete", made["id"], check=False).returncode == 0, "it can go")
    eventually(lambda: volume(cloud, made["id"]).status == 404, "the volume is gone")


def test_errors_and_walls(cloud: Cloud) -> None:
    for body, word in (
        ({"volume": {}}, "size"),
        ({"volume": {"size": 0}}, "size"),
        ({"volume": {"size": "x"}}, "size"),
        ({"volume": {"size": 1, "snapshot_id": "x"}}, "snapshot_id"),
        ({"volume": {"size": 1, "volume_type": "ssd"}}, "ssd"),
        ({"wrong": {}}, "volume"),
    ):
        answer = cloud.api("POST", "/volume/v3/volumes", body)
        assert answer.status == 400, answer
        assert word in answer.json()["badRequest"]["message"]
    assert cloud.api("GET", "/volume/v3/volumes/nothing").json()["itemNotFound"]["code"] == 404
    assert cloud.http("GET", "/volume/v3/volumes").status == 401
    made = cloud.api("POST", "/volume/v3/volumes", {"volume": {"size": 1}}).json()["volume"]
    try:
        other = cloud.token(cloud.make_login("blockother"))
        assert cloud.api("GET", "/volume/v3/volumes", token=other).json()["volumes"] == []
        assert cloud.api("GET", f"/volume/v3/volumes/{made['id']}", token=other).status == 404
        assert cloud.api("DELETE", f"/volume/v3/volumes/{made['id']}", token=other).status == 404
    finally:
        assert cloud.api("DELETE", f"/volume/v3/volumes/{made['id']}").status == 202


def test_only_what_is_looked_up_tells_whose_and_where(cloud: Cloud) -> None:
    """Clients that check answers against Cinder's own schemas refuse a field more in that to POST or PUT."""
    made = cloud.api("POST", "/volume/v3/volumes", {"volume": {"size": 1}}).json()["volume"]
    path = f"/volume/v3/volumes/{made['id']}"
    try:
        changed = cloud.api("PUT", path, {"volume": {"name": "other"}}).json()["volume"]
        assert changed == {**made, "name": "other"}
        extra = {"os-vol-tenant-attr:tenant_id", "os-vol-host-attr:host"}
        shown = cloud.api("GET", path).json()["volume"]
        assert shown.keys() - changed.keys() == extra
        listed = cloud.api("GET", "/volume/v3/volumes/detail").json()["volumes"]
        assert shown in listed
    finally:
        assert cloud.api("DELETE", path).status == 202
