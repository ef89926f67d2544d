"""Registries: where images are pulled from, and with which log-in."""

from __future__ import annotations

import msgspec


class Registry(msgspec.Struct, frozen=True):
    """One registry of a project. The password is kept sealed and is no part of it."""

    uuid: str
    project_id: str
    user_id: str
    name: str | None
    domain: str
    username: str | None
    id: int = 0


class RegistryChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """New values; UNSET leaves what is there."""

    name: str | msgspec.UnsetType | None = msgspec.UNSET
    domain: str | msgspec.UnsetType = msgspec.UNSET
    username: str | msgspec.UnsetType | None = msgspec.UNSET
    password: str | msgspec.UnsetType | None = msgspec.UNSET
