"""IPv6 beside IPv4 through the network service's API and the containers' own."""

from __future__ import annotations

from typing import Any

import pytest

from .cloud import Cloud
from .test_neutron_api import V2, listed, made, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

Thing = dict[str, Any]


async def dual(cloud: Cloud, token: str, cidr6: str = "fd12:3456::/64") -> tuple[Thing, Thing, Thing]:
    """A network with both subnets."""
    net = await made(cloud, "networks", token, name="dual")
    four = await made(cloud, "subnets", token, network_id=net["id"], cidr="10.7.0.0/24", ip_version=4)
    six = await made(cloud, "subnets", token, network_id=net["id"], cidr=cidr6, ip_version=6)
    return net, four, six


def ips(port: Thing) -> list[str]:
    return [one["ip_address"] for one in port["fixed_ips"]]


async def test_both_subnets_of_a_network(cloud: Cloud) -> None:
    token = cloud.project()
    net, four, six = await dual(cloud, token)
    assert (six["ip_version"], six["cidr"], six["gateway_ip"]) == (6, "fd12:3456::/64", "fd12:3456::1")
    assert six["allocation_pools"] == [{"start": "fd12:3456::2", "end": "fd12:3456::ffff:ffff:ffff:ffff"}]
    assert (six["ipv6_ra_mode"], six["ipv6_address_mode"]) == (None, None)
    shown = (await cloud.ask("GET", f"{V2}/networks/{net['id']}", token)).body["network"]
    assert shown["subnets"] == [four["id"], six["id"]]
    assert [s["id"] for s in await listed(cloud, "subnets?ip_version=6", token)] == [six["id"]]
    for cidr in ("fd77::/64", "10.8.0.0/24"):
        body = {"subnet": {"network_id": net["id"], "cidr": cidr}}
        refused(await cloud.ask("POST", f"{V2}/subnets", token, body=body), 409, "SubnetExists", "has the subnet")
    body = {"subnet": {"gateway_ip": None, "name": "six"}}
    changed = (await cloud.ask("PUT", f"{V2}/subnets/{six['id']}", token, body=body)).body["subnet"]
    assert (changed["gateway_ip"], changed["name"], changed["revision_number"]) == (None, "six", 1)
    assert (await cloud.ask("DELETE", f"{V2}/subnets/{four['id']}", token)).status == 204
    shown = (await cloud.ask("GET", f"{V2}/networks/{net['id']}", token)).body["network"]
    assert shown["subnets"] == [six["id"]]


@pytest.mark.parametrize("mode", ["slaac", "dhcpv6-stateful", "dhcpv6-stateless"])
async def test_modes_are_shown_and_stay(cloud: Cloud, mode: str) -> None:
    token = cloud.project()
    net = await made(cloud, "networks", token, name="net")
    modes = {"ipv6_ra_mode": mode, "ipv6_address_mode": mode}
    six = await made(cloud, "subnets", token, network_id=net["id"], cidr="fd12::/64", ip_version=6, **modes)
    assert {key: six[key] for key in modes} == modes
    path = f"{V2}/subnets/{six['id']}"
    assert (await cloud.ask("PUT", path, token, body={"subnet": modes})).status == 200
    refused(
        await cloud.ask("PUT", path, token, body={"subnet": {"ipv6_ra_mode": "other"}}),
        400,
        "HTTPBadRequest",
        "ra_mode",
    )
    port = await made(cloud, "ports", token, network_id=net["id"], fixed_ips=[{"ip_address": "fd12::99"}])
    assert ips(port) == ["fd12::99"]


