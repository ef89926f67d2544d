"""What is wrong is refused with the 4xx of Zun's reference, in one JSON error, and leaves nothing half-made."""

from __future__ import annotations

import itertools
import json
import socket
from typing import Any

import pytest
from tests.acceptance.cloud_fixtures import LIVES, Answer, Cloud, eventually

SCHEMA = "container.schema-validation-error"
VALUE = "container.invalid-value"
VERSION = "container.invalid-param-in-version"
POLICY = "container.policy-not-authorized"
STATE = "container.invalid-state-exception"
NOT_FOUND = "container.container-not-found"
FRAMEWORK = "container."


def refused(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """The error of an answer that must be this one, in the form that clients read."""
    assert answer.status == status, answer
    error = answer.error
    assert error["code"] == code, error
    assert error["title"]
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-openstack-request-id"].startswith("req-")
    assert "Traceback" not in answer.body.decode()
    return error


def nothing_was_made(cloud: Cloud) -> None:
    assert cloud.containers() == []


# -- create --------------------------------------------------------------------------------------------------------

B = {"image": "busybox"}
HUGE = 10**300
BODIES: list[tuple[str, Any, int, str]] = [
    ("no image", {}, 400, SCHEMA),
    ("unknown field", B | {"bogus": 1}, 400, SCHEMA),
    ("name of 300", B | {"name": "n" * 300}, 400, SCHEMA),
    ("name begins with a dash", B | {"name": "-rf"}, 400, SCHEMA),
    ("name with a space", B | {"name": "a b"}, 400, SCHEMA),
    ("name with NUL", B | {"name": "a\0b"}, 400, SCHEMA),
    ("name with a newline at its end", B | {"name": "ab\n"}, 400, SCHEMA),
    ("name is a number", B | {"name": 5}, 400, SCHEMA),
    ("memory of lots", B | {"memory": "lots"}, 400, SCHEMA),
    ("memory too small", B | {"memory": 3}, 400, SCHEMA),
    ("memory too small, in words", B | {"memory": "3"}, 400, SCHEMA),
    ("memory negative", B | {"memory": -1}, 400, SCHEMA),
    ("memory huge", B | {"memory": HUGE}, 400, SCHEMA),
    ("memory huge, in words", B | {"memory": "9" * 4000}, 400, SCHEMA),
    ("memory is a list", B | {"memory": [64]}, 400, SCHEMA),
    ("cpu of many", B | {"cpu": "many"}, 400, SCHEMA),
    ("no cpu", B | {"cpu": 0}, 400, SCHEMA),
    ("cpu huge", B | {"cpu": HUGE}, 400, SCHEMA),
    ("cpu infinite", b'{"image":"busybox","cpu":1e999}', 400, SCHEMA),
    ("cpu dot", B | {"cpu": "."}, 400, SCHEMA),
    ("image too short", {"image": "x"}, 400, SCHEMA),
    ("image too long", {"image": "x" * 256}, 400, SCHEMA),
    ("image in capitals", {"image": "BusyBox"}, 400, SCHEMA),
    ("image with NUL", {"image": "busy\0box"}, 400, SCHEMA),
    ("image is a path", {"image": "../../etc/passwd"}, 400, SCHEMA),
    ("image is a number", {"image": 5}, 400, SCHEMA),
    ("command is text", B | {"command": "ls"}, 400, SCHEMA),
    ("command of numbers", B | {"command": [1]}, 400, SCHEMA),
    ("command with NUL", B | {"command": ["a\0b"]}, 400, SCHEMA),
    ("environment of numbers", B | {"environment": {"A": 1}}, 400, SCHEMA),
    ("environment with = in a name", B | {"environment": {"A=B": "c"}}, 400, SCHEMA),
    ("environment with NUL", B | {"environment": {"A": "\0"}}, 400, SCHEMA),
    ("environment without a name", B | {"environment": {"": "c"}}, 400, SCHEMA),
    ("workdir with NUL", B | {"workdir": "/\0"}, 400, SCHEMA),
    ("hostname with a space", B | {"hostname": "a b"}, 400, SCHEMA),
    ("hostname of 64", B | {"hostname": "h" * 64}, 400, SCHEMA),
    ("labels are a list", B | {"labels": ["a"]}, 400, SCHEMA),
    ("tty of maybe", B | {"tty": "maybe"}, 400, SCHEMA),
    ("restart policy unknown", B | {"restart_policy": {"Name": "sometimes"}}, 400, SCHEMA),
    ("restart policy without name", B | {"restart_policy": {"MaximumRetryCount": 1}}, 400, SCHEMA),
    ("retries huge", B | {"restart_policy": {"Name": "on-failure", "MaximumRetryCount": HUGE}}, 400, SCHEMA),
    ("retries of always", B | {"restart_policy": {"Name": "always", "MaximumRetryCount": 3}}, 400, VALUE),
    ("nets of two kinds", B | {"nets": [{"network": "a", "port": "b"}]}, 400, SCHEMA),
    ("privileged", B | {"privileged": True}, 403, POLICY),
    ("not privileged is a question, too", B | {"privileged": False}, 403, POLICY),
    ("invalid JSON", b'{"image": "busybox"', 400, SCHEMA),
    ("no JSON at all", b"\x00\xff\xfe", 400, SCHEMA),
    ("NaN", b'{"image": NaN}', 400, SCHEMA),
    ("half a character", b'{"image": "\xc3"}', 400, SCHEMA),
    ("half a surrogate", b'{"image": "busybox", "name": "\\ud800"}', 400, SCHEMA),
    ("a list", [B], 400, SCHEMA),
    ("a string", "busybox", 400, SCHEMA),
    ("null", b"null", 400, SCHEMA),
    ("100,000 brackets", b"[" * 100_000, 400, SCHEMA),
    ("deep in a field", b'{"image":"busybox","hints":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}", 400, SCHEMA),
]


@pytest.mark.parametrize(("body", "status", "code"), [b[1:] for b in BODIES], ids=[b[0] for b in BODIES])
def test_create_refuses(cloud: Cloud, body: Any, status: int, code: str) -> None:
    refused(cloud.api("POST", "/v1/containers?run=true", body), status, code)
    nothing_was_made(cloud)


OLDER: list[tuple[str, dict[str, Any], int, str]] = [
    ("1.2", {"auto_remove": True}, 400, VERSION),
    ("1.8", {"hostname": "h"}, 400, VERSION),
    ("1.19", {"command": ["ls"]}, 400, SCHEMA),
    ("1.19", {"command": "echo 'never ends"}, 400, SCHEMA),
    ("1.38", {"host": "h"}, 400, SCHEMA),
    ("1.39", {"entrypoint": ["sh"]}, 400, SCHEMA),
]


@pytest.mark.parametrize(("version", "fields", "status", "code"), OLDER)
def test_create_refuses_what_is_newer(
    cloud: Cloud, version: str, fields: dict[str, Any], status: int, code: str
) -> None:
    answer = cloud.api("POST", "/v1/containers", B | fields, version=version)
    refused(answer, status, code)
    assert answer.headers["openstack-api-version"] == f"container {version}"
    nothing_was_made(cloud)


def test_messages_name_the_field(cloud: Cloud) -> None:
    error = refused(cloud.api("POST", "/v1/containers", B | {"memory": "lots"}), 400, SCHEMA)
    assert error["title"].startswith("Invalid input for field 'memory'.Value: 'lots'.")
    error = refused(cloud.api("POST", "/v1/containers?run=perhaps", B), 400, SCHEMA)
    assert error["title"].startswith("Invalid input for query parameters 'run'. Value: 'perhaps'.")


def test_create_refuses_other_queries_and_types(cloud: Cloud) -> None:
    refused(cloud.api("POST", "/v1/containers?bogus=1", B), 400, SCHEMA)
    body = json.dumps(B).encode()
    assert cloud.api("POST", "/v1/containers", body, headers={"Content-Type": "text/plain"}).status == 415
    nothing_was_made(cloud)


def test_a_body_of_ten_mebibytes(cloud: Cloud) -> None:
    body = json.dumps(B | {"labels": {"big": "x" * (10 << 20)}}).encode()
    for path in ("/v1/containers", "/identity/v3/auth/tokens"):
        try:
            answer = cloud.api("POST", path, body)
        except (BrokenPipeError, ConnectionResetError):
            continue  # It may stop reading, too.
        assert answer.status == 413, answer
    # Neither may it come in pieces whose number nobody told.
    with socket.create_connection(("127.0.0.1", cloud.port), 10) as line:
        head = f"POST /v1/containers HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {cloud.token()}\r\nTransfer-Encoding: chunked\r\n"
        line.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n")
        piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        try:
            for _ in range(10 << 4):
                line.sendall(piece)
            line.sendall(b"0\r\n\r\n")
            assert line.recv(64).startswith(b"HTTP/1.1 413")
        except (BrokenPipeError, ConnectionResetError):
            pass  # It may hang up, too.
    nothing_was_made(cloud)


def test_an_unknown_image_is_an_error_that_says_why(cloud: Cloud) -> None:
    uuid = cloud.create(image="127.0.0.1:1/no/such:thing")
    found = cloud.wait_for(uuid, "Error")
    assert "127.0.0.1:1" in found["status_reason"]
    assert cloud.api("DELETE", f"/v1/containers/{uuid}").status == 204
    eventually(lambda: cloud.api("GET", f"/v1/containers/{uuid}").status == 404, "it is gone")


NASTY: list[Any] = [
    None, True, 0, -1, 2**31, 2**63, 2**64, HUGE, 1.5, -0.0, "", "\0", "None", "é" * 40, "x" * 70_000, "\u202e", "%s%n", "{}",
    [], [None], ["\0"], [[]], [{}], {}, {"": ""}, {"a": None}, {"Name": None}, {"Name": "no", "x": 1}, {"network": 1},
]  # fmt: skip
FIELDS = [
    "image", "name", "command", "entrypoint", "cpu", "cpu_policy", "memory", "disk", "workdir", "environment", "labels",
    "image_pull_policy", "image_driver", "restart_policy", "interactive", "tty", "security_groups", "nets", "hints",
    "availability_zone", "auto_remove", "runtime", "hostname", "mounts", "privileged", "healthcheck", "exposed_ports",
    "auto_heal", "registry", "host",
]  # fmt: skip


def test_nothing_in_any_field_is_our_failure(cloud: Cloud) -> None:
    for field, value in itertools.product(FIELDS, NASTY):
        # An image that nobody has: what is accepted ends quickly.
        body = {"image": "127.0.0.1:1/no/such", field: value}
        answer = cloud.api("POST", "/v1/containers", body)
        assert answer.status in (202, 400, 403, 404), (field, str(value)[:80], answer)
        if answer.status == 202:
            path = f"/v1/containers/{answer.json()['uuid']}"
            assert cloud.api("GET", path).status == 200, (field, value)
            assert cloud.api("DELETE", f"{path}?force=true").status == 204
    eventually(lambda: not cloud.containers(), "all that was accepted can be deleted", 60)


# -- versions, tokens, paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.0", "1.41", "2.1", "0.1", f"1.{10**40}", f"{10**40}.1"])
def test_a_version_out_of_range(cloud: Cloud, version: str) -> None:
    answer = cloud.api("GET", "/v1/containers", version=version)
    error = refused(answer, 406, "zun.microversion-unsupported")
    assert (error["min_version"], error["max_version"]) == ("1.1", "1.40")


@pytest.mark.parametrize(
    "header", ["container abc", "container", "", "1.20", "compute 1.2", "container 1.2.3", "container -1.2"]
)
def test_a_version_that_is_none(cloud: Cloud, header: str) -> None:
    answer = cloud.api("GET", "/v1/containers", headers={"OpenStack-API-Version": header})
    assert refused(answer, 406, FRAMEWORK)["title"].startswith("Not Acceptable: the header")


@pytest.mark.parametrize(
    "token", ["wrong", "x" * 4000, "askos_" + "A" * 43, "\xff\xfe", "' OR 1=1 --", "../../etc/passwd"]
)
def test_a_wrong_token(cloud: Cloud, token: str) -> None:
    for path in ("/v1/containers", "/v1/containers/x", "/v1/no/such/path", "/askos/v1/images"):
        answer = cloud.http("GET", path, headers={"X-Auth-Token": token})
        assert answer.status == 401, answer
        assert answer.json()["error"]["code"] == 401
        assert answer.headers["www-authenticate"].startswith("Keystone uri=")


def test_no_token(cloud: Cloud) -> None:
    for method, path in (("GET", "/v1/containers"), ("POST", "/v1/containers"), ("DELETE", "/v1/containers/x")):
        assert cloud.http(method, path).status == 401
    for path in ("/", "/v1", "/v1/", "/healthcheck", "/openapi.json"):
        assert cloud.http("GET", path).status == 200, path


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b'"x"', b'{"auth":null}', b'{"auth":{"identity":{"methods":[]}}}',
        b'{"auth":{"identity":{"methods":["carrier-pigeon"]}}}', b'{"auth":{"identity":{"methods":["password"]}}}',
        b'{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"admin"}}}}}',
        b'{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":1,"password":2}}}}}',
        b'{"auth":{"identity":{"methods":["password"],"password":{"user":{"id":"\\u0000","password":"\\u0000"}}}}}',
        b'{"auth":{"identity":{"methods":["token"],"token":{"id":5}}}}',
    ],
)  # fmt: skip
def test_log_ins_that_are_none(cloud: Cloud, body: bytes) -> None:
    answer = cloud.http("POST", "/identity/v3/auth/tokens", body, {"Content-Type": "application/json"})
    assert answer.status in (400, 401), answer
    assert answer.json()["error"]["code"] == answer.status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/bogus", 404),
        ("GET", "/v1/containers/x/bogus", 404),
        ("GET", "/v1/containers/x/start", 404),
        ("PUT", "/v1/containers", 405),
        ("DELETE", "/v1/containers", 405),
        ("PUT", "/v1/containers/x", 405),
    ],
)
def test_paths_and_verbs(cloud: Cloud, method: str, path: str, status: int) -> None:
    answer = cloud.api(method, path)
    refused(answer, status, FRAMEWORK)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    "ident", ["nobody", "%00", "a%00b", "x" * 3000, "%ff%fe", "%2e%2e%2f", "%F0%9F%8D%B7", "'%20OR%201=1"]
)
def test_a_container_that_is_not_there(cloud: Cloud, ident: str) -> None:
    for method, rest in (("GET", ""), ("DELETE", "?stop=true"), ("POST", "/start"), ("GET", "/logs")):
        refused(cloud.api(method, f"/v1/containers/{ident}{rest}"), 404, NOT_FOUND)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("limit=0", 400, VALUE),
        ("limit=-1", 400, VALUE),
        ("limit=many", 400, VALUE),
        ("limit=", 400, VALUE),
        ("sort_dir=sideways", 400, VALUE),
        ("sort_key=bogus", 400, "container.invalid-parameter-value"),
        ("sort_key=%00", 400, "container.invalid-parameter-value"),
        ("bogus=1&other=2", 400, VALUE),
        ("auto_remove=maybe", 400, VALUE),
        ("all_projects=maybe", 400, VALUE),
        ("marker=00000000-0000-4000-8000-000000000000", 404, NOT_FOUND),
        ("marker=%00", 404, NOT_FOUND),
    ],
)
def test_lists(cloud: Cloud, query: str, status: int, code: str) -> None:
    refused(cloud.api("GET", f"/v1/containers?{query}"), status, code)


