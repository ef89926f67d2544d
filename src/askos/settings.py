"""What an operator can set, and the one place that reads it: a TOML file, the environment and flags.

A flag wins over the environment, the environment over the file, the file over the default. Every setting has
one name: setting `port` of the group `listen` is `port` under `[listen]` in the file, `ASKOS_PORT` in the
environment and the flag "port". Programs get a `Settings` passed in; nothing else reads any of the three.
"""

from __future__ import annotations

import socket
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from askos import parse
from askos.model.errors import SetupError
from askos.paths import Paths

DEFAULT_DATA = Path("/var/lib/askos")
FILE_NAME = "askos.toml"


def _as(parser: parse.Parser, name: str | None = None, flag: str | None = None) -> dict[str, Any]:
    """Metadata of a setting. `name`: in flags and the environment, where the bare one would say too little. `flag`: how
    users write the flag, where it is not the name."""
    return {"parse": parser, "name": name, "flag": flag}


@dataclass(frozen=True, kw_only=True)
class Listen:
    """Where the API answers."""

    address: str = field(default="127.0.0.1", metadata=_as(parse.address))
    """IP address. On loopback the API is plain HTTP, on any other it has TLS. "0.0.0.0" is all of IPv4."""
    port: int = field(default=9517, metadata=_as(parse.within(1, 65535, int)))
    """TCP port. Change it to run a second cloud on the machine."""
    public_url: str | None = field(default=None, metadata=_as(parse.url))
    """What clients are told. None: made from address and port. Set it behind a proxy, or when the machine has a
    name; the certificate then holds that name too."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the API."""
        return ip_address(self.address).is_loopback

    @property
    def scheme(self) -> str:
        """What the port speaks: "http" on loopback, else "https"."""
        return "http" if self.is_loopback else "https"

    @property
    def url(self) -> str:
        """The address that clients use, such as http://127.0.0.1:9517."""
        if self.public_url is not None:
            return self.public_url
        host = self.address
        if ip_address(host).is_unspecified:
            host = own_address(6 if ":" in host else 4)
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Database:
    """Where the control plane keeps what it knows."""

    url: str | None = field(default=None, metadata=_as(parse.text, "database_url"))
    """SQLAlchemy URL with an asyncio driver. None: the SQLite file askos.db in the data folder."""
    content_key: str | None = field(default=None, metadata=_as(parse.key, "content_key"), repr=False)
    """32 bytes in base64 with which config maps and secrets are encrypted in the database. None: made at the first
    start and kept in content.key in the data folder. Servers on one database need the same."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """How agents and servers meet."""

    socket: Path | None = field(default=None, metadata=_as(parse.path, "link_socket"))
    """Unix socket on which the server waits for agents. None: run/link.sock in the data folder."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What runs the containers: containerd."""

    socket: Path | None = field(default=None, metadata=_as(parse.path, "containerd_socket"))
    """Socket of a containerd that somebody else runs. None: a private one under the data folder, started and
    watched by the agent. One that is given must have a CRI plugin set up for our CNI plugin
    (docs/architecture.md)."""
    pull_stall_s: int = field(default=120, metadata=_as(parse.within(5, 86400, int)))
    """Seconds without a new byte after which an image pull is given up. Raise it for very slow registries."""


