"""Connections and transactions.

`read()` gives a connection for queries; `write()` a transaction that is committed at the end of the block, or
rolled back when it raises. On SQLite there is one writer at a time and a write transaction starts with BEGIN
IMMEDIATE, so it never fails half-way with "database is locked". `synchronous=FULL`: what is committed survives
a power cut, not only a killed process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from askos.adapters.sql import inline
from askos.model.errors import SetupError, UnavailableError


def _sqlite_engine(url: str, *, pool_size: int) -> AsyncEngine:
    path = make_url(url).database or ":memory:"
    # Each connection keeps pages and statements of its own: the one used last is used again, so that mostly one does.
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=60,
        pool_use_lifo=True,
        async_creator=lambda: inline.connect(path),
    )


class Database:
    """A database by SQLAlchemy URL. For SQLite: `sqlite+aiosqlite:////path/to/askos.db`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        if self.is_sqlite:
            # Readers have no BEGIN: each of their statements stands alone.
            self._readers = _sqlite_engine(url, pool_size=4)
            self._writer = _sqlite_engine(url, pool_size=1)

            @event.listens_for(self._writer.sync_engine, "begin")
            def _begin_immediate(connection: Any) -> None:
                connection.exec_driver_sql("BEGIN IMMEDIATE")

        else:
            self._readers = self._writer = create_async_engine(url, pool_size=8, pool_pre_ping=True)
        self._write_lock = asyncio.Lock()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for queries. On SQLite each query sees the newest state, not that of the query before."""
        async with self._readers.connect() as connection:
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """A connection whose queries all see the state of the first one."""
        if self.is_sqlite:
            async with self._readers.connect() as connection:
                await connection.exec_driver_sql("BEGIN")
                yield connection
                await connection.rollback()
        else:
            async with self._readers.connect() as connection:
                await connection.execution_options(isolation_level="REPEATABLE READ")
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A write transaction. Raises UnavailableError when the disk is full or the file cannot be written."""
        async with self._write_lock:
            try:
                async with self._writer.begin() as connection:
                    yield connection
            except OperationalError as error:
                raise _translated(error) from error

    async def ping(self) -> None:
        """Raises when the database does not answer."""
        try:
            async with self.read() as connection:
                await connection.execute(text("SELECT 1"))
        except DBAPIError as error:
            raise _translated(error) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._readers.dispose()
        await self._writer.dispose()


def _translated(error: DBAPIError) -> UnavailableError:
    reason = str(error.orig)
    if "full" in reason or "disk I/O" in reason:
        return UnavailableError(f"Cannot write to the database: {reason}. Free some disk space and try again.")
    return UnavailableError(f"The database cannot do this now: {reason}.")


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file, whose folder must exist."""
    if not path.parent.is_dir():
        raise SetupError(f"Cannot open the database {path}: the folder {path.parent} does not exist.")
    return f"sqlite+aiosqlite:///{path}"
