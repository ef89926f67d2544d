"""The prober against servers on this machine: every kind of check, thresholds, gates, events, hooks."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from askos.loops import checks, grpc_health
from askos.loops.checks import Outcome, Place
from askos.loops.probes import Prober, Target, runner
from askos.model.errors import ConflictError, NotFoundError, RuntimeFailedError
from askos.model.pods import (
    Container,
    ContainerPort,
    EnvSource,
    EnvVar,
    Event,
    ExecAction,
    FieldRef,
    GrpcAction,
    Hook,
    HttpGet,
    HttpHeader,
    Probe,
    SleepAction,
    TcpSocket,
)
from askos.plan.pods.steps import ProbeState
from askos.ports import runtime as rt
from askos.ports.clock import now_us

from .fakes import BUSYBOX, FakeRuntime

CAPSULE = "capsule-1"
IP = "127.0.0.1"


async def dial(sandbox_id: str, address: str, port: int, timeout_s: float) -> socket.socket:
    """What the host's network does, but in the one network there is."""
    assert sandbox_id == "box"
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().sock_connect(made, (address, port))
    except BaseException:
        made.close()
        raise
    return made


def place(*ports: ContainerPort) -> Place:
    return Place("box", IP, "c1", Container("web", "busybox", ports=list(ports)))


# -- servers ----------------------------------------------------------------------------------------------------------

Answer = Callable[[bytes], bytes | Awaitable[bytes]]


@contextlib.asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that reads a request's head and writes what `answer` makes of it, then closes; gives its port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            found = answer(head)
            writer.write(found if isinstance(found, bytes) else await found)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()
            with contextlib.suppress(Exception):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, IP, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def page(status: str = "200 OK", body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 1024)  # as weak as people's certificates are
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "someone.else")])
    then = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, then, then + datetime.timedelta(days=1))
    folder: Path = tmp_path_factory.mktemp("tls")
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / "cert").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(folder / "cert", folder / "key")
    return context


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind((IP, 0))
        return int(sock.getsockname()[1])


# -- HTTP -------------------------------------------------------------------------------------------------------------


async def get(port: int | str, timeout_s: float = 5, **more: Any) -> Outcome:
    return await checks.http(dial, place(), HttpGet(port, **more), timeout_s)


@pytest.mark.parametrize(
    ("status", "good"),
    [("200 OK", True), ("204 No Content", True), ("399 Odd", True), ("400 Bad", False), ("503 No", False)],
)
async def test_statuses(status: str, good: bool) -> None:
    async with serving(lambda _: page(status)) as port:
        outcome = await get(port)
    assert outcome.good is good
    if not good:
        assert outcome.output == f"HTTP probe failed with statuscode: {status[:3]}"


async def test_what_is_sent() -> None:
    heads: list[bytes] = []
    async with serving(lambda head: heads.append(head) or page()) as port:  # type: ignore[func-returns-value]
        headers = [HttpHeader("X-Mine", "a"), HttpHeader("Host", "web.example"), HttpHeader("Accept", "text/plain")]
        assert (await get(port, path="healthz?a=b%20c", http_headers=headers)).good
        assert (await get(port)).good
    first, second = (head.decode().split("\r\n") for head in heads)
    assert first[0] == "GET /healthz?a=b%20c HTTP/1.1"
    assert set(first[1:-2]) == {
        "Host: web.example", "User-Agent: kube-probe/1.35", "Connection: close", "X-Mine: a", "Accept: text/plain"
    }  # fmt: skip
    assert second[0] == "GET / HTTP/1.1"
    assert {f"Host: {IP}:{port}", "Accept: */*"} < set(second)


async def test_a_port_by_name() -> None:
    async with serving(lambda _: page()) as port:
        named = place(ContainerPort(1, "other"), ContainerPort(port, "web"))
        assert (await checks.http(dial, named, HttpGet("web"), 5)).good
        assert (await checks.tcp(dial, named, TcpSocket("web"), 5)).good
    missing = await checks.http(dial, named, HttpGet("nope"), 5)
    assert missing == Outcome(None, 'couldn\'t find port: container web has no port named "nope"')


