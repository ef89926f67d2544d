"""The key with which config maps and secrets are encrypted in the database."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from pathlib import Path

from askos.model.errors import SetupError
from askos.settings import Settings

_BYTES = 32


def load(settings: Settings) -> bytes:
    """The key that is set, else that of the data folder, which is made if it is not there. SetupError for a file that
    holds no key, or that others can read."""
    if settings.database.content_key is not None:
        return base64.b64decode(settings.database.content_key)
    path = settings.paths.content_key
    try:
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise SetupError(f"The content key {path} can be read by others. Make it yours alone: chmod 600 {path}.")
        key = base64.b64decode(path.read_bytes(), validate=False)
    except OSError as error:
        raise SetupError(f"Cannot read the content key {path}: {error.strerror}.") from None
    except binascii.Error:
        key = b""
    if len(key) != _BYTES:
        raise SetupError(f"{path} does not hold a content key: 32 bytes in base64. Put the right one there.")
    return key


def _make(path: Path) -> None:
    """Write a new key. It is on the disk before anything is encrypted with it, and whoever comes second uses the
    first one's."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(secrets.token_bytes(_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
