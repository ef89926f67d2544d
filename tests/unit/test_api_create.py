"""POST /v1/containers: what is refused and how, what versions and policy allow, what comes out."""

from __future__ import annotations

from typing import Any

import pytest

from askos.model.capsules import CapsuleSpec, RestartPolicy

from .cloud import Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = "root:shared:admin"
SCHEMA = "schema-validation-error"
VALUE = "invalid-value"


def field(name: str, value: str, why: str = "") -> str:
    """How Zun begins a message about a field."""
    return f"Invalid input for field '{name}'.Value: '{value}'. {why}"


# Everything but `image`; None in place of the body's fields means that the whole body is given.
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"image": ""}, SCHEMA, field("image", "", "'' is too short")),
    ({"image": "x"}, SCHEMA, field("image", "x", "'x' is too short")),
    ({"image": 5}, SCHEMA, field("image", "5", "5 is not of type 'string'")),
    ({"image": None}, SCHEMA, field("image", "None", "None is not of type 'string'")),
    ({"image": "a" * 256}, SCHEMA, field("image", "a" * 200 + "...")),
    ({"image": "Busybox"}, SCHEMA, field("image", "Busybox")),
    ({"image": "busybox:a b"}, SCHEMA, field("image", "busybox:a b")),
    ({"image": " busybox"}, SCHEMA, field("image", " busybox")),
    ({"image": "busybox@sha256:12"}, SCHEMA, field("image", "busybox@sha256:12")),
    ({"image": "../etc/passwd"}, SCHEMA, field("image", "../etc/passwd")),
    ({"foo": 1}, SCHEMA, "Additional properties are not allowed ('foo' was unexpected)"),
    ({"name": ""}, SCHEMA, field("name", "")),
    (
        {"name": "-ab"},
        SCHEMA,
        field("name", "-ab", "'-ab' does not match what is allowed: letters, digits and _ . - are allowed, beginning"),
    ),
    ({"name": "a b"}, SCHEMA, field("name", "a b")),
    ({"name": "a/b"}, SCHEMA, field("name", "a/b")),
    ({"name": "web\n"}, SCHEMA, field("name", "web\n")),
    ({"name": "n\u00e4me"}, SCHEMA, field("name", "n\u00e4me")),
    ({"name": "a" * 256}, SCHEMA, field("name", "a" * 200 + "...")),
    ({"name": 5}, SCHEMA, field("name", "5", "5 is not of type 'string', 'null'")),
    ({"cpu": 0}, SCHEMA, field("cpu", "0", "0 is less than the minimum of 0.1")),
    ({"cpu": -1}, SCHEMA, field("cpu", "-1", "-1 is less than the minimum of 0.1")),
    ({"cpu": 17}, SCHEMA, field("cpu", "17", "17 is greater than the maximum of 16.0")),
    ({"cpu": "17"}, SCHEMA, field("cpu", "17", "17 is greater than the maximum of 16.0")),
    ({"cpu": "0.01"}, SCHEMA, field("cpu", "0.01", "0.01 is less than the minimum of 0.1")),
    ({"cpu": "x"}, SCHEMA, field("cpu", "x", "'x' does not match")),
    ({"cpu": "1e1"}, SCHEMA, field("cpu", "1e1", "'1e1' does not match")),
    ({"cpu": ""}, SCHEMA, field("cpu", "")),
    ({"cpu": True}, SCHEMA, field("cpu", "True", "True is not of type")),
    ({"memory": "3"}, SCHEMA, field("memory", "3", "3 is less than the minimum of 4")),
    ({"memory": 3}, SCHEMA, field("memory", "3", "3 is less than the minimum of 4")),
    ({"memory": "1g"}, SCHEMA, field("memory", "1g", "'1g' does not match what is allowed: a whole number")),
    ({"memory": 8193}, SCHEMA, field("memory", "8193", "8193 is greater than the maximum of 8192")),
    ({"memory": "999999999"}, SCHEMA, field("memory", "999999999")),
    ({"memory": 64.5}, SCHEMA, field("memory", "64.5")),
    ({"memory": -64}, SCHEMA, field("memory", "-64")),
    ({"disk": 0}, SCHEMA, field("disk", "0", "0 is less than the minimum of 1")),
    ({"disk": 161}, SCHEMA, field("disk", "161", "161 is greater than the maximum of 160")),
    ({"disk": "x"}, SCHEMA, field("disk", "x", "'x' does not match")),
    ({"environment": {"a": 1}}, SCHEMA, field("a", "1", "1 is not of type 'string'")),
    ({"environment": []}, SCHEMA, field("environment", "[]", "[] is not of type 'object', 'null'")),
    ({"environment": {"": "x"}}, SCHEMA, ""),
    ({"environment": {"a=b": "x"}}, SCHEMA, ""),
    ({"environment": {"A": "x\u0000y"}}, SCHEMA, field("A", "x\u0000y")),
    ({"labels": "x"}, SCHEMA, field("labels", "x", "'x' is not of type 'object', 'null'")),
    ({"workdir": 5}, SCHEMA, field("workdir", "5", "5 is not of type 'string', 'null'")),
    ({"workdir": "/\u0000"}, SCHEMA, field("workdir", "/\u0000")),
    ({"command": "sleep 1"}, SCHEMA, field("command", "sleep 1", "'sleep 1' is not of type 'array', 'null'")),
    ({"command": [1]}, SCHEMA, field("0", "1", "1 is not of type 'string'")),
    ({"command": ["a\u0000b"]}, SCHEMA, field("0", "a\u0000b")),
    ({"entrypoint": "x"}, SCHEMA, field("entrypoint", "x", "'x' is not of type 'array', 'null'")),
    ({"restart_policy": {}}, SCHEMA, field("restart_policy", "{}", "'Name' is a required property")),
    ({"restart_policy": {"Name": "sometimes"}}, SCHEMA, field("Name", "sometimes", "'sometimes' is not one of")),
    ({"restart_policy": {"Name": "no", "X": 1}}, SCHEMA, field("restart_policy", "{'Name': 'no', 'X': 1}")),
    (
        {"restart_policy": {"Name": "always", "MaximumRetryCount": 3}},
        VALUE,
        "maximum retry count not valid with restart policy of always",
    ),
    (
        {"restart_policy": {"Name": "unless-stopped", "MaximumRetryCount": "1"}},
        VALUE,
        "maximum retry count not valid with restart policy of unless-stopped",
    ),
    ({"restart_policy": {"Name": "on-failure", "MaximumRetryCount": -1}}, SCHEMA, field("MaximumRetryCount", "-1")),
    ({"restart_policy": {"Name": "on-failure", "MaximumRetryCount": "abc"}}, SCHEMA, field("MaximumRetryCount", "abc")),
    ({"interactive": "maybe"}, SCHEMA, field("interactive", "maybe", "'maybe' is not one of")),
    ({"tty": 1}, SCHEMA, field("tty", "1", "1 is not of type 'boolean', 'string'")),
    ({"tty": None}, SCHEMA, field("tty", "None", "None is not of type")),
    ({"security_groups": "default"}, SCHEMA, field("security_groups", "default")),
    ({"security_groups": [""]}, SCHEMA, field("0", "")),
    ({"nets": [{}]}, SCHEMA, field("0", "{}", "{} is not valid under any of the given schemas")),
    ({"nets": [{"network": "net1", "port": "x"}]}, SCHEMA, field("0", "{'network': 'net1', 'port': 'x'}")),
    ({"nets": [{"network": "net1", "x": "y"}]}, SCHEMA, ""),
    ({"nets": "net1"}, SCHEMA, field("nets", "net1", "'net1' is not of type 'array', 'null'")),
    ({"image_driver": "rkt"}, SCHEMA, field("image_driver", "rkt", "'rkt' is not one of")),
    ({"image_pull_policy": "sometimes"}, SCHEMA, field("image_pull_policy", "sometimes", "'sometimes' is not one of")),
    ({"privileged": None}, SCHEMA, field("privileged", "None", "None is not of type 'boolean', 'string'")),
    ({"hostname": "a b"}, SCHEMA, field("hostname", "a b", "'a b' does not match what is allowed: letters, digits")),
    ({"hostname": ""}, SCHEMA, field("hostname", "", "'' should be non-empty")),
    ({"hostname": "a" * 64}, SCHEMA, field("hostname", "a" * 64)),
    ({"hostname": "web\n"}, SCHEMA, field("hostname", "web\n")),
    ({"mounts": ["x"]}, SCHEMA, field("0", "x")),
    ({"availability_zone": ""}, SCHEMA, field("availability_zone", "", "'' should be non-empty")),
    ({"availability_zone": "mars"}, SCHEMA, field("availability_zone", "mars", "the zones are: nova")),
    ({"auto_remove": "x"}, SCHEMA, field("auto_remove", "x")),
    ({"auto_remove": True, "restart_policy": {"Name": "always"}}, VALUE, "auto_remove and restart_policy"),
    ({"cpu_policy": "x"}, SCHEMA, field("cpu_policy", "x", "'x' is not one of ['dedicated', 'shared']")),
    ({"auto_heal": "x"}, SCHEMA, field("auto_heal", "x", "'x' is not one of")),
    ({"registry": "x"}, SCHEMA, field("registry", "x", "'x' is too short")),
    ({"host": ""}, SCHEMA, field("host", "")),
]


