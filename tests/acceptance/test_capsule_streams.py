"""Exec, attach, port forwarding, logs and usage of real capsules, over the real door."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from tests.acceptance.capsule_fixtures import Pod, container, pod
from tests.acceptance.cloud_fixtures import Cloud, eventually

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
WEB = "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 127.0.0.1:8080 -h /www"

Talk = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[None]]


async def _nothing(_socket: aiohttp.ClientWebSocketResponse) -> None:
    return


def connect(made: Pod, path: str, talk: Talk = _nothing, *, protocol: str = V5) -> list[bytes]:
    """Connect, talk, and read until the server closes: all messages."""

    async def run() -> list[bytes]:
        url = f"http://127.0.0.1:{made.cloud.port}/askos/v1/capsules/{made.id}/{path}"
        headers = {"X-Auth-Token": made.cloud.token()}
        async with asyncio.timeout(60), aiohttp.ClientSession() as client:
            async with client.ws_connect(url, headers=headers, protocols=(protocol,)) as socket:
                await talk(socket)
                return [message.data async for message in socket]

    return asyncio.run(run())


def output(messages: list[bytes], channel: int = 1) -> bytes:
    return b"".join(m[1:] for m in messages if m[0] == channel)


def exit_code(messages: list[bytes]) -> int:
    status = json.loads(output(messages, 3))
    if status["status"] == "Success":
        return 0
    return int(status["details"]["causes"][0]["message"])


@pytest.mark.parametrize("protocol", [V5, V4])
def test_exec_in_the_container_that_is_meant(cloud: Cloud, protocol: str) -> None:
    made = Pod.create(cloud, pod(container("one"), container("two"))).ready()
    for name in ("one", "two"):
        made.inside(f"echo {name} > /name", name)
    query = "&command=sh&command=-c&command=cat+/name;+echo+bad+>%262;+exit+5"
    for name in ("one", "two"):
        got = connect(made, f"exec?container={name}{query}", protocol=protocol)
        assert (output(got), output(got, 2), exit_code(got)) == (f"{name}\n".encode(), b"bad\n", 5)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        connect(made, f"exec?{query[1:]}")
    assert caught.value.status == 400


def test_input_with_its_end_and_a_terminal(cloud: Cloud) -> None:
    made = Pod.create(cloud, pod()).ready()
    data = bytes(range(256)) * 4096  # 1 MiB

    async def feed(socket: aiohttp.ClientWebSocketResponse) -> None:
        for start in range(0, len(data), 1 << 16):
            await socket.send_bytes(b"\x00" + data[start : start + (1 << 16)])
        await socket.send_bytes(b"\xff\x00")

    got = connect(made, "exec?command=md5sum&stdin=true", feed)
    assert output(got).split()[0].decode() == hashlib.md5(data).hexdigest()

    async def resize(socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.send_bytes(b"\x04" + json.dumps({"Width": 123, "Height": 45}).encode())
        # The size and what is typed take different ways: the shell waits for both. It is written in two parts, since
        # what is typed is shown, too.
        wait = b"until [ \"$(stty size)\" = '45'' 123' ]; do sleep 0.1; done; stty size; exit\n"
        await socket.send_bytes(b"\x00" + wait)

    got = connect(made, "exec?command=sh&stdin=true&tty=true", resize)
    assert b"45 123" in output(got)


def test_attach_sees_what_comes_and_how_it_ends(cloud: Cloud) -> None:
    script = "read word; echo got $word; exit 7"
    made = Pod.create(cloud, pod(container("main", script, stdin=True, stdinOnce=True), restartPolicy="Never"))
    made.phase("Running")

    async def say(socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.receive_bytes()
        await socket.send_bytes(b"\x00hello\n")

    got = connect(made, "attach?stdin=true", say)
    assert (output(got), exit_code(got)) == (b"got hello\n", 7)


def test_ports_inside_the_capsule(cloud: Cloud) -> None:
    made = Pod.create(cloud, pod(container("main", WEB))).ready()
    request = b"GET / HTTP/1.0\r\n\r\n"

    async def ask(socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.send_bytes(b"\x00" + request)
        await socket.send_bytes(b"\xff\x00")

    def look() -> list[bytes]:
        got = connect(made, "portforward?port=8080&port=9", ask)
        return got if b"hello" in output(got, 0) else []

    got = eventually(look, "the web server answers")
    assert output(got, 0).startswith(struct.pack("<H", 8080) + b"HTTP/1.1 200 OK")
    assert output(got, 1) == struct.pack("<H", 8080)
    assert b"connection refused" in output(got, 3)


def test_logs_of_each_life(cloud: Cloud) -> None:
    script = (
        "n=$(cat /keep/n 2>/dev/null); n=$((n + 1)); echo $n > /keep/n; echo life $n; [ $n -gt 1 ] || exit 1; sleep 600"
    )
    mounts: dict[str, Any] = {"volumeMounts": [{"name": "keep", "mountPath": "/keep"}]}
    made = Pod.create(cloud, pod(container("main", script, **mounts), volumes=[{"name": "keep", "emptyDir": {}}]))
    made.says("life 2", timeout_s=60)
    assert made.logs() == "life 2\n"
    assert made.logs(query="&previous=true") == "life 1\n"
    assert made.logs(query="&tailLines=0") == ""
    assert made.logs(query="&limitBytes=4") == "life"
    assert made.logs(query="&timestamps=true").endswith(" life 2\n")
    assert made.api("GET", "/logs?container=none").status == 400


def test_following_ends_with_the_container(cloud: Cloud) -> None:
    body = pod(container("main", "echo one; sleep 2; echo two"), restartPolicy="Never")
    made = Pod.create(cloud, body)
    made.says("one")
    assert made.logs(query="&follow=true") == "one\ntwo\n"
    made.phase("Succeeded")
    assert made.logs() == "one\ntwo\n"


def test_what_has_not_started_says_why(cloud: Cloud) -> None:
    waiting = container("main", image="localhost:1/none", imagePullPolicy="Never")
    made = Pod.create(cloud, pod(waiting))

    def look() -> str:
        answer = made.api("GET", "/logs")
        assert answer.status == 400
        return str(answer.error["title"])

    eventually(lambda: 'container "main" in pod' in look() and "is waiting to start: Err" in look(), "it says why")


def test_usage(cloud: Cloud) -> None:
    # It asks for as much as others get on a busy machine.
    share = {"requests": {"cpu": "1"}}
    busy = Pod.create(cloud, pod(container("main", "while :; do :; done", resources=share))).ready()

    def works() -> dict[str, Any] | None:
        (item,) = busy.api("GET", "/stats").json()["items"]
        (used,) = item["containers"]
        return used if used["cpuUsageNanoCores"] > 50_000_000 else None

    # A rate counts from one look to the next, and in a short time it may not have had its turn.
    used = eventually(works, "it uses a processor") or {}
    assert used["memoryWorkingSetBytes"] > 0
    everything = cloud.api("GET", "/askos/v1/capsules/stats").json()["items"]
    assert [found["id"] for found in everything] == [busy.id]
