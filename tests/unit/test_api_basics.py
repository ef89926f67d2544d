"""What holds for every request: discovery, paths, versions, headers, errors, tokens, verbs."""

from __future__ import annotations

import gzip
import re
import uuid as uuids
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from askos.api.core import Dispatcher, Request, Route, json_response
from askos.api.microversion import Version
from askos.api.rights import Rights
from askos.model.errors import (
    AskosError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    RuntimeFailedError,
    UnavailableError,
)

from .cloud import Cloud
from .fakes import FakeIdentity

pytestmark = pytest.mark.asyncio(loop_scope="module")

VERSION_HEADERS = {
    "OpenStack-API-Minimum-Version": "container 1.1",
    "OpenStack-API-Maximum-Version": "container 1.40",
    "vary": "OpenStack-API-Version",
}
REQUEST_ID = re.compile(r"req-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


# -- discovery --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/"])
async def test_the_root_needs_no_token_and_ignores_versions(cloud: Cloud, path: str) -> None:
    for version in (None, "1.40", "nonsense", "9.9"):
        got = await cloud.ask("GET", path, None, version=version)
        assert got.status == 200
        entry = {
            "id": "v1",
            "links": [{"href": f"{cloud.url}/v1/", "rel": "self"}],
            "status": "CURRENT",
            "max_version": "1.40",
            "min_version": "1.1",
        }
        assert got.body["name"] == "OpenStack Zun API"
        assert got.body["versions"] == [entry]
        assert got.body["default_version"] == entry
        assert "OpenStack-API-Version" not in got.headers


@pytest.mark.parametrize("path", ["/v1", "/v1/", "//v1//"])
async def test_v1_says_what_there_is(cloud: Cloud, path: str) -> None:
    got = await cloud.ask("GET", path, None)
    assert got.status == 200
    assert got.body["id"] == "v1"
    assert got.body["media_types"] == [{"base": "application/json", "type": "application/vnd.openstack.zun.v1+json"}]
    assert got.body["links"][0] == {"href": f"{cloud.url}/v1/", "rel": "self"}
    assert [link["rel"] for link in got.body["links"]] == ["self", "describedby"]
    assert got.body["containers"] == [
        {"href": f"{cloud.url}/v1/containers/", "rel": "self"},
        {"href": f"{cloud.url}/containers/", "rel": "bookmark"},
    ]
    assert got.headers["OpenStack-API-Version"] == "container 1.40"
    assert (await cloud.session.get(got.body["links"][1]["href"])).status == 200


async def test_links_follow_the_host_header(cloud: Cloud) -> None:
    got = await cloud.ask("GET", "/", None, headers={"Host": "cloud.example.org:8443"})
    assert got.body["versions"][0]["links"][0]["href"] == "http://cloud.example.org:8443/v1/"


async def test_health(cloud: Cloud) -> None:
    assert (await cloud.ask("GET", "/healthcheck", None)).status == 200
    cloud.healthy = False
    try:
        got = await cloud.ask("GET", "/healthcheck", None)
        got.refused(503, "unavailable", "The database does not answer.")
    finally:
        cloud.healthy = True


# -- paths ------------------------------------------------------------------------------------------------------------


async def test_paths_are_taken_as_zuns_clients_write_them(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.create(token, name="web")
    for path in (
        "/v1/containers", "/v1/containers/", "/v1/containers//", "/containers", "/containers/", "//v1///containers",
        "/v1/containers.json", "/containers.json",
    ):  # fmt: skip
        got = await cloud.ask("GET", path, token)
        assert (got.status, [c["uuid"] for c in got.body["containers"]]) == (200, [uuid]), path
    for path in (
        f"/v1/containers/{uuid}", f"/v1/containers/{uuid}/", f"/v1/containers//{uuid}", f"/containers/{uuid}",
        f"/containers//{uuid}/", "/v1/containers/web", "/v1/containers/w%65b", f"/v1/containers/{uuid}?all_projects=0",
        f"/v1/containers/{uuid}?unknown=key",
    ):  # fmt: skip
        got = await cloud.ask("GET", path, token)
        assert (got.status, got.body.get("uuid")) == (200, uuid), path
    for path in (f"/v1/containers//{uuid}/start", f"/containers/{uuid}//start/"):
        got = await cloud.ask("POST", path, token)
        got.refused(409, "invalid-state-exception")  # it got there


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/nothing", 404),
        ("GET", "/v2/containers", 404),
        ("GET", "/v1/containers/x/y/z", 404),
        ("GET", "/askos/v1/nothing", 404),
        ("GET", "/v1/healthcheck", 404),
        # A known action with the wrong verb, and an unknown action.
        ("GET", "/v1/containers/x/start", 404),
        ("DELETE", "/v1/containers/x/start", 404),
        ("POST", "/v1/containers/x/logs", 404),
        ("POST", "/v1/containers/x/dance", 404),
        ("PUT", "/v1/containers", 405),
        ("DELETE", "/v1/containers", 405),
        ("HEAD", "/v1/containers", 405),
        ("POST", "/v1/containers/x", 405),
        ("PUT", "/v1/containers/x", 405),
        ("HEAD", "/v1/containers/x", 405),
        ("POST", "/", 405),
        ("PUT", "/v1", 405),
        ("PUT", "/askos/v1/images", 405),
        ("TRACE", "/v1/containers", 405),
    ],
)
async def test_what_there_is_not(cloud: Cloud, method: str, path: str, status: int) -> None:
    got = await cloud.ask(method, path)
    assert got.status == status
    assert ("Allow" in got.headers) == (status == 405)
    if method != "HEAD":
        got.refused(status, "", "Not Found" if status == 404 else "Method Not Allowed")


