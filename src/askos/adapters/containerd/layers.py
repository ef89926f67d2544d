"""Giving the writable layer of an ended container to a new one.

The two layers' folders are exchanged in one atomic step, so nothing is copied and all of it is kept: files, owners,
extended attributes, whiteouts. For overlayfs it is the upper folder; for the native snapshotter, which keeps a full
copy of the image for each container, that whole copy.

The folder that travels is marked with who gives it to whom before it does. A second call, after a crash at any
point, sees by the mark where the folder is: still at its old place (exchange it) or already at the new (done).
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import Client
from askos.model.errors import RuntimeFailedError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_MARK = "trusted.askos.layer"
_CALL_S = 20.0
_libc = ctypes.CDLL(None, use_errno=True)


async def writable_folder(client: Client, snapshotter: str, container_id: str) -> Path:
    """The host folder that holds what the container has written. Raises RpcError, RuntimeFailedError."""
    request = api.MountsRequest(snapshotter=snapshotter, key=container_id)
    answer = await client.call("snapshots.v1.Snapshots/Mounts", request, _CALL_S)
    for mount in answer.mounts:
        if mount.type == "overlay":
            for option in mount.options:
                if option.startswith("upperdir="):
                    return Path(option.removeprefix("upperdir="))
        elif mount.type == "bind" and "ro" not in mount.options:
            return Path(mount.source)
    raise RuntimeFailedError(
        f"Could not keep the files of container {container_id[:12]}: the snapshotter {snapshotter} does not say "
        "where they are.",
        retryable=False,
    )


def hand_over(source: Path, target: Path, from_id: str, to_id: str) -> None:
    """Exchange two folders, once for each pair of containers however often it is called. Raises OSError."""
    mark = f"{from_id}>{to_id}".encode()
    if _marked(target) == mark:
        return
    os.setxattr(source, _MARK, mark)
    _sync(source)
    _exchange(source, target)
    _sync(source.parent)
    _sync(target.parent)


def _exchange(one: Path, other: Path) -> None:
    result = _libc.renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)
    )
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one))


def _marked(folder: Path) -> bytes | None:
    try:
        return os.getxattr(folder, _MARK)
    except OSError:
        return None


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
