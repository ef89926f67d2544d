"""Calls to containerd by method path: CRI, and containerd's own services.

One channel carries everything. It reconnects by itself after containerd has been restarted; calls made while
containerd is away fail at once. Every call has a deadline.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

# A child started while a channel lives must not run gRPC's fork handlers: they abort it at random.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from cri_api.v1 import api_pb2 as cri
from google.protobuf import empty_pb2

from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.reasons import describe
from askos.model.errors import AskosError, RuntimeFailedError, UnavailableError

NAMESPACE = "k8s.io"
LIST_S = 10.0
"""For calls that only look, in seconds."""
_MESSAGE_LIMIT = 64 << 20
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
    ("grpc.max_send_message_length", _MESSAGE_LIMIT),
    # Go's servers refuse the escaped socket path that gRPC would send as authority.
    ("grpc.default_authority", "localhost"),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
]
_IMAGE_CALLS = {"ListImages", "ImageStatus", "PullImage", "RemoveImage", "ImageFsInfo"}
_ENDED = "ttrpc: closed"
_MEETS_ENDS = {
    "StopContainer",
    "StopPodSandbox",
    "RemovePodSandbox",
    "RemoveContainer",
    "tasks.v1.Tasks/Get",
    "tasks.v1.Tasks/Kill",
    "tasks.v1.Tasks/ListPids",
    "tasks.v1.Tasks/Pause",
    "tasks.v1.Tasks/Resume",
}
"""Calls during which a process may end: containerd then closes its connection to the shim under them. What they are
told when they ask again is how things are."""
_ASKED_AGAIN = 3
_ENDED_S = 0.1
_EMPTY = empty_pb2.Empty
_RESPONSES: dict[str, Any] = {
    "tasks.v1.Tasks/Get": api.GetTaskResponse,
    "tasks.v1.Tasks/List": api.ListTasksResponse,
    "tasks.v1.Tasks/Start": api.StartResponse,
    "tasks.v1.Tasks/Kill": _EMPTY,
    "tasks.v1.Tasks/Delete": api.DeleteResponse,
    "tasks.v1.Tasks/DeleteProcess": api.DeleteResponse,
    "tasks.v1.Tasks/Exec": _EMPTY,
    "tasks.v1.Tasks/ResizePty": _EMPTY,
    "tasks.v1.Tasks/CloseIO": _EMPTY,
    "tasks.v1.Tasks/Pause": _EMPTY,
    "tasks.v1.Tasks/Resume": _EMPTY,
    "tasks.v1.Tasks/ListPids": api.ListPidsResponse,
    "tasks.v1.Tasks/Wait": api.WaitResponse,
    "containers.v1.Containers/Get": api.GetContainerResponse,
    "containers.v1.Containers/List": api.ListContainersResponse,
    "containers.v1.Containers/Delete": _EMPTY,
    "content.v1.Content/Info": api.InfoResponse,
    "content.v1.Content/Update": api.InfoResponse,
    "content.v1.Content/ListStatuses": api.ListStatusesResponse,
    "content.v1.Content/Abort": _EMPTY,
    "content.v1.Content/Write": api.WriteContentResponse,
    "content.v1.Content/Read": api.ReadContentResponse,
    "diff.v1.Diff/Diff": api.DiffResponse,
    "images.v1.Images/Create": api.ImageResponse,
    "images.v1.Images/Update": api.ImageResponse,
    "images.v1.Images/Get": api.ImageResponse,
    "images.v1.Images/Delete": _EMPTY,
    "leases.v1.Leases/Create": _EMPTY,
    "leases.v1.Leases/Delete": _EMPTY,
    "snapshots.v1.Snapshots/Mounts": api.MountsResponse,
    "snapshots.v1.Snapshots/Remove": _EMPTY,
    "snapshots.v1.Snapshots/View": api.ViewSnapshotResponse,
    "snapshots.v1.Snapshots/Stat": api.StatSnapshotResponse,
    "snapshots.v1.Snapshots/List": api.ListSnapshotsResponse,
    "events.v1.Events/Subscribe": api.Envelope,
}


class RpcError(Exception):
    """A call failed. `code` is gRPC's word in lower case ("not_found"), `text` the runtime's own message."""

    def __init__(self, method: str, code: str, text: str) -> None:
        super().__init__(f"{method}: {code}: {text}")
        self.method = method
        self.code = code
        self.text = text

    @property
    def not_found(self) -> bool:
        """Whether the thing that the call was for does not exist."""
        return self.code == "not_found"

    @property
    def away(self) -> bool:
        """Whether containerd itself does not answer (it is down, or not ready yet)."""
        return self.code == "unavailable" or "server is not initialized yet" in self.text


def failed(error: RpcError, what: str) -> AskosError:
    """The error to raise to callers of the port; `what` could not be done ("start the container")."""
    if error.away:
        return UnavailableError(f"Could not {what}: containerd does not answer. It is tried again.")
    if error.code == "deadline_exceeded":
        return RuntimeFailedError(f"Could not {what}: containerd did not finish in time. It is tried again.")
    reason, retryable = describe(error.text)
    return RuntimeFailedError(f"Could not {what}: {reason}", retryable=retryable)


class Client:
    """A connection to one containerd."""

    def __init__(self, socket: Path, namespace: str = NAMESPACE) -> None:
        self.socket = socket
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=_OPTIONS)
        self._metadata = (("containerd-namespace", namespace),)
        self._methods: dict[str, Any] = {}

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        await self._channel.close()

    async def cri(self, method: str, request: Any, timeout_s: float) -> Any:
        """Call a method of CRI's RuntimeService or ImageService. Raises RpcError."""
        call = self._methods.get(method)
        if call is None:
            service = "ImageService" if method in _IMAGE_CALLS else "RuntimeService"
            call = self._methods[method] = self._channel.unary_unary(
                f"/runtime.v1.{service}/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=getattr(cri, f"{method}Response").FromString,
            )
        return await _asked(method, call, request, timeout=timeout_s)

    async def call(self, method: str, request: Any, timeout_s: float, lease: str | None = None) -> Any:
        """Call a unary method of containerd's own API, such as "tasks.v1.Tasks/Kill". Raises RpcError."""
        call = self._methods.get(method)
        if call is None:
            call = self._methods[method] = self._channel.unary_unary(
                f"/containerd.services.{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=_RESPONSES[method].FromString,
            )
        return await _asked(method, call, request, timeout=timeout_s, metadata=self._with(lease))

    async def stream(self, method: str, request: Any, timeout_s: float | None) -> AsyncIterator[Any]:
        """The answers of a method that streams them. Raises RpcError."""
        call = self._channel.unary_stream(
            f"/containerd.services.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=_RESPONSES[method].FromString,
        )(request, timeout=timeout_s, metadata=self._metadata)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise _rpc_error(method, error) from None
        finally:
            call.cancel()

    def dialogue(self, method: str, request_type: Any, timeout_s: float, lease: str | None = None) -> Any:
        """A call with streams both ways (gRPC's own object: write, read, done_writing). See `rpc_error`."""
        return self._channel.stream_stream(
            f"/containerd.services.{method}",
            request_serializer=request_type.SerializeToString,
            response_deserializer=_RESPONSES[method].FromString,
        )(timeout=timeout_s, metadata=self._with(lease))

    def _with(self, lease: str | None) -> tuple[tuple[str, str], ...]:
        return self._metadata if lease is None else (*self._metadata, ("containerd-lease", lease))


async def _asked(method: str, call: Any, request: Any, **how: Any) -> Any:
    left = _ASKED_AGAIN if method in _MEETS_ENDS else 0
    while True:
        try:
            return await call(request, **how)
        except grpc.aio.AioRpcError as error:
            if left == 0 or _ENDED not in (error.details() or ""):
                raise _rpc_error(method, error) from None
        left -= 1
        await asyncio.sleep(_ENDED_S)


def _rpc_error(method: str, error: Any) -> RpcError:
    return RpcError(method, error.code().name.lower(), error.details() or "")


rpc_error = _rpc_error
"""Turns what a dialogue raises (grpc.aio.AioRpcError) into RpcError; takes (method, error)."""
