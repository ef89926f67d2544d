"""Between the port's frames and errors and the wire's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from askos.adapters.link.proto import askos_link_pb2 as pb
from askos.model import errors
from askos.ports.calls import Frame

CHUNK = 256 * 1024
"""Largest piece of data in one frame, in bytes; gRPC's own limit is 4 MiB a message."""

MAX_MESSAGE = 16 << 20
"""Largest message that either end takes, in bytes."""
BATCH = 4 << 20
"""Bodies are put together into one message up to so many bytes. One alone may be larger: an assignment has at most
1 MiB of content, which JSON makes up to six of."""

_KINDS: dict[str, type[errors.AskosError]] = {
    "invalid": errors.InvalidError,
    "not-found": errors.NotFoundError,
    "conflict": errors.ConflictError,
    "forbidden": errors.ForbiddenError,
    "unavailable": errors.UnavailableError,
}


def batches(bodies: Iterable[bytes], most: int = 1 << 30) -> Iterator[list[bytes]]:
    """Bodies in lists of at most `most`, each of which fits into one message."""
    batch: list[bytes] = []
    size = 0
    for body in bodies:
        if batch and (size + len(body) > BATCH or len(batch) >= most):
            yield batch
            batch, size = [], 0
        batch.append(body)
        size += len(body)
    if batch:
        yield batch


def to_wire(frame: Frame) -> pb.CallFrame:
    """A frame as a message."""
    if frame.control is not None:
        return pb.CallFrame(control_json=msgspec.json.encode(frame.control))
    return pb.CallFrame(data=pb.Data(channel=frame.channel, bytes=frame.data, eof=frame.eof))


def from_wire(message: pb.CallFrame) -> Frame:
    """A data or control message as a frame."""
    if message.WhichOneof("body") == "control_json":
        return Frame(control=msgspec.json.decode(message.control_json, type=dict[str, Any]))
    return Frame(message.data.channel, message.data.bytes, message.data.eof)


def failure(error: BaseException) -> pb.CallFrame:
    """What a failed call says. Errors that are not ours tell nothing of the inside."""
    for kind, cls in _KINDS.items():
        if isinstance(error, cls):
            return pb.CallFrame(failure=pb.Failure(kind=kind, message=str(error)))
    if isinstance(error, errors.RuntimeFailedError):
        kind = "runtime-retryable" if error.retryable else "runtime-final"
        return pb.CallFrame(failure=pb.Failure(kind=kind, message=str(error)))
    return pb.CallFrame(failure=pb.Failure(kind="internal", message="The host's agent failed; its log tells why."))


def raised(message: pb.Failure) -> errors.AskosError:
    """The error that a failure stands for."""
    if message.kind in _KINDS:
        return _KINDS[message.kind](message.message)
    return errors.RuntimeFailedError(message.message, retryable=message.kind != "runtime-final")