async def test_allow_names_the_verbs(cloud: Cloud) -> None:
    assert (await cloud.ask("PUT", "/v1/containers")).headers["Allow"] == "GET, POST"
    assert (await cloud.ask("PUT", "/v1/containers/x")).headers["Allow"] == "DELETE, GET, PATCH"


async def test_options(cloud: Cloud) -> None:
    got = await cloud.ask("OPTIONS", "/v1/containers", None)
    assert (got.status, got.raw) == (200, b"")
    assert not any(name.lower().startswith("access-control") for name in got.headers)
    assert (await cloud.ask("OPTIONS", "/v1/nothing")).status == 404


async def test_without_a_token_nobody_learns_which_paths_exist(cloud: Cloud) -> None:
    answers = [
        await cloud.ask(method, path, None)
        for method, path in (
            ("GET", "/v1/containers"), ("GET", "/v1/nothing"), ("PUT", "/v1/containers"), ("GET", "/askos/v1/images"),
            ("POST", "/v1/containers"), ("DELETE", f"/v1/containers/{uuids.uuid4()}"),
        )
    ]  # fmt: skip
    assert {a.status for a in answers} == {401}
    assert len({a.raw for a in answers}) == 1


# -- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "wrong", "a:b:member:c", "ann:p:owner"])
async def test_401_has_the_form_of_keystones_middleware(cloud: Cloud, token: str | None) -> None:
    got = await cloud.ask("GET", "/v1/containers", token)
    assert got.status == 401
    assert got.body == {
        "error": {
            "code": 401,
            "title": "Unauthorized",
            "message": "The request you have made requires authentication.",
        }
    }
    assert got.headers["WWW-Authenticate"] == f'Keystone uri="{cloud.url}/identity/v3"'
    assert REQUEST_ID.fullmatch(got.headers["X-Openstack-Request-Id"])


async def test_an_identity_service_that_is_away_is_not_the_callers_fault(cloud: Cloud) -> None:
    cloud.identity.down = True
    try:
        got = await cloud.ask("GET", "/v1/containers")
    finally:
        cloud.identity.down = False
    got.refused(503, "unavailable")


# -- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "used"),
    [
        (None, "1.1"),
        ("container 1.1", "1.1"),
        ("container 1.20", "1.20"),
        ("container 1.40", "1.40"),
        ("container latest", "1.40"),
        ("compute 2.1, container 1.20", "1.20"),
    ],
)
async def test_a_version_is_negotiated_and_echoed(cloud: Cloud, header: str | None, used: str) -> None:
    headers = {} if header is None else {"OpenStack-API-Version": header}
    for path in ("/v1/containers", "/v1", "/containers"):
        got = await cloud.ask("GET", path, version=None, headers=headers)
        assert got.status == 200
        assert got.headers["OpenStack-API-Version"] == f"container {used}"
        assert got.headers.items() >= VERSION_HEADERS.items()


@pytest.mark.parametrize(
    "header",
    [
        "", " ", "1.20", "latest", "compute 1.2", "Container 1.20", "container", "container ", "container abc",
        "container 1", "container 1.", "container .1", "container 1.x", "container x.1", "container 1.1.1",
        "container 1,1", "container -1.1", "container +1.1", "container 1. 1", "container LATEST", "containers 1.1",
        "compute 2.1, volume 3.1", "container 1.\u0661", "container 1.\u00b2",
    ],
)  # fmt: skip
async def test_a_version_that_is_none_is_406(cloud: Cloud, header: str) -> None:
    got = await cloud.ask("GET", "/v1/containers", version=None, headers={"OpenStack-API-Version": header})
    error = got.refused(406, "", "Not Acceptable")
    assert "OpenStack-API-Version" in error["detail"]
    assert "with a version from 1.1 to 1.40" in error["title"]


