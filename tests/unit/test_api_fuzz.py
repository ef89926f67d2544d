"""Whatever is sent, the answer is never a 5xx, and a refusal has the form of one."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from askos.api import schemas
from askos.api.microversion import Version

from .cloud import HOST, Answer, Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

few = settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))

TEXT = st.text(max_size=20) | st.sampled_from(
    ["", "\x00", "0", "-1", "nan", "1e999", "\u00b2", "true", "None", "a" * 300]
)
NUMBERS = (
    st.integers(-5, 20)
    | st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400])
    | st.floats(allow_nan=False, allow_infinity=False)
)
LEAVES = st.none() | st.booleans() | NUMBERS | TEXT
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
FIELDS = st.sampled_from([*sorted(schemas.create(Version(1, 40), schemas.DEFAULT_LIMITS)["properties"]), "other"])
NEARLY: dict[str, list[Any]] = {
    "image": ["busybox", "docker.io/library/busybox@sha256:" + "0" * 64, "localhost:5000/x", "[::1]:5/x", "a/b/c:d"],
    "cpu": [0.1, "1", "1.5", ".5", 16, "16.0", "0001", "1\n"],
    "memory": [4, "512", 8192, "0064", 64.0, "64\n"],
    "command": [["a"], "a 'b c'", [], ""],
    "environment": [{}, {"A": "b"}, {"\n": "\n"}, {"A": ""}],
    "labels": [{"a": 1}, {"": None}, {"a": ["b"]}, {"a": 10**400}],
    "restart_policy": [{"Name": "on-failure", "MaximumRetryCount": n} for n in ("5", 5, 5.0, "5\n", None, 2**31 - 1)],
    "name": ["web", "a", "A.b-c_d"],
    "hostname": ["h", "A.b", "-", "."],
}
VERSIONS = st.sampled_from(["1.1", "1.12", "1.19", "1.20", "1.35", "1.36", "1.39", "1.40", "latest"])
TOKENS = st.sampled_from(["ann:fuzzrun:member", "root:fuzzrun:admin"])


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A create that is nearly right: some fields as they should be, some not."""
    body: dict[str, Any] = {"image": "busybox"}
    for name in draw(st.lists(FIELDS, max_size=4, unique=True)):
        body[name] = draw(st.sampled_from(NEARLY[name]) if name in NEARLY and draw(st.booleans()) else JSON)
    return body


def check(got: Answer) -> None:
    assert got.status < 500, got
    if got.status >= 400:
        assert got.error["title"]
        assert len(got.raw) < 10_000


@given(bodies(), VERSIONS, TOKENS, st.sampled_from(["", "?run=1", "?run=false"]))
@settings(few, max_examples=80)
async def test_creates(cloud: Cloud, body: dict[str, Any], version: str, token: str, query: str) -> None:
    got = await cloud.ask("POST", f"/v1/containers{query}", token, version=version, body=body)
    check(got)
    if got.status == 202:
        # What was accepted can be shown, listed, placed and sent to a host.
        uuid = got.body["uuid"]
        check(await cloud.ask("GET", f"/v1/containers/{uuid}", token))
        check(await cloud.ask("GET", "/v1/containers?limit=3&sort_dir=desc", token))
        await cloud.place(uuid)
        assert any(a.capsule_uuid == uuid for a in await cloud.store.assignments(HOST))
        await cloud.ask("DELETE", f"/v1/containers/{uuid}?stop=1", token)
        await cloud.store.drop_orphans(-1)


@given(JSON | st.binary(max_size=40), VERSIONS)
@few
async def test_creates_of_anything(cloud: Cloud, body: Any, version: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    check(await cloud.ask("POST", "/v1/containers", version=version, data=data, headers=headers))


class _Raw(str):
    """Goes into the query as it is."""

    __slots__ = ()


KEYS = st.sampled_from(
    ["limit", "marker", "sort_key", "sort_dir", "all_projects", "name", "image", "project_id", "user_id", "memory",
     "host", "task_state", "status", "auto_remove", "timeout", "signal", "command", "run", "interactive", "stdout",
     "stderr", "timestamps", "tail", "since", "force", "stop", "follow", "until", "streams", "ref", "width", "other"]
)  # fmt: skip
VALUES = (
    TEXT
    | NUMBERS.map(str)
    | st.sampled_from(
        ["True", "asc", "desc", "id", "KILL", "memory", "auto_remove", "updated_at", "2023-01-01 00:00:00,0"]
    )
    | st.sampled_from(["%", "%zz", "%FF", "%00", "a%20b", "+"]).map(_Raw)
)


@st.composite
def queries(draw: st.DrawFn) -> str:
    pairs = draw(st.lists(st.tuples(KEYS, VALUES), max_size=4))
    return "&".join(f"{k}={v if isinstance(v, _Raw) else quote(str(v), safe='')}" for k, v in pairs)


async def running(cloud: Cloud) -> str:
    """A container that runs: the one there is, or a new one."""
    got = await cloud.ask("GET", "/v1/containers?status=Running&limit=1", "ann:fuzzrun:member")
    found = [c["uuid"] for c in got.body["containers"] if c["task_state"] is None]
    return found[0] if found else await cloud.in_status("ann:fuzzrun:member", "Running")


REQUESTS = st.sampled_from(
    [("GET", "/v1/containers"), ("GET", "/v1/containers/{}"), ("DELETE", "/v1/containers/{}"),
     ("POST", "/v1/containers/{}/start"), ("POST", "/v1/containers/{}/stop"), ("POST", "/v1/containers/{}/reboot"),
     ("POST", "/v1/containers/{}/kill"), ("GET", "/v1/containers/{}/logs"), ("POST", "/v1/containers/{}/execute"),
     ("GET", "/askos/v1/containers/{}/logs"), ("GET", "/askos/v1/containers/{}/exec"),
     ("POST", "/askos/v1/images/pull"), ("DELETE", "/askos/v1/images")]
)  # fmt: skip


@given(REQUESTS, queries(), JSON | st.none(), VERSIONS, TOKENS)
@settings(few, max_examples=130)
async def test_requests(
    cloud: Cloud, request_: tuple[str, str], query: str, body: Any, version: str, token: str
) -> None:
    cloud.calls.answers = {
        "run": {"output": "", "exit_code": 0}, "logs": ([], None), "signal": None, "image_pull": ([], {}),
        "image_remove": None,
    }  # fmt: skip
    uuid = await running(cloud)
    method, path = request_
    more = {} if body is None or method == "GET" else {"body": body}
    check(await cloud.ask(method, f"{path.format(uuid)}?{query}", token, version=version, **more))


@given(
    st.lists(TEXT.map(lambda s: quote(s, safe="")) | st.sampled_from(["v1", "containers", "", "%2F", ".."]), max_size=6)
)
@few
async def test_paths(cloud: Cloud, segments: list[str]) -> None:
    got = await cloud.ask("GET", "/" + "/".join(segments))
    assert got.status < 500


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30))
@few
async def test_version_headers(cloud: Cloud, text: str) -> None:
    for header in (text, f"container {text}", f"container 1.{text}"):
        got = await cloud.ask("GET", "/v1/containers", version=None, headers={"OpenStack-API-Version": header})
        assert got.status in (200, 400, 406)