@pytest.mark.parametrize(("body", "code", "title"), BAD, ids=lambda v: str(v)[:40])
async def test_what_is_refused(cloud: Cloud, body: dict[str, Any], code: str, title: str) -> None:
    token = cloud.project()
    got = await cloud.ask("POST", "/v1/containers", token, body={"image": "busybox", **body})
    got.refused(400, code, title)
    assert len(got.error["title"]) < 1000
    assert (await cloud.ask("GET", "/v1/containers", token)).body["containers"] == []


async def test_an_image_that_the_image_service_has_not(cloud: Cloud) -> None:
    body = {"image": "busybox", "image_driver": "glance"}
    got = await cloud.ask("POST", "/v1/containers", "ann:refused:member", body=body)
    got.refused(400, "image-not-found", "Image busybox could not be found.")


@pytest.mark.parametrize(
    "body",
    [
        {"nets": [], "security_groups": [], "mounts": [], "exposed_ports": {}, "hints": {}, "healthcheck": {}},
        {"nets": None, "security_groups": None, "mounts": None, "labels": None, "environment": None, "name": None},
        {"image_driver": "docker", "cpu_policy": "shared", "auto_heal": "False", "availability_zone": "nova"},
        {"image_driver": "None", "command": None, "entrypoint": None, "cpu": None, "memory": None, "disk": None},
        {"restart_policy": {"Name": "no", "MaximumRetryCount": "5"}},
        {"name": "a"},
        {"labels": {"a": 1, "b": None}},
    ],
    ids=lambda body: next(iter(body)),
)
async def test_what_clients_send_without_meaning_it_passes(cloud: Cloud, body: dict[str, Any]) -> None:
    await cloud.create(cloud.project(), **body)


