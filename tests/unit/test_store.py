"""The store on a real SQLite file: transactions, addresses, wishes, hosts, the change log, and being killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import uuid as uuids
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from sqlalchemy import text

from askos.adapters.sql.schema import capsules, networks, ports
from askos.adapters.sql.store import SqlStore
from askos.loops.placement import HOST_GONE
from askos.model.capsules import (
    Capsule,
    Wish,
)
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.plan import zun_status
from askos.ports.store import Change, Query

from .cloud import NOW, POOL, facts
from .store_subject import HOST, OTHER, Subject, report, rewish, subject

__all__ = ["subject"]  # fixtures

# -- creating ---------------------------------------------------------------------------------------------------------


async def test_a_create_claims_an_address(subject: Subject) -> None:
    made = await subject.create()
    (port,), (network,) = made.ports, made.networks
    net = IPv4Network(network.cidr)
    assert net.subnet_of(IPv4Network(POOL))
    assert net.prefixlen == 22
    assert network.gateway == str(net.network_address + 1)
    assert IPv4Address(port.address) == net.network_address + 2
    assert (port.network_uuid, port.capsule_uuid, network.project_id) == (network.uuid, made.uuid, "p")
    assert await subject.get(made.uuid) == made
    # A second store on the same file, that has cached nothing, reads the same.
    assert await subject.another().capsules_by_uuid([made.uuid]) == [made]
    second, third = await subject.create(), await subject.create("q")
    assert second.networks == [network]
    assert second.ports[0].address != port.address
    assert not IPv4Network(third.networks[0].cidr).overlaps(net)


async def test_fifty_creates_at_once_on_two_servers_never_share_an_address(subject: Subject) -> None:
    other = subject.another()
    made = await asyncio.gather(
        *(subject.create(f"p{i % 3}", other if i % 2 else None, name=f"n{i}") for i in range(50))
    )
    addresses = [c.ports[0].address for c in made]
    assert len(set(addresses)) == 50
    assert len({c.ports[0].mac for c in made}) == 50
    assert len({c.id for c in made}) == 50
    assert len({c.networks[0].cidr for c in made}) == await subject.count(networks) == 3
    assert not {c.networks[0].gateway for c in made} & set(addresses)
    for c in made:
        assert IPv4Address(c.ports[0].address) in IPv4Network(c.networks[0].cidr)


async def test_an_address_comes_back_with_its_capsule_and_rests(subject: Subject) -> None:
    first, second = await subject.create(), await subject.create()
    await subject.store.wish(first.uuid, rewish("deleted"))
    assert await subject.count(ports) == 1
    third = await subject.create()
    assert third.ports[0].address not in (first.ports[0].address, second.ports[0].address)


async def test_a_full_network_refuses_and_leaves_nothing(subject: Subject) -> None:
    made = await subject.create()
    net = IPv4Network(made.networks[0].cidr)
    used = int(IPv4Address(made.ports[0].address))
    taken = [
        {"uuid": str(uuids.uuid4()), "network_uuid": made.networks[0].uuid, "capsule_uuid": made.uuid,
         "address": str(IPv4Address(n)), "address_number": n, "mac": "x", "created_us": 0}
        for n in range(int(net.network_address) + 2, int(net.broadcast_address))
        if n != used
    ]  # fmt: skip
    async with subject.database.write() as connection:
        await connection.execute(ports.insert(), taken)
    before = await subject.store.revision()
    with pytest.raises(ConflictError, match="all addresses of network default"):
        await subject.create()
    assert await subject.count(capsules) == 1
    assert await subject.store.revision() == before
    assert len(subject.told) == 1
    await subject.create("q")  # others are not concerned
    async with subject.database.write() as connection:
        await connection.execute(ports.delete().where(ports.c.address_number == used + 7))
    assert (await subject.create()).ports[0].address == str(IPv4Address(used + 7))


async def test_an_empty_pool_begins_anew(subject: Subject) -> None:
    async with subject.database.write() as connection:
        await connection.execute(text("UPDATE cloud SET value = '10.9.0.0/21' WHERE key = 'network_pool'"))
    one, two = await subject.create("p1"), await subject.create("p2")
    assert {one.networks[0].cidr, two.networks[0].cidr} == {"10.9.0.0/22", "10.9.4.0/22"}
    # Networks live apart, so that two projects can have one range.
    assert (await subject.create("p3")).networks[0].cidr == "10.9.0.0/22"


async def test_a_fact_is_made_once(subject: Subject) -> None:
    stores = [subject.store, subject.another()]
    found = await asyncio.gather(*(stores[i % 2].fact("k", lambda i=i: str(i)) for i in range(6)))  # type: ignore[misc]
    assert len(set(found)) == 1


# -- wishes -----------------------------------------------------------------------------------------------------------


async def test_what_a_change_raises_rolls_back(subject: Subject) -> None:
    made = await subject.create()
    told = list(subject.told)

    def refuse(_c: Capsule) -> Wish:
        raise ConflictError("no")

    with pytest.raises(ConflictError):
        await subject.store.wish(made.uuid, refuse)
    assert await subject.get(made.uuid) == made
    assert subject.told == told
    with pytest.raises(NotFoundError):
        await subject.store.wish("nobody", rewish("stopped"))
    await subject.store.wish(made.uuid, rewish("stopped"))  # the store still works


async def test_wishes_at_once_all_count(subject: Subject) -> None:
    made = await subject.placed()
    stores = [subject.store, subject.another()]
    await asyncio.gather(*(stores[i % 2].wish(made.uuid, rewish("running")) for i in range(20)))
    assert (await subject.get(made.uuid)).wish.generation == 21


async def test_deleting_what_has_no_host_removes_it(subject: Subject) -> None:
    made = await subject.create()
    await subject.store.wish(made.uuid, rewish("deleted"))
    assert await subject.gone(made.uuid)
    assert await subject.count(ports) == 0
    assert subject.told[-1] == Change(
        await subject.store.revision(), "container", made.uuid, deleted=True, project_id="p"
    )


async def test_deleting_what_has_a_host_waits_for_it(subject: Subject) -> None:
    made = await subject.placed()
    await subject.store.wish(made.uuid, rewish("deleted"))
    now = await subject.get(made.uuid)
    assert now.wish.state == "deleted"
    assert now.ports == made.ports
    assert subject.told[-1].host_uuid == HOST
    assert not subject.told[-1].deleted


# -- hosts ------------------------------------------------------------------------------------------------------------


async def test_each_link_is_a_new_session(subject: Subject) -> None:
    assert await subject.store.register_host(facts(HOST, "one"), "nova") == 1
    assert await subject.store.register_host(facts(HOST, "renamed", cpus=8), "ignored") == 2
    (host,) = await subject.store.hosts()
    assert (host.facts.hostname, host.facts.cpus, host.session, host.connected) == ("renamed", 8, 2, True)
    assert (host.availability_zone, host.last_seen_us) == ("nova", NOW)
    subject.now += 5
    await subject.store.host_seen(HOST, 1, connected=False)  # the end of the old link comes late
    assert (await subject.store.hosts())[0].connected
    await subject.store.host_seen(HOST, 2, connected=False)
    (host,) = await subject.store.hosts()
    assert (host.connected, host.last_seen_us) == (False, NOW + 5)
    with pytest.raises(ConflictError, match="renamed"):
        await subject.store.register_host(facts(OTHER, "renamed"), "nova")
    assert len(await subject.store.hosts()) == 1


async def test_assignments(subject: Subject) -> None:
    mine, other = await subject.placed(), await subject.placed(OTHER)
    loose = await subject.create()
    found = await subject.store.assignments(HOST)
    assert [a.capsule_uuid for a in found] == [mine.uuid]
    (a,) = found
    assert (a.epoch, a.spec, a.wish, a.ports, a.networks, a.report) == (
        1, mine.spec, mine.wish, mine.ports, mine.networks, mine.report,
    )  # fmt: skip
    asked = [other.uuid, mine.uuid, loose.uuid, "nobody"]
    assert [a.capsule_uuid for a in await subject.store.assignments_of(HOST, asked)] == [mine.uuid]
    assert await subject.store.assignments(str(uuids.uuid4())) == []


async def test_unknown_sort_keys_and_markers(subject: Subject) -> None:
    with pytest.raises(InvalidError):
        await subject.store.page(Query(sort_key="spec"))
    with pytest.raises(NotFoundError):
        await subject.store.page(Query(marker="nobody"))


# -- the change log ---------------------------------------------------------------------------------------------------


async def test_the_change_log_is_complete_and_in_order(subject: Subject) -> None:
    """A reader that only follows the log never misses anything and never sees anything out of order."""
    random.seed(7)
    stores = [subject.store, subject.another()]
    await subject.hosts()
    read: list[Change] = []
    done = False

    async def follow() -> None:
        while not done or await stores[1].changes(read[-1].revision if read else 0):
            read.extend(await stores[1].changes(read[-1].revision if read else 0, limit=3))
            await asyncio.sleep(0)

    async def life(store: SqlStore) -> None:
        made = await subject.create(store=store)
        await store.place(made.uuid, lambda _c, _l: HOST, "none")
        now = await subject.get(made.uuid)
        await store.apply_reports(HOST, [report(now, "running")])
        if random.random() < 0.5:
            await store.wish(made.uuid, rewish("deleted"))
            now = await subject.get(made.uuid)
            await store.apply_reports(HOST, [report(now, "none", gone=True)])

    reader = asyncio.create_task(follow())
    await asyncio.gather(*(life(stores[i % 2]) for i in range(12)))
    done = True
    await reader
    whole = await subject.store.changes(0)
    assert read == whole
    revisions = [c.revision for c in whole]
    assert revisions == sorted(set(revisions))
    assert {(c.revision, c.uuid, c.deleted) for c in subject.told} == {(c.revision, c.uuid, c.deleted) for c in whole}
    last = {c.uuid: c for c in whole if c.kind == "container"}
    living = {c.uuid: c for c in await subject.store.capsules(Query())}
    assert 0 < len(living) < 12
    assert set(last) >= set(living)
    for uuid, change in last.items():
        assert change.deleted == (uuid not in living)
        if uuid in living:
            assert living[uuid].revision == change.revision
    assert await subject.store.revision() == revisions[-1]


async def test_the_columns_to_search_by_say_what_is_shown(subject: Subject) -> None:
    """Whatever happens in whatever order, a filter by status or task finds what a reader is shown."""
    chance = random.Random(11)
    await subject.hosts()
    for i in range(4):
        await subject.create(auto_remove=i == 0)
    seen = set()
    for _ in range(60):
        subject.now += 400_000_000 * (chance.random() < 0.1)
        living = await subject.store.capsules(Query())
        if not living:
            break
        c = chance.choice(living)
        match chance.randrange(5):
            case 0:
                choice = chance.choice([HOST, None])
                await subject.store.place(c.uuid, lambda _c, _l, choice=choice: choice, "none")  # type: ignore[misc]
            case 1:
                await subject.store.wish(c.uuid, rewish(chance.choice(["running", "stopped"])))
            case 2 | 3:
                state = chance.choice(["created", "running", "exited", "error", "none"])
                more = {"settled": chance.random() < 0.7, "generation": c.wish.generation - chance.randrange(2)}
                await subject.store.apply_reports(HOST, [report(c, state, **more)])  # type: ignore[arg-type]
            case _:
                await subject.store.fail_waiting(300_000_000, HOST_GONE)
        for c in await subject.store.capsules(Query()):
            view = zun_status.view(c.wish, c.placement, c.report)
            seen.add(view.status)
            found = await subject.store.page(Query(filters={"status": view.status}))
            assert (c.uuid, c.revision) in found
            if view.task_state is not None:
                assert (c.uuid, c.revision) in await subject.store.page(Query(filters={"task_state": view.task_state}))
    assert len(seen) >= 5, seen


async def test_revisions_go_on_after_pruning(subject: Subject) -> None:
    for _ in range(6):
        await subject.create()
    newest = await subject.store.revision()
    await subject.store.prune_changes(2)
    assert [c.revision for c in await subject.store.changes(newest - 2)] == [newest - 1, newest]
    for forgotten in (0, newest - 3):
        with pytest.raises(InvalidError, match="not known") as gone:
            await subject.store.changes(forgotten)
        assert gone.value.code == "revision-gone"
    await subject.store.prune_changes(4)  # more than there are: nothing comes back, nothing goes
    assert len(await subject.store.changes(newest - 2)) == 2
    await subject.store.prune_changes(0)
    assert await subject.store.changes(newest) == []
    assert await subject.store.revision() == newest
    made = await subject.create()
    assert made.revision == newest + 1


# -- being killed, and others who write -------------------------------------------------------------------------------

_CREATOR = """
import asyncio, sys, uuid
from pathlib import Path
from askos.adapters.sql.database import Database, sqlite_url
from askos.adapters.sql.store import SqlStore
from tests.unit.store_subject import new

