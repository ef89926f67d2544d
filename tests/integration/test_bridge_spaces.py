"""Networks in namespaces of their own: they overlap freely, and their rules are changed bit by bit."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from askos.adapters.bridge import links, rules
from askos.model.networks import HostFloating, HostGroup, SecurityRule
from askos.ports.network import Names

from . import bridge_fixtures as fx
from .bridge_fixtures import Cloud, cloud_at, connects_from, from_host, group, network, outside, port, serving, state

pytestmark = pytest.mark.skipif(not fx.CAN, reason="needs root, iproute2 and nftables")

ASK = """
import dns.message, dns.query
reply = dns.query.{how}(dns.message.make_query({name!r}, {kind!r}), {server!r}, timeout=5)
print(*sorted(x.to_text() for rrset in reply.answer for x in rrset))
"""


async def ask(box: fx.Box, server: str, name: str, kind: str = "A", how: str = "udp") -> str:
    return await box.python(ASK.format(server=server, name=name, kind=kind, how=how))


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with cloud_at(tmp_path / "a") as made:
        yield made


def routes() -> dict[str, str]:
    return {r["dst"]: r["dev"] for r in json.loads(fx.sh("ip", "-j", "-4", "route"))}


async def test_two_networks_with_the_same_addresses(cloud: Cloud) -> None:
    red, blue = network("10.77.0.0/22", "red"), network("10.77.0.0/22", "blue")
    ones = [cloud.box((net, "10.77.0.2")) for net in (red, blue)]
    twos = [cloud.box((net, "10.77.0.3")) for net in (red, blue)]
    only_blue = cloud.box((blue, "10.77.0.4"))
    for box in (*ones, *twos, only_blue):
        await box.add()
    assert await ones[0].ping("10.77.0.3")
    assert await twos[1].ping("10.77.0.4")
    assert not await twos[0].ping("10.77.0.4", 1), "that is in the other network"
    # Names, each its own.
    await cloud.net.set_names([Names(red, {"web": ["10.77.0.2"]}), Names(blue, {"web": ["10.77.0.3"]})])
    assert [await ask(box, "10.77.0.1", "web") for box in ones] == ["10.77.0.2", "10.77.0.3"]
    web = group(SecurityRule("w", "", "ingress", "tcp", 80, 80))
    addresses = ["198.51.100.60", "198.51.100.61"]
    floating = [HostFloating(a, "10.77.0.2", net.uuid) for a, net in zip(addresses, (red, blue), strict=True)]
    with outside() as far:
        fx.sh("ip", "-n", far, "route", "add", "198.51.100.60/31", "dev", "eth0")
        async with serving(ones[0], 80, 81), serving(ones[1], 80):
            for box in (*ones, *twos):
                assert await box.connects("198.51.100.2", 7) == "refused", "the outside answers"
            given = state([web], *(port(box, web) for box in (*ones, *twos)), floating=floating)
            await cloud.net.set_state(given)
            for address, inside, other in zip(addresses, ones, reversed(ones), strict=True):
                assert await connects_from(far, address, 80) == "yes"
                assert await connects_from(far, address, 81, 1) == "silence"
                assert await from_host(address, 80)
                assert await other.connects(address, 80) == "yes", "from the network beside it"
                assert await inside.connects(address, 80) == "yes", "and from itself"
            assert await twos[0].connects(addresses[0], 80) == "yes", "from its own network"
            # What goes out has the floating address, the others' that of the host.
            seen = """
                import socket
                s = socket.create_server(("198.51.100.2", 5001)); s.settimeout(50)
                print("ready", flush=True)
                print(*(s.accept()[1][0] for _ in range(3)))
            """
            listener = await fx.begun_in(far, seen)
            for box in (*ones, twos[0]):
                assert await box.connects("198.51.100.2", 5001) == "yes"
            assert await listener == "198.51.100.60 198.51.100.61 198.51.100.1"
            # A floating address moves to the other network, and connections go where it leads.
            moved = [HostFloating(addresses[0], "10.77.0.3", blue.uuid), floating[1]]
            await cloud.net.set_state(state(given.groups, *given.ports, floating=moved))
            assert await connects_from(far, addresses[0], 80) == "refused", "nobody serves there"


async def test_the_host_reaches_who_came_first(cloud: Cloud) -> None:
    red, blue = network("10.77.8.0/22"), network("10.77.8.0/24")
    one, two = cloud.box((red, "10.77.8.2")), cloud.box((blue, "10.77.8.2"))
    await one.add()
    await two.add()
    uplink = {net.uuid: links.uplink_name(cloud.instance, net.uuid) for net in (red, blue)}
    assert routes()["10.77.8.0/22"] == uplink[red.uuid]
    assert "10.77.8.0/24" not in routes()
    async with serving(one, 4000):
        assert await from_host("10.77.8.2", 4000)
    one.close()
    await cloud.net.collect({two.container_id}, [blue])
    assert routes()["10.77.8.0/24"] == uplink[blue.uuid], "now it is free"
    assert "10.77.8.0/22" not in routes()
    async with serving(two, 4000):
        assert await from_host("10.77.8.2", 4000)


async def test_a_connection_outlives_a_restart(cloud: Cloud) -> None:
    net = network("10.77.0.0/22")
    box = cloud.box((net, "10.77.0.2"))
    await box.add()
    echo = group(SecurityRule("w", "", "ingress", "tcp", 80, 80))
    await cloud.net.set_state(
        state([echo], port(box, echo), floating=[HostFloating("198.51.100.70", "10.77.0.2", net.uuid)])
    )
    server = await fx.asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", box.name, "busybox", "nc", "-ll", "-p", "80", "-e", "/bin/cat")
    )
    try:
        await fx.listens(box, 80)
        reader, writer = await fx.asyncio.open_connection("198.51.100.70", 80)
        for _ in range(3):
            writer.write(b"hello\n")
            assert await fx.asyncio.wait_for(reader.readline(), fx.LONG_S) == b"hello\n"
            await cloud.net.stop()
            cloud.net = cloud.make()
            await cloud.net.start(cloud.lookup)
        writer.close()
    finally:
        server.kill()
        await server.wait()


async def test_births_add_elements_alone(cloud: Cloud) -> None:
    net, other = network("10.77.0.0/22"), network("10.77.4.0/22")
    boxes = [cloud.box((net, f"10.77.0.{n}")) for n in range(2, 13)]
    aside = cloud.box((other, "10.77.4.2"))
    await aside.add()
    own = SecurityRule("in", "", "ingress", remote_group="g")
    counts = []
    for number, box in enumerate(boxes, 1):
        await box.add()
        members = [b.ports[0].address for b in boxes[:number]]
        g = HostGroup("g", [fx.EVERYTHING_OUT, own], {net.uuid: members, other.uuid: ["10.77.4.2"]})
        await cloud.net.set_state(state([g], port(aside, g), *(port(b, g) for b in boxes[:number])))
        counts.append(cloud.net.tables_replaced)
    assert len(set(counts)) == 1, counts
    assert await boxes[0].ping("10.77.0.12")
    assert await boxes[10].ping("10.77.0.2")
    # One leaves the group: gone from the set and from the maps.
    g = HostGroup("g", g.rules, {net.uuid: members[1:]})
    await cloud.net.set_state(state([g], *(port(b, g) for b in boxes[1:])))
    assert cloud.net.tables_replaced == counts[0]
    assert not await boxes[0].ping("10.77.0.12", 1)
    assert not await boxes[10].ping("10.77.0.2", 1)
    assert await boxes[10].ping("10.77.0.3")
    # A namespace that somebody took away keeps the others from nothing.
    fx.sh("umount", cloud.space(other))
    await cloud.net.set_state(state([g], port(aside), *(port(b, g) for b in boxes[1:])))
    assert await boxes[10].ping("10.77.0.4")
    # Somebody changes our table behind our back: what cannot be added is mended as a whole.
    cloud.inside(net, "nft", "delete", "table", "inet", rules.name_of(cloud.instance))
    await cloud.net.set_state(state([g], *(port(b, g) for b in boxes[2:])))
    assert cloud.net.tables_replaced == counts[0] + 1
    assert await boxes[10].ping("10.77.0.4")
    assert not await boxes[10].ping("10.77.0.3", 1)


async def test_two_clouds_with_the_same_range_and_what_is_left(cloud: Cloud, tmp_path: Path) -> None:
    red = network("10.77.0.0/22")
    mine = cloud.box((red, "10.77.0.2"))
    await mine.add()
    async with cloud_at(tmp_path / "b") as second:
        blue = network("10.77.0.0/22")
        theirs = second.box((blue, "10.77.0.2"))
        await theirs.add()
        pairs = [
            json.loads(fx.sh("ip", "-j", "addr", "show", links.uplink_name(c.instance, n.uuid)))[0]["addr_info"][0][
                "local"
            ]
            for c, n in ((cloud, red), (second, blue))
        ]
        assert len(set(pairs)) == 2
        with outside():
            assert await mine.connects("198.51.100.2", 7) == "refused"
            assert await theirs.connects("198.51.100.2", 7) == "refused"
        await second.net.remove_all()
        assert fx.left_of(second.instance) == []
        assert await mine.ping("10.77.0.1")


async def test_what_a_reboot_or_a_killed_maker_left_is_removed(cloud: Cloud) -> None:
    red = network("10.77.0.0/22")
    box = cloud.box((red, "10.77.0.2"))
    await box.add()
    await cloud.net.stop()
    # As after a reboot: files without mounts; and a namespace of which nobody knows any more.
    fx.sh("umount", cloud.space(red))
    stray = Path(cloud.space(red)).with_name("00000000-0000-0000-0000-000000000001")
    name = f"aktest{secrets.token_hex(4)}"
    fx.sh("ip", "netns", "add", name)
    stray.touch()
    fx.sh("mount", "--bind", f"/run/netns/{name}", str(stray))
    subprocess.run(["ip", "netns", "del", name], check=True)
    cloud.options["grace_s"] = 0
    cloud.net = cloud.make()
    await cloud.net.start(cloud.lookup)
    assert not Path(cloud.space(red)).exists()
    await cloud.net.collect(set(), [])
    assert not stray.exists()
    assert [line for line in fx.left_of(cloud.instance) if not line.startswith("table")] == []
    await box.add()
    assert await box.ping("10.77.0.1")