@dataclass(frozen=True, kw_only=True)
class Networking:
    """Addresses of container networks."""

    pool: str | None = field(default=None, metadata=_as(parse.pool, "network_pool"))
    """IPv4 range out of which every project's network takes a /22. None: the first start chooses a /12 inside
    10.0.0.0/8 that overlaps no route of the machine. Set it when that range is used behind a router."""
    external_cidr: str = field(default="172.24.4.0/24", metadata=_as(parse.outside))
    """IPv4 range of the external network "public", out of which floating addresses are given. Hosts answer for them on
    themselves: whoever else is to reach them needs a route to the host. It cannot change while some are given out."""
    transit_cidr: str = field(default="100.127.0.0/16", metadata=_as(parse.outside))
    """IPv4 range out of which a host takes addresses between itself and its networks: two for each network and each
    floating address on it. They leave no host, so all hosts have the same range. Change it where something that a host
    must reach is inside."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The embedded identity service."""

    token_lifetime_s: int = field(default=3600, metadata=_as(parse.within(60, 30 * 86400, int)))
    """Seconds that a token is good for. Shorter is safer, longer saves log-ins."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What this machine offers as a host."""

    name: str | None = field(default=None, metadata=_as(parse.text, "host_name"))
    """Name of the host in the API. None: the machine's host name."""
    labels: tuple[tuple[str, str], ...] = field(default=(), metadata=_as(parse.labels, "host_labels", "--label"))
    """What the operator says of the host, for users to choose by: a container with the hint "label:disk" "ssd" goes
    where disk=ssd alone. In the file a table, elsewhere "key=value,key=value"."""
    cpu_allocation_ratio: float = field(default=16.0, metadata=_as(parse.within(0.1, 1000, float)))
    """CPUs that may be given away for each one there is: shares are promised, not cores. Lower it for steady
    load."""
    memory_allocation_ratio: float = field(default=1.5, metadata=_as(parse.within(0.1, 100, float)))
    """MiB of limits that may be given away for each MiB there is. Above 1.0 the kernel may have to kill."""
    warm_sandboxes: int = field(default=2, metadata=_as(parse.within(0, 100, int)))
    """Sandboxes made in advance, so that the next capsules start in about half the time. Each takes some 10 MiB of
    memory. 0: none."""

    @property
    def hostname(self) -> str:
        """The name, with the default filled in."""
        return self.name or socket.gethostname()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one container may ask for; a request outside gets a 400."""

    min_cpu: float = field(default=0.1, metadata=_as(parse.within(0.01, 1024, float)))
    """CPU shares, 1.0 being 1,024 shares of the kernel's controller."""
    max_cpu: float = field(default=16.0, metadata=_as(parse.within(0.01, 1024, float)))
    """See min_cpu."""
    min_memory_mib: int = field(default=4, metadata=_as(parse.within(1, 1 << 30, int)))
    """MiB. Below 4 the kernel kills most programs before their first line."""
    max_memory_mib: int = field(default=8192, metadata=_as(parse.within(4, 1 << 30, int)))
    """MiB. Raise it on machines with more memory to give."""
    archive_mib: int = field(default=64, metadata=_as(parse.within(1, 4096, int)))
    """MiB of an archive in Zun's get_archive and put_archive, which take some four times as much memory of the server.
    `askos cp` streams and has no limit."""
    log_mib: int = field(default=10, metadata=_as(parse.within(1, 1 << 20, int)))
    """MiB by which a log may outgrow what is kept of it before its oldest part is removed."""
    log_files: int = field(default=5, metadata=_as(parse.within(1, 1000, int)))
    """What is kept of the log of each start of a container, in parts of log_mib."""


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """What the containers and capsules of one project may use together, unless its own quotas or the quota class
    "default" say something else. -1: no limit."""

    containers: int = field(default=40, metadata=_as(parse.within(-1, 1 << 30, int), "quota_containers"))
    """Containers."""
    memory: int = field(default=51200, metadata=_as(parse.within(-1, 1 << 30, int), "quota_memory"))
    """MiB of memory."""
    cpu: int = field(default=20, metadata=_as(parse.within(-1, 1 << 30, int), "quota_cpu"))
    """CPUs."""
    disk: int = field(default=100, metadata=_as(parse.within(-1, 1 << 30, int), "quota_disk"))
    """GiB of files, of containers that have such a limit."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Who may do what."""

    file: Path | None = field(default=None, metadata=_as(parse.path, "policy_file"))
    """oslo.policy's file, in YAML, with rules in place of the usual ones; it is read anew when it changes. None:
    policy.yaml in the data folder, if there is one."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Where images are looked for."""

    search_url: str = field(default="https://index.docker.io", metadata=_as(parse.url, "image_search_url"))
    """A registry that answers GET /v1/search as Docker Hub does. Change it where the server cannot reach the hub."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """What is written to the log."""

    level: str = field(default="info", metadata=_as(parse.one_of("debug", "info", "warning", "error"), "log_level"))
    """debug, info, warning or error. debug writes each step of each capsule."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set, in groups."""

    data: Path = field(default=DEFAULT_DATA, metadata=_as(parse.path))
    """The folder of this cloud: database, sockets, images, logs, credentials. Two clouds need two folders."""
    listen: Listen = field(default_factory=Listen)
    database: Database = field(default_factory=Database)
    link: Link = field(default_factory=Link)
    runtime: Runtime = field(default_factory=Runtime)
    network: Networking = field(default_factory=Networking)
    identity: Identity = field(default_factory=Identity)
    host: Host = field(default_factory=Host)
    limits: Limits = field(default_factory=Limits)
    quotas: Quotas = field(default_factory=Quotas)
    policy: Policy = field(default_factory=Policy)
    images: Images = field(default_factory=Images)
    log: Log = field(default_factory=Log)

    @property
    def paths(self) -> Paths:
        """Where everything in the data folder is."""
        return Paths(self.data)

    @property
    def database_url(self) -> str:
        """The database's URL, with the default filled in."""
        return self.database.url or f"sqlite+aiosqlite:///{self.paths.database}"

    @property
    def policy_file(self) -> Path:
        """The policy file, which need not be there."""
        return self.policy.file or self.paths.policy

    @property
    def link_socket(self) -> Path:
        """The link's socket, with the default filled in."""
        return self.link.socket or self.paths.link_socket

    @property
    def containerd_socket(self) -> Path:
        """The socket of the containerd in use, private or not."""
        return self.runtime.socket or self.paths.containerd_socket


