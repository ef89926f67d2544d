"""A private cloud made by the real commands, and the ways in which tests talk to it."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tests.acceptance.client_fixtures import CLIENTS
from tests.acceptance.client_server import PROGRAMS

BIN = Path(sys.executable).parent
LIVES = ("sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 1 & wait $!; done")
"""The command of a container that runs for ever and stops when it is asked to."""

T = TypeVar("T")
Done = subprocess.CompletedProcess[str]


def eventually(look: Callable[[], T], what: str, timeout_s: float = 60.0) -> T:
    """Poll until `look` returns something true; that is returned. Fails with the last value.

    The time is generous: a machine may be busy, and only who fails needs all of it."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}; last seen: {found!r}"
        time.sleep(0.05)


def free_port() -> int:
    """A port that stays free until somebody asks for it: none of those that the kernel gives to whoever connects, and
    each worker of the test run has its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = 10_000 + 2_000 * (worker % 10) + secrets.randbelow(2_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def one_line(done: Done) -> str:
    """What a command complained; fails unless that is one clear line and nothing else."""
    assert done.returncode != 0, f"{done.args} did not fail: {done.stdout}"
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, f"{done.args} complains in {len(lines)} lines: {done.stderr}"
    assert lines[0].startswith("askos"), lines[0]
    assert "Traceback" not in lines[0]
    assert "mistake in askos" not in lines[0]
    return lines[0]


def clean_environment(home: Path) -> dict[str, str]:
    """The environment without anybody's cloud in it, and with a home of its own for caches."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ASKOS_", "OS_", "XDG_", "PYTEST_"))}
    return {**kept, "HOME": str(home), "PATH": f"{BIN}:{kept['PATH']}", "LC_ALL": "C.UTF-8", "COLUMNS": "200"}


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The one error of an answer in Zun's form."""
        (error,) = self.json()["errors"]
        assert error["status"] == self.status
        return dict(error)


class Login(NamedTuple):
    """A user in a project."""

    user: str
    password: str
    project: str


