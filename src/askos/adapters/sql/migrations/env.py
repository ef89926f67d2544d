"""Alembic's entry: run migrations on the URL that `askos.adapters.sql.migrate` passes."""

from alembic import context
from sqlalchemy import create_engine

from askos.adapters.sql.schema import metadata

engine = create_engine(context.config.attributes["url"])
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
