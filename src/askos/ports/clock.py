"""Time as an argument."""

from __future__ import annotations

import time


def now_us() -> int:
    """Wall clock in microseconds since the epoch, UTC."""
    return time.time_ns() // 1000
