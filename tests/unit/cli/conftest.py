"""Fixtures: a fake cloud, an environment that points at it, and the CLI as a function and as a program."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fakecloud


@pytest.fixture
def cloud():
    with fakecloud.FakeCloud() as running:
        yield running


@pytest.fixture
def environment(cloud, tmp_path):
    """Variables for a child process: nothing of the developer's own clouds gets in."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OS_", "ASKOS_", "XDG_"))}
    return {
        **clean,
        "HOME": str(tmp_path),
        "ASKOS_DATA": str(tmp_path / "data"),
        "OS_AUTH_URL": f"{cloud.url}/v3",
        "OS_USERNAME": cloud.user,
        "OS_PASSWORD": cloud.password,
        "OS_PROJECT_NAME": cloud.project,
    }


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def askos(environment, monkeypatch, capfdbinary):
    """Run the CLI in this process, as `main` does: gives exit code, stdout and stderr."""
    from askos.cli import main

    for name in [n for n in os.environ if n.startswith(("OS_", "ASKOS_", "XDG_"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def call(*args: str) -> Ran:
        capfdbinary.readouterr()
        code = main.run(list(args))
        out, err = capfdbinary.readouterr()
        return Ran(code, out.decode(), err.decode())

    return call


@pytest.fixture
def program(environment):
    """Run the CLI as a program of its own; returns the started process."""

    def start(*args: str, **options) -> subprocess.Popen:
        argv = [str(Path(sys.executable).parent / "askos"), *args]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(argv, env=environment, **{**pipes, **options}))
        return started[-1]

    started: list[subprocess.Popen] = []
    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe and not pipe.closed:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
