"""The store on SQL: SQLAlchemy Core on asyncio; SQLite (WAL) by default."""
