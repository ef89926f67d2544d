"""The user's terminal: its size, raw mode, and one line of passing notes."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator


def size() -> tuple[int, int]:
    """(width, height) in characters; 80 × 24 when nothing is known."""
    for descriptor in (1, 0, 2):
        try:
            found = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if found.columns and found.lines:
            return found.columns, found.lines
    return 80, 24


@contextlib.contextmanager
def raw(descriptor: int = 0) -> Iterator[None]:
    """Every key goes to the remote process; the terminal is put right on every way out."""
    import atexit
    import termios
    import tty

    before = termios.tcgetattr(descriptor)

    def restore() -> None:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

    # For exits that do not unwind the stack, such as sys.exit in another thread's handler.
    atexit.register(restore)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        restore()
        atexit.unregister(restore)


class Note:
    """One line on stderr that says what is waited for, and disappears; silent where nobody watches."""

    PATIENCE_S = 0.7

    def __init__(self) -> None:
        self._shown = False
        self._live = sys.stderr.isatty()
        self._since = time.monotonic()

    def show(self, text: str) -> None:
        """Show or replace the line, once the wait has become noticeable."""
        if self._live and time.monotonic() - self._since > self.PATIENCE_S:
            sys.stderr.write(f"\r\x1b[2K{text[: size()[0] - 1]}")
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._shown = False
