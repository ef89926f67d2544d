"""What can be done with a container: which status allows what, what each request wishes, what travels to the host."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import aiohttp
import pytest

from askos.api import native
from askos.model.capsules import Capsule
from askos.model.errors import ConflictError, NotFoundError, RuntimeFailedError, UnavailableError
from askos.ports.calls import Frame

from .cloud import HOST, Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = "root:elsewhere:admin"

STATUSES = [
    *("Creating", "Created", "Running", "Stopped", "Paused", "Restarting", "Error", "Error without a host", "Deleting"),
]
STANDING = {"Created", "Running", "Stopped", "Paused"}
NOT_LEAVING = set(STATUSES) - {"Deleting"}
# Zun's table 9.1, for what exists here. Where it is wider than Zun's, it is so that nobody gets stuck.
ALLOWED: dict[str, set[str]] = {
    "start": {"Created", "Stopped", "Error", "Error without a host"},
    "stop": {"Running", "Restarting"},
    "kill": {"Running", "Restarting"},
    "reboot": {"Created", "Running", "Stopped", "Error", "Error without a host"},
    "pause": {"Running"},
    "unpause": {"Paused"},
    "rebuild": {"Created", "Running", "Stopped", "Error", "Error without a host"},
    "execute": {"Running"},
    "execute_resize": {"Running"},
    "attach": {"Running"},
    "resize": {"Running"},
    "top": {"Running"},
    "stats": {"Running"},
    "update": STANDING,
    "resize_container": STANDING,
    "add_security_group": STANDING,
    "remove_security_group": STANDING,
    "commit": {"Running", "Stopped", "Paused"},
    "get_archive": STANDING,
    "put_archive": STANDING,
    "rename": NOT_LEAVING,
    "network_attach": NOT_LEAVING,
    "network_detach": NOT_LEAVING,
    "logs": {"Created", "Error", "Running", "Stopped", "Paused", "Error without a host", "Restarting", "Creating"},
    "delete": {"Created", "Error", "Error without a host", "Stopped", "Paused", "Creating", "Deleting"},
    "delete stop": set(STATUSES),
    "delete force": set(STATUSES),
}
REQUESTS: dict[str, tuple[str, str, int]] = {
    "pause": ("POST", "/pause", 202),
    "unpause": ("POST", "/unpause", 202),
    "rebuild": ("POST", "/rebuild", 202),
    "execute_resize": ("POST", f"/execute_resize?exec_id={'a' * 64}&w=1&h=1", 400),
    "attach": ("GET", "/attach", 400),
    "resize": ("POST", "/resize?w=80&h=24", 200),
    "top": ("GET", "/top", 200),
    "stats": ("GET", "/stats", 200),
    "update": ("PATCH", "", 200),
    "resize_container": ("POST", "/resize_container", 202),
    "add_security_group": ("POST", "/add_security_group?name=default", 202),
    "remove_security_group": ("POST", "/remove_security_group?name=default", 400),
    "commit": ("POST", "/commit?repository=snap", 202),
    "get_archive": ("GET", "/get_archive?path=/tmp", 200),
    "put_archive": ("POST", "/put_archive?path=/tmp", 200),
    "rename": ("POST", "/rename?name=another", 200),
    "network_attach": ("POST", "/network_attach", 400),
    "network_detach": ("POST", "/network_detach?network=default", 202),
    "start": ("POST", "/start", 202),
    "stop": ("POST", "/stop", 202),
    "kill": ("POST", "/kill", 202),
    "reboot": ("POST", "/reboot", 202),
    "execute": ("POST", "/execute?command=id", 200),
    "logs": ("GET", "/logs", 200),
    "delete": ("DELETE", "", 204),
    "delete stop": ("DELETE", "?stop=True", 204),
    "delete force": ("DELETE", "?force=True", 204),
}


async def capsule(cloud: Cloud, uuid: str) -> Capsule:
    (found,) = await cloud.store.capsules_by_uuid([uuid])
    return found


@pytest.mark.parametrize("action", list(REQUESTS))
@pytest.mark.parametrize("status", STATUSES)
async def test_which_status_allows_what(cloud: Cloud, action: str, status: str) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, status)
    word = status.removesuffix(" without a host")
    assert (await cloud.show(uuid))["status"] == word
    used = dict.fromkeys(
        ("memory_bytes", "memory_limit_bytes", "read_bytes", "write_bytes", "rx_bytes", "tx_bytes", "cpu_percent"), 0
    )
    cloud.calls.answers = {
        "run": {"output": "", "exit_code": 0}, "logs": ([], None), "resize": None, "container_stats": used,
        "top": {"titles": ["PID"], "processes": [["1"]]}, "get_archive": ([], {}), "put_archive": ([], None),
    }  # fmt: skip
    method, rest, success = REQUESTS[action]
    more: dict[str, Any] = {}
    if action in ("update", "resize_container"):
        more["body"] = {"cpu": 0.5}
    if action == "put_archive":
        more["body"] = {"data": "YQ=="}
    if action in ("rename", "add_security_group", "remove_security_group"):
        more["version"] = "1.13"
    await cloud.networking.default_group(token.split(":")[1])
    before = await cloud.store.capsules_by_uuid([uuid])
    got = await cloud.ask(method, f"/v1/containers/{uuid}{rest}", ROOT if "force" in action else token, **more)
    if status in ALLOWED[action]:
        assert got.status == success, got
        return
    verb = action.split(" ", maxsplit=1)[0]
    got.refused(409, "invalid-state-exception", f"Cannot {verb} container {uuid} in {word} state")
    assert await cloud.store.capsules_by_uuid([uuid]) == before


# -- wishes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "request_", "wish", "shown"),
    [
        ("Created", "/start", ("running", 2, "starting", 10), ("Created", "container_starting")),
        ("Stopped", "/start", ("running", 2, "starting", 10), ("Stopped", "container_starting")),
        ("Error", "/start", ("running", 2, "starting", 10), ("Created", "container_starting")),
        ("Running", "/stop", ("stopped", 1, "stopping", 10), ("Running", "container_stopping")),
        ("Running", "/stop?timeout=0", ("stopped", 1, "stopping", 0), ("Running", "container_stopping")),
        ("Running", "/stop?timeout=33", ("stopped", 1, "stopping", 33), ("Running", "container_stopping")),
        ("Running", "/stop?timeout=", ("stopped", 1, "stopping", 10), ("Running", "container_stopping")),
        ("Restarting", "/stop", ("stopped", 1, "stopping", 10), ("Restarting", "container_stopping")),
        ("Running", "/reboot", ("running", 2, "rebooting", 10), ("Restarting", "container_rebooting")),
        ("Running", "/reboot?timeout=5", ("running", 2, "rebooting", 5), ("Restarting", "container_rebooting")),
        ("Stopped", "/reboot", ("running", 2, "rebooting", 10), ("Restarting", "container_rebooting")),
        ("Running", "/kill", ("stopped", 1, "killing", 0), ("Running", "container_killing")),
        ("Running", "/kill?signal=KILL", ("stopped", 1, "killing", 0), ("Running", "container_killing")),
        ("Restarting", "/kill?signal=9", ("stopped", 1, "killing", 0), ("Restarting", "container_killing")),
    ],
)
async def test_wishes(
    cloud: Cloud, status: str, request_: str, wish: tuple[str, int, str, int], shown: tuple[str, str]
) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, status)
    cloud.now += 5
    got = await cloud.ask("POST", f"/v1/containers/{uuid}{request_}", token)
    assert (got.status, got.raw) == (202, b"null")
    now = (await capsule(cloud, uuid)).wish
    assert (now.state, now.run, now.task, now.stop_timeout_s) == wish
    assert (now.generation, now.at_us) == (2, cloud.now)
    seen = await cloud.show(uuid)
    assert (seen["status"], seen["task_state"]) == shown


@pytest.mark.parametrize("action", ["stop", "reboot"])
async def test_parameters_may_come_in_the_body(cloud: Cloud, action: str) -> None:
    for body, expected in (
        ({"timeout": 7}, 7), ({"timeout": "8"}, 8), ({"timeout": None}, 10), ({"other": "x"}, 10), ([], 10), ("x", 10),
    ):  # fmt: skip
        uuid = await cloud.in_status("ann:bodies:member", "Running")
        got = await cloud.ask("POST", f"/v1/containers/{uuid}/{action}", "ann:bodies:member", body=body)
        assert got.status == 202
        assert (await capsule(cloud, uuid)).wish.stop_timeout_s == expected
    uuid = await cloud.in_status("ann:bodies:member", "Running")
    await cloud.ask("POST", f"/v1/containers/{uuid}/{action}?timeout=3", "ann:bodies:member", body={"timeout": 7})
    assert (await capsule(cloud, uuid)).wish.stop_timeout_s == 3


@pytest.mark.parametrize("action", ["stop", "reboot"])
@pytest.mark.parametrize("value", ["-1", "x", "None", "1.5", "9999999999", "%D9%A1"])
async def test_bad_timeouts(cloud: Cloud, action: str, value: str) -> None:
    got = await cloud.ask("POST", f"/v1/containers/x/{action}?timeout={value}")
    got.refused(400, "schema-validation-error", "Invalid input for query parameters 'timeout'. Value: ")


@pytest.mark.parametrize("value", [-1, 1.5, 10**10, 10**30, True, "x", [], {}])
async def test_bad_timeouts_in_the_body(cloud: Cloud, value: Any) -> None:
    uuid = await cloud.in_status("ann:bodies:member", "Running")
    got = await cloud.ask("POST", f"/v1/containers/{uuid}/stop", "ann:bodies:member", body={"timeout": value})
    got.refused(400, "schema-validation-error", "Invalid input for query parameters 'timeout'. Value: ")


@pytest.mark.parametrize(
    "path", ["start?x=1", "stop?timeout=1&x=1", "reboot?x=1", "kill?x=1", "execute?command=id&x=1"]
)
async def test_unknown_query_keys(cloud: Cloud, path: str) -> None:
    got = await cloud.ask("POST", f"/v1/containers/x/{path}")
    got.refused(400, "schema-validation-error", "Additional properties are not allowed ('x' was unexpected)")


async def test_two_requests_at_once_are_one_after_the_other(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Stopped")
    answers = await asyncio.gather(*(cloud.ask("POST", f"/v1/containers/{uuid}/start", token) for _ in range(5)))
    # The status stays Stopped until the agent says otherwise, so all are allowed; none may be lost.
    assert [a.status for a in answers] == [202] * 5
    now = (await capsule(cloud, uuid)).wish
    assert (now.generation, now.run) == (6, 6)


# -- kill -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("HUP", 1), ("SIGHUP", 1), ("hup", 1), ("sighup", 1), ("SigUsr1", 10), ("TERM", 15), ("15", 15), ("2", 2),
        ("64", 64), ("SIGRTMIN", signal.SIGRTMIN),
    ],
)  # fmt: skip
async def test_other_signals_are_only_delivered(cloud: Cloud, text: str, number: int) -> None:
    token = "ann:signals:member"
    uuid = await cloud.in_status(token, "Running")
    cloud.calls.answers = {"signal": None}
    got = await cloud.ask("POST", f"/v1/containers/{uuid}/kill?signal={text}", token)
    assert (got.status, got.raw) == (202, b"null")
    assert cloud.calls.asked[-1] == (HOST, "signal", {"capsule": uuid, "signal": number}, 10.0)
    assert (await capsule(cloud, uuid)).wish.generation == 1


@pytest.mark.parametrize("text", ["KILL", "SIGKILL", "kill", "9", "None"])
async def test_kill_is_for_good(cloud: Cloud, text: str) -> None:
    token = "ann:signals:member"
    uuid = await cloud.in_status(token, "Running")
    asked = len(cloud.calls.asked)
    assert (await cloud.ask("POST", f"/v1/containers/{uuid}/kill?signal={text}", token)).status == 202
    assert (await capsule(cloud, uuid)).wish.state == "stopped"
    assert len(cloud.calls.asked) == asked


@pytest.mark.parametrize("text", ["", "0", "65", "-9", "SIG", "NOSUCH", "SIG9", "9.0", "KILL%20", "%C2%B2", "a" * 33])
async def test_what_is_no_signal(cloud: Cloud, text: str) -> None:
    uuid = await cloud.in_status("ann:signals:member", "Running")
    got = await cloud.ask("POST", f"/v1/containers/{uuid}/kill?signal={text}", "ann:signals:member")
    got.refused(400, "schema-validation-error", "Invalid input for query parameters 'signal'. Value: ")
    assert (await capsule(cloud, uuid)).wish.generation == 1


async def test_a_host_that_is_away_is_said(cloud: Cloud) -> None:
    uuid = await cloud.in_status("ann:signals:member", "Running")
    cloud.calls.answers = {"signal": UnavailableError("The container's host is not connected now. Try again later.")}
    got = await cloud.ask("POST", f"/v1/containers/{uuid}/kill?signal=HUP", "ann:signals:member")
    got.refused(503, "unavailable", "The container's host is not connected now.")


# -- delete -----------------------------------------------------------------------------------------------------------


async def test_a_plain_delete_of_what_has_no_host_is_done_at_once(cloud: Cloud) -> None:
    token = cloud.project()
    for status in ("Creating", "Error without a host"):
        uuid = await cloud.in_status(token, status)
        assert (await cloud.ask("DELETE", f"/v1/containers/{uuid}", token)).status == 204
        (await cloud.ask("GET", f"/v1/containers/{uuid}", token)).refused(404, "container-not-found")
        (await cloud.ask("DELETE", f"/v1/containers/{uuid}", token)).refused(404, "container-not-found")


@pytest.mark.parametrize(
    ("query", "timeout_s"), [("", 0), ("?stop=True", 10), ("?force=True", 0), ("?force=1&stop=1", 10)]
)
async def test_a_delete_is_a_wish_until_the_host_is_done(cloud: Cloud, query: str, timeout_s: int) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Stopped")
    for _ in range(2):
        assert (await cloud.ask("DELETE", f"/v1/containers/{uuid}{query}", ROOT)).status == 204
        shown = await cloud.show(uuid)
        assert (shown["status"], shown["task_state"]) == ("Deleting", "container_deleting")
    wish = (await capsule(cloud, uuid)).wish
    assert (wish.state, wish.stop_timeout_s) == ("deleted", timeout_s)


async def test_nothing_comes_after_a_delete(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Stopped")
    await cloud.ask("DELETE", f"/v1/containers/{uuid}", token)
    for action in ("start", "stop", "reboot", "kill", "execute?command=id"):
        got = await cloud.ask("POST", f"/v1/containers/{uuid}/{action}", token)
        got.refused(409, "invalid-state-exception")
    assert (await capsule(cloud, uuid)).wish.state == "deleted"


async def test_force_is_for_admins_unless_it_also_stops(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    got = await cloud.ask("DELETE", f"/v1/containers/{uuid}?force=True", token)
    got.refused(403, "policy-not-authorized", "Policy doesn't allow container:delete_force to be performed.")
    got = await cloud.ask("DELETE", f"/v1/containers/{uuid}?all_projects=True", token)
    got.refused(403, "policy-not-authorized", "Policy doesn't allow container:delete_all_projects to be performed.")
    # What python-zunclient sends for a plain delete.
    got = await cloud.ask("DELETE", f"/v1/containers/{uuid}?force=False&stop=False&all_projects=False", token)
    got.refused(409, "invalid-state-exception", f"Cannot delete container {uuid} in Running state")
    assert (await cloud.ask("DELETE", f"/v1/containers/{uuid}?force=True&stop=True", token)).status == 204


@pytest.mark.parametrize(("name", "since"), [("force", 7), ("stop", 12)])
async def test_delete_parameters_that_are_too_new(cloud: Cloud, name: str, since: int) -> None:
    uuid = await cloud.in_status("ann:versions:member", "Running")
    path = f"/v1/containers/{uuid}?{name}="
    got = await cloud.ask("DELETE", path + "True", ROOT, version=f"1.{since - 1}")
    got.refused(
        400, "invalid-param-in-version", f"Invalid param {name} because current request version is 1.{since - 1}"
    )
    got = await cloud.ask("DELETE", path + "False", ROOT, version="1.1")
    got.refused(409, "invalid-state-exception")
    assert (await cloud.ask("DELETE", path + "True", ROOT, version=f"1.{since}")).status == 204


@pytest.mark.parametrize("query", ["force=maybe", "stop=2", "all_projects=", "x=1"])
async def test_bad_delete_parameters(cloud: Cloud, query: str) -> None:
    (await cloud.ask("DELETE", f"/v1/containers/x?{query}")).refused(400, "schema-validation-error")


# -- logs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("stdout=False", {"stdout": False}),
        ("stderr=0&timestamps=yes", {"stderr": False, "timestamps": True}),
        ("stdout=true&stderr=true&timestamps=False&tail=all", {}),
        ("tail=5", {"tail": 5}),
        ("tail=0", {"tail": 0}),
        ("tail=-1", {}),
        ("tail=garbage", {}),
        ("tail=%C2%B2", {}),
        ("tail=", {}),
        ("since=", {}),
        ("since=1700000000", {"since_us": 1_700_000_000_000_000}),
        ("since=2023-11-14%2022:13:20,500", {"since_us": 1_700_000_000_500_000}),
        ("since=2023-11-14+22:13:20,5", {"since_us": 1_700_000_000_500_000}),
    ],
)
async def test_which_part_of_the_log(cloud: Cloud, query: str, expected: dict[str, Any]) -> None:
    token = "ann:logs:member"
    uuid = await cloud.in_status(token, "Running")
    cloud.calls.answers = {"logs": ([Frame(1, b"one\n"), Frame(2, b"two\n"), Frame(1, "dr\u00e4i".encode())], None)}
    got = await cloud.ask("GET", f"/v1/containers/{uuid}/logs?{query}", token)
    assert (got.status, got.body) == (200, "one\ntwo\ndr\u00e4i")
    usual = {"capsule": uuid, "stdout": True, "stderr": True, "timestamps": False, "tail": None, "since_us": None}
    assert cloud.calls.asked[-1] == (HOST, "logs", {**usual, **expected}, None)
    assert cloud.calls.streams[-1].closed


@pytest.mark.parametrize(
    "query",
    [
        "stdout=maybe", "stderr=2", "timestamps=x", "stdout=0&stderr=0", "since=0", "foo=1", "since=yesterday", "since=-1",
        "since=2023-13-45%2099:00:00,0", "since=2023-11-14T22:13:20",
        "since=" + "9" * 33, "since=%C2%B2", "since=5%0A",
    ],
)  # fmt: skip
async def test_bad_log_parameters(cloud: Cloud, query: str) -> None:
    uuid = await cloud.in_status("ann:logs:member", "Running")
    cloud.calls.answers = {"logs": ([], None)}
    (await cloud.ask("GET", f"/v1/containers/{uuid}/logs?{query}", "ann:logs:member")).refused(
        400, "schema-validation-error"
    )


async def test_logs_that_are_not_text_still_answer(cloud: Cloud) -> None:
    uuid = await cloud.in_status("ann:logs:member", "Stopped")
    cloud.calls.answers = {"logs": ([Frame(1, b"\xff\x00\xfe")], None)}
    got = await cloud.ask("GET", f"/v1/containers/{uuid}/logs", "ann:logs:member")
    assert (got.status, got.body) == (200, "\ufffd\x00\ufffd")


async def test_a_character_may_come_in_two_pieces(cloud: Cloud) -> None:
    uuid = await cloud.in_status("ann:logs:member", "Stopped")
    cloud.calls.answers = {"logs": ([Frame(1, b"\xc3"), Frame(1, b"\xa4")], None)}
    assert (await cloud.ask("GET", f"/v1/containers/{uuid}/logs", "ann:logs:member")).body == "\u00e4"


async def test_logs_that_break_off_are_no_success(cloud: Cloud) -> None:
    uuid = await cloud.in_status("ann:logs:member", "Running")
    cloud.calls.answers = {"logs": ([Frame(1, b"half")], UnavailableError("The host's agent went away."))}
    got = await cloud.ask("GET", f"/v1/containers/{uuid}/logs", "ann:logs:member")
    got.refused(503, "unavailable", "The host's agent went away.")
    assert cloud.calls.streams[-1].closed


async def test_what_has_no_host_has_no_log(cloud: Cloud) -> None:
    uuid = await cloud.create("ann:logs:member")
    got = await cloud.ask("GET", f"/v1/containers/{uuid}/logs", "ann:logs:member")
    assert (got.status, got.body) == (200, "")


async def test_a_log_that_is_too_long_is_refused(cloud: Cloud) -> None:
    uuid = await cloud.in_status("ann:logs:member", "Running")
    cloud.calls.answers = {"logs": ([Frame(1, b"x" * (1 << 20))] * 65, None)}
    got = await cloud.ask("GET", f"/v1/containers/{uuid}/logs", "ann:logs:member")
    got.refused(400, "invalid", "The log is larger than 64 MiB.")
    assert cloud.calls.streams[-1].closed


# -- execute ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "body", "argv", "tty"),
    [
        ("command=id", None, ["id"], False),
        ("command=%22sh%22+%22-c%22+%22exit+3%22", None, ["sh", "-c", "exit 3"], False),
        ("command=sh+-c+%27echo+hi%27&run=True&interactive=False", None, ["sh", "-c", "echo hi"], False),
        ("command=id&interactive=true", None, ["id"], True),
        ("", {"command": "ls /"}, ["ls", "/"], False),
        ("", {"command": "id", "run": True, "interactive": "true", "more": 1}, ["id"], True),
        ("command=one", {"command": "two"}, ["one"], False),
    ],
)
async def test_execute(cloud: Cloud, query: str, body: Any, argv: list[str], tty: bool) -> None:
    token = "ann:exec:member"
    uuid = await cloud.in_status(token, "Running")
    cloud.calls.answers = {"run": {"output": "out", "exit_code": 3}}
    more = {} if body is None else {"body": body}
    got = await cloud.ask("POST", f"/v1/containers/{uuid}/execute?{query}", token, **more)
    assert got.status == 200
    assert got.body == {"output": "out", "exit_code": 3, "exec_id": None, "proxy_url": None}
    host, method, arguments, timeout_s = cloud.calls.asked[-1]
    assert (host, method, timeout_s) == (HOST, "run", 5.0)
    assert arguments == {"capsule": uuid, "argv": argv, "tty": tty, "limit_bytes": 4 << 20}


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", None),
        ("command=", None),
        ("command=+", None),
        ("command=%27%27x%27", None),
        ("command=id&run=maybe", None),
        ("command=id&interactive=2", None),
        ("command=a%00b", None),
        ("", {"command": 5}),
        ("", {"command": [5]}),
        ("", {"command": ""}),
        ("", {}),
    ],
)
async def test_bad_commands(cloud: Cloud, query: str, body: Any) -> None:
    uuid = await cloud.in_status("ann:exec:member", "Running")
    cloud.calls.answers = {"run": {"output": "", "exit_code": 0}}
    more = {} if body is None else {"body": body}
    got = await cloud.ask("POST", f"/v1/containers/{uuid}/execute?{query}", "ann:exec:member", **more)
    got.refused(400, "schema-validation-error", "Invalid input for ")


@pytest.mark.parametrize(
    ("error", "status", "code", "title"),
    [
        (
            UnavailableError("The host did not answer within 5 seconds."),
            409,
            "conflict",
            "Timeout on executing command: id",
        ),
        (UnavailableError("The container's host is not connected now."), 503, "unavailable", "The container's host"),
        (ConflictError("Container x is not running."), 409, "conflict", "Container x is not running."),
        (NotFoundError("Container x is not on this host."), 404, "not-found", "Container x"),
    ],
)
async def test_how_execute_fails(cloud: Cloud, error: Exception, status: int, code: str, title: str) -> None:
    uuid = await cloud.in_status("ann:exec:member", "Running")
    cloud.calls.answers = {"run": error}
    got = await cloud.ask("POST", f"/v1/containers/{uuid}/execute?command=id", "ann:exec:member")
    got.refused(status, code, title)


async def test_a_program_that_is_not_there_is_an_answer(cloud: Cloud) -> None:
    uuid = await cloud.in_status("ann:exec:member", "Running")
    cloud.calls.answers = {"run": RuntimeFailedError('cannot start "nosuch": no such file', retryable=False)}
    got = await cloud.ask("POST", f"/v1/containers/{uuid}/execute?command=nosuch", "ann:exec:member")
    assert got.status == 200
    assert got.body == {
        "output": 'cannot start "nosuch": no such file', "exit_code": 126, "exec_id": None, "proxy_url": None,
    }  # fmt: skip


# -- the native API ---------------------------------------------------------------------------------------------------


async def test_waiting_ends_when_the_container_has_ended(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "LOOK_S", 3600)  # it is told, it does not look by the clock
    token = cloud.project()
    uuid = await cloud.in_status(token, "Running")
    looks = 0
    real = cloud.store.capsule

    async def look(*arguments: Any) -> Any:
        nonlocal looks
        found = await real(*arguments)
        looks += 1
        return found

    monkeypatch.setattr(cloud.store, "capsule", look)
    waiting = asyncio.create_task(cloud.ask("GET", f"/askos/v1/containers/{uuid}/wait?timeout=60", token))
    async with asyncio.timeout(30):
        while looks < 2:  # what is its id, how is it: then it waits
            await asyncio.sleep(0.01)
    assert not waiting.done()
    await cloud.report(uuid, "exited", container={"state": "exited", "exit_code": 4})
    got = await waiting
    assert (got.status, got.body) == (200, {"status": "Stopped", "status_reason": None, "exit_code": 4})
    assert "OpenStack-API-Version" not in got.headers


async def test_waiting_until_it_runs(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.create(token, run=True)
    path = f"/askos/v1/containers/{uuid}/wait?until=running&timeout="
    assert (await cloud.ask("GET", path + "0", token)).status == 204
    await cloud.place(uuid)
    await cloud.report(uuid, "running")
    assert (await cloud.ask("GET", path + "9", token)).body["status"] == "Running"
    assert (await cloud.ask("GET", f"/askos/v1/containers/{uuid}/wait?timeout=0.01", token)).status == 204


async def test_waiting_ends_with_the_container(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await cloud.create(token, run=True)
    waiting = asyncio.create_task(cloud.ask("GET", f"/askos/v1/containers/{uuid}/wait", token))
    await asyncio.sleep(0.05)
    await cloud.ask("DELETE", f"/v1/containers/{uuid}", token)
    (await waiting).refused(404, "container-not-found")


@pytest.mark.parametrize(
    "query", ["timeout=x", "timeout=-1", "timeout=301", "timeout=nan", "timeout=inf", "until=never"]
)
async def test_bad_waits(cloud: Cloud, query: str) -> None:
    uuid = await cloud.in_status("ann:native:member", "Stopped")
    (await cloud.ask("GET", f"/askos/v1/containers/{uuid}/wait?{query}", "ann:native:member")).refused(
        400, "schema-validation-error"
    )


async def test_a_stream_of_the_log(cloud: Cloud) -> None:
    uuid = await cloud.in_status("ann:native:member", "Running")
    frames = [Frame(1, b"one\n"), Frame(2, b"two\n")]
    cloud.calls.answers = {"logs": (frames, None)}
    path = f"/askos/v1/containers/{uuid}/logs?follow=1&tail=3"
    got = await cloud.ask("GET", path, "ann:native:member")
    assert (got.status, got.raw) == (200, b"one\ntwo\n")
    assert cloud.calls.asked[-1][2]["follow"] is True
    got = await cloud.ask("GET", path + "&streams=1", "ann:native:member")
    assert got.raw == b"\x01\x00\x00\x00\x04one\n\x02\x00\x00\x00\x04two\n"
    cloud.calls.answers = {"logs": (frames, UnavailableError("gone"))}
    with pytest.raises(aiohttp.ClientError):  # cut off, so that nobody takes it for the whole
        await cloud.ask("GET", path, "ann:native:member")
    assert cloud.calls.streams[-1].closed


@pytest.mark.parametrize("query", ["since=%C2%B2", "since=x", "follow=maybe", "stdout=2"])
async def test_bad_parameters_of_the_stream(cloud: Cloud, query: str) -> None:
    uuid = await cloud.in_status("ann:native:member", "Running")
    cloud.calls.answers = {"logs": ([], None)}
    got = await cloud.ask("GET", f"/askos/v1/containers/{uuid}/logs?{query}", "ann:native:member")
    assert got.status == 400, got


async def test_exec_over_a_websocket(cloud: Cloud) -> None:
    token = "ann:native:member"
    uuid = await cloud.in_status(token, "Running")
    url = f"{cloud.url}/askos/v1/containers/{uuid}/exec?command=sh&command=-c&command=id&stdin=1&width=100"
    url += "&env=A%3Db&env=C%3D&workdir=/tmp"
    for code, last in ((0, "Success"), (3, "Failure")):
        started = Frame(control={"started": True})
        cloud.calls.answers = {"exec": ([started, Frame(1, b"out"), Frame(2, b"err")], {"exit_code": code})}
        protocols = ("v5.channel.k8s.io",)
        async with cloud.session.ws_connect(url, headers={"X-Auth-Token": token}, protocols=protocols) as socket:
            assert socket.protocol == "v5.channel.k8s.io"
            got = [message.data async for message in socket]
        assert got[:2] == [b"\x01out", b"\x02err"]
        assert f'"status":"{last}"'.encode() in got[2]
        assert got[2][:1] == b"\x03"
    assert cloud.calls.asked[-1][2] == {
        "capsule": uuid,
        "request": {
            "argv": ["sh", "-c", "id"], "tty": False, "stdin": True, "width": 100, "height": 24,
            "environment": ["A=b", "C="], "workdir": "/tmp",
        },
    }  # fmt: skip
    for bad in ("env=A", "env=%3Dx", "workdir=tmp"):
        headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
        got = await cloud.ask("GET", f"/askos/v1/containers/{uuid}/exec?command=id&{bad}", token, headers=headers)
        assert got.status == 400
        assert bad.partition("=")[0] in got.error["title"]
    async with asyncio.timeout(30):
        while not cloud.calls.streams[-1].closed:
            await asyncio.sleep(0.01)


async def test_exec_that_cannot_start_is_an_http_error(cloud: Cloud) -> None:
    token = "ann:native:member"
    uuid = await cloud.in_status(token, "Running")
    path = f"{cloud.url}/askos/v1/containers/{uuid}/exec?command=nosuch"
    cloud.calls.answers = {"exec": ([], RuntimeFailedError("no such file", retryable=False))}
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await cloud.session.ws_connect(path, headers={"X-Auth-Token": token})
    assert caught.value.status == 409
    for more, status in (("&width=0", 400), ("&height=x", 400), ("", 409)):
        uuid = await cloud.in_status(token, "Stopped")
        path = f"{cloud.url}/askos/v1/containers/{uuid}/exec?command=id{more}"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await cloud.session.ws_connect(path, headers={"X-Auth-Token": token})
        assert caught.value.status in (status, 409)
    got = await cloud.ask("GET", f"/askos/v1/containers/{uuid}/exec?command=id", token)
    got.refused(400, "invalid", "This is a WebSocket endpoint")
    got = await cloud.ask("GET", f"/askos/v1/containers/{uuid}/exec", token)
    got.refused(400, "schema-validation-error")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "images"), ("POST", "images/pull"), ("POST", "images/import"), ("DELETE", "images?ref=busybox")],
)
async def test_images_are_for_admins(cloud: Cloud, method: str, path: str) -> None:
    (await cloud.ask(method, f"/askos/v1/{path}")).refused(403, "policy-not-authorized")


async def test_images(cloud: Cloud) -> None:
    await cloud.in_status(cloud.project(), "Running")  # so that there is a host
    cloud.calls.answers = {
        "images": [{"id": "sha256:1"}],
        "image_pull": ([Frame(control={"current": 1, "total": 2})], {"id": "sha256:2"}),
        "image_import": ([], ["docker.io/library/x:latest"]),
        "image_remove": None,
    }
    assert (await cloud.ask("GET", "/askos/v1/images", ROOT)).body == {"images": [{"id": "sha256:1"}]}
    got = await cloud.ask("POST", "/askos/v1/images/pull", ROOT, body={"ref": "busybox"})
    assert got.raw.splitlines() == [
        b'{"status":"pulling","current":1,"total":2}', b'{"status":"done","image":{"id":"sha256:2"}}',
    ]  # fmt: skip
    assert cloud.calls.asked[-1][2] == {"ref": "docker.io/library/busybox:latest"}
    cloud.calls.answers["image_pull"] = ([], NotFoundError("no such image"))
    got = await cloud.ask("POST", "/askos/v1/images/pull", ROOT, body={"ref": "busybox"})
    assert got.raw == b'{"status":"error","message":"no such image"}\n'
    got = await cloud.ask("POST", "/askos/v1/images/import?ref=x", ROOT, data=b"t" * 700_000)
    assert got.body == {"refs": ["docker.io/library/x:latest"]}
    sent = cloud.calls.streams[-1].sent
    assert b"".join(f.data for f in sent) == b"t" * 700_000
    assert [f.eof for f in sent] == [False] * (len(sent) - 1) + [True]
    assert (await cloud.ask("DELETE", "/askos/v1/images?ref=busybox", ROOT)).status == 204
    bodies: list[Any] = [{}, [], {"ref": 5}, {"ref": "UPPER"}]
    for body in bodies:
        assert (await cloud.ask("POST", "/askos/v1/images/pull", ROOT, body=body)).status == 400
    (await cloud.ask("DELETE", "/askos/v1/images", ROOT)).refused(404, "image-not-found")
