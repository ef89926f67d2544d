"""Writable layers in a file system of limited size.

containerd keeps the writable layer of a container in `snapshots/<n>/fs`, beside overlayfs' work folder. Before the
container starts, a folder of the limited file system, `<folder>/<container id>` with the same two inside, is bound
over `snapshots/<n>`: what the container writes lies there, and ends where that file system is full.

Where the folder is stands in a label of the container. The bind goes before containerd removes the snapshot, which
would find its folder busy otherwise.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from askos.adapters.containerd import mounts
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import Client, RpcError
from askos.model.errors import RuntimeFailedError

LABEL = "askos.io/layer"
_CALL_S = 20.0
_PARTS = ("fs", "work")


def own_layer(folder: str, container_id: str) -> Path:
    """Where the files of a container are that has a limit."""
    return Path(folder) / container_id / "fs"


async def folder_of(client: Client, container_id: str) -> str:
    """The limited file system's folder of a container; empty: it has no limit, or is gone. Raises RpcError."""
    try:
        request = api.GetContainerRequest(id=container_id)
        answer = await client.call("containers.v1.Containers/Get", request, _CALL_S)
    except RpcError as error:
        if error.not_found:
            return ""
        raise
    return str(answer.container.labels.get(LABEL, ""))


def place(layer: Path, folder: str, container_id: str) -> None:
    """Put a new container's layer, which is at `layer` now, into a limited file system. Idempotent; raises OSError,
    RuntimeFailedError."""
    snapshot, target = layer.parent, Path(folder) / container_id
    if layer.name != "fs" or not (snapshot / "work").is_dir():
        raise RuntimeFailedError(
            "The disk limit cannot be kept on this host: its file system does not carry overlay mounts. "
            "Leave the limit out.",
            retryable=False,
        )
    if mounts.is_mounted(snapshot):
        return
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for part in _PARTS:
        there = (snapshot / part).stat()
        (target / part).mkdir(exist_ok=True)
        os.chown(target / part, there.st_uid, there.st_gid)
        os.chmod(target / part, there.st_mode & 0o7777)
    mounts.bind(target, snapshot)


def unplace(layer: Path) -> None:
    """Take the bind away; nothing when there is none."""
    while mounts.is_mounted(layer.parent) and mounts.unmount(layer.parent):
        pass


def discard(folder: str, container_id: str) -> None:
    """Remove the files of a container that is gone."""
    shutil.rmtree(Path(folder) / container_id, ignore_errors=True)
