"""A bridge network with real namespaces, and small programs that send packets from inside them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from askos.adapters.bridge.network import BridgeNetwork
from askos.model.capsules import Network, Port
from askos.model.networks import HostFloating, HostGroup, HostPort, NetworkState, SecurityRule
from askos.plan.pools import gateway_of, mac_for
from askos.ports.network import Attachment

CAN = os.geteuid() == 0 and Path("/usr/sbin/nft").exists() and Path("/usr/sbin/ip").exists()


def sh(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20).stdout


LONG_S = 60
"""For what comes at once, even on a busy machine."""


async def _python(netns: str, program: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", netns, sys.executable, "-I", "-c", textwrap.dedent(program)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def _printed(process: asyncio.subprocess.Process) -> str:
    out, _ = await asyncio.wait_for(process.communicate(), LONG_S)
    return out.decode().strip()


async def run_in(netns: str, program: str) -> str:
    """Run a Python program inside a namespace; returns what it printed."""
    return await _printed(await _python(netns, program))


async def begun_in(netns: str, program: str) -> asyncio.Task[str]:
    """Run a Python program inside a namespace that prints "ready" first, and has done so when this returns; gives what
    it prints then."""
    process = await _python(netns, program)
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), LONG_S)
    if line != b"ready\n":
        raise AssertionError((line + (await process.communicate())[0]).decode())
    return asyncio.create_task(_printed(process))


async def connects_from(netns: str, address: str, port: int, wait_s: int = 10) -> str:
    """ "yes" when TCP connects, "refused" when the answer is a reset, "silence" otherwise: where that is expected, it
    need not be long."""
    return await run_in(
        netns,
        f"""
        import socket
        s = socket.socket(socket.AF_INET6 if ":" in {address!r} else socket.AF_INET); s.settimeout({wait_s})
        try:
            s.connect(({address!r}, {port})); print("yes")
        except ConnectionRefusedError: print("refused")
        except OSError: print("silence")
        """,
    )


def left_of(instance: str) -> list[str]:
    """Everything on the host that carries a cloud's mark."""
    # "ip -d link" shows aliases too; the first two words of nft's listing name each table.
    interfaces = [line.strip() for line in sh("ip", "-d", "link").splitlines()]
    tables = sh("nft", "list", "tables").splitlines()
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in interfaces + tables + mounts if f"ak{instance[:4]}" in line or instance in line]


def network(cidr: str, name: str = "default", cidr6: str = "", **more: Any) -> Network:
    six = {"cidr6": cidr6, "gateway6": str(ip_network(cidr6)[1]), "subnet6_uuid": str(uuid.uuid4())} if cidr6 else {}
    return Network(str(uuid.uuid4()), "p1", name, cidr, gateway_of(cidr), str(uuid.uuid4()), **six, **more)


