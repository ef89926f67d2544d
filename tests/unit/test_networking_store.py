"""Ports of capsules in the store's transactions: wishes, plugging and unplugging, groups, and what hosts are told."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid as uuids
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from askos.adapters.identity import store as identity_store
from askos.adapters.sql import migrate
from askos.adapters.sql.database import Database, sqlite_url
from askos.adapters.sql.networking import SqlNetworking
from askos.adapters.sql.schema import metadata
from askos.loops.networks import NetworkLoop
from askos.model.capsules import Capsule, CapsuleSpec, ContainerSpec, Wish
from askos.model.errors import AskosError, ConflictError, InvalidError, NotFoundError, UnavailableError
from askos.model.networks import NetWish, NetworkState, SecurityRule
from askos.plan import pools
from askos.ports.network_store import NewPort, NewSubnet, PortQuery, Who
from askos.ports.store import NewCapsule

from .cloud import HOST, ZONE, Cloud, facts, open_cloud
from .fakes import FakeHostCalls

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER = "11111111-0000-4000-8000-000000000002"


@pytest_asyncio.fixture(loop_scope="module")
async def cloud(template: Path, tmp_path: Path) -> AsyncIterator[Cloud]:
    async with open_cloud(template, tmp_path) as made:
        yield made


def capsule(project: str = "p", nets: list[NetWish] | None = None, groups: list[str] | None = None) -> NewCapsule:
    spec = CapsuleSpec([ContainerSpec("main", "busybox")], security_groups=groups or [])
    return NewCapsule(str(uuids.uuid4()), "container", project, "u", "n", spec, Wish("running", run=1), nets=nets or [])


async def make(cloud: Cloud, *args: Any, **more: Any) -> Capsule:
    return await cloud.store.create_capsule(capsule(*args, **more))


async def network(cloud: Cloud, cidr: str, project: str = "p", *, shared: bool = False) -> str:
    net = await cloud.networking.create_network(project, "net", shared=shared)
    await cloud.networking.create_subnet(NewSubnet(net.uuid, cidr=cidr))
    return net.uuid


async def groups_of(cloud: Cloud, made: Capsule) -> list[list[str]]:
    found = await cloud.networking.ports(PortQuery(device_ids=[made.uuid]))
    return [port.groups for port in found]


async def test_the_usual_network(cloud: Cloud) -> None:
    default = (await make(cloud)).networks[0]
    assert (default.name, default.project_id) == ("default", "p")
    assert (await make(cloud)).networks == [default]
    shared = await network(cloud, "10.1.0.0/24", "others", shared=True)
    assert (await make(cloud, "q")).networks[0].uuid == shared
    assert (await make(cloud)).networks == [default]
    cloud.now += 1
    own = await network(cloud, "10.2.0.0/24", "r")
    cloud.now += 1
    await network(cloud, "10.3.0.0/24", "r")
    assert (await make(cloud, "r")).networks[0].uuid == own


async def test_the_default_network_goes_where_nobody_is(cloud: Cloud) -> None:
    first = next(iter(pools.subnets("10.64.0.0/12")))
    await network(cloud, "10.64.0.0/16", "somebody")
    found = (await make(cloud)).networks[0]
    assert found.cidr == "10.65.0.0/22"
    assert pools.overlapping(found.cidr, [first]) is None


async def test_several_networks_in_the_order_wished(cloud: Cloud) -> None:
    a, b = await network(cloud, "10.1.0.0/24"), await network(cloud, "10.2.0.0/24")
    made = await make(cloud, nets=[NetWish(b, address="10.2.0.9"), NetWish(a)])
    assert [n.uuid for n in made.networks] == [b, a]
    assert [p.address for p in made.ports] == ["10.2.0.9", "10.1.0.2"]
    (again,) = await cloud.store.capsules_by_uuid([made.uuid])
    assert (again.ports, again.networks) == (made.ports, made.networks)


@pytest.mark.parametrize(
    ("wish", "error", "code"),
    [
        (NetWish("nowhere"), NotFoundError, "network-not-found"),
        (NetWish(port_uuid="nowhere"), NotFoundError, "port-not-found"),
        (NetWish(address="1.2.3.4"), InvalidError, "invalid-ip-for-subnet"),
        (NetWish(address="nonsense"), InvalidError, "invalid-ip-for-network"),
    ],
)
async def test_wishes_that_cannot_be(cloud: Cloud, wish: NetWish, error: type[AskosError], code: str) -> None:
    with pytest.raises(error) as caught:
        await make(cloud, nets=[wish])
    assert caught.value.code == code
    assert await cloud.store.unplaced() == []


async def test_a_wish_undone_leaves_nothing(cloud: Cloud) -> None:
    net = await network(cloud, "10.1.0.0/24")
    port = await cloud.networking.create_port(NewPort(net, "p"), Who("p"))
    with pytest.raises(InvalidError, match="already been attached"):
        await make(cloud, nets=[NetWish(port_uuid=port.uuid), NetWish(net)])
    assert await cloud.networking.ports(PortQuery()) == [port]
    theirs = await cloud.networking.create_port(NewPort(net, "q"), Who("q", is_admin=True))
    with pytest.raises(InvalidError) as caught:
        await make(cloud, nets=[NetWish(port_uuid=theirs.uuid)])
    assert caught.value.code == "port-not-usable"
    public = await cloud.networking.ensure_external()
    with pytest.raises(ConflictError, match="Nothing can be on the external network public"):
        await make(cloud, nets=[NetWish(public.uuid)])
    bare = await cloud.networking.create_network("p", "bare")
    with pytest.raises(ConflictError, match="no subnet"):
        await make(cloud, nets=[NetWish(bare.uuid)])


async def test_one_address_is_given_once(cloud: Cloud) -> None:
    net = await network(cloud, "10.1.0.0/24")
    wish = [NetWish(net, address="10.1.0.50")]
    ends = await asyncio.gather(*(make(cloud, nets=wish) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(end, Capsule) for end in ends) == 1
    assert {type(end) for end in ends} == {Capsule, ConflictError}


async def test_plugging_and_unplugging(cloud: Cloud) -> None:
    a, b = await network(cloud, "10.1.0.0/24"), await network(cloud, "10.2.0.0/24")
    made = await make(cloud, nets=[NetWish(a)])
    own = await cloud.networking.create_port(NewPort(b, "p", name="own"), Who("p"))
    with pytest.raises(InvalidError, match="already been attached"):
        await cloud.store.attach_port(made.uuid, NetWish(a))
    after = await cloud.store.attach_port(made.uuid, NetWish(port_uuid=own.uuid))
    assert (after.wish.generation, after.wish.task) == (made.wish.generation + 1, "network_attaching")
    assert [p.uuid for p in after.ports] == [made.ports[0].uuid, own.uuid]
    assert [p.preserve for p in after.ports] == [False, True]
    (told,) = await cloud.store.capsules_by_uuid([made.uuid])
    assert (told.ports, told.networks, told.wish) == (after.ports, after.networks, after.wish)
    after = await cloud.store.detach_port(made.uuid, network_uuid=a)
    assert (after.wish.generation, after.wish.task) == (made.wish.generation + 2, "network_detaching")
    assert [p.uuid for p in after.ports] == [own.uuid]
    after = await cloud.store.detach_port(made.uuid, port_uuid=own.uuid)
    assert after.ports == []
    free = await cloud.networking.port("own", Who("p"))
    assert (free.capsule_uuid, free.device_id, free.address) == ("", "", own.address)
    assert await cloud.networking.ports(PortQuery(network_uuids=[a])) == []
    with pytest.raises(InvalidError, match="not attached"):
        await cloud.store.detach_port(made.uuid, network_uuid=a)
    back = await cloud.store.attach_port(made.uuid, NetWish(b, address="10.2.0.200"))
    assert [p.address for p in back.ports] == ["10.2.0.200"]


async def test_groups_of_a_capsule(cloud: Cloud) -> None:
    default = await cloud.networking.default_group("p")
    made = await make(cloud)
    assert await groups_of(cloud, made) == [[default.uuid]]
    web = await cloud.networking.create_group("p", "web")
    theirs = await cloud.networking.create_group("q", "web")
    assert await cloud.networking.group_ids(["web", web.uuid, "default"], "p") == [web.uuid, default.uuid]
    with pytest.raises(InvalidError):
        await cloud.networking.group_ids([theirs.uuid], "p")
    after = await cloud.store.secure(made.uuid, lambda has: [*has, web.uuid])
    assert (after.spec.security_groups, after.wish.generation) == ([web.uuid], made.wish.generation + 1)
    assert await groups_of(cloud, made) == [[web.uuid]]
    b = await network(cloud, "10.2.0.0/24")
    await cloud.store.attach_port(made.uuid, NetWish(b))
    assert await groups_of(cloud, made) == [[web.uuid], [web.uuid]]
    await cloud.store.secure(made.uuid, lambda _has: [])
    assert await groups_of(cloud, made) == [[default.uuid], [default.uuid]]
    with pytest.raises(NotFoundError):
        await cloud.store.secure(made.uuid, lambda _has: [theirs.uuid])


# -- hosts -----------------------------------------------------------------------------------------------------------


async def placed(cloud: Cloud, host: str, *args: Any, **more: Any) -> Capsule:
    made = await make(cloud, *args, **more)
    known = [h.facts.uuid for h in await cloud.store.hosts()]
    if host not in known:
        await cloud.store.register_host(facts(host, f"host-{host[-1]}"), ZONE)
    await cloud.store.place(made.uuid, lambda _c, _l: host, "none")
    return made


async def test_what_hosts_are_told(cloud: Cloud) -> None:
    web = await cloud.networking.create_group("p", "web")
    rule, _ = await cloud.networking.create_rule(
        SecurityRule(
            "", web.uuid, "ingress", "tcp", 80, 80, remote_group=(await cloud.networking.default_group("p")).uuid
        ),
        Who("p"),
    )
    default = await cloud.networking.default_group("p")
    here = await placed(cloud, HOST, groups=[web.uuid])
    there = await placed(cloud, OTHER)
    await make(cloud)  # has no host: nobody needs to know it
    foreign = await placed(cloud, OTHER, "q")
    states = await cloud.networking.states()
    assert set(states) == {HOST, OTHER}
    (port,) = states[HOST].ports
    assert (port.uuid, port.address, port.groups) == (here.ports[0].uuid, here.ports[0].address, [web.uuid])
    groups = {group.uuid: group for group in states[HOST].groups}
    assert set(groups) == {web.uuid, default.uuid}
    assert rule in groups[web.uuid].rules
    net, address = here.ports[0].network_uuid, there.ports[0].address
    assert (groups[default.uuid].rules, groups[default.uuid].members_of) == ([], {net: [address]})
    told = {group.uuid: group for group in states[OTHER].groups}
    assert web.uuid not in told
    assert told[default.uuid].members_of == {net: [address]}
    theirs = (await cloud.networking.default_group("q")).uuid
    assert told[theirs].members_of == {foreign.ports[0].network_uuid: [foreign.ports[0].address]}


class Sessions(dict[str, int]):
    """Which hosts are connected."""


async def test_the_loop_sends_what_is_news(cloud: Cloud) -> None:
    calls, sessions = FakeHostCalls(), Sessions({HOST: 1})
    calls.answers["network_state"] = None
    loop = NetworkLoop(cloud.networking, calls, lambda: sessions)

    async def sent() -> list[tuple[str, NetworkState]]:
        await loop.once()
        await loop.settled()
        found = [(host, msgspec.convert(args["state"], NetworkState)) for host, _, args, _ in calls.asked]
        calls.asked.clear()
        return found

    assert [(host, s.ports) for host, s in await sent()] == [(HOST, [])]
    assert await sent() == []
    made = await placed(cloud, HOST)
    ((host, state),) = await sent()
    assert (host, [p.uuid for p in state.ports]) == (HOST, [made.ports[0].uuid])
    assert await sent() == []
    # Somebody else's doings on another host are nothing to this one.
    await placed(cloud, OTHER, "q")
    assert await sent() == []
    # A group's new rule is.
    group = await cloud.networking.default_group("p")
    await cloud.networking.create_rule(SecurityRule("", group.uuid, "ingress", "icmp"), Who("p"))
    ((_, after),) = await sent()
    assert after.revision > state.revision
    assert any(rule.protocol == "icmp" for g in after.groups for rule in g.rules)
    # A host that connects anew has confirmed nothing.
    sessions[HOST] = 2
    assert [s.ports for _, s in await sent()] == [after.ports]
    # One that fails gets it again.
    calls.answers["network_state"] = UnavailableError("away")
    await cloud.networking.create_rule(SecurityRule("", group.uuid, "ingress", "udp"), Who("p"))
    assert len(await sent()) == 1
    calls.answers["network_state"] = None
    assert len(await sent()) == 1
    assert await sent() == []


async def test_a_slow_host_keeps_no_other_waiting_and_gets_the_newest(cloud: Cloud) -> None:
    await placed(cloud, HOST)
    await placed(cloud, OTHER)
    answer = asyncio.Event()
    seen: dict[str, list[NetworkState]] = {HOST: [], OTHER: []}

    class Calls(FakeHostCalls):
        async def call(self, host_uuid: str, method: str, arguments: dict[str, Any], timeout_s: float) -> Any:
            seen[host_uuid].append(msgspec.convert(arguments["state"], NetworkState))
            if host_uuid == HOST:
                await answer.wait()

    loop = NetworkLoop(cloud.networking, Calls(), lambda: {HOST: 1, OTHER: 1})
    await loop.once()
    for _ in range(2):
        await placed(cloud, OTHER)
        await loop.once()
        await asyncio.sleep(0)
    assert [len(s.ports) for s in seen[OTHER]] == [1, 2, 3]
    assert len(seen[HOST]) == 1
    answer.set()
    await loop.settled()
    assert len(seen[HOST]) == 2
    assert max(len(of) for g in seen[HOST][-1].groups for of in g.members_of.values()) == 4


async def test_the_loop_is_woken(cloud: Cloud) -> None:
    calls = FakeHostCalls()
    calls.answers["network_state"] = None
    loop = NetworkLoop(cloud.networking, calls, lambda: {HOST: 1}, every_s=3600)
    running = asyncio.create_task(loop.run())
    try:
        async with asyncio.timeout(20):
            while not calls.asked:
                await asyncio.sleep(0.01)
            await placed(cloud, HOST)
            loop.bell.ring()
            while len(calls.asked) < 2:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(calls.asked[-1][2]["state"]["ports"]) == 1


async def test_the_external_range_follows_the_settings_until_it_is_used(cloud: Cloud) -> None:
    public = await cloud.networking.ensure_external()
    assert public.subnet is not None
    assert public.subnet.cidr == "172.24.4.0/24"
    other = SqlNetworking(cloud.database, external_cidr="172.25.0.0/28")
    moved = await other.ensure_external()
    assert moved.uuid == public.uuid
    assert moved.subnet is not None
    assert moved.subnet.cidr == "172.25.0.0/28"
    floating = await other.create_floating("p", public.uuid, Who("p"))
    assert floating.address.address == "172.25.0.2"
    kept = await cloud.networking.ensure_external()
    assert kept.subnet == moved.subnet
    for _ in range(12):
        await other.create_floating("p", public.uuid, Who("p"))
    with pytest.raises(ConflictError):
        await other.create_floating("p", public.uuid, Who("p"))


async def test_a_port_that_goes_frees_its_floating_address(cloud: Cloud) -> None:
    public = await cloud.networking.ensure_external()
    made = await make(cloud)
    floating = await cloud.networking.create_floating("p", public.uuid, Who("p"), port_uuid=made.ports[0].uuid)
    assert floating.address.fixed_address == made.ports[0].address
    await cloud.store.wish(made.uuid, lambda c: msgspec.structs.replace(c.wish, state="deleted"))
    (after,) = await cloud.networking.floating("p")
    assert after.address.port_uuid is None


async def test_a_project_that_goes_takes_its_default_group_along(cloud: Cloud) -> None:
    await cloud.networking.default_group("p")
    kept = await cloud.networking.default_group("q")
    async with cloud.database.write() as connection:
        await identity_store.remove_project(connection, "p")
    assert [group.uuid for group in await cloud.networking.groups(None)] == [kept.uuid]


async def test_ports_of_older_versions_get_walls(tmp_path: Path) -> None:
    """What ran before there were security groups must stay within reach of its own project, and of nobody else."""
    path = tmp_path / "old.db"
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    config.attributes["url"] = f"sqlite:///{path}"
    await asyncio.to_thread(command.upgrade, config, "0004")
    columns = (
        "uuid, project_id, user_id, name, kind, spec, wish, wish_state, epoch, cpu, memory_mib, report, status, image, "
        "auto_remove, revision, created_us"
    )
    with closing(sqlite3.connect(path)) as old, old:
        for project, net in (("p", "10.0.0.0/22"), ("q", "10.0.4.0/22")):
            old.execute(
                f"INSERT INTO networks VALUES ('n{project}', '{project}', 'default', '{net}', 'g', 's{project}', 5)"
            )
            old.execute(
                f"INSERT INTO capsules ({columns}) VALUES ('c{project}', '{project}', 'u', 'n', 'container', '{{}}', "
                "'{}', 'running', 0, 1, 1, '{}', 'Running', 'i', 0, 1, 1)"
            )
            address = int(pools.network(net).network_address) + 2
            old.execute(f"INSERT INTO ports VALUES ('x{project}', 'n{project}', 'c{project}', 'a', {address}, 'm', 6)")
    database = Database(sqlite_url(path))
    try:
        await migrate.upgrade(database)
        store = SqlNetworking(database)
        ports = {port.uuid: port for port in await store.ports(PortQuery())}
        for project in "pq":
            group = await store.default_group(project)
            assert ports[f"x{project}"].groups == [group.uuid]
            assert ports[f"x{project}"].project_id == project
            assert {rule.remote_group for rule in group.rules} == {None, group.uuid}
        (net,) = await store.networks(Who("p"))
        assert net.subnet is not None
        assert (net.subnet.uuid, net.subnet.project_id, net.subnet.cidr) == ("sp", "p", "10.0.0.0/22")
    finally:
        await database.close()


async def test_the_migrations_make_what_the_tables_say(template: Path) -> None:
    engine = create_engine(f"sqlite:///{template}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
