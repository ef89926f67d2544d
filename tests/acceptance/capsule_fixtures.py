"""Pods on a real cloud, through the native API."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

from tests.acceptance.cloud_fixtures import LIVES, Answer, Cloud, eventually

BASE = "/askos/v1/capsules"


def container(name: str = "main", script: str | None = None, **fields: Any) -> dict[str, Any]:
    """A container that runs a shell script, or for ever and stops when asked."""
    command = list(LIVES) if script is None else ["sh", "-c", script]
    return {"name": name, "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": command, **fields}


def pod(*containers: dict[str, Any], labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """The body of a create; a short grace, so that tests need not wait for what is deaf."""
    metadata = {"name": f"pod-{secrets.token_hex(4)}", "labels": labels or {}}
    given = {"terminationGracePeriodSeconds": 5, "containers": list(containers or [container()]), **spec}
    return {"metadata": metadata, "spec": given}


class Pod:
    """One capsule on a cloud."""

    def __init__(self, cloud: Cloud, created: dict[str, Any]) -> None:
        self.cloud = cloud
        self.id = str(created["id"])

    @classmethod
    def create(cls, cloud: Cloud, body: dict[str, Any], *, token: str | None = None) -> Pod:
        answer = cloud.api("POST", BASE, body, token=token)
        assert answer.status == 201, answer
        return cls(cloud, answer.json())

    def api(self, method: str, path: str = "", body: Any = None, **more: Any) -> Answer:
        return self.cloud.api(method, f"{BASE}/{self.id}{path}", body, **more)

    def show(self) -> dict[str, Any]:
        answer = self.api("GET")
        assert answer.status == 200, answer
        return dict(answer.json())

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.show()["status"])

    def of(self, name: str = "main") -> dict[str, Any]:
        """The status of one container."""
        status = self.status
        every = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
        return next(c for c in every if c["name"] == name)

    def condition(self, kind: str) -> dict[str, Any]:
        return next(c for c in self.status["conditions"] if c["type"] == kind)

    def until(self, check: Callable[[dict[str, Any]], Any], what: str, timeout_s: float = 60) -> dict[str, Any]:
        """Wait until the status passes; that status is returned."""
        last: dict[str, Any] = {}

        def look() -> bool:
            last.clear()
            last.update(self.status)
            return bool(check(last))

        try:
            eventually(look, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{last}\n{self.events()}\n{self.cloud.log_tail()}") from None
        return last

    def phase(self, wanted: str, timeout_s: float = 60) -> dict[str, Any]:
        return self.until(lambda status: status["phase"] == wanted, f"phase {wanted}", timeout_s)

    def ready(self, timeout_s: float = 60) -> Pod:
        def check(status: dict[str, Any]) -> bool:
            return any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])

        self.until(check, "it is ready", timeout_s)
        return self

    def logs(self, container: str = "main", query: str = "") -> str:
        answer = self.api("GET", f"/logs?container={container}{query}")
        assert answer.status == 200, answer
        return answer.body.decode()

    def says(self, text: str, container: str = "main", timeout_s: float = 60, query: str = "") -> None:
        def look() -> bool:
            answer = self.api("GET", f"/logs?container={container}{query}")
            # Until it has started there is no log.
            return answer.status == 200 and text in answer.body.decode()

        eventually(look, f"{container} says {text!r}", timeout_s)

    def events(self) -> list[dict[str, Any]]:
        answer = self.api("GET", "/events")
        return list(answer.json()["items"]) if answer.status == 200 else []

    def event(self, reason: str, timeout_s: float = 60) -> dict[str, Any]:
        """Wait for an event."""
        found: list[dict[str, Any]] = eventually(
            lambda: [e for e in self.events() if e["reason"] == reason], f"event {reason}", timeout_s
        )
        return found[-1]

    def watched(self, revision: str, check: Callable[[list[dict[str, Any]]], Any]) -> list[dict[str, Any]]:
        """What the watch has told of it since a revision; waits until that passes."""

        def look() -> list[dict[str, Any]]:
            answer = self.cloud.api("GET", f"{BASE}?watch=true&resourceVersion={revision}&timeoutSeconds=1")
            told = [line for line in map(json.loads, answer.body.splitlines()) if line["object"].get("id") == self.id]
            return told if check(told) else []

        return eventually(look, "the watch tells it")

    def last(self, revision: str) -> dict[str, Any]:
        """Its status as the watch gives it with DELETED. `revision`: from before it was deleted."""
        told = self.watched(revision, lambda told: told and told[-1]["type"] == "DELETED")
        return dict(told[-1]["object"]["status"])

    def delete(self, grace_s: int | None = None) -> None:
        query = "" if grace_s is None else f"?gracePeriodSeconds={grace_s}"
        answer = self.api("DELETE", query)
        assert answer.status == 202, answer

    def gone(self, timeout_s: float = 60) -> None:
        eventually(lambda: self.api("GET").status == 404, f"{self.id} is gone", timeout_s)

    def inside(self, script: str, container: str = "main") -> str:
        """Output of a shell command in a container, which must succeed."""
        done = self.cloud.askos("capsule", "exec", "-c", container, self.id, "--", "sh", "-c", script)
        return done.stdout