async def test_redirects_stay_on_the_host() -> None:
    def answer(head: bytes) -> bytes:
        path = head.split()[1].decode()
        return {
            "/here": page("302 Found", b"", "Location: /there?x=1"),
            "/there?x=1": page("200 OK", b"arrived"),
            "/full": page("301 Moved", b"", f"Location: http://{IP}:{port}/broken"),
            "/broken": page("500 Broken"),
            "/away": page("307 Away", b"bye", "Location: http://example.com/"),
            "/round": page("302 Found", b"", "Location: /round"),
            "/lost": page("302 Found", b"nowhere"),
        }[path]

    async with serving(answer) as port:
        assert await get(port, path="/here") == Outcome(True, "arrived")
        assert (await get(port, path="/full")).good is False
        away = await get(port, path="/away")
        assert (away.good, away.warning) == (
            True, "Probe terminated redirects to http://example.com/, Response body: bye"
        )  # fmt: skip
        round_ = await get(port, path="/round")
        assert round_.good is False
        assert "stopped after 10 redirects" in round_.output
        assert await get(port, path="/lost") == Outcome(True, "nowhere")


async def test_tls_of_whoever_it_may_be(certificate: ssl.SSLContext) -> None:
    async with serving(lambda _: page("200 OK", b"secret"), certificate) as port:
        assert await get(port, scheme="HTTPS") == Outcome(True, "secret")
        assert (await get(port, scheme="HTTP")).good is False
    async with serving(lambda _: page()) as port:
        assert (await get(port, scheme="HTTPS", timeout_s=0.2)).good is False


async def test_slow_silent_and_absent_servers() -> None:
    async def never(_head: bytes) -> bytes:
        await asyncio.sleep(60)
        return b""

    async with serving(never) as port:
        outcome = await get(port, timeout_s=0.1)
        assert outcome == Outcome(False, f'Get "http://{IP}:{port}/": no answer within 0.1 s')
    nobody = unused_port()
    outcome = await get(nobody)
    assert outcome == Outcome(False, f'Get "http://{IP}:{nobody}/": connection refused')


@pytest.mark.parametrize("garbage", [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 100])
async def test_what_is_no_http(garbage: bytes) -> None:
    async with serving(lambda _: garbage) as port:
        outcome = await get(port)
    assert outcome.good is False
    assert outcome.output.startswith(f'Get "http://{IP}:{port}/": ')


async def test_only_the_begin_of_a_long_answer_is_read() -> None:
    async with serving(lambda _: page("200 OK", b"x" * 5_000_000)) as port:
        assert await get(port) == Outcome(True, "x" * checks.MAX_OUTPUT)


async def test_a_header_that_cannot_be_sent() -> None:
    async with serving(lambda _: page()) as port:
        outcome = await get(port, http_headers=[HttpHeader("X", "a\r\nInjected: 1")])
    assert outcome.good is False
    assert "cannot be written" in outcome.output


# -- TCP and commands -------------------------------------------------------------------------------------------------


async def test_tcp() -> None:
    async with serving(lambda _: b"") as port:
        assert await checks.tcp(dial, place(), TcpSocket(port), 5) == Outcome(True)
        assert await checks.tcp(dial, place(), TcpSocket(port, "localhost"), 5) == Outcome(True)
    outcome = await checks.tcp(dial, place(), TcpSocket(port), 5)
    assert outcome == Outcome(False, f"dial tcp {IP}:{port}: connection refused")


async def test_a_pod_without_network_is_nobodys_failure() -> None:
    async def gone(*_: Any) -> socket.socket:
        raise NotFoundError("The sandbox box has no network (any more).")

    assert await checks.tcp(gone, place(), TcpSocket(80), 1) == Outcome(None)
    assert await checks.http(gone, place(), HttpGet(80), 1) == Outcome(None)
    assert await checks.grpc(gone, place(), GrpcAction(80), 1) == Outcome(None)


