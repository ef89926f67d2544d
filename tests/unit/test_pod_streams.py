"""Exec, attach, port forwarding and usage of capsules, from a WebSocket down to a process, and back."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from askos.api import sockets as channel_module
from askos.api.rights import CLOSE_CODE, Rights, lost
from askos.api.streams import DEFAULT_CONTAINER, container_of
from askos.loops import usage
from askos.model.errors import InvalidError
from askos.model.identity import Caller
from askos.model.pods import Container, Pod, PodMetadata, PodSpec

from .pod_streams import RIGHTS_EVERY_S, TOKEN, UUID, Stage, stage_at

WEB = Container("web", "busybox", stdin=True)
SIDE = Container("side", "busybox")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage_at(tmp_path) as made:
        yield made


async def read(socket: aiohttp.ClientWebSocketResponse) -> list[bytes]:
    """All messages until the server closes."""
    async with asyncio.timeout(10):
        return [message.data async for message in socket]


def output(messages: list[bytes], channel: int) -> bytes:
    return b"".join(m[1:] for m in messages if m[0] == channel)


def status(messages: list[bytes]) -> Any:
    return json.loads(output(messages, 3))


# -- which container --------------------------------------------------------------------------------------------------


def test_which_container() -> None:
    def pod(*names: str, inits: tuple[str, ...] = (), default: str | None = None) -> Pod:
        annotations = {DEFAULT_CONTAINER: default} if default else {}
        return Pod(
            PodMetadata("p", annotations=annotations),
            PodSpec([Container(n, "x") for n in names], init_containers=[Container(n, "x") for n in inits]),
        )

    assert container_of(pod("a"), None) == "a"
    assert container_of(pod("a"), "") == "a"
    assert container_of(pod("a", "b"), "b") == "b"
    assert container_of(pod("a", "b", default="b"), None) == "b"
    assert container_of(pod("a", "b", default="b"), "a") == "a"
    assert container_of(pod("a", inits=("i",)), None) == "a"
    assert container_of(pod("a", inits=("i",)), "i") == "i"
    with pytest.raises(InvalidError, match=r"for pod p, choose one of: \[a b\] or one of the init containers: \[i\]$"):
        container_of(pod("a", "b", inits=("i",), default="gone"), None)
    with pytest.raises(InvalidError, match=r"for pod p, choose one of: \[a b\]$"):
        container_of(pod("a", "b"), None)
    with pytest.raises(InvalidError, match="container c is not valid for pod p"):
        container_of(pod("a", "b"), "c")


# -- exec -------------------------------------------------------------------------------------------------------------


async def test_exec(stage: Stage) -> None:
    await stage.run(WEB, SIDE)
    await stage.start("side", "sleep", "1000")
    query = "exec?container=side&command=sh&command=-c&command=echo+out;+echo+err+>%262;+exit+3"
    async with stage.socket(query) as socket:
        assert socket.protocol == "v5.channel.k8s.io"
        got = await read(socket)
    assert got[0] == b"\x01"  # a first message without data, for clients that wait for one
    assert (output(got, 1), output(got, 2)) == (b"out\n", b"err\n")
    assert status(got) == {
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": "command terminated with non-zero exit code: exit status 3",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    }  # fmt: skip
    await stage.over()


@pytest.mark.parametrize(
    ("query", "first", "out", "err"),
    [
        ("stdout=true&stderr=false", b"\x01", b"out\n", b""),
        ("stdout=0&stderr=1", b"\x02", b"", b"err\n"),
        ("stdin=1&stdout=0&stderr=0", b"\x03", b"", b""),
    ],
)
async def test_only_what_was_asked_for_comes(stage: Stage, query: str, first: bytes, out: bytes, err: bytes) -> None:
    await stage.run(WEB)
    await stage.start("web", "sleep", "1000")
    async with stage.socket(f"exec?command=sh&command=-c&command=echo+out;+echo+err+>%262&{query}") as socket:
        got = await read(socket)
    assert got[0] == first
    assert (output(got, 1), output(got, 2)) == (out, err)
    assert status(got)["status"] == "Success"


async def test_input_its_end_and_the_terminals_size(stage: Stage) -> None:
    await stage.run(WEB)
    await stage.start("web", "sleep", "1000")
    async with stage.socket("exec?command=cat&stdin=true") as socket:
        await socket.send_bytes(b"\x04" + json.dumps({"Width": 100, "Height": 30}).encode())
        for junk in (b"\x04junk", b"\x04{}", b"\x09x", b"", b"\xff"):
            await socket.send_bytes(junk)
        await socket.send_bytes(b"\x00one ")
        await socket.send_bytes(b"\x00two")
        await socket.send_bytes(b"\xff\x00")
        got = await read(socket)
    assert output(got, 1) == b"one two"
    assert status(got)["status"] == "Success"


async def test_input_that_was_not_asked_for_goes_nowhere(stage: Stage) -> None:
    await stage.run(WEB)
    await stage.start("web", "sleep", "1000")
    async with stage.socket("exec?command=cat") as socket:
        await socket.send_bytes(b"\x00lost")
        assert output(await read(socket), 1) == b""


async def test_much_data_both_ways(stage: Stage) -> None:
    await stage.run(WEB)
    await stage.start("web", "sleep", "1000")
    data = b"0123456789abcdef" * 16384  # 256 KiB
    async with stage.socket("exec?command=cat&stdin=true") as socket:

        async def feed() -> None:
            for _ in range(12):
                await socket.send_bytes(b"\x00" + data)
            await socket.send_bytes(b"\xff\x00")

        feeding = asyncio.create_task(feed())
        got = await read(socket)
        await feeding
    assert output(got, 1) == data * 12


async def test_v4_and_base64(stage: Stage) -> None:
    await stage.run(WEB)
    await stage.start("web", "sleep", "1000")
    command = "exec?command=sh&command=-c&command=echo+out;+exit+2"
    async with stage.socket(command, "v4.channel.k8s.io") as socket:
        got = await read(socket)
        assert (output(got, 1), status(got)["reason"]) == (b"out\n", "NonZeroExitCode")
    async with stage.socket(command, None) as socket:
        assert socket.protocol is None
        assert output(await read(socket), 1) == b"out\n"
    async with stage.socket("exec?command=cat&stdin=1", "v4.base64.channel.k8s.io") as socket:
        assert (await socket.receive_str()) == "1"
        await socket.send_str("not base64")
        await socket.send_str("0" + base64.b64encode(b"\x00\xff").decode())
        text = await socket.receive_str()
        assert (text[0], base64.b64decode(text[1:])) == ("1", b"\x00\xff")
    await stage.over()


async def test_who_leaves_ends_the_process(stage: Stage) -> None:
    await stage.run(WEB)
    await stage.start("web", "sleep", "1000")
    async with stage.socket("exec?command=sleep&command=1000") as socket:
        assert await socket.receive_bytes() == b"\x01"
        assert not stage.lines[0].task.done()
    await stage.over()


async def test_a_terminal_has_no_second_stream(stage: Stage) -> None:
    await stage.run(WEB)
    await stage.start("web", "sleep", "1000")
    async with stage.socket("exec?command=echo&command=hi&tty=true&stdin=true&width=100&height=30") as socket:
        got = await read(socket)
    assert (output(got, 1), output(got, 2)) == (b"hi\r\n", b"")
    assert stage.lines[0].arguments["request"] == {
        "argv": ["echo", "hi"], "tty": True, "stdin": True, "width": 100, "height": 30,
    }  # fmt: skip


async def test_a_message_that_is_too_large_ends_it(stage: Stage) -> None:
    await stage.run(WEB)
    await stage.start("web", "sleep", "1000")
    async with stage.socket("exec?command=cat&stdin=true") as socket:
        with contextlib.suppress(ConnectionError):
            await socket.send_bytes(bytes(channel_module.MAX_MESSAGE + 1))
        async with asyncio.timeout(10):
            while not socket.closed:
                await socket.receive()
    assert socket.close_code != aiohttp.WSCloseCode.OK
    await stage.over()


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "PING_S", 0.02)
    stage.streams._idle_s = 0.5
    await stage.run(WEB)
    await stage.start("web", "sleep", "1000")
    async with stage.socket("exec?command=cat&stdin=true") as socket:
        for _ in range(10):
            await socket.send_bytes(b"\x00x")
            await asyncio.sleep(0.1)
        assert not socket.closed
        got = await read(socket)
    assert output(got, 1) == b"x" * 10
    await stage.over()


# -- rights -----------------------------------------------------------------------------------------------------------

MEMBER = TOKEN["X-Auth-Token"]


async def looked_at(stage: Stage, times: int = 2) -> None:
    """Until the token was looked at again so often."""
    stage.identity.asked.clear()
    async with asyncio.timeout(10):
        while stage.identity.asked.count(MEMBER) < times:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("path", ["exec?command=cat&stdin=true", "attach?stdin=true", "portforward?port=1&port=2"])
async def test_a_stream_ends_with_the_rights_of_who_opened_it(
    stage: Stage, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(*_: Any) -> Any:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        kept.append(theirs)
        return ours

    kept: list[socket.socket] = []
    monkeypatch.setattr(stage.network, "connect", connect)
    await stage.run(WEB)
    await stage.start("web", "sleep", "1000")
    async with stage.socket(path) as stream:
        # Neither the token's end nor an identity service that is down is a reason to break off.
        stage.identity.expired.add(MEMBER)
        await looked_at(stage)
        stage.identity.down = True
        await looked_at(stage)
        stage.identity.down = False
        assert not stream.closed
        stage.identity.revoked.add(MEMBER)
        await read(stream)
        assert stream.close_code == CLOSE_CODE
    await stage.over()
    stage.identity.asked.clear()
    await asyncio.sleep(4 * RIGHTS_EVERY_S)
    assert stage.identity.asked == [], "nobody is looked after any more"
    for end in kept:
        end.close()


async def test_a_log_that_is_followed_ends_too(stage: Stage) -> None:
    await stage.run(WEB)
    await stage.start("web", "sleep", "1000")
    url = f"{stage.url}/askos/v1/capsules/{UUID}/logs?follow=true"
    async with stage.client.get(url, headers=TOKEN) as got:
        assert got.status == 200
        await looked_at(stage)
        stage.identity.revoked.add(MEMBER)
        with pytest.raises(aiohttp.ClientPayloadError):
            async with asyncio.timeout(10):
                await got.read()
    await stage.over()


async def test_a_role_that_was_taken_away(stage: Stage) -> None:
    rights = Rights(stage.identity, RIGHTS_EVERY_S)
    now = [Caller("ann", "p1", False, ["member", "reader"])]

    async def validate(_token: str, *, allow_expired: bool = False) -> Caller:
        assert allow_expired
        return now[0]

    stage.identity.validate = validate  # type: ignore[method-assign]
    raw, other = make_mocked_request("GET", "/"), make_mocked_request("GET", "/")
    with rights.held(raw, "t", now[0]), rights.held(other, "t", Caller("ann", "p1", False, ["reader"])):
        now[0] = Caller("ann", "p1", False, ["reader"])
        async with asyncio.timeout(10):
            await lost(raw).wait()
        assert not lost(other).is_set(), "who only read may go on"
    await stage.over()


async def test_many_streams_of_one_token_cost_one_look(stage: Stage) -> None:
    rights = Rights(stage.identity, RIGHTS_EVERY_S)
    caller = await stage.identity.validate(MEMBER)
    with contextlib.ExitStack() as streams:
        for _ in range(50):
            streams.enter_context(rights.held(make_mocked_request("GET", "/"), MEMBER, caller))
        checks = 0
        original = rights._check

        async def counted(token: str) -> None:
            nonlocal checks
            checks += 1
            await original(token)

        rights._check = counted  # type: ignore[method-assign]
        await looked_at(stage, 3)
        assert len(stage.identity.asked) == checks
    await stage.over()


async def test_what_cannot_be_executed_is_an_http_error(stage: Stage) -> None:
    await stage.run(WEB, SIDE)
    web = "exec?container=web"
    assert await stage.refused(f"{web}&command=id") == (409, 'Container "web" of pod "web" is not running.')
    await stage.start("web", "sleep", "1000")
    assert (await stage.refused(f"{web}&command=nosuch"))[0] == 409
    assert (await stage.refused(web))[0] == 400
    assert (await stage.refused("exec?command=id"))[1].startswith("a container name must be specified for pod web")
    assert (await stage.refused("exec?command=id&container=x"))[0] == 400
    assert (await stage.refused(f"{web}&command=id&stdin=0&stdout=0&stderr=0"))[0] == 400
    assert (await stage.refused(f"{web}&command=id&stdin=perhaps"))[0] == 400
    assert (await stage.refused(f"{web}&command=id&width=0"))[0] == 400
    assert (await stage.refused("other/exec?command=id"))[0] == 404
    assert (await stage.refused(f"{web}&command=id", upgrade=False))[1].startswith("This is a WebSocket endpoint")
    stage.placed = False
    assert await stage.refused(f"{web}&command=id") == (409, 'pod "web" does not have a host assigned')
    await stage.over()


async def test_a_protocol_that_is_not_spoken(stage: Stage) -> None:
    await stage.run(WEB)
    await stage.start("web", "sleep", "1000")
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await stage.socket("exec?command=id", "v9.channel.k8s.io")
    assert caught.value.status == 400
    assert stage.lines == []


# -- attach -----------------------------------------------------------------------------------------------------------


async def test_attach(stage: Stage) -> None:
    await stage.run(WEB)
    container_id = await stage.start("web", "cat")
    async with stage.socket("attach?stdin=true") as socket:
        assert await socket.receive_bytes() == b"\x01"
        await socket.send_bytes(b"\x00hello")
        assert await socket.receive_bytes() == b"\x01hello"
        await stage.runtime.stop_container(container_id, 0)
        got = await read(socket)
    assert status(got)["details"]["causes"] == [{"reason": "ExitCode", "message": "137"}]
    await stage.over()


async def test_attach_to_what_ends_well(stage: Stage) -> None:
    await stage.run(msgspec.structs.replace(WEB, stdin_once=True))
    await stage.start("web", "cat")
    async with stage.socket("attach?stdin=true") as socket:
        await socket.send_bytes(b"\x00bye")
        await socket.send_bytes(b"\xff\x00")
        got = await read(socket)
    assert (output(got, 1), status(got)) == (b"bye", {"metadata": {}, "status": "Success"})


async def test_leaving_an_attached_container_leaves_it_alone(stage: Stage) -> None:
    await stage.run(WEB)
    container_id = await stage.start("web", "cat")
    for _ in range(2):
        async with stage.socket("attach?stdin=true") as socket:
            await socket.receive_bytes()
        await stage.over()
    assert stage.runtime.containers[container_id].seen.state == "running"


async def test_a_container_without_input_can_be_watched(stage: Stage) -> None:
    await stage.run(SIDE)
    container_id = await stage.start("side", "sh", "-c", "sleep 0.3; echo done")
    async with stage.socket("attach?stdin=true&tty=true") as socket:
        await socket.send_bytes(b"\x00nowhere")
        got = await read(socket)
    assert output(got, 1) == b"done\n"
    assert stage.runtime.containers[container_id].seen.exit_code == 0
    assert (await stage.refused("attach"))[0] == 409


# -- port forwarding --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(handle: Callable[..., Any]) -> AsyncIterator[int]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def echo_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers only when it has read everything: without half-close there is no answer."""
    writer.write((await reader.read())[::-1])
    writer.close()
    await writer.wait_closed()


