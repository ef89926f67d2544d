"""Every subcommand of `openstack appcontainer`, typed as its users type it, on real containers; what operators do is in
test_admin_api.py, capsules in test_zun_capsules.py, terminals in test_terminals.py."""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.client_fixtures import runs
from tests.acceptance.cloud_fixtures import LIVES, Cloud, Done, eventually

TALKS = """\
trap 'echo usr' USR1; trap 'echo bye; exit 5' TERM
echo out; echo err >&2
while :; do sleep 1 & wait $!; done"""
SERVES = "mkdir /www; echo served > /www/index.html; httpd -p 8080 -h /www; exec httpd -f -p 8081 -h /www"
SECURITY_GROUPS = "1.14"
"""The last version in which Zun itself changes the security groups of a container."""


def appcontainer(cloud: Cloud, *words: str, **more: Any) -> str:
    return str(cloud.openstack("appcontainer", *words, **more).stdout)


def told(cloud: Cloud, subcommand: str, *words: str) -> Any:
    """What a subcommand shows, as JSON. The flag stands before `words`: in some of them the container's command ends it."""
    return json.loads(appcontainer(cloud, *subcommand.split(), "-f", "json", *words))


def refused(cloud: Cloud, *words: str) -> str:
    done = cloud.openstack("appcontainer", *words, check=False)
    assert done.returncode != 0, done
    assert "Traceback" not in done.stderr
    return str(done.stderr)


