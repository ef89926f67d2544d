"""The processes of a container as the host's `ps` shows them, and what the kernel counts for them."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Set
from pathlib import Path
from typing import Any

from askos.model.errors import InvalidError, RuntimeFailedError

DEFAULT = "-ef"
_TIMEOUT_S = 15.0
_LONGEST = 1000
_MOST_BYTES = 8 << 20
_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "COLUMNS": "4096"}


async def listing(ps_args: str, pids: Set[int]) -> dict[str, Any]:
    """{"titles": [...], "processes": [[...], ...]}: the lines of ps that belong to these processes.

    InvalidError when ps refuses the arguments, or when they leave the PID column out.
    """
    arguments = _checked(ps_args)
    try:
        process = await asyncio.create_subprocess_exec(
            "ps", *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env=_ENVIRONMENT,
        )  # fmt: skip
    except FileNotFoundError:
        raise RuntimeFailedError("This host has no ps. Install procps.", retryable=False) from None
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            out, complaint = await process.communicate()
    except TimeoutError:
        raise RuntimeFailedError("The host's ps did not end in time.") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0 and not out.strip():
        reason = " ".join(complaint.decode(errors="replace").split())[:200] or "no process fits"
        raise InvalidError(f"ps refuses the arguments {ps_args!r}: {reason}")
    return read(out[:_MOST_BYTES].decode(errors="replace"), pids, ps_args)


def _checked(ps_args: str) -> list[str]:
    if len(ps_args) > _LONGEST:
        raise InvalidError(f"The arguments of ps are longer than {_LONGEST} characters.")
    try:
        words = shlex.split(ps_args) or [DEFAULT]
    except ValueError as error:
        raise InvalidError(f"The arguments of ps cannot be read: {error}.") from None
    for word in words:
        value = word.partition("=")[2] if word.startswith("--") else word
        # Whoever can call another column PID can choose lines by it that are not the container's.
        if "=" in value or "%" in value or "\0" in value:
            raise InvalidError("Columns cannot be given other titles in the arguments of ps.")
    return words


def read(text: str, pids: Set[int], ps_args: str) -> dict[str, Any]:
    """Choose the lines of ps' output that belong to the processes."""
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidError(f"The arguments {ps_args!r} leave the column PID out: nothing can be told apart without it.")
    at, width = titles.index("PID"), len(titles)
    found = []
    for line in lines[1:]:
        # The last column, the command, may hold blanks.
        fields = line.split(None, width - 1)
        if len(fields) > at and fields[at].isdigit() and int(fields[at]) in pids:
            found.append([field.rstrip() for field in fields])
    return {"titles": titles, "processes": found}


def network_bytes(pid: int) -> tuple[int, int]:
    """Bytes received and sent by the interfaces of a process' network, without loopback; zeros when it is gone."""
    received = sent = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]:
            name, _, counts = line.partition(":")
            if name.strip() != "lo":
                fields = counts.split()
                received, sent = received + int(fields[0]), sent + int(fields[8])
    return received, sent


def disk_bytes(pid: int) -> tuple[int, int]:
    """Bytes read and written by the control group of a process; zeros when it is gone, or nothing is counted."""
    with contextlib.suppress(OSError):
        groups = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
        for _, controllers, path in groups:
            if "blkio" in controllers.split(","):
                for name in ("io_service_bytes_recursive", "io_service_bytes"):
                    file = Path(f"/sys/fs/cgroup/blkio{path}/blkio.throttle.{name}")
                    if file.exists():
                        return _v1(file.read_text())
        for _, controllers, path in groups:
            if not controllers:
                for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
                    file = Path(f"{top}{path}/io.stat")
                    if file.exists():
                        return _v2(file.read_text())
    return 0, 0


def _v1(text: str) -> tuple[int, int]:
    words = [line.split() for line in text.splitlines()]
    found = {
        kind: sum(int(line[2]) for line in words if len(line) == 3 and line[1] == kind) for kind in ("Read", "Write")
    }
    return found["Read"], found["Write"]


def _v2(text: str) -> tuple[int, int]:
    pairs = [pair.partition("=") for line in text.splitlines() for pair in line.split()[1:]]
    return (
        sum(int(value) for key, _, value in pairs if key == "rbytes"),
        sum(int(value) for key, _, value in pairs if key == "wbytes"),
    )
