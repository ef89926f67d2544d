"""Hosts, services, zones, admin networks and images of Zun's API."""

from __future__ import annotations

import asyncio
import uuid as uuids
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from askos.adapters.hub.search import HubSearch
from askos.loops.placement import PlacementLoop
from askos.model.errors import NotFoundError, UnavailableError
from askos.plan.placement import Ratios
from askos.ports.image_search import FoundImage
from askos.ports.network_store import Who

from .cloud import HOST, NOW, ZONE, Cloud, facts, open_cloud

pytestmark = pytest.mark.asyncio
ROOT = "root:elsewhere:admin"
MEMBER = "ann:p:member"
SECOND = "22222222-0000-4000-8000-000000000002"
SERVICE = "host=host-1&binary=zun-compute"


@pytest_asyncio.fixture
async def cloud(template: Path, tmp_path: Path) -> AsyncIterator[Cloud]:
    """A cloud with two hosts."""
    async with open_cloud(template, tmp_path) as made:
        await made.store.register_host(facts(), ZONE)
        await made.store.register_host(facts(SECOND, "a-host"), "other")
        yield made


async def got(cloud: Cloud, path: str, token: str = ROOT, **more: Any) -> Any:
    answer = await cloud.ask("GET", path, token, **more)
    assert answer.status == 200, answer
    return answer.body


def place(cloud: Cloud) -> PlacementLoop:
    return PlacementLoop(cloud.store, Ratios(), cloud.clock)


# -- hosts and zones --------------------------------------------------------------------------------------------------


async def test_hosts(cloud: Cloud) -> None:
    uuid = await cloud.create(MEMBER, cpu=1.5, memory=256, disk=3)
    await cloud.place(uuid)
    listed = await got(cloud, "/v1/hosts/")
    assert [host["hostname"] for host in listed["hosts"]] == ["a-host", "host-1"]
    assert listed["next"] is None
    shown = await got(cloud, f"/v1/hosts/{HOST}")
    assert shown == listed["hosts"][1] == await got(cloud, "/v1/hosts/host-1")
    assert shown == {
        "uuid": HOST,
        "links": [
            {"href": f"{cloud.url}/v1/hosts/{HOST}", "rel": "self"},
            {"href": f"{cloud.url}/hosts/{HOST}", "rel": "bookmark"},
        ],
        "hostname": "host-1", "mem_total": 16384, "mem_used": 256, "cpus": 4, "cpu_used": 1.5, "disk_total": 100,
        "disk_used": 3, "disk_quota_supported": True, "total_containers": 1, "architecture": "x86_64",
        "os_type": "linux", "os": "Debian", "kernel_version": "6.1", "labels": {}, "runtimes": ["runc"],
        "enable_cpu_pinning": True,
    }  # fmt: skip
    page = await got(cloud, "/v1/hosts?limit=1&sort_key=id")
    assert [host["hostname"] for host in page["hosts"]] == ["host-1"]
    following = page["next"].removeprefix(cloud.url)
    assert [host["hostname"] for host in (await got(cloud, following))["hosts"]] == ["a-host"]
    (await cloud.ask("GET", "/v1/hosts/mars", ROOT)).refused(404, "compute-node-not-found")
    (await cloud.ask("GET", "/v1/hosts?sort_key=foo", ROOT)).refused(400, "invalid-parameter-value")
    assert (await cloud.ask("POST", "/v1/hosts", ROOT, body={})).status == 405


async def test_hosts_are_for_administrators_from_1_4_on(cloud: Cloud) -> None:
    for path, rule in (("/v1/hosts", "host:get_all"), ("/v1/hosts/host-1", "host:get")):
        (await cloud.ask("GET", path, MEMBER)).refused(403, "policy-not-authorized", f"Policy doesn't allow {rule}")
        (await cloud.ask("GET", path, ROOT, version="1.3")).refused(406, "")
        assert (await cloud.ask("GET", path, ROOT, version="1.4")).status == 200