@pytest.mark.parametrize(
    "text", ["1.0", "1.41", "0.1", "2.1", "2.0", "1.999", "99999999999999999999.1", "1.4000000000"]
)
async def test_a_version_out_of_range_is_406_and_says_the_range(cloud: Cloud, text: str) -> None:
    got = await cloud.ask("GET", "/v1/containers", version=text)
    assert got.status == 406
    error = got.error
    assert error["code"] == "zun.microversion-unsupported"
    assert (error["min_version"], error["max_version"]) == ("1.1", "1.40")
    assert text in error["title"]


async def test_an_endpoint_of_other_versions_is_406() -> None:
    async def handler(_request: Request) -> web.Response:
        return json_response("here")

    routes = [
        Route("POST", "/v1/old", handler, "", until=Version(1, 13)),
        Route("POST", "/v1/new", handler, "", since=Version(1, 8)),
    ]
    async with _client(routes) as client:
        for path, version, status in (
            ("/v1/old", "1.13", 200), ("/v1/old", "1.14", 406), ("/v1/new", "1.7", 406), ("/v1/new", "1.8", 200),
        ):  # fmt: skip
            headers = {"X-Auth-Token": "a:b:member", "OpenStack-API-Version": f"container {version}"}
            got = await client.post(path, headers=headers)
            assert got.status == status, (path, version)
            assert got.headers["OpenStack-API-Version"] == f"container {version}"
            if status == 406:
                served = "at versions 1.1 to 1.13" if path == "/v1/old" else "at versions 1.8 to 1.40"
                assert (await got.json())["errors"][0]["title"].startswith(
                    f"Not Acceptable: POST {path} is served {served}, and {version} was asked for."
                )
                assert (await got.json())["errors"][0]["detail"] == (
                    f"Version {version} was requested but the requested API is not supported for this version."
                )


def _client(routes: list[Route]) -> TestClient[Any, Any]:
    app = web.Application()
    identity = FakeIdentity()
    dispatcher = Dispatcher(routes, identity, "/identity/v3", Rights(identity))
    app.router.add_route("*", "/{path:.*}", dispatcher.__call__)
    return TestClient(TestServer(app))


# -- headers and bodies of every answer -------------------------------------------------------------------------------


async def test_every_answer_echoes_the_version_and_has_a_request_id(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Stopped")
    seen = set()
    for method, path, status in (
        ("GET", "/v1/containers", 200),
        ("GET", "/v1/containers?limit=0", 400),
        ("GET", "/v1/containers?host=x", 403),
        ("GET", "/v1/containers/none", 404),
        ("POST", f"/v1/containers/{uuid}/stop", 409),
        ("POST", f"/v1/containers/{uuid}/start", 202),
        ("DELETE", f"/v1/containers/{uuid}?stop=True", 204),
    ):
        got = await cloud.ask(method, path, token, version="1.23", headers={"X-Openstack-Request-Id": "req-mine"})
        assert got.status == status, (path, got)
        assert got.headers["OpenStack-API-Version"] == "container 1.23", path
        assert got.headers.items() >= VERSION_HEADERS.items()
        assert REQUEST_ID.fullmatch(got.headers["X-Openstack-Request-Id"])
        seen.add(got.headers["X-Openstack-Request-Id"])
        if status == 202:
            assert got.raw == b"null"
            assert got.headers["Content-Type"].startswith("application/json")
        if status == 204:
            assert got.raw == b""
        if status >= 400:
            assert got.error["detail"] == got.error["title"]
    assert len(seen) == 7


@pytest.mark.parametrize("accept", ["text/html", "text/plain", "image/png"])
async def test_only_json_is_spoken(cloud: Cloud, accept: str) -> None:
    got = await cloud.ask("GET", "/v1/containers", headers={"Accept": accept})
    got.refused(406, "", f"Not Acceptable: an answer in {accept!r} was asked for. Send the header Accept: application")


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/*", "text/html, */*;q=0.1", ""])
async def test_whoever_takes_json_is_served(cloud: Cloud, accept: str) -> None:
    assert (await cloud.ask("GET", "/v1/containers", headers={"Accept": accept})).status == 200


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidError("bad"), 400, "container.invalid"),
        (InvalidError("bad", "image-name"), 400, "container.image-name"),
        (ForbiddenError("no"), 403, "container.policy-not-authorized"),
        (NotFoundError("gone", "container-not-found"), 404, "container.container-not-found"),
        (ConflictError("not now"), 409, "container.conflict"),
        (RuntimeFailedError("it broke"), 409, "container.conflict"),
        (UnavailableError("away"), 503, "container.unavailable"),
        (AskosError("odd"), 500, "container."),
        (ValueError("secret inside"), 500, "container."),
    ],
)
async def test_errors_become_answers(error: Exception, status: int, code: str) -> None:
    async def handler(_request: Request) -> web.Response:
        raise error

    async with _client([Route("GET", "/v1/boom", handler, "", public=True)]) as client:
        got = await client.get("/v1/boom")
        body = (await got.json())["errors"][0]
    assert (got.status, body["status"], body["code"]) == (status, status, code)
    if status == 500:
        assert body["title"] == "Internal Server Error"
        assert "secret" not in await got.text()
        assert "Traceback" not in await got.text()
    else:
        assert body["title"] == body["detail"] == str(error)