def load(flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """Read the settings.

    `flags` maps names to values, None meaning "not given"; `file` is the TOML file that a flag names. Without
    one it is the file `ASKOS_CONFIG`, else `askos.toml` in the data folder if there is one. Raises SetupError
    that names the setting and where it was set: for a name in file or flags that is unknown, and for a value
    that cannot be. Paths in the file are absolute; others may be relative to the working directory.
    """
    unknown = flags.keys() - {_name(spec) for spec in _specs()}
    if unknown:
        raise SetupError(f"There is no setting {', '.join(sorted(unknown))}.")
    named = file or (Path(environ["ASKOS_CONFIG"]) if environ.get("ASKOS_CONFIG") else None)
    given = _Given(flags, environ, {}, "")
    if named is not None:
        given = _Given(flags, environ, _read(named), str(named))
    else:
        implied = given.value(_fields(Settings)["data"], None) / FILE_NAME
        if _exists(implied):
            given = _Given(flags, environ, _read(implied), str(implied))
            if "data" in given.table:
                raise SetupError(f"Remove data from {implied}: a file in the data folder cannot move it.")
    given.refuse_unknown()
    settings = Settings(data=given.value(_fields(Settings)["data"], None), **given.groups())
    limits = settings.limits
    for low, high, unit in (
        (limits.min_cpu, limits.max_cpu, "cpu"),
        (limits.min_memory_mib, limits.max_memory_mib, "memory_mib"),
    ):
        if low > high:
            raise SetupError(f"Bad settings min_{unit} = {low} and max_{unit} = {high}: nothing lies between.")
    return settings


def own_address(family: int = 4) -> str:
    """The machine's address on the way to the world, or loopback when it has none. Sends nothing."""
    kind, far, near = (
        (socket.AF_INET6, "2001:db8::1", "::1") if family == 6 else (socket.AF_INET, "192.0.2.1", "127.0.0.1")
    )
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return near


class _Given(NamedTuple):
    """What was said, and where: flags, environment, and the file's table with the file's name."""

    flags: Mapping[str, Any]
    environ: Mapping[str, str]
    table: Mapping[str, Any]
    source: str

    def groups(self) -> dict[str, Any]:
        """All groups, filled in."""
        return {
            name: group(**{spec.name: self.value(spec, name) for spec in fields(group)})
            for name, group in _groups().items()
        }

    def value(self, spec: Field[Any], section: str | None) -> Any:
        """The value that wins. SetupError when it is none that the setting can have."""
        name, parser = _name(spec), spec.metadata["parse"]
        variable = f"ASKOS_{name.upper()}"
        table = self.table.get(section, {}) if section else self.table
        if self.flags.get(name) is not None:
            said, value = spec.metadata["flag"] or f"--{name.replace('_', '-')}", self.flags[name]
        elif self.environ.get(variable):
            said, value = variable, self.environ[variable]
        elif spec.name in table:
            where = f"{self.source} [{section}]" if section else self.source
            return _parsed(parser, f"{spec.name} in {where}", table[spec.name])
        else:
            return spec.default
        return _parsed(parser, said, Path(value).absolute() if parser is parse.path and value else value)

    def refuse_unknown(self) -> None:
        """A misspelt name in the file must not be overlooked. Variables may belong to somebody else."""
        groups, top = _groups(), _fields(Settings)
        for key, value in self.table.items():
            if key not in top:
                raise SetupError(f"Unknown setting {key} in {self.source}. Known are: {', '.join(top)}.")
            if key not in groups:
                continue
            if not isinstance(value, dict):
                raise SetupError(f"Bad setting {key} in {self.source}: it is a section, [{key}].")
            known = _fields(groups[key])
            for inner in value:
                if inner not in known:
                    raise SetupError(
                        f"Unknown setting {inner} in {self.source} [{key}]. Known are: {', '.join(known)}."
                    )


def _parsed(parser: parse.Parser, said: str, value: Any) -> Any:
    try:
        return parser(value)
    except ValueError as error:
        shown = value if isinstance(value, str | Path) else repr(value)
        shown = "" if parser is parse.key else f" = {shown}"
        raise SetupError(f"Bad setting {said}{shown}: it {error}.") from None


def _groups() -> dict[str, Any]:
    return {spec.name: spec.default_factory for spec in fields(Settings) if spec.default_factory is not MISSING}


def _fields(owner: Any) -> dict[str, Field[Any]]:
    return {spec.name: spec for spec in fields(owner)}


def _specs() -> list[Field[Any]]:
    return [_fields(Settings)["data"], *(spec for group in _groups().values() for spec in fields(group))]


def _name(spec: Field[Any]) -> str:
    return str(spec.metadata["name"] or spec.name)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SetupError(f"Cannot read the settings file {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"Cannot read the settings file {path}: {error}. It must be TOML.") from None
