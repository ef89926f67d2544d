"""A command in a real pseudo-terminal, typed at like a person does."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from types import TracebackType

from tests.acceptance.client_fixtures import CLIENTS


class Terminal:
    """Runs a command with a terminal of its own; `seen` is all that was on the screen."""

    def __init__(self, *argv: str, env: Mapping[str, str], rows: int = 24, columns: int = 80) -> None:
        CLIENTS.ran.append(argv)
        self._master, slave = pty.openpty()
        self.resize(rows, columns, tell=False)
        self._before = termios.tcgetattr(slave)
        self._slave = slave
        wanted = {k: v for k, v in env.items() if k not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
        self.process = subprocess.Popen(
            # A session whose terminal this is, so that Ctrl-C and resizing become signals.
            ["setsid", "--ctty", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=wanted,
            cwd="/",
        )
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self._master)
        os.close(self._slave)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int, *, tell: bool = True) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def expect_size(self, rows: int, columns: int) -> None:
        """Wait in a shell until its terminal has a size, which takes another way than what is typed."""
        # In two parts, since what is typed is on the screen, too.
        self.type(f"until [ \"$(stty size)\" = '{rows} {columns}' ]; do sleep 0.1; done; echo si''zed\n")
        self.expect("sized")

    def expect(self, text: str, timeout_s: float = 60) -> str:
        """Wait until `text` is on the screen; returns what came before, and forgets both."""
        deadline = time.monotonic() + timeout_s
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} is not on the screen but {self.seen!r}"
            self._read(left)
        before, _, self.seen = self.seen.partition(text)
        return before

    def end(self, timeout_s: float = 60) -> int:
        """Wait for the command's end: its exit code. The terminal must be as it was."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end; on the screen: {self.seen!r}"
            self._read(0.1)
        while self._read(0):
            pass
        assert termios.tcgetattr(self._slave) == self._before, "the terminal is not as it was before"
        return self.process.returncode

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        if ready:
            self.seen += os.read(self._master, 65536).decode(errors="replace")
        return bool(ready)