async def test_commands() -> None:
    async def run(container_id: str, argv: list[str], timeout_s: float) -> tuple[int, bytes]:
        match argv:
            case ["sleep"]:
                await asyncio.sleep(60)
            case ["missing"]:
                raise RuntimeFailedError('cannot start "missing": no such file', retryable=False)
            case ["gone"]:
                raise ConflictError("not running")
        return (0 if argv == ["true"] else 3), b"said \xff" * 10_000

    async def outcome(*argv: str) -> Outcome:
        return await checks.command(run, place(), ExecAction(list(argv)), 0.05)

    good = await outcome("true")
    assert good.good is True
    assert len(good.output) == checks.MAX_OUTPUT
    assert (await outcome("false")).good is False
    assert await outcome("sleep") == Outcome(False, "command timed out: sleep ran longer than 0.05 s")
    assert await outcome("missing") == Outcome(None, 'cannot start "missing": no such file')
    assert await outcome("gone") == Outcome(None)


# -- gRPC -------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def health_server(answers: dict[bytes, bytes | grpc.StatusCode]) -> AsyncIterator[int]:
    """grpcio's own server; requests and answers are the raw protobuf messages."""

    async def check(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        answer = answers[request]
        if isinstance(answer, grpc.StatusCode):
            await context.abort(answer, "not h\u00e4re")
        assert isinstance(answer, bytes)
        return answer

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(check)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})])
    port = server.add_insecure_port(f"{IP}:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def test_grpc() -> None:
    answers: dict[bytes, bytes | grpc.StatusCode] = {
        b"": b"\x08\x01",
        b"\x0a\x04down": b"\x08\x02",
        b"\x0a\x04none": grpc.StatusCode.NOT_FOUND,
        b"\x0a\x04late": b"",
        b"\x0a\x04more": b"\x12\x03abc\x08\x01",
    }
    async with health_server(answers) as port:

        async def outcome(service: str) -> Outcome:
            return await checks.grpc(dial, place(), GrpcAction(port, service), 5)

        assert await outcome("") == Outcome(True)
        assert await outcome("more") == Outcome(True)
        assert await outcome("down") == Outcome(False, 'service unhealthy (responded with "NOT_SERVING")')
        assert await outcome("late") == Outcome(False, 'service unhealthy (responded with "UNKNOWN")')
        assert await outcome("none") == Outcome(False, "health rpc failed: not h\u00e4re (code 5)")


async def test_grpc_with_other_servers() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port(f"{IP}:0")
    await server.start()
    outcome = await checks.grpc(dial, place(), GrpcAction(port), 5)
    assert outcome.output.startswith("this server does not implement the grpc health protocol")
    await server.stop(0)
    outcome = await checks.grpc(dial, place(), GrpcAction(port), 5)
    assert outcome == Outcome(False, f'failed to connect to service "{IP}:{port}": connection refused')
    async with serving(lambda _: page()) as port:  # its preface looks like the head of a request
        outcome = await checks.grpc(dial, place(), GrpcAction(port), 5)
        assert outcome.good is False
        assert outcome.output.startswith("health rpc failed: the server ")

    async def never(_head: bytes) -> bytes:
        await asyncio.sleep(60)
        return b""

    async with serving(never) as port:
        outcome = await checks.grpc(dial, place(), GrpcAction(port), 0.1)
        assert outcome == Outcome(False, "timeout: health rpc did not complete within 0.1 s")


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 70_000])
def test_the_request_is_protobuf(size: int) -> None:
    from google.protobuf.wrappers_pb2 import StringValue  # `string value = 1`

    assert grpc_health._request("x" * size) == StringValue(value="x" * size).SerializeToString()


