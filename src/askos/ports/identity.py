"""The identity port: what the API needs to know of a token, whoever issued it."""

from __future__ import annotations

from typing import Protocol

from askos.model.identity import Caller


class Identity(Protocol):
    """Validates tokens. The embedded service and real Keystone both stand behind this one verb."""

    async def validate(self, token: str) -> Caller:
        """The caller of a project-scoped, unexpired, unrevoked token. Raises UnauthorizedError otherwise."""
