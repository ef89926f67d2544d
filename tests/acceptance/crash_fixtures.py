"""A cloud that is killed at random, and a plain client of it that remembers what was accepted."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.acceptance.cloud_fixtures import free_port

VERSION = "container 1.40"
ANSWER_S = 40.0
"""Whoever is killed breaks the connection; without that, every request is answered long before."""


QUOTA = 400
"""Containers that a project may have."""


def eventually(look: Callable[[], list[str]], timeout_s: float, pause_s: float = 0.25) -> list[str]:
    """Wait until `look` finds nothing to complain about; returns its last complaints."""
    deadline = time.monotonic() + timeout_s
    while True:
        wrong = look()
        if not wrong or time.monotonic() > deadline:
            return wrong
        time.sleep(pause_s)


class Cloud:
    """One cloud in a folder of its own."""

    def __init__(self) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="askos-crash-"))
        self.port = free_port()
        self._client: Api | None = None
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("ASKOS_", "OS_"))}
        # On a busy machine many are not gone yet when others are made.
        self.environment["ASKOS_QUOTA_CONTAINERS"] = str(QUOTA)

    def _askos(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "askos", *arguments, "--data", str(self.data)],
            check=False,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == 0, f"askos {arguments[0]} failed: {done.stderr}\n{self.log_tail()}"

    def up(self) -> None:
        if self._client is not None:
            self._client.close()
        self._askos("up", "-d", "--port", str(self.port), "--log-level", "debug")

    def down(self) -> None:
        self._askos("down")

    def remove(self) -> None:
        """Take the cloud away whatever the test has left; keep its logs where ASKOS_CRASH_KEEP says."""
        try:
            if self._client is not None:
                self._client.close()
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self.down()
        finally:
            keep = os.environ.get("ASKOS_CRASH_KEEP")
            if keep:
                shutil.copytree(self.data / "log", Path(keep) / self.data.name, dirs_exist_ok=True)
            shutil.rmtree(self.data, ignore_errors=True)

    @property
    def instance(self) -> str:
        return (self.data / "instance").read_text().strip()

    @property
    def socket(self) -> Path:
        return self.data / "run" / "containerd" / "c.sock"

    def pid(self) -> int:
        return int((self.data / "lock").read_text())

    def containerd_pid(self) -> int:
        record = json.loads((self.data / "run" / "containerd" / "process.json").read_text())
        return int(record["process"]["pid"])

    def kill(self, victim: str) -> None:
        """`kill -9` of "askos", "containerd" or "both"; returns when they have gone."""
        pids = []
        if victim in ("askos", "both"):
            pids.append(self.pid())
        if victim in ("containerd", "both"):
            pids.append(self.containerd_pid())
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # killed a moment ago, and not back yet
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            while _alive(pid):
                time.sleep(0.005)

    def killed_start(self, after_s: float) -> None:
        """Start it, and kill it and its containerd at some moment of that."""
        arguments = [sys.executable, "-m", "askos", "up", "--data", str(self.data), "--port", str(self.port)]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(arguments, env=self.environment, stdout=quiet, stderr=quiet) as process:
            time.sleep(after_s)
            process.kill()
        with contextlib.suppress(OSError, ValueError):
            self.kill("containerd")

    def log_tail(self, lines: int = 40) -> str:
        with contextlib.suppress(OSError):
            text = (self.data / "log" / "askos.log").read_text(errors="replace")
            # For whoever reads a failure; the whole log is kept where ASKOS_CRASH_KEEP says.
            return "\n".join(text.splitlines()[-lines:])
        return ""

    @property
    def client(self) -> Api:
        """The API for the test's own thread."""
        if self._client is None:
            self._client = self.api()
        return self._client

    def api(self) -> Api:
        """The API for one more thread; close it."""
        return Api(self.data, self.port)


def _alive(pid: int) -> bool:
    try:
        # A zombie is dead; its parent (this test, or init) has just not looked yet.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class LostError(Exception):
    """No answer came: whether the request was accepted is not known, unless it was never `sent`."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class Answer:
    def __init__(self, status: int, body: bytes, request_id: str = "") -> None:
        self.status = status
        self.body = body
        self.request_id = request_id

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    """The HTTP API with a token; one connection, for one thread."""

    def __init__(self, data: Path, port: int) -> None:
        self._auth = json.loads((data / "clouds.json").read_text())["clouds"]["askos"]["auth"]
        self._port = port
        self._connection: http.client.HTTPConnection | None = None
        self._token = ""

    def __call__(self, method: str, path: str, body: Any = None) -> Answer:
        """Raises LostError when no whole answer came."""
        return self.at(method, f"/v1/containers{path}", body)

    def at(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """The same for any path. A body of bytes is sent as it is; `headers` with _ for -."""
        if not self._token:
            self.log_in()
        given = {"X-Auth-Token": self._token, "OpenStack-API-Version": VERSION}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self._send(method, path, body, given)[0]

    def log_in(self) -> None:
        """Get a token, which outlives whoever is killed."""
        user = {"name": self._auth["username"], "domain": {"id": "default"}, "password": self._auth["password"]}
        project = {"name": self._auth["project_name"], "domain": {"id": "default"}}
        identity = {"methods": ["password"], "password": {"user": user}}
        body = {"auth": {"identity": identity, "scope": {"project": project}}}
        answer, headers = self._send("POST", "/identity/v3/auth/tokens", body, {})
        assert answer.status == 201, answer.body
        self._token = headers["X-Subject-Token"]

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[Answer, dict[str, str]]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)
        sent = False
        try:
            if self._connection.sock is None:
                self._connection.connect()
            sent = True
            data = body if body is None or isinstance(body, bytes) else json.dumps(body)
            self._connection.request(method, path, data, {"Content-Type": "application/json", **headers})
            response = self._connection.getresponse()
            request_id = response.headers.get("X-Openstack-Request-Id", "")
            return Answer(response.status, response.read(), request_id), dict(response.headers)
        except TimeoutError as error:
            self.close()
            raise AssertionError(f"{method} {path} hangs: no answer within {ANSWER_S:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise LostError(f"{method} {path}: {error!r}", sent=sent) from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def list(self) -> dict[str, dict[str, Any]]:
        """All containers by name."""
        answer = self("GET", "")
        assert answer.status == 200, answer.body
        return {item["name"]: item for item in answer.json()["containers"]}

    def files(self, name: str, path: str) -> list[str]:
        """The lines of a file inside a running container."""
        answer = self("POST", f"/{name}/execute?run=true&command=cat%20{path}")
        assert answer.status == 200, f"cat {path} in {name}: {answer.status} {answer.body!r}"
        done = answer.json()
        assert done["exit_code"] == 0, done
        return str(done["output"]).split()