async def test_zones_are_those_of_hosts_and_pages_of_them_work(cloud: Cloud) -> None:
    zones = [{"availability_zone": "nova"}, {"availability_zone": "other"}]
    assert await got(cloud, "/v1/availability_zones/", MEMBER, version="1.1") == {
        "availability_zones": zones,
        "next": None,
    }
    turned = await got(cloud, "/v1/availability_zones?sort_dir=desc", MEMBER)
    assert turned["availability_zones"] == zones[::-1]
    page = await got(cloud, "/v1/availability_zones?limit=1", MEMBER)
    assert page["availability_zones"] == zones[:1]
    assert (await got(cloud, page["next"].removeprefix(cloud.url), MEMBER))["availability_zones"] == zones[1:]


# -- services ---------------------------------------------------------------------------------------------------------


async def services(cloud: Cloud) -> dict[str, dict[str, Any]]:
    return {s["host"]: s for s in (await got(cloud, "/v1/services"))["services"]}


async def test_services(cloud: Cloud) -> None:
    await cloud.store.host_seen(HOST, 1, connected=True)
    found = await services(cloud)
    assert found["host-1"] == {
        "id": 1, "host": "host-1", "binary": "zun-compute", "state": "up", "disabled": False, "disabled_reason": None,
        "forced_down": False, "last_seen_up": "2023-11-14T22:13:20.000000", "report_count": 1,
        "availability_zone": "nova", "created_at": "2023-11-14T22:13:20.000000",
        "updated_at": "2023-11-14T22:13:20.000000",
    }  # fmt: skip
    assert (found["a-host"]["id"], found["a-host"]["availability_zone"]) == (2, "other")
    cloud.now = NOW + 181_000_000
    assert (await services(cloud))["host-1"]["state"] == "down"
    await cloud.store.host_seen(HOST, 1, connected=True)
    found = await services(cloud)
    assert (found["host-1"]["state"], found["host-1"]["report_count"], found["a-host"]["state"]) == ("up", 2, "down")
    await cloud.store.host_seen(HOST, 1, connected=False)
    assert (await services(cloud))["host-1"]["state"] == "down"


async def test_a_disabled_host_gets_no_more_and_an_enabled_one_does(cloud: Cloud) -> None:
    await cloud.store.host_seen(SECOND, 1, connected=False)
    stays = await cloud.create(MEMBER)
    await cloud.place(stays)
    off = await cloud.ask("PUT", f"/v1/services/disable?{SERVICE}&disabled_reason=repair", ROOT)
    service = {"host": "host-1", "binary": "zun-compute", "disabled": True, "disabled_reason": "repair"}
    assert (off.status, off.body) == (200, {"service": service})
    shown = (await services(cloud))["host-1"]
    assert (shown["disabled"], shown["disabled_reason"], shown["state"]) == (True, "repair", "up")
    failing = await cloud.create(MEMBER)
    await place(cloud).once()
    assert (await cloud.show(failing))["status_reason"] == "There are not enough hosts available."
    assert (await cloud.show(stays))["host"] == "host-1"
    on = await cloud.ask("PUT", "/v1/services/enable", ROOT, body={"host": "host-1", "binary": "zun-compute"})
    assert on.body == {"service": {**service, "disabled": False, "disabled_reason": None}}
    uuid = await cloud.create(MEMBER)
    await place(cloud).once()
    assert (await cloud.show(uuid))["host"] == "host-1"


async def test_a_host_that_is_forced_down_gets_no_more(cloud: Cloud) -> None:
    await cloud.store.host_seen(SECOND, 1, connected=False)
    down = await cloud.ask("PUT", f"/v1/services/force_down?{SERVICE}&forced_down=True", ROOT)
    assert down.body == {"service": {"host": "host-1", "binary": "zun-compute", "forced_down": True}}
    assert (await services(cloud))["host-1"]["state"] == "down"
    uuid = await cloud.create(MEMBER)
    await place(cloud).once()
    assert (await cloud.show(uuid))["status"] == "Error"
    # It says so also after the host has joined again.
    await cloud.store.register_host(facts(), ZONE)
    assert (await services(cloud))["host-1"]["forced_down"] is True
    up = await cloud.ask("PUT", f"/v1/services/force_down?{SERVICE}&forced_down=false", ROOT)
    assert up.body["service"]["forced_down"] is False
    assert (await services(cloud))["host-1"]["state"] == "up"


