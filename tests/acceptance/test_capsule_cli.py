"""`askos capsule` as a person uses it, on real containers."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.acceptance.capsule_fixtures import container, pod
from tests.acceptance.cloud_fixtures import Cloud, eventually
from tests.acceptance.terminal_fixtures import Terminal

MEGABYTE = os.urandom(1 << 20)
WEB = """
apiVersion: v1
kind: ConfigMap
metadata: {name: site}
data: {index.html: "hello from a config map"}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {WHO: ann}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 3
  initContainers:
  - name: prep
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "cp /site/index.html /www/; echo prepared"]
    volumeMounts: [{name: www, mountPath: /www}, {name: site, mountPath: /site}]
  containers:
  - name: httpd
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [httpd, -f, -p, "80", -h, /www]
    ports: [{name: http, containerPort: 80}]
    readinessProbe: {httpGet: {port: http, path: /index.html}, periodSeconds: 1}
    volumeMounts: [{name: www, mountPath: /www}]
  - name: side
    image: busybox
    imagePullPolicy: IfNotPresent
    envFrom: [{secretRef: {name: login}}]
    command: [sh, -c, "trap 'exit 0' TERM; echo I am $WHO; while :; do sleep 0.2; echo tick; done"]
  volumes:
  - {name: www, emptyDir: {}}
  - {name: site, configMap: {name: site}}
---
apiVersion: v1
kind: Pod
metadata: {name: job, labels: {app: job}}
spec:
  restartPolicy: Never
  containers: [{name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [echo, done]}]
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "web.yaml"
    path.write_text(WEB)
    return path


