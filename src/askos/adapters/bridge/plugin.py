"""The executables that containerd calls, and the configuration that names them.

`askos-cni` has one job: carry the call to the agent and its answer back, fast. It imports only three built-in
modules and needs no virtual environment, so it starts in the time of an empty Python program. `loopback` is what
containerd's CRI calls before every network; our ADD brings lo up itself, so a shell script with a fixed answer does.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from askos.model.errors import SetupError

NAME = "askos-cni"
CONF = "10-askos.conflist"
CNI_VERSION = "1.0.0"
SUPPORTED = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"]
_MARK = "Made by Askos"
_SAFE_PATH = re.compile(r"/[A-Za-z0-9_./+@:-]*")

_CLIENT = """#!@PYTHON@ -ISE
# Made by Askos; it writes this file anew at each start. Carries a CNI call to the agent and the answer back.
# No json, no os, no socket: they would triple the time that every container's start waits for this program.
import posix, _socket


def fail(why):
    why = why.replace("\\\\", "/").replace('"', "'")
    posix.write(1, ('{"cniVersion":"1.0.0","code":11,"msg":"' + why + '","details":""}\\n').encode("utf-8", "replace"))
    posix._exit(1)


def main():
    env = posix.environ
    if env.get(b"CNI_COMMAND") == b"VERSION":
        posix.write(1, b'@VERSIONS@\\n')
        posix._exit(0)
    config = b""
    while True:
        chunk = posix.read(0, 65536)
        if not chunk:
            break
        config += chunk
    parts = config.partition(b'"askosSocket"')[2].split(b'"', 2)
    if len(parts) < 3:
        fail("The network configuration names no askosSocket: is this program called with Askos' own conflist?")
    path = parts[1]
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.settimeout(5)
        sock.connect(path)
        sock.settimeout(90)
        sock.sendall(b"\\0".join([k + b"=" + v for k, v in env.items() if k[:4] == b"CNI_"]) + b"\\0\\0" + config)
        sock.shutdown(_socket.SHUT_WR)
        answer = b""
        while True:
            chunk = sock.recv(65536)
            if not chunk:
                break
            answer += chunk
    except OSError as error:
        where = path.decode("utf-8", "replace") + " (" + str(error) + ")"
        fail("The Askos agent does not answer on " + where + ": is it running?")
    code, found, output = answer.partition(b"\\n")
    if not found or not code.isdigit():
        fail("The Askos agent ended in the middle of the call; try again.")
    while output:
        output = output[posix.write(1, output):]
    posix._exit(int(code))


main()
"""

_LOOPBACK = r"""#!/bin/sh
# Made by Askos; it writes this file anew at each start. lo is brought up together with the capsule's ports.
case "$CNI_COMMAND" in
VERSION)
    echo '{"cniVersion":"1.0.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0"]}'
    exit 0 ;;
ADD) ;;
*)
    exit 0 ;;
esac
config=
while IFS= read -r line || [ -n "$line" ]; do config="$config$line"; done
version=0.3.1
case "$config" in
*'"cniVersion":"'*) version=${config#*\"cniVersion\":\"}; version=${version%%\"*} ;;
esac
of=
case "$version" in 0.*) of='"version":"4",' ;; esac
printf '{"cniVersion":"%s","interfaces":[{"name":"%s","mac":"00:00:00:00:00:00","sandbox":"%s"}],' \
    "$version" "$CNI_IFNAME" "$CNI_NETNS"
printf '"ips":[{%s"interface":0,"address":"127.0.0.1/8"}],"dns":{}}\n' "$of"
"""


def client_text(python: str) -> str:
    """The source of askos-cni, to be run by this interpreter."""
    versions = json.dumps({"cniVersion": CNI_VERSION, "supportedVersions": SUPPORTED}, separators=(",", ":"))
    return _CLIENT.replace("@PYTHON@", python).replace("@VERSIONS@", versions)


def conf_text(instance: str, socket_path: Path) -> str:
    """The conf list that names askos-cni and the agent's socket."""
    plugin = {"type": NAME, "askosSocket": str(socket_path)}
    return json.dumps({"cniVersion": CNI_VERSION, "name": f"askos-{instance}", "plugins": [plugin]}, indent=2) + "\n"


def interpreter() -> str:
    """A Python outside every virtual environment: the host's own (it starts fastest), else the one we run on."""
    for candidate in ("/usr/bin/python3", getattr(sys, "_base_executable", ""), sys.executable):
        # The kernel reads a script's first line up to 127 characters, cut at spaces.
        if candidate and " " not in candidate and len(candidate) < 100 and os.access(candidate, os.X_OK):
            return str(candidate)
    raise SetupError("Cannot install askos-cni: no Python interpreter with a short path was found. Install python3.")


def install(plugin_root: Path, conf_root: Path, instance: str, socket_path: Path) -> None:
    """Write the executables and the conf list; what is already right stays untouched. SetupError if impossible."""
    if not _SAFE_PATH.fullmatch(str(socket_path)) or len(str(socket_path)) > 100:
        raise SetupError(
            f"Cannot use the socket {socket_path}: the path must be absolute, at most 100 characters, and made of "
            "letters, digits and _./+@:- only."
        )
    try:
        plugin_root.mkdir(parents=True, exist_ok=True)
        conf_root.mkdir(parents=True, exist_ok=True)
        _write(plugin_root / NAME, client_text(interpreter()), 0o755)
        loopback = plugin_root / "loopback"
        if not loopback.exists() or _is_ours(loopback):  # the reference plugin is as good
            _write(loopback, _LOOPBACK, 0o755)
        _write(conf_root / CONF, conf_text(instance, socket_path), 0o644)
    except OSError as error:
        raise SetupError(
            f"Cannot install the network plugin: {error.filename or plugin_root}: {error.strerror}. "
            "The agent must run as root and its CNI folders must be writable."
        ) from None


def uninstall(plugin_root: Path, conf_root: Path, instance: str) -> None:
    """Remove what `install` wrote for this cloud."""
    conf = conf_root / CONF
    if not conf.exists() or f'"askos-{instance}"' not in conf.read_text(errors="replace"):
        return
    conf.unlink()
    for path in (plugin_root / NAME, plugin_root / "loopback"):
        if path.exists() and _is_ours(path):
            path.unlink()


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return _MARK.encode() in file.read(400)


def _write(path: Path, content: str, mode: int) -> None:
    if path.exists() and path.read_text(errors="replace") == content and path.stat().st_mode & 0o777 == mode:
        return
    # containerd may run or read the file at any moment: it is replaced whole, and drafts end in no known suffix.
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(content)
    draft.chmod(mode)
    draft.replace(path)
