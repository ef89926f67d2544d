"""The Image API through the real client, and containers made of its images and made into them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.cloud_fixtures import LIVES, Cloud, eventually
from tests.acceptance.image_fixtures import Image

FORMATS = ("--container-format", "docker", "--disk-format", "raw")


def openstack(cloud: Cloud, *arguments: str) -> Any:
    return json.loads(cloud.openstack("image", *arguments, "-f", "json").stdout)


def upload(cloud: Cloud, path: Path, name: str, *more: str) -> str:
    made = openstack(cloud, "create", name, "--file", str(path), *FORMATS, *more)
    return str(eventually(lambda: shown(cloud, made["id"], "active"), "the image is active")["id"])


def shown(cloud: Cloud, uuid: str, status: str) -> Any:
    image = cloud.api("GET", f"/image/v2/images/{uuid}").json()
    assert image["status"] != "killed", image
    return image if image["status"] == status else None


def remove(cloud: Cloud, uuid: str) -> None:
    assert cloud.api("DELETE", f"/image/v2/images/{uuid}").status in (204, 404)
    assert not (cloud.data / "images" / uuid).exists()


def run(cloud: Cloud, image: str, *command: str, token: str | None = None, **fields: Any) -> str:
    body = {"image": image, "image_driver": "glance", **({"command": list(command)} if command else {}), **fields}
    answer = cloud.api("POST", "/v1/containers?run=true", body, token=token)
    assert answer.status == 202, answer
    return str(answer.json()["uuid"])


def container(cloud: Cloud, uuid: str) -> Any:
    return cloud.api("GET", f"/v1/containers/{uuid}").json()


def becomes(cloud: Cloud, uuid: str, status: str) -> Any:
    def look() -> Any:
        now = container(cloud, uuid)
        assert status == "Error" or now["status"] != "Error", now
        return now if now["status"] == status and now["task_state"] is None else None

    return eventually(look, f"it is {status}")


def logs(cloud: Cloud, uuid: str) -> str:
    return str(cloud.api("GET", f"/v1/containers/{uuid}/logs").json())


def test_images_through_the_real_client(cloud: Cloud, tmp_path: Path) -> None:
    data = Image("from the image service").docker_archive("anything:1")
    path = tmp_path / "image.tar"
    path.write_bytes(data)
    uuid = upload(cloud, path, "tool", "--property", "made_by=tests", "--tag", "one", "--min-ram", "64")
    try:
        (listed,) = openstack(cloud, "list", "--name", "tool")
        assert (listed["ID"], listed["Name"], listed["Status"]) == (uuid, "tool", "active")
        seen = openstack(cloud, "show", "tool")
        assert (seen["size"], seen["visibility"], seen["min_ram"], seen["tags"]) == (len(data), "private", 64, ["one"])
        assert seen["checksum"] == hashlib.md5(data, usedforsecurity=False).hexdigest()
        assert seen["properties"]["os_hash_value"] == hashlib.sha512(data).hexdigest()
        assert seen["properties"]["made_by"] == "tests"
        saved = tmp_path / "saved.tar"
        cloud.openstack("image", "save", "tool", "--file", str(saved))
        assert saved.read_bytes() == data
        cloud.openstack(
            "image", "set", "tool", "--name", "better", "--protected", "--public", "--property", "made_by=us",
            "--tag", "two", "--min-disk", "1",
        )  # fmt: skip
        seen = openstack(cloud, "show", "better")
        assert (seen["protected"], seen["visibility"], seen["min_disk"]) == (True, "public", 1)
        assert (sorted(seen["tags"]), seen["properties"]["made_by"]) == (["one", "two"], "us")
        refused = cloud.openstack("image", "delete", "better", check=False)
        assert refused.returncode != 0
        assert "protected" in refused.stderr
        cloud.openstack("image", "unset", "better", "--property", "made_by", "--tag", "one")
        cloud.openstack("image", "set", "better", "--unprotected", "--private")
        seen = openstack(cloud, "show", "better")
        assert ("made_by" in seen["properties"], seen["tags"]) == (False, ["two"])
        other = cloud.token(cloud.make_login("imageother"))
        assert cloud.api("GET", f"/image/v2/images/{uuid}", token=other).status == 404
        assert cloud.api("GET", f"/image/v2/images/{uuid}/file", token=other).status == 404
        cloud.openstack("image", "delete", "better")
        assert cloud.api("GET", f"/image/v2/images/{uuid}").status == 404
        assert not (cloud.data / "images" / uuid).exists()
    finally:
        cloud.api(
            "PATCH", f"/image/v2/images/{uuid}", [{"op": "replace", "path": "/protected", "value": False}],
            headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
        )  # fmt: skip
        remove(cloud, uuid)


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_a_container_of_an_image(cloud: Cloud, tmp_path: Path, form: str) -> None:
    name = f"busybox-{form}"
    made = Image(f"inside {form}")
    path = tmp_path / "image.tar"
    # The archive names another image of the host, which must stay what it is.
    path.write_bytes(made.docker_archive("busybox:latest") if form == "docker" else made.oci_archive("busybox:latest"))
    uuid = upload(cloud, path, name)
    try:
        first = run(cloud, name)
        assert becomes(cloud, first, "Stopped")["image"] == name
        assert logs(cloud, first) == f"inside {form}\n"
        assert container(cloud, first)["image_driver"] == "glance"
        by_id = run(cloud, uuid)
        becomes(cloud, by_id, "Stopped")
        assert logs(cloud, by_id) == f"inside {form}\n"
        answer = cloud.api("POST", "/v1/containers?run=true", {"image": "busybox", "command": ["ls", "/title"]})
        becomes(cloud, answer.json()["uuid"], "Stopped")
        assert "No such file" in logs(cloud, answer.json()["uuid"])
        # It starts again, and is rebuilt, from what the host has.
        assert cloud.api("POST", f"/v1/containers/{first}/start").status == 202
        eventually(lambda: logs(cloud, first) == f"inside {form}\n" * 2, "it has run twice")
        becomes(cloud, first, "Stopped")
        assert cloud.api("POST", f"/v1/containers/{first}/rebuild?image=busybox&image_driver=docker").status == 202
        becomes(cloud, first, "Created")
        assert container(cloud, first)["image_driver"] == "docker"
    finally:
        remove(cloud, uuid)


def test_images_that_cannot_be_run(cloud: Cloud, tmp_path: Path) -> None:
    answer = cloud.api("POST", "/v1/containers", {"image": "nowhere", "image_driver": "glance"})
    assert answer.status == 400
    assert "nowhere could not be found" in answer.error["title"] + answer.error["detail"]
    path = tmp_path / "rubbish.tar"
    path.write_bytes(b"this is no archive" * 1000)
    uuid = upload(cloud, path, "rubbish")
    try:
        other = cloud.token(cloud.make_login("imagethief"))
        stolen = cloud.api("POST", "/v1/containers", {"image": uuid, "image_driver": "glance"}, token=other)
        assert stolen.status == 400
        failed = becomes(cloud, run(cloud, "rubbish"), "Error")
        assert uuid in failed["status_reason"]
        assert "not a tar archive" in failed["status_reason"]
        assert list((cloud.data / "run" / "uploads").iterdir()) == []
    finally:
        remove(cloud, uuid)


def test_an_image_of_a_container(cloud: Cloud) -> None:
    answer = cloud.api("POST", "/v1/containers?run=true", {"image": "busybox", "command": list(LIVES)})
    uuid = answer.json()["uuid"]
    becomes(cloud, uuid, "Running")
    done = cloud.api("POST", f"/v1/containers/{uuid}/execute?command=sh+-c+%22echo+precious+%3E/kept%22")
    assert done.json()["exit_code"] == 0
    answer = cloud.api("POST", f"/v1/containers/{uuid}/commit?repository=snapshot&tag=v1")
    assert answer.status == 202, answer
    image = answer.json()["uuid"]
    try:
        record = eventually(lambda: shown(cloud, image, "active"), "the image is whole")
        assert (record["name"], record["tags"], record["container_format"]) == ("snapshot", ["v1"], "docker")
        assert container(cloud, uuid)["status"] == "Running"
        again = run(cloud, "snapshot", "cat", "/kept")
        becomes(cloud, again, "Stopped")
        assert logs(cloud, again) == "precious\n"
        actions = cloud.api("GET", f"/v1/containers/{uuid}/container_actions").json()["containerActions"]
        assert "commit" in [a["action"] for a in actions]
    finally:
        remove(cloud, image)


def test_a_cloud_that_is_killed_while_it_receives(cloud: Cloud, tmp_path: Path) -> None:
    image = cloud.api(
        "POST", "/image/v2/images", {"name": "half", "container_format": "docker", "disk_format": "raw"}
    ).json()["id"]  # fmt: skip
    folder = cloud.data / "images"
    pipe = subprocess.Popen(
        [
            "curl", "-sS", "-o", "/dev/null", "-X", "PUT", "-T", "-", "--limit-rate", "1M",
            "-H", f"X-Auth-Token: {cloud.token()}", "-H", "Content-Type: application/octet-stream",
            f"http://127.0.0.1:{cloud.port}/image/v2/images/{image}/file",
        ],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert pipe.stdin is not None
        pipe.stdin.write(bytes(3_000_000))
        pipe.stdin.flush()
        eventually(lambda: [p for p in folder.glob(f"{image}*") if p.stat().st_size], "something has arrived")
        cloud.restart()
    finally:
        pipe.kill()
        pipe.communicate()
    try:
        assert shown(cloud, image, "queued")
        eventually(lambda: not list(folder.glob(f"{image}*")), "what was left is removed")
        path = tmp_path / "image.tar"
        path.write_bytes(Image("whole").docker_archive("x:1"))
        put = cloud.api(
            "PUT", f"/image/v2/images/{image}/file", path.read_bytes(),
            headers={"Content-Type": "application/octet-stream"},
        )  # fmt: skip
        assert put.status == 204
        first = run(cloud, image)
        becomes(cloud, first, "Stopped")
        assert logs(cloud, first) == "whole\n"
    finally:
        remove(cloud, image)
