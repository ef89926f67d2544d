"""POST /v1/containers: fields that name or make something else, and that a refusal leaves nothing."""

from __future__ import annotations

import base64
import itertools
from pathlib import Path
from typing import Any

import pytest

from askos.model.capsules import Healthcheck, PlacementWish
from askos.model.hosts import Host
from askos.model.networks import SecurityGroup
from askos.model.volumes import GIB
from askos.plan import placement
from askos.ports.network_store import NewPort, NewSubnet, Who

from .cloud import HOST, Answer, Cloud, facts, open_cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = "root:elsewhere:admin"


def project_of(token: str) -> str:
    return token.split(":")[1]


async def post(cloud: Cloud, token: str, **fields: Any) -> Answer:
    return await cloud.ask("POST", "/v1/containers", token, body={"image": "busybox", **fields})


async def nothing_is_left(cloud: Cloud, token: str) -> None:
    assert (await cloud.ask("GET", "/v1/containers", token)).body["containers"] == []
    assert all(volume.attachments == [] for volume in await cloud.volumes.volumes(project_of(token)))
    groups = await cloud.networking.groups(project_of(token))
    assert [g.name for g in groups if g.name.startswith("zun-")] == []


RANGES = (f"192.168.{number}.0/24" for number in itertools.count(100))


async def network(cloud: Cloud, token: str, name: str, cidr: str | None = None) -> str:
    made = await cloud.networking.create_network(project_of(token), name)
    await cloud.networking.create_subnet(NewSubnet(made.uuid, cidr=cidr or next(RANGES)))
    return made.uuid


# -- networks ---------------------------------------------------------------------------------------------------------


async def test_networks_by_name_and_id_with_fixed_addresses(cloud: Cloud) -> None:
    token = cloud.project()
    one = await network(cloud, token, "one", "192.168.10.0/24")
    two = await network(cloud, token, "two", "192.168.11.0/24")
    uuid = await cloud.create(token, nets=[{"network": "one", "v4-fixed-ip": "192.168.10.77"}, {"network": two}])
    addresses = (await cloud.show(uuid))["addresses"]
    assert set(addresses) == {one, two}
    assert addresses[one][0]["addr"] == "192.168.10.77"
    assert addresses[two][0]["preserve_on_delete"] is False
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    assert [n.uuid for n in capsule.networks] == [one, two], "interfaces are in the order of the request"


async def test_a_port_of_the_user_outlives_the_container(cloud: Cloud) -> None:
    token = cloud.project()
    one = await network(cloud, token, "one", "192.168.12.0/24")
    who = Who(project_of(token))
    port = await cloud.networking.create_port(NewPort(one, project_of(token)), who)
    uuid = await cloud.create(token, nets=[{"port": port.uuid}])
    shown = (await cloud.show(uuid))["addresses"][one][0]
    assert (shown["port"], shown["addr"], shown["preserve_on_delete"]) == (port.uuid, port.address, True)
    again = await post(cloud, token, nets=[{"port": port.uuid}])
    again.refused(400, "port-in-use")
    assert (await cloud.ask("DELETE", f"/v1/containers/{uuid}", token)).status == 204
    left = await cloud.networking.port(port.uuid, who)
    assert left.capsule_uuid == ""


@pytest.mark.parametrize(
    ("nets", "status", "code"),
    [
        ([{"network": "nowhere"}], 404, "network-not-found"),
        ([{"port": "00000000-0000-4000-8000-000000000000"}], 404, "port-not-found"),
        ([{"network": "one", "v4-fixed-ip": "999.1.1.1"}], 400, "schema-validation-error"),
        ([{"network": "one", "v6-fixed-ip": "10.0.0.1"}], 400, "schema-validation-error"),
        ([{"network": "one", "v6-fixed-ip": "fd00::1"}], 400, "invalid-ip-for-network"),
        ([{"network": "one"}, {"network": "one"}], 400, "schema-validation-error"),
    ],
)
async def test_networks_that_cannot_be(cloud: Cloud, nets: list[Any], status: int, code: str) -> None:
    token = cloud.project()
    await network(cloud, token, "one")
    (await post(cloud, token, nets=nets)).refused(status, code)
    await nothing_is_left(cloud, token)


