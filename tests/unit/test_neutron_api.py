"""The network service's API in process: what Neutron's clients send and read, walls between projects, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from askos.api import policy
from askos.model.capsules import CapsuleReport, Report

from .cloud import HOST, Answer, Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

V2 = "/networking/v2.0"
ADMIN = "root:elsewhere:admin"


def refused(answer: Answer, status: int, kind: str, words: str = "") -> str:
    assert answer.status == status, answer
    assert set(answer.body) == {"NeutronError"}, answer.body
    error = answer.body["NeutronError"]
    assert set(error) == {"type", "message", "detail"}
    assert error["type"] == kind, error
    assert words in error["message"], error
    return str(error["message"])


async def made(cloud: Cloud, kind: str, token: str, **fields: Any) -> dict[str, Any]:
    single = kind.removesuffix("s").replace("-", "_")
    answer = await cloud.ask("POST", f"{V2}/{kind}", token, body={single: fields})
    assert answer.status == 201, answer
    return dict(answer.body[single])


async def listed(cloud: Cloud, path: str, token: str) -> list[dict[str, Any]]:
    answer = await cloud.ask("GET", f"{V2}/{path}", token)
    assert answer.status == 200, answer
    (key,) = (key for key in answer.body if not key.endswith("_links"))
    return list(answer.body[key])


async def network(cloud: Cloud, token: str, cidr: str, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    net = await made(cloud, "networks", token, name="net")
    return net, await made(cloud, "subnets", token, network_id=net["id"], cidr=cidr, ip_version=4, **fields)


async def test_versions_need_no_token(cloud: Cloud) -> None:
    answer = await cloud.ask("GET", "/networking", None)
    (version,) = answer.body["versions"]
    assert (version["id"], version["status"]) == ("v2.0", "CURRENT")
    assert version["links"][0]["href"] == f"{cloud.url}/networking/v2.0/"
    names = {r["collection"] for r in (await cloud.ask("GET", f"{V2}/", None)).body["resources"]}
    assert names >= {"networks", "subnets", "ports", "security_groups", "floatingips", "routers", "subnetpools"}


async def test_a_token_is_needed(cloud: Cloud) -> None:
    answer = await cloud.ask("GET", f"{V2}/networks", None)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Keystone uri=")


async def test_a_reader_may_only_look(cloud: Cloud) -> None:
    reader = "ann:readers:reader"
    assert (await cloud.ask("GET", f"{V2}/networks", reader)).status == 200
    refused(await cloud.ask("POST", f"{V2}/networks", reader, body={"network": {}}), 403, "PolicyNotAuthorized")


async def test_a_network_and_its_subnet(cloud: Cloud) -> None:
    token = cloud.project()
    net = await made(cloud, "networks", token, name="net", description="mine")
    assert (net["subnets"], net["shared"], net["router:external"], net["status"]) == ([], False, False, "ACTIVE")
    assert net["project_id"] == net["tenant_id"] == token.split(":")[1]
    subnet = await made(cloud, "subnets", token, network_id=net["id"], cidr="10.11.0.0/24", ip_version=4, name="sub")
    assert (subnet["gateway_ip"], subnet["cidr"]) == ("10.11.0.1", "10.11.0.0/24")
    assert subnet["allocation_pools"] == [{"start": "10.11.0.2", "end": "10.11.0.254"}]
    assert (await cloud.ask("GET", f"{V2}/networks/{net['id']}", token)).body["network"]["subnets"] == [subnet["id"]]
    renamed = await cloud.ask("PUT", f"{V2}/networks/{net['id']}", token, body={"network": {"name": "other"}})
    assert (renamed.body["network"]["name"], renamed.body["network"]["description"]) == ("other", "mine")
    assert (await cloud.ask("DELETE", f"{V2}/networks/{net['id']}", token)).status == 204
    refused(await cloud.ask("GET", f"{V2}/networks/{net['id']}", token), 404, "NetworkNotFound")
    refused(await cloud.ask("GET", f"{V2}/subnets/{subnet['id']}", token), 404, "SubnetNotFound")


async def test_ranges_may_overlap_but_not_what_the_cloud_needs(cloud: Cloud) -> None:
    mine, theirs = cloud.project(), cloud.project()
    for token, cidr in ((mine, "10.12.0.0/16"), (mine, "10.12.0.0/16"), (theirs, "10.12.7.0/24")):
        await network(cloud, token, cidr)
    (public,) = await listed(cloud, "networks?router:external=true", theirs)
    (outside,) = await listed(cloud, f"subnets?network_id={public['id']}", theirs)
    net = await made(cloud, "networks", theirs, name="net")
    body = {"subnet": {"network_id": net["id"], "cidr": outside["cidr"], "ip_version": 4}}
    # tempest goes on with another range when it reads these words.
    refused(
        await cloud.ask("POST", f"{V2}/subnets", theirs, body=body), 400, "InvalidInput", "overlaps with another subnet"
    )
    body["subnet"]["cidr"] = "100.64.3.0/24"
    refused(await cloud.ask("POST", f"{V2}/subnets", theirs, body=body), 400, "InvalidInput", "between themselves")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cidr": "8.8.8.0/24"}, "not private"),
        ({"cidr": "10.13.0.0/31"}, "no room"),
        ({"cidr": "10.13.0.0/99"}, "not a valid IP subnet"),
        ({"cidr": "fd00::/64", "ip_version": 4}, "does not match the ip_version"),
        ({"cidr": "10.13.0.0/24", "ip_version": 6}, "does not match the ip_version"),
        ({"cidr": "10.13.0.0/24", "ip_version": 5}, "not in [4, 6]"),
        ({"cidr": "fe80::/64"}, "neither unique-local nor global"),
        ({"cidr": "fd00::/127"}, "no room"),
        ({"cidr": "fd00::%eth0/64"}, "not a valid IP subnet"),
        ({"cidr": "fd00::/64", "gateway_ip": "fd01::1"}, "not in the subnet"),
        ({"cidr": "fd00::/64", "gateway_ip": "10.13.0.1"}, "not in the subnet"),
        ({"cidr": "fd00::/64", "gateway_ip": 7}, "not a valid IP address"),
        ({"cidr": "fd00::/64", "allocation_pools": [{"start": "10.13.0.1", "end": "10.13.0.5"}]}, "not of IPv6"),
        ({"cidr": "fd00::/64", "ipv6_ra_mode": "loud"}, "ipv6_ra_mode"),
        ({"cidr": "fd00::/96", "ipv6_address_mode": "slaac"}, "must be a /64"),
        ({"cidr": "fd00::/64", "ipv6_address_mode": "slaac", "enable_dhcp": False}, "enable_dhcp"),
        ({"cidr": "fd00::/64", "ipv6_address_mode": "slaac", "ipv6_ra_mode": "dhcpv6-stateful"}, "not valid"),
        ({"cidr": "10.13.0.0/24", "ipv6_ra_mode": "slaac"}, "for subnets of IPv6"),
        ({"cidr": "10.13.0.0/24", "gateway_ip": "10.14.0.1"}, "not in the subnet"),
        ({"cidr": "10.13.0.0/24", "dns_nameservers": ["8.8.8.8"]}, "dns_nameservers"),
        (
            {"cidr": "10.13.0.0/24", "host_routes": [{"destination": "0.0.0.0/0", "nexthop": "10.13.0.5"}]},
            "host_routes",
        ),
        ({"cidr": "10.13.0.0/24", "allocation_pools": [{"start": "10.13.1.1", "end": "10.13.1.5"}]}, "spans beyond"),
        ({"cidr": "10.13.0.0/24", "colour": "red"}, "'colour'"),
        ({}, "subnetpool must be specified"),
        ({"cidr": ["10.13.0.0/24"]}, "cidr"),
    ],
)
async def test_a_subnet_that_cannot_be(cloud: Cloud, fields: dict[str, Any], words: str) -> None:
    token = "ann:subnets:member"
    net = await made(cloud, "networks", token, name="net")
    answer = await cloud.ask("POST", f"{V2}/subnets", token, body={"subnet": {"network_id": net["id"], **fields}})
    assert answer.status == 400, answer
    assert words in answer.body["NeutronError"]["message"], answer.body
    assert (await cloud.ask("DELETE", f"{V2}/networks/{net['id']}", token)).status == 204


async def test_a_network_without_gateway(cloud: Cloud) -> None:
    token = cloud.project()
    net, subnet = await network(cloud, token, "10.15.0.0/24", gateway_ip=None)
    assert subnet["gateway_ip"] is None
    uuid = await cloud.create(token, nets=[{"network": net["id"]}])
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    assert capsule.networks[0].gateway_disabled
    assert capsule.networks[0].gateway == "10.15.0.1"
    assert capsule.ports[0].address == "10.15.0.2"


async def test_gateway_and_pools_of_ones_own(cloud: Cloud) -> None:
    token = cloud.project()
    pools = [{"start": "10.16.0.10", "end": "10.16.0.11"}]
    net, subnet = await network(cloud, token, "10.16.0.0/24", gateway_ip="10.16.0.254", allocation_pools=pools)
    assert subnet["allocation_pools"] == pools
    ports = [await made(cloud, "ports", token, network_id=net["id"]) for _ in range(2)]
    assert [p["fixed_ips"][0]["ip_address"] for p in ports] == ["10.16.0.10", "10.16.0.11"]
    full = await cloud.ask("POST", f"{V2}/ports", token, body={"port": {"network_id": net["id"]}})
    refused(full, 409, "IpAddressGenerationFailure")
    by_hand = await made(cloud, "ports", token, network_id=net["id"], fixed_ips=[{"ip_address": "10.16.0.99"}])
    assert by_hand["fixed_ips"] == [{"subnet_id": subnet["id"], "ip_address": "10.16.0.99"}]
    for address, status, kind in (
        ("10.16.0.99", 409, "IpAddressAlreadyAllocated"),
        ("10.16.0.254", 400, "InvalidIpForSubnet"),
        ("10.17.0.1", 400, "InvalidIpForSubnet"),
    ):
        body = {"port": {"network_id": net["id"], "fixed_ips": [{"ip_address": address}]}}
        refused(await cloud.ask("POST", f"{V2}/ports", token, body=body), status, kind)


async def test_walls_between_projects(cloud: Cloud) -> None:
    mine, theirs = cloud.project(), cloud.project()
    net, subnet = await network(cloud, mine, "10.18.0.0/24")
    port = await made(cloud, "ports", mine, network_id=net["id"])
    group = await made(cloud, "security-groups", mine, name="web")
    router = await made(cloud, "routers", mine, name="r")
    pool = await made(cloud, "subnetpools", mine, name="p", prefixes=["10.19.0.0/16"])
    public = (await listed(cloud, "networks?router:external=true", mine))[0]
    floating = await made(cloud, "floatingips", mine, floating_network_id=public["id"])
    everything = {
        "networks": net, "subnets": subnet, "ports": port, "security-groups": group, "routers": router,
        "subnetpools": pool, "floatingips": floating, "security-group-rules": group["security_group_rules"][0],
    }  # fmt: skip
    for path, thing in everything.items():
        assert (await cloud.ask("GET", f"{V2}/{path}/{thing['id']}", theirs)).status == 404, path
        single = path.removesuffix("s").replace("-", "_")
        body = {single: {"name": "stolen"}}
        assert (await cloud.ask("PUT", f"{V2}/{path}/{thing['id']}", theirs, body=body)).status == 404, path
        assert (await cloud.ask("DELETE", f"{V2}/{path}/{thing['id']}", theirs)).status == 404, path
        assert thing["id"] not in {one["id"] for one in await listed(cloud, path, theirs)}, path
        assert thing["id"] in {one["id"] for one in await listed(cloud, path, ADMIN)}, path
    for path, body in (
        ("ports", {"port": {"network_id": net["id"]}}),
        ("subnets", {"subnet": {"network_id": net["id"], "cidr": "10.20.0.0/24"}}),
        ("security-group-rules", {"security_group_rule": {"security_group_id": group["id"], "direction": "egress"}}),
        ("floatingips", {"floatingip": {"floating_network_id": public["id"], "port_id": port["id"]}}),
    ):
        assert (await cloud.ask("POST", f"{V2}/{path}", theirs, body=body)).status == 404, path
    other = mine.split(":")[1]
    answer = await cloud.ask("POST", f"{V2}/networks", theirs, body={"network": {"project_id": other}})
    refused(answer, 403, "PolicyNotAuthorized")
    assert (await made(cloud, "networks", ADMIN, project_id=other))["project_id"] == other


async def test_shared_networks_are_seen_and_used_by_all(cloud: Cloud) -> None:
    token = cloud.project()
    refused(
        await cloud.ask("POST", f"{V2}/networks", token, body={"network": {"shared": True}}), 403, "PolicyNotAuthorized"
    )
    net = await made(cloud, "networks", ADMIN, name="all", shared=True)
    try:
        await made(cloud, "subnets", ADMIN, network_id=net["id"], cidr="10.21.0.0/24")
        assert (await cloud.ask("GET", f"{V2}/networks/{net['id']}", token)).status == 200
        port = await made(cloud, "ports", token, network_id=net["id"])
        assert port["project_id"] == token.split(":")[1]
        answer = await cloud.ask("PUT", f"{V2}/networks/{net['id']}", token, body={"network": {"name": "mine"}})
        refused(answer, 403, "PolicyNotAuthorized")
        answer = await cloud.ask("PUT", f"{V2}/networks/{net['id']}", ADMIN, body={"network": {"shared": False}})
        refused(answer, 409, "InvalidSharedSetting")
        assert (await cloud.ask("DELETE", f"{V2}/ports/{port['id']}", token)).status == 204
    finally:
        assert (await cloud.ask("DELETE", f"{V2}/networks/{net['id']}", ADMIN)).status == 204


async def test_a_port_through_the_life_of_its_container(cloud: Cloud) -> None:
    token = cloud.project()
    net, subnet = await network(cloud, token, "10.22.0.0/24")
    port = await made(cloud, "ports", token, network_id=net["id"], name="mine")
    assert (port["status"], port["device_id"], port["device_owner"]) == ("DOWN", "", "")

    async def look() -> dict[str, Any]:
        return dict((await cloud.ask("GET", f"{V2}/ports/{port['id']}", ADMIN)).body["port"])

    assert ((await look())["binding:host_id"], (await look())["binding:vif_type"]) == ("", "unbound")
    uuid = await cloud.create(token, run=True, nets=[{"port": port["id"]}])
    bound = await look()
    assert (bound["device_id"], bound["device_owner"], bound["status"]) == (uuid, "compute:askos", "DOWN")
    assert bound["binding:vif_type"] == "unbound"
    await cloud.place(uuid)
    await cloud.report(uuid, "running")
    bound = await look()
    assert (bound["status"], bound["binding:host_id"], bound["binding:vif_type"]) == ("ACTIVE", "host-1", "bridge")
    assert [p["id"] for p in await listed(cloud, f"ports?device_id={uuid}", token)] == [port["id"]]
    for path in (f"ports/{port['id']}", f"networks/{net['id']}", f"subnets/{subnet['id']}"):
        answer = await cloud.ask("DELETE", f"{V2}/{path}", token)
        assert answer.status == 409, answer
    second = await cloud.ask("POST", "/v1/containers", token, body={"image": "busybox", "nets": [{"port": port["id"]}]})
    assert second.refused(400, "port-in-use")
    assert (await cloud.ask("DELETE", f"/v1/containers/{uuid}?stop=true", token)).status == 204
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    gone = CapsuleReport(uuid, capsule.placement.epoch, Report(capsule.wish.generation, True), gone=True)
    await cloud.store.apply_reports(HOST, [gone])
    free = await look()
    assert (free["device_id"], free["device_owner"], free["status"]) == ("", "", "DOWN")
    assert free["binding:vif_type"] == "unbound"
    assert free["fixed_ips"] == port["fixed_ips"]
    assert (await cloud.ask("DELETE", f"{V2}/ports/{port['id']}", token)).status == 204
    assert (await cloud.ask("DELETE", f"{V2}/networks/{net['id']}", token)).status == 204


async def test_the_default_network_is_like_any_other(cloud: Cloud) -> None:
    token = cloud.project()
    assert [n["name"] for n in await listed(cloud, "networks?router:external=false", token)] == []
    uuid = await cloud.create(token)
    (default,) = await listed(cloud, "networks?router:external=false", token)
    assert default["name"] == "default"
    refused(await cloud.ask("DELETE", f"{V2}/networks/{default['id']}", token), 409, "NetworkInUse")
    assert (await cloud.ask("DELETE", f"/v1/containers/{uuid}?force=true", ADMIN)).status == 204
    assert (await cloud.ask("DELETE", f"{V2}/networks/{default['id']}", token)).status == 204
    again = await cloud.create(token)
    (capsule,) = await cloud.store.capsules_by_uuid([again])
    assert capsule.networks[0].uuid != default["id"]
    assert capsule.networks[0].name == "default"


async def test_security_groups(cloud: Cloud) -> None:
    token = cloud.project()
    (default,) = await listed(cloud, "security-groups?name=default", token)
    directions = sorted((r["direction"], r["ethertype"]) for r in default["security_group_rules"])
    assert directions == [("egress", "IPv4"), ("egress", "IPv6"), ("ingress", "IPv4"), ("ingress", "IPv6")]
    into = [r for r in default["security_group_rules"] if r["direction"] == "ingress"]
    assert {r["remote_group_id"] for r in into} == {default["id"]}
    group = await made(cloud, "security-groups", token, name="web", description="d")
    assert {r["direction"] for r in group["security_group_rules"]} == {"egress"}
    rule = await made(
        cloud, "security-group-rules", token, security_group_id=group["id"], direction="ingress", protocol="tcp",
        port_range_min=80, port_range_max="80", remote_ip_prefix="192.168.7.3/24",
    )  # fmt: skip
    assert (rule["remote_ip_prefix"], rule["port_range_max"], rule["ethertype"]) == ("192.168.7.0/24", 80, "IPv4")
    same = {"security_group_rule": {"security_group_id": group["id"], "direction": "ingress", "protocol": "6",
            "port_range_min": 80, "port_range_max": 80, "remote_ip_prefix": "192.168.7.0/24"}}  # fmt: skip
    refused(await cloud.ask("POST", f"{V2}/security-group-rules", token, body=same), 409, "SecurityGroupRuleExists")
    port_net, _ = await network(cloud, token, "10.23.0.0/24")
    port = await made(cloud, "ports", token, network_id=port_net["id"], security_groups=[group["id"]])
    assert port["security_groups"] == [group["id"]]
    refused(await cloud.ask("DELETE", f"{V2}/security-groups/{group['id']}", token), 409, "SecurityGroupInUse")
    body = {"port": {"security_groups": [default["id"]]}}
    assert (await cloud.ask("PUT", f"{V2}/ports/{port['id']}", token, body=body)).status == 200
    assert (await cloud.ask("DELETE", f"{V2}/security-group-rules/{rule['id']}", token)).status == 204
    assert (await cloud.ask("DELETE", f"{V2}/security-groups/{group['id']}", token)).status == 204
    answer = await cloud.ask("DELETE", f"{V2}/security-groups/{default['id']}", token)
    refused(answer, 409, "SecurityGroupCannotRemoveDefault")
    answer = await cloud.ask("POST", f"{V2}/security-groups", token, body={"security_group": {"name": "default"}})
    refused(answer, 409, "SecurityGroupDefaultAlreadyExists")
    assert (await cloud.ask("DELETE", f"{V2}/ports/{port['id']}", token)).status == 204
    assert (await cloud.ask("DELETE", f"{V2}/security-groups/{default['id']}", ADMIN)).status == 204
    assert (await listed(cloud, "security-groups?name=default", token))[0]["id"] != default["id"]


async def test_an_administrator_finds_the_default_group_of_a_project(cloud: Cloud) -> None:
    await made(cloud, "networks", ADMIN, project_id="fresh-project")
    (found,) = await listed(cloud, "security-groups?name=default&project_id=fresh-project", ADMIN)
    assert found["project_id"] == "fresh-project"
    assert (await cloud.ask("DELETE", f"{V2}/security-groups/{found['id']}", ADMIN)).status == 204


async def test_floating_addresses(cloud: Cloud) -> None:
    token = cloud.project()
    (public,) = await listed(cloud, "networks?router:external=True", token)
    assert (public["name"], public["router:external"]) == ("public", True)
    (subnet,) = await listed(cloud, f"subnets?network_id={public['id']}", token)
    assert (subnet["cidr"], subnet["gateway_ip"]) == ("172.24.4.0/24", "172.24.4.1")
    net, inner = await network(cloud, token, "10.24.0.0/24")
    router = await made(cloud, "routers", token, name="r", external_gateway_info={"network_id": public["id"]})
    path = f"{V2}/routers/{router['id']}"
    answer = await cloud.ask("PUT", f"{path}/add_router_interface", token, body={"subnet_id": inner["id"]})
    assert answer.status == 200
    assert (answer.body["subnet_id"], answer.body["network_id"]) == (inner["id"], net["id"])
    uuid = await cloud.create(token, run=True, nets=[{"network": net["id"]}])
    (port,) = await listed(cloud, f"ports?device_id={uuid}", token)
    floating = await made(cloud, "floatingips", token, floating_network_id=public["id"], port_id=port["id"])
    assert (floating["status"], floating["router_id"]) == ("DOWN", router["id"])
    assert floating["fixed_ip_address"] == port["fixed_ips"][0]["ip_address"]
    assert floating["port_details"]["device_id"] == uuid
    await cloud.place(uuid)
    await cloud.report(uuid, "running")
    one = f"{V2}/floatingips/{floating['id']}"
    assert (await cloud.ask("GET", one, token)).body["floatingip"]["status"] == "ACTIVE"
    (state,) = [s for s in (await cloud.networking.states()).values() if port["id"] in {p.uuid for p in s.ports}]
    leads = [(f.address, f.fixed_address) for f in state.floating]
    assert (floating["floating_ip_address"], floating["fixed_ip_address"]) in leads
    second = {"floatingip": {"floating_network_id": public["id"], "port_id": port["id"]}}
    refused(await cloud.ask("POST", f"{V2}/floatingips", token, body=second), 409, "FloatingIpPortAlreadyAssociated")
    loose = await cloud.ask("PUT", one, token, body={"floatingip": {"port_id": None}})
    assert (loose.body["floatingip"]["port_id"], loose.body["floatingip"]["status"]) == (None, "DOWN")
    assert (await cloud.ask("DELETE", one, token)).status == 204
    wrong = await cloud.ask("POST", f"{V2}/floatingips", token, body={"floatingip": {"floating_network_id": net["id"]}})
    refused(wrong, 400, "BadRequest", "not a valid external network")
    refused(await cloud.ask("DELETE", path, token), 409, "RouterInUse")
    interfaces = await listed(cloud, f"ports?device_id={router['id']}", token)
    assert [p["device_owner"] for p in interfaces] == ["network:router_interface"]
    answer = await cloud.ask("DELETE", f"{V2}/ports/{interfaces[0]['id']}", token)
    refused(answer, 409, "ServicePortInUse")
    answer = await cloud.ask("PUT", f"{path}/remove_router_interface", token, body={"subnet_id": inner["id"]})
    assert answer.status == 200
    again = await cloud.ask("PUT", f"{path}/remove_router_interface", token, body={"subnet_id": inner["id"]})
    refused(again, 404, "RouterInterfaceNotFoundForSubnet")
    assert (await cloud.ask("DELETE", path, token)).status == 204


async def test_who_may_ask_for_the_external_network_says_policy(cloud: Cloud, tmp_path: Path) -> None:
    token = cloud.project()
    admin = token.replace("member", "admin")
    (public,) = await listed(cloud, "networks?router:external=True", token)
    uuid = await cloud.in_status(token, "Running")

    async def ask(who: str) -> list[Any]:
        body = {"image": "busybox", "nets": [{"network": public["id"]}]}
        path = f"/v1/containers/{uuid}/network_attach?network={public['id']}"
        return [await cloud.ask("POST", "/v1/containers", who, body=body), await cloud.ask("POST", path, who)]

    title = f"It is not allowed to create an interface on external network {public['id']}"
    for got in await ask(token):
        got.refused(403, "external-network-attach-forbidden", title)
    for got in await ask(admin):  # whom policy lets, the network itself refuses: it has floating addresses alone
        got.refused(409, "conflict", "Nothing can be on the external network public")
    rules = tmp_path / "policy.yaml"
    rules.write_text('"network:attach_external_network": "rule:admin_or_owner"\n')
    policy.use(rules)
    try:
        for got in await ask(token):
            got.refused(409, "conflict", "Nothing can be on the external network public")
        rules.write_text('"network:attach_external_network": "rule:deny_everybody"\n')
        for got in await ask(admin):
            got.refused(403, "external-network-attach-forbidden", title)
    finally:
        policy.use(None)


async def test_subnets_out_of_a_pool(cloud: Cloud) -> None:
    token = cloud.project()
    pool = await made(cloud, "subnetpools", token, name="p", prefixes=["10.25.0.0/24"], min_prefixlen="28")
    assert (pool["default_prefixlen"], pool["max_prefixlen"]) == (28, 32)
    cidrs = []
    for _ in range(2):
        net = await made(cloud, "networks", token, name="n")
        cut = await made(cloud, "subnets", token, network_id=net["id"], subnetpool_id=pool["id"], ip_version=4)
        assert cut["subnetpool_id"] == pool["id"]
        cidrs.append(cut["cidr"])
    assert cidrs == ["10.25.0.0/28", "10.25.0.16/28"]
    net = await made(cloud, "networks", token, name="n")
    body = {"subnet": {"network_id": net["id"], "subnetpool_id": pool["id"], "prefixlen": 24}}
    refused(await cloud.ask("POST", f"{V2}/subnets", token, body=body), 400, "MinPrefixSubnetAllocationError")
    for cidr in ("10.25.0.0/28", "10.26.0.0/28"):
        body = {"subnet": {"network_id": net["id"], "subnetpool_id": pool["id"], "cidr": cidr}}
        refused(await cloud.ask("POST", f"{V2}/subnets", token, body=body), 409, "SubnetAllocationError")
    body = {"subnet": {"network_id": net["id"], "subnetpool_id": pool["id"], "ip_version": 6}}
    refused(await cloud.ask("POST", f"{V2}/subnets", token, body=body), 400, "BadRequest", "IPv4 subnet pool")
    body = {"subnetpool": {"default_quota": 40}}
    after = await cloud.ask("PUT", f"{V2}/subnetpools/{pool['id']}", token, body=body)
    assert after.body["subnetpool"]["default_quota"] == 40
    body = {"subnet": {"network_id": net["id"], "subnetpool_id": pool["id"]}}
    refused(await cloud.ask("POST", f"{V2}/subnets", token, body=body), 409, "SubnetPoolQuotaExceeded")
    refused(await cloud.ask("DELETE", f"{V2}/subnetpools/{pool['id']}", token), 409, "SubnetPoolDeleteError")
    for one in await listed(cloud, f"subnets?subnetpool_id={pool['id']}", token):
        assert (await cloud.ask("DELETE", f"{V2}/subnets/{one['id']}", token)).status == 204
    assert (await cloud.ask("DELETE", f"{V2}/subnetpools/{pool['id']}", token)).status == 204


async def test_lists_can_be_filtered_cut_and_sorted(cloud: Cloud) -> None:
    token = cloud.project()
    for name in ("b", "a", "c"):
        await made(cloud, "networks", token, name=name)
    own = "networks?router:external=false"
    assert [n["name"] for n in await listed(cloud, f"{own}&sort_key=name&sort_dir=desc", token)] == ["c", "b", "a"]
    assert [n["name"] for n in await listed(cloud, "networks?name=a&name=b&sort_key=name", token)] == ["a", "b"]
    assert await listed(cloud, "networks?name=a&fields=name&fields=status", token) == [
        {"name": "a", "status": "ACTIVE"}
    ]
    page = await cloud.ask("GET", f"{V2}/{own}&sort_key=name&limit=2", token)
    assert [n["name"] for n in page.body["networks"]] == ["a", "b"]
    (following,) = page.body["networks_links"]
    rest = await cloud.ask("GET", following["href"].removeprefix(cloud.url), token)
    assert [n["name"] for n in rest.body["networks"]] == ["c"]
    assert "networks_links" not in rest.body
    refused(await cloud.ask("GET", f"{V2}/networks?colour=red", token), 400, "HTTPBadRequest", "colour")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"network": 3}', b'{"net": {}}', b'{"network": {"name": 7}}',
                                  b'{"network": {"name": "' + b"x" * 256 + b'"}}', b'{"network": {"shared": "x"}}',
                                  b'{"network": {"admin_state_up": false}}', b'{"network": {"router:external": 9}}'])  # fmt: skip
async def test_bodies_that_cannot_be(cloud: Cloud, body: bytes) -> None:
    answer = await cloud.ask("POST", f"{V2}/networks", "ann:bodies:member", data=body)
    refused(answer, 400, "HTTPBadRequest")


@pytest.mark.parametrize("path", ["agents", "trunks", "networks/x/y", "qos/policies"])
async def test_what_is_not_there(cloud: Cloud, path: str) -> None:
    refused(await cloud.ask("GET", f"{V2}/{path}", "ann:what:member"), 404, "HTTPNotFound")


async def test_fixed_addresses_and_groups_of_containers(cloud: Cloud) -> None:
    token = cloud.project()
    net, _ = await network(cloud, token, "10.26.0.0/24")
    group = await made(cloud, "security-groups", token, name="web")
    wish = {"network": net["id"], "v4-fixed-ip": "10.26.0.77"}
    uuid = await cloud.create(token, nets=[wish], security_groups=["web"])
    (port,) = await listed(cloud, f"ports?device_id={uuid}", token)
    assert port["fixed_ips"][0]["ip_address"] == "10.26.0.77"
    assert port["security_groups"] == [group["id"]]
    taken = await cloud.ask("POST", "/v1/containers", token, body={"image": "busybox", "nets": [wish]})
    assert taken.status == 409, taken
    outside = {"network": net["id"], "v4-fixed-ip": "10.27.0.1"}
    answer = await cloud.ask("POST", "/v1/containers", token, body={"image": "busybox", "nets": [outside]})
    assert answer.status == 400, answer
    assert len(await listed(cloud, f"ports?network_id={net['id']}", token)) == 1
