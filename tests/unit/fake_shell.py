"""Programs for fake containers: a tiny shell with files, streams and a terminal, real enough to be told apart."""

from __future__ import annotations

import asyncio
import shlex
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from askos.model.errors import RuntimeFailedError
from askos.ports import runtime as rt

Stream = Literal["stdout", "stderr"]
Emit = Callable[[Stream, bytes], Awaitable[None]]

_PROGRAMS = {"sh", "echo", "cat", "sleep", "true", "false", "id", "ps", "stty", "tail"}
_FOREVER = 10**6
_EOT = b"\x04"
_QUEUE = 4


class OutOfMemoryError(Exception):
    """The process took more than its container may."""


class Files:
    """What a container sees: its writable layer, its mounts and the settings of the kernel."""

    def __init__(
        self, layer: dict[str, str], mounts: list[rt.Mount], *, read_only: bool = False, sysctls: dict[str, str]
    ) -> None:
        self.layer = layer
        self._mounts = sorted(mounts, key=lambda m: len(m.container_path), reverse=True)
        self._read_only = read_only
        self._sysctls = sysctls

    def _mounted(self, path: str) -> tuple[rt.Mount, Path] | None:
        for mount in self._mounts:
            top = mount.container_path.rstrip("/")
            if path == top or path.startswith(top + "/"):
                return mount, Path(mount.host_path + path[len(top) :])
        return None

    def read(self, path: str) -> str | None:
        """The text of a file; None when there is none."""
        found = self._mounted(path)
        if found is not None:
            return found[1].read_text() if found[1].is_file() else None
        if path.startswith("/proc/sys/"):
            value = self._sysctls.get(path.removeprefix("/proc/sys/").replace("/", "."))
            return None if value is None else value + "\n"
        return self.layer.get(path)

    def write(self, path: str, text: str, *, append: bool) -> bool:
        """Whether the file could be written."""
        found = self._mounted(path)
        if found is not None:
            if found[0].read_only:
                return False
            with found[1].open("a" if append else "w") as file:
                file.write(text)
            return True
        if self._read_only or path.startswith("/proc/"):
            return False
        self.layer[path] = (self.layer.get(path, "") if append else "") + text
        return True


class Pipes:
    """Where a process reads and writes. Without `stdin` it reads an end at once."""

    def __init__(self, emit: Emit, *, stdin: bool, tty: bool, size: tuple[int, int] = (0, 0)) -> None:
        self._emit = emit
        self._stdin = stdin
        self.tty = tty
        self.size = size
        """Width and height."""
        self._input: asyncio.Queue[bytes] = asyncio.Queue(_QUEUE)
        self._ended = False
        self._over = False

    async def feed(self, data: bytes) -> None:
        """Input for the process; waits while it does not read. A terminal echoes, and knows Ctrl-D."""
        if not self._stdin or self._ended:
            return
        data, eot, _ = data.partition(_EOT) if self.tty else (data, b"", b"")
        if data:
            if self.tty:
                await self.write("stdout", data)
            await self._input.put(data)
        if eot:
            await self._input.put(b"")

    async def end(self) -> None:
        """The process reads end of file."""
        if self._stdin and not self._ended:
            self._ended = True
            await self._input.put(b"")

    async def read(self) -> bytes:
        """The next input; b"" at the end."""
        if not self._stdin or self._over:
            return b""
        data = await self._input.get()
        self._over = not data
        return data

    async def write(self, stream: Stream, data: bytes) -> None:
        """Output of the process."""
        if self.tty:
            stream, data = "stdout", data.replace(b"\n", b"\r\n")
        await self._emit(stream, data)


@dataclass
class Process:
    """One process of a fake container, and what it can see."""

    environment: dict[str, str]
    files: Files
    pipes: Pipes
    uid: int = 0
    gid: int = 0
    groups: list[int] = field(default_factory=list)
    memory_bytes: int = 0
    listing: Callable[[], list[str]] = list
    """The command lines of all processes that it sees."""
    traps: dict[int, int] = field(default_factory=dict)
    """Signal number to the exit code that `trap 'exit N' SIG` asked for."""


def check_program(argv: list[str]) -> None:
    """Raise what a runtime raises for a program that the image does not have."""
    if not argv:
        raise RuntimeFailedError("Could not start the container: nothing says what to run", retryable=False)
    if argv[0] not in _PROGRAMS:
        raise RuntimeFailedError(f'cannot start "{argv[0]}": no such file in the image', retryable=False)


