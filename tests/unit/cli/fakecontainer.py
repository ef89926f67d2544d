"""One container of the fake cloud, and the form of its errors."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiohttp import web


@dataclass
class Container:
    uuid: str
    body: dict
    status: str = "Creating"
    task: str | None = "container_creating"
    reason: str | None = None
    exit_code: int | None = None
    log: list[tuple[int, bytes]] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    gone: bool = False

    def view(self, *, listed=False):
        detail = {"Running": "Up 5 mins", "Created": "Created"}.get(self.status)
        if self.status == "Stopped":
            detail = f"Exited({self.exit_code}) 8 mins ago "
        view = {
            "uuid": self.uuid,
            "links": [{"href": f"http://zun.example:9517/v1/containers/{self.uuid}", "rel": "self"}],
            "name": self.body["name"],
            "project_id": "p" * 32,
            "user_id": "u" * 32,
            "image": self.body["image"],
            "cpu": float(self.body.get("cpu") or 1.0),
            "cpu_policy": "shared",
            "memory": str(self.body.get("memory") or "512"),
            "command": self.body.get("command") or [],
            "status": self.status,
            "status_reason": self.reason,
            "task_state": self.task,
            "environment": self.body.get("environment") or {},
            "workdir": self.body.get("workdir"),
            "auto_remove": bool(self.body.get("auto_remove")),
            "ports": [],
            "hostname": self.body.get("hostname"),
            "labels": self.body.get("labels") or {},
            "addresses": {
                "net-1": [
                    {
                        "addr": "10.77.0.74",
                        "version": 4,
                        "port": "port-1",
                        "subnet_id": "subnet-1",
                        "preserve_on_delete": False,
                    }
                ]
            },
            "restart_policy": self.body.get("restart_policy") or {},
            "status_detail": detail,
            "interactive": bool(self.body.get("interactive")),
            "tty": bool(self.body.get("tty")),
            "image_driver": "docker",
            "security_groups": ["sg-1"],
            "disk": 0,
            "auto_heal": False,
            "healthcheck": {},
            "registry_id": None,
            "entrypoint": self.body.get("entrypoint") or [],
            "created_at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
            "updated_at": None,
        }
        if listed:
            del view["links"]
        return view


def problem(status, code, message):
    error = {
        "request_id": "",
        "code": f"container.{code}",
        "status": status,
        "title": message,
        "detail": message,
        "links": [],
    }
    return web.json_response({"errors": [error]}, status=status)