async def test_a_network_of_others_is_not_there(cloud: Cloud) -> None:
    theirs = await network(cloud, cloud.project(), "secret", "192.168.14.0/24")
    token = cloud.project()
    for ident in (theirs, "secret"):
        (await post(cloud, token, nets=[{"network": ident}])).refused(404, "network-not-found")


# -- security groups and exposed ports --------------------------------------------------------------------------------


async def test_security_groups_by_name_and_id(cloud: Cloud) -> None:
    token = cloud.project()
    web = await cloud.networking.create_group(project_of(token), "web")
    uuid = await cloud.create(token, security_groups=["web", web.uuid])
    assert (await cloud.show(uuid))["security_groups"] == [web.uuid]
    (await post(cloud, token, security_groups=["nobody"])).refused(400, "invalid-value")
    await cloud.networking.create_group(project_of(token), "twin")
    await cloud.networking.create_group(project_of(token), "twin")
    (await post(cloud, token, security_groups=["twin"])).refused(409, "conflict")


async def zun_groups(cloud: Cloud, token: str) -> list[SecurityGroup]:
    return [g for g in await cloud.networking.groups(project_of(token)) if g.name.startswith("zun-")]


async def test_exposed_ports_make_a_group_that_goes_with_the_container(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.create(token, exposed_ports={"80/tcp": {}, "53/udp": {}, "8080": {}})
    shown = await cloud.show(uuid)
    assert shown["ports"] == [53, 80, 8080]
    (group,) = await zun_groups(cloud, token)
    assert (group.name, shown["security_groups"]) == (f"zun-{uuid}", [group.uuid])
    opened = {(r.protocol, r.port_min, r.port_max) for r in group.rules if r.direction == "ingress"}
    assert opened == {("tcp", 80, 80), ("udp", 53, 53), ("tcp", 8080, 8080)}
    assert (await cloud.ask("DELETE", f"/v1/containers/{uuid}", token)).status == 204
    assert await zun_groups(cloud, token) == []


@pytest.mark.parametrize("ports", [{"80/icmp": {}}, {"abc": {}}, {"70000": {}}, {"0": {}}, {"80/": {}}, {"\u00b2": {}}])
async def test_ports_that_are_none(cloud: Cloud, ports: dict[str, Any]) -> None:
    token = cloud.project()
    (await post(cloud, token, exposed_ports=ports)).refused(400, "invalid-value", "value ")
    await nothing_is_left(cloud, token)


async def test_exposed_ports_and_security_groups_exclude_each_other(cloud: Cloud) -> None:
    got = await post(cloud, cloud.project(), exposed_ports={"80": {}}, security_groups=["default"])
    got.refused(400, "schema-validation-error")


# -- mounts -----------------------------------------------------------------------------------------------------------


async def test_volumes_by_name_and_by_size_and_files(cloud: Cloud) -> None:
    token = cloud.project()
    mine = await cloud.volumes.create(project_of(token), "ann", "data", 2, multiattach=False)
    content = base64.b64encode(b"listen 80;\n\xff").decode()
    uuid = await cloud.create(
        token,
        mounts=[
            {"source": "data", "destination": "/data"},
            {"size": "3", "destination": "/new/", "type": "volume"},
            {"source": content, "destination": "/etc/app.conf", "type": "bind"},
        ],
    )
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    mounts = capsule.spec.containers[0].mounts
    assert [m.destination for m in mounts] == ["/data", "/new", "/etc/app.conf"]
    grants = {grant.name: grant for grant in capsule.volumes}
    assert grants[mounts[0].volume].uuid == mine.uuid
    new = grants[mounts[1].volume]
    assert (new.size_bytes, new.auto_remove) == (3 * GIB, True)
    assert (await cloud.store.content(uuid)).secrets["mounts"].data[mounts[2].content] == b"listen 80;\n\xff"
    assert "listen" not in str(capsule.spec), "what is injected is sealed"
    for other in await cloud.volumes.volumes(project_of(token)):
        assert other.attachments == [uuid]
    (await post(cloud, token, mounts=[{"source": "data", "destination": "/d"}])).refused(400, "volume-in-use")
    assert (await cloud.ask("DELETE", f"/v1/containers/{uuid}", token)).status == 204
    (left,) = await cloud.volumes.volumes(project_of(token))
    assert (left.uuid, left.attachments) == (mine.uuid, [])


@pytest.mark.parametrize(
    ("mount", "status", "code"),
    [
        ({}, 400, "schema-validation-error"),
        ({"destination": "/d"}, 400, "schema-validation-error"),
        ({"source": "x", "destination": "/d"}, 404, "volume-not-found"),
        ({"source": "theirs", "destination": "/d"}, 404, "volume-not-found"),
        ({"source": "not base64!", "destination": "/d", "type": "bind"}, 400, "base-64-exception"),
        ({"size": "0", "destination": "/d"}, 400, "volume-create-failed"),
        ({"size": "999999999", "destination": "/d"}, 400, "volume-create-failed"),
        ({"size": "x", "destination": "/d"}, 400, "schema-validation-error"),
        ({"size": 1, "destination": "/d", "type": "tmpfs"}, 400, "schema-validation-error"),
        ({"size": 1, "destination": "d"}, 400, "schema-validation-error"),
        ({"size": 1, "destination": "/a/../b"}, 400, "schema-validation-error"),
        ({"size": 1, "destination": "/"}, 400, "schema-validation-error"),
        ({"size": 1, "destination": "/d", "more": 1}, 400, "schema-validation-error"),
    ],
)
async def test_mounts_that_cannot_be(cloud: Cloud, mount: dict[str, Any], status: int, code: str) -> None:
    token = cloud.project()
    others = project_of(cloud.project())
    await cloud.volumes.create(others, "bob", "theirs", 1, multiattach=False)
    (await post(cloud, token, mounts=[mount])).refused(status, code)
    # Nor does it leave anything when something else of the same request is right.
    (await post(cloud, token, mounts=[{"size": 1, "destination": "/ok"}, mount], exposed_ports={"80": {}})).refused(
        status, code
    )
    await nothing_is_left(cloud, token)
    assert await cloud.volumes.volumes(project_of(token)) == []


async def test_two_mounts_at_one_place(cloud: Cloud) -> None:
    mounts = [{"size": 1, "destination": "/d"}, {"size": 1, "destination": "/d/"}]
    (await post(cloud, cloud.project(), mounts=mounts)).refused(400, "schema-validation-error")


# -- health checks ----------------------------------------------------------------------------------------------------


async def test_healthchecks(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.create(token, healthcheck={"cmd": "true", "interval": 10, "retries": "2", "timeout": 5})
    assert (await cloud.show(uuid))["healthcheck"] == {"test": "true", "interval": 10, "retries": 2, "timeout": 5}
    (capsule,) = await cloud.store.capsules_by_uuid([await cloud.create(token, healthcheck={"cmd": "true"})])
    assert capsule.spec.containers[0].healthcheck == Healthcheck("true")


@pytest.mark.parametrize(
    "check",
    [
        {"cmd": "true", "interval": "x"}, {"cmd": "true", "interval": 0}, {"cmd": "true", "retries": -1},
        {"cmd": "true", "timeout": 1.5}, {"interval": 5}, {"cmd": ""}, {"cmd": "true", "more": 1}, {"cmd": ["true"]},
        {"cmd": "true", "interval": "1000000000000"}, {"cmd": "a\u0000b"}, "true",
    ],
)  # fmt: skip
async def test_healthchecks_that_are_none(cloud: Cloud, check: Any) -> None:
    if check == {"cmd": ""}:
        check = {"cmd": "", "interval": 1}
    (await post(cloud, cloud.project(), healthcheck=check)).refused(400, "schema-validation-error")


# -- where it goes ----------------------------------------------------------------------------------------------------


async def test_host_zone_and_hints_are_kept_for_the_placement(cloud: Cloud) -> None:
    await cloud.store.register_host(facts(HOST, "host-1"), "nova")
    uuid = await cloud.create(
        "root:hinting:admin",
        host="host-1",
        availability_zone="nova",
        hints={"label:rack": "a", "group": 5},
        runtime="runc",
    )
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    assert capsule.spec.placement == PlacementWish("host-1", "nova", {"label:rack": "a", "group": "5"})
    claim = placement.claim(capsule.spec)
    assert (claim.host, claim.zone, claim.labels, claim.runtime) == ("host-1", "nova", (("rack", "a"),), "runc")
    assert (await cloud.show(uuid))["runtime"] == "runc"


async def test_a_runtime_that_no_host_has(template: Path, tmp_path: Path) -> None:
    why = "Invalid input for field 'runtime'.Value: 'kata'. no host has it; the runtimes are: "
    async with open_cloud(template, tmp_path) as cloud:
        (await post(cloud, ROOT, runtime="kata")).refused(400, "schema-validation-error", why + "none")
        await cloud.store.register_host(facts(HOST, "host-1", runtimes=("runc", "runsc")), "nova")
        (await post(cloud, ROOT, runtime="kata")).refused(400, "schema-validation-error", why + "runc, runsc")
        listed = await cloud.ask("GET", "/v1/containers?all_projects=1", ROOT)
        assert listed.body["containers"] == []
        for name in ("runsc", "", None):
            assert (await post(cloud, ROOT, runtime=name)).status == 202


async def test_a_host_that_is_not_there(cloud: Cloud) -> None:
    got = await post(cloud, ROOT, host="mars")
    got.refused(404, "requested-host-not-found", "Requested host mars could not be found.")


async def test_what_the_placement_makes_of_it() -> None:
    def load(name: str, zone: str = "nova", **more: Any) -> placement.Load:
        return placement.Load(Host(facts(name, name, **more), 1, 0, zone, connected=True), 0, 0)

    loads = [load("a", labels={"rack": "1"}), load("b", zone="south"), load("c", runtimes=("runc", "runsc"))]

    def chosen(**more: Any) -> str | None:
        return placement.choose(placement.Claim(100, 64, **more), loads, placement.DEFAULT_RATIOS)

    assert chosen(host="b") == "b"
    assert chosen(zone="south") == "b"
    assert chosen(labels=(("rack", "1"),)) == "a"
    assert chosen(runtime="runsc") == "c"
    assert chosen(host="a", zone="south") is None
    why = placement.why_not(placement.Claim(1, 1, labels=(("rack", "2"),)), loads, placement.DEFAULT_RATIOS)
    assert why.startswith(placement.NO_HOST)
    assert "rack=2" in why


# -- registries -------------------------------------------------------------------------------------------------------


async def test_registries_by_name_and_id(cloud: Cloud) -> None:
    token = cloud.project()
    registry = {"domain": "registry.example:5000", "name": "mine", "username": "u", "password": "p"}
    made = await cloud.ask("POST", "/v1/registries", token, body={"registry": registry})
    assert made.status == 201, made
    uuid = made.body["registry"]["uuid"]
    for ident in ("mine", uuid):
        shown = await cloud.show(await cloud.create(token, registry=ident))
        assert (shown["registry_id"], shown["image"]) == (uuid, "busybox")
    for other, ident in ((token, "nobody"), (cloud.project(), uuid)):
        (await post(cloud, other, registry=ident)).refused(404, "registry-not-found")
        left = (await cloud.ask("GET", "/v1/containers", other)).body["containers"]
        assert len(left) == (2 if other == token else 0)


# -- cores, disks and the rest ----------------------------------------------------------------------------------------


async def test_whole_cores_only(cloud: Cloud) -> None:
    token = cloud.project()
    (await post(cloud, token, cpu_policy="dedicated", cpu=1.5)).refused(400, "schema-validation-error")
    uuid = await cloud.create(token, cpu_policy="dedicated", cpu=2)
    assert (await cloud.show(uuid))["cpu_policy"] == "dedicated"
    got = await cloud.ask("PATCH", f"/v1/containers/{uuid}", token, body={"cpu": 1.5})
    assert got.status in (400, 409)


async def test_disk_auto_heal(cloud: Cloud) -> None:
    uuid = await cloud.create(cloud.project(), disk="7", auto_heal=True)
    shown = await cloud.show(uuid)
    assert (shown["disk"], shown["auto_heal"]) == (7, True)
