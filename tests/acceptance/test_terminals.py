"""Terminals on containers, typed at through the clients that people have: openstackclient with python-zunclient, and
our own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import websocket
from tests.acceptance.client_fixtures import runs
from tests.acceptance.cloud_fixtures import Cloud, eventually
from tests.acceptance.terminal_fixtures import Terminal

PROMPT = "# "


def openstack(cloud: Cloud) -> Mapping[str, str]:
    return {**cloud.env, "OS_CLOUD": "askos", "OS_CLIENT_CONFIG_FILE": str(cloud.data / "clouds.yaml")}


def shell(cloud: Cloud, **fields: object) -> str:
    return cloud.running(("sh",), interactive=True, tty=True, **fields)


@contextlib.contextmanager
def connect(url: str) -> Iterator[websocket.WebSocket]:
    """As python-zunclient does it."""
    parts = urlsplit(url)
    socket = websocket.create_connection(
        url,
        skip_utf8_validation=True,
        origin=f"http://{parts.hostname}:{parts.port}",
        subprotocols=["binary", "base64"],
        timeout=60,
    )
    try:
        yield socket
    finally:
        socket.close()
        socket.shutdown()  # what the server has closed, close() leaves open


def test_run_interactively_with_openstackclient(cloud: Cloud) -> None:
    argv = ("openstack", "appcontainer", "run", "--name", "typed", "--interactive", "busybox", "sh")
    with Terminal(*argv, env=openstack(cloud), rows=40, columns=120) as terminal:
        cloud_sees = eventually(lambda: [c for c in cloud.containers() if c["status"] == "Running"], "it runs", 60)
        assert (cloud_sees[0]["interactive"], cloud_sees[0]["tty"]) == (True, True)
        terminal.expect("connected to", 60)
        terminal.type("\n")
        terminal.expect(PROMPT)
        terminal.type("echo typed $((6*7))\n")
        terminal.expect("typed 42")
        terminal.expect_size(40, 120)
        terminal.resize(33, 99)
        terminal.expect_size(33, 99)
        terminal.expect(PROMPT)
        terminal.type("sh -c 'echo be''gun; exec sleep 1000'\n")
        terminal.expect("begun")  # said by what Ctrl-C is for
        terminal.type("\x03")
        terminal.expect(PROMPT)
        terminal.type("echo again\n")
        terminal.expect("again\r\n")
        terminal.type("echo gr\u00fc\u00dfe \u20ac\n")
        terminal.expect("\r\ngr\u00fc\u00dfe \u20ac")
        terminal.type("exit 3\n")
        terminal.end(30)
    assert cloud.wait_for("typed", "Stopped")["status_detail"].startswith("Exited(3)")


@runs("openstack", "appcontainer exec", "appcontainer attach")
def test_exec_and_attach_with_openstackclient(cloud: Cloud) -> None:
    uuid = shell(cloud, name="office")
    argv = ("openstack", "appcontainer", "exec", "--interactive", "office", "sh")
    with Terminal(*argv, env=openstack(cloud), rows=31, columns=101) as terminal:
        terminal.expect(PROMPT, 60)
        terminal.type("tty; stty size; echo $$\n")
        terminal.expect("/dev/pts/")
        terminal.expect("31 101")
        terminal.type("exit\n")
        assert terminal.end(30) == 0
    argv = ("openstack", "appcontainer", "attach", "office")
    with Terminal(*argv, env=openstack(cloud)) as terminal:
        terminal.expect("connected to", 60)
        terminal.type("\n")
        terminal.expect(PROMPT)
        terminal.type("echo pid $$\n")
        terminal.expect("pid 1\r\n")
        # The client goes; what it was attached to stays.
        terminal.process.kill()
        terminal.process.wait(10)
    assert cloud.show(uuid)["status"] == "Running"


def test_a_hundred_megabytes_and_not_one_byte_less(cloud: Cloud) -> None:
    uuid = shell(cloud)
    command = "sh -c 'head -c 104857600 /dev/zero | tr \"\\\\0\" x; echo end'"
    body = {"command": command, "run": False, "interactive": True}
    answer = cloud.api("POST", f"/v1/containers/{uuid}/execute", body).json()
    count, tail = 0, b""
    with connect(answer["proxy_url"]) as socket:
        time.sleep(1)  # a reader who takes a while: the program waits, and nobody keeps it all for him
        while data := socket.recv():
            data = data.encode() if isinstance(data, str) else data
            count += data.count(b"x")
            tail = (tail + data)[-20:]
    assert count == 104857600
    assert tail.endswith(b"xend\r\n")


def test_the_end_from_either_side(cloud: Cloud) -> None:
    uuid = shell(cloud)
    body = {"command": "sh -c 'echo $$ > /pid; exec cat'", "run": False, "interactive": True}
    with connect(cloud.api("POST", f"/v1/containers/{uuid}/execute", body).json()["proxy_url"]) as socket:
        socket.send_binary(b"hello\n")
        heard = b""
        while b"hello" not in heard:
            heard += socket.recv()
        eventually(lambda: cloud.inside(uuid, "cat /pid")[1].strip().isdigit(), "it has started")
        pid = cloud.inside(uuid, "cat /pid")[1].strip()
        assert cloud.inside(uuid, f"kill -0 {pid}")[0] == 0
    eventually(lambda: cloud.inside(uuid, f"kill -0 {pid}")[0] != 0, "the process ends with its client")
    with connect(cloud.api("GET", f"/v1/containers/{uuid}/attach").json()) as socket:
        socket.send_binary(b"exit\n")
        opcode, data = socket.recv_data()
        while opcode != websocket.ABNF.OPCODE_CLOSE:
            opcode, data = socket.recv_data()
    assert (int.from_bytes(data[:2], "big"), data[2:]) == (1000, b"Target closed")
    cloud.wait_for(uuid, "Stopped")


def test_our_own_client(cloud: Cloud) -> None:
    with Terminal("askos", "run", "-it", "--name", "ours", "busybox", "sh", env=cloud.env, rows=30, columns=90) as ours:
        ours.expect(PROMPT, 30)
        ours.expect_size(30, 90)
        ours.type("exit 4\n")
        assert ours.end(20) == 4
    quick = cloud.askos("run", "-i", "--rm", "busybox", "echo", "too quick to be attached to", input="")
    assert quick.stdout == "too quick to be attached to\n"
    piped = cloud.askos("run", "-i", "--rm", "busybox", "head", "-n", "2", input="one\ntwo\nthree\n")
    assert piped.stdout == "one\ntwo\n"