async def test_ports_on_both(cloud: Cloud) -> None:
    token = cloud.project()
    net, four, six = await dual(cloud, token)
    both = await made(cloud, "ports", token, network_id=net["id"])
    assert both["fixed_ips"] == [
        {"subnet_id": four["id"], "ip_address": "10.7.0.2"},
        {"subnet_id": six["id"], "ip_address": "fd12:3456::2"},
    ]
    alone = await made(cloud, "ports", token, network_id=net["id"], fixed_ips=[{"subnet_id": six["id"]}])
    assert [one["subnet_id"] for one in alone["fixed_ips"]] == [six["id"]]
    wish = [{"subnet_id": four["id"], "ip_address": "10.7.0.77"}, {"ip_address": "FD12:3456:0::0:AB"}]
    chosen = await made(cloud, "ports", token, network_id=net["id"], fixed_ips=wish)
    assert ips(chosen) == ["10.7.0.77", "fd12:3456::ab"]
    macs = {port["mac_address"] for port in (both, alone, chosen)}
    assert len(macs) == 3
    found = await listed(cloud, "ports?fixed_ips=ip_address=fd12:3456::ab", token)
    assert [port["id"] for port in found] == [chosen["id"]]
    found = await listed(cloud, f"ports?fixed_ips=subnet_id={six['id']}", token)
    assert len(found) == 3
    for wrong, status, kind in (
        ([{"ip_address": "fd12:3456::ab"}], 409, "IpAddressAlreadyAllocated"),
        ([{"ip_address": "fd12:3456::1"}], 400, "InvalidIpForSubnet"),
        ([{"ip_address": "fd12:3456::"}], 400, "InvalidIpForSubnet"),
        ([{"ip_address": "fd99::1"}], 400, "InvalidIpForSubnet"),
        ([{"subnet_id": four["id"], "ip_address": "fd12:3456::5"}], 400, "InvalidIpForSubnet"),
        ([{"subnet_id": "nowhere"}], 400, "InvalidInput"),
        ([{"subnet_id": six["id"]}, {"ip_address": "fd12:3456::5"}], 400, "InvalidInput"),
        ([{"ip_address": "fe80::1%eth0"}], 400, "HTTPBadRequest"),
        ([{}], 400, "HTTPBadRequest"),
        ([], 400, "HTTPBadRequest"),
    ):
        body = {"port": {"network_id": net["id"], "fixed_ips": wrong}}
        refused(await cloud.ask("POST", f"{V2}/ports", token, body=body), status, kind)
    refused(await cloud.ask("DELETE", f"{V2}/subnets/{six['id']}", token), 409, "SubnetInUse")
    # Addresses of a port can come, change and go.
    path = f"{V2}/ports/{both['id']}"
    for fixed, expected in (
        ([{"subnet_id": four["id"]}], ["10.7.0.2"]),
        ([{"subnet_id": four["id"]}, {"ip_address": "fd12:3456::c"}], ["10.7.0.2", "fd12:3456::c"]),
        ([{"subnet_id": six["id"]}], ["fd12:3456::c"]),
    ):
        after = await cloud.ask("PUT", path, token, body={"port": {"fixed_ips": fixed}})
        assert ips(after.body["port"]) == expected, after


async def test_a_container_on_both(cloud: Cloud) -> None:
    token = cloud.project()
    net, four, six = await dual(cloud, token)
    wish = {"network": net["id"], "v6-fixed-ip": "fd12:3456:0::0:5"}
    uuid = await cloud.create(token, nets=[wish])
    view = (await cloud.ask("GET", f"/v1/containers/{uuid}", token)).body
    (port,) = await listed(cloud, f"ports?device_id={uuid}", token)
    common = {"port": port["id"], "preserve_on_delete": False}
    assert view["addresses"] == {
        net["id"]: [
            {"addr": "10.7.0.2", "version": 4, "subnet_id": four["id"], **common},
            {"addr": "fd12:3456::5", "version": 6, "subnet_id": six["id"], **common},
        ]
    }
    each = [
        {"ip_address": "10.7.0.2", "version": 4, "subnet_id": four["id"]},
        {"ip_address": "fd12:3456::5", "version": 6, "subnet_id": six["id"]},
    ]
    path, head = f"/v1/containers/{uuid}/network_list", {"net_id": net["id"], "port_id": port["id"]}
    assert (await cloud.ask("GET", path, token, version="1.13")).body["networks"] == [{**head, **one} for one in each]
    assert (await cloud.ask("GET", path, token, version="1.18")).body["networks"] == [{**head, "fixed_ips": each}]
    taken = await cloud.ask("POST", "/v1/containers", token, body={"image": "busybox", "nets": [wish]})
    assert taken.status == 409, taken


async def test_plugging_by_an_address_of_either(cloud: Cloud) -> None:
    token = cloud.project()
    first, _, _ = await dual(cloud, token)
    net, _, _ = await dual(cloud, token)
    uuid = await cloud.create(token, run=True, nets=[{"network": first["id"]}])
    await cloud.place(uuid)
    await cloud.report(uuid, "running")
    path = f"/v1/containers/{uuid}/network_attach?network={net['id']}&fixed_ip="
    assert (await cloud.ask("POST", f"{path}nonsense", token)).status == 400
    assert (await cloud.ask("POST", f"{path}fd12:3456::42", token)).status == 200
    view = (await cloud.ask("GET", f"/v1/containers/{uuid}", token)).body
    assert [one["addr"] for one in view["addresses"][net["id"]]] == ["10.7.0.2", "fd12:3456::42"]
    await cloud.report(uuid, "running")
    assert (await cloud.ask("POST", f"/v1/containers/{uuid}/network_detach?network={net['id']}", token)).status == 202
    assert await listed(cloud, f"ports?network_id={net['id']}", token) == []


@pytest.mark.parametrize(
    ("wish", "status"),
    [
        ({"v6-fixed-ip": "10.7.0.9"}, 400),
        ({"v4-fixed-ip": "fd12:3456::9"}, 400),
        ({"v6-fixed-ip": ""}, 400),
        ({"v6-fixed-ip": "fd99::9"}, 400),
        ({"v5-fixed-ip": "fd12:3456::9"}, 400),
    ],
)
async def test_wishes_that_cannot_be(cloud: Cloud, wish: dict[str, str], status: int) -> None:
    token = cloud.project()
    net, _, _ = await dual(cloud, token)
    body = {"image": "busybox", "nets": [{"network": net["id"], **wish}]}
    answer = await cloud.ask("POST", "/v1/containers", token, body=body)
    assert answer.status == status, answer
    assert await listed(cloud, "ports", token) == []


