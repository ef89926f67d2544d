"""Fails when the tables in `schema.py` and what the migrations make are not the same."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from askos.adapters.sql.database import Database, sqlite_url
from askos.adapters.sql.migrate import upgrade
from askos.adapters.sql.schema import metadata


async def _migrated(path: Path) -> None:
    database = Database(sqlite_url(path))
    await upgrade(database)
    await database.close()


def main() -> int:
    """Compare on an empty database."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "askos.db"
        asyncio.run(_migrated(path))
        engine = create_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            found = compare_metadata(MigrationContext.configure(connection), metadata)
        engine.dispose()
    for difference in found:
        sys.stderr.write(f"schema and migrations differ: {difference}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
