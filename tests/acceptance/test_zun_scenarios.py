"""Every subcommand of `zun`, python-zunclient's own command, on real containers; the first of them are in
test_openstack_clients.py, capsules in test_zun_capsules.py."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.client_fixtures import runs
from tests.acceptance.cloud_fixtures import LIVES, Cloud, eventually
from tests.acceptance.image_fixtures import Image, Registry
from tests.acceptance.terminal_fixtures import Terminal


def zun(cloud: Cloud, *words: str) -> str:
    return cloud.zun(*words).stdout


def fields(text: str) -> dict[str, str]:
    """The two columns of a printed table."""
    return {m[1]: m[2].strip() for m in re.finditer(r"^\| (\S.*?) +\| (.*?) *\|$", text, re.MULTILINE)}


def column(text: str, title: str) -> list[str]:
    """What a printed table has under `title`."""
    head, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    return [row[head.index(title)] for row in rows]


@pytest.fixture
def name() -> str:
    return f"box-{secrets.token_hex(3)}"


@runs(
    "zun", "create", "list", "show", "start", "stats", "top", "kill", "cp", "pause", "unpause", "update", "rename", "restart",
    "rebuild", "commit", "attach", "action-list", "action-show", "delete",
)  # fmt: skip
def test_the_life_of_a_container(cloud: Cloud, name: str, tmp_path: Path) -> None:
    made = fields(zun(cloud, "create", "--name", name, "--memory", "64", "-e", "A=b", "--interactive", "busybox", "sh"))
    uuid = made["uuid"]
    assert (made["name"], made["memory"], made["tty"]) == (name, "64", "True")
    cloud.wait_for(uuid, "Created")
    assert column(zun(cloud, "list", "--status", "Created", "--name", name), "uuid") == [uuid]
    assert "accepted" in zun(cloud, "start", name)
    cloud.wait_for(uuid, "Running")
    assert fields(zun(cloud, "show", name))["status"] == "Running"
    with Terminal("zun", "attach", name, env=cloud.variables()) as terminal:
        terminal.expect("connected to", 60)
        terminal.type("\n")
        terminal.expect("# ")
        terminal.type("echo pid $$ $A\n")
        terminal.expect("pid 1 b\r\n")
        terminal.process.kill()
        terminal.process.wait(10)
    used = fields(zun(cloud, "stats", name))
    assert (used["CONTAINER"], used["MEM LIMIT(MiB)"]) == (name, "64.0")
    top = cloud.zun("top", name, check=False)
    # python-zunclient 5.5.0 gets them and cannot print them: `print("%-20s") % title` is no Python 3.
    assert "PID" in top.stdout or "for %: 'NoneType' and 'str'" in top.stderr, top
    (tmp_path / "given").write_text("from outside")
    zun(cloud, "cp", str(tmp_path / "given"), f"{name}:/tmp")
    zun(cloud, "cp", f"{name}:/tmp/given", str(tmp_path / "back"))
    assert (tmp_path / "back" / "given").read_text() == "from outside"
    zun(cloud, "pause", name)
    cloud.wait_for(uuid, "Paused")
    zun(cloud, "unpause", name)
    cloud.wait_for(uuid, "Running")
    # `rename` went with version 1.20, and the client sends the newest it knows.
    refused = cloud.zun("rename", name, f"{name}-2", check=False)
    assert refused.returncode != 0 and "406" in refused.stderr
    cloud.zun("--zun-api-version", "1.13", "rename", name, f"{name}-2")
    changed = fields(zun(cloud, "update", "--cpu", "0.25", "--memory", "96", f"{name}-2"))
    assert (changed["name"], changed["cpu"], changed["memory"]) == (f"{name}-2", "0.25", "96")
    said = zun(cloud, "commit", uuid, f"bakery-{name}:2")
    image = re.search(r"The image is (\S+)\.", said)
    assert image is not None, said
    # It stands still while its files are read.
    eventually(lambda: cloud.api("GET", f"/image/v2/images/{image[1]}").json()["status"] == "active", "it is an image")
    cloud.wait_for(uuid, "Running")
    assert "accepted" in zun(cloud, "restart", "--timeout", "0", uuid)
    cloud.wait_for(uuid, "Running")
    assert cloud.inside(uuid, "cat /tmp/given") == (0, "from outside")
    zun(cloud, "rebuild", uuid)
    cloud.wait_for(uuid, "Running")
    assert cloud.inside(uuid, "cat /tmp/given")[0] != 0
    assert "accepted" in zun(cloud, "kill", uuid)
    assert cloud.wait_for(uuid, "Stopped")["status_detail"].startswith("Exited(137) ")
    asked = zun(cloud, "action-list", uuid)
    assert column(asked, "action") == [
        "kill",
        "rebuild",
        "reboot",
        "commit",
        "unpause",
        "pause",
        "start",
        "create",
    ]
    one = fields(zun(cloud, "action-show", uuid, column(asked, "request_id")[0]))
    assert (one["action"], one["container_uuid"]) == ("kill", uuid)
    zun(cloud, "delete", uuid)
    eventually(lambda: column(zun(cloud, "list"), "uuid") == [], "it is gone")
    eventually(lambda: cloud.openstack("image", "delete", image[1], check=False).returncode == 0, "the image can go")


@pytest.fixture
def network(cloud: Cloud) -> Iterator[str]:
    """The name of a network of its own, with a subnet 172.30.8.0/24."""
    name = f"net-{secrets.token_hex(3)}"
    made = cloud.api("POST", "/networking/v2.0/networks", {"network": {"name": name}}).json()["network"]["id"]
    subnet = {"network_id": made, "cidr": "172.30.8.0/24", "ip_version": 4}
    assert cloud.api("POST", "/networking/v2.0/subnets", {"subnet": subnet}).status == 201
    yield name
    cloud.clear()
    assert cloud.api("DELETE", f"/networking/v2.0/networks/{made}").status == 204


@runs("zun", "network-attach", "network-list", "network-detach", "add-security-group", "remove-security-group")
def test_networks(cloud: Cloud, name: str, network: str) -> None:
    uuid = cloud.running(name=name)
    assert "accepted" in zun(cloud, "network-attach", "--network", network, "--fixed-ip", "172.30.8.77", name)
    eventually(lambda: "172.30.8.77/24" in cloud.inside(uuid, "ip -4 addr")[1], "it has the address")
    cloud.wait_for(uuid, "Running")
    assert "172.30.8.77" in column(zun(cloud, "network-list", name), "fixed_ips")
    assert "accepted" in zun(cloud, "network-detach", "--network", network, name)
    eventually(lambda: "172.30.8.77" not in cloud.inside(uuid, "ip -4 addr")[1], "it has it no more")
    cloud.wait_for(uuid, "Running")
    group = {"security_group": {"name": f"{name}-group"}}
    made = cloud.api("POST", "/networking/v2.0/security-groups", group).json()["security_group"]["id"]
    before = cloud.show(uuid)["security_groups"]
    old = ("--zun-api-version", "1.14")
    assert "accepted" in cloud.zun(*old, "add-security-group", name, f"{name}-group").stdout
    eventually(lambda: made in cloud.show(uuid)["security_groups"], "it is in the group")
    assert "accepted" in cloud.zun(*old, "remove-security-group", name, f"{name}-group").stdout
    eventually(lambda: cloud.show(uuid)["security_groups"] == before, "it is as it was")
    assert "HTTP 406" in zun(cloud, "add-security-group", name, f"{name}-group")
    cloud.clear()
    assert cloud.api("DELETE", f"/networking/v2.0/security-groups/{made}").status == 204


@runs(
    "zun", "availability-zone-list", "host-list", "host-show", "service-list", "service-disable", "service-enable",
    "service-force-down", "service-delete", "version-list",
)  # fmt: skip
def test_hosts_and_services(cloud: Cloud) -> None:
    assert column(zun(cloud, "availability-zone-list"), "availability_zone") == ["nova"]
    (host,) = column(zun(cloud, "host-list"), "hostname")
    assert fields(zun(cloud, "host-show", host))["hostname"] == host
    where = (host, "zun-compute")
    try:
        zun(cloud, "service-disable", *where, "--reason", "repair")
        assert column(zun(cloud, "service-list"), "Disabled Reason") == ["repair"]
        zun(cloud, "service-force-down", *where)
        assert column(zun(cloud, "service-list"), "State") == ["down"]
    finally:
        zun(cloud, "service-enable", *where)
        zun(cloud, "service-force-down", *where, "--unset")
    assert "accepted" in zun(cloud, "service-delete", *where)
    eventually(lambda: column(zun(cloud, "service-list"), "State") == ["up"], "the host is there again")
    assert column(zun(cloud, "version-list"), "Max Version") == ["1.40"]
    cloud.running(LIVES)


@runs(
    "zun", "quota-get", "quota-defaults", "quota-update", "quota-delete", "quota-class-get", "quota-class-update",
    "registry-create", "registry-list", "registry-show", "registry-update", "registry-delete",
)  # fmt: skip
def test_quotas_and_registries(cloud: Cloud, name: str) -> None:
    project = cloud.api("POST", "/identity/v3/projects", {"project": {"name": name}}).json()["project"]["id"]
    assert fields(zun(cloud, "quota-defaults", project))["containers"] == "40"
    assert fields(zun(cloud, "quota-update", "--containers", "3", project))["containers"] == "3"
    assert fields(zun(cloud, "quota-get", project))["containers"] == "3"
    used = zun(cloud, "quota-get", "--usages", project)
    assert dict(zip(column(used, "Property"), column(used, "in_use"), strict=True))["containers"] == "0"
    zun(cloud, "quota-delete", project)
    assert fields(zun(cloud, "quota-get", project))["containers"] == "40"
    zun(cloud, "quota-class-update", "--cpu", "64", name)
    assert fields(zun(cloud, "quota-class-get", name))["cpu"] == "64"

    login = ("--username", "al", "--password", "s3cret-of-al")
    made = zun(cloud, "registry-create", "--name", name, "--domain", "reg.example:5000", *login)
    assert fields(made)["password"] == "***"
    assert name in column(zun(cloud, "registry-list"), "name")
    assert "other.example" in zun(cloud, "registry-update", "--domain", "other.example", name)
    assert fields(zun(cloud, "registry-show", name))["domain"] == "other.example"
    assert "accepted" in zun(cloud, "registry-delete", name)
    assert name not in zun(cloud, "registry-list")


@runs("zun", "pull", "image-list", "image-show", "image-delete", "image-search")
def test_images(cloud: Cloud, name: str, tmp_path: Path) -> None:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs Debian's docker-registry")
    (host,) = column(zun(cloud, "host-list"), "hostname")
    registry = Registry(tmp_path)
    try:
        registry.push("open/app", "2", Image("to be pulled"))
        repo = f"{registry.address}/open/app"
        uuid = fields(zun(cloud, "pull", f"{repo}:2", host))["uuid"]
        eventually(lambda: "sha256:" in fields(zun(cloud, "image-show", uuid))["image_id"], "the image is there")
    finally:
        registry.stop()
    assert (uuid, repo) in zip(*(column(zun(cloud, "image-list"), title) for title in ("uuid", "repo")), strict=True)
    zun(cloud, "image-delete", uuid)
    assert uuid not in zun(cloud, "image-list")
    made = cloud.openstack(
        "image", "create", "--container-format", "docker", "--disk-format", "raw", name, "-f", "json"
    )
    assert column(zun(cloud, "image-search", "--image_driver", "glance", name), "Name") == [name]
    assert zun(cloud, "image-search", "--image_driver", "glance", "--exact-match", name[:-1]).count("\n") == 4, "no row"
    cloud.openstack("image", "delete", json.loads(made.stdout)["id"])