@pytest.mark.parametrize(
    "query", [f"limit={10**40}", "name=%00", "name=%ff", "status=nonsense", "memory=lots", "&&&=&"]
)
def test_lists_that_are_only_odd(cloud: Cloud, query: str) -> None:
    answer = cloud.api("GET", f"/v1/containers?{query}")
    assert answer.status in (200, 400), answer
    if answer.status == 200:
        assert answer.json()["containers"] == []


# -- what is done to a container -----------------------------------------------------------------------------------


def test_actions_with_wrong_parameters(cloud: Cloud) -> None:
    uuid = cloud.running(name="box")
    wrong = [
        ("POST", "kill?signal=NOPE"),
        ("POST", "kill?signal=99"),
        ("POST", "kill?signal=-9"),
        ("POST", "kill?signal=0"),
        ("POST", "kill?signal=" + "9" * 30),
        ("POST", "kill?bogus=1"),
        ("POST", "stop?timeout=None"),
        ("POST", "stop?timeout=-1"),
        ("POST", "stop?timeout=1.5"),
        ("POST", "stop?timeout=" + "9" * 30),
        ("POST", "reboot?timeout=None"),
        ("POST", "start?bogus=1"),
        ("POST", "execute"),
        ("POST", "execute?command="),
        ("POST", "execute?command=%20"),
        ("POST", "execute?command=echo%20'never%20ends"),
        ("POST", "execute?command=echo%20%00"),
        ("POST", "execute?command=id&run=maybe"),
        ("GET", "logs?since=yesterday"),
        ("GET", "logs?since=2026-13-45%2025:61:61,000"),
        ("GET", "logs?stdout=maybe"),
        ("GET", "logs?bogus=1"),
        ("DELETE", "?force=maybe"),
        ("DELETE", "?bogus=1"),
    ]
    for method, rest in wrong:
        path = f"/v1/containers/{uuid}{rest if rest.startswith('?') else '/' + rest}"
        answer = cloud.api(method, path)
        assert answer.status == 400, (method, rest, answer)
        assert answer.error["title"], rest
    for body in ({"timeout": -1}, {"timeout": []}, {"timeout": 10**30}, b"{", b"[]", {"bogus": 1}):
        assert cloud.api("POST", f"/v1/containers/{uuid}/stop", body).status in (202, 400), body
        cloud.api("POST", f"/v1/containers/{uuid}/reboot", {"timeout": 0})
        cloud.wait_for(uuid, "Running")
    assert cloud.api("GET", f"/v1/containers/{uuid}/logs?since={'9' * 30}").status in (200, 400)
    for tail in ("lots", "-1", "9" * 30, ""):
        assert cloud.api("GET", f"/v1/containers/{uuid}/logs?tail={tail}").status == 200, tail


