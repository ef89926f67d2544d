"""Loop devices: a file as a block device.

The kernel ends a device of ours by itself when its last user (an open descriptor or a mount, in whatever namespace)
is gone. Which file a device has is asked by inode, so that no file ever gets a second one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_GET_FREE, _CONFIGURE, _GET_STATUS = 0x4C82, 0x4C0A, 0x4C05
_AUTOCLEAR, _DIRECT_IO = 4, 16
_INFO = struct.Struct("=QQQQQIIII64s64s32sQQ")
"""struct loop_info64: device, inode, rdevice, offset, size limit, number, encryption (2), flags, names, key, init."""
_CONFIG_HEAD = struct.Struct("=II")
_RESERVED = bytes(64)
_TRIES = 50


@contextlib.contextmanager
def device_of(fd: int) -> Iterator[str]:
    """The path of the loop device of an open file: the one that it has, or a new one. It stays for as long as the
    block lasts, and afterwards for as long as it is mounted."""
    device, path = _attached(fd)
    if device < 0:
        device, path = _attach(fd)
    try:
        yield path
    finally:
        os.close(device)


def is_attached(fd: int) -> bool:
    """Whether an open file has a loop device."""
    device, _ = _attached(fd)
    if device >= 0:
        os.close(device)
    return device >= 0


def backs(number: int, fd: int) -> bool:
    """Whether loop device `number` (of /dev/loop<number>) belongs to an open file."""
    device = _open_if_backed(f"/dev/loop{number}", fd)
    if device >= 0:
        os.close(device)
    return device >= 0


def _attached(fd: int) -> tuple[int, str]:
    for folder in Path("/sys/block").glob("loop*/loop"):
        path = f"/dev/{folder.parent.name}"
        device = _open_if_backed(path, fd)
        if device >= 0:
            return device, path
    return -1, ""


def _open_if_backed(path: str, fd: int) -> int:
    """A descriptor of a loop device if its file is `fd`'s; else -1."""
    file = os.fstat(fd)
    try:
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        status = _INFO.unpack(fcntl.ioctl(device, _GET_STATUS, bytes(_INFO.size)))
        if (status[0], status[1]) == (file.st_dev, file.st_ino):
            return device
    except OSError:
        pass  # It was free, or became so.
    os.close(device)
    return -1


def _attach(fd: int) -> tuple[int, str]:
    name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}")).encode()[:63]
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR | _DIRECT_IO, name, b"", b"", 0, 0)
    config = _CONFIG_HEAD.pack(fd, 0) + info + _RESERVED
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            path = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CONFIGURE, config)
            except OSError as error:
                os.close(device)
                # Somebody else was quicker with this one.
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device, path
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no loop device is free", "/dev/loop-control")
