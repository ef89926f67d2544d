"""Security groups, floating addresses and live plugging, with real packets."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from askos.model.capsules import Port
from askos.model.networks import HostFloating, HostGroup, SecurityRule
from askos.plan.pools import mac_for

from . import bridge_fixtures as fx
from .bridge_fixtures import Cloud, cloud_at, connects_from, from_host, group, network, outside, port, serving, state

pytestmark = pytest.mark.skipif(not fx.CAN, reason="needs root, iproute2 and nftables")


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with cloud_at(tmp_path / "a") as made:
        yield made


async def test_groups_let_in_what_their_rules_say(cloud: Cloud) -> None:
    net = network("10.77.0.0/22")
    one, two, three = (cloud.box((net, f"10.77.0.{n}")) for n in (2, 3, 4))
    for box in (one, two, three):
        await box.add()
    web = group(SecurityRule("w", "", "ingress", "tcp", 80, 81))
    friends = group(name="friends", members={net.uuid: ["10.77.0.3"]})
    by_group = group(SecurityRule("f", "", "ingress", "tcp", 9000, 9000, remote_group="friends"))
    closed = group()
    groups = [web, friends, by_group, closed]
    await cloud.net.set_state(state(groups, port(one, web, by_group), port(two, friends), port(three, closed)))
    async with serving(one, 80, 9000, 22), serving(two, 80):
        assert await two.connects("10.77.0.2", 80) == "yes"
        assert await three.connects("10.77.0.2", 80) == "yes"
        assert await three.connects("10.77.0.2", 22, 1) == "silence"
        assert await two.connects("10.77.0.2", 9000) == "yes"
        assert await three.connects("10.77.0.2", 9000, 1) == "silence"
        assert await one.connects("10.77.0.3", 80, 1) == "silence", "nobody gets into a group without rules"
        assert not await three.ping("10.77.0.2", 1)
        assert await three.ping("10.77.0.1"), "the gateway is nobody's port"
        # A rule more, and an old connection's answers go on.
        pings = group(SecurityRule("p", "", "ingress", "icmp"))
        await cloud.net.set_state(
            state([*groups, pings], port(one, web, pings), port(two, friends), port(three, closed))
        )
        assert await three.ping("10.77.0.2")
        assert await two.connects("10.77.0.2", 9000, 1) == "silence"


async def test_what_may_leave(cloud: Cloud) -> None:
    net = network("10.77.0.0/22")
    one, two = (cloud.box((net, f"10.77.0.{n}")) for n in (2, 3))
    await one.add()
    await two.add()
    open_, mute = group(SecurityRule("i", "", "ingress")), HostGroup("mute", [])
    some = HostGroup("some", [SecurityRule("e", "", "egress", "tcp", 80, 80, remote_cidr="10.77.0.0/24")])
    async with serving(two, 80, 81):
        await cloud.net.set_state(state([open_, mute], port(one, mute), port(two, open_)))
        assert await one.connects("10.77.0.3", 80, 1) == "silence"
        await cloud.net.set_state(state([open_, some], port(one, some), port(two, open_)))
        assert await one.connects("10.77.0.3", 80) == "yes"
        assert await one.connects("10.77.0.3", 81, 1) == "silence"


async def test_unknown_and_unsecured_ports_and_a_restart(cloud: Cloud) -> None:
    net = network("10.77.0.0/22")
    one, two, free = (cloud.box((net, f"10.77.0.{n}")) for n in (2, 3, 4))
    for box in (one, two, free):
        await box.add()
    assert await one.ping("10.77.0.3"), "before anybody speaks of groups a network is open to itself"
    all_in = group(SecurityRule("i", "", "ingress"))
    await cloud.net.set_state(state([all_in], port(one, all_in), port(free, secured=False)))
    assert not await one.ping("10.77.0.3", 1), "a port that no state has named lets nobody in"
    assert await two.ping("10.77.0.2")
    assert await two.ping("10.77.0.4")
    await cloud.net.stop()
    cloud.net = cloud.make()
    await cloud.net.start(cloud.lookup)
    assert not await one.ping("10.77.0.3", 1), "a restart changes nothing"
    assert await two.ping("10.77.0.4")


async def test_a_floating_address_leads_in_and_out(cloud: Cloud) -> None:
    net, other = network("10.77.0.0/22"), network("10.77.4.0/22")
    one, stranger = cloud.box((net, "10.77.0.2")), cloud.box((other, "10.77.4.2"))
    await one.add()
    await stranger.add()
    web, closed = group(SecurityRule("w", "", "ingress", "tcp", 80, 80)), group()
    floating = [HostFloating("198.51.100.50", "10.77.0.2")]
    ports = (port(one, web), port(stranger, closed))
    with outside() as far:
        fx.sh("ip", "-n", far, "route", "add", "198.51.100.50/32", "dev", "eth0")
        async with serving(one, 80, 81):
            await cloud.net.set_state(state([web, closed], *ports, floating=floating))
            assert await connects_from(far, "198.51.100.50", 80) == "yes"
            assert await connects_from(far, "198.51.100.50", 81, 1) == "silence"
            assert await stranger.connects("198.51.100.50", 80) == "yes", "other projects see it as the outside does"
            assert await stranger.connects("10.77.0.2", 80, 1) == "silence"
            # From the host itself, too.
            assert await from_host("198.51.100.50", 80)
            assert not await from_host("198.51.100.50", 81, 1)
            await cloud.net.set_state(state([web, closed], *ports))
            assert await connects_from(far, "198.51.100.50", 80, 1) != "yes"
    assert not [line for line in fx.left_of(cloud.instance) if f"ak{cloud.instance[:4]}x" in line]


async def test_interfaces_come_and_go_while_it_runs(cloud: Cloud) -> None:
    red, blue = network("10.77.0.0/22"), network("10.77.4.0/22")
    box, peer = cloud.box((red, "10.77.0.2")), cloud.box((blue, "10.77.4.3"))
    await box.add()
    await peer.add()
    assert not await box.ping("10.77.4.3", 1)
    more = Port(str(uuid.uuid4()), blue.uuid, box.uuid, "10.77.4.2", mac_for("10.77.4.2"))
    box.ports.append(more)
    box.networks.append(blue)
    for _ in range(2):  # the second time there is nothing to do
        await cloud.net.sync(box.container_id, box.attachment())
        assert await box.ping("10.77.4.3")
        assert await box.ping("10.77.0.1")
    names = {a["ifname"] for a in json.loads(fx.sh("ip", "-n", box.name, "-j", "addr"))}
    assert names == {"lo", "eth0", "eth1"}
    # The first network goes: the other one now leads out.
    del box.ports[0], box.networks[0]
    await cloud.net.sync(box.container_id, box.attachment())
    assert await box.ping("10.77.4.3")
    routes = json.loads(fx.sh("ip", "-n", box.name, "-j", "route"))
    assert [(r["gateway"], r["dev"]) for r in routes if r["dst"] == "default"] == [("10.77.4.1", "eth1")]
    assert (await box.call("DEL"))[0] == 0
    assert fx.sh("ip", "-n", box.name, "-br", "link").split()[0] == "lo"


async def test_the_same_address_in_two_networks_of_a_sandbox(cloud: Cloud) -> None:
    one, two = network("10.77.0.0/22"), network("10.77.0.0/22", "other")
    box = cloud.box((one, "10.77.0.2"))
    await box.add()

    def has() -> list[str]:
        links = json.loads(fx.sh("ip", "-n", box.name, "-j", "addr", "show", "scope", "global"))
        return [f"{link['ifname']} {one['local']}" for link in links for one in link["addr_info"]]

    box.ports.append(Port(str(uuid.uuid4()), two.uuid, box.uuid, "10.77.0.2", mac_for("10.77.0.2")))
    box.networks.append(two)
    for _ in range(2):  # the second time there is nothing to do
        await cloud.net.sync(box.container_id, box.attachment())
        assert has() == ["eth0 10.77.0.2", "eth1 10.77.0.2"]
    # Who leaves is the one that is meant.
    del box.ports[0], box.networks[0]
    await cloud.net.sync(box.container_id, box.attachment())
    assert has() == ["eth1 10.77.0.2"]
    routes = json.loads(fx.sh("ip", "-n", box.name, "-j", "route"))
    assert [(r["gateway"], r["dev"]) for r in routes if r["dst"] == "default"] == [("10.77.0.1", "eth1")]
