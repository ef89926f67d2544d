"""Where everything of one cloud is: one folder, with fixed names in it."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from askos.model.errors import SetupError

LONGEST_SOCKET = 107
"""Bytes that the kernel allows for a unix socket's path."""
LEAST_FREE_MIB = 64
"""Below this, even the database could not be trusted to start."""


@dataclass(frozen=True)
class Paths:
    """The data folder of one cloud."""

    data: Path

    @property
    def lock(self) -> Path:
        """Held while a server or agent uses the folder."""
        return self.data / "lock"

    @property
    def run(self) -> Path:
        """Sockets and what lives as long as they; not there when nothing runs."""
        return self.data / "run"

    @property
    def link_socket(self) -> Path:
        """Where agents reach the server."""
        return self.run / "link.sock"

    @property
    def cni_socket(self) -> Path:
        """Where askos-cni reaches the agent."""
        return self.run / "cni.sock"

    @property
    def logs(self) -> Path:
        """Logs of the programs; those of containers are in `container_logs`."""
        return self.data / "log"

    @property
    def container_logs(self) -> Path:
        """One folder for each capsule."""
        return self.logs / "capsules"

    @property
    def log(self) -> Path:
        """The log of `askos up --detach`."""
        return self.logs / "askos.log"

    @property
    def policy(self) -> Path:
        """The operator's policy, if there is one."""
        return self.data / "policy.yaml"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.data / "askos.db"

    @property
    def capsules(self) -> Path:
        """Volumes and files of capsules, a folder for each."""
        return self.data / "capsules"

    @property
    def volumes(self) -> Path:
        """Files of the volume service."""
        return self.data / "volumes"

    @property
    def images(self) -> Path:
        """Files of the image service."""
        return self.data / "images"

    @property
    def adopted(self) -> Path:
        """Whose the sandboxes are that were made in advance; lives as long as containerd's own records."""
        return self.data / "adopted"

    @property
    def containerd_root(self) -> Path:
        """Images and snapshots of the private containerd."""
        return self.data / "containerd"

    @property
    def containerd_state(self) -> Path:
        """Sockets and mounts of the private containerd."""
        return self.run / "containerd"

    @property
    def containerd_socket(self) -> Path:
        """The private containerd's socket. containerd makes another one with `.ttrpc` behind its name."""
        return self.containerd_state / "c.sock"

    @property
    def cni_bin(self) -> Path:
        """The folder with the askos-cni executable."""
        return self.data / "cni" / "bin"

    @property
    def cni_conf(self) -> Path:
        """The folder with the one CNI configuration."""
        return self.data / "cni" / "conf"

    @property
    def tls(self) -> Path:
        """The cloud's certificate authority and its server's certificate."""
        return self.data / "tls"

    @property
    def cacert(self) -> Path:
        """What clients trust."""
        return self.tls / "ca.pem"

    @property
    def admin_password(self) -> Path:
        """The first administrator's password, mode 0600."""
        return self.data / "admin-password"

    @property
    def content_key(self) -> Path:
        """The key that config maps and secrets are encrypted with, mode 0600."""
        return self.data / "content.key"

    @property
    def clouds_yaml(self) -> Path:
        """For OpenStack clients."""
        return self.data / "clouds.yaml"

    @property
    def clouds_json(self) -> Path:
        """The same, for our own command line, which has no time to parse YAML."""
        return self.data / "clouds.json"

    @property
    def openrc(self) -> Path:
        """For shells."""
        return self.data / "openrc"

    def folders(self) -> list[Path]:
        """All folders, outer ones first."""
        return [
            self.data,
            self.run,
            self.containerd_state,
            self.logs,
            self.container_logs,
            self.containerd_root,
            self.capsules,
            self.volumes,
            self.images,
            self.cni_bin.parent,
            self.cni_bin,
            self.cni_conf,
            self.tls,
        ]


def prepare_folders(paths: Paths, *, needs_root: bool = True) -> None:
    """Make the data folder and what belongs in it; nothing changes when they are there.

    All are made with mode 0700: they hold passwords, keys and what containers write. A data folder that exists
    keeps its mode, but must belong to us and be writable for nobody else. Raises SetupError, in one line, when
    the folder cannot be used: not root, path too long, not writable, somebody else's, no space.
    """
    data = paths.data
    if needs_root and os.geteuid() != 0:
        raise SetupError("Askos must be root to run containers. Try again with sudo.")
    longest = len(os.fsencode(paths.containerd_socket)) + len(".ttrpc")
    if longest > LONGEST_SOCKET:
        room = LONGEST_SOCKET - (longest - len(os.fsencode(data)))
        raise SetupError(
            f"The data folder {data} has too long a path for the sockets in it: "
            f"choose one of at most {room} bytes with --data or ASKOS_DATA."
        )
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = data.stat()
        if info.st_uid != os.geteuid() or info.st_mode & 0o022:
            raise SetupError(
                f"The data folder {data} can be changed by others. "
                f"Make it yours alone (chown {os.geteuid()} {data}; chmod 700 {data}) or choose another."
            )
        for folder in paths.folders()[1:]:
            folder.mkdir(exist_ok=True)
            folder.chmod(0o700)
        _probe(data)
    except OSError as error:
        raise SetupError(_sentence(data, error)) from None


def _probe(data: Path) -> None:
    """Write for real: permissions, quotas and read-only file systems tell the truth only then."""
    room = os.statvfs(data)
    free_mib = room.f_bavail * room.f_frsize >> 20
    if free_mib < LEAST_FREE_MIB:
        raise OSError(errno.ENOSPC, f"only {free_mib} MiB are free")
    probe = data / f".probe.{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(65536))
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)


def _sentence(data: Path, error: OSError) -> str:
    where = f" ({error.filename})" if error.filename and error.filename != str(data) else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return (
            f"No space left for the data folder {data}: {error.strerror}{where}. "
            f"Free at least {LEAST_FREE_MIB} MiB or choose another folder with --data."
        )
    if error.errno in {errno.EEXIST, errno.ENOTDIR}:
        return f"The data folder {data} cannot be used: something that is no folder is in its place{where}."
    return (
        f"The data folder {data} cannot be written: {error.strerror}{where}. Choose another with --data or ASKOS_DATA."
    )