async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    writer.close()
    await writer.wait_closed()


async def running(stage: Stage) -> None:
    await stage.run(WEB)
    await stage.start("web", "sleep", "1000")


async def test_several_ports_with_half_close(stage: Stage) -> None:
    await running(stage)
    async with served(echo_at_the_end) as one, served(greet) as two:
        async with stage.socket(f"portforward?port={one}&port={two}") as socket:
            await socket.send_bytes(b"\x00abc")
            await socket.send_bytes(b"\x00def")
            await socket.send_bytes(b"\xff\x00")
            await socket.send_bytes(b"\xff\x02")
            got = await read(socket)
    assert got[:4] == [bytes([n]) + struct.pack("<H", port) for n, port in enumerate((one, one, two, two))]
    assert output(got[4:], 0) == b"fedcba"
    assert output(got[4:], 2) == b"hello"
    assert sorted(output(got[4:], 255)) == [0, 2]
    assert set(stage.network.asked) == {(stage.sandbox_id, "127.0.0.1", p) for p in (one, two)}
    await stage.over()


async def test_v4_ends_when_the_programs_have(stage: Stage) -> None:
    await running(stage)
    async with served(greet) as port:
        async with stage.socket(f"portforward?port={port},{port}", "v4.channel.k8s.io") as socket:
            got = await read(socket)
    assert (output(got[4:], 0), output(got[4:], 2)) == (b"hello", b"hello")
    assert not output(got, 255)
    await stage.over()