async def test_containers_need_ipv4(cloud: Cloud) -> None:
    token = cloud.project()
    net = await made(cloud, "networks", token, name="six")
    await made(cloud, "subnets", token, network_id=net["id"], cidr="2001:db8:1::/64", ip_version=6)
    port = await made(cloud, "ports", token, network_id=net["id"])
    assert ips(port) == ["2001:db8:1::2"]
    for nets in ([{"network": net["id"]}], [{"port": port["id"]}]):
        answer = await cloud.ask("POST", "/v1/containers", token, body={"image": "busybox", "nets": nets})
        assert answer.status == 409, answer
        assert "IPv4" in answer.body["errors"][0]["detail"], answer.body
    # Without a wish there is a network that has it.
    uuid = await cloud.create(token)
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    assert capsule.networks[0].name == "default"
    (public,) = await listed(cloud, "networks?router:external=true", token)
    body = {"floatingip": {"floating_network_id": public["id"], "port_id": port["id"]}}
    refused(await cloud.ask("POST", f"{V2}/floatingips", token, body=body), 400, "BadRequest", "no fixed IPv4")
    body = {"subnet": {"network_id": public["id"], "cidr": "2001:db8:9::/64", "ip_version": 6}}
    refused(await cloud.ask("POST", f"{V2}/subnets", "root:elsewhere:admin", body=body), 400, "InvalidInput")


async def test_routers_keep_ranges_apart(cloud: Cloud) -> None:
    token = cloud.project()
    _, four, six = await dual(cloud, token)
    _, other4, other6 = await dual(cloud, token, "fd12:3456::/48")
    router = await made(cloud, "routers", token, name="r")
    path = f"{V2}/routers/{router['id']}"
    for subnet in (four, six):
        answer = await cloud.ask("PUT", f"{path}/add_router_interface", token, body={"subnet_id": subnet["id"]})
        assert answer.status == 200, answer
        assert answer.body["subnet_ids"] == [subnet["id"]]
    assert {tuple(ips(p)) for p in await listed(cloud, f"ports?device_id={router['id']}", token)} == {
        ("10.7.0.1",), ("fd12:3456::1",),
    }  # fmt: skip
    for subnet in (other4, other6):
        body = {"subnet_id": subnet["id"]}
        answer = await cloud.ask("PUT", f"{path}/add_router_interface", token, body=body)
        refused(answer, 400, "BadRequest", "overlaps with cidr")
        port = await made(cloud, "ports", token, network_id=subnet["network_id"])
        answer = await cloud.ask("PUT", f"{path}/add_router_interface", token, body={"port_id": port["id"]})
        refused(answer, 400, "BadRequest", "overlaps with cidr")
    for subnet in (four, six):
        answer = await cloud.ask("PUT", f"{path}/remove_router_interface", token, body={"subnet_id": subnet["id"]})
        assert answer.status == 200, answer
    assert (await cloud.ask("DELETE", path, token)).status == 204


async def test_pools_of_ipv6(cloud: Cloud) -> None:
    token = cloud.project()
    pool = await made(cloud, "subnetpools", token, name="p", prefixes=["2001:db8:3::/48"], min_prefixlen="64")
    assert (pool["ip_version"], pool["default_prefixlen"], pool["max_prefixlen"]) == (6, 64, 128)
    cidrs = []
    for _ in range(2):
        net = await made(cloud, "networks", token, name="n")
        cut = await made(cloud, "subnets", token, network_id=net["id"], subnetpool_id=pool["id"], ip_version=6)
        cidrs.append(cut["cidr"])
    assert cidrs == ["2001:db8:3::/64", "2001:db8:3:1::/64"]
    body = {"subnetpool": {"name": "x", "prefixes": ["10.0.0.0/8", "fd00::/8"]}}
    refused(await cloud.ask("POST", f"{V2}/subnetpools", token, body=body), 400, "HTTPBadRequest", "Cannot mix")
    body = {"subnetpool": {"name": "x", "prefixes": ["10.0.0.0/8"], "min_prefixlen": 64}}
    refused(await cloud.ask("POST", f"{V2}/subnetpools", token, body=body), 400, "HTTPBadRequest", "min_prefixlen")
    path = f"{V2}/subnetpools/{pool['id']}"
    answer = await cloud.ask("PUT", path, token, body={"subnetpool": {"prefixes": ["2001:db8::/32"]}})
    assert answer.body["subnetpool"]["prefixes"] == ["2001:db8::/32"]
    answer = await cloud.ask("PUT", path, token, body={"subnetpool": {"prefixes": ["10.0.0.0/8"]}})
    refused(answer, 400, "HTTPBadRequest", "keeps those it has")
