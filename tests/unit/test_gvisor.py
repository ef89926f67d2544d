"""The program between containerd's shim and gVisor's runsc, with a runsc that only writes down what it is asked."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from askos.adapters.containerd import config, gvisor

_RUNSC = r"""#!/bin/sh
echo "$@" >>'@HOME@/calls'
for word; do
  case $word in
    create) create=1 ;; start) echo started; echo trouble >&2 ;;
    wait) while [ ! -e '@HOME@/over' ]; do sleep 0.02; done; cat '@HOME@/over'; exit 0 ;;
    kill) [ ! -e '@HOME@/deaf' ] || { echo 'it went wrong' >&2; exit 1; } ;;
    state) cat '@HOME@/state' ;;
    delete) : >'@HOME@/over' ;;
    fail) exit 7 ;;
  esac
  if [ -n "$create" ]; then case $before in --pid-file) echo 1 >"$word" ;; esac; fi
  before=$word
done
"""


class Shim:
    """Calls the program as containerd's shim does."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.bundle = home / "my bundle"
        self.bundle.mkdir()
        self.pid_file = self.bundle / "init.pid"
        self.program = home / "askos-runsc"
        runsc = home / "fake runsc"
        runsc.write_text(_RUNSC.replace("@HOME@", str(home)))
        runsc.chmod(0o755)
        gvisor.write_program(self.program, runsc)
        self.describe("container")

    def describe(self, kind: str) -> None:
        (self.bundle / "config.json").write_text(f'{{"annotations":{{"io.kubernetes.cri.container-type":"{kind}"}}}}')

    def call(self, *words: str, **streams: object) -> subprocess.CompletedProcess[bytes]:
        first = ["--root", str(self.home / "root"), "--log", str(self.bundle / "log.json"), "--log-format", "json"]
        streams = streams or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.run([self.program, *first, *words], timeout=20, check=False, **streams)  # type: ignore[call-overload,no-any-return]

    def create(self, stdout: object = subprocess.DEVNULL, stderr: object = subprocess.DEVNULL, *more: str) -> int:
        words = ("create", "--bundle", str(self.bundle), "--pid-file", str(self.pid_file), *more, "c1")
        return self.call(*words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr).returncode

    def stand_in(self) -> int:
        return int(self.pid_file.read_text())

    def calls(self) -> list[str]:
        return (self.home / "calls").read_text().splitlines()


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[Shim]:
    made = Shim(tmp_path)
    yield made
    # Whoever still waits for the container's end is let go.
    (tmp_path / "over").touch()


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether a process has ended; whoever adopted it may not have fetched its exit code yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_container_from_create_to_its_end(shim: Shim) -> None:
    out, err = shim.bundle / "out", shim.bundle / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        assert shim.create(stdout, stderr) == 0
    pid = shim.stand_in()
    assert not gone(pid)
    started = shim.call("start", "c1")
    assert (started.returncode, started.stdout, started.stderr) == (0, b"", b"")
    assert (out.read_text(), err.read_text()) == ("started\n", "trouble\n"), "a start has the container's streams"
    until(lambda: "wait c1" in shim.calls()[-1])
    assert not gone(pid)
    (shim.home / "over").touch()
    until(lambda: gone(pid))
    assert all("--network=host" in call for call in shim.calls())


@pytest.mark.parametrize(("answer", "code"), [('{"id":"c1","exitStatus":3}', 3), ("", 137)])
def test_the_stand_in_ends_as_the_container_does(shim: Shim, answer: str, code: int) -> None:
    # As the shim does, so that the stand-in becomes a child of this process when the program has ended.
    script = (
        "import ctypes, os, subprocess, sys, time\n"
        "assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n"
        "program, over, answer, pid_file, *create = sys.argv[1:]\n"
        "subprocess.run([program, *create, 'c1'], check=True)\n"
        "start = create[: create.index('create')] + ['start', 'c1']\n"
        "subprocess.run([program, *start], check=True, stdout=subprocess.DEVNULL)\n"
        "open(over + '.new', 'w').write(answer)\n"
        "os.rename(over + '.new', over)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(int(open(pid_file).read()), 0)[1]))\n"
    )
    first = ["--root", str(shim.home / "root"), "--log", str(shim.bundle / "log.json"), "--log-format", "json"]
    words = [*first, "create", "--bundle", str(shim.bundle), "--pid-file", str(shim.pid_file)]
    argv = ["python3", "-ISE", "-c", script, str(shim.program), str(shim.home / "over"), answer, str(shim.pid_file)]
    done = subprocess.run([*argv, *words], capture_output=True, timeout=20, check=True)
    assert done.stdout.split()[-1] == str(code).encode()


