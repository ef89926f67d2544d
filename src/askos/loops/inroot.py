"""Opening what is inside a container's files, as the container itself would find it, and never anything else.

A container may make any links, and change them at any moment. So names are resolved by the kernel (openat2, for which
the container's root is the root of everything), never here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_OPENAT2 = 437
"""The same number on all architectures."""
_IN_ROOT, _NO_MAGICLINKS = 0x10, 0x2
_HOW = struct.Struct("=QQQ")
_TRIES = 64
_KERNELS_OWN = {0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x19800202, 0x64626720, 0x74726163, 0x73636673}
"""File systems that hold no files: proc, sysfs, cgroup (1 and 2), devpts, mqueue, debugfs, tracefs, securityfs."""
_libc = ctypes.CDLL(None, use_errno=True)


def open_in(root: int, path: str, flags: int) -> int:
    """A descriptor of what `path` is for somebody whose root folder is `root`. Raises OSError."""
    how = _HOW.pack(flags | os.O_CLOEXEC, 0, _IN_ROOT | _NO_MAGICLINKS)
    for _ in range(_TRIES):
        fd: int = _libc.syscall(_OPENAT2, root, os.fsencode(path) or b".", how, len(how))
        if fd >= 0:
            return fd
        # EAGAIN: something was renamed on the way, so that the kernel could not be sure.
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)


def is_kernels_own(fd: int) -> bool:
    """Whether a file or folder lies in a file system of the kernel's own making, such as /proc."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(fd, buffer) != 0:
        return False
    kind = ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
    return kind in _KERNELS_OWN
