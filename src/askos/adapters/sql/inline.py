"""SQLite without a thread for every statement.

aiosqlite sends each cursor, execute, fetch and close to a thread and back, which costs ten times what SQLite itself
needs for our small statements. `InlineConnection` looks like an aiosqlite connection to SQLAlchemy's dialect, but
runs statements where it is called: in WAL mode readers never wait, and a statement of ours takes microseconds.

What can take long does not hold up the event loop: a COMMIT, which waits for the disk, runs in a thread, and a BEGIN
IMMEDIATE that finds another process writing tries again after a short sleep. See docs/decisions.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

STATEMENTS = 64
"""Prepared statements that a connection keeps; each takes some KiB, and lists of ids come in many lengths."""
CACHE_KIB = 512
"""Pages of the database that a connection keeps. More would hold what the kernel's own cache holds already."""
BUSY_S = 30.0
"""How long to wait for another process's write transaction."""


class InlineCursor:
    """aiosqlite's cursor, as far as SQLAlchemy uses it."""

    def __init__(self, connection: InlineConnection) -> None:
        self._owner = connection
        self._cursor = connection.sqlite.cursor()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cursor.close()

    async def execute(self, statement: str, parameters: Any = ()) -> InlineCursor:
        """Run one statement."""
        if statement == "BEGIN IMMEDIATE":
            await self._begin()
        else:
            self._cursor.execute(statement, parameters)
        return self

    async def _begin(self) -> None:
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                self._cursor.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.005)
            else:
                return

    async def executemany(self, statement: str, parameters: Any) -> InlineCursor:
        """Run one statement with many sets of parameters."""
        self._cursor.executemany(statement, parameters)
        return self

    async def fetchall(self) -> list[Any]:
        """The rows left."""
        return self._cursor.fetchall()

    async def close(self) -> None:
        """Free it."""
        self._cursor.close()

    @property
    def description(self) -> Any:
        """DBAPI's description of the columns."""
        return self._cursor.description

    @property
    def lastrowid(self) -> int | None:
        """The id of the row inserted last."""
        return self._cursor.lastrowid

    @property
    def rowcount(self) -> int:
        """Rows touched."""
        return self._cursor.rowcount


class _Now:
    """Stands for aiosqlite's queue of work for its thread: does it at once."""

    def put_nowait(self, item: tuple[asyncio.Future[Any], Callable[[], Any]]) -> None:
        future, work = item
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)


class InlineConnection:
    """aiosqlite's connection, as far as SQLAlchemy uses it."""

    def __init__(self, path: str) -> None:
        # The thread that commits is not the one that opened it; nothing else runs meanwhile.
        self.sqlite = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS
        )
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"cache_size=-{CACHE_KIB}"):
            self.sqlite.execute(f"PRAGMA {pragma}")
        self._conn = self.sqlite
        self._tx = _Now()

    @property
    def _connection(self) -> sqlite3.Connection:
        return self.sqlite

    @property
    def isolation_level(self) -> str | None:
        """None: transactions begin when we say so."""
        return self.sqlite.isolation_level

    def cursor(self) -> InlineCursor:
        """A cursor."""
        return InlineCursor(self)

    async def create_function(self, *args: Any, **kwargs: Any) -> None:
        """Define an SQL function."""
        self.sqlite.create_function(*args, **kwargs)

    async def commit(self) -> None:
        """Wait for the disk in a thread. Shielded: a commit under way is never left half told."""
        if self.sqlite.in_transaction:
            work = asyncio.ensure_future(asyncio.to_thread(self.sqlite.commit))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])
                raise

    async def rollback(self) -> None:
        """Undo what was not committed."""
        if self.sqlite.in_transaction:
            self.sqlite.rollback()

    async def close(self) -> None:
        """Close it."""
        self.sqlite.close()

    def stop(self) -> None:
        """Close it, from anywhere."""
        self.sqlite.close()


async def connect(path: str) -> InlineConnection:
    """Open a SQLite file."""
    return InlineConnection(path)
