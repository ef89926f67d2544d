"""Both IP versions in the store: allocation, what is unique, what hosts are told, and the migration there and back."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from alembic import command
from alembic.config import Config
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from askos.adapters.sql import migrate
from askos.adapters.sql.database import Database, sqlite_url
from askos.adapters.sql.networking import SqlNetworking
from askos.adapters.sql.schema import ports as ports_table
from askos.model.capsules import Capsule
from askos.model.errors import ConflictError
from askos.model.networks import HostFloating, NetWish
from askos.plan import pools
from askos.ports.network_store import FixedIp, NewPort, NewSubnet, PortQuery, Who
from askos.ports.store import Change

from .cloud import HOST, Cloud, open_cloud
from .test_networking_store import OTHER, make, network, placed

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIX = "fd00:1::/64"


@pytest_asyncio.fixture(loop_scope="module")
async def cloud(template: Path, tmp_path: Path) -> AsyncIterator[Cloud]:
    async with open_cloud(template, tmp_path) as made:
        yield made


async def dual(cloud: Cloud, cidr: str = "10.1.0.0/24", cidr6: str = SIX, project: str = "p", **more: Any) -> str:
    uuid = await network(cloud, cidr, project)
    await cloud.networking.create_subnet(NewSubnet(uuid, cidr=cidr6, ip_version=6, **more))
    return uuid


async def ports_on(cloud: Cloud, net: str, count: int, fixed: list[FixedIp] | None = None) -> list[tuple[str, str]]:
    made = [await cloud.networking.create_port(NewPort(net, "p", fixed), Who("p")) for _ in range(count)]
    return [(port.address, port.address6) for port in made]


# -- addresses -------------------------------------------------------------------------------------------------------


async def test_addresses_go_side_by_side(cloud: Cloud) -> None:
    net = await dual(cloud)
    assert await ports_on(cloud, net, 2) == [("10.1.0.2", "fd00:1::2"), ("10.1.0.3", "fd00:1::3")]
    # Somebody has the one that would suit, or the IPv4 address alone.
    assert await ports_on(cloud, net, 1, [FixedIp(address="10.1.0.9"), FixedIp(address="fd00:1::4")]) == [
        ("10.1.0.9", "fd00:1::4")
    ]
    assert await ports_on(cloud, net, 2) == [("10.1.0.10", "fd00:1::a"), ("10.1.0.11", "fd00:1::b")]
    assert await ports_on(cloud, net, 1, [FixedIp(address="10.1.0.4")]) == [("10.1.0.4", "")]
    await ports_on(cloud, net, 1, [FixedIp(address="fd00:1::c")])
    assert await ports_on(cloud, net, 1) == [("10.1.0.12", "fd00:1::d")]


async def test_a_large_range_is_not_searched(cloud: Cloud) -> None:
    net = await dual(cloud)
    last = "fd00:1::ffff:ffff:ffff:ffff"
    assert await ports_on(cloud, net, 1, [FixedIp(address=last)]) == [("", last)]
    (six,) = [s.uuid for n in await cloud.networking.networks(Who("p"), [net]) for s in n.subnets if s.ip_version == 6]
    assert await ports_on(cloud, net, 2, [FixedIp(six)]) == [("", "fd00:1::2"), ("", "fd00:1::3")]


async def test_ranges_of_ipv6_and_their_end(cloud: Cloud) -> None:
    net = await dual(cloud, ranges=[("fd00:1::f0", "fd00:1::f1")])
    assert await ports_on(cloud, net, 2) == [("10.1.0.2", "fd00:1::f0"), ("10.1.0.3", "fd00:1::f1")]
    with pytest.raises(ConflictError, match="fd00:1::/64") as caught:
        await ports_on(cloud, net, 1)
    assert caught.value.code == "ip-address-generation-failure"
    small = await dual(cloud, "10.2.0.0/24", "fd00:2::/126")
    assert [six for _, six in await ports_on(cloud, small, 2)] == ["fd00:2::2", "fd00:2::3"]
    with pytest.raises(ConflictError):
        await ports_on(cloud, small, 1)


async def test_many_at_once_get_addresses_of_their_own(cloud: Cloud) -> None:
    net, same = await dual(cloud), await dual(cloud)
    other = SqlNetworking(cloud.database)
    made = await asyncio.gather(
        *(make(cloud, nets=[NetWish(net)]) for _ in range(12)),
        *(make(cloud, nets=[NetWish(same)]) for _ in range(12)),
        *(other.create_port(NewPort(net, "p"), Who("p")) for _ in range(12)),
    )
    for uuid, count in ((net, 24), (same, 12)):
        found = await cloud.networking.ports(PortQuery(network_uuids=[uuid]))
        assert len({port.address for port in found}) == len({port.address6 for port in found}) == count
    capsules = [one for one in made if isinstance(one, Capsule)]
    assert all(one.ports[0].address6 and one.networks[0].cidr6 == SIX for one in capsules)
    told = await cloud.store.capsules_by_uuid([one.uuid for one in capsules])
    assert {one.uuid: (one.ports, one.networks) for one in told} == {
        one.uuid: (one.ports, one.networks) for one in capsules
    }


async def test_one_ipv6_address_is_given_once(cloud: Cloud) -> None:
    net = await dual(cloud)
    wish = [NetWish(net, address6="fd00:1::50")]
    ends = await asyncio.gather(*(make(cloud, nets=wish) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(end, Capsule) for end in ends) == 1
    assert {type(end) for end in ends} == {Capsule, ConflictError}
    (port,) = await cloud.networking.ports(PortQuery(network_uuids=[net]))
    for address, number, six in (
        ("10.1.0.99", 7, port.address6),
        (port.address, int(pools.net_of(port.address)[0]), None),
    ):
        row = {"uuid": "x", "network_uuid": net, "mac": "m", "created_us": 1}
        with pytest.raises(IntegrityError):
            async with cloud.database.write() as connection:
                await connection.execute(
                    insert(ports_table).values(**row, address=address, address_number=number, address6=six)
                )


async def test_a_port_of_both_and_its_container(cloud: Cloud) -> None:
    net = await dual(cloud)
    port = await cloud.networking.create_port(NewPort(net, "p"), Who("p"))
    made = await make(cloud, nets=[NetWish(port_uuid=port.uuid)])
    assert (made.ports[0].address, made.ports[0].address6) == (port.address, port.address6)
    network_seen = made.networks[0]
    assert (network_seen.cidr6, network_seen.gateway6, network_seen.gateway6_disabled) == (SIX, "fd00:1::1", False)
    with pytest.raises(ConflictError, match="uses it"):
        await cloud.networking.update_port(port.uuid, Who("p"), fixed=[FixedIp(address="10.1.0.77")])
    same = [FixedIp(address=port.address), FixedIp(address=port.address6)]
    assert (await cloud.networking.update_port(port.uuid, Who("p"), fixed=same)).address6 == port.address6


# -- hosts -----------------------------------------------------------------------------------------------------------


async def test_hosts_are_told_of_networks_apart(cloud: Cloud) -> None:
    net, same = await dual(cloud), await dual(cloud, cidr6="fd00:2::/64")
    here = await placed(cloud, HOST, nets=[NetWish(net)])
    there = await placed(cloud, OTHER, nets=[NetWish(net)])
    elsewhere = await placed(cloud, OTHER, nets=[NetWish(same)])
    assert here.ports[0].address == elsewhere.ports[0].address
    public = await cloud.networking.ensure_external()
    floating = await cloud.networking.create_floating("p", public.uuid, Who("p"), port_uuid=here.ports[0].uuid)
    states = await cloud.networking.states()
    (port,) = states[HOST].ports
    assert (port.network_uuid, port.address, port.address6) == (net, "10.1.0.2", "fd00:1::2")
    assert states[HOST].floating == [HostFloating(floating.address.address, "10.1.0.2", net)]
    both = sorted([here.ports[0].address, here.ports[0].address6, there.ports[0].address, there.ports[0].address6])
    (group,) = states[HOST].groups
    # A host need not know who is on networks that it has not.
    assert {uuid: sorted(theirs) for uuid, theirs in group.members_of.items()} == {net: both}
    (told,) = states[OTHER].groups
    assert sorted(told.members_of) == sorted([net, same])
    assert told.members_of[same] == ["10.1.0.2", "fd00:2::2"]


async def test_hosts_are_told_when_a_subnet_comes_or_goes(cloud: Cloud) -> None:
    told: list[Change] = []
    store = SqlNetworking(cloud.database, on_capsule=told.append)
    net = await network(cloud, "10.1.0.0/24")
    before = await placed(cloud, HOST, nets=[NetWish(net)])
    await make(cloud, nets=[NetWish(net)])  # is on no host
    six = await store.create_subnet(NewSubnet(net, cidr=SIX, ip_version=6))
    assert [(change.uuid, change.host_uuid, change.deleted) for change in told] == [(before.uuid, HOST, False)]
    (now,) = await cloud.store.capsules_by_uuid([before.uuid])
    assert (now.revision, now.networks[0].cidr6, now.ports[0].address6) == (told[0].revision, SIX, "")
    (logged,) = await cloud.store.changes(told[0].revision - 1)
    assert (logged.revision, logged.uuid, logged.project_id) == (told[0].revision, before.uuid, "p")
    assert (await store.update_subnet(six.uuid, gateway="fd00:1::5")).gateway == "fd00:1::5"
    await store.update_subnet(six.uuid, name="no news for hosts")
    await store.delete_subnet(six.uuid)
    assert [change.uuid for change in told] == [before.uuid] * 3
    (now,) = await cloud.store.capsules_by_uuid([before.uuid])
    assert now.networks == before.networks


# -- migration -------------------------------------------------------------------------------------------------------


def alembic(path: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    config.attributes["url"] = f"sqlite:///{path}"
    return config


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


async def test_there_and_back(tmp_path: Path) -> None:
    """What the version before had is the same after the way to this one and back."""
    path = tmp_path / "old.db"
    config = alembic(path)
    await asyncio.to_thread(command.upgrade, config, "0008")
    with closing(sqlite3.connect(path)) as old, old:
        old.execute(
            "INSERT INTO networks (uuid, project_id, name, created_us, updated_us, changed, cidr, gateway, subnet_uuid, "
            "subnet_name, subnet_description, subnet_project_id, subnet_pool_uuid, gateway_disabled, dhcp, ranges, "
            "subnet_created_us, subnet_updated_us, subnet_changed) VALUES ('n1', 'p', 'one', 1, 2, 3, '10.0.0.0/24', "
            "'10.0.0.254', 's1', 'sub', 'd', 'q', 'pool', 1, 0, '10.0.0.8-10.0.0.9', 4, 5, 6)"
        )
        old.execute("INSERT INTO networks (uuid, project_id, name, created_us) VALUES ('n2', 'p', 'bare', 1)")
        old.execute(
            "INSERT INTO networks (uuid, project_id, name, created_us, cidr, gateway, subnet_uuid) VALUES "
            "('n3', 'p', 'three', 1, '10.0.1.0/24', '10.0.1.1', 's3')"
        )
        old.execute(
            "INSERT INTO ports (uuid, network_uuid, address, address_number, mac, created_us, project_id, preserve) "
            "VALUES ('x', 'n1', '10.0.0.8', 167772168, 'm', 1, 'p', 1)"
        )
        old.execute("INSERT INTO security_groups VALUES ('g', 'p', 'p', 'default', '', 1, 1, 1)")
        old.execute("INSERT INTO port_groups VALUES ('x', 'g')")
        old.execute("INSERT INTO floating_ips VALUES ('f', 'p', '', 'n3', '10.0.1.7', 'x', 1, 1, 1)")
        old.execute("INSERT INTO engine_networks VALUES ('n1', 'e', 'p', 'u', 1)")
        old.execute("INSERT INTO subnet_pools VALUES ('pool', 'p', '', '', '10.0.0.0/8', 24, 8, 32, 0, 1, 1, 0)")
    tables = ("networks", "ports", "port_groups", "floating_ips", "engine_networks", "subnet_pools")
    queries = {table: f"SELECT * FROM {table} ORDER BY 1" for table in tables}
    columns = [row[1:3] for row in rows(path, "PRAGMA table_info(networks)")]
    before = {table: rows(path, query) for table, query in queries.items()}
    names = [row[1] for row in rows(path, "PRAGMA table_info(networks)")]

    database = Database(sqlite_url(path))
    try:
        await migrate.upgrade(database)
        store = SqlNetworking(database)
        one, bare, three = sorted(await store.networks(Who("p")), key=lambda net: net.uuid)
        assert bare.subnets == []
        assert one.subnet is not None
        assert three.subnet is not None
        assert (one.subnet.uuid, one.subnet.project_id, one.subnet.cidr) == ("s1", "q", "10.0.0.0/24")
        assert (one.subnet.gateway, one.subnet.gateway_disabled) == ("10.0.0.254", True)
        assert (one.subnet.ranges, one.subnet.dhcp) == ([("10.0.0.8", "10.0.0.9")], False)
        assert (one.subnet.name, one.subnet.description, one.subnet.pool_uuid) == ("sub", "d", "pool")
        assert (one.subnet.created_us, one.subnet.updated_us, one.subnet.changed) == (4, 5, 6)
        assert three.subnet.project_id == "p"
        (port,) = await store.ports(PortQuery())
        assert (port.address, port.address6, port.subnet_uuid, port.groups) == ("10.0.0.8", "", "s1", ["g"])
        (floating,) = await store.floating("p")
        assert floating.address.port_uuid == "x"
        # What only the new version knows is in nobody's way, except ranges that overlap.
        await store.create_subnet(NewSubnet("n1", cidr=SIX, ip_version=6))
        await store.create_port(NewPort("n1", "p", [FixedIp(address="fd00:1::9")]), Who("p"))
        await store.create_subnet(NewSubnet("n2", cidr="10.0.0.128/25"))
        with pytest.raises(RuntimeError, match=r"n1 .*and n2 .*overlap"):
            await asyncio.to_thread(command.downgrade, config, "0008")
        assert len(await store.ports(PortQuery())) == 2
        (overlapping,) = [net.subnet for net in await store.networks(Who("p"), ["n2"])]
        assert overlapping is not None
        await store.delete_subnet(overlapping.uuid)
    finally:
        await database.close()

    await asyncio.to_thread(command.downgrade, config, "0008")
    found = [row[1:3] for row in rows(path, "PRAGMA table_info(networks)")]
    assert sorted(found) == sorted(columns)
    picked = f"SELECT {', '.join(names)} FROM networks ORDER BY 1"
    after = {table: rows(path, picked if table == "networks" else query) for table, query in queries.items()}
    forgotten = {name: names.index(name) for name in ("updated_us", "changed", "subnet_project_id")}
    for old_row, new_row in zip(before["networks"], after["networks"], strict=True):
        for name, (was, now) in zip(names, zip(old_row, new_row, strict=True), strict=True):
            assert name in forgotten or was == now, (name, was, now)
    del before["networks"], after["networks"]
    assert after == before
    with pytest.raises(sqlite3.IntegrityError), closing(sqlite3.connect(path)) as old:
        old.execute(
            "INSERT INTO networks (uuid, project_id, name, created_us, cidr) VALUES ('n4', '', '', 1, '10.0.0.0/24')"
        )
    await asyncio.to_thread(command.upgrade, config, "head")


async def test_every_migration_has_a_way_back(cloud: Cloud, tmp_path: Path) -> None:
    """From the newest schema to nothing, with something in it, and forth again."""
    net = (await placed(cloud, HOST)).networks[0].uuid
    await cloud.networking.create_port(NewPort(net, "p"), Who("p"))
    await cloud.networking.create_port(NewPort(await dual(cloud), "p"), Who("p"))
    await cloud.database.close()
    path = tmp_path / "askos.db"
    for number in reversed(range(1, int(migrate.HEAD))):
        await asyncio.to_thread(command.downgrade, alembic(path), f"{number:04}")
        assert rows(path, "SELECT version_num FROM alembic_version") == [(f"{number:04}",)]
        assert rows(path, "SELECT count(*) FROM capsules JOIN ports ON capsules.uuid = capsule_uuid") == [(1,)]
        assert rows(path, "PRAGMA foreign_key_check") == []
    await asyncio.to_thread(command.downgrade, alembic(path), "base")
    await asyncio.to_thread(command.upgrade, alembic(path), "head")
    assert rows(path, "SELECT version_num FROM alembic_version") == [(migrate.HEAD,)]