async def test_services_are_forgotten_when_nothing_is_on_them(cloud: Cloud) -> None:
    await cloud.ask("PUT", f"/v1/services/disable?{SERVICE}", ROOT)
    gone = await cloud.ask("DELETE", f"/v1/services?{SERVICE}", ROOT)
    assert (gone.status, gone.body) == (200, None)
    assert (await services(cloud))["host-1"]["disabled"] is False, "it is connected: it is there again, as new"
    uuid = await cloud.create(MEMBER)
    await cloud.place(uuid)
    await cloud.store.host_seen(HOST, 1, connected=False)
    (await cloud.ask("DELETE", f"/v1/services?{SERVICE}", ROOT)).refused(409, "conflict", "Cannot delete the service")
    await cloud.store.host_seen(SECOND, 1, connected=False)
    query = "host=a-host&binary=zun-compute"
    assert (await cloud.ask("DELETE", f"/v1/services?{query}", ROOT)).status == 200
    assert set(await services(cloud)) == {"host-1"}
    (await cloud.ask("DELETE", f"/v1/services?{query}", ROOT)).refused(404, "zun-service-not-found")


@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("GET", "/v1/services/", "get_all"),
        ("PUT", f"/v1/services/enable?{SERVICE}", "enable"),
        ("PUT", f"/v1/services/disable?{SERVICE}", "disable"),
        ("PUT", f"/v1/services/force_down?{SERVICE}&forced_down=1", "force_down"),
        ("DELETE", f"/v1/services?{SERVICE}", "delete"),
    ],
)
async def test_services_are_for_administrators(cloud: Cloud, method: str, path: str, rule: str) -> None:
    title = f"Policy doesn't allow zun-service:{rule} to be performed."
    (await cloud.ask(method, path, MEMBER)).refused(403, "policy-not-authorized", title)
    if method != "GET":
        for query in ("host=mars&binary=zun-compute", "host=host-1&binary=nova-compute"):
            where = f"{path.partition('?')[0]}?{query}{'&forced_down=1' if rule == 'force_down' else ''}"
            (await cloud.ask(method, where, ROOT)).refused(404, "zun-service-not-found")
        for query in ("binary=zun-compute", "host=host-1", f"{SERVICE}&foo=1", f"{SERVICE}&forced_down=maybe"):
            where = f"{path.partition('?')[0]}?{query}"
            (await cloud.ask(method, where, ROOT)).refused(400, "schema-validation-error")


async def test_force_down_needs_a_value(cloud: Cloud) -> None:
    answer = await cloud.ask("PUT", f"/v1/services/force_down?{SERVICE}", ROOT)
    answer.refused(400, "schema-validation-error", "Invalid input for query parameters 'forced_down'")


# -- networks ---------------------------------------------------------------------------------------------------------


async def test_networks(cloud: Cloud) -> None:
    network = (await cloud.networking.create_network("p", "net")).uuid
    body = {"name": "anything", "neutron_net_id": network}
    made = await cloud.ask("POST", "/v1/networks", ROOT, body=body)
    assert made.status == 200
    assert {k: v for k, v in made.body.items() if k not in ("uuid", "network_id")} == {
        "name": network, "project_id": "elsewhere", "user_id": "root", "neutron_net_id": network,
    }  # fmt: skip
    assert str(uuids.UUID(made.body["uuid"])) == made.body["uuid"] != network
    (await cloud.ask("POST", "/v1/networks", ROOT, body=body)).refused(409, "network-already-exists")
    assert (await cloud.ask("DELETE", f"/v1/networks/{network}", ROOT, version="1.26")).status == 406
    (await cloud.ask("DELETE", f"/v1/networks/{network}", MEMBER)).refused(403, "policy-not-authorized")
    assert (await cloud.ask("DELETE", f"/v1/networks/{network}", ROOT, version="1.27")).status == 204
    (await cloud.ask("DELETE", f"/v1/networks/{network}", ROOT)).refused(404, "network-not-found")
    assert (await cloud.networking.network(network, Who("p", True))).name == "net", "the network itself stays"
    (await cloud.ask("POST", "/v1/networks", MEMBER, body=body)).refused(403, "policy-not-authorized")
    (await cloud.ask("POST", "/v1/networks", ROOT, body={"name": "x"})).refused(400, "schema-validation-error")
    unknown = {"name": "x", "neutron_net_id": str(uuids.uuid4())}
    (await cloud.ask("POST", "/v1/networks", ROOT, body=unknown)).refused(404, "network-not-found")
    assert (await cloud.ask("GET", "/v1/networks", ROOT)).status == 405


