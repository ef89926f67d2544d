"""The end of a container's log, for a termination message when the container has written none."""

from __future__ import annotations

from pathlib import Path

LINES = 80
BYTES = 2048
_READ = 64 << 10


def tail(path: Path) -> bytes:
    """The last lines of a log in CRI's format: at most 80, and at most 2048 bytes. Empty when there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            start = max(0, file.tell() - _READ)
            file.seek(start)
            data = file.read()
    except OSError:
        return b""
    records = data.split(b"\n")
    if start:
        records = records[1:]  # begun before what was read
    text = bytearray()
    for record in records:
        parts = record.split(b" ", 3)
        if len(parts) == 4:
            text += parts[3] + (b"" if parts[2].startswith(b"P") else b"\n")
    lines = bytes(text).splitlines(keepends=True)
    return b"".join(lines[-LINES:])[-BYTES:]