async def test_a_crash_is_told_with_the_id_under_which_the_log_has_it(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(_request: Request) -> web.Response:
        raise KeyError("the inside")

    async with _client([Route("GET", "/v1/boom", handler, "", public=True)]) as client:
        got = await client.get("/v1/boom")
        error = (await got.json())["errors"][0]
    request_id = got.headers["X-Openstack-Request-Id"]
    assert request_id in error["detail"]
    assert any(request_id in r.getMessage() and r.exc_info for r in caplog.records)


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream"]
)
async def test_a_body_must_say_that_it_is_json(cloud: Cloud, content_type: str) -> None:
    got = await cloud.ask(
        "POST", "/v1/containers", data=b'{"image": "busybox"}', headers={"Content-Type": content_type}
    )
    got.refused(415, "", "Cannot read a body of content type")


async def test_a_content_type_may_have_parameters(cloud: Cloud) -> None:
    headers = {"Content-Type": "application/json; charset=UTF-8"}
    got = await cloud.ask("POST", "/v1/containers", cloud.project(), data=b'{"image": "busybox"}', headers=headers)
    assert got.status == 202


@pytest.mark.parametrize("data", [b"", b"  ", b"[]", b'"text"', b"null"])
async def test_what_is_no_object_counts_as_an_empty_one(cloud: Cloud, data: bytes) -> None:
    got = await cloud.ask("POST", "/v1/containers", data=data, headers={"Content-Type": "application/json"})
    got.refused(400, "schema-validation-error", "'image' is a required property")


@pytest.mark.parametrize(
    "data",
    [b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 20_000, b'{"image": "busybox"', b"nan", b"timeout=3"],
    ids=lambda data: repr(data[:12]),
)
@pytest.mark.parametrize("path", ["/v1/containers", "/v1/containers/x/stop"])
async def test_what_is_not_json_is_said_to_be_so(cloud: Cloud, path: str, data: bytes) -> None:
    got = await cloud.ask("POST", path, data=data, headers={"Content-Type": "application/json"})
    got.refused(400, "schema-validation-error", "Malformed request body: it is not JSON")


@pytest.mark.parametrize("path", ["/v1/containers", "/v1/containers/x/stop"])
async def test_a_body_that_is_too_large_is_413(cloud: Cloud, path: str) -> None:
    headers = {"Content-Type": "application/json"}
    data = b'{"image": "busybox", "x": "' + b"a" * (1 << 20) + b'"}'
    got = await cloud.ask("POST", path, data=data, headers=headers)
    got.refused(413, "", "Cannot take this request")


async def test_a_body_of_unknown_length_has_the_same_limit(cloud: Cloud) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    headers = {"Content-Type": "application/json", "X-Auth-Token": "ann:shared:member"}
    async with cloud.session.post(f"{cloud.url}/v1/containers", data=pieces(), headers=headers) as got:
        assert got.status == 413


async def test_what_unpacks_to_too_much_is_413(cloud: Cloud) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    got = await cloud.ask("POST", "/v1/containers", data=gzip.compress(b" " * (20 << 20)), headers=headers)
    got.refused(413, "", "Cannot take this request")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_cannot_be_unpacked_is_the_callers_fault(cloud: Cloud, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    got = await cloud.ask("POST", "/v1/containers", data=b"this is not compressed", headers=headers)
    assert 400 <= got.status < 500, got