# -- images -----------------------------------------------------------------------------------------------------------

ID = "sha256:" + "a" * 64


class Images:
    """What the images on the first host answer to calls."""

    def __init__(self, cloud: Cloud) -> None:
        self.tags = ["docker.io/library/busybox:latest"]
        self.cloud = cloud
        cloud.calls.answers |= {"images": self.list, "image_pull": self.pull, "image_remove": self.remove}

    def list(self, _arguments: dict[str, Any]) -> list[dict[str, Any]]:
        if self.cloud.calls.asked[-1][0] != HOST:
            raise UnavailableError("The host does not answer.")
        return [{"id": ID, "tags": list(self.tags), "digests": [], "size_bytes": 4321}]

    def pull(self, arguments: dict[str, Any]) -> Any:
        if "missing" in arguments["ref"]:
            raise NotFoundError("There is no such image.")
        if arguments["ref"] not in self.tags:
            self.tags.append(arguments["ref"])
        return [], {"id": ID}

    def remove(self, arguments: dict[str, Any]) -> None:
        self.tags.remove(arguments["ref"])


async def pulled(cloud: Cloud, uuid: str) -> dict[str, Any]:
    """The image, once its pull is over."""
    for _ in range(200):
        shown = await got(cloud, f"/v1/images/{uuid}")
        if shown["image_id"] is not None:
            return dict(shown)
        await asyncio.sleep(0.01)
    raise AssertionError("the image did not come")


async def test_images(cloud: Cloud) -> None:
    host = Images(cloud)
    (there,) = (await got(cloud, "/v1/images/"))["images"]
    assert there == {
        "uuid": there["uuid"],
        "links": [
            {"href": f"{cloud.url}/v1/images/{there['uuid']}", "rel": "self"},
            {"href": f"{cloud.url}/images/{there['uuid']}", "rel": "bookmark"},
        ],
        "image_id": ID, "repo": "docker.io/library/busybox", "tag": "latest", "size": "4321", "project_id": None,
        "host": "host-1",
    }  # fmt: skip
    made = await cloud.ask("POST", "/v1/images/", ROOT, body={"repo": "127.0.0.1:5050/app:2", "host": "host-1"})
    assert made.status == 202
    uuid = made.body["uuid"]
    assert made.headers["Location"] == f"{cloud.url}/v1/images/{uuid}"
    assert {k: made.body[k] for k in ("image_id", "repo", "tag", "size", "project_id", "host")} == {
        "image_id": None, "repo": "127.0.0.1:5050/app", "tag": "2", "size": None, "project_id": "elsewhere",
        "host": "host-1",
    }  # fmt: skip
    shown = await pulled(cloud, uuid)
    assert (shown["image_id"], shown["size"], shown["project_id"]) == (ID, "4321", "elsewhere")
    again = await cloud.ask("POST", "/v1/images", ROOT, body={"repo": "127.0.0.1:5050/app", "tag": "2", "host": HOST})
    assert (again.status, again.body["uuid"]) == (202, uuid), "a pull of what is there is a fresh look"
    await pulled(cloud, uuid)
    page = await got(cloud, "/v1/images?limit=1&sort_key=repo&sort_dir=desc")
    assert [image["repo"] for image in page["images"]] == ["docker.io/library/busybox"]
    assert page["next"]
    gone = await cloud.ask("DELETE", f"/v1/images/{uuid}", ROOT)
    assert (gone.status, gone.body) == (200, None)
    assert "127.0.0.1:5050/app:2" not in host.tags
    (await cloud.ask("GET", f"/v1/images/{uuid}", ROOT)).refused(404, "image-not-found")
    (await cloud.ask("DELETE", f"/v1/images/{uuid}", ROOT)).refused(404, "image-not-found")
    (await cloud.ask("GET", "/v1/images/busybox", ROOT)).refused(404, "image-not-found")


async def test_a_pull_that_fails_leaves_its_record(cloud: Cloud) -> None:
    Images(cloud)
    made = await cloud.ask("POST", "/v1/images", ROOT, body={"repo": "missing", "host": "host-1"})
    assert made.status == 202
    await asyncio.sleep(0)
    assert (await got(cloud, f"/v1/images/{made.body['uuid']}"))["image_id"] is None
    assert (await cloud.ask("DELETE", f"/v1/images/{made.body['uuid']}", ROOT)).status == 200
    (await cloud.ask("GET", f"/v1/images/{made.body['uuid']}", ROOT)).refused(404, "image-not-found")


