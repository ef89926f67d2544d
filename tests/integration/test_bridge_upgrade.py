"""What a version left that had its bridges in the host's own namespace: taken over while containers run."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from askos.adapters.bridge import links
from askos.adapters.bridge.journal import Journal
from askos.adapters.bridge.links import Owner
from askos.model.capsules import Network
from askos.model.networks import HostFloating, SecurityRule
from askos.plan.pools import mac_for

from . import bridge_fixtures as fx
from .bridge_fixtures import (
    Box,
    Cloud,
    cloud_at,
    connects_from,
    from_host,
    group,
    network,
    outside,
    port,
    serving,
    state,
)

pytestmark = pytest.mark.skipif(not fx.CAN, reason="needs root, iproute2 and nftables")


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with cloud_at(tmp_path / "a") as made:
        yield made


def old_bridge(cloud: Cloud, net: Network) -> str:
    """A bridge as 0.2 made them."""
    name = f"{links.prefix(cloud.instance)}b{net.uuid[:8]}"
    fx.sh("ip", "link", "add", name, "address", mac_for(net.gateway), "type", "bridge")
    fx.sh("ip", "link", "set", name, "alias", Owner(cloud.instance, "net", net.uuid).alias(), "up")
    fx.sh("ip", "addr", "add", f"{net.gateway}/{net.cidr.partition('/')[2]}", "dev", name)
    Path(f"/proc/sys/net/ipv4/conf/{name}/proxy_arp_pvlan").write_text("1")
    return name


def old_port(cloud: Cloud, box: Box, bridge: str) -> None:
    """A sandbox plugged in as 0.2 did it."""
    own, net = box.ports[0], box.networks[0]
    name = links.port_name(cloud.instance, own.uuid)
    Journal(cloud.state).write(box.container_id, box.uuid, box.netns, [name], [net.uuid])
    fx.sh(*f"ip link add {name} type veth peer name eth0 netns {box.name} address {own.mac}".split())
    alias = Owner(cloud.instance, "port", box.uuid, box.container_id).alias()
    fx.sh("ip", "link", "set", name, "alias", alias, "master", bridge, "up")
    fx.sh("bridge", "link", "set", "dev", name, "isolated", "on")
    for words in ("link set lo up", "link set eth0 up", f"addr add {own.address}/22 dev eth0"):
        fx.sh("ip", "-n", box.name, *words.split())
    fx.sh("ip", "-n", box.name, "route", "add", "default", "via", net.gateway)


def old_cloud(cloud: Cloud, *boxes: Box) -> list[str]:
    """The whole of it; gives the bridges' names."""
    nets = {net.uuid: net for box in boxes for net in box.networks}
    bridges = {uuid: old_bridge(cloud, net) for uuid, net in nets.items()}
    for box in boxes:
        old_port(cloud, box, bridges[box.networks[0].uuid])
    rules = f"table inet askos_{cloud.instance} {{}}\ndelete table inet askos_{cloud.instance}\n"
    rules += f"table inet askos_{cloud.instance} {{\nset bridges {{\ntype ifname;\n}}\n}}\n"
    fx.sh("nft", rules)
    return list(bridges.values())


async def pinged(box: Box, address: str) -> None:
    async with asyncio.timeout(fx.LONG_S):
        while not await box.ping(address, 1):
            pass


MOVE_STEPS = 19
_PINGS = """
import pathlib, subprocess, time
print("ready", flush=True)
lost, answered, moved = 0, False, False
while not (moved and answered):
    moved, begun = pathlib.Path({moved!r}).exists(), time.monotonic()
    done = subprocess.run(["busybox", "ping", "-c", "1", "-W", "1", "10.77.0.3"], stdout=subprocess.DEVNULL)
    answered = done.returncode == 0
    lost += 0 if answered else time.monotonic() - begun
    time.sleep(0.05)
print(f"{{lost:.1f}}")
"""


