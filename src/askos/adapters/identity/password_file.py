"""The file that holds the first administrator's password. Only its owner can ever read it."""

from __future__ import annotations

import logging
import os
import secrets
import stat
from pathlib import Path

from askos.model.errors import SetupError

_log = logging.getLogger(__name__)


def read_or_create(path: Path) -> tuple[str, bool]:
    """The password in the file, made with a random one if it does not exist; and whether it was made.

    Of several processes at once one makes it, and all read the same. SetupError when that cannot be done.
    """
    try:
        existing = _read(path)
        if existing is not None:
            return existing, False
        password = secrets.token_urlsafe(24)
        temporary = _write_temporary(path, password)
        try:
            os.link(temporary, path)  # fails when somebody else was faster
        except FileExistsError:
            existing = _read(path)
            if existing is None:
                raise
            return existing, False
        finally:
            temporary.unlink()
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot(path, error) from error
    return password, True


def replace(path: Path) -> str:
    """Put a new random password into the file, whatever is in it now. SetupError when that cannot be done."""
    password = secrets.token_urlsafe(24)
    try:
        temporary = _write_temporary(path, password)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot(path, error) from error
    return password


def _cannot(path: Path, error: OSError) -> SetupError:
    return SetupError(
        f"Cannot use the administrator's password file {path}: {error.strerror or error}. "
        "Check that its folder exists and can be written."
    )


def _read(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                _log.warning("The password file %s can be read by others: run chmod 600 on it.", path)
            text = file.read(4097)
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise SetupError(f"Cannot use the administrator's password file {path}: it is not text.") from error
    password = text.removesuffix("\n").removesuffix("\r")
    if not password or len(text) > 4096:
        raise SetupError(
            f"Cannot use the administrator's password file {path}: it must hold 1 to 4096 characters. "
            "Write a password into it, or delete it to have one made."
        )
    return password


def _write_temporary(path: Path, password: str) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(password + "\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