async def test_pulls_that_are_refused(cloud: Cloud) -> None:
    Images(cloud)
    for body, code, title in (
        ({}, "schema-validation-error", "'repo' is a required property"),
        ({"repo": "busybox"}, "schema-validation-error", "'host' is a required property"),
        ({"repo": "", "host": "host-1"}, "schema-validation-error", "Invalid input for field 'repo'"),
        ({"repo": "busybox", "host": "host-1", "foo": 1}, "schema-validation-error", "Additional properties"),
        ({"repo": "busybox", "host": "mars"}, "invalid-value", "The host mars does not exist."),
        ({"repo": "Bad Name", "host": "host-1"}, "image-name", "Image name"),
    ):
        (await cloud.ask("POST", "/v1/images", ROOT, body=body)).refused(400, code, title)
    await cloud.store.host_seen(SECOND, 1, connected=False)
    silent = await cloud.ask("POST", "/v1/images", ROOT, body={"repo": "busybox", "host": "a-host"})
    silent.refused(503, "unavailable", "Host a-host is not connected now")
    for method, path, rule in (
        ("POST", "/v1/images", "pull"), ("GET", "/v1/images", "get_all"), ("GET", "/v1/images/x", "get_one"),
        ("DELETE", "/v1/images/x", "delete"),
    ):  # fmt: skip
        more: Any = {"body": {"repo": "busybox", "host": "host-1"}} if method == "POST" else {}
        title = f"Policy doesn't allow image:{rule} to be performed."
        (await cloud.ask(method, path, MEMBER, **more)).refused(403, "policy-not-authorized", title)


async def test_search(cloud: Cloud) -> None:
    cloud.hub.images = [
        FoundImage("team/app", "An app", star_count=3),
        FoundImage("team/app-two", is_official=True, is_automated=True),
    ]
    one = {
        "name": "team/app",
        "description": "An app",
        "is_automated": False,
        "metadata": {"is_official": False, "star_count": 3},
    }
    found = await got(cloud, "/v1/images/team%2Fapp/search", MEMBER)
    assert found[0] == one
    assert [image["name"] for image in found] == ["team/app", "team/app-two"]
    assert await got(cloud, "/v1/images/team%2Fapp/search?image_driver=docker&exact_match=true", MEMBER) == [one]
    assert await got(cloud, "/v1/images/team/search?image_driver=glance", MEMBER) == []
    for query in ("image_driver=foo", "foo=1", "exact_match=maybe"):
        (await cloud.ask("GET", f"/v1/images/x/search?{query}", MEMBER)).refused(400, "schema-validation-error")
    cloud.hub.down = True
    (await cloud.ask("GET", "/v1/images/x/search", MEMBER)).refused(503, "unavailable")


async def test_search_speaks_as_docker_hub_does() -> None:
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode())
        body = b'{"results":[{"name":"busybox","description":null,"is_official":true,"star_count":9,"more":1}]}'
        head = f"HTTP/1.0 {'404 No' if 'nothing' in asked[-1] else '200 OK'}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    hub = HubSearch(f"http://127.0.0.1:{port}/")
    try:
        assert await hub.search("busy box") == [FoundImage("busybox", is_official=True, star_count=9)]
        assert asked[0].startswith("GET /v1/search?q=busy+box&n=25 ")
        with pytest.raises(UnavailableError, match="status 404"):
            await hub.search("nothing")
    finally:
        server.close()
        await server.wait_closed()
    with pytest.raises(UnavailableError, match="ASKOS_IMAGE_SEARCH_URL"):
        await hub.search("nobody is there")


async def test_the_document_names_all_collections(cloud: Cloud) -> None:
    document = await got(cloud, "/v1")
    for name in ("services", "images", "networks", "hosts", "availability_zones", "quotas", "registries"):
        assert document[name][0] == {"href": f"{cloud.url}/v1/{name}/", "rel": "self"}
    assert (await cloud.ask("GET", "/healthcheck", None)).status == 200
