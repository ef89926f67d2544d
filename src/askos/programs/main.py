"""Running the programs: in the foreground, or detached with their progress told to whoever started them.

A detached program reports on a pipe, one JSON object a line: {"step": "..."}, then {"ready": {...}} or
{"error": "..."}.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.handlers
import os
import signal
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import uvloop

from askos.model.errors import SetupError
from askos.paths import prepare_folders
from askos.programs import spare
from askos.settings import Settings

_log = logging.getLogger("askos")

Tell = Callable[[dict[str, Any]], None]


class Part(Protocol):
    """A server or an agent."""

    async def run(self) -> None:
        """Until cancelled."""

    async def stop(self) -> None:
        """Close."""


def set_up_logging(settings: Settings, *, to_file: bool) -> None:
    """One line a record: to the log file (rotated at 10 MiB) or to standard error."""
    handler: logging.Handler
    if to_file:
        handler = logging.handlers.RotatingFileHandler(settings.paths.log, maxBytes=10 << 20, backupCount=3)
        settings.paths.log.chmod(0o600)
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log.level.upper(), handlers=[handler])
    for noisy in ("alembic", "sqlalchemy", "aiosqlite", "asyncio", "grpc", "aiohttp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(_is_our_fault)


def _is_our_fault(record: logging.LogRecord) -> bool:
    """Not a client that speaks no HTTP: anybody could fill the log with tracebacks of those."""
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__module__ != "aiohttp.http_exceptions"


async def run(settings: Settings, *, server: bool, agent: bool, tell: Tell) -> None:
    """Run the parts until SIGTERM or SIGINT. Raises SetupError when they cannot start."""
    # Children are started by vfork and exec; gRPC's fork handlers would only get in their way.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.umask(0o077)
    prepare_folders(settings.paths, needs_root=agent)
    parts: list[Part] = []
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def step(text: str) -> None:
        _log.info("%s", text)
        tell({"step": text})

    try:
        if agent:
            # First, because it takes the data folder's lock.
            from askos.programs.agent import AgentProgram

            host = AgentProgram(settings)
        if server:
            from askos.adapters.bridge.host import host_routes
            from askos.adapters.bridge.links import prefix
            from askos.programs import facts
            from askos.programs.server import Server

            control = Server(settings)
            parts.append(control)
            ours = prefix(facts.instance(settings.data))
            await control.start(step, lambda: host_routes(without=ours))
        if agent:
            parts.append(host)
            await host.start(step)
        await _run_parts(parts, stop, lambda: tell({"ready": {"url": settings.listen.url, "pid": os.getpid()}}))
    finally:
        for part in reversed(parts):
            with contextlib.suppress(Exception):
                await part.stop()


async def _run_parts(parts: list[Part], stop: asyncio.Event, ready: Callable[[], None]) -> None:
    tasks = [asyncio.create_task(part.run()) for part in parts]
    tasks.append(asyncio.create_task(spare.stay_small()))
    stopping = asyncio.create_task(stop.wait())
    ready()
    _log.info("running")
    done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
    for task in (*tasks, stopping):
        task.cancel()
    await asyncio.gather(*tasks, stopping, return_exceptions=True)
    for task in done - {stopping}:
        error = task.exception()
        if error is not None:
            raise error


def start(settings: Settings, *, server: bool, agent: bool, report_fd: int | None = None) -> None:
    """The body of `askos up`, `server` and `agent`: returns when stopped. Raises SetupError."""

    def tell(message: dict[str, Any]) -> None:
        if report_fd is not None:
            with contextlib.suppress(OSError):
                os.write(report_fd, msgspec.json.encode(message) + b"\n")

    spare.one_heap()
    try:
        set_up_logging_after_folder(settings, to_file=report_fd is not None, needs_root=agent)
        uvloop.run(run(settings, server=server, agent=agent, tell=tell))
    except SetupError as error:
        tell({"error": error.message})
        raise
    except BaseException as error:
        tell({"error": f"Askos failed to start: {error}. See {settings.paths.log}."})
        raise


def set_up_logging_after_folder(settings: Settings, *, to_file: bool, needs_root: bool) -> None:
    """The log is in the data folder, which must be there first."""
    prepare_folders(settings.paths, needs_root=needs_root)
    set_up_logging(settings, to_file=to_file)