@pytest.mark.parametrize("garbage", [b"\x08", b"\x80" * 20, b"\x0b", b"\x0a\xff"])
def test_an_answer_that_is_no_protobuf(garbage: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert grpc_health._status(garbage) == 0


# -- the prober -------------------------------------------------------------------------------------------------------


class World:
    """A prober whose commands answer what the test says: `codes[name]` by the command's one word."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.ran: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.killed: list[str] = []
        self.events: list[Event] = []
        self.changes = asyncio.Event()
        self.offset_us = 0
        self.prober = Prober(dial, self.run, self.clock, self.changed, self.tell)

    def clock(self) -> int:
        return now_us() + self.offset_us

    async def run(self, container_id: str, argv: list[str], timeout_s: float) -> tuple[int, bytes]:
        word = argv[0]
        self.ran.append(word)
        try:
            if word in self.gates:
                await self.gates[word].wait()
        except asyncio.CancelledError:
            self.killed.append(word)
            raise
        return self.codes.get(word, 0), f"{word} says {self.codes.get(word, 0)}\n".encode()

    def changed(self, capsule_uuid: str) -> None:
        assert capsule_uuid == CAPSULE
        self.changes.set()

    def tell(self, capsule_uuid: str, event: Event) -> None:
        assert capsule_uuid == CAPSULE
        self.events.append(event)

    def want(self, *targets: Target) -> None:
        self.prober.want(CAPSULE, "box", IP, list(targets))

    def target(
        self, container_id: str = "c1", *, ago_s: float = 0, container: Container | None = None, **more: Any
    ) -> Target:
        return Target(container_id, container or self.web(), self.clock() - int(ago_s * 1e6), **more)

    def web(self, **more: Any) -> Container:
        fields: dict[str, Any] = {
            "startup_probe": command("startup"), "liveness_probe": command("liveness"),
            "readiness_probe": command("readiness"),
        }  # fmt: skip
        return Container("web", "busybox", **{**fields, **more})

    @property
    def state(self) -> ProbeState:
        return self.prober.states(CAPSULE)["c1"]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


def command(word: str, **more: Any) -> Probe:
    return Probe(exec=ExecAction([word]), **{"period_seconds": 1, "failure_threshold": 1, **more})


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.prober.drop(CAPSULE)
    await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [t for t in others if t.get_name().endswith("probe")], "a probe goes on after its capsule was dropped"


async def test_startup_gates_the_others_and_opens_at_once(world: World) -> None:
    world.gates["startup"] = asyncio.Event()
    # The others' periods are long: it is the gate that lets them run.
    later = {"period_seconds": 1000, "initial_delay_seconds": 0}
    container = world.web(liveness_probe=command("liveness", **later), readiness_probe=command("readiness", **later))
    world.want(world.target(container=container))
    await world.until(lambda: world.ran == ["startup"])
    assert world.state == ProbeState(False, False)
    world.gates["startup"].set()
    await world.until(lambda: world.state == ProbeState(True, True))
    assert sorted(world.ran) == ["liveness", "readiness", "startup"]
    assert world.changes.is_set()
    assert world.events == []


async def test_a_command_knows_plain_variables(world: World) -> None:
    probe = Probe(exec=ExecAction(["$(PROGRAM)"]))
    env = [EnvVar("PROGRAM", "fine"), EnvVar("OTHER", value_from=EnvSource(field_ref=FieldRef("metadata.name")))]
    world.want(world.target(container=Container("web", "busybox", env=env, readiness_probe=probe)))
    await world.until(lambda: world.ran == ["fine"])


async def test_a_container_without_probes_is_well(world: World) -> None:
    world.want(world.target(container=Container("web", "busybox")))
    assert world.state == ProbeState(True, True)
    assert not world.changes.is_set()
    await asyncio.sleep(0)
    assert world.changes.is_set()


async def test_a_liveness_failure_is_fatal_once(world: World) -> None:
    world.codes["liveness"] = 1
    probe = command("liveness", failure_threshold=2, termination_grace_period_seconds=3)
    world.want(world.target(container=Container("web", "busybox", liveness_probe=probe)))
    assert world.state == ProbeState(True, True)
    await world.until(lambda: bool(world.state.fatal))
    assert world.state == ProbeState(True, True, "Container web failed liveness probe", 3)
    assert world.ran == ["liveness"] * 2
    assert [(e.type, e.reason, e.message, e.container) for e in world.events] == [
        ("Warning", "Unhealthy", "Liveness probe failed: liveness says 1", "web")
    ] * 2
    assert world.prober._watched[CAPSULE]["c1"].timers == {}, "it would be probed again"


async def test_a_startup_that_fails_is_fatal(world: World) -> None:
    world.codes["startup"] = 1
    world.want(world.target())
    await world.until(lambda: bool(world.state.fatal))
    assert world.state == ProbeState(False, False, "Container web failed startup probe")
    assert world.ran == ["startup"]


async def test_readiness_goes_up_and_down(world: World) -> None:
    container = Container("web", "busybox", readiness_probe=command("readiness"))
    world.want(world.target(container=container))
    assert world.state == ProbeState(True, False)
    await world.until(lambda: world.state.ready)
    world.codes["readiness"] = 1
    await world.until(lambda: not world.state.ready)
    assert world.state.fatal == ""
    world.codes["readiness"] = 0
    await world.until(lambda: world.state.ready)


async def test_a_restarted_agent_does_not_probe_startup_again(world: World) -> None:
    world.want(world.target(ago_s=1000.5, started=True, ready=True))
    assert world.state == ProbeState(True, True)
    await world.until(lambda: sorted(world.ran)[:2] == ["liveness", "readiness"])
    assert "startup" not in world.ran


async def test_looking_again_disturbs_nothing(world: World) -> None:
    world.gates["startup"] = asyncio.Event()
    target = world.target()
    world.want(target)
    await world.until(lambda: world.ran == ["startup"])
    for _ in range(3):
        world.want(target)
        await asyncio.sleep(0)
    assert (world.ran, world.killed) == (["startup"], [])


async def test_what_is_not_wanted_any_more_is_broken_off(world: World) -> None:
    world.gates["startup"] = asyncio.Event()
    world.want(world.target("c1"), world.target("c2"))
    await world.until(lambda: len(world.ran) == 2)
    world.want(world.target("c2"))
    await world.until(lambda: world.killed == ["startup"])
    assert set(world.prober.states(CAPSULE)) == {"c2"}
    world.prober.drop(CAPSULE)
    await world.until(lambda: world.killed == ["startup"] * 2)
    assert world.prober.states(CAPSULE) == {}


async def test_while_it_stops_only_readiness_goes_on(world: World) -> None:
    world.codes["liveness"] = 1
    world.gates["liveness"] = asyncio.Event()
    container = Container("web", "busybox", liveness_probe=command("liveness"), readiness_probe=command("readiness"))
    target = world.target(container=container)
    world.want(target)
    await world.until(lambda: "liveness" in world.ran and world.state.ready)
    world.want(world.target(container=container, stopping=True))
    await world.until(lambda: world.killed == ["liveness"])
    world.ran.clear()
    world.codes["readiness"] = 1
    await world.until(lambda: not world.state.ready)
    assert set(world.ran) == {"readiness"}
    assert world.state.fatal == ""


async def test_a_timeout_kills_the_command_and_counts(world: World) -> None:
    world.gates["readiness"] = asyncio.Event()
    container = Container("web", "busybox", readiness_probe=command("readiness"))
    world.want(world.target(container=container))
    await world.until(lambda: len(world.events) == 1)
    assert world.killed == ["readiness"]
    assert world.events[0].message == "Readiness probe failed: command timed out: readiness ran longer than 1 s"


async def test_events_are_cut(world: World) -> None:
    async def run(container_id: str, argv: list[str], timeout_s: float) -> tuple[int, bytes]:
        return 1, b"x" * 5000

    world.prober._run = run
    world.want(world.target(container=Container("web", "busybox", readiness_probe=command("readiness"))))
    await world.until(lambda: len(world.events) == 1)
    assert len(world.events[0].message) == 1000
    assert world.events[0].message.endswith("x...")


async def test_a_foreign_redirect_is_told(world: World) -> None:
    async with serving(lambda _: page("302 Found", b"bye", "Location: http://example.com/")) as port:
        probe = Probe(http_get=HttpGet(port), period_seconds=1)
        world.want(world.target(container=Container("web", "busybox", readiness_probe=probe)))
        await world.until(lambda: world.state.ready)
    assert (world.events[0].reason, world.events[0].message) == (
        "ProbeWarning",
        "Readiness probe warning: Probe terminated redirects to http://example.com/, Response body: bye",
    )


async def test_what_cannot_be_run_changes_nothing(world: World) -> None:
    async def run(container_id: str, argv: list[str], timeout_s: float) -> tuple[int, bytes]:
        raise RuntimeFailedError('cannot start "x"', retryable=False)

    world.prober._run = run
    world.want(world.target(container=Container("web", "busybox", liveness_probe=command("liveness"))))
    await world.until(lambda: len(world.events) == 2)
    assert world.state == ProbeState(True, True)
    assert world.events[0].message == 'Liveness probe errored and resulted in unknown state: cannot start "x"'


async def test_many_probes_at_once(world: World) -> None:
    """All of them run, though each of their runs takes a while."""
    async with serving(lambda _: page()) as port:
        probe = Probe(http_get=HttpGet(port), period_seconds=1000, timeout_seconds=20)
        container = Container("web", "busybox", readiness_probe=probe)
        world.want(*(world.target(f"c{number}", container=container) for number in range(300)))
        await world.until(lambda: all(s.ready for s in world.prober.states(CAPSULE).values()))
    assert world.events == []


# -- hooks ------------------------------------------------------------------------------------------------------------


async def hooked(world: World, hook: Hook, timeout_s: float = 5) -> str:
    return await world.prober.hook("box", IP, "c1", Container("web", "busybox"), hook, timeout_s)


async def test_hooks(world: World) -> None:
    assert await hooked(world, Hook(exec=ExecAction(["fine"]))) == ""
    world.codes["bad"] = 1
    assert await hooked(world, Hook(exec=ExecAction(["bad"]))) == "bad says 1"
    world.gates["long"] = asyncio.Event()
    assert "timed out" in await hooked(world, Hook(exec=ExecAction(["long"])), 0.05)
    assert world.killed == ["long"]
    assert await hooked(world, Hook(sleep=SleepAction(0))) == ""
    assert "only 0.05 s were left" in await hooked(world, Hook(sleep=SleepAction(9)), 0.05)
    heads: list[bytes] = []
    async with serving(lambda head: heads.append(head) or page("500 Broken")) as port:  # type: ignore[func-returns-value]
        assert await hooked(world, Hook(http_get=HttpGet(port))) == ""  # any answer is one
    assert b"User-Agent: kube-lifecycle/1.35" in heads[0]
    assert "connection refused" in await hooked(world, Hook(http_get=HttpGet(port)))


async def test_commands_run_in_the_runtime() -> None:
    runtime = FakeRuntime()
    runtime.add_image()
    sandbox = rt.SandboxConfig("u1", "web", "p1", 0, "web", [])
    config = rt.ContainerConfig("u1", "web", 1, 0, BUSYBOX, ["sleep"], ["100"], {}, None, False, False, 1, 0)
    container_id = await runtime.create_container(await runtime.run_sandbox(sandbox), config, sandbox)
    await runtime.start_container(container_id)
    run = runner(runtime)
    try:
        assert await run(container_id, ["sh", "-c", "echo out; echo err >&2; exit 3"], 5) == (3, b"out\nerr\n")
        with pytest.raises(TimeoutError):
            await run(container_id, ["sleep", "100"], 0.05)
        with pytest.raises(RuntimeFailedError):
            await run(container_id, ["missing"], 5)
    finally:
        await runtime.close()