async def run_program(argv: list[str], process: Process) -> int:
    """Run a command of the tiny shell; returns its exit code."""
    if argv[:2] == ["sh", "-c"]:
        return await _script(argv[2], process)
    out = process.pipes.write
    name, arguments = argv[0], list(argv[1:])
    match name:
        case "sh":
            return await _shell(process)
        case "sleep":
            await asyncio.sleep(_FOREVER if arguments == ["infinity"] else float(arguments[0]))
        case "false":
            return 1
        case "echo":
            return await _echo(arguments, process)
        case "cat":
            return await _cat(arguments, process)
        case "id":
            groups = [process.gid, *(g for g in process.groups if g != process.gid)]
            values = {"-u": [process.uid], "-g": [process.gid], "-G": groups}[arguments[0]]
            await out("stdout", (" ".join(map(str, values)) + "\n").encode())
        case "ps":
            await out("stdout", "".join(f"{line}\n" for line in process.listing()).encode())
        case "stty":
            width, height = process.pipes.size
            await out("stdout", f"{height} {width}\n".encode())
        case "tail":  # of what never ends, in memory
            if process.memory_bytes:
                raise OutOfMemoryError
            await asyncio.sleep(_FOREVER)
        case "true":
            pass
        case _:
            await out("stderr", f"sh: {name}: not found\n".encode())
            return 127
    return 0


class _Exit(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


async def _script(text: str, process: Process) -> int:
    try:
        return await _statements(text, process)
    except _Exit as ended:
        return ended.code


async def _shell(process: Process) -> int:
    """A shell without arguments: it runs the lines that it reads."""
    rest, code = b"", 0
    while data := await process.pipes.read():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            try:
                code = await _statements(line.decode(), process)
            except _Exit as ended:
                return ended.code
    return code


async def _statements(text: str, process: Process) -> int:
    code = 0
    for before, statement in _split(text):
        if (before == "&&" and code != 0) or (before == "||" and code == 0):
            continue
        words = shlex.split(statement)
        if not words:
            continue
        if words[0] == "exec":
            words = words[1:]
        if words[0] == "exit":
            raise _Exit(int(words[1]) if len(words) > 1 else code)
        if words[0] == "trap":
            process.traps[signal.Signals[f"SIG{words[2]}"]] = int(words[1].split()[1])
            code = 0
            continue
        words = [process.environment.get(w[1:], "") if w.startswith("$") else w for w in words]
        code = await run_program(words, process)
    return code


def _split(text: str) -> list[tuple[str, str]]:
    """Statements with the sign before each: ";", "&&" or "||"; what is quoted is left alone."""
    found: list[tuple[str, str]] = []
    quote, begin, sign, at = "", 0, ";", 0
    while at < len(text):
        letter = text[at]
        mark = next((m for m in (";", "&&", "||") if text.startswith(m, at)), "")
        if quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
        elif mark:
            found.append((sign, text[begin:at]))
            sign, at = mark, at + len(mark)
            begin = at
            continue
        at += 1
    return [*found, (sign, text[begin:])]


async def _echo(arguments: list[str], process: Process) -> int:
    stream: Stream = "stdout"
    where, mark = "", ""
    for sign in (">>", ">"):
        if sign in arguments:
            at = arguments.index(sign)
            where, mark, arguments = arguments[at + 1], sign, arguments[:at]
    if arguments and arguments[-1] == ">&2":
        stream, arguments = "stderr", arguments[:-1]
    line = " ".join(arguments) + "\n"
    if not mark:
        await process.pipes.write(stream, line.encode())
    elif not process.files.write(where, line, append=mark == ">>"):
        await process.pipes.write("stderr", f"sh: can't create {where}: Read-only file system\n".encode())
        return 1
    return 0


async def _cat(arguments: list[str], process: Process) -> int:
    if not arguments:
        while data := await process.pipes.read():
            await process.pipes.write("stdout", data)
    for path in arguments:
        text = process.files.read(path)
        if text is None:
            await process.pipes.write("stderr", f"cat: can't open '{path}': No such file or directory\n".encode())
            return 1
        await process.pipes.write("stdout", text.encode())
    return 0