def fetch(address: str, port: int) -> tuple[str, ...]:
    """A command that gets / over HTTP. Not busybox' wget: some builds of it crash with a time limit."""
    return ("sh", "-c", f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 1 {address} {port}")


@pytest.fixture
def name() -> str:
    return f"box-{secrets.token_hex(3)}"


@runs(
    "openstack", "appcontainer create", "appcontainer list", "appcontainer show", "appcontainer start", "appcontainer exec",
    "appcontainer logs", "appcontainer cp", "appcontainer stats", "appcontainer top", "appcontainer kill",
    "appcontainer pause", "appcontainer unpause", "appcontainer set", "appcontainer restart", "appcontainer rebuild",
    "appcontainer action list", "appcontainer action show", "appcontainer stop", "appcontainer delete",
)  # fmt: skip
def test_the_life_of_a_container(cloud: Cloud, name: str, tmp_path: Path) -> None:
    flags = (
        "--name", name, "--cpu", "0.5", "--memory", "64", "--disk", "1", "--hostname", "lively", "--workdir", "/tmp",
        "--environment", "A=b", "--environment", "C=d e=f", "--label", "tier=web", "--restart", "unless-stopped",
        "--healthcheck", "cmd=test ! -e /sick,interval=1s,retries=1,timeout=30s", "--availability-zone", "nova",
    )  # fmt: skip
    made = told(cloud, "create", *flags, "busybox", "sh", "-c", TALKS)
    uuid = made["uuid"]
    cloud.wait_for(uuid, "Created")
    shown = told(cloud, "show", name)
    wanted = {
        "uuid": uuid, "name": name, "image": "busybox", "cpu": 0.5, "memory": "64", "disk": 1, "hostname": "lively",
        "workdir": "/tmp", "environment": {"A": "b", "C": "d e=f"}, "labels": {"tier": "web"},
        "command": ["sh", "-c", TALKS], "status": "Created", "host": told(cloud, "host list")[0]["hostname"],
        "restart_policy": {"Name": "unless-stopped", "MaximumRetryCount": "0"},
        "healthcheck": {"test": "test ! -e /sick", "interval": 1, "retries": 1, "timeout": 30},
    }  # fmt: skip
    assert {key: shown[key] for key in wanted} == wanted
    assert [row["uuid"] for row in told(cloud, "list", "--name", name, "--status", "Created")] == [uuid]
    assert told(cloud, "list", "--name", name, "--status", "Running") == []

    assert "accepted" in appcontainer(cloud, "start", name)
    cloud.wait_for(uuid, "Running")
    done = cloud.openstack("appcontainer", "exec", name, "sh", "-c", 'hostname; pwd; echo "$C"; exit 7', check=False)
    assert (done.returncode, done.stdout.split("\n")[:3]) == (7, ["lively", "/tmp", "d e=f"])
    # The disk has 1 GiB and no more.
    appcontainer(cloud, "exec", name, "fallocate", "-l", "800m", "/big")
    done = cloud.openstack("appcontainer", "exec", name, "sh", "-c", "fallocate -l 1100m /more 2>&1", check=False)
    assert (done.returncode, "No space left" in done.stdout) == (1, True), done
    appcontainer(cloud, "exec", name, "rm", "/big")

    eventually(lambda: {"out", "err"} <= set(cloud.logs(uuid).split()), "both lines are there")
    assert appcontainer(cloud, "logs", "--stdout", name).split() == ["out"]
    assert appcontainer(cloud, "logs", "--stderr", name).split() == ["err"]
    (last,) = appcontainer(cloud, "logs", "--tail", "1", "--timestamps", name).split("\n")[:-2]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (out|err)", last)
    assert appcontainer(cloud, "logs", "--since", "2100-01-01 00:00:00,0", name).strip() == ""
    assert "accepted" in appcontainer(cloud, "kill", "--signal", "USR1", name)
    eventually(lambda: "usr" in appcontainer(cloud, "logs", name), "the signal has come")

    (tmp_path / "given").write_text("from outside")
    appcontainer(cloud, "cp", str(tmp_path / "given"), f"{name}:/tmp")
    assert appcontainer(cloud, "exec", name, "cat", "/tmp/given").strip() == "from outside"
    appcontainer(cloud, "cp", f"{name}:/tmp/given", str(tmp_path / "back"))
    assert (tmp_path / "back" / "given").read_text() == "from outside"
    assert "/nowhere" in refused(cloud, "cp", str(tmp_path / "given"), f"{name}:/nowhere")

    used = told(cloud, "stats", name)
    assert (used["CONTAINER"], used["MEM LIMIT(MiB)"]) == (name, 64.0)
    assert 0 < used["MEM USAGE(MiB)"] < 64
    _processes(cloud.openstack("appcontainer", "top", name, check=False))

    assert "accepted" in appcontainer(cloud, "pause", name)
    cloud.wait_for(uuid, "Paused")
    assert "Paused" in refused(cloud, "exec", name, "true")
    appcontainer(cloud, "unpause", name)
    cloud.wait_for(uuid, "Running")

    name, before = f"{name}-2", name
    changed = told(cloud, "set", "--name", name, "--cpu", "0.25", "--memory", "96", "--auto-heal", before)
    assert (changed["name"], changed["cpu"], changed["memory"], changed["auto_heal"]) == (name, 0.25, "96", True)
    eventually(lambda: told(cloud, "stats", name)["MEM LIMIT(MiB)"] == 96.0, "the limit is the new one")
    assert told(cloud, "set", "--no-auto-heal", name)["auto_heal"] is False
    assert before in refused(cloud, "show", before)
    assert "at least one property" in refused(cloud, "set", name)

    appcontainer(cloud, "exec", name, "touch", "/kept")
    assert "accepted" in appcontainer(cloud, "restart", "--timeout", "60", name)
    eventually(lambda: appcontainer(cloud, "logs", "--stdout", name).split().count("out") == 2, "it has begun again")
    cloud.wait_for(uuid, "Running")
    assert "bye" in appcontainer(cloud, "logs", name), "it was asked before it was killed"
    assert cloud.inside(uuid, "ls /kept")[0] == 0
    assert cloud.inside(uuid, "touch /sick")[0] == 0
    eventually(lambda: "(unhealthy)" in told(cloud, "show", name)["status_detail"], "it is not well")

    assert "accepted" in appcontainer(cloud, "rebuild", "--image", "busybox:latest", name)
    cloud.wait_for(uuid, "Running")
    assert cloud.inside(uuid, "ls /kept")[0] != 0
    assert told(cloud, "show", name)["image"] == "busybox:latest"

    assert "accepted" in appcontainer(cloud, "stop", "--timeout", "60", name)
    assert cloud.wait_for(uuid, "Stopped")["status_detail"].startswith("Exited(5) ")
    asked = told(cloud, "action list", name)
    assert [a["action"] for a in asked] == [
        "stop", "rebuild", "reboot", "unpause", "pause", "kill", "start", "create"
    ]  # fmt: skip
    one = told(cloud, "action show", name, asked[0]["request_id"])
    assert (one["action"], one["container_uuid"], one["message"]) == ("stop", uuid, None)
    assert [(event["event"], event["result"]) for event in one["events"]] == [("compute__do_container_stop", "Success")]

    assert "accepted" in appcontainer(cloud, "delete", name)
    eventually(lambda: told(cloud, "list", "--name", name) == [], "it is gone")
    assert "could not be found" in refused(cloud, "show", uuid)


def _processes(done: Done) -> None:
    """python-zunclient 5.5.0 gets them and cannot print them: `print("%-20s") % title` is no Python 3."""
    if done.returncode == 0:
        assert "PID" in done.stdout
    else:
        assert (done.stdout.strip(), "for %: 'NoneType' and 'str'" in done.stderr) == ("%-20s", True), done


@runs("openstack", "appcontainer run", "appcontainer commit", "appcontainer image search", "appcontainer delete")
def test_what_a_container_made_becomes_an_image(cloud: Cloud, name: str, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("key=1\n")
    mounts = (
        "--mount",
        f"type=bind,source={tmp_path}/conf,destination=/etc/app.conf",
        "--mount",
        "size=1,destination=/data",
    )
    script = "cat /etc/app.conf > /cake; echo kept > /data/f; exec sleep 1000"
    made = told(cloud, "run", "--name", name, *mounts, "--entrypoint", "sh -c", "busybox", script)
    uuid = made["uuid"]
    cloud.wait_for(uuid, "Running")
    eventually(lambda: cloud.inside(uuid, "cat /data/f") == (0, "kept\n"), "it has written")
    said = appcontainer(cloud, "commit", name, f"bakery-{name}:2")
    image = re.search(r"The image is (\S+)\.", said)
    assert image is not None, said

    def searched() -> Any:
        return told(cloud, "image search", "--image-driver", "glance", "--exact-match", f"bakery-{name}")

    (found,) = eventually(searched, "the image is found")
    assert (found["ID"], found["Tags"], found["Status"]) == (image[1], ["2"], "active")
    eats = "cat /cake; until [ -e /go ]; do sleep 0.1; done"
    eaten = told(cloud, "run", "--image-driver", "glance", "--auto-remove", image[1], "sh", "-c", eats)
    eventually(lambda: "key=1" in cloud.logs(eaten["uuid"]), "the container of the image has the file")
    # Only now it may end, and with it its log goes.
    assert cloud.inside(eaten["uuid"], "touch /go")[0] == 0
    eventually(lambda: cloud.api("GET", f"/v1/containers/{eaten['uuid']}").status == 404, "--auto-remove")
    assert "Running state" in appcontainer(cloud, "delete", name)
    assert "success" in appcontainer(cloud, "delete", "--force", "--wait", name)
    cloud.openstack("image", "delete", image[1])


@pytest.fixture
def network(cloud: Cloud) -> Iterator[str]:
    """The name of a network of its own, with a subnet 172.30.9.0/24."""
    name = f"net-{secrets.token_hex(3)}"
    cloud.openstack("network", "create", name)
    cloud.openstack("subnet", "create", "--network", name, "--subnet-range", "172.30.9.0/24", f"{name}-4")
    yield name
    cloud.clear()
    cloud.openstack("network", "delete", name)


@runs(
    "openstack", "appcontainer run", "appcontainer network attach", "appcontainer network detach",
    "appcontainer network list", "appcontainer add security group", "appcontainer remove security group",
    "appcontainer add floating ip", "appcontainer remove floating ip",
)  # fmt: skip
def test_networks_with_packets(cloud: Cloud, name: str, network: str) -> None:
    site = told(cloud, "run", "--name", name, "--expose-port", "8080", "busybox", "sh", "-c", SERVES)["uuid"]
    visitor = told(cloud, "run", "--name", f"{name}-visitor", "busybox", *LIVES)["uuid"]
    inside = cloud.wait_for(site, "Running")["addresses"]
    ((address,),) = ([a["addr"] for a in found] for found in inside.values())
    cloud.wait_for(visitor, "Running")
    assert told(cloud, "show", name)["ports"] == [8080]

    def reaches(where: str, port: int, origin: str = visitor) -> bool:
        """From the other container."""
        done = cloud.api("POST", f"/v1/containers/{origin}/execute", {"command": shlex.join(fetch(where, port))})
        return "served" in done.json()["output"]

    def outside(where: str, port: int) -> bool:
        return "served" in cloud.run(*fetch(where, port), check=False).stdout

    # What is exposed is open, and nothing else.
    eventually(lambda: reaches(address, 8080), "the exposed port is open")
    eventually(lambda: reaches("127.0.0.1", 8081, site), "somebody listens on the other one")
    assert not reaches(address, 8081)

    # From outside, by a floating address.
    public = cloud.openstack("network", "list", "--external", "-f", "value", "-c", "ID").stdout.split()[0]
    floating = cloud.openstack(
        "floating", "ip", "create", public, "-f", "value", "-c", "floating_ip_address"
    ).stdout.strip()
    assert not outside(floating, 8080)
    appcontainer(cloud, "add", "floating", "ip", name, floating)
    eventually(lambda: outside(floating, 8080), "the floating address leads to the exposed port")
    assert not outside(floating, 8081)

    # A security group opens the other port, for as long as the container is in it.
    group = f"{name}-group"
    cloud.openstack("security", "group", "create", group)
    cloud.openstack("security", "group", "rule", "create", "--protocol", "tcp", "--dst-port", "8081", group)
    old = ("--os-container-api-version", SECURITY_GROUPS, "appcontainer")
    assert "accepted" in cloud.openstack(*old, "add", "security", "group", name, group).stdout
    eventually(lambda: reaches(address, 8081) and outside(floating, 8081), "the group lets it through")
    assert "accepted" in cloud.openstack(*old, "remove", "security", "group", name, group).stdout
    eventually(lambda: not reaches(address, 8081) and not outside(floating, 8081), "it does not any more")
    assert "Not Acceptable" in appcontainer(cloud, "add", "security", "group", name, group)
    appcontainer(cloud, "remove", "floating", "ip", floating)
    eventually(lambda: not outside(floating, 8080), "the floating address leads nowhere")
    cloud.openstack("floating", "ip", "delete", floating)

    # A second network, with an address that was asked for.
    assert "accepted" in appcontainer(
        cloud, "network", "attach", "--network", network, "--fixed-ip", "172.30.9.77", name
    )
    eventually(lambda: "172.30.9.77/24" in cloud.inside(site, "ip -4 addr")[1], "it has the address")
    cloud.wait_for(site, "Running")
    _networks(cloud.openstack("appcontainer", "network", "list", name, check=False), "172.30.9.77")
    assert "accepted" in appcontainer(cloud, "network", "detach", "--network", network, name)
    eventually(lambda: "172.30.9.77" not in cloud.inside(site, "ip -4 addr")[1], "it has it no more")
    assert "already" in appcontainer(cloud, "network", "attach", "--network", next(iter(inside)), name)
    cloud.clear()
    cloud.openstack("security", "group", "delete", group)


def _networks(done: Done, address: str) -> None:
    """python-zunclient 5.5.0 formats this table in a way that osc-lib 4 refuses; `zun network-list` shows it."""
    if done.returncode == 0:
        assert address in done.stdout
    else:
        assert "Invalid formatter provided" in done.stderr, done


def test_what_cannot_be_done_is_told(cloud: Cloud, name: str) -> None:
    for words, complaint in (
        (("run", "--cpu", "many", "busybox"), "cpu"),
        (("run", "--memory", "1", "busybox"), "memory"),
        (("run", "--disk", "-1", "busybox"), "disk"),
        (("run", "--name", "no spaces", "busybox"), "name"),
        (("run", "--name", "x" * 300, "busybox"), "name"),
        (("run", "--net", "network=nowhere", "busybox"), "nowhere"),
        (("run", "--security-group", "nobody", "busybox"), "nobody"),
        (("run", "--registry", "nowhere", "busybox"), "nowhere"),
        (("run", "--availability-zone", "moon", "busybox"), "moon"),
        (("run", "--host", "moon", "busybox"), "moon"),
        (("run", "--expose-port", "99999", "busybox"), "99999"),
        (("run", "--mount", "source=nowhere,destination=/d", "busybox"), "nowhere"),
        (("run", "--privileged", "busybox"), "privileged"),
        (("run", ""), "image"),
        (("create", "--environment", "novalue", "busybox"), "KEY=VALUE"),
        (("action", "show", "nobody", "req-1"), "nobody"),
        (("exec", "nobody", "true"), "nobody"),
        (("logs", "nobody"), "nobody"),
        (("host", "show", "moon"), "moon"),
        (("image", "show", "moon"), "moon"),
    ):  # fmt: skip
        assert complaint in refused(cloud, *words), words
    assert cloud.containers() == []
