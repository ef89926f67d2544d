"""Projects are walls: no call and no packet passes from one to another, nor from a container to the host."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from tests.acceptance.cloud_fixtures import LIVES, Cloud, Login, eventually, one_line

from askos.settings import own_address

SERVES = ("httpd", "-f", "-p", "80", "-h", "/etc")


@pytest.fixture(scope="module")
def neighbour(shared_cloud: Cloud) -> Login:
    return shared_cloud.make_login("neighbour")


def address_of(cloud: Cloud, uuid: str) -> str:
    (ports,) = cloud.show(uuid)["addresses"].values()
    return str(ports[0]["addr"])


def fetches(cloud: Cloud, uuid: str, host: str, port: int = 80) -> bool:
    """Whether a container can fetch a page over HTTP."""
    # Not by its own -T, with which Debian's static wget crashes. An execute may take five seconds in all.
    code, output = cloud.inside(uuid, f"timeout 2 wget -q -O - http://{host}:{port}/passwd")
    assert code != 0 or "root" in output, output
    return "root" in output


def test_containers_of_a_project_reach_each_other(cloud: Cloud) -> None:
    web = cloud.running(SERVES, name="web")
    client = cloud.running(name="client")
    eventually(lambda: fetches(cloud, client, "web"), "by name")
    eventually(lambda: fetches(cloud, client, "web.askos.internal"), "by its whole name")
    eventually(lambda: fetches(cloud, client, address_of(cloud, web)), "by address")
    assert cloud.inside(client, f"ping -c 1 -W 3 {address_of(cloud, web)}")[0] == 0
    assert cloud.api("DELETE", f"/v1/containers/{web}?force=true").status == 204
    eventually(lambda: cloud.api("GET", f"/v1/containers/{web}").status == 404, "web is gone")
    code, output = cloud.inside(client, "nslookup web")
    assert (code != 0, address_of(cloud, client) in output) == (True, False), output


def test_no_packet_from_another_project(cloud: Cloud, neighbour: Login) -> None:
    web = cloud.running(SERVES, name="web")
    friend = cloud.running(name="friend")
    token = cloud.token(neighbour)
    stranger = cloud.create(LIVES, token=token, name="stranger")
    cloud.wait_for(stranger, "Running")
    address = address_of(cloud, web)
    eventually(lambda: fetches(cloud, friend, address), "the page is there")
    assert not fetches(cloud, stranger, address)
    assert cloud.inside(stranger, f"ping -c 1 -W 1 {address}")[0] != 0
    for name in ("web", "web.askos.internal"):
        code, output = cloud.inside(stranger, f"nslookup {name}")
        assert (code != 0, address in output) == (True, False), output
    # Not by asking the other network's name server, either.
    gateway = cloud.inside(friend, 'ip route | sed -n "s/default via //p"')[1].split()[0]
    assert gateway in cloud.inside(friend, f"nslookup web {gateway}")[1]
    assert address not in cloud.inside(stranger, f"timeout 2 nslookup web {gateway}")[1]


@contextmanager
def listener() -> Iterator[int]:
    """A server on all addresses of the host that says hello; its port."""
    with socket.create_server(("0.0.0.0", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.sendall(b"hello\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def uplinks(cloud: Cloud, *uuids: str) -> list[str]:
    """The host's own IPv4 addresses on its ways to the networks of these containers. Not those of other networks, which
    other tests may take away meanwhile."""
    networks = {network for uuid in uuids for network in cloud.show(uuid)["addresses"]}
    ours = tuple(f"ak{cloud.instance[:4]}u{network[:8]}" for network in networks)
    found = [
        one["local"]
        for link in json.loads(subprocess.check_output(["ip", "-j", "-4", "addr"]))
        if link.get("ifname", "").startswith(ours)
        for one in link["addr_info"]
    ]
    assert len(found) == len(networks), "the host leads to its networks by addresses of its own"
    return found


def test_the_host_is_not_reachable_from_a_container(cloud: Cloud, neighbour: Login) -> None:
    box = cloud.running(name="box")
    gateway = cloud.inside(box, 'ip route | sed -n "s/default via //p"')[1].split()[0]
    heard = cloud.running(("sh", "-c", "while :; do echo hello | nc -l -p 5000; done"), name="heard")
    there = address_of(cloud, heard)
    eventually(lambda: "hello" in cloud.inside(box, f"nc -w 1 {there} 5000 </dev/null")[1], "nc hears others")
    theirs = cloud.create(LIVES, token=cloud.token(neighbour), name="theirs")
    cloud.wait_for(theirs, "Running")
    with listener() as port:
        code, output = cloud.inside(box, f"nc -w 1 {gateway} {port} </dev/null")
        assert code != 0 and "hello" not in output, "the gateway is the network's, not the host's"
        for host in (own_address(), *uplinks(cloud, box, theirs)):
            # The host itself hears it there, so only the wall can keep it from the container.
            with socket.create_connection((host, port), 5) as control:
                assert control.recv(16) == b"hello\n"
            code, output = cloud.inside(box, f"nc -w 1 {host} {port} </dev/null")
            assert "hello" not in output, f"a container reaches {host}: {code} {output}"
            assert cloud.inside(box, f"nc -w 1 {host} {cloud.port} </dev/null")[0] != 0


CALLS = [
    ("GET", "", 404),
    ("DELETE", "", 404),
    ("DELETE", "?stop=true", 404),
    ("POST", "/start", 404),
    ("POST", "/stop", 404),
    ("POST", "/reboot", 404),
    ("POST", "/kill", 404),
    ("GET", "/logs", 404),
    ("POST", "/execute?command=id", 404),
]


@pytest.mark.parametrize("by", ["uuid", "name"])
def test_no_call_reaches_another_project(cloud: Cloud, neighbour: Login, by: str) -> None:
    uuid = cloud.running(name="mine")
    ident, token = (uuid if by == "uuid" else "mine"), cloud.token(neighbour)
    before = cloud.show(uuid)
    nobody = {"uuid": "00000000-0000-4000-8000-000000000000", "name": "nothing-at-all"}[by]
    for method, rest, status in CALLS:
        answer = cloud.api(method, f"/v1/containers/{ident}{rest}", token=token)
        assert answer.status == status, (method, rest, answer)
        # It cannot even be told from one that does not exist.
        absent = cloud.api(method, f"/v1/containers/{nobody}{rest}", token=token)
        assert answer.error["title"].replace(ident, "") == absent.error["title"].replace(nobody, "")
    for rest in ("logs", "wait", "exec?command=id"):
        assert cloud.api("GET", f"/askos/v1/containers/{ident}/{rest}", token=token).status in (400, 404), rest
        native = cloud.api(
            "GET", f"/askos/v1/containers/{ident}/{rest}", token=token,
            headers={
                "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            },
        )  # fmt: skip
        assert native.status == 404, (rest, native)
    assert cloud.api("GET", "/v1/containers", token=token).json()["containers"] == []
    assert cloud.api("GET", f"/v1/containers?project_id={before['project_id']}", token=token).json()["containers"] == []
    assert cloud.api("GET", f"/v1/containers?marker={uuid}", token=token).status == 404
    now = cloud.show(uuid)
    assert (now["status"], now["updated_at"]) == ("Running", before["updated_at"])


def test_what_only_administrators_may(cloud: Cloud, neighbour: Login) -> None:
    token = cloud.token(neighbour)
    uuid = cloud.create(LIVES, token=token, name="theirs")
    cloud.wait_for(uuid, "Running")
    for method, path in (
        ("GET", "/v1/containers?all_projects=true"),
        ("GET", "/v1/containers?host=x"),
        ("DELETE", f"/v1/containers/{uuid}?force=true"),
        ("DELETE", f"/v1/containers/{uuid}?all_projects=true"),
        ("GET", "/askos/v1/images"),
        ("POST", "/askos/v1/images/import"),
        ("DELETE", "/askos/v1/images?ref=busybox"),
    ):
        answer = cloud.api(method, path, token=token)
        assert (answer.status, answer.error["code"]) == (403, "container.policy-not-authorized"), (method, path)
    pull = cloud.api("POST", "/askos/v1/images/pull", {"ref": "busybox"}, token=token)
    assert pull.status == 403
    for path in ("/identity/v3/users", "/identity/v3/projects"):
        assert cloud.api("GET", path, token=token).status == 403
    shown = cloud.api("GET", f"/v1/containers/{uuid}", token=token).json()
    assert not {"host", "image_pull_policy", "privileged", "runtime"} & shown.keys()
    assert {"host", "image_pull_policy", "privileged", "runtime"} <= cloud.show(uuid).keys()
    assert cloud.api("DELETE", f"/v1/containers/{uuid}?stop=true", token=token).status == 204


def test_two_projects_may_use_one_name(cloud: Cloud, neighbour: Login) -> None:
    mine = cloud.running(name="same")
    theirs = cloud.create(LIVES, token=cloud.token(neighbour), name="same")
    cloud.wait_for(theirs, "Running")
    variables = cloud.as_user(neighbour)
    assert cloud.askos("ps", "-q", env=variables).stdout.split() == [theirs]
    assert cloud.askos("ps", "-q").stdout.split() == [mine]
    cloud.askos("rm", "-f", "same", env=variables)
    assert [c["uuid"] for c in cloud.containers()] == [mine]
    assert "same" in one_line(cloud.askos("show", "same", env=variables, check=False))


def test_a_token_that_was_given_back_opens_nothing(cloud: Cloud, neighbour: Login) -> None:
    made = cloud.token.__wrapped__(cloud, neighbour)  # type: ignore[attr-defined]
    assert cloud.api("GET", "/v1/containers", token=made).status == 200
    headers = {"X-Auth-Token": made, "X-Subject-Token": made}
    assert cloud.http("DELETE", "/identity/v3/auth/tokens", headers=headers).status == 204
    eventually(lambda: cloud.api("GET", "/v1/containers", token=made).status == 401, "the token is void")


def test_files_of_the_cloud_are_closed_to_others(cloud: Cloud) -> None:
    listing = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "ls", str(cloud.data)],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert listing.returncode != 0
    assert "Permission denied" in listing.stderr
