"""Kubernetes' v5.channel.k8s.io framing: the first byte of each binary message names its channel.

Pure functions, so that the server's tests may use them too.
"""

from __future__ import annotations

import json
from typing import NamedTuple

SUBPROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


class Result(NamedTuple):
    """How a remote process ended. `failure` says why it could not be run; else `exit_code` is its own."""

    exit_code: int
    failure: str = ""


def frame(channel: int, data: bytes) -> bytes:
    """A message for a channel."""
    return bytes([channel]) + data


def half_close(channel: int) -> bytes:
    """The message that ends a channel."""
    return bytes([CLOSE, channel])


def resize(width: int, height: int) -> bytes:
    """The message that changes the terminal's size, in characters."""
    return frame(RESIZE, json.dumps({"Width": width, "Height": height}).encode())


def result(data: bytes) -> Result:
    """The v1.Status on the error channel. A status that cannot be read is a failure."""
    try:
        status = json.loads(data)
        if status.get("status") == "Success":
            return Result(0)
        if status.get("reason") == "NonZeroExitCode":
            causes = (status.get("details") or {}).get("causes") or []
            for cause in causes:
                if cause.get("reason") == "ExitCode":
                    return Result(int(cause["message"]))
        return Result(start_failure(str(status.get("message"))), str(status.get("message") or "no reason given"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Result(125, "the server's answer about its end cannot be read")


def start_failure(reason: str) -> int:
    """The shell's exit code for a program that could not be started: 127 not found, 126 not allowed, else
    125."""
    low = reason.lower()
    if "not found" in low or "no such file" in low:
        return 127
    return 126 if "permission denied" in low or "exec format" in low or "not executable" in low else 125
