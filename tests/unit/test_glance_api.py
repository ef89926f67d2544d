"""The image service's API in process: what Glance's clients send and read, files, walls between projects, refusals."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from askos.adapters.images.files import ImageFolder
from askos.adapters.sql.images import SqlImages
from askos.model.errors import ConflictError, InvalidError, NotFoundError, StorageFullError
from askos.model.stored_images import StoredImage
from askos.ports.image_store import ImageReader

from .cloud import Answer, Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

V2 = "/image/v2"
ADMIN = "root:elsewhere:admin"
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
BYTES = {"Content-Type": "application/octet-stream"}
EVERYBODY = ImageReader("", is_admin=True)


def refused(answer: Answer, status: int, words: str = "") -> None:
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].startswith("text/html")
    assert f"<h1>{status} " in answer.raw.decode()
    assert words in answer.raw.decode(), answer


async def made(cloud: Cloud, token: str, **given: Any) -> dict[str, Any]:
    body = {"name": "tool", "container_format": "docker", "disk_format": "raw", **given}
    answer = await cloud.ask("POST", f"{V2}/images", token, body=body)
    assert answer.status == 201, answer
    assert answer.headers["Location"] == f"{cloud.url}{V2}/images/{answer.body['id']}"
    return dict(answer.body)


async def filled(cloud: Cloud, token: str, data: bytes = b"some layers", **given: Any) -> dict[str, Any]:
    image = await made(cloud, token, **given)
    put = await cloud.ask("PUT", f"{V2}/images/{image['id']}/file", token, data=data, headers=BYTES)
    assert (put.status, put.raw) == (204, b"")
    return await shown(cloud, token, image["id"])


async def shown(cloud: Cloud, token: str, uuid: str) -> dict[str, Any]:
    answer = await cloud.ask("GET", f"{V2}/images/{uuid}", token)
    assert answer.status == 200, answer
    return dict(answer.body)


async def names(cloud: Cloud, token: str, query: str = "") -> list[str]:
    answer = await cloud.ask("GET", f"{V2}/images{query}", token)
    assert answer.status == 200, answer
    return [image["name"] for image in answer.body["images"]]


async def patch(cloud: Cloud, token: str, uuid: str, *operations: dict[str, Any]) -> Answer:
    return await cloud.ask("PATCH", f"{V2}/images/{uuid}", token, body=list(operations), headers=PATCH)


def replace(path: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": path, "value": value}


async def test_versions_need_no_token_and_the_rest_does(cloud: Cloud) -> None:
    answer = await cloud.ask("GET", "/image", None)
    assert answer.status == 300
    assert answer.body["versions"][0]["id"] == "v2.5"
    assert answer.body["versions"][0]["links"] == [{"rel": "self", "href": f"{cloud.url}/image/v2/"}]
    assert (await cloud.ask("GET", "/image/versions", None)).status == 200
    refused(await cloud.ask("GET", f"{V2}/images", None), 401)
    asked = await cloud.ask("GET", f"{V2}/images/nothing", cloud.project(), headers={"Accept": "application/json"})
    assert asked.body == {"message": "No image found with ID nothing", "code": "404 Not Found", "title": "Not Found"}
    refused(await cloud.ask("GET", f"{V2}/tasks", cloud.project()), 404, "could not be found")


async def test_what_it_says_of_itself(cloud: Cloud) -> None:
    token = cloud.project()
    schema = (await cloud.ask("GET", f"{V2}/schemas/image", token)).body
    image = await made(cloud, token)
    assert set(image) == set(schema["properties"])
    assert (await cloud.ask("GET", f"{V2}/schemas/images", token)).body["name"] == "images"
    refused(await cloud.ask("GET", f"{V2}/schemas/x", token), 404)
    assert (await cloud.ask("GET", f"{V2}/info/stores", token)).body["stores"][0]["id"] == "local"
    assert (await cloud.ask("GET", f"{V2}/info/import", token)).body["import-methods"]["value"] == []


async def test_an_image_from_its_record_to_its_end(cloud: Cloud) -> None:
    token, data = cloud.project(), b"layer" * 500_000
    image = await made(cloud, token, tags=["a", "a", "b"], kept_by="ann", min_ram=64)
    assert (image["status"], image["visibility"], image["size"], image["owner"]) == (
        "queued", "private", None, token.split(":")[1],
    )  # fmt: skip
    assert (image["tags"], image["kept_by"], image["min_ram"]) == (["a", "b"], "ann", 64)
    file = f"{V2}/images/{image['id']}/file"
    assert (await cloud.ask("GET", file, token)).status == 204
    assert (await cloud.ask("PUT", file, token, data=data, headers=BYTES)).status == 204
    after = await shown(cloud, token, image["id"])
    assert (after["status"], after["size"]) == ("active", len(data))
    assert after["checksum"] == hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert (after["os_hash_algo"], after["os_hash_value"]) == ("sha512", hashlib.sha512(data).hexdigest())
    got = await cloud.ask("GET", file, token)
    assert got.raw == data
    assert got.headers["Content-MD5"] == after["checksum"]
    refused(await cloud.ask("PUT", file, token, data=data, headers=BYTES), 409, "status is active")
    for text, part in (("bytes=3-6", data[3:7]), ("bytes=-5", data[-5:]), ("bytes=2499990-", data[2499990:])):
        got = await cloud.ask("GET", file, token, headers={"Range": text})
        assert (got.status, got.raw) == (206, part)
    for text in ("bytes=9999999-", "lines=1-2", "bytes=-"):
        refused(await cloud.ask("GET", file, token, headers={"Range": text}), 416)
    assert (cloud.image_folder / image["id"]).read_bytes() == data
    assert (await cloud.ask("DELETE", f"{V2}/images/{image['id']}", token)).status == 204
    assert not (cloud.image_folder / image["id"]).exists()
    refused(await cloud.ask("GET", f"{V2}/images/{image['id']}", token), 404)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"name": 1}, 400, "name"),
        ({"name": "x" * 256}, 400, "name"),
        ({"visibility": "public"}, 403, "public"),
        ({"visibility": "shared"}, 400, "no members"),
        ({"visibility": "x"}, 400, "visibility"),
        ({"container_format": "tin"}, 400, "container_format"),
        ({"disk_format": "floppy"}, 400, "disk_format"),
        ({"min_disk": -1}, 400, "min_disk"),
        ({"min_ram": True}, 400, "min_ram"),
        ({"protected": "yes"}, 400, "protected"),
        ({"tags": "a"}, 400, "tags"),
        ({"tags": [""]}, 400, "tags"),
        ({"id": "1"}, 400, "id"),
        ({"owner": "another"}, 403, "owned by somebody else"),
        ({"status": "active"}, 403, "read-only"),
        ({"locations": []}, 403, "reserved"),
        ({"os_thing": 5}, 400, "os_thing"),
        ([], 400, "object"),
    ],
)
async def test_creates_that_are_refused(cloud: Cloud, body: Any, status: int, words: str) -> None:
    token = cloud.project()
    refused(await cloud.ask("POST", f"{V2}/images", token, body=body), status, words)
    assert await names(cloud, token) == []


async def test_bodies_that_are_none(cloud: Cloud) -> None:
    token = cloud.project()
    refused(await cloud.ask("POST", f"{V2}/images", token, data=b"{"), 400, "malformed")
    refused(await cloud.ask("POST", f"{V2}/images", token, data=b"[" * 100_000), 400, "malformed")
    refused(await cloud.ask("POST", f"{V2}/images", token, data=b" " * 1_100_000), 400, "larger")
    image = await made(cloud, token, container_format=None)
    file = f"{V2}/images/{image['id']}/file"
    refused(await cloud.ask("PUT", file, token, data=b"x", headers=BYTES), 400, "container_format")
    refused(await cloud.ask("PUT", file, token, data=b"x", headers={"Content-Type": "text/plain"}), 415)
    refused(await cloud.ask("PATCH", f"{V2}/images/{image['id']}", token, body=[]), 415)
    other = await cloud.ask("POST", f"{V2}/images", token, body={"id": image["id"]})
    refused(other, 409, "already exists")


async def test_changes(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = (await made(cloud, token, note="1"))["id"]
    changed = await patch(
        cloud, token, uuid,
        replace("/name", "new"), replace("/min_disk", 3), replace("/protected", True), replace("/tags", ["x"]),
        {"op": "add", "path": "/tags/-", "value": "y"}, {"op": "add", "path": "/a~1b", "value": "c"},
        {"op": "remove", "path": "/note"}, replace("/container_format", "bare"),
    )  # fmt: skip
    assert changed.status == 200, changed
    body = changed.body
    assert (body["name"], body["min_disk"], body["protected"], body["tags"]) == ("new", 3, True, ["x", "y"])
    assert (body["a/b"], body["container_format"]) == ("c", "bare")
    assert "note" not in body
    assert body == await shown(cloud, token, uuid)
    refused(await cloud.ask("DELETE", f"{V2}/images/{uuid}", token), 403, "protected")
    for operation, status, words in (
        (replace("/status", "active"), 403, "read-only"),
        (replace("/id", "x"), 403, "reserved"),
        (replace("/visibility", "public"), 403, "administrators"),
        (replace("/owner", "p"), 403, "owner"),
        (replace("/nothing", "x"), 409, "does not exist"),
        ({"op": "remove", "path": "/nothing"}, 409, "does not exist"),
        ({"op": "remove", "path": "/visibility"}, 403, "removed"),
        ({"op": "move", "path": "/name"}, 400, "operation"),
        ({"op": "replace", "path": "/name"}, 400, "value"),
        ({"op": "replace", "path": "name", "value": "x"}, 400, "path"),
        ({"op": "replace", "path": "/name/0", "value": "x"}, 400, "deep"),
        (replace("/tags/7", "x"), 409, "number 7"),
    ):
        refused(await patch(cloud, token, uuid, replace("/name", "half"), operation), status, words)
    assert (await shown(cloud, token, uuid))["name"] == "new"
    for method, tag, status in (("PUT", "z", 204), ("DELETE", "x", 204), ("DELETE", "x", 404)):
        assert (await cloud.ask(method, f"{V2}/images/{uuid}/tags/{tag}", token)).status == status
    assert (await shown(cloud, token, uuid))["tags"] == ["y", "z"]
    active = await filled(cloud, token)
    refused(await patch(cloud, token, active["id"], replace("/disk_format", "iso")), 403, "queued")


async def test_lists(cloud: Cloud) -> None:
    token = cloud.project()
    for number, name in enumerate(("a", "b", "c", "d")):
        cloud.now += 1_000_000
        await made(cloud, token, name=name, tags=["odd" if number % 2 else "even"], container_format="bare")
    await filled(cloud, token, name="full", os_hidden=False)
    await made(cloud, token, name="unseen", os_hidden=True)
    assert await names(cloud, token, "?name=b") == ["b"]
    assert sorted(await names(cloud, token, "?name=in:a,%22b%22")) == ["a", "b"]
    assert await names(cloud, token, "?tag=odd&sort=name:asc") == ["b", "d"]
    assert await names(cloud, token, "?status=active") == ["full"]
    assert await names(cloud, token, "?container_format=docker") == ["full"]
    assert await names(cloud, token, "?visibility=public") == []
    assert await names(cloud, token, "?os_hidden=true") == ["unseen"]
    assert await names(cloud, token, f"?owner={token.split(':')[1]}&sort_key=name&sort_dir=desc&limit=2") == [
        "full",
        "d",
    ]
    assert await names(cloud, token, "?owner=other") == []
    assert await names(cloud, token, "?size_min=1") == ["full"]
    assert await names(cloud, token, "?created_at=gt:2099-01-01T00:00:00Z") == []
    assert len(await names(cloud, token, "?created_at=lte:2099-01-01T00:00:00Z")) == 5
    seen, path = [], f"{V2}/images?limit=2&sort=name:asc"
    while path:
        got = (await cloud.ask("GET", path, token)).body
        seen += [image["name"] for image in got["images"]]
        assert got["first"] == "/v2/images?limit=2&sort=name:asc"
        path = f"/image{got['next']}" if "next" in got else ""
    assert seen == ["a", "b", "c", "d", "full"]
    for query, words in (
        ("limit=-1", "limit"), ("marker=x", "marker"), ("sort=size:up", "direction"), ("sort_key=color", "sort key"),
        ("visibility=x", "visibility"), ("size_min=x", "size_min"), ("created_at=x", "created_at"),
        ("protected=x", "protected"), ("sort=name&sort_dir=asc", "combined"),
    ):  # fmt: skip
        refused(await cloud.ask("GET", f"{V2}/images?{query}", token), 400, words)


async def test_walls(cloud: Cloud) -> None:
    mine, other = cloud.project(), cloud.project()
    image = await filled(cloud, mine, name="secret")
    path = f"{V2}/images/{image['id']}"
    assert "secret" not in await names(cloud, other)
    for method, rest in (("GET", ""), ("GET", "/file"), ("DELETE", ""), ("GET", "/members"), ("PUT", "/tags/x")):
        refused(await cloud.ask(method, path + rest, other), 404)
    refused(await cloud.ask("PUT", f"{path}/file", other, data=b"x", headers=BYTES), 404)
    refused(await patch(cloud, other, image["id"], replace("/name", "x")), 404)
    assert (await cloud.ask("GET", path, ADMIN)).status == 200
    # Known to those who know its id.
    assert (await patch(cloud, mine, image["id"], replace("/visibility", "community"))).status == 200
    assert "secret" not in await names(cloud, other)
    assert "secret" in await names(cloud, other, "?visibility=community")
    assert (await cloud.ask("GET", f"{path}/file", other)).raw == b"some layers"
    # For all.
    assert (await patch(cloud, ADMIN, image["id"], replace("/visibility", "public"))).status == 200
    assert "secret" in await names(cloud, other)
    refused(await cloud.ask("DELETE", path, other), 403, "another project")
    refused(await cloud.ask("PUT", f"{path}/file", other, data=b"x", headers=BYTES), 403)
    refused(await cloud.ask("GET", f"{path}/members", mine), 403)
    reader = f"rita:{mine.split(':')[1]}:reader"
    refused(await cloud.ask("DELETE", path, reader), 403, "reader")
    refused(await cloud.ask("POST", f"{V2}/images", reader, body={}), 403, "reader")
    assert (await cloud.ask("DELETE", path, mine)).status == 204


async def test_names_are_found_in_the_own_project_first(cloud: Cloud) -> None:
    mine, other = cloud.project(), cloud.project()
    reader = ImageReader(mine.split(":")[1])
    with pytest.raises(NotFoundError):
        await cloud.images.find("web", reader)
    await filled(cloud, other, name="web")
    await made(cloud, mine, name="web")
    with pytest.raises(NotFoundError):
        await cloud.images.find("web", reader)
    public = await filled(cloud, ADMIN, name="web", visibility="public")
    assert (await cloud.images.find("web", reader)).uuid == public["id"]
    own = await filled(cloud, mine, name="web")
    assert (await cloud.images.find("web", reader)).uuid == own["id"]
    assert (await cloud.images.find(public["id"], reader)).uuid == public["id"]
    await filled(cloud, mine, name="web")
    with pytest.raises(ConflictError):
        await cloud.images.find("web", reader)
    await cloud.ask("DELETE", f"{V2}/images/{public['id']}", ADMIN)


async def pieces(*given: bytes | Exception) -> AsyncIterator[bytes]:
    for piece in given:
        if isinstance(piece, Exception):
            raise piece
        yield piece


def leftovers(cloud: Cloud, uuid: str) -> list[Path]:
    return list(cloud.image_folder.glob(f"{uuid}*"))


async def test_a_broken_upload_leaves_nothing(cloud: Cloud) -> None:
    token = cloud.project()
    image = await made(cloud, token)
    with pytest.raises(InvalidError, match="gone"):
        await cloud.images.upload(image["id"], pieces(b"x" * 3_000_000, InvalidError("gone")))
    assert (await shown(cloud, token, image["id"]))["status"] == "queued"
    assert leftovers(cloud, image["id"]) == []
    # Over a real connection, that ends in the middle.
    _reader, writer = await asyncio.open_connection("127.0.0.1", int(cloud.url.rsplit(":", 1)[1]))
    head = f"PUT {V2}/images/{image['id']}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\n"
    writer.write(f"{head}Content-Type: application/octet-stream\r\nContent-Length: 1000\r\n\r\nhalf".encode())
    await writer.drain()
    while (await shown(cloud, token, image["id"]))["status"] != "saving":
        await asyncio.sleep(0.01)
    assert leftovers(cloud, image["id"]) != []
    assert await cloud.images.collect() == []
    writer.close()
    await writer.wait_closed()
    while (await shown(cloud, token, image["id"]))["status"] != "queued":
        await asyncio.sleep(0.01)
    assert leftovers(cloud, image["id"]) == []
    # And it can be sent again.
    put = await cloud.ask("PUT", f"{V2}/images/{image['id']}/file", token, data=b"whole", headers=BYTES)
    assert put.status == 204
    assert (await cloud.ask("GET", f"{V2}/images/{image['id']}/file", token)).raw == b"whole"


async def test_deleted_while_it_is_sent(cloud: Cloud) -> None:
    token = cloud.project()
    image = await made(cloud, token)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"
        assert (await cloud.ask("DELETE", f"{V2}/images/{image['id']}", token)).status == 204
        yield b"y"

    with pytest.raises(NotFoundError):
        await cloud.images.upload(image["id"], chunks())
    assert leftovers(cloud, image["id"]) == []


async def test_a_full_disk(cloud: Cloud) -> None:
    token = cloud.project()
    image = await made(cloud, token)
    full = SqlImages(cloud.database, ImageFolder(cloud.image_folder, keep_free=1 << 60))
    with pytest.raises(StorageFullError, match="full"):
        await full.upload(image["id"], pieces(b"x"))
    assert leftovers(cloud, image["id"]) == []
    assert (await shown(cloud, token, image["id"]))["status"] == "queued"


async def test_what_a_crash_left(cloud: Cloud) -> None:
    token = cloud.project()
    kept = await filled(cloud, token)
    broken, commit, waiting = await made(cloud, token), "c0000000-0000-4000-8000-000000000001", await made(cloud, token)
    await cloud.images.create(StoredImage(commit, token.split(":")[1], "ann", committed=True))
    await cloud.images.change(broken["id"], EVERYBODY, lambda i: replaced(i, status="saving"))
    for name in (broken["id"], "stranger", f"{broken['id']}.0a.part"):
        (cloud.image_folder / name).write_bytes(b"x")
    await cloud.images.recover()
    assert (await shown(cloud, token, broken["id"]))["status"] == "queued"
    assert (await shown(cloud, token, waiting["id"]))["status"] == "queued"
    killed = await shown(cloud, token, commit)
    assert (killed["status"], killed["failure"]) == ("killed", "The server ended while it was made.")
    removed = await cloud.images.collect()
    assert sorted(removed) == sorted([broken["id"], "stranger", f"{broken['id']}.0a.part"])
    assert (await cloud.ask("GET", f"{V2}/images/{kept['id']}/file", token)).raw == b"some layers"


def replaced(image: StoredImage, **values: Any) -> StoredImage:
    return msgspec.structs.replace(image, **values)