# -- queries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("run=maybe", "Invalid input for query parameters 'run'. Value: 'maybe'. 'maybe' is not one of"),
        ("run=", "Invalid input for query parameters 'run'. Value: ''."),
        ("run=TrUe", "Invalid input for query parameters 'run'. Value: 'TrUe'."),
        ("foo=1", "Additional properties are not allowed ('foo' was unexpected)"),
    ],
)
async def test_bad_queries(cloud: Cloud, query: str, title: str) -> None:
    got = await cloud.ask("POST", f"/v1/containers?{query}", body={"image": "busybox"})
    got.refused(400, SCHEMA, title)


@pytest.mark.parametrize(
    ("word", "runs"),
    [(w, True) for w in ("True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes")]
    + [(w, False) for w in ("False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no")],
)
async def test_run_is_a_boolean_word(cloud: Cloud, word: str, runs: bool) -> None:
    made = await cloud.ask("POST", f"/v1/containers?run={word}", cloud.project(), body={"image": "busybox"})
    assert made.status == 202
    (capsule,) = await cloud.store.capsules_by_uuid([made.body["uuid"]])
    assert (capsule.wish.state, capsule.wish.run) == (("running", 1) if runs else ("created", 0))


# -- versions ---------------------------------------------------------------------------------------------------------

GATES: list[tuple[str, int, Any]] = [
    ("auto_remove", 3, True),
    ("auto_remove", 3, False),
    ("runtime", 5, "runc"),
    ("hostname", 9, "hh"),
    ("mounts", 11, [{"size": 1, "destination": "/d"}]),
    ("privileged", 21, True),
    ("healthcheck", 22, {"cmd": "true"}),
    ("exposed_ports", 24, {"80": {}}),
    ("registry", 31, "rr"),
]


@pytest.mark.parametrize(("name", "since", "value"), GATES)
async def test_fields_that_are_too_new(cloud: Cloud, name: str, since: int, value: Any) -> None:
    body = {"image": "busybox", name: value}
    got = await cloud.ask("POST", "/v1/containers", version=f"1.{since - 1}", body=body)
    got.refused(
        400,
        "invalid-param-in-version",
        f"Invalid param {name} because current request version is 1.{since - 1}. {name} is only supported from "
        f"version 1.{since}",
    )
    got = await cloud.ask("POST", "/v1/containers", version=f"1.{since}", body=body)
    assert got.status == 202 or got.error["code"] != "container.invalid-param-in-version"


