"""The CLI as a program: what it costs to start, signals, pipes, help and errors of use."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from askos.cli import main
from askos.cli.base import LazyGroup

HEAVY = {"aiohttp", "asyncio", "rich", "yaml", "msgspec", "sqlalchemy", "grpc"}
OURS = [name for name, entry in main.COMMANDS.items() if not entry.target.startswith("askos.cli.serve")]


def every_command():
    for name in OURS:
        yield (name,)
    yield from (("image", sub) for sub in ("ls", "import", "pull", "rm"))
    yield from (("volume", sub) for sub in ("create", "ls", "show", "rm"))
    for name in ("network", "security-group", "floating-ip", "registry", "quota", "host", "service"):
        yield from ((name, sub) for sub in main.cli.get_command(click.Context(main.cli), name).lazy)
    yield from (("security-group", "rule", sub) for sub in ("add", "rm"))


@pytest.mark.parametrize("path", list(every_command()), ids=" ".join)
def test_help_tells_and_shows_examples(path):
    result = CliRunner().invoke(main.cli, [*path, "--help"], prog_name="askos")
    assert result.exit_code == 0
    if isinstance(main.cli.get_command(click.Context(main.cli), path[0]), click.Group) and len(path) == 1:
        return
    group = main.cli.get_command(click.Context(main.cli), path[0])
    wanted = 2 if len(path) == 1 or path[0] in ("image", "volume") else 1
    if isinstance(group, click.Group) and isinstance(group.get_command(click.Context(group), path[-1]), click.Group):
        return
    assert len(re.findall(r"^  .*askos ", result.output.partition("Examples:")[2], re.MULTILINE)) >= wanted
    for line in result.output.splitlines():
        assert len(line) <= 100


def test_every_listed_command_is_there():
    def check(group):
        context = main.cli.make_context("askos", ["ps"], resilient_parsing=True)
        for name, entry in group.lazy.items():
            if entry.target.startswith("askos.cli.serve") or entry.hidden:
                continue
            command = group.get_command(context, name)
            assert command.help, name
            if isinstance(command, LazyGroup):
                check(command)

    check(main.cli)


def test_the_list_of_commands_needs_no_command_module():
    code = (
        "import sys; from askos.cli import main\n"
        "try: main.run(['--help'])\n"
        "finally: print(sorted(m for m in sys.modules if m.startswith('askos.cli.')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert out.splitlines()[-1] == "['askos.cli.base', 'askos.cli.main']"


def test_ps_imports_nothing_heavy(cloud, environment):
    code = (
        "import sys; from askos.cli import main; code = main.run(['ps'])\n"
        f"print(code, sorted({HEAVY!r} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    ).stdout
    assert out.splitlines()[-1] == "0 []"


def test_the_second_command_is_one_request(askos, cloud):
    askos("ps")
    cloud.seen.clear()
    askos("ps")
    assert cloud.seen == ["GET /v1/containers?sort_dir=desc"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("imgae",), "askos: there is no command 'imgae'. Did you mean `askos image`? See `askos --help`."),
        (("inspect", "x"), "askos: there is no command 'inspect'. Use `askos show -o json`, or `askos show --format`. See `askos --help`."),
        (("ps", "--nonsense"), "askos ps: no such option '--nonsense'. See `askos ps --help`."),
        (("run",), "askos run: missing argument 'IMAGE'. See `askos run --help`."),
        (
            ("run", "-m", "lots", "busybox"),
            (
                "askos run: invalid value for '-m' / '--memory': 'lots' is not a size. "
                "Write 512m, 1.5g or a number of MiB. See `askos run --help`."
            ),
        ),
    ],
)  # fmt: skip
def test_errors_of_use_are_one_line_and_2(args, message, capsys):
    assert main.run(list(args)) == 2
    assert capsys.readouterr().err == message + "\n"


def test_no_answer(askos, monkeypatch):
    monkeypatch.setenv("OS_AUTH_URL", "http://127.0.0.1:9/v3")
    for args in (("ps",), ("run", "busybox"), ("exec", "x1", "true"), ("stop", "a1", "b1")):
        ran = askos(*args)
        assert ran.code == (125 if args[0] in {"run", "exec"} else 1)
        assert ran.err == (
            "askos: no Askos answers at http://127.0.0.1:9: connection refused. "
            "Start one with `askos up -d` (as root), or point OS_AUTH_URL at another.\n"
        )


def test_wrong_password(askos, cloud, monkeypatch):
    monkeypatch.setenv("OS_PASSWORD", "wrong-and-secret")
    ran = askos("ps")
    assert ran.code == 1
    assert ran.err.startswith(f"askos: cannot log in to {cloud.url}/v3 as admin (project demo): ")
    assert "wrong-and-secret" not in ran.err


def test_unexpected_errors_are_one_line(askos, cloud, monkeypatch):
    monkeypatch.setattr("askos.cli.ps.matches", lambda *_: 1 / 0)
    askos("create", "--name", "x1", "busybox")
    ran = askos("ps", "--filter", "name=x")
    assert ran.code == 1
    assert ran.err.startswith("askos: cannot go on: ZeroDivisionError")
    assert ran.err.count("\n") == 1


def test_a_closed_pipe_is_quiet(program, askos):
    for n in range(3):
        askos("create", "--name", f"c{n}", "busybox")
    read, write = os.pipe()
    os.close(read)
    done = program("ps", "-a", stdout=write)
    os.close(write)
    assert done.wait(30) == 141
    assert done.stderr.read() == b""


def test_ctrl_c_interrupts_the_container_and_its_exit_code_is_ours(program, cloud):
    done = program(
        "run",
        "--name",
        "job",
        "busybox",
        "sh",
        "-c",
        "trap 'echo bye; exit 7' INT; echo here; while :; do sleep 0.1; done",
    )
    assert done.stdout.readline() == b"here\n"
    done.send_signal(signal.SIGINT)
    out, err = done.communicate(timeout=30)
    assert (done.returncode, out, err) == (7, b"bye\n", b"")
    assert any("kill?signal=SIGINT" in line for line in cloud.seen)


def test_a_second_ctrl_c_leaves_it_running(program, cloud):
    done = program("run", "--name", "job", "busybox", "sh", "-c", "trap '' INT; echo here; while :; do sleep 0.1; done")
    assert done.stdout.readline() == b"here\n"
    done.send_signal(signal.SIGINT)
    # Two that came before it had looked at the first would be one.
    while not any("kill?signal=SIGINT" in line for line in cloud.seen):
        time.sleep(0.01)
    done.send_signal(signal.SIGINT)
    _, err = done.communicate(timeout=30)
    assert done.returncode == 130
    assert b"job is left running" in err
    assert cloud.find("job").status == "Running"


def test_ctrl_c_while_waiting_is_130(program, askos, cloud):
    askos("run", "-d", "--name", "web", "busybox", "sleep", "100")
    done = program("wait", "web")
    while not any("/wait" in line for line in cloud.seen):
        time.sleep(0.01)
    done.send_signal(signal.SIGINT)
    assert done.wait(30) == 130
    assert done.stderr.read() == b""


def test_output_comes_as_it_is_written(program):
    # Only at the end of a test's time would it come by itself.
    done = program("run", "busybox", "sh", "-c", "echo first; sleep 1000")
    assert done.stdout.readline() == b"first\n"
    done.kill()
    done.wait()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(askos, shell):
    ran = askos("completion", shell)
    assert ran.code == 0
    assert "_ASKOS_COMPLETE" in ran.out


def test_completion_of_names(program, askos, environment):
    askos("create", "--name", "web-1", "busybox")
    askos("create", "--name", "db-1", "busybox")
    environment |= {"_ASKOS_COMPLETE": "bash_complete", "COMP_WORDS": "askos stop w", "COMP_CWORD": "2"}
    assert program().communicate(timeout=30)[0] == b"plain,web-1\n"
    environment |= {"COMP_WORDS": "askos sto", "COMP_CWORD": "1"}
    assert program().communicate(timeout=30)[0] == b"plain,stop\n"


def test_completion_without_a_cloud_is_silent(program, environment):
    del environment["OS_AUTH_URL"]
    environment |= {"_ASKOS_COMPLETE": "bash_complete", "COMP_WORDS": "askos stop w", "COMP_CWORD": "2"}
    out, err = program().communicate(timeout=30)
    assert (out.strip(), err) == (b"", b"")


def test_import_from_a_pipe(program, cloud):
    done = program("image", "import", "-", "app:9", stdin=subprocess.PIPE)
    out, err = done.communicate(b"y" * 1_000_000, timeout=30)
    assert (out, err) == (b"app:9\n", b"")
    assert cloud.imported == [("app:9", 1_000_000)]


@pytest.mark.parametrize("flags", [(), ("--rm",)])
def test_ctrl_c_before_it_runs(program, cloud, flags):
    cloud.create_delay_s = 3
    done = program("run", *flags, "--name", "job", "busybox", "true")
    while not cloud.containers:
        time.sleep(0.05)
    time.sleep(0.3)
    done.send_signal(signal.SIGINT)
    _, err = done.communicate(timeout=30)
    assert done.returncode == 130
    if flags:
        assert err == b""
        time.sleep(0.3)
        assert cloud.find("job") is None
    else:
        assert err == b"askos: job is still being made. Remove it with `askos rm -f job`.\n"


def test_a_container_that_is_removed_meanwhile(program, askos):
    done = program("run", "--name", "job", "busybox", "sh", "-c", "echo here; sleep 100")
    assert done.stdout.readline() == b"here\n"
    askos("rm", "-f", "job")
    _, err = done.communicate(timeout=30)
    assert done.returncode == 125
    assert b"cannot wait for job: Container" in err
