"""Mounts below a folder: finding them, and taking them away without waiting for who still uses them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from pathlib import Path

_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_MS_BIND, _MS_PRIVATE = 0x1000, 0x40000
_OCTAL = re.compile(r"\\([0-7]{3})")
_libc = ctypes.CDLL(None, use_errno=True)


def below(folder: Path) -> list[Path]:
    """The mount points at or below a folder, deepest first."""
    prefix = str(folder)
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # The kernel writes spaces and such as three octal digits.
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), line.split()[4])
        if point == prefix or point.startswith(prefix + "/"):
            found.append(Path(point))
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def unmount(path: Path) -> bool:
    """Unmount lazily; False when nothing was mounted there."""
    result: int = _libc.umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW)
    return result == 0


def unmount_below(folder: Path) -> list[Path]:
    """Unmount everything at or below a folder; returns the mount points."""
    return [path for path in below(folder) if unmount(path)]


def remove_tree(folder: Path) -> None:
    """Unmount everything below a folder, then remove it. Never crosses into what is still mounted."""
    unmount_below(folder)
    if below(folder):
        return
    for path, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(path, name))
        for name in folders:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(path, name))
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(path, name))
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def is_mounted(path: Path) -> bool:
    """Whether something is mounted exactly there."""
    return path in below(path)


def bind(source: Path, target: Path) -> None:
    """Show one folder at the place of another, in no other mount namespace. Raises OSError."""
    mount(str(source), target, "", _MS_BIND)
    mount("none", target, "", _MS_PRIVATE)


def mount(source: str, target: Path, fs_type: str, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    done = _libc.mount(
        source.encode(), os.fsencode(target), fs_type.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    if done != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))
