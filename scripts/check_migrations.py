"""Do the migrations lead to the tables that the code declares, and does the code know the newest one?"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from askos.adapters.sql import migrate
from askos.adapters.sql.schema import metadata

FOLDER = Path(migrate.__file__).parent / "migrations"


def main() -> int:
    """0 when all is well."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    heads = ScriptDirectory.from_config(config).get_heads()
    if heads != [migrate.HEAD]:
        print(f"The newest migration is {heads}, but migrate.HEAD is {migrate.HEAD!r}.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/check.db"
        config.attributes["url"] = url
        command.upgrade(config, "head")
        engine = create_engine(url)
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True}
            )
            differences = compare_metadata(context, metadata)
        engine.dispose()
    for difference in differences:
        print(f"The tables and the migrations differ: {difference}", file=sys.stderr)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