def create(cloud: Cloud, body: dict[str, object], *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Create a capsule from a manifest on standard input."""
    return cloud.askos("capsule", "create", "-f", "-", *flags, input=json.dumps({"kind": "Pod", **body}), check=check)


@contextlib.contextmanager
def started(cloud: Cloud, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command in the background, with pipes."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["askos", "capsule", *arguments], env=cloud.env, stdin=pipe, stdout=pipe, stderr=pipe
    ) as made:
        try:
            yield made
        finally:
            if made.poll() is None:
                made.kill()


def test_from_a_manifest_to_its_end(cloud: Cloud, manifest: Path) -> None:
    done = cloud.askos("capsule", "create", "-f", str(manifest))
    assert sorted(done.stdout.splitlines()) == ["capsule job succeeded", "capsule web ready"]
    assert done.stderr == ""
    table = {row.split()[0]: row.split()[1:4] for row in cloud.askos("capsule", "ls").stdout.splitlines()}
    assert table == {
        "NAME": ["READY", "STATUS", "RESTARTS"],
        "web": ["2/2", "Running", "0"],
        "job": ["0/1", "Completed", "0"],
    }
    web, job = (cloud.askos("capsule", "ls", "-q", "-l", f"app={app}").stdout.strip() for app in ("web", "job"))
    shown = cloud.askos("capsule", "describe", "web").stdout
    for wanted in ("I am $WHO", "secret login", "http-get http://:http/index.html", "config map site", "Started", web):
        assert wanted in shown
    assert yaml.safe_load(cloud.askos("capsule", "get", web).stdout)["metadata"]["name"] == "web"
    assert "Started container httpd" in cloud.askos("capsule", "events", "web").stdout
    assert cloud.askos("capsule", "logs", job).stdout == "done\n"
    assert cloud.askos("capsule", "logs", "-c", "prep", "web").stdout == "prepared\n"
    assert "choose one of: [httpd side]" in cloud.refused("capsule", "logs", "web")
    every = ("capsule", "logs", "--all-containers", "web")
    # It runs, which does not say that it has said so.
    eventually(lambda: "I am ann" in cloud.askos(*every).stdout, "the other one has begun")
    assert cloud.askos(*every).stdout.splitlines()[:2] == ["[prep] prepared", "[side] I am ann"]
    top = cloud.askos("capsule", "top").stdout.splitlines()
    assert [line.split()[:2] for line in top[1:]] == [["web", "httpd"], ["web", "side"]]
    assert all(re.search(r" \d+m +\d+\.\dMi +[1-9]", line) for line in top[1:])
    assert cloud.askos("capsule", "label", "web", "tier=front", "app-").stdout == "capsule web: tier=front\n"
    gone = cloud.askos("capsule", "delete", "-f", str(manifest))
    assert sorted(gone.stdout.split()) == ["job", "web"]
    assert cloud.capsules() == []


def test_a_log_is_followed_to_the_end_and_the_one_before_is_kept(cloud: Cloud) -> None:
    script = (
        "[ -e /v/again ] && { echo second; exec sleep 1000; }; touch /v/again; echo first; "
        "until [ -e /v/go ]; do sleep 0.1; done; echo last; exit 3"
    )
    mounts = [{"name": "v", "mountPath": "/v"}]
    body = pod(container("main", script, volumeMounts=mounts), volumes=[{"name": "v", "emptyDir": {}}])
    name = body["metadata"]["name"]
    create(cloud, body, "--no-wait")
    eventually(lambda: cloud.askos("capsule", "logs", name, check=False).returncode == 0, "there is a log")
    with started(cloud, "logs", "-f", name) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"first\n"
        cloud.askos("capsule", "exec", name, "touch", "/v/go")
        assert follower.communicate(timeout=60)[0].splitlines()[:1] == [b"last"]
        assert follower.returncode == 0
    eventually(lambda: cloud.askos("capsule", "logs", name).stdout == "second\n", "it is started again")
    assert cloud.askos("capsule", "logs", "--previous", name).stdout == "first\nlast\n"
    assert cloud.askos("capsule", "logs", "-p", "--tail", "1", name).stdout == "last\n"
    row = cloud.askos("capsule", "ls").stdout.splitlines()[1]
    assert re.match(rf"{name} +1/1 +Running +1 \(\d+s ago\)", row)


def test_the_states_of_what_goes_wrong(cloud: Cloud) -> None:
    bad = create(cloud, pod(container("main", "exit 4"), restartPolicy="Never"), check=False)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "failed: main: Error, exit code 4. See `askos capsule describe" in bad.stderr
    missing = pod(container("main", "sleep 1000", envFrom=[{"configMapRef": {"name": "none"}}]))
    stuck = create(cloud, missing, check=False)
    assert stuck.returncode == 1
    assert "is not ready: main: CreateContainerConfigError: " in stuck.stderr and "none" in stuck.stderr
    slow = pod(container("main", "sleep 1000", readinessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1}))
    # However long it takes to start: the short wait is for one that is there.
    create(cloud, slow, "--no-wait")
    events = ("capsule", "events", slow["metadata"]["name"])
    eventually(lambda: "Readiness probe failed" in cloud.askos(*events).stdout, "its probe has failed")
    manifest = json.dumps({"kind": "Pod", **slow})
    late = cloud.askos("capsule", "apply", "-f", "-", "--timeout", "3", input=manifest, check=False)
    assert late.returncode == 1
    assert "is not ready after 3s; it waits for main: Readiness probe failed" in late.stderr
    words = {row.split()[2] for row in cloud.askos("capsule", "ls").stdout.splitlines()[1:]}
    assert words == {"Error", "CreateContainerConfigError", "Running"}


def test_what_is_missing_can_be_given_later(cloud: Cloud) -> None:
    body = pod(container("main", "echo $K; exec sleep 1000", envFrom=[{"configMapRef": {"name": "c"}}]))
    name = body["metadata"]["name"]
    create(cloud, body, "--no-wait")
    documents = [{"kind": "Pod", **body}, {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"K": "v"}}]
    done = cloud.askos("capsule", "apply", "-f", "-", input=yaml.safe_dump_all(documents))
    assert done.stdout.splitlines() == [f"capsule {name} changed", f"capsule {name} ready"]
    eventually(lambda: cloud.askos("capsule", "logs", name).stdout == "v\n", "it has the variable")


def test_a_refused_manifest_names_every_field(cloud: Cloud) -> None:
    body = pod(container("main", wrong=1), container("main"), hostNetwork=True)
    refused = create(cloud, body, check=False)
    assert refused.returncode == 1
    first, *lines = refused.stderr.splitlines()
    assert first.startswith(f"askos: cannot create capsule {body['metadata']['name']}: ")
    assert {line.strip().split(":")[0] for line in lines} == {
        "spec.containers[0].wrong",
        "spec.containers[1].name",
        "spec.hostNetwork",
    }
    assert cloud.capsules() == []


# -- exec and attach -------------------------------------------------------------------------------------------------


def test_exec_and_its_exit_codes(cloud: Cloud) -> None:
    body = pod(container("main"), container("side"))
    name = body["metadata"]["name"]
    create(cloud, body)

    def run(*arguments: str, **more: str) -> tuple[int, str]:
        done = cloud.askos("capsule", "exec", *arguments, check=False, **more)
        return done.returncode, done.stdout

    assert run("-c", "main", name, "--", "sh", "-c", "echo hi; exit 7") == (7, "hi\n")
    assert run(name, "-c", "side", "--", "ls", "-d", "--", "/etc") == (0, "/etc\n")
    assert run("-i", "-c", "main", name, "wc", "-c", input="twelve bytes") == (0, "12\n")
    assert run("-c", "main", name, "nosuch") == (127, "")
    assert run("-c", "main", name, "/etc") == (126, "")
    assert run(name, "ls") == (125, "")
    assert run("nobody", "ls") == (125, "")


def test_a_shell_in_a_terminal(cloud: Cloud) -> None:
    body = pod()
    create(cloud, body)
    name = body["metadata"]["name"]
    with Terminal("askos", "capsule", "exec", "-it", name, "--", "sh", env=cloud.env, rows=30, columns=90) as shell:
        shell.expect("# ")
        shell.expect_size(30, 90)
        shell.resize(40, 100)
        shell.expect_size(40, 100)
        shell.expect("# ")
        shell.type("sh -c 'echo up; exec sleep 1000'\n")
        shell.expect("up\r\n")  # said by what Ctrl-C is for
        shell.type("\x03")
        shell.expect("# ")
        shell.type("exit 5\n")
        assert shell.end() == 5


def test_attach_passes_input_on_and_its_end(cloud: Cloud) -> None:
    body = pod(container("main", "wc -c; exit 6", stdin=True, stdinOnce=True), restartPolicy="Never")
    name = body["metadata"]["name"]
    create(cloud, body)
    done = subprocess.run(
        ["askos", "capsule", "attach", "-i", name],
        env=cloud.env,
        input=MEGABYTE,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (6, f"{len(MEGABYTE)}\n".encode()), done.stderr
    eventually(lambda: cloud.askos("capsule", "ls").stdout.splitlines()[1].split()[2] == "Error", "it has ended")
    assert "is not running" in cloud.refused("capsule", "attach", name)


def test_attach_to_a_terminal(cloud: Cloud) -> None:
    # A new size and what is typed take different ways: the last one waits for both.
    sized = "until [ $n != eve ] || [ \"$(stty size)\" = '44 88' ]; do sleep 0.1; done; stty size"
    script = f"while read -p 'name? ' n; do echo hello $n; {sized}; done"
    body = pod(container("main", script, stdin=True, tty=True))
    name = body["metadata"]["name"]
    create(cloud, body)
    with Terminal("askos", "capsule", "attach", "-it", name, env=cloud.env, rows=33, columns=77) as attached:
        attached.type("ann\n")
        attached.expect("hello ann")
        attached.type("bob\n")
        attached.expect("33 77")
        attached.resize(44, 88)
        attached.type("eve\n")
        attached.expect("44 88")
    eventually(lambda: "hello eve" in cloud.askos("capsule", "logs", name).stdout, "it has heard all of it")


# -- ports -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def forwarded(cloud: Cloud, name: str, *ports: str) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """Forward free local ports to these; gives the local ones. Ctrl-C ends it in the end."""
    with started(cloud, "port-forward", name, *(f":{port}" for port in ports)) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().decode() for _ in ports]
        found = [re.fullmatch(r"Forwarding from 127\.0\.0\.1:(\d+) -> \d+\n", line) for line in lines]
        assert all(found), (lines, process.poll())
        yield process, [int(each[1]) for each in found if each]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_http_through_a_forwarded_port(cloud: Cloud, manifest: Path) -> None:
    cloud.askos("capsule", "create", "-f", str(manifest))
    with forwarded(cloud, "web", "http", "81") as (process, (good, bad)):
        for _ in range(20):
            line = http.client.HTTPConnection("127.0.0.1", good, timeout=20)
            line.request("GET", "/")
            answer = line.getresponse()
            assert (answer.status, answer.read()) == (200, b"hello from a config map")
            line.close()
        with socket.create_connection(("127.0.0.1", bad), timeout=20) as refused:
            with contextlib.suppress(ConnectionResetError):
                assert refused.recv(1) == b""
        assert process.stderr is not None
        assert b"connection refused" in process.stderr.readline()


def test_a_megabyte_both_ways_and_half_close(cloud: Cloud) -> None:
    # Answers when it has all: what it was sent, and its sum.
    serve = "while :; do nc -l -p 7000 -e sh -c 'cat > /tmp/x; cat /tmp/x; sha256sum < /tmp/x'; done"
    body = pod(container("main", serve, readinessProbe={"exec": {"command": ["true"]}}))
    create(cloud, body)
    with forwarded(cloud, body["metadata"]["name"], "7000") as (_, (port,)):

        def exchange() -> bytes:
            """Empty while nobody listens: between two connections there is a moment without a server."""
            heard = b""
            with (
                contextlib.suppress(ConnectionError),
                socket.create_connection(("127.0.0.1", port), timeout=60) as line,
            ):
                line.sendall(MEGABYTE)
                line.shutdown(socket.SHUT_WR)
                while piece := line.recv(65536):
                    heard += piece
            return heard

        for _ in range(2):
            heard = eventually(exchange, "somebody answers")
            assert heard[: len(MEGABYTE)] == MEGABYTE
            assert heard[len(MEGABYTE) :].split()[0].decode() == hashlib.sha256(MEGABYTE).hexdigest()
