"""Runs clients' commands faster: a process that has imported them once and forks for each command.

`openstack` needs more than a second to import what it may need, and tests run it a hundred times. A command run here
is the program's own entry point in a process of its own, with its own arguments, environment, files and exit code.

Reads from its input one JSON object a line (`program`, `argv`, `env`, `cwd`, `files`: paths of stdin, stdout, stderr),
and writes for each the exit code.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import Any

PROGRAMS = ("openstack", "zun")


def entry_points() -> dict[str, Callable[[], Any]]:
    """What the installed scripts call."""
    found = {name: tuple(metadata.entry_points(group="console_scripts", name=name)) for name in PROGRAMS}
    return {name: points[0].load() for name, points in found.items()}


def warm(main: Callable[[], Any]) -> None:
    """Let a client read the list of its plug-ins and import the modules of their commands."""
    sys.argv = ["openstack", "--version"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main()
    for point in metadata.entry_points(group="openstack.container.v1"):
        point.load()


def command(main: Callable[[], Any], asked: dict[str, Any]) -> int:
    """In the child: be that program. The exit code."""
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    for number, path in enumerate(asked["files"]):
        opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = [asked["program"], *asked["argv"]]
    code: Any
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code or 0)


def serve() -> None:
    """Until the input ends."""
    # A child gets files of its own in place of 0 and 1; what is said there now must not mix with the answers.
    questions, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    mains = entry_points()
    warm(mains["openstack"])
    gc.freeze()
    answers.write("ready\n")
    answers.flush()
    for line in questions:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                questions.close()
                code = command(mains[asked["program"]], asked)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    serve()
