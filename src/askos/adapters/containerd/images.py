"""Images on the host: finding, listing, loading and removing them through CRI and containerd's image store."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd import packing, store
from askos.adapters.containerd.config import PAUSE_IMAGE
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import Client, RpcError
from askos.model.images import is_image_id, normalise
from askos.ports.runtime import Image

_CALL_S = 15.0
_REMOVE_S = 60.0
_SEEN_S = 20.0
_SHORT_ID = re.compile(r"[0-9a-f]{12,64}")
_PAUSE_NAME = PAUSE_IMAGE.rsplit(":", 1)[0]


def resolvable(ref: str) -> str:
    """What CRI is asked for: an id (the whole, or at least twelve digits) as it is, a name in its full form."""
    if is_image_id(ref):
        return ref if ref.startswith("sha256:") else f"sha256:{ref}"
    return ref if _SHORT_ID.fullmatch(ref) else normalise(ref)


async def find(client: Client, ref: str, known: dict[str, Image]) -> Image | None:
    """The image by a resolvable reference. `known` keeps what the configurations say, by id."""
    request = cri.ImageStatusRequest(image=cri.ImageSpec(image=ref), verbose=True)
    answer = await client.cri("ImageStatus", request, _CALL_S)
    if not answer.image.id:
        return None
    image = _read(answer.image, json.loads(answer.info.get("info", "{}")))
    known[image.id] = image
    return image


async def every(client: Client, known: dict[str, Image]) -> list[Image]:
    """All images but the sandbox image. `known` as in `find`; what is gone is dropped from it."""
    answer = await client.cri("ListImages", cri.ListImagesRequest(), _CALL_S)
    found: list[Image] = []
    for item in answer.images:
        if any(tag.rsplit(":", 1)[0] == _PAUSE_NAME for tag in item.repo_tags):
            continue
        image = known.get(item.id)
        if image is None or image.tags != list(item.repo_tags) or image.digests != list(item.repo_digests):
            image = await find(client, item.id, known)
        if image is not None:
            found.append(image)
    for gone in known.keys() - {image.id for image in found}:
        known.pop(gone, None)
    return found


async def load(client: Client, path: str, ref: str | None, scratch: Path, *, rename: bool = False) -> list[str]:
    """Load an archive; returns when CRI sees the names, so that a container can be made at once."""
    names = await store.import_archive(client, path, ref, scratch, rename=rename)
    for name, image_id in names.items():
        await seen(client, name, image_id)
    return list(names)


async def remove(client: Client, ref: str) -> None:
    """Remove a name, or with its last name or its id the image. Nothing when there is none."""
    image = await find(client, ref, {})
    if image is None:
        return
    if ref in image.tags:
        # Not by CRI, which takes every name of the image, the one first that it was asked for: when containerd dies
        # then, the rest would keep an image that nobody knows. So the name goes last, and whoever comes again finds it.
        if image.tags == [ref]:
            for other in (*image.digests, image.id):
                await _forget(client, other, sync=False)
        await _forget(client, ref, sync=True)
    else:
        await client.cri("RemoveImage", cri.RemoveImageRequest(image=cri.ImageSpec(image=ref)), _REMOVE_S)
    await seen(client, ref, None)


async def _forget(client: Client, name: str, *, sync: bool) -> None:
    try:
        await client.call("images.v1.Images/Delete", api.DeleteImageRequest(name=name, sync=sync), _REMOVE_S)
    except RpcError as error:
        if not error.not_found:
            raise


async def ensure_pause(client: Client, scratch: Path) -> None:
    """Make and load the sandbox image, unless it is there."""
    if await find(client, PAUSE_IMAGE, {}) is not None:
        return
    path = scratch / "pause.tar"
    await asyncio.to_thread(packing.make_pause_archive, path, packing.pause_elf())
    try:
        names = await store.import_archive(client, str(path), None, scratch, labels=store.PINNED)
    finally:
        path.unlink(missing_ok=True)
    await seen(client, PAUSE_IMAGE, names[PAUSE_IMAGE])


async def seen(client: Client, ref: str, image_id: str | None) -> None:
    """Wait until CRI takes the name for that image (None: for none)."""
    # CRI learns of changes in containerd's store by events, a moment later.
    deadline = time.monotonic() + _SEEN_S
    while time.monotonic() < deadline:
        found = await find(client, ref, {})
        if (found.id if found is not None else None) == image_id:
            return
        await asyncio.sleep(0.02)
    raise RpcError("ImageStatus", "deadline_exceeded", f"the change of {ref} did not become visible")


def _read(item: Any, info: dict[str, Any]) -> Image:
    config = (info.get("imageSpec") or {}).get("config") or {}
    return Image(
        id=item.id,
        tags=list(item.repo_tags),
        digests=list(item.repo_digests),
        size_bytes=item.size,
        entrypoint=list(config.get("Entrypoint") or []),
        command=list(config.get("Cmd") or []),
        user=str(config.get("User") or ""),
        stop_signal=str(config.get("StopSignal") or ""),
        exposed_ports=list(config.get("ExposedPorts") or {}),
    )