async def test_a_port_where_nobody_listens(stage: Stage) -> None:
    await running(stage)
    async with served(greet) as port:
        pass
    async with served(greet) as other:
        async with stage.socket(f"portforward?port={port}&port={other}", "v4.channel.k8s.io") as socket:
            got = await read(socket)
    why = f'Cannot forward to port {port} of pod "web": 127.0.0.1:{port}: connection refused.'
    assert output(got[4:], 1).decode().startswith(why)
    assert output(got[4:], 2) == b"hello"


async def test_a_program_that_reads_slowly_slows_the_client_and_loses_nothing(stage: Stage) -> None:
    await running(stage)
    total = 6 << 20
    got = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await asyncio.sleep(0.1)
        while data := await reader.read(1 << 16):
            got += len(data)
        writer.close()
        await writer.wait_closed()

    async with served(slow) as port:
        async with stage.socket(f"portforward?port={port}") as socket:
            for _ in range(total >> 16):
                await socket.send_bytes(b"\x00" + bytes(1 << 16))
            await socket.send_bytes(b"\xff\x00")
            await read(socket)
    assert got == total


async def test_who_leaves_ends_the_connection(stage: Stage) -> None:
    await running(stage)
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with served(wait) as port:
        async with stage.socket(f"portforward?port={port}") as socket:
            await socket.receive_bytes()
            await socket.send_bytes(b"\x00x")
        async with asyncio.timeout(5):
            await ended.wait()
        await stage.over()


