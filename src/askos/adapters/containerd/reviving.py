"""Paused containers and a containerd that begins anew.

containerd's CRI part cannot take over a paused task (containerd 1.6 and later: "unexpected task status"): the container
is "unknown" to it from then on, and can only be killed. Each must go on for the moment in which CRI looks at it. That
is done through a containerd that nobody else can reach; whose containers are to be paused pauses them again.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from askos.adapters.containerd import cgroups
from askos.adapters.containerd.details import PAUSED, PAUSING
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import LIST_S, Client, RpcError

_CALL_S = 10.0
_FILES = {"freezer.state": "FROZEN", "cgroup.freeze": "1"}
_log = logging.getLogger(__name__)


def paused(instance: str) -> list[str]:
    """The ids of the cloud's paused containers, as the kernel knows them. Blocks."""
    found = []
    for container_id, groups in cgroups.groups(instance).items():
        for path in (group / name for group in groups for name in _FILES):
            with contextlib.suppress(OSError):
                if path.read_text().strip() == _FILES[path.name]:
                    found.append(container_id)
                    break
    return found


async def resume(socket: Path, containers: list[str]) -> None:
    """Let paused containers go on. What cannot is told in the log, and left as it is."""
    client = Client(socket)
    try:
        for container_id in containers:
            try:
                request = api.GetTaskRequest(container_id=container_id)
                answer = await client.call("tasks.v1.Tasks/Get", request, LIST_S)
                if answer.process.status in (PAUSED, PAUSING):
                    going_on = api.ResumeTaskRequest(container_id=container_id)
                    await client.call("tasks.v1.Tasks/Resume", going_on, _CALL_S)
            except RpcError as error:
                if not error.not_found:
                    _log.warning("the paused container %s cannot be taken over: %s", container_id, error)
    finally:
        await client.close()
