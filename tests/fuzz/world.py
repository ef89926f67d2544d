"""A cloud with something in it: what made-up requests are led to."""

from __future__ import annotations

import secrets
from typing import Any

from tests.acceptance.capsule_fixtures import BASE, pod
from tests.acceptance.cloud_fixtures import LIVES, Cloud


def furnish(cloud: Cloud, token: str) -> dict[str, list[str]]:
    """Make a few things of each kind in the token's project: their ids by the word before them in paths."""

    def made(path: str, body: dict[str, Any], key: str = "uuid") -> str:
        answer = cloud.api("POST", path, body, token=token)
        assert answer.status in (201, 202), answer
        found = answer.json()
        return str(found.get("registry", found)[key])

    lives = list(LIVES)
    containers = [
        cloud.create(token=token, interactive=True, tty=True),
        cloud.create(token=token, healthcheck={"cmd": "true", "interval": 1, "timeout": 1, "retries": 1}),
        cloud.create(("sh", "-c", "exit 3"), token=token),
        made("/v1/containers", {"image": "busybox", "command": lives, "name": f"c-{secrets.token_hex(3)}"}),
    ]
    template = {
        "capsuleVersion": "beta",
        "kind": "capsule",
        "metadata": {"name": f"zun-{secrets.token_hex(3)}"},
        "spec": {"containers": [{"image": "busybox", "command": lives[:1], "args": lives[1:]}]},
    }
    capsules = [made(BASE, pod(), "id"), made("/v1/capsules", {"template": template})]
    for uuid in containers[:2]:
        cloud.wait_for(uuid, "Running")
    request = cloud.api("GET", f"/v1/containers/{containers[0]}/container_actions", token=token)
    actions = [action["request_id"] for action in request.json()["containerActions"]]
    volumes = [made("/askos/v1/volumes", {"name": f"v-{secrets.token_hex(3)}", "size_gib": 1}, "id") for _ in range(2)]
    registry = {"name": "hub", "domain": "registry.example.org", "username": "ann", "password": "secret"}
    registries = [made("/v1/registries", {"registry": registry}) for _ in range(2)]
    return {
        "containers": containers,
        "container_actions": actions,
        "capsules": capsules,
        "volumes": volumes,
        "registries": registries,
        "quota_classes": ["default"],
    }