class Cloud:
    """A cloud in a folder of its own. `env` makes every client reach it."""

    def __init__(self, *, data: Path | None = None, address: str = "127.0.0.1") -> None:
        # Short: unix sockets allow 107 characters.
        self.home = Path(tempfile.mkdtemp(prefix="askos-acc-"))
        self.data = data or self.home / "d"
        self.address = address
        self.port = free_port()
        self.instance = ""
        self.env = clean_environment(self.home) | {"ASKOS_DATA": str(self.data)}

    # -- programs ----------------------------------------------------------------------------------------------

    def run(
        self,
        *argv: str,
        check: bool = True,
        timeout: float = 120,
        input: str | None = None,  # noqa: A002 - subprocess' own word
        env: Mapping[str, str] | None = None,
    ) -> Done:
        """Run a program of the virtual environment; `env` is added. Fails unless it succeeds or check=False."""
        variables = {**self.env, **(env or {})}
        if argv[0] in PROGRAMS:
            done = CLIENTS.run(argv[0], argv[1:], env=variables, given=input or "", timeout=timeout)
        else:
            done = subprocess.run(
                argv,
                env=variables,
                capture_output=True,
                text=True,
                timeout=timeout,
                input=input if input is not None else "",
                cwd="/",
                check=False,
            )
        if check:
            assert done.returncode == 0, f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def askos(self, *arguments: str, **more: Any) -> Done:
        return self.run("askos", *arguments, **more)

    def refused(self, *arguments: str, **more: Any) -> str:
        """Run an `askos` command that must fail with one line, which is returned."""
        return one_line(self.askos(*arguments, check=False, **more))

    def openstack(self, *arguments: str, **more: Any) -> Done:
        """openstackclient with the generated clouds.yaml."""
        config = {"OS_CLOUD": "askos", "OS_CLIENT_CONFIG_FILE": str(self.data / "clouds.yaml")}
        return self.run("openstack", *arguments, env=config, **more)

    def zun(self, *arguments: str, **more: Any) -> Done:
        """python-zunclient's own command, with what `askos env` prints."""
        return self.run("zun", *arguments, env=self.variables(), **more)

    @functools.cache  # noqa: B019 - one cloud lives as long as its tests
    def variables(self) -> dict[str, str]:
        """The environment after `eval "$(askos env)"`."""
        printed = self.run("bash", "-c", 'eval "$(askos env)" && exec env -0').stdout
        return dict(line.split("=", 1) for line in printed.split("\0") if line)

    # -- up and down -------------------------------------------------------------------------------------------

    def up(self, *flags: str) -> Done:
        where = ("--address", self.address, "--port", str(self.port))
        done = self.askos("up", "--detach", *where, *flags, timeout=120, check=False)
        assert done.returncode == 0, f"askos up failed: {done.stderr}\n{self.log_tail()}"
        self.instance = (self.data / "instance").read_text().strip()
        self.login.cache_clear()
        self.token.cache_clear()
        self.variables.cache_clear()
        return done

    def down(self) -> None:
        self.askos("down", timeout=120)

    def restart(self) -> None:
        """kill -9 of the server and agent, and `askos up` again; containerd and containers go on."""
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        # Until it has ended it holds the lock, and `askos up` would say that it runs already.
        eventually(lambda: not os.path.exists(f"/proc/{pid}"), "askos has ended")
        self.up()

    def pid(self) -> int:
        return int((self.data / "lock").read_text())

    def close(self) -> None:
        """Take everything away, whatever state it is in."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.down()
        shutil.rmtree(self.home, ignore_errors=True)

    def log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return "\n".join((self.data / "log" / "askos.log").read_text(errors="replace").splitlines()[-30:])
        return ""

    def state(self) -> str:
        """What there is, in a few lines, for people; also of a cloud that does not answer."""
        lines = []
        try:
            for one in self.containers():
                words = [
                    f"{key}={one[key]}"
                    for key in ("status", "task_state", "status_reason", "status_detail")
                    if one.get(key)
                ]
                lines.append(f"container {one['name']} {one['uuid']}: {', '.join(words)}")
            lines += [
                f"capsule {one['metadata']['name']} {one['id']}: {json.dumps(one['status'])[:500]}"
                for one in self.capsules()
            ]
        except (OSError, http.client.HTTPException, AssertionError, KeyError, ValueError) as error:
            lines.append(f"it does not say what there is: {error!r}")
        return "\n".join([*lines, "the end of its log:", *self.log_tail().splitlines()[-15:]])

    # -- HTTP --------------------------------------------------------------------------------------------------

    def http(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}) -> Answer:
        """One plain request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def api(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        version: str = "1.40",
        headers: Mapping[str, str] = {},
    ) -> Answer:
        """One request with a token (the administrator's by default); `body` is sent as JSON unless it is bytes."""
        sent = {"X-Auth-Token": token or self.token(), "OpenStack-API-Version": f"container {version}", **headers}
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return self.http(method, path, data, sent)

    @functools.cache  # noqa: B019 - one cloud lives as long as its tests
    def login(self) -> Login:
        auth = json.loads((self.data / "clouds.json").read_text())["clouds"]["askos"]["auth"]
        return Login(auth["username"], auth["password"], auth["project_name"])

    @functools.cache  # noqa: B019
    def token(self, login: Login | None = None) -> str:
        login = login or self.login()
        domain = {"id": "default"}
        user = {"name": login.user, "password": login.password, "domain": domain}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": login.project, "domain": domain}},
            }
        }
        headers = {"Content-Type": "application/json"}
        answer = self.http("POST", "/identity/v3/auth/tokens", json.dumps(body).encode(), headers)
        assert answer.status == 201, answer
        return answer.headers["x-subject-token"]

    def make_login(self, name: str) -> Login:
        """A new project with a member of its own, made through the identity API.

        The name gets an ending of its own: which modules share a cloud depends on how the runner spreads them.
        """
        name = f"{name}-{secrets.token_hex(3)}"

        def make(kind: str, fields: dict[str, Any]) -> str:
            answer = self.api("POST", f"/identity/v3/{kind}s", {kind: {"name": name, **fields}})
            assert answer.status == 201, answer
            return str(answer.json()[kind]["id"])

        project = make("project", {})
        user = make("user", {"password": f"secret-of-{name}"})
        roles = self.api("GET", "/identity/v3/roles?name=member").json()["roles"]
        path = f"/identity/v3/projects/{project}/users/{user}/roles/{roles[0]['id']}"
        assert self.api("PUT", path).status == 204
        return Login(name, f"secret-of-{name}", name)

    def as_user(self, login: Login) -> dict[str, str]:
        """Variables that make clients log in as somebody else."""
        return {
            "OS_AUTH_URL": f"http://127.0.0.1:{self.port}/identity/v3",
            "OS_USERNAME": login.user,
            "OS_PASSWORD": login.password,
            "OS_PROJECT_NAME": login.project,
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_IDENTITY_API_VERSION": "3",
        }

    # -- containers --------------------------------------------------------------------------------------------

    def create(self, command: tuple[str, ...] | None = LIVES, *, token: str | None = None, **fields: Any) -> str:
        """POST a container that is to run; its uuid."""
        body = {"image": "busybox", **({"command": list(command)} if command else {}), **fields}
        answer = self.api("POST", "/v1/containers?run=true", body, token=token)
        assert answer.status == 202, answer
        return str(answer.json()["uuid"])

    def running(self, command: tuple[str, ...] = LIVES, **fields: Any) -> str:
        """A container that runs; its uuid."""
        uuid = self.create(command, **fields)
        self.wait_for(uuid, "Running")
        return uuid

    def show(self, ident: str) -> dict[str, Any]:
        answer = self.api("GET", f"/v1/containers/{ident}")
        assert answer.status == 200, answer
        return dict(answer.json())

    def wait_for(self, ident: str, status: str, timeout_s: float = 60) -> dict[str, Any]:
        """Wait until a container has a status and nothing is under way."""
        seen: dict[str, Any] = {}

        def look() -> bool:
            seen.update(self.show(ident))
            return seen["status"] == status and seen["task_state"] is None

        try:
            eventually(look, f"{ident} is {status}", timeout_s)
        except AssertionError as error:
            shown = {key: seen[key] for key in ("status", "status_reason", "task_state", "status_detail")}
            raise AssertionError(f"{error}: {shown}\n{self.log_tail()}") from None
        return seen

    def inside(self, ident: str, command: str) -> tuple[int, str]:
        """Run a shell command in a container by Zun's execute: exit code and output."""
        answer = self.api("POST", f"/v1/containers/{ident}/execute", {"command": f"sh -c '{command}'"})
        assert answer.status == 200, answer
        return answer.json()["exit_code"], answer.json()["output"]

    def logs(self, ident: str) -> str:
        answer = self.api("GET", f"/v1/containers/{ident}/logs")
        assert answer.status == 200, answer
        return str(answer.json())

    def containers(self) -> list[dict[str, Any]]:
        return list(self.api("GET", "/v1/containers?all_projects=true").json()["containers"])

    def capsules(self) -> list[dict[str, Any]]:
        answer = self.api("GET", "/askos/v1/capsules?all_projects=true")
        assert answer.status == 200, answer
        return list(answer.json()["items"])

    @staticmethod
    def processes(mark: str) -> dict[int, str]:
        """Processes on the host with `mark` in their environment: when each was started, by pid."""
        found = {}
        for pid in _pids():
            if mark in _read(pid, "environ") and (stat := _read(pid, "stat").rpartition(")")[2].split()):
                found[pid] = stat[19]
        return found

    def clear(self) -> None:
        """Delete every container of every project, at once."""
        for container in self.containers():
            answer = self.api("DELETE", f"/v1/containers/{container['uuid']}?force=true&all_projects=true")
            assert answer.status in (204, 404), answer
        for capsule in self.capsules():
            path = f"/askos/v1/capsules/{capsule['id']}?gracePeriodSeconds=0&all_projects=true"
            answer = self.api("DELETE", path)
            assert answer.status in (202, 404), answer
        eventually(lambda: not self.containers() and not self.capsules(), "all containers are gone")


