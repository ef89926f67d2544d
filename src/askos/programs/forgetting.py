"""`askos admin forget-sealed`: the way out when the content key is lost for good."""

from __future__ import annotations

from collections.abc import Callable

from askos.adapters.sql import forgetting
from askos.adapters.sql.database import Database
from askos.adapters.sql.forgetting import Sealed
from askos.adapters.sql.migrate import upgrade
from askos.adapters.sql.sealing import Sealer
from askos.model.errors import SetupError
from askos.programs import content_key, locks
from askos.settings import Settings

Agree = Callable[[list[Sealed]], bool]
"""Whether these may be forgotten."""


async def forget_sealed(settings: Settings, agree: Agree) -> list[Sealed]:
    """Forget what the present content key does not open, if `agree` says so; returns what was forgotten. SetupError
    while a server runs on the data folder, or when there is no cloud."""
    if settings.database.url is None and not settings.paths.database.exists():
        raise SetupError(f"There is no cloud in {settings.data}. Name its folder with --data.")
    lock = locks.Lock(settings.data / "server.lock")
    lock.take("An Askos server")
    database = Database(settings.database_url)
    try:
        await upgrade(database)
        sealer = Sealer(content_key.load(settings))
        found = await forgetting.unreadable(database, sealer)
        if not found or not agree(found):
            return []
        await forgetting.forget(database, sealer, found)
        return found
    finally:
        await database.close()
        lock.release()
