"""Other people's clients: run fast (see client_server.py), and a record of what was run of them."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from zunclient.v1 import shell as zun_shell

Test = TypeVar("Test", bound=Callable[..., Any])


class Clients:
    """Runs commands of `openstack` and `zun`, one at a time."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def run(
        self, program: str, argv: tuple[str, ...], *, env: Mapping[str, str], given: str, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """One command, as `subprocess.run(..., capture_output=True, text=True)` does it. TimeoutExpired after
        `timeout` seconds."""
        self.ran.append((program, *argv))
        with self._lock:
            process, folder = self._started(env)
            files = [folder / name for name in ("in", "out", "err")]
            for file, text in zip(files, (given, "", ""), strict=True):
                file.write_text(text)
            assert process.stdin is not None
            asked = {"program": program, "argv": argv, "env": dict(env), "cwd": "/", "files": [str(f) for f in files]}
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            answer = self._line(timeout)
            if answer is None:
                self._end()
                raise subprocess.TimeoutExpired([program, *argv], timeout, files[1].read_text(), files[2].read_text())
            out, err = (file.read_text(errors="replace") for file in files[1:])
            return subprocess.CompletedProcess([program, *argv], int(answer), out, err)

    def close(self) -> None:
        with self._lock:
            self._end()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def _started(self, env: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], Path]:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="askos-acc-clients-"))
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("client_server.py")],
                env={"PATH": env["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(self._folder)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd="/",
                start_new_session=True,
            )
            assert self._line(60) == "ready", "the clients cannot be imported"
        return self._process, self._folder

    def _line(self, timeout: float) -> str | None:
        assert self._process is not None and self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        return self._process.stdout.readline().decode().strip() if ready else None

    def _end(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        self._process.wait(10)
        self._process = None


CLIENTS = Clients()
"""One for all tests of this process; it lives until the process ends."""
atexit.register(CLIENTS.close)


def subcommands(program: str) -> frozenset[str]:
    """Everything that the installed python-zunclient adds to `openstack`, or has as `zun`."""
    if program == "openstack":
        points = metadata.entry_points(group="openstack.container.v1")
        return frozenset(point.name.replace("_", " ") for point in points)
    names = {name for module in zun_shell.COMMAND_MODULES for name in dir(module) if name.startswith("do_")}
    return frozenset(name.removeprefix("do_").replace("_", "-") for name in names)


def runs(program: str, *names: str) -> Callable[[Test], Test]:
    """Mark a test as the scenario of these subcommands. It fails when it does not run them after all."""

    def mark(test: Test) -> Test:
        test.__dict__.setdefault("scenario_of", set()).update((program, name) for name in names)
        return test

    return mark


def not_run(wanted: Iterable[tuple[str, str]], ran: Iterable[tuple[str, ...]]) -> list[str]:
    """Those of the (program, subcommand) that are in no command line."""
    missing = set(wanted)
    known = {program: subcommands(program) for program in {program for program, _ in missing}}
    for program, *argv in ran:
        # The first words that are a name, as many as there are: `quota class get` and not `quota`.
        spans = [(start, -end) for start in range(len(argv)) for end in range(start + 1, min(start + 5, len(argv)) + 1)]
        names = (" ".join(argv[start:-end]) for start, end in sorted(spans))
        missing.discard((program, next((name for name in names if name in known.get(program, ())), "")))
    return sorted(f"{program} {name}" for program, name in missing)
