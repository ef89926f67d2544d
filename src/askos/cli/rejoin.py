"""Streams that go on for long outlive a restart of the server: they are asked for again, for a while."""

from __future__ import annotations

import time

from askos.cli import base
from askos.client.errors import ApiError, ClientError, ConnectionBrokenError, NoAnswerError

WITHIN_S = 30.0
"""How long a server may be away."""
FIRST_S, LAST_S = 0.5, 5.0
AWAY = (502, 503, 504)
"""What proxies, and servers whose hosts are not back yet, answer meanwhile."""


class Rejoin:
    """The tries to reach a server again. `tell`: say on stderr that it is away, and that it is back."""

    def __init__(self, *, tell: bool) -> None:
        self._tell = tell
        self._deadline = 0.0
        self._pause = FIRST_S

    def works(self) -> None:
        """The stream is there."""
        if self._tell and self._deadline:
            base.complain("the server is back")
        self._deadline, self._pause = 0.0, FIRST_S

    def after(self, error: ClientError) -> None:
        """Waits before the next try. Raises the error when it is of another kind, or has lasted for too long."""
        broken = isinstance(error, ConnectionBrokenError | NoAnswerError)
        if not broken and not (self._deadline and isinstance(error, ApiError) and error.status in AWAY):
            raise error
        if self._tell and not self._deadline:
            base.complain(f"the connection broke; trying again for {WITHIN_S:g} s")
        self._deadline = self._deadline or time.monotonic() + WITHIN_S
        if time.monotonic() > self._deadline:
            raise error
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, LAST_S)