@pytest.mark.parametrize(("name", "since", "value"), [("host", 39, "h"), ("entrypoint", 40, ["x"])])
async def test_fields_that_older_schemas_do_not_know(cloud: Cloud, name: str, since: int, value: Any) -> None:
    body = {"image": "busybox", name: value}
    got = await cloud.ask("POST", "/v1/containers", version=f"1.{since - 1}", body=body)
    got.refused(400, SCHEMA, f"Additional properties are not allowed ('{name}' was unexpected)")
    got = await cloud.ask("POST", "/v1/containers", version=f"1.{since}", body=body)
    assert got.status == 202 or got.error["title"] != "Additional properties are not allowed"


@pytest.mark.parametrize("name", ["nets", "tty", "availability_zone", "cpu_policy", "auto_heal"])
async def test_fields_that_zun_does_not_gate(cloud: Cloud, name: str) -> None:
    value: Any = {"nets": [], "tty": True, "availability_zone": "nova", "cpu_policy": "shared"}.get(name, False)
    await cloud.create(cloud.project(), version="1.1", **{name: value})


@pytest.mark.parametrize(
    ("version", "command", "words"),
    [
        ("1.1", "sleep 1000", ["sleep", "1000"]),
        ("1.19", "sh -c 'echo one two; sleep 1'", ["sh", "-c", "echo one two; sleep 1"]),
        ("1.12", '"sh" "-c" "exit 3"', ["sh", "-c", "exit 3"]),
        ("1.19", "", []),
        ("1.19", None, []),
        ("1.20", ["sh", "-c", "a  b"], ["sh", "-c", "a  b"]),
        ("1.40", [], []),
        ("1.40", None, []),
    ],
)
async def test_command_is_a_string_before_1_20_and_a_list_from_then_on(
    cloud: Cloud, version: str, command: Any, words: list[str]
) -> None:
    uuid = await cloud.create(cloud.project(), version=version, command=command)
    assert (await cloud.show(uuid))["command"] == words


async def test_the_other_kind_of_command_is_refused(cloud: Cloud) -> None:
    got = await cloud.ask("POST", "/v1/containers", version="1.19", body={"image": "busybox", "command": ["a"]})
    got.refused(400, SCHEMA, field("command", "['a']", "['a'] is not of type 'string', 'null'"))
    for bad in ("sh -c 'x", 'say "', "end \\", "a\u0000b"):
        got = await cloud.ask("POST", "/v1/containers", version="1.1", body={"image": "busybox", "command": bad})
        got.refused(400, SCHEMA, field("command", bad))


@pytest.mark.parametrize(
    ("version", "given", "tty"),
    [
        ("1.1", {"tty": True}, True),
        ("1.19", {"interactive": True}, False),
        ("1.20", {"interactive": True}, True),
        ("1.35", {"interactive": "False", "tty": True}, False),
        ("1.35", {"tty": True}, True),
        ("1.36", {"interactive": True, "tty": False}, False),
    ],
)
async def test_interactive_overwrites_tty_between_1_20_and_1_35(
    cloud: Cloud, version: str, given: dict[str, Any], tty: bool
) -> None:
    shown = await cloud.show(await cloud.create(cloud.project(), version=version, **given))
    assert shown["tty"] is tty
    assert shown["interactive"] is (given.get("interactive") is True)


# -- policy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"image_pull_policy": "always"}, "container:create:image_pull_policy"),
        ({"runtime": "runc"}, "container:create:runtime"),
        ({"privileged": True}, "container:create:privileged"),
        ({"privileged": False}, "container:create:privileged"),
        ({"host": "mars"}, "container:create:requested_destination"),
    ],
)
async def test_members_may_not(cloud: Cloud, body: dict[str, Any], rule: str) -> None:
    got = await cloud.ask("POST", "/v1/containers", body={"image": "busybox", **body})
    got.refused(403, "policy-not-authorized", f"Policy doesn't allow {rule} to be performed.")


async def test_even_admins_may_not_be_privileged(cloud: Cloud) -> None:
    got = await cloud.ask("POST", "/v1/containers", ADMIN, body={"image": "busybox", "privileged": True})
    got.refused(403, "policy-not-authorized", "Policy doesn't allow container:create:privileged to be performed.")


