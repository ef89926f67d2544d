"""The watch of capsules: nothing is missed, nobody sees what is not theirs, and it ends as it should."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from askos.api import podwatch, selectors
from askos.model.capsules import CapsuleReport, Report
from askos.model.errors import UnauthorizedError, UnavailableError

from .cloud import HOST, Cloud
from .pods_world import CAPSULES, ended, labelled, make, relabel, remove, report, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON_S = 30.0


class Reader:
    """One open watch."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def next(self) -> tuple[str, dict[str, Any]]:
        """The next line: type and object."""
        async with asyncio.timeout(SOON_S):
            line = await self._response.content.readline()
        assert line, "the watch has ended"
        found = json.loads(line)
        assert set(found) == {"type", "object"}
        return found["type"], found["object"]

    async def told(self, count: int) -> list[tuple[str, str]]:
        """The next lines as (type, name)."""
        found = [await self.next() for _ in range(count)]
        return [(kind, shown["metadata"]["name"]) for kind, shown in found]

    async def ends(self) -> list[dict[str, Any]]:
        """What is left until the end."""
        async with asyncio.timeout(SOON_S):
            return [json.loads(line) for line in (await self._response.read()).splitlines()]


@asynccontextmanager
async def watching(
    cloud: Cloud, token: str, revision: str | int | None = None, query: str = ""
) -> AsyncIterator[Reader]:
    since = "" if revision is None else f"&resourceVersion={revision}"
    url = f"{cloud.url}{CAPSULES}?watch=true{since}{query}"
    async with cloud.session.get(url, headers={"X-Auth-Token": token}) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "application/x-ndjson"
        yield Reader(response)


async def listed(cloud: Cloud, token: str) -> str:
    got = await cloud.ask("GET", CAPSULES, token, version=None)
    return str(got.body["metadata"]["resourceVersion"])


async def delete(cloud: Cloud, token: str, uuid: str) -> None:
    got = await cloud.ask("DELETE", f"{CAPSULES}/{uuid}", token, version=None)
    assert got.status == 202


