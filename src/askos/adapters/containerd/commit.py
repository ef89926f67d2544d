"""Making an image of a container: its writable layer on top of its image's, and its configuration.

The layer is computed by containerd's diff service, so it has whiteouts and extended attributes as any other. All
blobs are made under a lease; what a crash leaves is collected when that expires.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import uuid
from typing import Any

import msgspec

from askos.adapters.containerd import blobs, store
from askos.adapters.containerd.archive import Blob
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import Client, RpcError
from askos.model.errors import ConflictError, NotFoundError

VIEW = "askos-commit-"
"""How the names of the snapshots begin through which an image is looked at while one of a container is made."""
_CALL_S = 20.0
_DIFF_S = 1800.0
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_UNCOMPRESSED = "containerd.io/uncompressed"
_NOT_OURS = ("HOSTNAME=", "TERM=")
"""Variables that the runtime sets for this one container."""


class Base(msgspec.Struct, frozen=True):
    """What the container was made from."""

    snapshotter: str
    snapshot: str
    process: dict[str, Any]
    layers: list[dict[str, Any]]
    config: dict[str, Any]


async def base(client: Client, container_id: str) -> Base:
    """Look at a container and its image. Raises RpcError, NotFoundError."""
    try:
        request = api.GetContainerRequest(id=container_id)
        container = (await client.call("containers.v1.Containers/Get", request, _CALL_S)).container
    except RpcError as error:
        if error.not_found:
            raise NotFoundError("The container is gone.", "container-not-found") from None
        raise
    try:
        manifest = await blobs.manifest_of(client, container.image)
        config = json.loads(await blobs.read(client, manifest["config"]["digest"]))
    except RpcError as error:
        if error.not_found:
            message = "Cannot make an image of the container: the image that it was made from is not on its host any "
            raise ConflictError(message + "more. Pull it again first.") from None
        raise
    spec = json.loads(container.spec.value or b"{}")
    return Base(
        container.snapshotter, container.snapshot_key, spec.get("process") or {}, manifest["layers"], config
    )  # fmt: skip


async def commit(client: Client, origin: Base, name: str) -> str:
    """Make the image under a normalised name; returns its id. Raises RpcError."""
    async with store.lease(client) as lease:
        layer = await _layer(client, origin, lease)
        info = await client.call("content.v1.Content/Info", api.InfoRequest(digest=layer.digest), _CALL_S)
        diff_id = info.info.labels.get(_UNCOMPRESSED, layer.digest)
        config = _blob(_CONFIG, _config(origin, diff_id))
        layers = [*origin.layers, {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}]
        manifest = _blob(
            _MANIFEST,
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": {"mediaType": _CONFIG, "digest": config.digest, "size": config.size},
                "layers": layers,
            },
        )
        await store.put(client, config, lease, {})
        labels = {"containerd.io/gc.ref.content.config": config.digest}
        labels |= {f"containerd.io/gc.ref.content.l.{n}": part["digest"] for n, part in enumerate(layers)}
        await store.put(client, manifest, lease, labels)
        await store.name_image(client, name, manifest, {})
    return config.digest


async def _layer(client: Client, origin: Base, lease: str) -> Any:
    """The descriptor of what the container has written."""
    stat = api.StatSnapshotRequest(snapshotter=origin.snapshotter, key=origin.snapshot)
    parent = (await client.call("snapshots.v1.Snapshots/Stat", stat, _CALL_S)).info.parent
    mounts = api.MountsRequest(snapshotter=origin.snapshotter, key=origin.snapshot)
    upper = (await client.call("snapshots.v1.Snapshots/Mounts", mounts, _CALL_S)).mounts
    key = f"{VIEW}{uuid.uuid4().hex}"
    view = api.ViewSnapshotRequest(snapshotter=origin.snapshotter, key=key, parent=parent)
    lower = (await client.call("snapshots.v1.Snapshots/View", view, _CALL_S, lease)).mounts
    try:
        request = api.DiffRequest(left=lower, right=upper, media_type=_LAYER, ref=key)
        return (await client.call("diff.v1.Diff/Diff", request, _DIFF_S, lease)).diff
    finally:
        with contextlib.suppress(RpcError):
            removal = api.RemoveSnapshotRequest(snapshotter=origin.snapshotter, key=key)
            await client.call("snapshots.v1.Snapshots/Remove", removal, _CALL_S)


def _config(origin: Base, diff_id: str) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    config = json.loads(json.dumps(origin.config))
    inner = config.get("config") or {}
    inner.update(_process(inner, origin.process))
    history = [*(config.get("history") or []), {"created": now, "created_by": "commit of a container"}]
    rootfs = {"type": "layers", "diff_ids": [*(config.get("rootfs") or {}).get("diff_ids", []), diff_id]}
    return {**config, "created": now, "config": inner, "history": history, "rootfs": rootfs}


def _process(image: dict[str, Any], process: dict[str, Any]) -> dict[str, Any]:
    """What the container was told to run, as an image says it."""
    argv, entrypoint = list(process.get("args") or []), list(image.get("Entrypoint") or [])
    own = set(image.get("Env") or [])
    env = [entry for entry in process.get("env") or [] if entry in own or not entry.startswith(_NOT_OURS)]
    found: dict[str, Any] = {"Env": env, "WorkingDir": process.get("cwd") or image.get("WorkingDir") or ""}
    if entrypoint and argv[: len(entrypoint)] == entrypoint:
        found["Cmd"] = argv[len(entrypoint) :]
    else:
        found["Entrypoint"], found["Cmd"] = None, argv
    return found


def _blob(media_type: str, value: dict[str, Any]) -> Blob:
    data = json.dumps(value, separators=(",", ":")).encode()
    return Blob(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data), media_type, data=data)