def test_a_sandbox_needs_no_stand_in(shim: Shim) -> None:
    shim.describe("sandbox")
    assert shim.create() == 0
    assert shim.pid_file.read_text() == "1\n"
    assert shim.call("start", "c1").returncode == 0
    assert shim.call("kill", "c1", "9").returncode == 0
    assert shim.calls()[-1].endswith("kill c1 9")


def test_a_kill_before_the_start(shim: Shim) -> None:
    assert shim.create() == 0
    pid = shim.stand_in()
    assert shim.call("kill", "--all", "c1", "9").returncode == 0
    until(lambda: gone(pid))
    again = shim.call("kill", "c1", "9")
    assert (again.returncode, again.stderr) == (1, b"container not running\n")
    late = shim.call("start", "c1")
    assert (late.returncode, late.stderr) == (1, b"container not running\n")
    assert not any(" kill " in call or " start " in call for call in shim.calls())


@pytest.mark.parametrize(
    ("state", "said"),
    [('{"status": "running"}', b"it went wrong\n"), ('{"status": "stopped"}', b"container not running\n")],
)
def test_a_kill_that_fails_says_why(shim: Shim, state: str, said: bytes) -> None:
    shim.create()
    shim.call("start", "c1")
    (shim.home / "deaf").touch()
    (shim.home / "state").write_text(state)
    failed = shim.call("kill", "c1", "15")
    assert (failed.returncode, failed.stderr) == (1, said)
    shim.call("delete", "c1")


@pytest.mark.parametrize("state", ["created", "stopped"])
def test_a_kill_after_a_start_that_was_broken_off(shim: Shim, state: str) -> None:
    """The shim was told to give up: the start was killed before the stand-in had its word."""
    shim.create()
    pid = shim.stand_in()
    (shim.bundle / "askos.started").touch()
    (shim.home / "state").write_text(f'{{"status": "{state}"}}')
    (shim.home / "deaf").touch()
    assert shim.call("kill", "c1", "15").returncode == 1
    until(lambda: any("wait c1" in call for call in shim.calls()))
    assert not gone(pid), "nobody asked for its end"
    done = shim.call("kill", "--all", "c1", "9")
    assert (done.returncode, done.stderr) == (1, b"container not running\n")
    until(lambda: gone(pid))


def test_a_kill_leaves_the_stand_in_of_what_runs(shim: Shim) -> None:
    shim.create()
    shim.call("start", "c1")
    assert shim.call("kill", "c1", "9").returncode == 0
    (shim.home / "state").write_text('{"status": "running"}')
    (shim.home / "deaf").touch()
    assert shim.call("kill", "c1", "9").stderr == b"it went wrong\n"
    assert not gone(shim.stand_in())
    (shim.home / "over").touch()
    until(lambda: gone(shim.stand_in()))


def test_a_delete_ends_the_stand_in(shim: Shim) -> None:
    shim.create()
    pid = shim.stand_in()
    assert shim.call("delete", "--force", "c1").returncode == 0
    until(lambda: gone(pid))
    assert shim.calls()[-1].endswith("delete --force c1")


def test_a_terminal_leaves_the_shims_streams_alone(shim: Shim) -> None:
    reader, writer = os.pipe()
    try:
        assert shim.create(writer, writer, "--console-socket", "/nowhere") == 0
        os.close(writer)
        assert os.read(reader, 1) == b"", "whoever reads would wait for ever"
    finally:
        os.close(reader)
        os.kill(shim.stand_in(), signal.SIGKILL)


def test_what_fails_and_what_is_passed_on(shim: Shim) -> None:
    assert shim.call("fail").returncode == 7
    assert shim.call("update", "--resources", "-", "c1").returncode == 0
    assert shim.call("pause", "c1").returncode == 0
    assert [call.rpartition(" json ")[2] for call in shim.calls()] == ["fail", "pause c1"]


def test_it_is_configured_where_it_is(tmp_path: Path) -> None:
    settings = config.Settings(
        root=tmp_path,
        state=Path("/s"),
        socket=Path("/s/c.sock"),
        certs=tmp_path,
        cni_bin_dir=tmp_path,
        cni_conf_dir=tmp_path,
        snapshotter="overlayfs",
        restrict_oom_score=False,
        disable_apparmor=True,
        enable_selinux=False,
    )
    assert "runsc" not in config.render(settings)

    text = config.render(msgspec.structs.replace(settings, runsc=Path("/s/askos-runsc")))
    runtimes = tomllib.loads(text)["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
    assert set(runtimes) == {"runc", "runsc"}
    assert runtimes["runsc"]["options"] == {"BinaryName": "/s/askos-runsc", "Root": "/s/runsc"}
