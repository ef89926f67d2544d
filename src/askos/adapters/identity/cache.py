"""A short memory of valid tokens, so that a busy client does not cost a query per request.

What is revoked in this process leaves the memory at once. Another process learns of it when its own entry
ends, `max_age_s` later at most.
"""

from __future__ import annotations

import hashlib

import msgspec

from askos.model.identity import Caller, Token

TOKEN_PREFIX = "askos_"  # noqa: S105 - what all tokens begin with
"""Lets secret scanners, and people who read a log, see what a leaked string is."""

_TOKEN_LENGTH = len(TOKEN_PREFIX) + 43


def digest_of(secret: str) -> str | None:
    """The hash under which a token is kept; None for what cannot be one of our tokens."""
    if len(secret) != _TOKEN_LENGTH or not secret.startswith(TOKEN_PREFIX) or not secret.isascii():
        return None
    return hashlib.sha256(secret.encode()).hexdigest()


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A token that was valid at `from_us`. `caller` is None for an unscoped one."""

    token: Token
    caller: Caller | None
    from_us: int
    until_us: int


class TokenCache:
    """Valid tokens by hash. Bounded: the oldest entry makes room."""

    def __init__(self, *, max_age_s: float = 5.0, max_entries: int = 10_000) -> None:
        self._max_age_us = int(max_age_s * 1e6)
        self._max_entries = max_entries
        self._entries: dict[str, Entry] = {}
        self.epoch = 0
        """Grows with every `forget`. Who read the database before one may not add what he read after it."""

    def get(self, digest: str, now_us: int) -> Entry | None:
        """The entry, unless it is too old (or from the future, when the clock was set back)."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if entry.from_us <= now_us < entry.until_us:
            return entry
        del self._entries[digest]
        return None

    def add(self, digest: str, token: Token, now_us: int, epoch: int) -> Entry:
        """Remember a token that was read from the database when `self.epoch` was `epoch`."""
        caller = None
        if token.project is not None:
            caller = Caller(
                user_id=token.user.id,
                project_id=token.project.id,
                is_admin=token.is_admin,
                roles=[role.name for role in token.roles],
            )
        until_us = min(now_us + self._max_age_us, token.expires_us)
        entry = Entry(token=token, caller=caller, from_us=now_us, until_us=until_us)
        if epoch == self.epoch:
            self._entries.pop(digest, None)
            if len(self._entries) >= self._max_entries:
                del self._entries[next(iter(self._entries))]
            self._entries[digest] = entry
        return entry

    def forget(self, *, digest: str | None = None, user_id: str | None = None, project_id: str | None = None) -> None:
        """Drop one token, or all of a user, or all of a project."""
        self.epoch += 1
        if digest is not None:
            self._entries.pop(digest, None)
        for key, entry in list(self._entries.items()):
            project = entry.token.project
            if entry.token.user.id == user_id or (project is not None and project.id == project_id):
                del self._entries[key]
