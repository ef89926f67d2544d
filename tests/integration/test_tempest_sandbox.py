"""The sandbox of `make tempest`: fixed ports and addresses do not collide, and nothing of it outlives us."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tempest import sandbox as subject
from tests.tempest.sandbox import folder, sandbox, sweep

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "ip"))), reason="needs root and util-linux"
)


def until(look: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline, f"not within 60 s: {what}"
        time.sleep(0.02)


def processes(mark: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        except OSError:
            continue
        if mark in words and int(pid) != os.getpid():
            found.append(words)
    return found


def test_a_port_that_is_taken_here_is_free_inside() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        script = f"import socket; socket.create_server(('127.0.0.1', {port})); print('bound')"
        with sandbox([sys.executable, "-c", script], os.environ) as process:
            assert process.stdout is not None
            assert process.stdout.read() == "bound\n"
            assert process.wait(60) == 0


def test_the_exit_code_is_the_commands() -> None:
    with sandbox(["sh", "-c", "exit 7"], os.environ) as process:
        assert process.wait(60) == 7


def test_nothing_of_it_outlives_the_block(tmp_path: Path) -> None:
    """Not what was put into the background, nor interfaces, nor mounts."""
    mark = f"m{secrets.token_hex(4)}"
    script = f"mount -t tmpfs {mark} '{tmp_path}'; ip link add {mark} type bridge; setsid sh -c 'sleep 600; : {mark}' & echo up; wait"
    with sandbox(["sh", "-c", script], os.environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        until(lambda: len(processes(mark)) > 2, "it runs")
        assert mark not in Path("/proc/self/mountinfo").read_text()
        assert mark not in os.listdir("/sys/class/net")
    assert processes(mark) == []


def test_nothing_of_it_runs_on_when_we_are_killed() -> None:
    mark = f"m{secrets.token_hex(4)}"
    script = (
        "import os; from tests.tempest.sandbox import sandbox\n"
        f"with sandbox(['sh', '-c', 'sleep 600; : {mark}'], os.environ) as p: p.wait()"
    )
    us = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    try:
        until(lambda: len(processes(mark)) > 2, "it runs")
    finally:
        us.send_signal(signal.SIGKILL)
        us.wait()
    until(lambda: processes(mark) == [], "it is gone")


def test_files_and_control_groups_go_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_PREFIX", f"askos-test{secrets.token_hex(3)}-")
    instance = secrets.token_hex(3)
    groups = Path(next(iter(Path("/sys/fs/cgroup").glob("cgroup.procs")), Path("/sys/fs/cgroup/pids/x"))).parent
    group = groups / f"askos-{instance}" / "child"
    with folder() as made:
        data = made / "askos-acc-x" / "d"
        data.mkdir(parents=True)
        (data / "instance").write_text(f"{instance}\n")
        group.mkdir(parents=True)
        sweep()
        assert data.exists(), "a run that goes on was swept"
    assert not made.exists()
    assert not group.parent.exists()


def test_what_a_killed_run_left_is_swept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(subject.tempfile, "gettempdir", lambda: str(tmp_path))
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / f"askos-tempest-{gone.pid}-x" / "d").mkdir(parents=True)
    (tmp_path / "askos-tempest-notes").mkdir()
    sweep()
    assert os.listdir(tmp_path) == ["askos-tempest-notes"]