@pytest.mark.parametrize("ports", ["", "port=", "port=0", "port=65536", "port=x", "port=80,,81", "port=1" + ",1" * 64])
async def test_ports_that_are_none(stage: Stage, ports: str) -> None:
    await running(stage)
    assert (await stage.refused(f"portforward?{ports}"))[0] == 400


async def test_a_pod_that_does_not_run_yet(stage: Stage) -> None:
    await stage.run(WEB)
    assert await stage.refused("portforward?port=80") == (
        409, 'Cannot forward ports of pod "web": it is not running, but Pending.'
    )  # fmt: skip


# -- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [f"{UUID}/stats", "stats"])
async def test_stats(stage: Stage, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(usage, "FIRST_WAIT_S", 0.01)
    await stage.run(WEB, SIDE)
    await stage.start("web", "sleep", "1000")
    async with stage.client.get(
        f"{stage.url}/askos/v1/capsules/{path}", headers={"X-Auth-Token": "ann:p1:member"}
    ) as got:
        (item,) = (await got.json())["items"]
    assert (item["id"], item["name"], item["namespace"]) == (UUID, "web", "default")
    (container,) = item["containers"]
    assert container["name"] == "web"
    # The fake uses 10 ns each microsecond: a hundredth of a core.
    assert container["cpuUsageNanoCores"] == 10_000_000
    assert container["memoryWorkingSetBytes"] == 1 << 20
    assert set(container) >= {"cpuUsageNanoSeconds", "memoryRssBytes", "rootfsUsedBytes", "pids", "startTime"}


async def test_rates_are_kept_between_questions_and_forgotten_with_their_containers(stage: Stage) -> None:
    await stage.run(WEB)
    container_id = await stage.start("web", "sleep", "1000")
    now = 1_000_000_000
    stage.runtime.clock = lambda: now
    asked = usage.Usage(stage.agent)

    async def cores(after_us: int) -> int | None:
        nonlocal now
        now += after_us
        (found,) = await asked.of(None)
        return found["nano_cores"]

    assert await cores(0) is None  # the clock stands still
    assert await cores(500_000) == 10_000_000
    assert await cores(500_000) == 10_000_000
    assert await cores(1) == 10_000_000
    await stage.runtime.remove_container(container_id)
    assert await asked.of(None) == []
    assert asked._rates == {}