def test_the_native_api_with_wrong_parameters(cloud: Cloud) -> None:
    uuid = cloud.running(name="box")
    one = f"/askos/v1/containers/{uuid}"
    wrong = [
        ("GET", f"{one}/exec"),
        ("GET", f"{one}/exec?command=id"),
        ("GET", f"{one}/exec?command=id&width=wide"),
        ("GET", f"{one}/wait?timeout=long"),
        ("GET", f"{one}/wait?timeout=nan"),
        ("GET", f"{one}/logs?since=yesterday"),
        ("POST", "/askos/v1/images/pull"),
        ("DELETE", "/askos/v1/images"),
        ("DELETE", "/askos/v1/images?ref=%00"),
        ("DELETE", "/askos/v1/images?ref=no-such-image"),
        ("POST", "/askos/v1/images/import?ref=%00"),
        ("POST", "/askos/v1/images/import"),
    ]
    for method, path in wrong:
        answer = cloud.api(method, path, b"garbage" if method == "POST" else None)
        assert 400 <= answer.status < 500, (method, path, answer)
        assert answer.error["title"]
    for ref in (5, "", "\0", "UPPER", "x" * 10_000, None):
        answer = cloud.api("POST", "/askos/v1/images/pull", {"ref": ref})
        assert answer.status == 400, (ref, answer)


