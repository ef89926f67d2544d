"""A cloud of its own for the bench, and the plainest possible client for it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

BODY = {"image": "busybox", "command": ["sleep", "100000"]}
ASKOS = [sys.executable, "-m", "askos"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cloud:
    """Started on entry; taken down, with its data, on exit."""

    def __init__(self, **settings: object) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="askos-bench-", dir="/tmp"))
        self.port = free_port()
        self.env = {**os.environ, "ASKOS_DATA": str(self.data), "XDG_CACHE_HOME": str(self.data / "cache")}
        # A thousand containers must find room on a small machine: they are only listed.
        self.env |= {"ASKOS_CPU_ALLOCATION_RATIO": "1000", "ASKOS_MEMORY_ALLOCATION_RATIO": "100"}
        self.env |= {f"ASKOS_QUOTA_{resource}": "-1" for resource in ("CONTAINERS", "MEMORY", "CPU", "DISK")}
        for name in [n for n in self.env if n.startswith("OS_")]:
            del self.env[name]
        self.env |= {f"ASKOS_{name.upper()}": str(value) for name, value in settings.items()}
        self.token = ""
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def __enter__(self) -> Cloud:
        try:
            self.cli("up", "--detach", "--port", str(self.port))
            self.log_in()
        except BaseException as error:
            if isinstance(error, subprocess.CalledProcessError):
                print(error.stderr.decode(errors="replace"), file=sys.stderr)
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.cli("down")
        shutil.rmtree(self.data, ignore_errors=True)

    def cli(self, *arguments: str) -> str:
        done = subprocess.run([*ASKOS, *arguments], env=self.env, check=True, capture_output=True, timeout=180)
        return done.stdout.decode()

    def log_in(self) -> None:
        auth = json.loads((self.data / "clouds.json").read_text())["clouds"]["askos"]["auth"]
        domain = {"id": "default"}
        user = {"name": auth["username"], "password": auth["password"], "domain": domain}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": auth["project_name"], "domain": domain}},
            }
        }
        self._connection.request("POST", "/identity/v3/auth/tokens", json.dumps(body))
        answer = self._connection.getresponse()
        answer.read()
        assert answer.status == 201, answer.status
        self.token = answer.headers["X-Subject-Token"]

    def call(self, method: str, path: str, body: object = None) -> Any:
        headers = {
            "X-Auth-Token": self.token,
            "Content-Type": "application/json",
            "OpenStack-API-Version": "container 1.40",
        }
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        data = answer.read()
        assert answer.status < 300, (method, path, answer.status, data[:300])
        return json.loads(data) if data else None

    def wait(self, uuid: str, *wanted: str, every_s: float = 0.002) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            shown = self.call("GET", f"/v1/containers/{uuid}")
            if shown["status"] in wanted and shown["task_state"] is None:
                return dict(shown)
            assert shown["status"] != "Error", shown
            time.sleep(every_s)
        raise AssertionError(f"{uuid} did not become {wanted}")

    def wait_until_running(self, uuid: str) -> None:
        """One long poll: a poll every few milliseconds would be most of the server's work."""
        answer = self.call("GET", f"/askos/v1/containers/{uuid}/wait?until=running&timeout=60")
        assert answer["status"] == "Running", answer

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.data / "run" / "containerd" / "c.sock"

    @property
    def instance(self) -> str:
        """The cloud's mark on everything that it makes on the machine."""
        return (self.data / "instance").read_text().strip()

    def image_id(self) -> str:
        """The image that every cloud begins with."""
        return str(self.call("GET", "/askos/v1/images")["images"][0]["id"])

    def delete_all(self, but: Collection[str] = ()) -> None:
        for container in self.call("GET", "/v1/containers")["containers"]:
            if container["uuid"] not in but:
                self.delete(container["uuid"])

    def delete(self, uuid: str) -> None:
        self.call("DELETE", f"/v1/containers/{uuid}?force=true")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if not any(c["uuid"] == uuid for c in self.call("GET", "/v1/containers")["containers"]):
                return
            time.sleep(0.02)
        raise AssertionError(f"{uuid} does not go away")

    def processes(self) -> dict[str, int]:
        """Pids by name: askos, containerd; "shim" is the first of them."""
        found: dict[str, int] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(self.data).encode() not in b" ".join(words):
                continue
            name = Path(words[0].decode()).name
            if name.startswith("python"):
                name = "askos"
            found.setdefault(name, int(folder.name))
        return found


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no VmRSS for {pid}")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