@pytest.mark.parametrize("word", ["always", "Always", "never", "Never", "ifnotpresent", "IfNotPresent"])
async def test_admins_choose_when_to_pull(cloud: Cloud, word: str) -> None:
    uuid = await cloud.create(ADMIN, image_pull_policy=word)
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    assert capsule.spec.containers[0].image_pull_policy == word.lower()


# -- what comes out ---------------------------------------------------------------------------------------------------


async def test_the_answer_to_a_create(cloud: Cloud) -> None:
    token = cloud.project()
    project = token.split(":")[1]
    got = await cloud.ask(
        "POST",
        "/v1/containers?run=true",
        token,
        body={
            "image": "busybox:1.36", "name": "web", "command": ["sleep", "9"], "entrypoint": ["nice"], "cpu": "0.5",
            "memory": "64", "workdir": "/tmp", "environment": {"A": "b"}, "labels": {"l": "m"}, "interactive": True,
            "tty": "true", "hostname": "inside", "restart_policy": {"Name": "on-failure", "MaximumRetryCount": "2"},
        },
    )  # fmt: skip
    assert got.status == 202
    shown = got.body
    uuid = shown["uuid"]
    assert got.headers["Location"] == f"{cloud.url}/v1/containers/{uuid}"
    assert shown["links"] == [
        {"href": f"{cloud.url}/v1/containers/{uuid}", "rel": "self"},
        {"href": f"{cloud.url}/containers/{uuid}", "rel": "bookmark"},
    ]
    assert shown["created_at"] == "2023-11-14 22:13:20.123456"
    (network,) = shown["addresses"]
    (address,) = shown["addresses"][network]
    assert set(address) == {"addr", "version", "port", "subnet_id", "preserve_on_delete"}
    assert address["addr"].startswith("10.6")
    expected = {
        "uuid": uuid, "name": "web", "project_id": project, "user_id": "ann", "image": "busybox:1.36",
        "command": ["sleep", "9"], "entrypoint": ["nice"], "cpu": 0.5, "cpu_policy": "shared", "memory": "64",
        "disk": 0, "status": "Creating", "status_reason": None, "status_detail": None,
        "task_state": "container_creating", "environment": {"A": "b"}, "labels": {"l": "m"}, "workdir": "/tmp",
        "hostname": "inside", "ports": [], "addresses": shown["addresses"],
        "restart_policy": {"Name": "on-failure", "MaximumRetryCount": "2"}, "interactive": True, "tty": True,
        "auto_remove": False, "auto_heal": False, "image_driver": "docker", "security_groups": [], "healthcheck": {},
        "registry_id": None, "created_at": shown["created_at"], "updated_at": None, "links": shown["links"],
    }  # fmt: skip
    assert shown == expected
    # Read again it is the same, but for the fraction of the second.
    again = await cloud.ask("GET", f"/v1/containers/{uuid}", token)
    assert again.body == {**expected, "created_at": "2023-11-14 22:13:20"}


async def test_defaults(cloud: Cloud) -> None:
    uuid = await cloud.create(cloud.project())
    shown = await cloud.show(uuid)
    assert (shown["cpu"], shown["memory"], shown["restart_policy"]) == (1.0, "512", {})
    assert (shown["interactive"], shown["tty"], shown["auto_remove"]) == (False, False, False)
    words = shown["name"].split("-")
    assert len(words) == 3
    assert words[2] == "container"
    assert 1 <= int(words[1]) <= 24
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    assert capsule.spec.containers[0].image_pull_policy == "ifnotpresent"
    assert capsule.spec == CapsuleSpec([capsule.spec.containers[0]], restart_policy=RestartPolicy())


async def test_admins_see_four_keys_more(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.create(token)
    await cloud.place(uuid)
    own = (await cloud.ask("GET", f"/v1/containers/{uuid}", token)).body
    full = (await cloud.ask("GET", f"/v1/containers/{uuid}", ADMIN)).body
    assert set(full) - set(own) == {"host", "image_pull_policy", "privileged", "runtime"}
    assert (full["host"], full["image_pull_policy"], full["privileged"]) == ("host-1", "ifnotpresent", False)
    assert {k: v for k, v in full.items() if k in own} == own


async def test_a_create_that_was_accepted_is_in_the_database_at_once(cloud: Cloud) -> None:
    uuid = await cloud.create(cloud.project())
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    assert (capsule.wish.generation, capsule.wish.at_us) == (1, cloud.now)