async def test_running_containers_are_moved(cloud: Cloud) -> None:
    await cloud.net.stop()
    red, blue = network("10.77.0.0/22", "red"), network("10.77.4.0/22", "blue")
    one, two, other = cloud.box((red, "10.77.0.2")), cloud.box((red, "10.77.0.3")), cloud.box((blue, "10.77.4.2"))
    web = group(SecurityRule("w", "", "ingress", "tcp", 80, 80), SecurityRule("p", "", "ingress", "icmp"))
    # What an older server said: no networks.
    ports = [msgspec.structs.replace(port(box, web), network_uuid="") for box in (one, two, other)]
    remembered = state([web], *ports, floating=[HostFloating("198.51.100.80", "10.77.0.2")])
    (cloud.state / "security-groups").write_bytes(msgspec.json.encode(remembered))
    bridges = old_cloud(cloud, one, two, other)
    # A new bridge passes nothing until the kernel has carried its state on.
    await pinged(one, "10.77.0.3")
    moved = cloud.root / "moved"
    pings = await fx.begun_in(one.name, _PINGS.format(moved=str(moved)))
    begun = time.monotonic()
    cloud.net = cloud.make()
    await cloud.net.start(cloud.lookup)
    took = time.monotonic() - begun
    moved.touch()
    assert float(await pings) < took + 10, "the network was away while it was moved, and comes back by itself"
    shown = fx.sh("ip", "-br", "link")
    assert not [name for name in bridges if name in shown]
    assert links.port_name(cloud.instance, one.ports[0].uuid) in cloud.inside(red, "ip", "-br", "link")
    with outside() as far:
        fx.sh("ip", "-n", far, "route", "add", "198.51.100.80/32", "dev", "eth0")
        async with serving(one, 80, 81):
            assert await two.connects("10.77.0.2", 80) == "yes"
            assert await two.connects("10.77.0.2", 81, 1) == "silence", "the walls stand as they were"
            assert await other.connects("10.77.0.2", 80, 1) == "silence"
            assert await connects_from(far, "198.51.100.80", 80) == "yes"
            assert await from_host("10.77.0.2", 81), "the host reaches containers as before"
            assert await one.connects("198.51.100.2", 7) == "refused"
    await cloud.net.collect(cloud.live(), [red, blue])
    late = cloud.box((red, "10.77.0.4"))
    await late.add()
    assert await late.ping("10.77.0.3")
    assert (await one.call("DEL"))[0] == 0
    assert fx.sh("ip", "-n", one.name, "-br", "link").split()[0] == "lo"


@pytest.mark.parametrize("step", range(1, MOVE_STEPS + 2))
async def test_killed_in_the_middle_of_moving(cloud: Cloud, step: int) -> None:
    await cloud.net.stop()
    red = network("10.77.0.0/22")
    one, two = cloud.box((red, "10.77.0.2")), cloud.box((red, "10.77.0.3"))
    bridges = old_cloud(cloud, one, two)
    program = f"""
import asyncio, os, signal
from pathlib import Path
from askos.adapters.bridge import nft, rtnl, spaces
from askos.adapters.bridge.network import BridgeNetwork
root, left = Path({str(cloud.root)!r}), [{step}]
def counted(work):
    def counts(*args, **words):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*args, **words)
    return counts
rtnl.Netlink.do = counted(rtnl.Netlink.do)
nft.run = counted(nft.run)
spaces._new_at = counted(spaces._new_at)
async def lookup(uuid):
    return None
net = BridgeNetwork({cloud.instance!r}, root / "net", root / "cni.sock", root / "bin", root / "conf", upstream=[])
asyncio.run(net.start(lookup))
"""
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    code = await asyncio.wait_for(agent.wait(), fx.LONG_S)
    assert code == (-9 if step <= MOVE_STEPS else 0), "the number of requests has changed: adapt the steps"
    cloud.net = cloud.make()
    await cloud.net.start(cloud.lookup)
    await cloud.net.collect(cloud.live(), [red])
    assert not [name for name in bridges if name in fx.sh("ip", "-br", "link")]
    await pinged(one, "10.77.0.3")
    assert await two.ping("10.77.0.1")