async def main():
    store = SqlStore(Database(sqlite_url(Path(sys.argv[1]))))
    while True:
        made = await store.create_capsule(new(name="child"))
        print(made.uuid, made.ports[0].address, flush=True)

asyncio.run(main())
"""


async def test_what_was_accepted_survives_a_kill(subject: Subject) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CREATOR, str(subject.path), stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert child.stdout is not None
    accepted: list[str] = []
    try:
        async with asyncio.timeout(30):
            while len(accepted) < 25:
                accepted.append((await child.stdout.readline()).decode().strip())
                if len(accepted) % 5 == 0:
                    await subject.create(name="mine")  # two writers, no lock errors
    finally:
        child.send_signal(signal.SIGKILL)
        accepted += [line for line in (await child.stdout.read()).decode().split("\n") if len(line) > 36]
        await child.wait()
    found = {c.uuid: c for c in await subject.store.capsules(Query())}
    for line in accepted:
        uuid, _, address = line.partition(" ")
        assert found[uuid].ports[0].address == address
    # At most one more had been committed but not told; and nothing is half there.
    assert len(found) - 5 - len(accepted) in (0, 1)
    assert all(len(c.ports) == 1 for c in found.values())
    assert len({c.ports[0].address for c in found.values()}) == len(found) == await subject.count(ports)
    logged = {c.uuid for c in await subject.store.changes(0)}
    assert logged == set(found)
    await subject.create()


async def test_a_write_waits_for_another_process(subject: Subject) -> None:
    import sqlite3

    other = sqlite3.connect(subject.path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        creating = asyncio.create_task(subject.create())
        await asyncio.sleep(0.1)
        assert not creating.done()
        assert await subject.store.capsules(Query()) == []  # readers are not held up
        other.execute("COMMIT")
        assert await subject.gone((await creating).uuid) is False
    finally:
        other.close()


async def test_a_request_that_is_given_up_leaves_no_transaction_open(subject: Subject) -> None:
    told: list[str] = []
    for steps in range(25):
        creating = asyncio.create_task(subject.create(name=f"n{steps}"))
        for _ in range(steps):
            await asyncio.sleep(0)
        creating.cancel()
        outcome = (await asyncio.gather(creating, return_exceptions=True))[0]
        if isinstance(outcome, Capsule):
            told.append(outcome.uuid)
    made = await subject.create()
    found = {c.uuid: c for c in await subject.store.capsules(Query())}
    assert {made.uuid, *told} <= set(found)
    assert all(len(c.ports) == 1 for c in found.values())
    assert await subject.count(ports) == len(found) == len(await subject.store.changes(0))


async def test_readers_see_only_what_is_committed(subject: Subject) -> None:
    other = subject.another()
    async with subject.database.write() as connection:
        await connection.execute(text("INSERT INTO cloud (key, value) VALUES ('x', 'y')"))
        async with subject.databases[1].read() as reader:
            assert (await reader.execute(text("SELECT count(*) FROM cloud WHERE key = 'x'"))).scalar() == 0
    assert await other.fact("x", lambda: "z") == "y"