class Box:
    """One sandbox: a network namespace with an attachment. `at`: networks with addresses; "IPv4 IPv6" for both."""

    def __init__(self, cloud: Cloud, *at: tuple[Network, str]) -> None:
        self.cloud = cloud
        self.uuid = str(uuid.uuid4())
        self.container_id = secrets.token_hex(32)
        self.name = f"aktest{secrets.token_hex(4)}"
        self.netns = f"/run/netns/{self.name}"
        self.ports = []
        for net, addresses in at:
            four, _, six = addresses.partition(" ")
            self.ports.append(Port(str(uuid.uuid4()), net.uuid, self.uuid, four, mac_for(four), address6=six))
        self.networks = [n for n, _ in at]
        sh("ip", "netns", "add", self.name)

    def attachment(self) -> Attachment:
        return Attachment(self.uuid, self.name, self.ports, self.networks)

    def env(self, command: str) -> dict[str, str]:
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.cloud.bin),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=y;K8S_POD_UID={self.uuid}",
        }

    async def call(self, command: str, version: str = "1.0.0") -> tuple[int, Any]:
        """Run the plugin as containerd does."""
        conf = json.loads((self.cloud.conf / "10-askos.conflist").read_text())
        stdin = {"cniVersion": version, "name": conf["name"], **conf["plugins"][0]}
        process = await asyncio.create_subprocess_exec(
            str(self.cloud.bin / "askos-cni"),
            env=self.env(command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        given = json.dumps(stdin, separators=(",", ":")).encode()
        out, _ = await asyncio.wait_for(process.communicate(given), LONG_S)
        return process.returncode or 0, json.loads(out) if out else None

    async def add(self) -> Any:
        code, answer = await self.call("ADD")
        assert code == 0, answer
        return answer

    async def python(self, program: str) -> str:
        return await run_in(self.name, program)

    async def ping(self, address: str, wait_s: int = 10) -> bool:
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", self.name, "busybox", "ping", "-c", "1", "-W", str(wait_s), address),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait() == 0

    async def connects(self, address: str, port: int, wait_s: int = 10) -> str:
        return await connects_from(self.name, address, port, wait_s)

    def close(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, timeout=20, check=False)


class Cloud:
    """A BridgeNetwork with folders of its own and the boxes plugged into it."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.bin = root / "bin"
        self.conf = root / "conf"
        self.state = root / "net"
        self.instance = secrets.token_hex(3)
        self.options = {"upstream": [], **options}
        self.boxes: list[Box] = []
        self.net = self.make()

    def make(self) -> BridgeNetwork:
        return BridgeNetwork(self.instance, self.state, self.root / "cni.sock", self.bin, self.conf, **self.options)

    async def lookup(self, capsule_uuid: str) -> Attachment | None:
        return next((box.attachment() for box in self.boxes if box.uuid == capsule_uuid), None)

    def box(self, *at: tuple[Network, str]) -> Box:
        box = Box(self, *at)
        self.boxes.append(box)
        return box

    def space(self, net: Network) -> str:
        """The file of a network's namespace."""
        return str(self.state / f"namespaces-{self.instance}" / net.uuid)

    def inside(self, net: Network, *argv: str) -> str:
        """What a program says inside a network's namespace."""
        return sh("nsenter", f"--net={self.space(net)}", *argv)

    def live(self) -> set[str]:
        return {box.container_id for box in self.boxes}


@contextlib.asynccontextmanager
async def cloud_at(root: Path, **options: Any) -> AsyncIterator[Cloud]:
    """A started cloud; everything is removed in the end, whatever the test did."""
    root.mkdir()
    cloud = Cloud(root, **options)
    try:
        await cloud.net.start(cloud.lookup)
        yield cloud
    finally:
        await cloud.net.stop()
        await cloud.net.remove_all()
        for box in cloud.boxes:
            box.close()


@contextlib.contextmanager
def outside() -> Any:
    """A neighbour of the host: a namespace behind a veth, with 198.51.100.2 (the host has .1) and no way back to
    10.0.0.0/8, so that only masqueraded packets are answered."""
    name, near = f"aktest{secrets.token_hex(3)}", f"out{secrets.token_hex(3)}"
    sh("ip", "netns", "add", name)
    try:
        sh("ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", name)
        sh("ip", "addr", "add", "198.51.100.1/24", "dev", near)
        sh("ip", "link", "set", near, "up")
        sh("ip", "-n", name, "addr", "add", "198.51.100.2/24", "dev", "eth0")
        sh("ip", "-n", name, "link", "set", "eth0", "up")
        yield name
    finally:
        subprocess.run(["ip", "link", "del", near], check=False, capture_output=True, timeout=20)
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)


EVERYTHING_OUT = SecurityRule("out", "", "egress")


def group(*rules: SecurityRule, members: dict[str, list[str]] | None = None, name: str = "") -> HostGroup:
    return HostGroup(name or str(uuid.uuid4()), [EVERYTHING_OUT, *rules], members or {})


def port(box: Box, *groups: HostGroup, secured: bool = True) -> HostPort:
    own = box.ports[0]
    return HostPort(own.uuid, own.address, [g.uuid for g in groups], secured, own.network_uuid, own.address6)


def state(groups: list[HostGroup], *ports: HostPort, floating: list[HostFloating] | None = None) -> NetworkState:
    return NetworkState(1, list(ports), groups, floating or [])


async def listens(box: Box, *ports: int) -> None:
    """Wait until something in the box listens on all these TCP ports."""
    listen = "0A"
    async with asyncio.timeout(LONG_S):
        while True:
            rows = [row.split() for row in sh("ip", "netns", "exec", box.name, "cat", *_SOCKETS).splitlines()]
            if set(ports) <= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == listen}:
                return
            await asyncio.sleep(0.05)


_SOCKETS = [path for path in ("/proc/net/tcp", "/proc/net/tcp6") if Path(path).exists()]


@contextlib.asynccontextmanager
async def serving(box: Box, *ports: int) -> AsyncIterator[None]:
    """TCP services in a box."""
    script = " & ".join(f"busybox nc -ll -p {number} -e busybox true" for number in ports)
    process = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", box.name, "sh", "-c", f"{script} & wait"), start_new_session=True
    )
    try:
        await listens(box, *ports)
        yield
    finally:
        # The whole session is ours.
        subprocess.run(["pkill", "-9", "-s", str(process.pid)], check=False)
        await process.wait()


async def from_host(address: str, number: int, wait_s: int = 10) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, number), wait_s)
    except (TimeoutError, OSError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
