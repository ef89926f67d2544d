"""Connections made inside the network of a sandbox, in real namespaces."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from askos.model.errors import NotFoundError
from askos.ports.network import Names

from . import bridge_fixtures as fx
from .bridge_fixtures import LONG_S, Box, Cloud, cloud_at, network

pytestmark = pytest.mark.skipif(not fx.CAN, reason="needs root, iproute2 and nftables")

_SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 0), backlog=500)
print(server.getsockname()[1], flush=True)
while True:
    connection, peer = server.accept()
    connection.sendall(f"{sys.argv[2]} sees {peer[0]}".encode())
    connection.close()
"""


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with cloud_at(tmp_path / "a") as made:
        yield made


@asynccontextmanager
async def listening(box: Box, address: str, word: str) -> AsyncIterator[int]:
    """A server inside the box; gives its port."""
    process = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", box.name, sys.executable, "-c", _SERVER, address, word),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield int(await asyncio.wait_for(process.stdout.readline(), LONG_S))
    finally:
        process.kill()
        await process.wait()


async def said(sock: socket.socket) -> str:
    """What comes until the end."""
    assert sock.getblocking() is False
    loop, text = asyncio.get_running_loop(), b""
    with sock:
        while data := await loop.sock_recv(sock, 1000):
            text += data
    return text.decode()


def namespace() -> int:
    return os.stat("/proc/self/ns/net").st_ino


async def test_inside_and_not_outside(cloud: Cloud) -> None:
    net = network("10.90.0.0/24")
    one, two = cloud.box((net, "10.90.0.2")), cloud.box((net, "10.90.0.3"))
    await one.add()
    await two.add()
    async with listening(one, "127.0.0.1", "one") as port, listening(two, "10.90.0.3", "two") as other:
        # The loopback of a sandbox is reached there and nowhere else; its neighbours as it reaches them itself.
        assert await said(await cloud.net.connect(one.container_id, "127.0.0.1", port, LONG_S)) == "one sees 127.0.0.1"
        assert await said(await cloud.net.connect(two.container_id, "10.90.0.3", other, LONG_S)) == "two sees 10.90.0.3"
        assert await said(await cloud.net.connect(one.container_id, "10.90.0.3", other, LONG_S)) == "two sees 10.90.0.2"
        with pytest.raises(ConnectionRefusedError):
            await cloud.net.connect(two.container_id, "127.0.0.1", port, LONG_S)
        with pytest.raises(ConnectionRefusedError):
            await cloud.net.connect(one.container_id, "10.90.0.2", port, LONG_S)


async def test_many_at_once_with_one_thread(cloud: Cloud) -> None:
    net = network("10.91.0.0/24")
    box = cloud.box((net, "10.91.0.2"))
    await box.add()
    async with listening(box, "127.0.0.1", "box") as port:
        before, home = threading.active_count(), namespace()
        found = await asyncio.gather(
            *(cloud.net.connect(box.container_id, "127.0.0.1", port, LONG_S) for _ in range(300))
        )
        assert threading.active_count() <= before + 1
        assert {await said(sock) for sock in found} == {"box sees 127.0.0.1"}
        assert namespace() == home
        assert {os.stat(f"/proc/self/task/{t}/ns/net").st_ino for t in os.listdir("/proc/self/task")} == {home}


async def test_nobody_there(cloud: Cloud) -> None:
    net = network("10.92.0.0/24")
    box = cloud.box((net, "10.92.0.2"))
    with pytest.raises(NotFoundError, match="has no network"):
        await cloud.net.connect(box.container_id, "127.0.0.1", 80, LONG_S)
    await box.add()
    with pytest.raises(OSError, match="Errno") as caught:
        await cloud.net.connect(box.container_id, "10.92.0.77", 80, LONG_S)
    assert caught.value.errno == errno.EHOSTUNREACH
    with pytest.raises(TimeoutError, match=r"no answer from 10\.92\.0\.78:80 within 0\.1 s"):
        await cloud.net.connect(box.container_id, "10.92.0.78", 80, 0.1)
    assert (await box.call("DEL"))[0] == 0
    with pytest.raises(NotFoundError, match="has no network"):
        await cloud.net.connect(box.container_id, "127.0.0.1", 80, LONG_S)


async def test_giving_up_leaves_no_socket(cloud: Cloud) -> None:
    """An unclosed one would be a ResourceWarning, which fails the test."""
    net = network("10.93.0.0/24")
    box = cloud.box((net, "10.93.0.2"))
    await box.add()
    tries = [asyncio.create_task(cloud.net.connect(box.container_id, "10.93.0.77", 80, LONG_S)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tries[:10]:
        task.cancel()
    await asyncio.sleep(0.05)
    for task in tries[10:]:
        task.cancel()
    assert all(isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*tries, return_exceptions=True))
    assert (await box.call("DEL"))[0] == 0


async def test_names_are_looked_up_by_the_network_itself(cloud: Cloud) -> None:
    """By what the sandbox could ask, too: never by the host's resolver and its /etc/hosts."""
    net, other = network("10.93.0.0/24"), network("10.94.0.0/24")
    box, stranger = cloud.box((net, "10.93.0.2")), cloud.box((other, "10.94.0.2"))
    await box.add()
    await stranger.add()
    await cloud.net.set_names([Names(net, {"web": ["10.93.0.2"]}), Names(other, {"hidden": ["10.94.0.2"]})])
    async with listening(box, "10.93.0.2", "web") as port:
        for name in ("web", "WEB.askos.internal"):
            assert await said(await cloud.net.connect(box.container_id, name, port, LONG_S)) == "web sees 10.93.0.2"
        own = socket.gethostname()
        assert socket.gethostbyname(own), "the host knows itself"
        for name in ("hidden", "hidden.askos.internal", own.partition(".")[0], "localhost", "a" * 64, "a..b", ""):
            with pytest.raises(OSError, match=r"no such host|cannot be looked up") as caught:
                await cloud.net.connect(box.container_id, name, port, LONG_S)
            assert not isinstance(caught.value, ConnectionError | TimeoutError), name
