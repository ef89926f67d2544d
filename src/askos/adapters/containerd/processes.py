"""Processes by pid and start time, so that a number used again is never mistaken for the old process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from pathlib import Path

import msgspec


class Process(msgspec.Struct, frozen=True):
    """A process: its pid and its start time in clock ticks since boot."""

    pid: int
    started: int


def identify(pid: int) -> Process | None:
    """The process that has this pid now; None when there is none, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in ("Z", "X"):
        return None
    return Process(pid, int(fields[19]))


def alive(process: Process) -> bool:
    """Whether this very process still runs."""
    return identify(process.pid) == process


def command_line(pid: int) -> list[str]:
    """The arguments of a process, or [] when it has gone."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0")[:-1]]


def with_arguments(*wanted: str) -> list[Process]:
    """All processes that have the given arguments, one after another, in their command line."""
    found = []
    length = len(wanted)
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        arguments = command_line(int(entry.name))
        if any(tuple(arguments[i : i + length]) == wanted for i in range(len(arguments) - length + 1)):
            process = identify(int(entry.name))
            if process is not None:
                found.append(process)
    return found


def send(process: Process, signum: int) -> None:
    """Send a signal to this very process; nothing when it has gone."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        # The pidfd pins the pid: if it is still ours now, the signal cannot hit another.
        if alive(process):
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(fd, signum)
    finally:
        os.close(fd)


async def ended(process: Process, timeout_s: float | None = None) -> bool:
    """Wait until the process has ended; False when it still runs after `timeout_s`."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return True
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(fd, gone.set)
    try:
        if not alive(process) or select.select([fd], [], [], 0)[0]:
            return True
        await asyncio.wait_for(gone.wait(), timeout_s)
    except TimeoutError:
        return False
    else:
        return True
    finally:
        loop.remove_reader(fd)
        os.close(fd)
