"""Lists are made of pieces that were rendered before, and are true all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import update

from askos.adapters.sql.schema import hosts
from askos.api import hostnames
from askos.api.rendered import Blanks, Piece, Rendered
from askos.model.capsules import Capsule, CapsuleSpec, ContainerReport, Placement, Report, Wish
from askos.model.pods import Event
from askos.plan import zun_status

from .cloud import HOST, NOW, Cloud
from .pods_world import CAPSULES, labelled, make, relabel, report, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECOND = 1_000_000
ZUN = "/v1/capsules"


def capsule(uuid: str = "a", revision: int = 7) -> Capsule:
    return Capsule(
        uuid=uuid, project_id="p", user_id="u", name="n", kind="capsule", spec=CapsuleSpec(), wish=Wish("running"),
        placement=Placement(), report=Report(), created_us=NOW, revision=revision, id=3,
    )  # fmt: skip


def rendered(**shown: Any) -> Piece:
    return Blanks().piece(capsule(), shown)


# -- pieces -------------------------------------------------------------------------------------------------------


async def test_blanks_are_filled_in_when_it_is_read() -> None:
    blanks = Blanks()
    up, gone = ContainerReport("a", started_us=NOW), ContainerReport("b", exit_code=3, finished_us=NOW)
    piece = blanks.piece(capsule(), {
        "href": f"{blanks.URL}/x", "host": blanks.HOST, "rv": blanks.REVISION, "other": "<host>",
        "details": [blanks.detail("Running", up), blanks.detail("Stopped", gone), blanks.detail("Creating", None)],
    })  # fmt: skip
    assert json.loads(piece.filled(NOW + 5 * SECOND, url="http://a")) == {
        "href": "http://a/x", "host": None, "rv": "7", "other": "<host>",
        "details": ["Up 5 seconds", "Exited(3) 5 seconds ago (error)", None],
    }  # fmt: skip
    # Other readers, other moments; and what is odd in them stays a text.
    odd = json.loads(piece.filled(NOW + 6 * SECOND, url='http://"\\', host_name='h"', revision=9))
    assert (odd["href"], odd["host"], odd["rv"]) == ('http://"\\/x', 'h"', "9")
    assert odd["details"][0] == "Up 6 seconds"
    assert json.loads(piece.filled(NOW, url="http://a"))["details"][0] == "Up 0 seconds", "a clock that went back"


@pytest.mark.parametrize("status", ["Running", "Stopped", "Error", "Created", "Creating", "Restarting"])
async def test_what_is_remembered_reads_as_what_would_be_made_now(status: str) -> None:
    container = ContainerReport("a", exit_code=1, started_us=NOW + 1, finished_us=NOW + 1)
    blanks = Blanks()
    piece = blanks.piece(capsule(), {"detail": blanks.detail(status, container)})
    moments = [-5, 0, 1, SECOND, SECOND + 1, 59 * SECOND, 60 * SECOND, 61 * SECOND, 119 * SECOND, 121 * SECOND]
    moments += [3600 * SECOND, 3601 * SECOND, 7199 * SECOND, 7201 * SECOND, 86_400 * SECOND, 200_000 * SECOND, 0]
    for later in moments:
        found = json.loads(piece.filled(NOW + later))["detail"]
        assert found == zun_status.status_detail(status, container, NOW + later), later


async def test_it_is_bounded_and_never_goes_back() -> None:
    known = Rendered(limit_bytes=100)
    for uuid in "abcde":
        known.put(capsule(uuid), rendered(text="x" * 30), form=False)
    assert [uuid for uuid in "abcde" if known.get(uuid, 7, form=False)] == ["d", "e"]
    known.put(capsule("e", revision=6), rendered(), form=False)
    assert known.get("e", 6, form=False) is None
    assert known.get("e", 7, form=False) is not None
    assert known.get("e", 7, form=True) is None, "another form"
    known.put(capsule("f"), rendered(text="x" * 500), form=False)
    assert known.get("f", 7, form=False) is not None, "the newest always has room"


# -- lists --------------------------------------------------------------------------------------------------------


def admin_of(token: str) -> str:
    return f"root:{token.split(':')[1]}:admin"


async def items(cloud: Cloud, token: str, path: str = CAPSULES) -> list[dict[str, Any]]:
    got = await cloud.ask("GET", path, token)
    assert got.status == 200, got
    return list(got.body["items" if path.startswith(CAPSULES) else "capsules"])


async def placed(cloud: Cloud, token: str, name: str = "web") -> str:
    made = await make(cloud, token, name)
    await cloud.place(made["id"])
    return str(made["id"])


async def test_a_list_that_was_read_before_reads_no_capsule(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cloud.project()
    for name in "abc":
        await report(cloud, await placed(cloud, token, name), running())
    paths = (CAPSULES, ZUN, f"{CAPSULES}?labelSelector=!x")
    first = [await items(cloud, token, path) for path in paths]
    read: list[str] = []
    real = cloud.store.capsules_by_uuid

    async def counted(uuids: list[str]) -> list[Capsule]:
        read.extend(uuids)
        return await real(uuids)

    async def never(*_arguments: Any) -> Any:
        raise AssertionError("a list needs pages alone")

    monkeypatch.setattr(cloud.store, "capsules_by_uuid", counted)
    monkeypatch.setattr(cloud.store, "capsules", never)
    assert [await items(cloud, token, path) for path in paths] == first
    assert read == []
    await relabel(cloud, token, first[0][1]["id"], a="b")
    assert (await items(cloud, token))[1]["metadata"]["labels"] == {"a": "b"}
    assert read == [], "the answer to the change was rendered already"
    await report(cloud, first[0][1]["id"], running(restarts=4))
    read.clear()
    assert (await items(cloud, token))[1]["status"]["containerStatuses"][0]["restartCount"] == 4
    assert read == [first[0][1]["id"]], "one has changed, one is read"


@pytest.mark.parametrize("version", ["1.31", "1.32"])
async def test_zuns_list_is_as_each_is_shown(cloud: Cloud, version: str) -> None:
    token = cloud.project()
    uuid = await placed(cloud, token)
    await report(cloud, uuid, running())
    for caller in (token, admin_of(token)):
        for later in (1, 2, 300):
            cloud.now = NOW + later * SECOND
            try:
                got = await cloud.ask("GET", ZUN, caller, version=version)
                shown = await cloud.ask("GET", f"{ZUN}/{uuid}", caller, version=version)
            finally:
                cloud.now = NOW
            assert got.body["capsules"] == [shown.body]
            assert ("host" in shown.body) == (caller != token)
            age = f"{later} seconds" if later < 60 else "5 mins"
            assert shown.body["containers"][0]["status_detail"] == f"Up {age}"
    # The links are those of the address that the client uses.
    got = await cloud.ask("GET", ZUN, token, version=version, headers={"Host": "cloud.example:99"})
    assert got.body["capsules"][0]["links"][0]["href"] == f"http://cloud.example:99/v1/capsules/{uuid}"


async def test_a_host_that_is_renamed(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostnames, "FRESH_S", 0.0)
    token = cloud.project()
    root = admin_of(token)
    uuid = await placed(cloud, token)
    container = await cloud.create(token)
    await cloud.place(container)

    async def names() -> list[str]:
        listed = await cloud.ask("GET", "/v1/containers", root)
        return [
            (await items(cloud, root))[0]["host"],
            (await items(cloud, root, ZUN))[0]["host"],
            (await cloud.ask("GET", f"{CAPSULES}/{uuid}", root)).body["host"],
            listed.body["containers"][0]["host"],
        ]

    assert await names() == ["host-1"] * 4
    for name in ("renamed", "host-1"):
        async with cloud.database.write() as connection:
            await connection.execute(update(hosts).where(hosts.c.uuid == HOST).values(hostname=name))
        assert await names() == [name] * 4
    assert "host" not in (await items(cloud, token))[0]


async def test_a_host_that_falls_silent_is_seen_in_lists(cloud: Cloud) -> None:
    """Also by those of whom nothing is asked: what a running pod says of itself is true no more."""
    token = cloud.project()
    uuid = await placed(cloud, token)
    await report(cloud, uuid, running())
    (before,) = await items(cloud, token)
    assert before["status"].get("reason") is None
    cloud.now += 400 * SECOND
    try:
        assert uuid in await cloud.store.fail_waiting(300 * SECOND, "silent")
        assert uuid not in await cloud.store.fail_waiting(300 * SECOND, "silent"), "told once"
    finally:
        cloud.now = NOW
    (lost,) = await items(cloud, token)
    assert (lost["status"]["reason"], lost["status"]["message"]) == ("NodeLost", "silent")
    assert (await items(cloud, token, ZUN))[0]["status_reason"] == "silent"
    await report(cloud, uuid, running())
    (again,) = await items(cloud, token)
    assert again["status"] == before["status"]


async def test_selectors_decode_nothing(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cloud.project()
    await labelled(cloud, token, "a", app="web")
    await labelled(cloud, token, "b", app="db")
    path = f"{CAPSULES}?labelSelector=app%3Dweb"
    first = await items(cloud, token, path)

    async def never(*_arguments: Any) -> Any:
        raise AssertionError("what does not match is not read")

    monkeypatch.setattr(cloud.store, "capsules_by_uuid", never)
    assert await items(cloud, token, path) == first
    assert [c["metadata"]["name"] for c in first] == ["a"]


async def test_events_make_no_revision(cloud: Cloud) -> None:
    """Watchers are told nothing of an event alone, and what is rendered stays."""
    token = cloud.project()
    uuid = await placed(cloud, token)
    await report(cloud, uuid, running())
    before = await cloud.store.revision()
    for number in range(5):
        await report(cloud, uuid, running(), events=[Event("Warning", "Unhealthy", "no", "app", NOW + number)])
    assert await cloud.store.revision() == before
    assert [e.count for e in await cloud.store.events(uuid)] == [5]
