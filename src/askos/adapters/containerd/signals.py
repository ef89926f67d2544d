"""Signals by the names that images and people give them."""

from __future__ import annotations

import re
import signal

from askos.model.errors import InvalidError

_LAST = 64
_REALTIME = {"RTMIN": signal.SIGRTMIN, "RTMAX": signal.SIGRTMAX}
_OFFSET = re.compile(r"(RTMIN|RTMAX)(?:([+-])(\d{1,2}))?")


def number(name: str) -> int:
    """The number of a signal: "SIGQUIT", "QUIT", "3", "SIGRTMIN+1". Raises InvalidError for anything else."""
    text = name.strip().upper()
    found = 0
    if text.isascii() and text.isdigit():
        found = int(text)
    elif match := _OFFSET.fullmatch(text.removeprefix("SIG")):
        offset = int(match[3] or 0)
        found = _REALTIME[match[1]] + (-offset if match[2] == "-" else offset)
        if not signal.SIGRTMIN <= found <= signal.SIGRTMAX:
            found = 0
    else:
        known = signal.Signals.__members__.get("SIG" + text.removeprefix("SIG"))
        found = known.value if known is not None else 0
    if not 1 <= found <= _LAST:
        raise InvalidError(f"{name!r} is not a signal. Give a name such as SIGTERM, or a number from 1 to {_LAST}.")
    return found