def test_actions_in_the_wrong_state(cloud: Cloud) -> None:
    created = cloud.api("POST", "/v1/containers", B | {"command": list(LIVES)}).json()["uuid"]
    running, stopped = cloud.create(LIVES), cloud.create(("true",))
    for uuid, status in ((created, "Created"), (running, "Running"), (stopped, "Stopped")):
        cloud.wait_for(uuid, status)
    wrong = [
        (created, ["POST stop", "POST kill", "POST execute?command=id"]),
        (running, ["POST start", "DELETE "]),
        (stopped, ["POST stop", "POST kill", "POST execute?command=id"]),
    ]
    for uuid, calls in wrong:
        before = cloud.show(uuid)
        for method, action in (call.split(" ") for call in calls):
            path = f"/v1/containers/{uuid}{'/' if action else ''}{action}"
            error = refused(cloud.api(method, path), 409, STATE)
            word = action.partition("?")[0] or "delete"
            assert error["title"] == f"Cannot {word} container {uuid} in {before['status']} state"
        now = cloud.show(uuid)
        assert [now[k] for k in ("status", "task_state")] == [before["status"], None]


def test_an_ambiguous_name(cloud: Cloud) -> None:
    for _ in range(2):
        assert cloud.api("POST", "/v1/containers", B | {"name": "twin"}).status == 202
    error = refused(cloud.api("GET", "/v1/containers/twin"), 409, "container.conflict")
    assert error["title"] == "Multiple containers exist with same name. Please use the container uuid instead."


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_even_http(cloud: Cloud, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", cloud.port), 10) as line:
        line.sendall(sent)
        line.shutdown(socket.SHUT_WR)
        try:
            answer = line.recv(65536)
        except ConnectionResetError:
            answer = b""
        assert not answer.startswith(b"HTTP/1.1 5") and b" 200 " not in answer.split(b"\r\n")[0], answer
    assert cloud.http("GET", "/healthcheck").status == 200


def test_none_of_this_was_our_failure(cloud: Cloud) -> None:
    """Runs last: whatever the tests before have sent, the server's log tells of no crash."""
    log = (cloud.data / "log" / "askos.log").read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
