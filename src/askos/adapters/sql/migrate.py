"""Bring a database to the newest schema, with Alembic.

Alembic is imported only when there is something to do: its import costs more than the check.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from askos.adapters.sql.database import Database
from askos.model.errors import SetupError

HEAD = "0010"
_FOLDER = Path(__file__).parent / "migrations"


async def upgrade(database: Database) -> None:
    """Run the missing migrations. Raises SetupError when the database is newer than this program or unusable."""
    try:
        async with database.read() as connection:
            row = (await connection.execute(text("SELECT version_num FROM alembic_version"))).first()
    except DBAPIError as error:
        if "no such table" not in str(error.orig) and "does not exist" not in str(error.orig):
            raise SetupError(f"Cannot open the database: {error.orig}.") from error
        row = None
    if row is not None and row[0] == HEAD:
        return
    if row is not None and str(row[0]) > HEAD:
        raise SetupError(
            f"The database is at schema {row[0]}, newer than this program knows ({HEAD}). Use a newer Askos."
        )
    await asyncio.to_thread(_upgrade, database.url)


def _upgrade(url: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["url"] = url.replace("+aiosqlite", "")
    command.upgrade(config, HEAD)
