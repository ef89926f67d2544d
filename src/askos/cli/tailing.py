"""The end of a log, and what is written from then on, over restarts of the server.

What is shown is known by its times: lines are asked for with them, also when the user does not want to see them, and
after a break those that were shown are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from askos.cli.rejoin import Rejoin
from askos.client.errors import ClientError
from askos.client.native import STDERR, STDOUT, Native

SECOND_NS = 1_000_000_000
_EVERY = 1 << 62


class _Place(NamedTuple):
    """Up to where a channel is known: `lines` lines of the time `at_ns`, and of the last of them `size` bytes (None:
    all of it)."""

    at_ns: int
    lines: int
    size: int | None = None


def follow(
    native: Native, ident: str, *, tail: str, timestamps: bool, since_s: int | None
) -> Iterator[tuple[int, bytes]]:
    """(STDOUT or STDERR, data) of the last `tail` lines, and of what comes, until the container has stopped. A server
    that goes away is asked again for a while: nothing is lost or told twice."""
    rejoin = Rejoin(tell=True)
    channels = {each: _Channel(timestamps=timestamps) for each in (STDOUT, STDERR)}
    probed, newest = False, None
    while True:
        try:
            if not probed:
                newest, probed = _newest(native, ident, since_s), True
            first = min((c.first_ns for c in channels.values() if c.first_ns is not None), default=None)
            for each in channels.values():
                each.anew()
            lines, since = "all", since_s
            if first is not None:
                since = _resumed(channels, _Place(first, 0), since_s)
            elif newest is not None and tail == "0":
                since = _resumed(channels, _Place(newest, _EVERY), since_s)
            elif newest is not None:
                lines = tail
            # Else there was nothing at all in the beginning, and all that there is now is new.
            for channel, data in native.logs(ident, follow=True, tail=lines, timestamps=True, since_s=since):
                rejoin.works()
                if shown := channels[channel].taken(data):
                    yield channel, shown
            return
        except ClientError as error:
            rejoin.after(error)


def _newest(native: Native, ident: str, since_s: int | None) -> int | None:
    """The time of the last line that there is, in nanoseconds."""
    pieces: dict[int, bytes] = {}
    for channel, data in native.logs(ident, tail="1", timestamps=True, since_s=since_s):
        pieces[channel] = pieces.get(channel, b"") + data
    stamps = [line.partition(b" ")[0] for text in pieces.values() for line in text.split(b"\n") if line]
    return max(map(time_ns, stamps), default=None)


def _resumed(channels: dict[int, _Channel], floor: _Place, since_s: int | None) -> int:
    """From when on, in seconds, a log is to be asked for again; each channel knows what to leave out of it."""
    oldest = min(channel.again(floor).at_ns for channel in channels.values())
    return max(since_s or 0, oldest // SECOND_NS)


class _Channel:
    """One channel's text, with the time in front of each line."""

    def __init__(self, *, timestamps: bool) -> None:
        self.first_ns: int | None = None
        """The time of the first line shown."""
        self._timestamps = timestamps
        self._shown: _Place | None = None
        self._known: _Place | None = None
        """What has been shown before a break, as long as it is being told again."""
        self._met = 0
        self._stamp = b""
        self._in_line = False
        self._leave_out: int | None = 0
        """Bytes of this line that are still to be left out; None: all of it."""

    def anew(self) -> None:
        """The log comes from another place on, where a line begins."""
        self._known, self._met, self._stamp, self._in_line = None, 0, b"", False

    def again(self, floor: _Place) -> _Place:
        """The log comes anew, from the place on that is returned; where nothing was shown, `floor` is known."""
        self.anew()
        self._known = self._shown or floor
        return self._known

    def taken(self, data: bytes) -> bytes:
        """What of the next piece is to be shown."""
        shown = bytearray()
        while data:
            if not self._in_line:
                head, blank, data = data.partition(b" ")
                self._stamp += head
                if blank:
                    self._begin(shown)
                continue
            text, end, data = data.partition(b"\n")
            self._show(text + end, shown)
            if end:
                self._end()
        return bytes(shown)

    def _begin(self, shown: bytearray) -> None:
        stamp, self._stamp, self._in_line = self._stamp, b"", True
        at = time_ns(stamp)
        self._leave_out = 0
        if self._known is not None:
            self._met += at == self._known.at_ns
            if at < self._known.at_ns or (at == self._known.at_ns and self._met < self._known.lines):
                self._leave_out = None
                return
            last, self._known = self._known, None
            if at == last.at_ns and self._met == last.lines:
                self._leave_out = last.size
                return
        self.first_ns = at if self.first_ns is None else self.first_ns
        same = self._shown is not None and self._shown.at_ns == at
        self._shown = _Place(at, self._shown.lines + 1 if self._shown is not None and same else 1, 0)
        if self._timestamps:
            shown += stamp + b" "

    def _show(self, text: bytes, shown: bytearray) -> None:
        if self._leave_out is None:
            return
        more = text[self._leave_out :]
        self._leave_out = max(0, self._leave_out - len(text))
        shown += more
        if self._shown is not None:
            self._shown = self._shown._replace(size=(self._shown.size or 0) + len(more))

    def _end(self) -> None:
        self._in_line = False
        if self._leave_out is not None and self._shown is not None:
            self._shown = self._shown._replace(size=None)


def time_ns(stamp: bytes) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time. ClientError for what is none."""
    parts = re.fullmatch(rb"([0-9T:-]{19})(?:\.([0-9]{1,9}))?([0-9Z:+-]+)", stamp)
    try:
        if parts is None:
            raise ValueError
        whole = datetime.fromisoformat((parts[1] + parts[3]).decode())
    except ValueError:
        raise ClientError("cannot follow the log: it has a line without a time. Leave out -n") from None
    return int(whole.timestamp()) * SECOND_NS + int((parts[2] or b"0").ljust(9, b"0"))