# -- what a cloud may leave behind ---------------------------------------------------------------------------------


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _read(pid: int, file: str) -> str:
    try:
        return Path(f"/proc/{pid}/{file}").read_text(errors="replace")
    except OSError:
        return ""


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout


def nothing_remains(cloud: Cloud) -> None:
    """Nothing of a cloud is left on this machine. The kernel takes some of it away a moment after it was told to, and
    whose process has ended need not have looked yet."""
    left: list[str] = []

    def look() -> bool:
        left[:] = remains(cloud.data, cloud.instance)
        return not left

    try:
        eventually(look, "nothing is left", 20)
    except AssertionError as error:
        raise AssertionError(f"{error}: {left}") from None


def remains(data: Path, instance: str) -> list[str]:
    """Everything on this machine that belongs to a cloud, apart from its data folder."""
    assert instance, "the cloud was never up"
    mark = f"askos-{instance}"
    found = []
    for pid in _pids():
        if pid != os.getpid() and (str(data) in _read(pid, "cmdline") or mark in _read(pid, "cgroup")):
            found.append(f"process {pid}: {_read(pid, 'cmdline').replace(chr(0), ' ')}")
    for line in _output("ip", "-o", "-d", "link").splitlines():
        name = line.split()[1].rstrip(":")
        if name.startswith(f"ak{instance[:4]}") or instance in line:
            found.append(f"interface {name}")
    found += [f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(data) in line]
    found += [line for line in _output("nft", "list", "tables").splitlines() if instance in line]
    found += [f"namespace {name}" for name in _names("/run/netns") if instance in name]
    for root in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        if (root / mark).is_dir():
            found.append(f"control group {root / mark}")
    found += [f"/run/askos/{name}" for name in _names("/run/askos") if name.startswith(instance)]
    return found


def _names(folder: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return os.listdir(folder)
    return []
