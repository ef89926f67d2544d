"""Giving a running sandbox another host name, and the files that containers see, from outside.

The name is set in a thread that enters the sandbox's UTS namespace and then ends: no fork, which live gRPC channels do
not survive, and no thread that would have to find its way back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from pathlib import Path

from askos.ports.runtime import SandboxConfig

_CLONE_NEWUTS = 0x04000000
_libc = ctypes.CDLL(None, use_errno=True)


def set_hostname(pid: int, netns: str, hostname: str) -> None:
    """Set the host name that the sandbox of process `pid` sees. `netns`: its network namespace's file. Blocks.

    Raises OSError; ProcessLookupError when the process has ended (also when its number belongs to another now).
    """
    uts = _opened(pid, netns)
    failed: list[OSError] = []

    def enter() -> None:
        try:
            if _libc.setns(uts, _CLONE_NEWUTS) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            socket.sethostname(hostname)
        except OSError as error:
            failed.append(error)

    try:
        thread = threading.Thread(target=enter, name="askos-uts", daemon=True)
        thread.start()
        thread.join()
    finally:
        os.close(uts)
    if failed:
        raise failed[0]


def write_files(folder: Path, config: SandboxConfig) -> None:
    """Write a sandbox's hostname, hosts and resolv.conf, which containerd mounts into containers when it makes them.

    `folder`: containerd's for the sandbox; the files exist. Blocks; raises OSError.
    """
    (folder / "hostname").write_text(f"{config.hostname}\n")
    (folder / "hosts").write_bytes(Path("/etc/hosts").read_bytes())
    (folder / "resolv.conf").write_bytes(resolv_conf(config).encode() or Path("/etc/resolv.conf").read_bytes())


def resolv_conf(config: SandboxConfig) -> str:
    """What containerd would write for this config; empty: the host's own file is used."""
    lines = [
        ("search", " ".join(config.dns_search)),
        *(("nameserver", server) for server in config.dns_servers),
        ("options", " ".join(config.dns_options)),
    ]
    return "".join(f"{word} {value}\n" for word, value in lines if value)


def _opened(pid: int, netns: str) -> int:
    """The UTS namespace's descriptor, sure to be the sandbox's: whoever lives in its network namespace is of it."""
    gone = ProcessLookupError(f"process {pid} is no longer that of the sandbox")
    try:
        uts = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise gone from None
    try:
        # Looked at after the opening: a number that was given to another process meanwhile is noticed.
        with contextlib.suppress(FileNotFoundError):
            same = os.path.samestat(os.stat(f"/proc/{pid}/ns/net"), os.stat(netns))
            own = os.path.samestat(os.fstat(uts), os.stat("/proc/self/ns/uts"))
            if same and not own:
                return uts
        raise gone
    except BaseException:
        os.close(uts)
        raise
