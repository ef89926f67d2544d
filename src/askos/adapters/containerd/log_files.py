"""Keeping the logs of containers within bounds.

The oldest part of a log that has become too long is taken off the disk where it stands: the file gets a hole at its
begin, and keeps its name, its length and all that is behind. So neither containerd, which goes on writing, nor who
reads has to be told anything, and no line is lost on the way. Readers begin behind the hole (`loops.logs.resume`).
"""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path

KEEP_BYTES = 50 << 20
"""What is kept of each log: as much as a kubelet keeps."""
SLACK_BYTES = 10 << 20
"""How much longer a log gets before it is cut: so that this is done now and then only."""
_BLOCK = 64 << 10
"""Holes are whole blocks of the file system, which has none larger than this."""
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)
_log = logging.getLogger(__name__)


def trim(root: Path, keep_bytes: int = KEEP_BYTES, slack_bytes: int = SLACK_BYTES) -> list[Path]:
    """Cut what is too long among all logs below `root`; returns those. A log that cannot be cut is left as it is."""
    cut = []
    for folder, _, names in os.walk(root):
        for path in (Path(folder) / name for name in names if name.endswith(".log")):
            try:
                if _trim(path, keep_bytes, slack_bytes):
                    cut.append(path)
            except FileNotFoundError:
                continue  # its container has just been removed
            except OSError as error:
                _log.warning("the log %s cannot be shortened: %s", path, error.strerror)
    return cut


def _trim(path: Path, keep_bytes: int, slack_bytes: int) -> bool:
    info = path.lstat()
    if info.st_blocks * 512 <= keep_bytes + slack_bytes:
        return False
    end = (info.st_size - keep_bytes) // _BLOCK * _BLOCK
    if end <= 0:
        return False
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_longlong(0), ctypes.c_longlong(end)) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(fd)
    return True
