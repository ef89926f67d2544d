"""Interactive sessions: tickets, the handshake of Zun's clients, and a terminal's bytes in both directions."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestServer
from sqlalchemy import select

from askos.adapters.sql import schema
from askos.adapters.sql.store import SqlStore
from askos.api.sessions import LIFETIME_US, MOST_TICKETS, whole_characters
from askos.model.capsules import CapsuleReport, Report
from askos.model.errors import ConflictError, RuntimeFailedError
from askos.ports.calls import Frame

from .cloud import HOST, Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

STARTED = Frame(control={"started": True})


class LiveStream:
    """A call whose host is the test: it sends with `give`, and sees what comes in `sent`."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Frame] = asyncio.Queue()
        self.closed = False
        self.result: Any = None
        self._given: asyncio.Queue[Frame | None] = asyncio.Queue()
        self.give(STARTED)

    def give(self, frame: Frame | None) -> None:
        self._given.put_nowait(frame)

    async def send(self, frame: Frame) -> None:
        await self.sent.put(frame)

    async def frames(self) -> AsyncIterator[Frame]:
        while (frame := await self._given.get()) is not None:
            yield frame

    async def close(self) -> None:
        self.closed = True
        self.give(None)


def live(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> LiveStream:
    stream = LiveStream()

    async def open_(host_uuid: str, method: str, arguments: dict[str, Any]) -> LiveStream:
        cloud.calls.asked.append((host_uuid, method, arguments, None))
        return stream

    monkeypatch.setattr(cloud.calls, "open", open_)
    return stream


async def shell(cloud: Cloud, token: str) -> str:
    return await cloud.in_status(token, "Running", interactive=True, tty=True)


async def attach_url(cloud: Cloud, uuid: str, token: str) -> str:
    got = await cloud.ask("GET", f"/v1/containers/{uuid}/attach", token)
    assert got.status == 200, got
    return str(got.body)


async def exec_url(cloud: Cloud, uuid: str, token: str, command: str = "sh") -> tuple[str, str]:
    path = f"/v1/containers/{uuid}/execute?command={command}&run=False&interactive=True"
    got = await cloud.ask("POST", path, token)
    assert got.status == 200, got
    assert (got.body["output"], got.body["exit_code"]) == (None, None)
    return got.body["exec_id"], got.body["proxy_url"]


async def refused(cloud: Cloud, url: str, **headers: str) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await cloud.session.ws_connect(url, headers=headers)
    return caught.value.status


# -- carrying ---------------------------------------------------------------------------------------------------------


async def test_attach(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cloud.project()
    uuid = await shell(cloud, token)
    url = await attach_url(cloud, uuid, token)
    parts = urlsplit(url)
    assert (parts.scheme, f"http://{parts.netloc}", parts.path) == ("ws", cloud.url, "/askos/v1/sessions")
    assert parse_qs(parts.query)["uuid"] == [uuid]
    stream = live(cloud, monkeypatch)
    # As python-zunclient's library does it: no space between the protocols, an Origin made from the URL.
    headers = {"Sec-WebSocket-Protocol": "binary,base64", "Origin": f"http://{parts.netloc}"}
    async with cloud.session.ws_connect(url, headers=headers) as socket:
        assert socket.protocol is None or socket.protocol == "binary"
        assert socket._response.headers["Sec-WebSocket-Protocol"] == "binary"
        await socket.send_bytes(b"ls\n")
        assert await stream.sent.get() == Frame(0, b"ls\n")
        await socket.send_str("grüße\n")
        assert await stream.sent.get() == Frame(0, "grüße\n".encode())
        stream.give(Frame(1, b"/ # \xc3"))
        stream.give(Frame(1, b"\xa4 \xe2\x82"))
        stream.give(Frame(2, b"\xac"))
        got = [(await socket.receive()).data for _ in range(3)]
        assert got == [b"/ # ", "ä ".encode(), "€".encode()]
        stream.give(None)
        closed = await socket.receive()
        assert (closed.type, closed.data, closed.extra) == (WSMsgType.CLOSE, 1000, "Target closed")
    host, method, arguments, _ = cloud.calls.asked[-1]
    assert (host, method) == (HOST, "attach")
    assert arguments == {"capsule": uuid, "container": "main", "stdin": True, "tty": True}


async def test_exec_and_its_size(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cloud.project()
    uuid = await shell(cloud, token)
    exec_id, url = await exec_url(cloud, uuid, token, '"sh"+"-c"+"exit+3"')
    assert len(exec_id) == 64
    assert url.endswith(f"&exec_id={exec_id}")
    path = f"/v1/containers/{uuid}/execute_resize?exec_id={exec_id}&w=120&h=40"
    (await cloud.ask("POST", path, token)).refused(409, "conflict")
    stream = live(cloud, monkeypatch)
    async with cloud.session.ws_connect(url) as socket:
        request = cloud.calls.asked[-1][2]["request"]
        assert (request["argv"], request["tty"], request["stdin"]) == (["sh", "-c", "exit 3"], True, True)
        assert (await cloud.ask("POST", path, token)).raw == b"null"
        assert (await stream.sent.get()).control == {"resize": [120, 40]}
        other = await shell(cloud, token)
        got = await cloud.ask("POST", path.replace(uuid, other), token)
        got.refused(400, "invalid", "no such exec instance")
        await socket.close()
    async with asyncio.timeout(5):
        while not stream.closed:
            await asyncio.sleep(0.01)
    (await cloud.ask("POST", path, token)).refused(400, "invalid", "no such exec instance")
    for bad in (
        "",
        "?exec_id=abc&w=1&h=1",
        f"?exec_id={'A' * 64}&w=1&h=1",
        f"?exec_id={exec_id}",
        f"?exec_id={exec_id}&w=1&h=0",
    ):
        got = await cloud.ask("POST", f"/v1/containers/{uuid}/execute_resize{bad}", token)
        got.refused(400, "schema-validation-error")


async def test_a_client_that_goes_ends_the_call(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cloud.project()
    uuid = await shell(cloud, token)
    for goodbye in ("close", "empty"):
        stream = live(cloud, monkeypatch)
        _, url = await exec_url(cloud, uuid, token)
        async with cloud.session.ws_connect(url) as socket:
            if goodbye == "empty":
                await socket.send_bytes(b"")
                assert (await socket.receive()).data == 1000
        async with asyncio.timeout(5):
            while not stream.closed:
                await asyncio.sleep(0.01)


async def test_a_program_that_is_not_there_is_told_where_its_output_would_be(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await shell(cloud, token)
    _, url = await exec_url(cloud, uuid, token, "nosuch")
    cloud.calls.answers = {"exec": ([], RuntimeFailedError("cannot start nosuch", retryable=False))}
    async with cloud.session.ws_connect(url) as socket:
        assert (await socket.receive()).data == b"cannot start nosuch\r\n"
        assert (await socket.receive()).data == 1000


async def test_no_loss_and_no_hurry(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cloud.project()
    uuid = await shell(cloud, token)
    _, url = await exec_url(cloud, uuid, token)
    piece, count, asked = bytes(range(128)) * 512, 320, 0

    class Fast(LiveStream):
        async def frames(self) -> AsyncIterator[Frame]:
            nonlocal asked
            yield STARTED
            for _ in range(count):
                asked += 1
                yield Frame(1, piece)

    async def open_(*_: Any) -> LiveStream:
        return Fast()

    monkeypatch.setattr(cloud.calls, "open", open_)
    async with cloud.session.ws_connect(url, max_msg_size=0) as socket:
        await asyncio.sleep(0.3)
        assert asked < count, "nobody has read, and the whole was taken from the host"
        received = b"".join([m.data async for m in socket])
    assert received == piece * count


# -- who may ----------------------------------------------------------------------------------------------------------


async def test_a_ticket_is_good_once(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await shell(cloud, token)
    cloud.calls.answers = {"attach": ([STARTED], {"exit_code": 0})}
    url = await attach_url(cloud, uuid, token)
    async with cloud.session.ws_connect(url) as socket:
        await socket.receive()
    assert await refused(cloud, url) == 403


@pytest.mark.parametrize("change", ["token", "uuid", "exec_id", "late", "none"])
async def test_other_tickets_are_none(cloud: Cloud, change: str) -> None:
    token = cloud.project()
    uuid = await shell(cloud, token)
    cloud.calls.answers = {"attach": ([STARTED], {"exit_code": 0}), "exec": ([STARTED], {"exit_code": 0})}
    url = await attach_url(cloud, uuid, token)
    other = await shell(cloud, token)
    exec_id, _ = await exec_url(cloud, uuid, token)
    wrong = {
        "token": url.replace("token=", "token=x"),
        "uuid": url.replace(uuid, other),
        "exec_id": f"{url}&exec_id={exec_id}",
        "late": url,
        "none": url.partition("?")[0],
    }[change]
    if change == "late":
        cloud.now += LIFETIME_US
    try:
        assert await refused(cloud, wrong) == 403
    finally:
        cloud.now -= LIFETIME_US if change == "late" else 0


async def test_a_container_that_has_stopped_meanwhile(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await shell(cloud, token)
    url = await attach_url(cloud, uuid, token)
    await cloud.report(uuid, "exited")
    assert await refused(cloud, url) == 409
    uuid = await shell(cloud, token)
    cloud.calls.answers = {"attach": ([], ConflictError("It does not run."))}
    assert await refused(cloud, await attach_url(cloud, uuid, token)) == 409


@pytest.mark.parametrize(
    ("origin", "more", "status"),
    [
        (None, {}, 101),
        ("http://{host}", {}, 101),
        ("http://{name}:None", {}, 101),
        ("http://{name}", {}, 101),
        ("http://{name}:1", {}, 101),
        ("HTTP://{name}", {"X-Forwarded-Proto": "http"}, 101),
        ("https://{name}", {"X-Forwarded-Proto": "http"}, 101),
        ("https://{name}", {}, 403),
        ("http://{name}", {"X-Forwarded-Proto": "https"}, 403),
        ("http://evil.example", {}, 403),
        ("http://{name}.evil.example", {}, 403),
        ("http://evil.example/{name}", {}, 403),
        ("http://{name}@evil.example", {}, 403),
        ("null", {}, 403),
        ("file://", {}, 403),
    ],
)
async def test_origins(cloud: Cloud, origin: str | None, more: dict[str, str], status: int) -> None:
    token = "ann:origins:member"
    uuid = await shell(cloud, token)
    cloud.calls.answers = {"attach": ([STARTED], {"exit_code": 0})}
    url = await attach_url(cloud, uuid, token)
    host = urlsplit(url).netloc
    headers = dict(more)
    if origin is not None:
        headers["Origin"] = origin.format(host=host, name=host.partition(":")[0])
    if status == 101:
        async with cloud.session.ws_connect(url, headers=headers) as socket:
            assert (await socket.receive()).data == 1000
    else:
        assert await refused(cloud, url, **headers) == status
        async with cloud.session.ws_connect(url):  # an attempt from elsewhere does not use the ticket up
            pass


async def test_who_gets_a_ticket(cloud: Cloud) -> None:
    token = cloud.project()
    deaf = await cloud.in_status(token, "Running")
    got = await cloud.ask("GET", f"/v1/containers/{deaf}/attach", token)
    got.refused(400, "no-interactive-flag", "Container doesn't support to be attached")
    uuid = await shell(cloud, token)
    (await cloud.ask("GET", f"/v1/containers/{uuid}/attach", cloud.project())).refused(404, "container-not-found")
    reader = token.replace("member", "reader")
    (await cloud.ask("GET", f"/v1/containers/{uuid}/attach", reader)).refused(403, "policy-not-authorized")
    got = await cloud.ask("GET", "/askos/v1/sessions", None)
    got.refused(400, "invalid", "This is a WebSocket endpoint")


async def test_a_session_ends_with_the_rights_of_who_asked_for_it(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = cloud.project()
    uuid = await shell(cloud, token)
    stream = live(cloud, monkeypatch)
    url, unused = await attach_url(cloud, uuid, token), await attach_url(cloud, uuid, token)
    # A token may expire between asking and connecting, and while somebody is connected.
    cloud.identity.expired.add(token)
    async with cloud.session.ws_connect(url) as socket:
        stream.give(Frame(1, b"$ "))
        assert (await socket.receive()).data == b"$ "
        cloud.identity.revoked.add(token)
        async with asyncio.timeout(10):
            closed = await socket.receive()
        assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1008)
        assert closed.extra.startswith("Your rights have ended")
    async with asyncio.timeout(10):
        while not stream.closed:
            await asyncio.sleep(0.01)
    assert await refused(cloud, unused) == 403


# -- several servers --------------------------------------------------------------------------------------------------


async def test_another_server_takes_the_ticket_also_after_a_restart(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = cloud.project()
    uuid = await shell(cloud, token)
    stream = live(cloud, monkeypatch)
    exec_id, url = await exec_url(cloud, uuid, token)
    async with TestServer(cloud.app()) as other:
        elsewhere = url.replace(cloud.url.partition("://")[2], f"{other.host}:{other.port}")
        async with cloud.session.ws_connect(elsewhere) as socket:
            stream.give(Frame(1, b"$ "))
            assert (await socket.receive()).data == b"$ "
        for again in (url, elsewhere):
            assert await refused(cloud, again) == 403
        resize = f"/v1/containers/{uuid}/execute_resize?exec_id={exec_id}&w=1&h=1"
        (await cloud.ask("POST", resize, token)).refused(400, "invalid", "no such exec instance")


async def test_of_many_who_come_at_once_one_is_let_in(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await shell(cloud, token)
    secret = parse_qs(urlsplit(await attach_url(cloud, uuid, token)).query)["token"][0]
    digest = hashlib.sha256(secret.encode()).hexdigest()
    servers = [SqlStore(cloud.database, clock=cloud.clock) for _ in range(8)]
    taken = await asyncio.gather(*(server.take_ticket(digest) for server in servers))
    assert sum(ticket is not None for ticket in taken) == 1


async def test_what_is_kept_of_a_ticket_is_of_no_use(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await shell(cloud, token)
    secret = parse_qs(urlsplit(await attach_url(cloud, uuid, token)).query)["token"][0]
    async with cloud.database.read() as connection:
        query = select(schema.session_tickets).where(schema.session_tickets.c.capsule_uuid == uuid)
        (row,) = (await connection.execute(query)).all()
    assert secret not in str(row)
    assert token not in str(row)
    # With the container its tickets go.
    assert (
        await cloud.ask("DELETE", f"/v1/containers/{uuid}?force=true", f"root:{token.split(':')[1]}:admin")
    ).status == 204
    (capsule,) = await cloud.store.capsules_by_uuid([uuid])
    gone = CapsuleReport(uuid, capsule.placement.epoch, Report(), gone=True)
    await cloud.store.apply_reports(HOST, [gone])
    async with cloud.database.read() as connection:
        assert (await connection.execute(query)).all() == []


async def test_the_oldest_of_too_many_tickets_are_worth_nothing(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await shell(cloud, token)
    other = await attach_url(cloud, await shell(cloud, token), token)
    first, second = [await attach_url(cloud, uuid, token) for _ in range(2)]
    for _ in range(MOST_TICKETS - 1):
        await attach_url(cloud, uuid, token)
    cloud.calls.answers = {"attach": ([STARTED], {"exit_code": 0})}
    assert await refused(cloud, first) == 403
    for url in (second, other):
        async with cloud.session.ws_connect(url):
            pass


# -- characters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["abc", "grüße", "€uro", "𝄞 clef", "", "ä€𝄞" * 10])
async def test_characters_stay_whole_wherever_they_are_cut(text: str) -> None:
    data = text.encode()
    for cut in range(len(data) + 1):
        whole, rest = whole_characters(data[:cut])
        assert whole.decode() + (rest + data[cut:]).decode() == text
        assert len(rest) < 4


@pytest.mark.parametrize("data", [b"\xff\xfe", b"\x80\x80\x80\x80\x80", b"a\x80", b"\xf8"])
async def test_what_is_no_text_is_not_held_back_for_ever(data: bytes) -> None:
    whole, rest = whole_characters(data)
    assert whole + rest == data
    assert len(rest) < 4


# -- the native endpoint ----------------------------------------------------------------------------------------------


async def test_the_native_attach(cloud: Cloud) -> None:
    token = cloud.project()
    nobody = await cloud.ask("GET", "/askos/v1/containers/00000000-0000-0000-0000-000000000000/attach", token)
    nobody.refused(404, "container-not-found")  # what the CLI takes for "there is such an endpoint"
    uuid = await shell(cloud, token)
    cloud.calls.answers = {"attach": ([STARTED, Frame(1, b"out")], {"exit_code": 3})}
    url = f"{cloud.url}/askos/v1/containers/{uuid}/attach?stdin=1&logs=1&tty=1&width=100&height=30"
    async with cloud.session.ws_connect(
        url, headers={"X-Auth-Token": token}, protocols=("v5.channel.k8s.io",)
    ) as socket:
        got = [message.data async for message in socket]
    assert got[0] == b"\x01out"
    assert got[-1][:1] == b"\x03"
    assert b'"ExitCode","message":"3"' in got[-1]
    arguments = cloud.calls.asked[-1][2]
    assert arguments == {"capsule": uuid, "container": "main", "stdin": True, "tty": True, "logs": True}
    assert [f.control for f in cloud.calls.streams[-1].sent] == [{"resize": [101, 31]}, {"resize": [100, 30]}]
    deaf = await cloud.in_status(token, "Running")
    assert await refused(cloud, url.replace(uuid, deaf), **{"X-Auth-Token": token}) == 400
    reader = {"X-Auth-Token": token.replace("member", "reader")}
    assert await refused(cloud, url, **reader) == 403
