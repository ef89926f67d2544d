"""Run the suite in several clouds at once and tell what came of it.

`python -m tests.tempest.run --venv FOLDER [--at VERSION]… [--regex WORDS] [--results FILE] [--jobs NUMBER]`
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, NoReturn

from tests.tempest.results import DISABLED, SUITE, Result, count, page, unforeseen
from tests.tempest.sandbox import folder, sandbox, sweep

VERSIONS = ("1.12", "1.40")
JOBS = 3
"""Clouds at once. Most of the time tests only wait, in steps of two seconds; five are no quicker on two cores."""

_LEGACY = "TestContainerLegacy"
_DISABLED = "|".join(sorted({name.rpartition(".")[2] for name in DISABLED}))


class Part(NamedTuple):
    """What one cloud does. `enabled`: only what the suite has disabled."""

    name: str
    version: str
    regex: str
    enabled: bool = False


def parts(versions: Sequence[str], regex: str) -> list[Part]:
    """The long ones first. The two classes of containers share nothing, so each can have a cloud of its own."""
    chosen, enabled = [], []
    for version in versions:
        chosen += [
            Part(f"{version}-newer", version, _both(rf"\.(?!{_LEGACY}\.)Test\w+\.", regex)),
            Part(f"{version}-legacy", version, _both(rf"\.{_LEGACY}\.", regex)),
        ]
        enabled.append(Part(f"{version}-enabled", version, _both(rf"\.(?:{_DISABLED})\b", regex), True))
    return chosen + enabled


def _both(one: str, other: str) -> str:
    """Tests of the suite that both expressions find."""
    return rf"^(?={re.escape(SUITE)}\.)(?=.*(?:{one}))(?=.*(?:{other}))"


def run(chosen: Sequence[Part], venv: Path, logs: Path, jobs: int) -> dict[Part, list[Result]]:
    """What came of each part. Raises SystemExit when one of them broke down."""
    queue, results = list(chosen), dict[Part, list[Result]]()
    running: dict[Part, tuple[subprocess.Popen[str], threading.Thread]] = {}
    with ExitStack() as stack:
        home = stack.enter_context(folder())
        while queue or running:
            while queue and len(running) < jobs:
                part = queue.pop(0)
                process = stack.enter_context(sandbox(_command(part, venv, logs), {**os.environ, "TMPDIR": str(home)}))
                reader = threading.Thread(target=_show, args=(process,), daemon=True)
                reader.start()
                running[part] = process, reader
            time.sleep(0.2)
            for part, (process, reader) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[part]
                reader.join()
                if process.returncode != 0:
                    _stopped.set()
                    raise SystemExit(f"askos: the part {part.name} broke down; its logs are in {logs / part.name}")
                told = json.loads((logs / part.name / "results.json").read_text())
                results[part] = [Result(**each) for each in told]
    return results


def _command(part: Part, venv: Path, logs: Path) -> list[str]:
    where = ["--venv", str(venv), "--logs", str(logs / part.name)]
    what = ["--at", part.version, "--regex", part.regex, *(["--enabled"] if part.enabled else [])]
    return [sys.executable, "-m", "tests.tempest.part", *where, *what]


def _show(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            if not _stopped.is_set():
                print(line, end="", flush=True)


def _stop(number: int, _frame: object) -> NoReturn:
    """Leave through every `finally`, and let nothing interrupt that."""
    _stopped.set()
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


_stopped = threading.Event()
"""What sandboxes say while they are killed is of no use to anybody."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Exit code 0 when no test failed."""
    parser = argparse.ArgumentParser(prog="make tempest")
    parser.add_argument("--venv", type=Path, required=True, help="the environment that has tempest")
    parser.add_argument("--at", action="append", help="lowest microversion; default 1.12 and 1.40")
    parser.add_argument("--regex", default="", help="which tests; default all")
    parser.add_argument("--results", type=Path, help="write the results to this page")
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"clouds at once; default {JOBS}")
    asked = parser.parse_args()
    for number in _SIGNALS:
        signal.signal(number, _stop)
    sweep()
    with (asked.venv / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("askos: `make tempest` runs already in this folder, and its logs would be lost.") from None
        return _report(asked)


def _report(asked: argparse.Namespace) -> int:
    versions, venv = asked.at or list(VERSIONS), asked.venv.absolute()
    logs = venv / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    for part in (chosen := parts(versions, asked.regex)):
        (logs / part.name).mkdir(parents=True)
    begin = time.monotonic()
    results = run(chosen, venv, logs, asked.jobs)
    first = {at: [r for p, of in results.items() if p.version == at and not p.enabled for r in of] for at in versions}
    enabled = {at: [r for p, of in results.items() if p.version == at and p.enabled for r in of] for at in versions}
    everything = [result for of in results.values() for result in of]
    if not everything:
        raise SystemExit(f"askos: tempest ran no test; what it said is in {logs}")
    for at in versions:
        print(f"from {at}: {count(first[at])}; of what the suite has disabled: {count(enabled[at])}")
    failed = [result.name for result in everything if result.result == "FAILED"]
    odd = unforeseen(everything)
    for name in failed:
        print(f"failed: {name}")
    for words in odd:
        print(f"skipped for another reason than its microversion: {words}")
    print(f"{(time.monotonic() - begin) / 60:.0f} min. Logs: {logs}")
    if asked.results is not None:
        asked.results.write_text(page(first, enabled))
    return 1 if failed or odd else 0


if __name__ == "__main__":
    sys.exit(main())
