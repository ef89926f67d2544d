"""What operators and owners of quotas do, by the ecosystem's own clients, unmodified; and a registry that wants a
log-in."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.client_fixtures import runs
from tests.acceptance.cloud_fixtures import Cloud, eventually
from tests.acceptance.image_fixtures import Image, Registry

LOGIN = ("somebody", "open-sesame-7", "$2b$04$6fAvT3f5k9lYJGmc0CGmduSGpOqrK4jW5a/8VbnWhnaR08IRSFfKq")


def appcontainer(cloud: Cloud, *arguments: str, **more: Any) -> str:
    return str(cloud.openstack("appcontainer", *arguments, **more).stdout)


def rows(cloud: Cloud, *arguments: str) -> Any:
    return json.loads(appcontainer(cloud, *arguments, "-f", "json"))


def table(text: str) -> dict[str, str]:
    """The two columns of a printed table."""
    return {m[1]: m[2].strip() for m in re.finditer(r"^\| (\S+) +\| (.*?) *\|$", text, re.MULTILINE)}


@runs(
    "openstack",
    "appcontainer host list",
    "appcontainer host show",
    "appcontainer availability zone list",
    "appcontainer service list",
    "appcontainer service disable",
    "appcontainer service enable",
    "appcontainer service forcedown",
    "appcontainer service delete",
)
def test_hosts_services_and_zones(cloud: Cloud) -> None:
    (host,) = rows(cloud, "host", "list")
    shown = rows(cloud, "host", "show", host["hostname"])
    assert shown["uuid"] == host["uuid"] == rows(cloud, "host", "show", host["uuid"])["uuid"]
    assert int(shown["cpus"]) == os.cpu_count()
    assert [zone["availability_zone"] for zone in rows(cloud, "availability", "zone", "list")] == ["nova"]
    (service,) = rows(cloud, "service", "list")
    assert (service["Host"], service["Binary"], service["State"]) == (host["hostname"], "zun-compute", "up")
    where = (host["hostname"], "zun-compute")
    try:
        appcontainer(cloud, "service", "disable", *where, "--reason", "repair")
        (service,) = rows(cloud, "service", "list")
        assert (service["Disabled"], service["Disabled Reason"]) == (True, "repair")
        uuid = cloud.create()
        assert cloud.wait_for(uuid, "Error")["status_reason"] == "There are not enough hosts available."
        cloud.api("DELETE", f"/v1/containers/{uuid}")
        appcontainer(cloud, "service", "enable", *where)
        appcontainer(cloud, "service", "forcedown", *where)
        (service,) = rows(cloud, "service", "list")
        assert (service["Disabled"], service["State"]) == (False, "down")
    finally:
        appcontainer(cloud, "service", "enable", *where)
        appcontainer(cloud, "service", "forcedown", *where, "--unset")
    (service,) = rows(cloud, "service", "list")
    assert service["State"] == "up"
    uuid = cloud.running()
    assert cloud.show(uuid)["host"] == host["hostname"]
    assert int(rows(cloud, "host", "show", host["hostname"])["total_containers"]) >= 1
    cloud.clear()
    # A host that is connected is there again at once.
    assert "accepted" in appcontainer(cloud, "service", "delete", *where)
    eventually(lambda: [s["State"] for s in rows(cloud, "service", "list")] == ["up"], "the host is there again")
    cloud.running()


@runs(
    "openstack",
    "appcontainer quota get",
    "appcontainer quota default",
    "appcontainer quota update",
    "appcontainer quota delete",
    "appcontainer quota class update",
    "appcontainer quota class get",
)
def test_quotas(cloud: Cloud) -> None:
    login = cloud.make_login("quota-owner")
    token = cloud.token(login)
    project = json.loads(cloud.openstack("project", "show", login.project, "-f", "json").stdout)["id"]
    assert table(appcontainer(cloud, "quota", "get", project))["containers"] == "40"
    defaults = table(appcontainer(cloud, "quota", "default", project))
    assert (defaults["memory"], defaults["cpu"], defaults["disk"]) == ("51200", "20", "100")
    appcontainer(cloud, "quota", "update", project, "--containers", "1", "--memory", "600")
    assert table(appcontainer(cloud, "quota", "get", project))["containers"] == "1"
    made = cloud.api("POST", "/v1/containers", {"image": "busybox"}, token=token)
    assert made.status == 202
    refused = cloud.api("POST", "/v1/containers", {"image": "busybox"}, token=token)
    assert (refused.status, refused.error["title"]) == (
        403,
        "Quota exceeded for resources: ['containers', 'memory']",
    )
    usages = appcontainer(cloud, "quota", "get", project, "--usages")
    assert "'limit': 600" in usages and "'in_use': 512" in usages
    appcontainer(cloud, "quota", "delete", project)
    assert table(appcontainer(cloud, "quota", "get", project))["containers"] == "40"
    uuid = made.json()["uuid"]
    cloud.api("DELETE", f"/v1/containers/{uuid}?stop=true", token=token)
    appcontainer(cloud, "quota", "class", "update", "gold", "--cpu", "64")
    assert table(appcontainer(cloud, "quota", "class", "get", "gold"))["cpu"] == "64"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs Debian's docker-registry")
    made = Registry(tmp_path, LOGIN)
    try:
        yield made
    finally:
        made.stop()


@runs(
    "openstack",
    "appcontainer registry create",
    "appcontainer registry list",
    "appcontainer registry show",
    "appcontainer registry update",
    "appcontainer registry delete",
)
def test_a_registry_that_wants_a_log_in(cloud: Cloud, registry: Registry) -> None:
    registry.push("team/private", "1", Image("from the registry", settings={"Cmd": ["/bin/sh", "-c", "read x"]}))
    name, password, _ = LOGIN
    create = ("registry", "create", "--name", "locked", "--username", name, "--domain", registry.address)
    made = table(appcontainer(cloud, *create, "--password", password))
    assert (made["domain"], made["username"], made["password"]) == (registry.address, name, "***")
    assert [r["name"] for r in rows(cloud, "registry", "list")] == ["locked"]

    def runs(image: str, **fields: Any) -> str:
        body = {"image": image, "image_pull_policy": "always", "interactive": True, **fields}
        answer = cloud.api("POST", "/v1/containers?run=true", body)
        assert answer.status == 202, answer.body
        return str(answer.json()["uuid"])

    without = runs(f"{registry.address}/team/private:1")
    assert "login" in cloud.wait_for(without, "Error")["status_reason"]
    # The name has no domain: it is the registry's.
    short, full = (
        runs("team/private:1", registry="locked"),
        runs(f"{registry.address}/team/private:1", registry="locked"),
    )
    for uuid in (short, full):
        cloud.wait_for(uuid, "Running")
        assert cloud.show(uuid)["registry_id"] == made["uuid"]
    in_use = cloud.api("DELETE", "/v1/registries/locked")
    assert (in_use.status, in_use.error["code"]) == (409, "container.conflict")
    found = subprocess.run(["grep", "-rlaF", password, cloud.data], capture_output=True, text=True, check=False)
    assert found.stdout == "", "the password is nowhere in the clear"
    appcontainer(cloud, "registry", "update", "locked", "--password", "wrong-sesame-7")
    shown = table(appcontainer(cloud, "registry", "show", "locked"))
    assert (shown["uuid"], shown["password"]) == (made["uuid"], "***")
    wrong = runs("team/private:1", registry="locked")
    assert "login" in cloud.wait_for(wrong, "Error")["status_reason"]
    for uuid in (without, short, full, wrong):
        assert cloud.api("DELETE", f"/v1/containers/{uuid}?stop=true").status == 204
    eventually(lambda: "accepted" in appcontainer(cloud, "registry", "delete", "locked"), "the registry is not in use")
    assert rows(cloud, "registry", "list") == []


@runs(
    "openstack",
    "appcontainer image list",
    "appcontainer image pull",
    "appcontainer image show",
    "appcontainer image delete",
)
def test_images_on_hosts(cloud: Cloud, tmp_path: Path) -> None:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs Debian's docker-registry")
    (host,) = rows(cloud, "host", "list")
    assert any("busybox" in image["repo"] for image in rows(cloud, "image", "list"))
    registry = Registry(tmp_path)
    try:
        registry.push("open/app", "2", Image("to be pulled"))
        name = f"{registry.address}/open/app"
        pulled = rows(cloud, "image", "pull", f"{name}:2", host["hostname"])
        assert (pulled["repo"], pulled["tag"], pulled["host"]) == (name, "2", host["hostname"])
        uuid = pulled["uuid"]
        there = eventually(lambda: (s := rows(cloud, "image", "show", uuid))["image_id"] and s, "the image is there")
        assert there["image_id"].startswith("sha256:")
        assert int(there["size"]) > 0
        appcontainer(cloud, "image", "delete", uuid)
        assert uuid not in [image["uuid"] for image in rows(cloud, "image", "list")]
    finally:
        registry.stop()


def test_a_policy_file_counts_at_once(cloud: Cloud) -> None:
    token = cloud.token(cloud.make_login("policy-member"))
    assert cloud.api("GET", "/v1/services", token=token).status == 403
    file = cloud.data / "policy.yaml"
    try:
        file.write_text('"zun-service:get_all": "role:member"\n')
        assert cloud.api("GET", "/v1/services", token=token).status == 200
    finally:
        file.unlink()
    assert cloud.api("GET", "/v1/services", token=token).status == 403


def test_all_is_taken_away_again(cloud: Cloud) -> None:
    eventually(lambda: not cloud.containers(), "no containers are left")
