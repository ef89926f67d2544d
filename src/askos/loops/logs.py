"""Reading container logs in the CRI format, over all runs and attempts of a capsule.

A line is `<RFC 3339 time> <stdout|stderr> <F|P> <text>`; P says that the line goes on in the next record. Files are
named `<run>-<attempt>.log` and are read in that order, as one log.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Set
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

_NAME = re.compile(r"^(\d+)-(\d+)\.log$")
_CHUNK = 256 * 1024
SHORTEST = 30
"""Bytes that the shortest record has at least."""
_CHANNELS = {b"stdout": 1, b"stderr": 2}

Send = Callable[[int, bytes], Awaitable[None]]
"""Takes (1 stdout | 2 stderr, bytes)."""


class Selection(NamedTuple):
    """Which part of a log. `tail`: the last so many lines, None for all. `since_us`: microseconds since the epoch."""

    stdout: bool = True
    stderr: bool = True
    tail: int | None = None
    since_us: int | None = None
    timestamps: bool = False


class Record(NamedTuple):
    """One record of a line; `ends_line`: the line does not go on in the next one."""

    channel: int
    data: bytes
    ends_line: bool


def time_us(stamp: bytes) -> int:
    """Microseconds of an RFC 3339 time with nanoseconds, which `fromisoformat` does not take whole."""
    text = stamp.decode()
    head, _, rest = text.partition(".")
    digits = re.match(r"\d*", rest)
    fraction = digits.group() if digits else ""
    zone = rest[len(fraction) :] if rest else ""
    base = datetime.fromisoformat((head if not zone else head + zone).replace("Z", "+00:00"))
    return int(base.timestamp()) * 1_000_000 + int((fraction + "000000")[:6])


def nine_digits(stamp: bytes) -> bytes:
    """A time of a log with nine digits behind the point, as docker and kubectl show it; containerd leaves zeros at the
    end out, so that columns would not stand below each other."""
    found = re.fullmatch(rb"([^.Z+]*?)(?:\.(\d*))?(Z|[+-]\d\d:\d\d)", stamp)
    return stamp if found is None else b"%s.%s%s" % (found[1], (found[2] or b"").ljust(9, b"0"), found[3])


def parse(line: bytes, selection: Selection, begun: Set[int] = frozenset()) -> Record | None:
    """One line of a file, or None when it is not selected. `begun`: the channels whose line goes on in this record."""
    parts = line.split(b" ", 3)
    if len(parts) < 4:
        return None
    stamp, stream, tag, text = parts
    channel = _CHANNELS.get(stream, 0)
    if not channel:
        return None
    if (channel == 1 and not selection.stdout) or (channel == 2 and not selection.stderr):
        return None
    if selection.since_us is not None:
        try:
            if time_us(stamp) < selection.since_us:
                return None
        except ValueError:
            return None
    ends = not tag.startswith(b"P")
    prefix = nine_digits(stamp) + b" " if selection.timestamps and channel not in begun else b""
    return Record(channel, prefix + text + (b"\n" if ends else b""), ends)


def resume(file: BinaryIO, offset: int) -> int:
    """Where reading goes on: at `offset`, or with the first whole line behind the hole that a log gets at its begin
    when it has become too long."""
    try:
        there = file.seek(offset, os.SEEK_DATA)
    except (OSError, ValueError):
        return offset  # nothing is behind it, or holes cannot be asked for here
    if there == offset:
        return offset
    file.readline()
    return file.tell()


class Reader:
    """Reads one capsule's log; remembers where it stopped, to go on from there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[str, int] = {}
        self._begun: set[int] = set()
        """Channels whose last record has not ended its line."""

    async def history(self, selection: Selection, send: Send) -> None:
        """Send what is there now."""
        if selection.tail is None or selection.tail * SHORTEST > sum(p.stat().st_size for p in self._files()):
            # Every line there can be: sent as it is read, never gathered.
            await self.more(selection, send)
            return
        for channel, data in await asyncio.to_thread(self._tail, selection):
            await send(channel, data)

    async def more(self, selection: Selection, send: Send) -> None:
        """Send what has come since the last call."""
        records = self._records(selection)
        while True:
            batch = await asyncio.to_thread(take, records)
            if not batch:
                return
            for channel, data in batch:
                await send(channel, data)

    def _tail(self, selection: Selection) -> list[tuple[int, bytes]]:
        wanted = selection.tail or 0
        lines: deque[list[Record]] = deque(maxlen=wanted) if wanted else deque(maxlen=1)
        begun: dict[int, list[Record]] = {}
        for record in self._records(selection):
            line = begun.setdefault(record.channel, [])
            line.append(record)
            if record.ends_line:
                lines.append(begun.pop(record.channel))
        lines.extend(begun.values())
        if not wanted:
            return []
        return join(record for group in lines for record in group)

    def _files(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        found = [(int(m[1]), int(m[2]), p) for p in self._folder.iterdir() if (m := _NAME.match(p.name))]
        return [path for _, _, path in sorted(found)]

    def _records(self, selection: Selection) -> Iterator[Record]:
        for path in self._files():
            offset = self._offsets.get(path.name, 0)
            try:
                file = path.open("rb")
            except FileNotFoundError:
                continue
            with file:
                offset = resume(file, offset)
                file.seek(offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # still being written
                    offset += len(line)
                    self._offsets[path.name] = offset
                    record = parse(line[:-1], selection, self._begun)
                    if record is not None:
                        (self._begun.discard if record.ends_line else self._begun.add)(record.channel)
                        yield record


def take(records: Iterator[Record]) -> list[tuple[int, bytes]]:
    """The next batch of about `_CHUNK` bytes."""
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.data)
        if size >= _CHUNK:
            break
    return join(batch)


def join(records: Iterator[Record] | list[Record]) -> list[tuple[int, bytes]]:
    """Neighbouring records of one stream as one piece."""
    joined: list[tuple[int, bytearray]] = []
    for record in records:
        if joined and joined[-1][0] == record.channel:
            joined[-1][1].extend(record.data)
        else:
            joined.append((record.channel, bytearray(record.data)))
    return [(channel, bytes(data)) for channel, data in joined]
