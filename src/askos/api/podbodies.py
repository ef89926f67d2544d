"""Bodies that capsules are made and changed with: reading them, and what they must not be."""

from __future__ import annotations

from typing import Any

import msgspec

from askos.api import podchanges, podpatch, podview, weight
from askos.api.core import Request, read_json
from askos.api.errors import ApiError
from askos.model.capsules import Capsule
from askos.model.errors import ConflictError
from askos.model.pods import Content, Pod

MAX_BODY = 4 << 20
"""Bytes of JSON: room for the content in base64."""
MAX_CONTENT = 1 << 20
"""Bytes of all config maps and secrets of one capsule together, as Kubernetes allows for each one."""


async def read(request: Request) -> dict[str, Any]:
    """The body as a JSON object. ApiError 400 for one that is none, or too large or deep."""
    body = await read_json(request.raw, MAX_BODY)
    if not isinstance(body, dict):
        raise ApiError(400, "Cannot read the request: its body must be a JSON object.", code="container.invalid-body")
    weight.check(body)
    return body


def is_strategic(request: Request) -> bool:
    """Whether a patch is a strategic merge, or a plain one. ApiError 415 for what is neither."""
    kind = request.raw.content_type
    if kind not in (podpatch.STRATEGIC, podpatch.PLAIN, "application/json"):
        raise ApiError(415, f"Cannot read a patch of content type {kind}: send {podpatch.STRATEGIC}.")
    return kind != podpatch.PLAIN


def take_expected(body: dict[str, Any]) -> str | None:
    """The revision that a change is meant for, taken out of its body."""
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("resourceVersion"):
        return None
    body["metadata"] = {key: value for key, value in metadata.items() if key != "resourceVersion"}
    return str(metadata["resourceVersion"])


def check_changeable(now: Capsule, expected: str | None) -> None:
    """ConflictError for a capsule that is being deleted, or is not at the revision that is expected (None: any)."""
    if now.wish.state == "deleted":
        raise ConflictError(f"Cannot change capsule {now.name}: it is being deleted.")
    if expected is not None and expected != str(now.revision):
        raise ConflictError(
            f"Cannot change capsule {now.name}: it was modified meanwhile (it is at resourceVersion {now.revision}, "
            f"not {expected}). Read it again, and apply the change to that."
        )


def check_same(existing: Capsule, pod: Pod, *, generated: bool) -> None:
    """A create with a uid that is known must ask for the same. ConflictError."""
    old = podview.pod_of(existing)
    same_name = generated or old.metadata.name == pod.metadata.name
    if same_name and old.metadata.namespace == pod.metadata.namespace and old.spec == pod.spec:
        return
    where = podchanges.differences(
        msgspec.structs.replace(old, metadata=msgspec.structs.replace(old.metadata, labels={}, annotations={})),
        msgspec.structs.replace(pod, metadata=msgspec.structs.replace(pod.metadata, labels={}, annotations={})),
    )
    raise ConflictError(
        f"There is a capsule with uid {pod.metadata.uid} already (id {existing.uuid}), which was asked for "
        f"otherwise: {', '.join(where)}. Change it with PUT or PATCH, or use another uid.",
        "already-exists",
    )


def check_size(content: Content) -> None:
    """ApiError 413 for content of more than MAX_CONTENT bytes."""
    size = 0
    for config in content.config_maps.values():
        size += sum(len(key) + len(text.encode()) for key, text in config.data.items())
        size += sum(len(key) + len(data) for key, data in config.binary_data.items())
    for secret in content.secrets.values():
        size += sum(len(key) + len(data) for key, data in secret.data.items())
    if size > MAX_CONTENT:
        title = f"Cannot take this content: config maps and secrets have {size} bytes together; at most {MAX_CONTENT} "
        raise ApiError(413, title + "are allowed. Put what is large into a volume or the image.")
