"""The actions that Zun knows beside start and stop: at which versions, what they wish, what travels to the host, and
the log of all that."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from askos.api.schemas import DEFAULT_LIMITS
from askos.model.actions import NewAction
from askos.model.capsules import Capsule
from askos.model.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from askos.model.images import of_service
from askos.ports.calls import Frame
from askos.ports.network_store import NewSubnet

from .cloud import HOST, Answer, Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = "root:elsewhere:admin"


async def capsule(cloud: Cloud, uuid: str) -> Capsule:
    (found,) = await cloud.store.capsules_by_uuid([uuid])
    return found


async def post(cloud: Cloud, uuid: str, rest: str, token: str, **more: Any) -> Answer:
    return await cloud.ask("POST", f"/v1/containers/{uuid}/{rest}", token, **more)


# -- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "action", "inside", "outside"),
    [
        ("POST", "rename?name=ab", "1.13", "1.14"),
        ("POST", "add_security_group?name=x", "1.14", "1.15"),
        ("POST", "remove_security_group?name=x", "1.14", "1.15"),
        ("POST", "network_detach?network=x", "1.6", "1.5"),
        ("POST", "network_attach?network=x", "1.8", "1.7"),
        ("GET", "network_list", "1.13", "1.12"),
        ("POST", "resize_container", "1.19", "1.18"),
    ],
)
async def test_boundaries(cloud: Cloud, method: str, action: str, inside: str, outside: str) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    path = f"/v1/containers/{uuid}/{action}"
    got = await cloud.ask(method, path, token, version=outside)
    got.refused(406, "", "Not Acceptable")
    assert f"Version {outside} was requested" in got.error["detail"]
    assert (await cloud.ask(method, path, token, version=inside)).status != 406


@pytest.mark.parametrize(
    ("method", "action"),
    [
        ("POST", "pause?x=1"), ("POST", "unpause?x=1"), ("POST", "rebuild?x=1"), ("POST", "commit?repository=a&x=1"),
        ("POST", "network_attach?x=1"), ("POST", "network_detach?x=1"), ("GET", "top?x=1"), ("GET", "attach?x=1"),
        ("POST", "resize?w=1&h=1&x=1"), ("POST", "execute_resize?x=1"),
    ],
)  # fmt: skip
async def test_unknown_parameters(cloud: Cloud, method: str, action: str) -> None:
    got = await cloud.ask(method, f"/v1/containers/x/{action}")
    got.refused(400, "schema-validation-error", "Additional properties are not allowed ('x' was unexpected)")


@pytest.mark.parametrize(
    ("method", "action"), [("GET", "pause"), ("POST", "top"), ("POST", "attach"), ("GET", "commit")]
)
async def test_the_other_verb_is_not_found(cloud: Cloud, method: str, action: str) -> None:
    assert (await cloud.ask(method, f"/v1/containers/x/{action}")).status == 404


# -- wishes -----------------------------------------------------------------------------------------------------------


async def test_pause_and_unpause(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    assert (await post(cloud, uuid, "pause", token)).raw == b"null"
    shown = await cloud.show(uuid)
    assert (shown["status"], shown["task_state"]) == ("Running", "container_pausing")
    await cloud.report(uuid, "paused", container={"started_us": cloud.now - 5_000_000, "state": "running"})
    shown = await cloud.show(uuid)
    assert (shown["status"], shown["task_state"], shown["status_detail"]) == ("Paused", None, "Up 5 seconds (paused)")
    assert (await post(cloud, uuid, "unpause", token)).status == 202
    wish = (await capsule(cloud, uuid)).wish
    assert (wish.state, wish.run, wish.task) == ("running", 1, "unpausing")
    assert (await cloud.show(uuid))["task_state"] == "container_unpausing"


@pytest.mark.parametrize(
    ("status", "state", "run"), [("Running", "running", 2), ("Stopped", "created", 1), ("Error", "created", 1)]
)
async def test_rebuild(cloud: Cloud, status: str, state: str, run: int) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, status)
    assert (await post(cloud, uuid, "rebuild?image=busybox:lab&image_driver=docker", token)).raw == b"null"
    now = await capsule(cloud, uuid)
    assert (now.wish.state, now.wish.run, now.wish.rebuilt_run, now.wish.task) == (state, run, 2, "rebuilding")
    assert now.spec.containers[0].image == "busybox:lab"
    shown = await cloud.show(uuid)
    assert (shown["status"], shown["task_state"], shown["image"]) == (
        "Rebuilding",
        "container_rebuilding",
        "busybox:lab",
    )


async def test_rebuild_from_what_cannot_be(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    (await post(cloud, uuid, "rebuild?image_driver=foo", token)).refused(400, "validation-error")
    (await post(cloud, uuid, "rebuild?image=UPPER", token)).refused(400, "schema-validation-error")
    (await post(cloud, uuid, "rebuild?image=nosuch&image_driver=glance", token)).refused(400, "image-not-found")
    assert (await capsule(cloud, uuid)).wish.generation == 1


# -- changes ----------------------------------------------------------------------------------------------------------


async def patch(cloud: Cloud, uuid: str, token: str, body: Any, version: str = "1.40") -> Answer:
    return await cloud.ask("PATCH", f"/v1/containers/{uuid}", token, version=version, body=body)


async def test_patch(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running", name="web", cpu=0.5, memory="128")
    got = await patch(cloud, uuid, token, {"name": "web2", "cpu": "0.6", "memory": 160, "auto_heal": "true"})
    assert got.status == 200
    expected = {"name": "web2", "cpu": 0.6, "memory": "160", "auto_heal": True, "status": "Running", "task_state": None}
    assert {key: got.body[key] for key in expected} == expected
    assert got.body["links"]
    now = await capsule(cloud, uuid)
    assert (now.wish.state, now.wish.run, now.wish.generation, now.wish.task) == ("running", 1, 2, "updating")
    assert (await cloud.ask("GET", "/v1/containers/web2", token)).body["uuid"] == uuid
    for body in ({}, {"name": None}, {"name": "web2"}, {"cpu": 0.6}):
        assert (await patch(cloud, uuid, token, body)).body["name"] == "web2"
    assert (await capsule(cloud, uuid)).wish.generation == 2, "what changes nothing is no wish"
    assert (await patch(cloud, uuid, token, {"name": "web3"}, version="1.1")).body["name"] == "web3"


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a b"}, {"cpu": 0}, {"cpu": "abc"}, {"cpu": 1000}, {"memory": "1"}, {"memory": "64m"},
        {"memory": 999999}, {"image": "busybox"}, {"labels": {"a": "b"}}, {"auto_heal": "perhaps"},
    ],
)  # fmt: skip
async def test_patches_that_cannot_be(cloud: Cloud, body: dict[str, Any]) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    (await patch(cloud, uuid, token, body)).refused(400, "schema-validation-error")
    assert (await capsule(cloud, uuid)).wish.generation == 1


async def test_more_than_its_host_has(cloud: Cloud) -> None:
    token = cloud.project()
    host = "11111111-0000-4000-8000-0000000000ff"
    made = [await cloud.create(token, memory=memory) for memory in (8192, 8192, 8000)]  # of 24 GiB to give away
    for uuid in made:
        await cloud.place(uuid, host, "host-full")
        await cloud.report(uuid, "created")
    got = await patch(cloud, made[2], token, {"memory": 8192, "name": "fits"})
    assert got.status == 200
    await patch(cloud, made[2], token, {"memory": 64})
    more = await cloud.create(token, memory=8000)
    await cloud.place(more, host, "host-full")
    before = await capsule(cloud, made[2])
    got = await patch(cloud, made[2], token, {"memory": 8192, "name": "bigger"})
    got.refused(409, "conflict", "Cannot give the container so much memory")
    assert await capsule(cloud, made[2]) == before


async def test_resize_container_answers_with_the_old_values(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running", cpu=0.5, memory="128")
    got = await post(cloud, uuid, "resize_container", token, body={"cpu": 0.6, "memory": "160"})
    assert (got.status, got.body["cpu"], got.body["memory"]) == (202, 0.5, "128")
    got = await post(cloud, uuid, "resize_container?cpu=0.4&memory=100", token)
    assert (got.status, got.body["cpu"], got.body["memory"]) == (202, 0.6, "160")
    shown = await cloud.show(uuid)
    assert (shown["cpu"], shown["memory"]) == (0.4, "100")
    assert (await post(cloud, uuid, "resize_container", token)).status == 202
    for rest in ("?cpu=x", "?more=1", "?memory=1"):
        (await post(cloud, uuid, "resize_container" + rest, token)).refused(400, "schema-validation-error")


async def test_rename(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.create(token, name="web")
    assert (await post(cloud, uuid, "rename?name=web4", token, version="1.13")).body["name"] == "web4"
    got = await post(cloud, uuid, "rename?name=web4", token, version="1.13")
    got.refused(409, "conflict", "The new name for the container is the same as the old name.")
    assert (await post(cloud, uuid, "rename", token, version="1.13", body={"name": "web5"})).body["name"] == "web5"
    for rest in ("rename", "rename?name=", "rename?name=!"):
        (await post(cloud, uuid, rest, token, version="1.13")).refused(400, "schema-validation-error")


# -- networks and groups ----------------------------------------------------------------------------------------------


async def test_networks_come_and_go(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    (first,) = (await cloud.show(uuid))["addresses"]
    second = await cloud.networking.create_network(token.split(":")[1], "second")
    await cloud.networking.create_subnet(NewSubnet(second.uuid, cidr="172.30.1.0/24"))
    got = await post(cloud, uuid, "network_attach?network=second&fixed_ip=172.30.1.9", token)
    assert (got.status, got.raw) == (200, b"null")
    shown = await cloud.show(uuid)
    assert (shown["status"], shown["task_state"]) == ("Running", "network_attaching")
    assert shown["addresses"][second.uuid][0]["addr"] == "172.30.1.9"
    path = f"/v1/containers/{uuid}/network_list"
    old = (await cloud.ask("GET", path, token, version="1.17")).body["networks"]
    new = (await cloud.ask("GET", path, token, version="1.18")).body["networks"]
    assert [n["net_id"] for n in old] == [n["net_id"] for n in new] == [first, second.uuid]
    assert set(old[1]) == {"net_id", "port_id", "subnet_id", "version", "ip_address"}
    assert set(new[1]) == {"net_id", "port_id", "fixed_ips"}
    address = {"ip_address": "172.30.1.9", "version": 4, "subnet_id": old[1]["subnet_id"]}
    assert new[1]["fixed_ips"] == [address]
    got = await post(cloud, uuid, "network_attach", token, body={"network": "second"})
    got.refused(400, "invalid", f"Network 'second' is already connected to container '{uuid}'.")
    await cloud.report(uuid, "running")
    assert (await post(cloud, uuid, f"network_detach?port={old[1]['port_id']}", token)).raw == b"null"
    assert set((await cloud.show(uuid))["addresses"]) == {first}
    got = await post(cloud, uuid, "network_detach?network=second", token)
    got.refused(400, "invalid", f"Network 'second' is not attached to container '{uuid}'.")


@pytest.mark.parametrize(
    ("rest", "status", "code"),
    [
        ("network_attach?network=nowhere", 404, "network-not-found"),
        ("network_attach?port=nowhere", 404, "port-not-found"),
        ("network_attach?network=a&port=b", 400, "schema-validation-error"),
        ("network_attach?network=a&fixed_ip=abc", 400, "schema-validation-error"),
        ("network_attach?network=one&fixed_ip=10.99.0.1", 400, "invalid"),
        ("network_detach", 400, "schema-validation-error"),
        ("network_detach?network=a&port=b", 400, "schema-validation-error"),
        ("network_detach?network=nowhere", 404, "network-not-found"),
        ("network_detach?port=nowhere", 404, "port-not-found"),
    ],
)
async def test_networks_that_cannot_be(cloud: Cloud, rest: str, status: int, code: str) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    one = await cloud.networking.create_network(token.split(":")[1], "one")
    if "10.99" in rest:
        await cloud.networking.create_subnet(NewSubnet(one.uuid, cidr="172.30.2.0/24"))
    before = await capsule(cloud, uuid)
    got = await post(cloud, uuid, rest, token)
    assert got.status == status, got
    assert got.error["code"].startswith(f"container.{code}"), got
    assert await capsule(cloud, uuid) == before


async def test_security_groups_come_and_go(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    web = await cloud.networking.create_group(token.split(":")[1], "web")
    assert (await post(cloud, uuid, "add_security_group?name=web", token, version="1.14")).raw == b"null"
    shown = await cloud.show(uuid)
    assert (shown["security_groups"], shown["task_state"]) == ([web.uuid], "sg_adding")
    again = await post(cloud, uuid, "add_security_group", token, version="1.1", body={"name": web.uuid})
    again.refused(400, "invalid-value", f"Security group {web.uuid} has been added to container.")
    assert (await post(cloud, uuid, f"remove_security_group?name={web.uuid}", token, version="1.14")).status == 202
    again = await post(cloud, uuid, "remove_security_group?name=web", token, version="1.14")
    again.refused(400, "invalid-value", f"Security group {web.uuid} was not added to container.")
    (await post(cloud, uuid, "add_security_group?name=nobody", token, version="1.14")).refused(400, "invalid-value")
    (await post(cloud, uuid, "add_security_group", token, version="1.14")).refused(400, "schema-validation-error")


# -- looking inside ---------------------------------------------------------------------------------------------------


async def test_top(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    cloud.calls.answers = {"top": {"titles": ["PID", "CMD"], "processes": [["1", "sleep 9"]]}}
    for query, given in (("", None), ("?ps_args=None", None), ("?ps_args=-o+pid,comm", "-o pid,comm")):
        got = await cloud.ask("GET", f"/v1/containers/{uuid}/top{query}", token)
        assert got.body == {"Titles": ["PID", "CMD"], "Processes": [["1", "sleep 9"]]}
        assert cloud.calls.asked[-1][:3] == (HOST, "top", {"capsule": uuid, "ps_args": given})
    cloud.calls.answers = {"top": InvalidError("ps does not know --bad.")}
    (await cloud.ask("GET", f"/v1/containers/{uuid}/top?ps_args=--bad", token)).refused(400, "invalid")


async def test_stats(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running", name="used")
    cloud.calls.answers = {
        "container_stats": {
            "cpu_percent": 1.5, "memory_bytes": 1 << 20, "memory_limit_bytes": 4 << 20, "read_bytes": 7,
            "write_bytes": 8, "rx_bytes": 9, "tx_bytes": 10,
        }
    }  # fmt: skip
    got = await cloud.ask("GET", f"/v1/containers/{uuid}/stats?foo=1", token)
    assert got.body == {
        "CONTAINER": "used", "CPU %": 1.5, "MEM USAGE(MiB)": 1.0, "MEM LIMIT(MiB)": 4.0, "MEM %": 25.0,
        "BLOCK I/O(B)": "7/8", "NET I/O(B)": "9/10",
    }  # fmt: skip


async def test_archives_out(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Stopped")
    stat = {"name": "f", "size": 1, "mode": 420, "mtime": "2023-11-14T22:13:20Z", "linkTarget": ""}
    cloud.calls.answers = {"get_archive": ([Frame(1, b"ab"), Frame(1, b"c\xc3\xa4")], stat)}
    path = f"/v1/containers/{uuid}/get_archive?path=/tmp/f"
    got = await cloud.ask("GET", path, token, version="1.25")
    assert got.body == {"data": base64.b64encode("abcä".encode()).decode(), "stat": stat}
    assert (await cloud.ask("GET", path, token, version="1.24")).body == {"data": "abcä", "stat": stat}
    cloud.calls.answers = {"get_archive": ([Frame(1, b"\xff")], stat)}
    (await cloud.ask("GET", path, token, version="1.24")).refused(400, "invalid")
    cloud.calls.answers = {"get_archive": ([], NotFoundError("There is no /tmp/f in the container."))}
    (await cloud.ask("GET", path, token)).refused(404, "not-found")
    assert cloud.calls.streams[-1].closed
    for rest in ("", "?path="):
        got = await cloud.ask("GET", f"/v1/containers/{uuid}/get_archive{rest}", token)
        got.refused(400, "schema-validation-error")


async def test_archives_in(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Created")
    cloud.calls.answers = {"put_archive": ([], None)}
    data = b"t" * 1_500_000
    encoded = base64.b64encode(data).decode()
    for rest, body in (("?path=/tmp", {"data": encoded}), ("", {"path": "/tmp", "data": encoded})):
        assert (await post(cloud, uuid, f"put_archive{rest}", token, body=body)).raw == b"null"
        assert cloud.calls.asked[-1][1:3] == ("put_archive", {"capsule": uuid, "path": "/tmp"})
        sent = cloud.calls.streams[-1].sent
        assert b"".join(frame.data for frame in sent) == data
        assert sent[-1].eof
    await post(cloud, uuid, "put_archive?path=/", token, version="1.24", body={"data": "raw\u0000ä"})
    assert cloud.calls.streams[-1].sent[0].data == "raw\u0000ä".encode()
    for rest, body in (("", {"data": encoded}), ("?path=/", {}), ("?path=/", {"data": ""}), ("?path=/", {"data": 5})):
        (await post(cloud, uuid, f"put_archive{rest}", token, body=body)).refused(400, "schema-validation-error")
    (await post(cloud, uuid, "put_archive?path=/", token, body={"data": "%%"})).refused(400, "base-64-exception")
    cloud.calls.answers = {"put_archive": ([], InvalidError("What was sent is no tar archive."))}
    (await post(cloud, uuid, "put_archive?path=/", token, body={"data": "bm8="})).refused(400, "invalid")


async def test_resize(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    cloud.calls.answers = {"resize": None}
    assert (await post(cloud, uuid, "resize?h=40&w=120", token)).raw == b"null"
    assert cloud.calls.asked[-1][1:3] == ("resize", {"capsule": uuid, "width": 120, "height": 40})
    for rest in ("", "?h=40", "?w=1", "?h=0&w=1", "?h=a&w=b", "?h=99999&w=1", "?width=1&height=2"):
        (await post(cloud, uuid, f"resize{rest}", token)).refused(400, "schema-validation-error")


async def test_a_command_may_be_a_list_of_words(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    cloud.calls.answers = {"run": {"output": "b c\n", "exit_code": 0}}
    for words in (["echo", "b c"], ["sh", "-c", "echo 'b c'"], ["x"]):
        got = await post(cloud, uuid, "execute", token, body={"command": words})
        assert (got.status, got.body["output"]) == (200, "b c\n")
        assert cloud.calls.asked[-1][2]["argv"] == words, "words are taken as they are, not split again"
    made = await post(cloud, uuid, "execute", token, body={"command": ["sh"], "run": False, "interactive": True})
    assert made.body["exec_id"]
    for wrong in ([], [""], ["a", 5], ["a\u0000"], {"a": 1}, 5, ["x"] * 5000):
        got = await post(cloud, uuid, "execute", token, body={"command": wrong})
        got.refused(400, "schema-validation-error")
    await post(cloud, uuid, "execute?command=" + "echo+[1,2]", token)
    assert cloud.calls.asked[-1][2]["argv"] == ["echo", "[1,2]"]


async def test_archives_that_are_too_large(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    monkeypatch.setattr(cloud, "limits", DEFAULT_LIMITS._replace(archive_mib=1))
    mib = b"x" * (1 << 20)
    async with TestServer(cloud.app()) as server:
        monkeypatch.setattr(cloud, "url", f"http://{server.host}:{server.port}")
        for more, status in ((b"", 200), (b"x", 413), (mib, 413)):
            cloud.calls.answers = {
                "get_archive": ([Frame(1, mib), Frame(1, more)], {"name": "f"}),
                "put_archive": ([], None),
            }
            body = {"data": base64.encodebytes(mib + more).decode()}
            answers = [
                await cloud.ask("GET", f"/v1/containers/{uuid}/get_archive?path=/f", token),
                await post(cloud, uuid, "put_archive?path=/", token, body=body),
            ]
            assert [a.status for a in answers] == [status, status]
            for answer in answers if status == 413 else []:
                assert " 1 MiB" in answer.error["title"]
        assert "larger than the 1 MiB" in answers[0].error["title"]
        assert "`askos cp`" in answers[0].error["title"]


async def test_what_cannot_be_committed(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    (await post(cloud, uuid, "commit", token)).refused(400, "schema-validation-error", "'repository' is a required")
    (await post(cloud, uuid, "commit?repository=a%0Ab", token)).refused(400, "invalid")
    assert (await cloud.ask("GET", "/image/v2/images", token)).body["images"] == []


async def test_what_was_committed_is_found_by_name_and_tag(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    name = f"snap-{secrets.token_hex(4)}"
    made: list[str] = []
    monkeypatch.setattr(cloud, "now", cloud.now)
    for rest in ("&tag=v1", "&tag=v1", "&tag=v2", ""):
        cloud.calls.answers["commit"] = ([Frame(1, b"archive")], {"id": "sha256:1", "name": "x", "size_bytes": 7})
        made.append((await post(cloud, uuid, f"commit?repository={name}{rest}", token)).body["uuid"])
        await cloud.committer.settled()
        cloud.now += 1_000_000

    async def create(image: str, who: str = token) -> Any:
        return await cloud.ask("POST", "/v1/containers", who, body={"image": image, "image_driver": "glance"})

    # The last one that got the tag has it; what got none is the latest, as docker has it.
    for tag, image in (("v1", made[1]), ("v2", made[2]), ("latest", made[3])):
        got = await create(f"{name}:{tag}")
        assert got.status == 202, got
        (capsule,) = await cloud.store.capsules_by_uuid([got.body["uuid"]])
        assert capsule.spec.containers[0].image_uuid == image
        found = await cloud.ask("GET", f"/v1/images/{name}:{tag}/search?image_driver=glance&exact_match=true", token)
        assert found.body[0]["id"] == image
    for image, who in ((f"{name}:v3", token), (f"{name}:", token), (f"{name}:v1", cloud.project())):
        (await create(image, who)).refused(400, "image-not-found")
    (await create(name)).refused(409, "conflict", "Several images have the name")
    # What a host has of it is listed by its name, for who may see it.
    refs = [of_service(made[2]), of_service(made[3]), of_service("11111111-0000-4000-8000-00000000dead")]
    cloud.calls.answers["images"] = [{"id": "sha256:2", "tags": refs, "size_bytes": 7}]
    listed = (await cloud.ask("GET", "/v1/images", token.replace("member", "admin"))).body["images"]
    assert {i["tag"] for i in listed if i["repo"] == name} == {"latest", "v2"}  # on each host there is
    assert any("dead" in i["repo"] for i in listed)


async def test_a_commit_fills_an_image(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    pieces = [Frame(1, b"an archive "), Frame(1, b"in pieces")]
    cloud.calls.answers["commit"] = (pieces, {"id": "sha256:1", "name": "x", "size_bytes": 20})
    made = await post(cloud, uuid, "commit?repository=snap&tag=v1", token)
    assert made.status == 202
    await cloud.committer.settled()
    image = (await cloud.ask("GET", f"/image/v2/images/{made.body['uuid']}", token)).body
    assert (image["name"], image["tags"], image["status"], image["size"]) == ("snap", ["v1"], "active", 20)
    file = await cloud.ask("GET", f"/image/v2/images/{image['id']}/file", token)
    assert file.raw == b"an archive in pieces"
    assert cloud.calls.asked[-1][2] == {"capsule": uuid, "name": f"commit-{image['id']}", "stream": True}
    put = await cloud.ask(
        "PUT", f"/image/v2/images/{image['id']}/file", token, data=b"x",
        headers={"Content-Type": "application/octet-stream"},
    )  # fmt: skip
    assert put.status == 409


async def test_a_commit_that_fails_says_why(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    cloud.calls.answers["commit"] = UnavailableError("The host fell asleep.")
    made = await post(cloud, uuid, "commit?repository=snap", token)
    await cloud.committer.settled()
    image = (await cloud.ask("GET", f"/image/v2/images/{made.body['uuid']}", token)).body
    assert (image["status"], image["failure"], image["size"]) == ("killed", "The host fell asleep.", None)
    actions = (await cloud.ask("GET", f"/v1/containers/{uuid}/container_actions", token)).body["containerActions"]
    assert actions[0]["action"] == "commit"


# -- the log ----------------------------------------------------------------------------------------------------------


async def log(cloud: Cloud, uuid: str, token: str, request_id: str = "") -> Any:
    path = f"/v1/containers/{uuid}/container_actions" + (f"/{request_id}" if request_id else "")
    return (await cloud.ask("GET", path, token)).body


async def test_a_create_that_starts_has_two_events(cloud: Cloud) -> None:
    token = cloud.project()
    made = await cloud.ask("POST", "/v1/containers?run=1", token, body={"image": "busybox"})
    uuid, request_id = made.body["uuid"], made.headers["X-Openstack-Request-Id"]
    (action,) = (await log(cloud, uuid, token))["containerActions"]
    assert action == {
        "action": "create", "container_uuid": uuid, "request_id": request_id, "user_id": "ann",
        "project_id": token.split(":")[1], "start_time": "2023-11-14T22:13:20.123456", "finish_time": None,
        "message": None,
    }  # fmt: skip
    assert (await log(cloud, uuid, token, request_id))["events"] == []
    await cloud.place(uuid)
    cloud.now += 2_000_000
    await cloud.report(uuid, "running", container={"started_us": cloud.now - 1_000_000, "state": "running"})
    cloud.now -= 2_000_000
    action = await log(cloud, uuid, token, request_id)
    assert (action["finish_time"], action["message"]) == ("2023-11-14T22:13:22.123456", None)
    assert [(e["event"], e["result"]) for e in action["events"]] == [
        ("compute__do_container_start", "Success"), ("compute__do_container_create", "Success"),
    ]  # fmt: skip


async def test_a_start_that_fails(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.create(token, run=True)
    await cloud.place(uuid)
    await cloud.report(uuid, "error", reason="no such program", container={"image_id": "sha256:1"})
    (action,) = (await log(cloud, uuid, token))["containerActions"]
    assert action["message"] == "Error"
    mine = (await log(cloud, uuid, token, action["request_id"]))["events"]
    assert [(e["event"], e["result"], e["traceback"]) for e in mine] == [
        ("compute__do_container_start", "Error", None), ("compute__do_container_create", "Success", None),
    ]  # fmt: skip
    roots = (await log(cloud, uuid, ROOT, action["request_id"]))["events"]
    assert roots[0]["traceback"] == "no such program"


async def test_nowhere_to_go_is_an_error(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Error without a host")
    (action,) = (await log(cloud, uuid, token))["containerActions"]
    assert (action["message"], action["finish_time"] is None) == ("Error", False)


async def test_what_is_logged_and_what_is_not(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    cloud.calls.answers = {"signal": None, "run": {"output": "", "exit_code": 0}, "logs": ([], None)}
    await post(cloud, uuid, "pause", token)
    await cloud.report(uuid, "paused")
    await post(cloud, uuid, "unpause", token)
    await cloud.report(uuid, "running")
    await post(cloud, uuid, "kill?signal=HUP", token)
    cloud.calls.answers["signal"] = ConflictError("it does not run")
    await post(cloud, uuid, "kill?signal=HUP", token)
    await patch(cloud, uuid, token, {"cpu": 0.7})
    await post(cloud, uuid, "execute?command=id", token)
    await cloud.ask("GET", f"/v1/containers/{uuid}/logs", token)
    await cloud.networking.create_group(token.split(":")[1], "web")
    await post(cloud, uuid, "add_security_group?name=web", token, version="1.14")
    await post(cloud, uuid, "remove_security_group?name=web", token, version="1.14")
    await post(cloud, uuid, "stop", token)
    await cloud.report(uuid, "exited")
    await post(cloud, uuid, "rebuild", token)
    await cloud.report(uuid, "created")
    await post(cloud, uuid, "start", token)
    await post(cloud, uuid, "reboot", token)
    (await post(cloud, uuid, "pause", token)).refused(409, "invalid-state-exception")
    found = (await log(cloud, uuid, token))["containerActions"]
    assert [(a["action"], a["message"], a["finish_time"] is None) for a in found if a["action"] not in ("start", "reboot")] == [
        ("rebuild", None, False), ("stop", None, False), ("remove_security_group", None, False),
        ("add_security_group", None, False), ("kill", "Error", False), ("kill", None, False),
        ("unpause", None, False), ("pause", None, False), ("create", None, False),
    ]  # fmt: skip


async def test_a_server_that_ends_leaves_nothing_open_in_the_log(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    await cloud.ask("POST", f"/v1/containers/{uuid}/pause", token)
    begun = NewAction("commit", "req-begun", "ann", token.split(":")[1])
    assert await cloud.store.begin_action(uuid, begun)
    await cloud.store.break_off_actions()
    commit, pause = (await log(cloud, uuid, token))["containerActions"][:2]
    assert (commit["action"], commit["message"], bool(commit["finish_time"])) == ("commit", "Error", True)
    events = (await log(cloud, uuid, token, "req-begun"))["events"]
    assert [(e["event"], e["result"]) for e in events] == [("compute__do_container_commit", "Error")]
    # What is a wish goes on.
    assert (pause["action"], pause["finish_time"]) == ("pause", None)


async def test_the_log_is_its_projects_and_goes_with_it(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.create(token)
    path = f"/v1/containers/{uuid}/container_actions"
    (await cloud.ask("GET", path, cloud.project())).refused(404, "container-not-found")
    (await cloud.ask("GET", f"{path}/req-none", token)).refused(
        404, "resource-not-found", "The Action resource req-none"
    )
    assert (await cloud.ask("GET", path + "/?limit=1", token, version="1.1")).status == 200
    await cloud.ask("DELETE", f"/v1/containers/{uuid}", token)
    assert await cloud.store.actions(uuid) == []


async def test_archives_as_streams(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Stopped")
    path = f"/askos/v1/containers/{uuid}/archive"
    cloud.calls.answers = {"get_archive": ([Frame(1, b"ab"), Frame(1, b"\xff")], {})}
    got = await cloud.ask("GET", f"{path}?path=/tmp/f", token)
    assert (got.raw, got.headers["Content-Type"]) == (b"ab\xff", "application/x-tar")
    cloud.calls.answers = {"get_archive": ([], NotFoundError("There is no /tmp/f in the container.", "no-such-path"))}
    (await cloud.ask("GET", f"{path}?path=/tmp/f", token)).refused(404, "no-such-path")
    assert cloud.calls.streams[-1].closed
    assert (await cloud.ask("GET", path, token)).status == 400
    stranger = cloud.project()
    (await cloud.ask("GET", f"{path}?path=/", stranger)).refused(404, "container-not-found")
    (await cloud.ask("PUT", f"{path}?path=/", stranger)).refused(404, "container-not-found")
