"""A machine within the machine: processes, interfaces, mounts and ports of their own, gone when it ends.

The suite wants fixed things: port 2375 of loopback and a router with a fixed address. In namespaces of their own
several clouds can have these at once, beside whatever else runs here, and whatever ends us, the kernel takes all of it
away. What namespaces do not hold are control groups and files: `wipe` removes these, and `sweep` those of a run that
was killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_PREFIX = "askos-tempest-"

# The first process of the namespaces reaps orphans, so the command is not exec'ed. Mounts of other clouds were copied
# with the namespace: they go, or else their loop devices and network namespaces would stay for as long as we do.
_FIRST = """
while read -r source at kind _; do
  case "$at:$kind:$source" in
    /:*) ;;
    *:overlay:*|*:nsfs:*|*:/dev/loop*) umount -l "$at" ;;
  esac
done < /proc/self/mounts
mount -t tmpfs -o mode=755 tmpfs /run && ip link set lo up || exit 1
"$@"
exit $?
"""


@contextlib.contextmanager
def sandbox(argv: Sequence[str], env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command; its output is one pipe. When the block ends, or this process does, all of it is killed."""
    inside = ("unshare", "--net", "--mount", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
    command = ["setpriv", "--pdeathsig", "KILL", *inside, "bash", "-c", _FIRST, "sandbox", *argv]
    process = subprocess.Popen(
        command, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    """The kernel lets the first process of a namespace end when all others there have."""
    if process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        with contextlib.suppress(OSError):
            for pid in children.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A short-named folder for the clouds of this process. In the end everything of theirs is gone."""
    made = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        yield made
    finally:
        wipe(made)


def wipe(made: Path) -> None:
    """Remove such a folder, and the control groups of the clouds in it."""
    for path in made.glob("**/d/instance"):
        instance = path.read_text().strip()
        if re.fullmatch(r"[0-9a-f]{6}", instance):
            _remove_groups(f"askos-{instance}")
    shutil.rmtree(made, ignore_errors=True)


def _remove_groups(name: str) -> None:
    root = Path("/sys/fs/cgroup")
    for group in (root / name, *root.glob(f"*/{name}")):
        for at, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):  # somebody else's, or gone
                os.rmdir(at)


def sweep() -> None:
    """Wipe what runs left behind whose process is gone: it was killed with a signal that cannot be handled."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        if (found := re.fullmatch(rf"{_PREFIX}(\d+)-.+", path.name)) and not Path(f"/proc/{found[1]}").exists():
            wipe(path)