async def test_a_life(cloud: Cloud) -> None:
    token = cloud.project()
    async with watching(cloud, token, await listed(cloud, token)) as reader:
        made = await make(cloud, token)
        kind, shown = await reader.next()
        assert (kind, shown) == ("ADDED", made)
        await cloud.place(made["id"])
        kind, shown = await reader.next()
        assert (kind, shown["status"]["conditions"][0]["status"]) == ("MODIFIED", "True")
        await report(cloud, made["id"], running())
        kind, shown = await reader.next()
        assert (kind, shown["status"]["phase"]) == ("MODIFIED", "Running")
        assert shown == (await cloud.ask("GET", f"{CAPSULES}/web", token, version=None)).body
        await delete(cloud, token, made["id"])
        kind, shown = await reader.next()
        assert (kind, "deletionTimestamp" in shown["metadata"]) == ("MODIFIED", True)
        await remove(cloud, made["id"])
        kind, shown = await reader.next()
        # The last object has how the containers ended, though nobody can read the capsule any more.
        assert (kind, shown["id"]) == ("DELETED", made["id"])
        assert shown["status"]["phase"] == "Failed"
        assert shown["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143
        assert shown["metadata"]["resourceVersion"] == str(await cloud.store.revision())


@pytest.mark.parametrize("revision", [None, 0])
async def test_without_a_revision_it_begins_with_what_is_there(cloud: Cloud, revision: int | None) -> None:
    token = cloud.project()
    for name in "abc":
        await make(cloud, token, name)
    async with watching(cloud, token, revision) as reader:
        assert await reader.told(3) == [("ADDED", n) for n in "abc"]
        await delete(cloud, token, "b")
        assert await reader.told(1) == [("DELETED", "b")]


async def test_changes_are_told_once_when_they_came_together(cloud: Cloud) -> None:
    token = cloud.project()
    made = await make(cloud, token)
    since = await listed(cloud, token)
    for value in "xyz":
        await relabel(cloud, token, made["id"], a=value)
    gone = await make(cloud, token, "gone")
    await delete(cloud, token, gone["id"])
    new = await make(cloud, token, "new")
    await relabel(cloud, token, new["id"], b="c")
    async with watching(cloud, token, since) as reader:
        kind, shown = await reader.next()
        assert (kind, shown["metadata"]["name"], shown["metadata"]["labels"]) == ("MODIFIED", "web", {"a": "z"})
        # Who stops here may go on from here: everything else came later.
        assert int(shown["metadata"]["resourceVersion"]) == int(since) + 1
        assert await reader.told(1) == [("DELETED", "gone")]
        kind, shown = await reader.next()
        assert (kind, shown["metadata"]["name"], shown["metadata"]["labels"]) == ("ADDED", "new", {"b": "c"})


async def test_leaving_and_entering_a_selector(cloud: Cloud) -> None:
    token = cloud.project()
    inside = await labelled(cloud, token, "inside", app="web")
    outside = await labelled(cloud, token, "outside", app="db")
    since = await listed(cloud, token)
    async with watching(cloud, token, since, "&labelSelector=app%3Dweb") as reader:
        await relabel(cloud, token, outside, x="y")  # not seen
        await relabel(cloud, token, inside, x="y")
        assert await reader.told(1) == [("MODIFIED", "inside")]
        await relabel(cloud, token, inside, app="db")
        kind, shown = await reader.next()
        assert (kind, shown["metadata"]["labels"]) == ("DELETED", {"app": "db", "x": "y"})
        await relabel(cloud, token, inside, x="z")  # not seen any more
        await relabel(cloud, token, outside, app="web")
        assert await reader.told(1) == [("ADDED", "outside")]
        await delete(cloud, token, outside)
        assert await reader.told(1) == [("DELETED", "outside")]
        await delete(cloud, token, inside)  # not seen
        await labelled(cloud, token, "new", app="web")
        assert await reader.told(1) == [("ADDED", "new")]
    # The same for who was away meanwhile, whatever else happened to it afterwards.
    async with watching(cloud, token, since, "&labelSelector=app%3Dweb") as reader:
        # "outside" came and went meanwhile; its end is told as well.
        assert sorted(await reader.told(3)) == [("ADDED", "new"), ("DELETED", "inside"), ("DELETED", "outside")]


async def test_a_reader_that_stopped_anywhere_misses_nothing(cloud: Cloud) -> None:
    """Whoever goes on from any line ends up with what is there, in spite of labels, deletes and coalescing."""
    token, chance = cloud.project(), random.Random(5)
    known = {name: await labelled(cloud, token, name, app=chance.choice(["web", "db"])) for name in "abcdefgh"}
    since = await listed(cloud, token)
    got = await cloud.ask("GET", f"{CAPSULES}?labelSelector=app%3Dweb", token, version=None)
    start = got.body["items"]
    for number in range(45):
        name = chance.choice("abcdefgh")
        if name not in known:
            known[name] = await labelled(cloud, token, name, app=chance.choice(["web", "db"]))
        elif chance.random() < 0.2:
            await delete(cloud, token, known.pop(name))
        else:
            await relabel(cloud, token, known[name], app=chance.choice(["web", "db"]), n=str(number))
    got = await cloud.ask("GET", f"{CAPSULES}?labelSelector=app%3Dweb", token, version=None)
    truth = {c["id"]: c["metadata"]["labels"] for c in got.body["items"]}
    whole = [line async for line in lines(cloud, token, since)]
    for stop in range(len(whole) + 1):
        view = {c["id"]: c["metadata"]["labels"] for c in start}
        for kind, shown in whole[:stop]:
            apply(view, kind, shown)
        revision = whole[stop - 1][1]["metadata"]["resourceVersion"] if stop else since
        async for kind, shown in lines(cloud, token, revision):
            apply(view, kind, shown)
        assert view == truth, stop


def apply(view: dict[str, Any], kind: str, shown: dict[str, Any]) -> None:
    if kind == "DELETED":
        view.pop(shown["id"], None)
    else:
        view[shown["id"]] = shown["metadata"]["labels"]


async def lines(cloud: Cloud, token: str, revision: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """All that there is to tell now of what is labelled app=web."""
    scope = podwatch.Scope(token.split(":")[1], None, selectors.parse("app=web"))
    following = podwatch.Following(cloud.store, scope, int(revision))
    while told := await following.next():
        for kind, capsule, first in told:
            yield (
                kind,
                {
                    "id": capsule.uuid,
                    "metadata": {"labels": capsule.spec.labels, "resourceVersion": str(first)},
                },
            )


async def test_small_pages_miss_nothing_either(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podwatch, "_PAGE", 3)
    await test_a_reader_that_stopped_anywhere_misses_nothing(cloud)


async def test_concurrent_writes_leave_no_gap(cloud: Cloud) -> None:
    token = cloud.project()
    view: dict[str, Any] = {}
    seen: list[int] = []

    async def read() -> None:
        revision = since
        while True:
            # Each connection takes a few lines, and the next one goes on where it stopped.
            async with watching(cloud, token, revision) as reader:
                for _ in range(7):
                    kind, shown = await reader.next()
                    if shown["metadata"]["name"] == "last":
                        return
                    revision = shown["metadata"]["resourceVersion"]
                    seen.append(int(revision))
                    apply(view, kind, shown)

    async def life(number: int) -> None:
        made = await make(cloud, token, f"n{number}")
        for value in "abc":
            await relabel(cloud, token, made["id"], v=value)
        if number % 2:
            await delete(cloud, token, made["id"])

    since = await listed(cloud, token)
    reading = asyncio.create_task(read())
    await asyncio.gather(*(life(i) for i in range(16)))
    await make(cloud, token, "last")
    async with asyncio.timeout(60):
        await reading
    got = await cloud.ask("GET", CAPSULES, token, version=None)
    truth = {c["id"]: c["metadata"]["labels"] for c in got.body["items"] if c["metadata"]["name"] != "last"}
    assert view == truth
    assert len(truth) == 8
    assert seen == sorted(seen)


async def test_two_projects_see_their_own(cloud: Cloud) -> None:
    one, two = cloud.project(), cloud.project()
    root = f"root:{one.split(':')[1]}:admin"
    since = await listed(cloud, one)
    async with (
        watching(cloud, one, since) as first,
        watching(cloud, two, since) as second,
        watching(cloud, root, since, "&all_projects=true") as everybody,
        watching(cloud, one, since, "&namespace=blue") as blue,
    ):
        await make(cloud, one, "mine")
        await make(cloud, two, "yours")
        await cloud.create(one)  # a Zun container is none of them
        await make(cloud, one, "sky", metadata={"namespace": "blue"})
        await make(cloud, two, "more")
        assert await first.told(2) == [("ADDED", "mine"), ("ADDED", "sky")]
        assert await second.told(2) == [("ADDED", "yours"), ("ADDED", "more")]
        assert await everybody.told(4) == [("ADDED", n) for n in ("mine", "yours", "sky", "more")]
        assert await blue.told(1) == [("ADDED", "sky")]


async def test_what_another_server_wrote_is_found(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podwatch, "POLL_S", 0.05)
    token = cloud.project()
    async with watching(cloud, token, await listed(cloud, token)) as reader:
        monkeypatch.setattr(cloud.store, "_on_change", lambda _change: None)
        await make(cloud, token, "elsewhere")
        assert await reader.told(1) == [("ADDED", "elsewhere")]


async def test_idle_watches_look_together(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many watches of many projects: one look at the log for all, and reads for those alone whom a change concerns."""
    monkeypatch.setattr(podwatch, "POLL_S", 0.1)
    monkeypatch.setattr(podwatch, "LOOKS", 1000)
    tokens = [cloud.project() for _ in range(10)]
    asked: dict[str, list[Any]] = {"revision": [], "moved": [], "moved_projects": []}

    def count(name: str) -> None:
        real = getattr(cloud.store, name)

        async def counted(*arguments: Any) -> Any:
            asked[name].append(arguments)
            return await real(*arguments)

        monkeypatch.setattr(cloud.store, name, counted)

    async with AsyncExitStack() as stack:
        readers = {t: [await stack.enter_async_context(watching(cloud, t)) for _ in range(3)] for t in tokens}
        await asyncio.sleep(0.3)
        for name in asked:
            count(name)
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(1)
        looks = (asyncio.get_running_loop().time() - begun) / podwatch.POLL_S
        assert 0 < len(asked["revision"]) <= looks + 1, "one look after the other, whoever watches"
        assert (asked["moved"], asked["moved_projects"]) == ([], [])
        # Another server writes: those of its project are woken, once.
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(cloud.store, "_on_change", lambda _change: None)
            await make(cloud, tokens[3], "elsewhere")
        for reader in readers[tokens[3]]:
            assert await reader.told(1) == [("ADDED", "elsewhere")]
        await asyncio.sleep(0.3)
        assert {project for _after, project, _limit in asked["moved"]} == {tokens[3].split(":")[1]}
        assert len(asked["moved"]) <= 2, "they read together, until there is no more"
    async with asyncio.timeout(SOON_S):
        while any(task.get_name() == "change feed" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.02)


async def test_a_database_that_does_not_answer_costs_time_alone(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of the log goes on when it can, and everybody then looks: nothing is missed."""
    monkeypatch.setattr(podwatch, "POLL_S", 0.05)
    monkeypatch.setattr(podwatch, "LOOKS", 1000)
    token = cloud.project()
    real = cloud.store.revision
    failed = 0

    async def broken() -> int:
        nonlocal failed
        failed += 1
        raise UnavailableError("The database cannot do this now.")

    async with watching(cloud, token, await listed(cloud, token)) as reader:
        await asyncio.sleep(0.15)
        monkeypatch.setattr(cloud.store, "revision", broken)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(cloud.store, "_on_change", lambda _change: None)
            await make(cloud, token, "meanwhile")
        async with asyncio.timeout(SOON_S):
            while failed < 2:
                await asyncio.sleep(0.02)
        monkeypatch.setattr(cloud.store, "revision", real)
        assert await reader.told(1) == [("ADDED", "meanwhile")]


async def test_bookmarks(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podwatch, "BOOKMARK_S", 0.0)
    monkeypatch.setattr(podwatch, "POLL_S", 0.05)
    token = cloud.project()
    await make(cloud, cloud.project())
    async with watching(cloud, token, None, "&allowWatchBookmarks=true") as reader:
        kind, shown = await reader.next()
        assert (kind, shown["kind"]) == ("BOOKMARK", "Capsule")
        # The revision goes on although nothing of this project has happened.
        assert shown["metadata"] == {"resourceVersion": str(await cloud.store.revision())}
    async with watching(cloud, token, None, "&timeoutSeconds=0") as reader:
        assert await reader.ends() == []


async def test_forgotten_revisions(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cloud.project()
    since = await listed(cloud, token)
    for name in "abc":
        await make(cloud, token, name)
    newest = await cloud.store.revision()
    await cloud.store.prune_changes(1)
    for revision in (since, newest - 2, newest + 1):
        got = await cloud.ask("GET", f"{CAPSULES}?watch=true&resourceVersion={revision}", token, version=None)
        got.refused(410, "revision-gone")
    async with watching(cloud, token, newest - 1) as reader:
        assert await reader.told(1) == [("ADDED", "c")]
        # While it is being read, too: the reader is told to list anew.
        monkeypatch.setattr(podwatch, "POLL_S", 0.05)
        real = cloud.store.moved

        async def forgetful(after: int, *_more: Any) -> Any:
            return await real(0, *_more)

        monkeypatch.setattr(cloud.store, "moved", forgetful)
        (last,) = await reader.ends()
        assert (last["type"], last["object"]["code"], last["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_it_ends_with_the_token(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podwatch, "TOKEN_S", 0.0)
    monkeypatch.setattr(podwatch, "POLL_S", 0.05)
    token = cloud.project()
    async with watching(cloud, token) as reader:
        await make(cloud, token)
        assert await reader.told(1) == [("ADDED", "web")]

        async def refuse(_token: str) -> None:
            raise UnauthorizedError("The token is not valid.")

        monkeypatch.setattr(cloud.identity, "validate", refuse)
        assert await reader.ends() == []


async def test_it_ends_when_its_time_is_over(cloud: Cloud) -> None:
    token = cloud.project()
    await make(cloud, token)
    async with watching(cloud, token, None, "&timeoutSeconds=1&allowWatchBookmarks=true") as reader:
        found = await reader.ends()
    assert [line["type"] for line in found] == ["ADDED", "BOOKMARK"]


async def test_a_reader_that_has_gone_is_forgotten(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podwatch, "POLL_S", 0.02)
    token = cloud.project()
    async with watching(cloud, token) as reader:
        await make(cloud, token)
        await reader.told(1)
        assert token.split(":")[1] in cloud.watch._followers
    async with asyncio.timeout(SOON_S):
        while token.split(":")[1] in cloud.watch._followers:
            await asyncio.sleep(0.02)


async def test_a_slow_reader_holds_up_nobody(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that reads nothing is waited for, while others go on; nothing piles up for it."""
    monkeypatch.setattr(podwatch, "_PAGE", 5)
    token = cloud.project()
    note = {"annotations": {"note": "x" * 200_000}}
    since = await listed(cloud, token)
    reads = 0
    real = cloud.store.moved

    async def counted(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return await real(*arguments)

    reader, writer = await asyncio.open_connection("127.0.0.1", int(cloud.url.rpartition(":")[2]), limit=1024)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    path = f"{CAPSULES}?watch=true&resourceVersion={since}"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\n\r\n".encode())
    assert b"200 OK" in await reader.readline()
    monkeypatch.setattr(cloud.store, "moved", counted)
    for number in range(60):
        await make(cloud, token, f"n{number:02}", metadata=note)
    stalled = reads
    for number in range(60, 65):
        await make(cloud, token, f"n{number:02}", metadata=note)
    assert reads == stalled, "it reads on for somebody who takes nothing"
    async with watching(cloud, token, since) as quick:
        assert [name for _, name in await quick.told(65)] == [f"n{n:02}" for n in range(65)]
    writer.close()


async def test_the_final_state_is_told_by_the_host(cloud: Cloud) -> None:
    """A gone report without a pod's state leaves the last one that was reported."""
    token = cloud.project()
    made = await make(cloud, token)
    await cloud.place(made["id"])
    await report(cloud, made["id"], ended(code=7), phase="Failed")
    since = await listed(cloud, token)
    await delete(cloud, token, made["id"])
    (capsule,) = await cloud.store.capsules_by_uuid([made["id"]])
    gone = CapsuleReport(made["id"], capsule.placement.epoch, Report(capsule.wish.generation), gone=True)
    assert await cloud.store.apply_reports(HOST, [gone]) == [made["id"]]
    async with watching(cloud, token, since) as reader:
        kind, shown = await reader.next()
    assert kind == "DELETED"
    assert shown["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
