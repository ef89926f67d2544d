"""The images that the suite names, made from this machine's busybox and curl: no registry is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.acceptance.image_fixtures import Image

APPLETS = ("sleep", "cat", "echo", "ping", "ls", "httpd", "ps", "true", "hostname")
WELCOME = b"<html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1></body></html>\n"
_PAGES = "usr/share/nginx/html"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"askos: {name} is not installed. `make tempest` installs it; or apt-get install {name}.")
    return Path(found)


def _with_libraries(program: Path) -> dict[str, bytes]:
    """A program and every library it is linked with, at the paths where its loader looks."""
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True, timeout=30).stdout
    paths = {Path(found) for found in re.findall(r"(/\S+) \(0x", listed)}
    return {str(path).lstrip("/"): path.read_bytes() for path in (program, *paths)}


def _applets() -> dict[str, bytes]:
    """A script for each program of busybox: this machine's is one file for all, of two megabytes."""
    busybox = _program("busybox").read_bytes()
    scripts = {f"bin/{name}": f'#!/bin/sh\nexec /bin/busybox {name} "$@"\n'.encode() for name in APPLETS}
    folders = {"tmp/.keep": b"", "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n"}
    return {"bin/busybox": busybox, **scripts, **folders}


def cirros() -> Image:
    """A shell, the usual programs and curl; it sleeps when nothing else is asked of it."""
    files = {**_applets(), **_with_libraries(_program("curl"))}
    return Image("cirros", files, {"Env": [_PATH], "Cmd": ["/bin/sh", "-c", "sleep 1000000"]})


def nginx() -> Image:
    """Answers on port 80 with the words that the suite looks for."""
    files = {**_applets(), f"{_PAGES}/index.html": WELCOME}
    return Image("nginx", files, {"Env": [_PATH], "Cmd": ["httpd", "-f", "-p", "80", "-h", f"/{_PAGES}"]})


def ubuntu() -> Image:
    """A bash at its usual place, and an entrypoint that gives it an input that stays open.

    The suite runs bash without an input in a capsule and wants to see it running: Zun says so of whatever was started
    once. Here the status is what is, and such a bash has ended.
    """
    bash = _program("bash")
    files = {**_applets(), **_with_libraries(bash), "bin/bash": bash.read_bytes()}
    entrypoint = ["/bin/sh", "-c", 'sleep 1000000 | "$0" "$@"']
    return Image("ubuntu", files, {"Env": [_PATH], "Entrypoint": entrypoint, "Cmd": ["/bin/bash"]})


def alpine() -> Image:
    """What the suite pulls with Docker and puts into the image service."""
    return Image("alpine", _applets(), {"Env": [_PATH], "Cmd": ["/bin/sh"]})
