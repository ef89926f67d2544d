"""The native API of capsules: create, show, list, change and delete."""

from __future__ import annotations

from typing import Any

import pytest

from .cloud import Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

CAPSULES = "/askos/v1/capsules"


def pod(name: str = "web", **more: Any) -> dict[str, Any]:
    """A small manifest; `more` goes into its spec, but for metadata."""
    metadata = {"name": name, **more.pop("metadata", {})}
    content = more.pop("content", None)
    spec = {"containers": [{"name": "app", "image": "busybox:1.36", "command": ["sleep", "9"]}], **more}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return body if content is None else {**body, "content": content}


async def make(cloud: Cloud, token: str, name: str = "web", **more: Any) -> dict[str, Any]:
    made = await cloud.ask("POST", CAPSULES, token, version=None, body=pod(name, **more))
    assert made.status == 201, made
    return dict(made.body)


async def test_create(cloud: Cloud) -> None:
    token = cloud.project()
    made = await make(cloud, token, metadata={"labels": {"app": "web"}})
    print(made)
    got = await cloud.ask("GET", CAPSULES, token, version=None)
    assert got.body["items"] == [made]
