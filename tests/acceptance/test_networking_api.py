"""The network service through the ecosystem's own client: python-openstackclient, unmodified."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from tests.acceptance.cloud_fixtures import LIVES, Cloud, Login, eventually


class Client:
    """The `openstack` command of one user."""

    def __init__(self, cloud: Cloud, login: Login | None = None) -> None:
        self._cloud = cloud
        self.login = login or cloud.login()
        self._env = cloud.as_user(login) if login is not None else None

    def run(self, *arguments: str, check: bool = True) -> str:
        if self._env is not None:
            done = self._cloud.run("openstack", *arguments, env=self._env, check=check)
        else:
            done = self._cloud.openstack(*arguments, check=check)
        return done.stdout if check else done.stderr

    def show(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-f", "json"))

    def ids(self, *arguments: str) -> list[str]:
        """The ids of a list."""
        return self.run(*arguments, "list", "-f", "value", "-c", "ID").split()


_NUMBERS = itertools.count(1)


@pytest.fixture
def member(cloud: Cloud) -> Client:
    return Client(cloud, cloud.make_login(f"netuser{next(_NUMBERS)}"))


def test_networks_subnets_and_ports(cloud: Cloud, member: Client) -> None:
    net = member.show("network", "create", "blue", "--description", "first")
    assert (net["name"], net["status"], net["router:external"]) == ("blue", "ACTIVE", False)
    subnet = member.show(
        "subnet", "create", "sub", "--network", "blue", "--subnet-range", "192.168.77.0/24", "--gateway", "192.168.77.1"
    )
    assert (subnet["cidr"], subnet["gateway_ip"]) == ("192.168.77.0/24", "192.168.77.1")
    refused = member.run(
        "subnet", "create", "two", "--network", "blue", "--subnet-range", "192.168.78.0/24", check=False
    )
    assert "Here a network has one" in refused
    assert {n["Name"] for n in member.show("network", "list")} == {"blue", "public"}
    assert [s["Subnet"] for s in member.show("subnet", "list", "--network", "blue")] == ["192.168.77.0/24"]
    member.run("network", "set", "blue", "--name", "green", "--description", "second")
    member.run("subnet", "set", "sub", "--name", "inner")
    shown = member.show("network", "show", "green")
    assert (shown["id"], shown["description"], shown["subnets"]) == (net["id"], "second", [subnet["id"]])
    assert member.show("subnet", "show", "inner")["id"] == subnet["id"]

    address = "subnet=inner,ip-address=192.168.77.50"
    port = member.show("port", "create", "nic", "--network", "green", "--fixed-ip", address)
    assert [one["ip_address"] for one in port["fixed_ips"]] == ["192.168.77.50"]
    member.run("port", "set", "nic", "--name", "card", "--description", "a card")
    assert member.show("port", "show", "card")["description"] == "a card"
    assert member.ids("port") == [port["id"]]
    assert "in use" in member.run("network", "delete", "green", check=False)
    # Nobody else sees any of it, and administrators all.
    other = Client(cloud, cloud.make_login("stranger"))
    assert other.ids("port") == []
    assert "No Network found" in other.run("network", "show", "green", check=False)
    assert Client(cloud).show("network", "show", net["id"])["name"] == "green"

    member.run("port", "delete", "card")
    member.run("subnet", "delete", "inner")
    member.run("network", "delete", "green")
    assert [n["Name"] for n in member.show("network", "list")] == ["public"]


def test_security_groups(member: Client) -> None:
    member.run("security", "group", "create", "web", "--description", "of the web")
    rule = member.show(
        "security",
        "group",
        "rule",
        "create",
        "web",
        "--protocol",
        "tcp",
        "--dst-port",
        "80:81",
        "--remote-ip",
        "10.0.0.0/8",
    )
    assert (rule["port_range_min"], rule["port_range_max"], rule["remote_ip_prefix"]) == (80, 81, "10.0.0.0/8")
    assert {g["Name"] for g in member.show("security", "group", "list")} == {"default", "web"}
    member.run("security", "group", "set", "web", "--name", "www")
    shown = member.show("security", "group", "show", "www")
    assert rule["id"] in {one["id"] for one in shown["rules"]}
    assert rule["id"] in {one["ID"] for one in member.show("security", "group", "rule", "list", "www")}
    assert member.show("security", "group", "rule", "show", rule["id"])["protocol"] == "tcp"
    member.run("security", "group", "rule", "delete", rule["id"])
    member.run("security", "group", "delete", "www")
    assert "default" in member.run("security", "group", "delete", "default", check=False)
    assert [g["Name"] for g in member.show("security", "group", "list")] == ["default"]


def test_routers_floating_addresses_and_pools(cloud: Cloud, member: Client) -> None:
    member.run("network", "create", "net")
    member.run("subnet", "pool", "create", "pool", "--pool-prefix", "192.168.64.0/20", "--default-prefix-length", "26")
    assert member.show("subnet", "pool", "show", "pool")["prefixes"] == ["192.168.64.0/20"]
    cut = member.show("subnet", "create", "sub", "--network", "net", "--subnet-pool", "pool")
    assert cut["cidr"] == "192.168.64.0/26"
    member.run("router", "create", "way")
    member.run("router", "set", "way", "--external-gateway", "public", "--description", "out")
    member.run("router", "add", "subnet", "way", "sub")
    way = member.show("router", "show", "way")
    assert way["external_gateway_info"]["network_id"] == member.show("network", "show", "public")["id"]
    assert [one["ip_address"] for one in way["interfaces_info"]] == ["192.168.64.1"]
    assert "still has ports" in member.run("router", "delete", "way", check=False)

    token = cloud.token(member.login)
    answer = cloud.api("GET", "/networking/v2.0/networks?name=net", token=token)
    body = {"image": "busybox", "command": list(LIVES), "nets": [{"network": answer.json()["networks"][0]["id"]}]}
    made = cloud.api("POST", "/v1/containers?run=true", body, token=token)
    assert made.status == 202, made
    uuid = made.json()["uuid"]
    cloud.wait_for(uuid, "Running")
    (port,) = member.show("port", "list", "--device-id", uuid)
    floating = member.show("floating", "ip", "create", "public", "--port", port["ID"], "--description", "door")
    assert floating["floating_ip_address"].startswith("172.24.4.")
    seen = member.show("floating", "ip", "show", floating["floating_ip_address"])
    assert (seen["status"], seen["fixed_ip_address"], seen["router_id"]) == ("ACTIVE", "192.168.64.2", way["id"])
    member.run("floating", "ip", "unset", "--port", floating["id"])
    assert member.show("floating", "ip", "show", floating["id"])["status"] == "DOWN"
    member.run("floating", "ip", "set", "--port", port["ID"], floating["id"])
    assert [one["Port"] for one in member.show("floating", "ip", "list")] == [port["ID"]]
    member.run("floating", "ip", "delete", floating["id"])

    assert cloud.api("DELETE", f"/v1/containers/{uuid}?stop=true", token=token).status == 204
    eventually(lambda: not cloud.containers(), "the container is gone")
    member.run("router", "remove", "subnet", "way", "sub")
    member.run("router", "delete", "way")
    member.run("network", "delete", "net")
    member.run("subnet", "pool", "delete", "pool")
    assert member.ids("port") == []
    assert member.ids("router") == []


def test_both_ip_versions(cloud: Cloud, member: Client) -> None:
    """A network of both, with ranges that another one has too; a container on it with both addresses."""
    token = cloud.token(member.login)

    def post(path: str, kind: str, **fields: Any) -> str:
        answer = cloud.api("POST", f"/networking/v2.0/{path}", {kind: fields}, token=token)
        assert answer.status == 201, answer
        return str(answer.json()[kind]["id"])

    twin = post("networks", "network", name="twin")
    for cidr in ("192.168.88.0/24", "fd00:88::/64"):
        post("subnets", "subnet", network_id=twin, cidr=cidr)
    net = member.show("network", "create", "dual")["id"]
    member.run("subnet", "create", "dual4", "--network", "dual", "--subnet-range", "192.168.88.0/24")
    six = member.show(
        *("subnet", "create", "dual6", "--network", "dual", "--ip-version", "6", "--gateway", "fd00:88::ff"),
        *("--subnet-range", "fd00:88::/64", "--ipv6-ra-mode", "slaac", "--ipv6-address-mode", "slaac"),
    )
    assert (six["ip_version"], six["gateway_ip"], six["ipv6_ra_mode"]) == (6, "fd00:88::ff", "slaac")
    assert {s["Subnet"] for s in member.show("subnet", "list", "--network", "dual")} == {
        "192.168.88.0/24", "fd00:88::/64",
    }  # fmt: skip

    nets = [{"network": net, "v4-fixed-ip": "192.168.88.40", "v6-fixed-ip": "fd00:88::40"}]
    body = {"image": "busybox", "command": list(LIVES), "hostname": "both", "nets": nets}
    made = cloud.api("POST", "/v1/containers?run=true", body, token=token)
    assert made.status == 202, made
    uuid = made.json()["uuid"]
    cloud.wait_for(uuid, "Running")
    shown = cloud.api("GET", f"/v1/containers/{uuid}", token=token).json()["addresses"][net]
    assert [(one["version"], one["addr"]) for one in shown] == [(4, "192.168.88.40"), (6, "fd00:88::40")]
    seen = member.show("appcontainer", "show", uuid)
    assert "192.168.88.40" in json.dumps(seen)
    assert "fd00:88::40" in json.dumps(seen)
    code, hosts = cloud.inside(uuid, "cat /etc/hosts; ip -4 addr show eth0")
    assert code == 0
    assert {"192.168.88.40\tboth", "fd00:88::40\tboth"} <= set(hosts.splitlines())
    assert "192.168.88.40/24" in hosts
    (port,) = member.show("port", "list", "--device-id", uuid)
    assert {one["ip_address"] for one in port["Fixed IP Addresses"]} == {"192.168.88.40", "fd00:88::40"}

    assert cloud.api("DELETE", f"/v1/containers/{uuid}?stop=true", token=token).status == 204
    eventually(lambda: not cloud.containers(), "the container is gone")
    for one in (net, twin):
        assert cloud.api("DELETE", f"/networking/v2.0/networks/{one}", token=token).status == 204


def test_a_range_can_be_used_again_at_once(cloud: Cloud) -> None:
    """The bridge of a network that was deleted must not stand in the way of the next one with its range."""

    def post(path: str, kind: str, **fields: Any) -> str:
        answer = cloud.api("POST", f"/networking/v2.0/{path}", {kind: fields})
        assert answer.status == 201, answer
        return str(answer.json()[kind]["id"])

    for gateway in ({}, {"gateway_ip": None}):
        net = post("networks", "network", name="again")
        post("subnets", "subnet", network_id=net, cidr="192.168.99.0/24", ip_version=4, **gateway)
        uuid = cloud.running(nets=[{"network": net, "v4-fixed-ip": "192.168.99.40"}])
        code, routes = cloud.inside(uuid, "ip -4 route; ip -4 addr show eth0")
        assert code == 0
        assert "192.168.99.40/24" in routes
        assert ("default via" in routes) == (gateway == {})
        assert cloud.api("DELETE", f"/v1/containers/{uuid}?stop=true").status == 204
        eventually(lambda: not cloud.containers(), "the container is gone")
        assert cloud.api("DELETE", f"/networking/v2.0/networks/{net}").status == 204
