"""The logs of a pod's containers: which instance is meant, and reading its file from any line on.

Each instance of a container (the first, and one for each restart) has a file of its own, `<container>/<attempt>.log`
in the capsule's log folder, in the format that `logs` describes.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from askos.loops.logs import SHORTEST, Record, Selection, Send, join, parse, resume, time_us
from askos.model.errors import InvalidError
from askos.model.pods import PodContainerReport
from askos.ports import runtime as rt

_NAME = re.compile(r"(\d+)\.log")
_BLOCK = 64 * 1024
_BATCH = 256 * 1024
_STEP = 5000
"""Lines that are looked at in one go."""
_LOOK_BACK = 1 << 20
"""How far before the first line of a tail the begin of a long line is looked for, in bytes."""
_WAITING = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


# -- which instance -----------------------------------------------------------------------------------------------


class Instance(NamedTuple):
    """One life of a container. `container_id` None: nothing is left of it but its log."""

    attempt: int
    container_id: str | None
    running: bool


def instance(
    pod: str,
    name: str,
    containers: list[rt.Container],
    report: PodContainerReport | None,
    folder: Path,
    *,
    previous: bool,
) -> Instance:
    """The instance whose log is meant: the present one, or the last one that has ended before it.

    `containers`: those of the pod on the host. InvalidError, in the words that Kubernetes' users know, when there is
    none (yet).
    """
    begun = {
        c.attempt: Instance(c.attempt, c.id, c.state == "running")
        for c in containers
        if c.name == name and c.state != "created"
    }
    for attempt in _attempts(folder):
        if not any(c.name == name and c.attempt == attempt for c in containers):
            begun.setdefault(attempt, Instance(attempt, None, running=False))
    newest = begun[max(begun)] if begun else None
    if previous:
        # While the next one is awaited (CrashLoopBackOff), the last one to have ended is the newest there is.
        waits = report is not None and report.state == "waiting"
        ended = [i for i in begun.values() if not i.running and (i is not newest or waits)]
        if not ended:
            raise InvalidError(f'previous terminated container "{name}" in pod "{pod}" not found')
        return max(ended, key=lambda i: i.attempt)
    if newest is None:
        reason = (report.reason if report is not None else "") or "ContainerCreating"
        raise InvalidError(f'container "{name}" in pod "{pod}" is waiting to start: {_WAITING.get(reason, reason)}')
    return newest


def _attempts(folder: Path) -> list[int]:
    """The attempts that have a log."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [int(found[1]) for name in names if (found := _NAME.fullmatch(name))]


# -- reading ------------------------------------------------------------------------------------------------------


class InstanceLog:
    """Reads the log of one instance; remembers where it stopped, to go on from there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._skip: set[int] = set()
        """Offsets of records that belong to lines before a tail, though they lie within it."""
        self._begun: set[int] = set()
        """Channels whose last record has not ended its line."""

    async def history(self, selection: Selection, send: Send) -> None:
        """Send what is there now."""
        if selection.tail is not None or selection.since_us is not None:
            await self._seek(selection)
        await self.more(selection, send)

    async def more(self, selection: Selection, send: Send) -> None:
        """Send what has come since the last call."""
        while self._grown():
            before = self._offset
            for channel, data in await asyncio.to_thread(self._batch, selection):
                await send(channel, data)
            if self._offset == before:
                return

    def _grown(self) -> bool:
        try:
            return self._path.stat().st_size > self._offset
        except OSError:
            return False

    async def _seek(self, selection: Selection) -> None:
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            if selection.since_us is not None:
                self._offset = await asyncio.to_thread(since_start, file, selection.since_us)
            size = os.fstat(file.fileno()).st_size
            if selection.tail is None or selection.tail * SHORTEST > size:
                return  # every line there can be
            search = _search_tail(file, selection)
            found = None
            while found is None:
                # A bit at a time: others want to read logs as well, and this one may leave.
                found = await asyncio.to_thread(next, search)
            start, self._skip = found
            self._offset = max(self._offset, start)

    def _batch(self, selection: Selection) -> list[tuple[int, bytes]]:
        records: list[Record] = []
        size = 0
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            self._offset = resume(file, self._offset)
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                at, self._offset = self._offset, self._offset + len(line)
                size += len(line)
                record = parse(line[:-1], selection, self._begun) if at not in self._skip else None
                if record is not None:
                    (self._begun.discard if record.ends_line else self._begun.add)(record.channel)
                    records.append(record)
                if size >= _BATCH:
                    break
        return join(records)


def tail_start(file: BinaryIO, selection: Selection) -> tuple[int, set[int]]:
    """Where the last `selection.tail` lines begin, found from the end; and the offsets of records behind that which
    belong to earlier lines (the two streams' long lines may be interleaved)."""
    return next(found for found in _search_tail(file, selection) if found is not None)


def _search_tail(file: BinaryIO, selection: Selection) -> Iterator[tuple[int, set[int]] | None]:
    """As `tail_start`, with a None after every few lines that were looked at."""
    wanted = selection.tail or 0
    lines = 0
    start = end = -1
    skip: set[int] = set()
    wants: dict[int, bool] = {}
    """By channel: whether records before the present place may belong to a wanted line."""
    for number, (offset, line) in enumerate(_backwards(file), 1):
        if number % _STEP == 0:
            yield None
        if end < 0:
            start = end = offset + len(line) + 1
        if wanted == 0 or _older(line, selection.since_us):
            break
        record = parse(line, selection)
        if record is None:
            continue
        if record.ends_line or record.channel not in wants:
            wants[record.channel] = lines < wanted
            lines += 1
        if wants[record.channel]:
            start = offset
        else:
            skip.add(offset)
        if lines >= wanted and (not any(wants.values()) or start - offset > _LOOK_BACK):
            break
    yield max(start, 0), {offset for offset in skip if offset > start}


def since_start(file: BinaryIO, since_us: int) -> int:
    """A place before which every record is older, found by halving: records are written as time goes by. A little
    too early, as those of the two streams may pass each other."""
    begin = low = resume(file, 0)
    high = file.seek(0, os.SEEK_END)
    while high - low > _BLOCK:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline(_BLOCK)
        at, stamp = file.tell(), file.readline(_BLOCK).split(b" ", 1)[0]
        try:
            older = at < high and time_us(stamp) < since_us
        except ValueError:
            older = False
        if older:
            low = at
        else:
            high = middle
    if low - _BLOCK <= begin:
        return begin
    file.seek(low - _BLOCK)
    file.readline(_BLOCK)
    return file.tell()


def _older(line: bytes, since_us: int | None) -> bool:
    if since_us is None:
        return False
    try:
        return time_us(line.split(b" ", 1)[0]) < since_us
    except ValueError:
        return False


def _backwards(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(offset, line) from the last complete line to the first, without the newlines."""
    first_line = resume(file, 0)
    at = file.seek(0, os.SEEK_END)
    rest = b""
    """What follows the place `at`, up to the line that was given last."""
    complete = False
    while at > first_line:
        size = min(_BLOCK, at - first_line)
        at -= size
        file.seek(at)
        first, *lines = (file.read(size) + rest).split(b"\n")
        offset = at + len(first) + 1 + sum(len(line) + 1 for line in lines)
        for line in reversed(lines):
            offset -= len(line) + 1
            if complete:
                yield offset, line
            complete = True  # what stands behind the last newline is still being written
        rest = first
    if complete:
        yield first_line, rest
