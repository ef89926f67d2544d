"""The options of `run` and `create` that say more than one thing in a word: volumes, files, ports, networks, checks.

Each function takes what was typed and gives the API's own form; ValueError says how it is written instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from askos.cli import text

FILE_BYTES = 512 * 1024
"""What a file may hold that goes into a container with its create."""
MOST_PORTS = 100
_HERE = ("/", ".", "~")
_KEYS = {
    "src": "source", "source": "source", "dst": "destination", "target": "destination", "destination": "destination",
    "type": "type", "size": "size", "readonly": "readonly", "ro": "readonly",
}  # fmt: skip


def volume(given: str) -> dict[str, Any]:
    """`-v NAME:/path`: a mount of a volume."""
    source, colon, rest = given.partition(":")
    if source.startswith(_HERE):
        raise ValueError(
            f"{given!r}: a container cannot see folders of a machine. Make a volume (`askos volume create`) and write "
            "NAME:/path, give single files with --file, or copy with `askos cp`"
        )
    destination, _, options = rest.partition(":")
    if not (colon and source and destination.startswith("/")):
        raise ValueError(
            f"{given!r} is no volume. Write NAME:/path, or --mount size=10,destination=/path for a new one"
        )
    for option in options.split(",") if options else []:
        if option in ("ro", "readonly"):
            raise ValueError(_READ_ONLY)
        if option != "rw":
            raise ValueError(f"{given!r}: there is no option {option!r}. Write NAME:/path")
    return {"type": "volume", "source": source, "destination": destination}


_READ_ONLY = "volumes of a container can be written to: its API knows no others. A capsule has readOnly in volumeMounts"


def mount(given: str) -> dict[str, Any]:
    """`--mount type=volume,source=NAME,destination=/path`: a volume, a new one (size=GiB), or a file (type=bind)."""
    found: dict[str, str] = {}
    for pair in given.split(","):
        key, equals, value = pair.partition("=")
        if key not in _KEYS:
            known = "type, source, destination, size"
            raise ValueError(f"{given!r}: there is no {key!r}. Write {known}, each as key=value")
        found[_KEYS[key]] = value if equals else "true"
    kind = found.get("type", "volume")
    source, destination, size = found.get("source", ""), found.get("destination", ""), found.get("size", "")
    if found.get("readonly", "false") != "false":
        raise ValueError(_READ_ONLY)
    if not destination.startswith("/"):
        raise ValueError(f"{given!r} does not say where. Write destination=/path")
    if kind == "bind":
        if not source or size:
            raise ValueError(f"{given!r}: a bind puts one file there. Write type=bind,source=FILE,destination=/path")
        return file(f"{source}:{destination}")
    if kind != "volume":
        raise ValueError(f"{given!r}: there are mounts of type volume and bind (a file), not {kind!r}")
    if bool(source) == bool(size):
        raise ValueError(
            f"{given!r}: write either source=NAME, or size=GiB for a new volume that goes with the container"
        )
    if source:
        return {"type": "volume", "source": source, "destination": destination}
    return {"type": "volume", "size": str(text.parse_size_gib(size)), "destination": destination}


def file(given: str) -> dict[str, Any]:
    """`--file LOCAL:/path`: a file with the content of a local one."""
    from base64 import b64encode

    local, colon, destination = given.rpartition(":/")
    if not (colon and local and destination):
        raise ValueError(f"{given!r} is no file. Write LOCAL:/path/in/container")
    try:
        with Path(local).expanduser().open("rb") as source:
            content = source.read(FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {local}: {(error.strerror or str(error)).lower()}") from None
    if len(content) > FILE_BYTES:
        raise ValueError(
            f"{local} is larger than {FILE_BYTES // 1024} KiB. Copy it in with `askos cp`, or use a volume"
        )
    return {"type": "bind", "source": b64encode(content).decode(), "destination": f"/{destination}"}


def ports(given: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`-p PORT[-PORT][/udp]`: the ports to open, each as "80/tcp"."""
    found: dict[str, dict[str, Any]] = {}
    for each in given:
        if ":" in each:
            raise ValueError(
                f"{each!r}: a port of the host cannot be given away. Write the container's port only: it is opened "
                "on the container's own address. For an address outside see `askos floating-ip attach`"
            )
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp))?", each, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 1 <= first <= last <= 65535:
            raise ValueError(f"{each!r} is no port. Write 80, 53/udp or 8000-8010")
        found |= {f"{port}/{match[3] or 'tcp'}": {} for port in range(first, min(last, first + MOST_PORTS) + 1)}
        if len(found) > MOST_PORTS:
            raise ValueError(f"{each!r}: that is more than {MOST_PORTS} ports. Open them in a group: --security-group")
    return found


def nets(given: Iterable[str], address: str | None, address6: str | None = None) -> list[dict[str, str]]:
    """`--net NAME[:ip=ADDRESS][,ip6=ADDRESS]` or `--net name=NAME,ip=ADDRESS` or `--net port=PORT`; `--ip` and `--ip6`
    for the only one."""
    found = [_net(each) for each in given]
    for option, key, wanted in (("ip", "v4-fixed-ip", address), ("ip6", "v6-fixed-ip", address6)):
        if wanted is None:
            continue
        if len(found) != 1 or key in found[0] or "port" in found[0]:
            raise ValueError(
                f"--{option} goes with exactly one --net NAME. With several, write --net NAME:{option}=ADDRESS"
            )
        found[0][key] = wanted
    return found


def _net(given: str) -> dict[str, str]:
    if given in ("host", "none"):
        raise ValueError(f"{given!r}: a container always has a network of its own. See `askos network ls`")
    # The colon behind the name, not those of IPv6.
    words = {"name": "network", "network": "network", "port": "port", "ip": "v4-fixed-ip", "ip6": "v6-fixed-ip"}
    first, *pairs = re.sub(r"^([^,:]+):", r"\1,", given).split(",")
    if "=" not in first:
        first = f"name={first}"
    found: dict[str, str] = {}
    for pair in (first, *pairs):
        key, _, value = pair.partition("=")
        if key not in words or not value:
            raise ValueError(f"{given!r} is no network. Write NAME, NAME:ip=ADDRESS, NAME:ip6=ADDRESS or port=PORT")
        found[words[key]] = value
    fixed = found.keys() & {"v4-fixed-ip", "v6-fixed-ip"}
    if ("network" in found) == ("port" in found) or ("port" in found and fixed):
        raise ValueError(f"{given!r}: write NAME, NAME:ip=ADDRESS, or port=PORT (a port has its address)")
    return found


def health(command: str | None, numbers: dict[str, int | None]) -> dict[str, Any] | None:
    """`--health-cmd` and what goes with it."""
    rest = {name: value for name, value in numbers.items() if value is not None}
    if command is None:
        if rest:
            raise ValueError(f"--health-{next(iter(rest))} goes with --health-cmd, which says how to check")
        return None
    return {"cmd": command, **rest}


def seconds(given: str) -> int:
    """'30s', '1m' or a number of seconds."""
    found = int(given) if given.isascii() and given.isdigit() else text.parse_span_s(given)
    if not found:
        raise ValueError(f"{given!r} is not a time. Write 30s, 5m or a number of seconds")
    return found
