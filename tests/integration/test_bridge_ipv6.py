"""IPv6 beside IPv4 in a network's namespace."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from askos.adapters.bridge import host, links
from askos.model.networks import SecurityRule
from askos.ports.network import Names

from . import bridge_fixtures as fx
from .bridge_fixtures import Cloud, cloud_at, group, network, outside, port, serving, state
from .test_bridge_spaces import ask

pytestmark = pytest.mark.skipif(
    not fx.CAN or not Path("/proc/sys/net/ipv6").exists(), reason="needs root, iproute2, nftables and IPv6"
)
OUT6 = SecurityRule("out6", "", "egress", ethertype="IPv6")


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with cloud_at(tmp_path / "a") as made:
        yield made


@contextmanager
def outside6() -> Iterator[str]:
    """The neighbour of `outside`, with 2001:db8:99::2 (the host has ::1) and no way back to containers."""
    with outside() as far:
        near = next(
            line.split()[0].partition("@")[0]
            for line in fx.sh("ip", "-br", "addr").splitlines()
            if "198.51.100.1" in line
        )
        fx.sh("ip", "addr", "add", "2001:db8:99::1/64", "dev", near, "nodad")
        fx.sh("ip", "-n", far, "addr", "add", "2001:db8:99::2/64", "dev", "eth0", "nodad")
        yield far


async def test_containers_of_a_network_and_its_gateway(cloud: Cloud) -> None:
    red = network("10.77.0.0/22", cidr6="fd77::/64")
    one, two = cloud.box((red, "10.77.0.2 fd77::2")), cloud.box((red, "10.77.0.3 fd77::3"))
    plain = cloud.box((red, "10.77.0.4"))
    answer = await one.add()
    assert [ip["address"] for ip in answer["ips"]] == ["10.77.0.2/22", "fd77::2/128"]
    assert answer["ips"][1]["gateway"] == "fd77::1"
    await two.add()
    await plain.add()
    assert await one.ping("fd77::3")
    assert await one.ping("fd77::1")
    assert await one.ping("10.77.0.3")
    assert "inet6" not in fx.sh("ip", "-n", plain.name, "addr", "show", "eth0")
    shown = json.loads(fx.sh("ip", "-n", one.name, "-j", "-6", "addr", "show", "eth0"))[0]["addr_info"]
    assert [(a["local"], a["prefixlen"]) for a in shown] == [("fd77::2", 128)], "no link-local one"
    routes = {r["dst"]: r.get("gateway") for r in json.loads(fx.sh("ip", "-n", one.name, "-j", "-6", "route"))}
    assert routes["default"] == "fd77::1"
    code, answer = await two.call("ADD", "0.4.0")
    assert code == 0
    assert [ip["version"] for ip in answer["ips"]] == ["4", "6"]
    # Addresses that are not the network's are not let through.
    fx.sh("ip", "-n", one.name, "addr", "add", "fd78::9/128", "dev", "eth0", "nodad")
    said = await one.python(
        """
        import socket
        s = socket.create_connection
        try: s(("fd77::3", 7), 1, ("fd78::9", 0))
        except ConnectionRefusedError: print("refused")
        except OSError: print("silence")
        """
    )
    assert said == "silence"


async def test_a_container_leaves_one_of_two_networks_with_the_same_range(cloud: Cloud) -> None:
    red, blue = network("10.77.0.0/22", cidr6="fd77::/64"), network("10.77.0.0/22", "blue", cidr6="fd77::/64")
    box = cloud.box((red, "10.77.0.2 fd77::2"), (blue, "10.77.0.2 fd77::2"))
    other = cloud.box((red, "10.77.0.3 fd77::3"))
    await box.add()
    await other.add()
    # What has the same range is reached through the first.
    assert await box.ping("fd77::3")
    assert await box.ping("10.77.0.3")
    one = msgspec.structs.replace(box.attachment(), ports=box.ports[:1], networks=[red])
    await cloud.net.sync(box.container_id, one)
    assert await box.ping("fd77::3")
    assert await box.ping("10.77.0.3")


async def test_groups(cloud: Cloud) -> None:
    red = network("10.77.0.0/22", cidr6="fd77::/64")
    one, two, three = (cloud.box((red, f"10.77.0.{n} fd77::{n}")) for n in (2, 3, 4))
    for box in (one, two, three):
        await box.add()
    web = group(OUT6, SecurityRule("w", "", "ingress", "tcp", 80, 80, ethertype="IPv6"))
    friends = msgspec.structs.replace(group(OUT6, name="friends"), members_of={red.uuid: ["10.77.0.3", "fd77::3"]})
    by_group = group(
        OUT6,
        SecurityRule("f", "", "ingress", "tcp", 9000, 9000, remote_group="friends", ethertype="IPv6"),
        SecurityRule("p", "", "ingress", "ipv6-icmp", 128, 0, remote_cidr="fd77::4/128", ethertype="IPv6"),
    )
    four_only = group(SecurityRule("w4", "", "ingress", "tcp", 80, 80))
    await cloud.net.set_state(
        state([web, friends, by_group, four_only], port(one, web, by_group), port(two, friends), port(three, four_only))
    )
    async with serving(one, 80, 9000), serving(three, 80):
        assert await two.connects("fd77::2", 80) == "yes"
        assert await two.connects("10.77.0.2", 80, 1) == "silence", "that rule is for IPv6"
        assert await two.connects("fd77::2", 9000) == "yes"
        assert await three.connects("fd77::2", 9000, 1) == "silence", "may not send, and is no friend"
        assert await two.connects("10.77.0.4", 80) == "yes"
        assert await two.connects("fd77::4", 80, 1) == "silence"
    await cloud.net.set_state(
        state([web, friends, by_group], port(one, by_group), port(two, friends), port(three, friends))
    )
    assert await three.ping("fd77::2")
    assert not await two.ping("fd77::2", 1)


async def test_the_outside_sees_the_host(cloud: Cloud) -> None:
    red, blue = network("10.77.0.0/22", cidr6="fd77::/64"), network("10.78.0.0/22", cidr6="fd77::/64")
    inner = network("10.79.0.0/22", cidr6="fd79::/64", gateway6_disabled=True)
    boxes = [cloud.box((net, f"{net.cidr[:7]}.2 fd77::2")) for net in (red, blue)]
    shut = cloud.box((inner, "10.79.0.2 fd79::2"))
    for box in (*boxes, shut):
        await box.add()
    with outside6() as far:
        listener = await fx.begun_in(
            far,
            """
            import socket
            s = socket.create_server(("2001:db8:99::2", 5001), family=socket.AF_INET6); s.settimeout(50)
            print("ready", flush=True)
            print(*(s.accept()[1][0] for _ in range(2)))
            """,
        )
        for box in boxes:
            assert await box.connects("2001:db8:99::2", 5001) == "yes"
        assert await listener == "2001:db8:99::1 2001:db8:99::1"
        assert await shut.connects("2001:db8:99::2", 7, 1) == "silence"
        assert await shut.ping("fd79::1")
        # Nobody outside begins, even with a route, and the host's own services are not for containers.
        fx.sh("ip", "-n", far, "-6", "route", "add", "fd77::/64", "via", "2001:db8:99::1")
        assert await fx.connects_from(far, "fd77::2", 7, 1) == "silence"
        for address in ("2001:db8:99::1", "fd77::1"):
            assert await boxes[0].connects(address, 22, 1) == "silence"
    assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text() == "1\n"


async def test_names(cloud: Cloud) -> None:
    red = network("10.77.0.0/22", cidr6="fd77::/64")
    one = cloud.box((red, "10.77.0.2 fd77::2"))
    await one.add()
    await cloud.net.set_names([Names(red, {"web": ["10.77.0.2", "fd77::2"], "six": ["fd77::3"]})])
    for server in ("10.77.0.1", "fd77::1"):
        for how in ("udp", "tcp"):
            assert await ask(one, server, "web", "AAAA", how) == "fd77::2"
            assert await ask(one, server, "web", "A", how) == "10.77.0.2"
    reverse = "2." + "0." * 27 + "7.7.d.f.ip6.arpa"
    assert await ask(one, "fd77::1", reverse, "PTR") == "web.askos.internal."
    # The prober's own look-up finds names that have an IPv6 address alone.
    with pytest.raises(OSError, match="fd77::3"):
        await cloud.net.connect(one.container_id, "six", 80, 5)
    with pytest.raises(OSError, match="no such host"):
        await cloud.net.connect(one.container_id, "seven", 80, 5)


async def test_a_network_gets_ipv6_later(cloud: Cloud) -> None:
    red = network("10.77.0.0/22")
    old = cloud.box((red, "10.77.0.2"))
    await old.add()
    six = msgspec.structs.replace(red, cidr6="fd77::/64", gateway6="fd77::1", subnet6_uuid="s6")
    young, peer = (cloud.box((six, f"10.77.0.{n} fd77::{n}")) for n in (3, 4))
    await young.add()
    await cloud.net.collect(cloud.live(), [six])
    await peer.add()
    assert await young.ping("fd77::4")
    assert await young.ping("fd77::1")
    assert await old.ping("10.77.0.3")
    assert await ask(young, "fd77::1", "nobody", "AAAA") == ""
    # One that knows the network as it was takes nothing away.
    late = cloud.box((red, "10.77.0.5"))
    await late.add()
    assert await young.ping("fd77::4")
    await cloud.net.stop()
    cloud.net = cloud.make()
    await cloud.net.start(cloud.lookup)
    assert await young.ping("fd77::4")


async def test_a_kernel_without_ipv6(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers have IPv4 then, and nothing fails."""
    monkeypatch.setattr(host, "has_ipv6", lambda: False)
    red = network("10.77.0.0/22", cidr6="fd77::/64")
    one, two = cloud.box((red, "10.77.0.2 fd77::2")), cloud.box((red, "10.77.0.3 fd77::3"))
    answer = await one.add()
    assert len(answer["ips"]) == 1
    await two.add()
    assert await one.ping("10.77.0.3")
    assert "fd77::2" not in fx.sh("ip", "-n", one.name, "addr")
    await cloud.net.collect(cloud.live(), [red])
    assert links.uplink_name(cloud.instance, red.uuid) in fx.sh("ip", "-br", "link")


async def test_the_host_where_ipv6_is_switched_off(cloud: Cloud) -> None:
    """Inside of a network IPv6 works; only the way out is missing."""
    red = network("10.77.0.0/22", cidr6="fd77::/64")
    one, two = cloud.box((red, "10.77.0.2 fd77::2")), cloud.box((red, "10.77.0.3 fd77::3"))
    default = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    before = default.read_text()
    default.write_text("1\n")
    try:
        await one.add()
        await two.add()
    finally:
        default.write_text(before)
    assert await one.ping("fd77::3")
    uplink = fx.sh("ip", "addr", "show", links.uplink_name(cloud.instance, red.uuid))
    assert "inet6" not in uplink
    assert (
        subprocess.run(
            ["ip", "-6", "route", "get", "fd77::2"], capture_output=True, text=True, check=False
        ).stdout.find("ak")
        < 0
    )
