"""What a newcomer sees: the commands of the tour, typed as in the README."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from tests.acceptance.cloud_fixtures import LIVES, Cloud, eventually, free_port, one_line
from tests.acceptance.image_fixtures import Image, Registry
from tests.acceptance.terminal_fixtures import Terminal

# -- run, ps, logs -------------------------------------------------------------------------------------------------


def test_run_shows_the_output_and_keeps_the_log(cloud: Cloud) -> None:
    done = cloud.askos("run", "--name", "hello", "busybox", "echo", "hi")
    assert (done.stdout, done.stderr) == ("hi\n", "")
    assert cloud.askos("logs", "hello").stdout == "hi\n"
    assert cloud.askos("ps").stdout.splitlines()[1:] == []
    row = cloud.askos("ps", "-a").stdout.splitlines()[1]
    assert re.match(r"hello +[0-9a-f]{8} +busybox +echo hi +Exited\(0\) ", row)


def test_run_ends_as_the_process_ends(cloud: Cloud) -> None:
    done = cloud.askos("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    eventually(lambda: not cloud.containers(), "--rm removes it")


def test_run_of_a_program_that_is_not_there(cloud: Cloud) -> None:
    done = cloud.askos("run", "--name", "typo", "busybox", "ehco", check=False)
    assert done.returncode == 127
    assert "ehco" in one_line(done)


def test_a_container_in_the_background(cloud: Cloud) -> None:
    uuid = cloud.askos("run", "-d", "--name", "p", "busybox", "ping", "127.0.0.1").stdout.strip()
    assert str(UUID(uuid)) == uuid
    assert cloud.askos("ps", "-q").stdout == f"{uuid}\n"
    (listed,) = json.loads(cloud.askos("ps", "-o", "json").stdout)
    assert (listed["uuid"], listed["name"], listed["status"]) == (uuid, "p", "Running")
    (same,) = yaml.safe_load(cloud.askos("ps", "-o", "yaml").stdout)
    volatile = {"status_detail": None}
    assert same | volatile == listed | volatile
    assert "MEMORY" in cloud.askos("ps", "-o", "wide").stdout.splitlines()[0]
    with subprocess.Popen(["askos", "logs", "-f", "p"], env=cloud.env, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        try:
            lines = [follower.stdout.readline() for _ in range(3)]
            assert lines[0].startswith("PING 127.0.0.1")
            assert "seq=0" in lines[1]
            assert "seq=1" in lines[2]
            cloud.askos("kill", "p")
            follower.stdout.read()
            assert follower.wait(20) == 0
        finally:
            follower.kill()
    assert "seq=1 " in cloud.askos("logs", "p").stdout
    assert "seq=0" not in cloud.askos("logs", "--tail", "1", "p").stdout


def test_show(cloud: Cloud) -> None:
    cloud.askos("run", "-d", "--name", "shown", "-e", "COLOUR=blue", "-l", "app=web", "-m", "64m", "busybox", *LIVES)
    text = cloud.askos("show", "shown").stdout
    assert re.search(r"^Name: +shown$", text, re.M)
    assert re.search(r"^Environment: +COLOUR=blue$", text, re.M)
    told = json.loads(cloud.askos("show", "-o", "json", "shown").stdout)
    assert (told["environment"], told["labels"], told["memory"]) == ({"COLOUR": "blue"}, {"app": "web"}, "64")
    assert yaml.safe_load(cloud.askos("show", "-o", "yaml", "shown").stdout).keys() == told.keys()
    assert "nobody" in cloud.refused("show", "nobody")


def test_stop_start_and_remove_keep_what_they_should(cloud: Cloud) -> None:
    cloud.askos("run", "-d", "--name", "kept", "busybox", *LIVES)
    cloud.askos("exec", "kept", "sh", "-c", "echo here > /file")
    assert cloud.askos("stop", "kept").stdout == "kept\n"
    assert cloud.show("kept")["status"] == "Stopped"
    cloud.askos("start", "kept")
    assert cloud.askos("exec", "kept", "cat", "/file").stdout == "here\n"
    assert "Running" in cloud.refused("rm", "kept")
    assert cloud.show("kept")["status"] == "Running"
    cloud.askos("restart", "kept")
    assert cloud.askos("exec", "kept", "cat", "/file").stdout == "here\n"
    cloud.askos("rm", "-f", "kept")
    assert cloud.api("GET", "/v1/containers/kept").status == 404
    assert cloud.askos("ps", "-aq").stdout == ""


def test_a_process_inside_need_not_be_root(cloud: Cloud) -> None:
    cloud.running(name="box")
    look = "su -s /bin/sh nobody -c 'id -un && cat /etc/resolv.conf /etc/hostname && ls /bin/sh'"
    lines = cloud.askos("exec", "box", "sh", "-c", look).stdout.split()
    assert (lines[0], lines[-1]) == ("nobody", "/bin/sh")
    assert "nameserver" in lines


def test_create_start_wait(cloud: Cloud) -> None:
    cloud.askos("create", "--name", "later", "busybox", "sh", "-c", "exit 4")
    assert cloud.show("later")["status"] == "Created"
    assert cloud.logs("later") == ""
    cloud.askos("start", "later")
    assert cloud.askos("wait", "later").stdout == "4\n"


# -- exec ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(cloud: Cloud) -> str:
    cloud.running(name="box")
    return "box"


def test_exec(cloud: Cloud, shell: str) -> None:
    assert {".", "..", "bin", "etc"} <= set(cloud.askos("exec", shell, "ls", "-a").stdout.split())
    done = cloud.askos("exec", shell, "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    missing = cloud.askos("exec", shell, "no-such-program", check=False)
    assert missing.returncode == 127
    assert "no-such-program" in one_line(missing)
    absent = cloud.askos("exec", "nobody", "ls", check=False)
    assert absent.returncode == 125
    assert "nobody" in one_line(absent)


def test_exec_carries_bytes_both_ways(cloud: Cloud, shell: str) -> None:
    sent = os.urandom(3 << 20)
    done = subprocess.run(
        ["askos", "exec", "-i", shell, "cat"], input=sent, capture_output=True, env=cloud.env, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == sent


def test_exec_in_a_stopped_container(cloud: Cloud, shell: str) -> None:
    cloud.askos("kill", shell)
    cloud.wait_for(shell, "Stopped")
    done = cloud.askos("exec", shell, "ls", check=False)
    assert done.returncode == 125
    assert "askos start box" in one_line(done)


def test_a_shell_in_a_terminal(cloud: Cloud, shell: str) -> None:
    with Terminal("askos", "exec", "-it", shell, "sh", env=cloud.env, rows=30, columns=100) as terminal:
        terminal.expect("/ # ")
        terminal.type("stty size; tty\n")
        terminal.expect("\n30 100")
        terminal.expect("/dev/pts/")
        terminal.expect("/ # ")
        terminal.resize(40, 120)
        terminal.expect_size(40, 120)
        terminal.expect("/ # ")
        terminal.type("echo be''gun; sleep 1000\n")
        terminal.expect("begun")
        terminal.type("\x03")
        terminal.expect("/ # ")
        terminal.type("echo code=$?\n")
        terminal.expect("code=130")
        terminal.type("exit 5\n")
        assert terminal.end() == 5


def test_a_terminal_is_needed_for_a_terminal(cloud: Cloud, shell: str) -> None:
    assert "not a terminal" in cloud.refused("exec", "-it", shell, "sh")


def test_ctrl_c_ends_a_container_in_the_foreground(cloud: Cloud) -> None:
    with Terminal(
        "askos", "run", "--name", "front", "busybox", "sh", "-c",
        "trap 'echo bye; exit 9' INT; echo ready; while :; do sleep 1 & wait $!; done", env=cloud.env,
    ) as terminal:  # fmt: skip
        terminal.expect("ready")
        terminal.type("\x03")
        terminal.expect("bye")
        assert terminal.end() == 9
    assert cloud.show("front")["status"] == "Stopped"


# -- images --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["docker", "oci", "docker.gz"])
def test_import_an_archive(cloud: Cloud, tmp_path: Path, kind: str) -> None:
    name = f"{kind.replace('.', '-')}-app:2"
    image = Image(f"from a {kind} archive")
    data = image.oci_archive(name) if kind == "oci" else image.docker_archive(name)
    file = tmp_path / "app.tar"
    file.write_bytes(gzip.compress(data, 1) if kind.endswith("gz") else data)
    told = cloud.askos("image", "import", str(file)).stdout.split()
    assert [ref.rpartition("/")[2] for ref in told] == [name]
    assert name in cloud.askos("image", "ls").stdout
    assert cloud.askos("run", "--rm", name).stdout == f"from a {kind} archive\n"
    cloud.askos("image", "rm", name)
    assert name not in cloud.askos("image", "ls").stdout


def test_import_what_is_no_image(cloud: Cloud, tmp_path: Path) -> None:
    file = tmp_path / "garbage.tar"
    file.write_bytes(os.urandom(100_000))
    assert "garbage.tar" in cloud.refused("image", "import", str(file))
    assert "nowhere.tar" in cloud.refused("image", "import", str(tmp_path / "nowhere.tar"))


def test_image_ls(cloud: Cloud) -> None:
    assert re.search(r"busybox:latest +[0-9a-f]{12} +[0-9.]+", cloud.askos("image", "ls").stdout)
    images = json.loads(cloud.askos("image", "ls", "-o", "json").stdout)
    assert yaml.safe_load(cloud.askos("image", "ls", "-o", "yaml").stdout) == images
    assert cloud.askos("image", "ls", "-q").stdout.split() == [each["id"] for each in images]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs Debian's docker-registry")
    registry = Registry(tmp_path_factory.mktemp("registry"))
    try:
        registry.push("team/app", "1", Image("from a registry"))
        yield registry
    finally:
        registry.stop()


def test_pull(cloud: Cloud, registry: Registry) -> None:
    ref = f"{registry.address}/team/app:1"
    with Terminal("askos", "image", "pull", ref, env=cloud.env) as terminal:
        terminal.expect("Pulling")
        terminal.expect(ref)
        assert terminal.end() == 0
    assert cloud.askos("run", "--rm", "--pull", "never", ref).stdout == "from a registry\n"
    cloud.askos("image", "rm", ref)
    assert cloud.askos("run", "--rm", ref).stdout == "from a registry\n"


def test_pull_what_the_registry_does_not_have(cloud: Cloud, registry: Registry) -> None:
    missing = f"{registry.address}/team/app:2"
    assert missing in cloud.refused("image", "pull", missing)
    done = cloud.askos("run", "--name", "missing", missing, check=False)
    assert f"{missing} does not exist" in one_line(done)
    assert done.returncode == 125
    assert cloud.show("missing")["status"] == "Error"


def test_pull_from_a_registry_that_is_not_there(cloud: Cloud) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert f"{address} cannot be reached" in cloud.refused("image", "pull", f"{address}/app")


# -- the program itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["runn"], 2, "askos run"),
        (["ps", "--bogus"], 2, "--bogus"),
        (["ps", "-o", "xml"], 2, "xml"),
        (["logs", "nobody"], 1, "nobody"),
        (["start", "nobody"], 1, "nobody"),
        (["stop", "nobody"], 1, "nobody"),
        (["rm", "nobody"], 1, "nobody"),
        (["kill", "nobody"], 1, "nobody"),
        (["wait", "nobody"], 1, "nobody"),
        (["image", "rm", "nobody"], 1, "nobody"),
        (["run", "-m", "lots", "busybox"], 2, "lots"),
        (["run", "--name", "x" * 300, "busybox"], 125, "name"),
        (["run", "--os-cloud", "elsewhere", "busybox"], 125, "elsewhere"),
        (["ps", "--data", "/nowhere"], 1, "/nowhere"),
    ],
)
def test_errors_are_one_line(cloud: Cloud, arguments: list[str], code: int, hint: str) -> None:
    done = cloud.askos(*arguments, check=False)
    assert hint in one_line(done)
    assert (done.returncode, done.stdout) == (code, "")


def test_a_cloud_that_does_not_answer(cloud: Cloud) -> None:
    closed = cloud.as_user(cloud.login()) | {"OS_AUTH_URL": f"http://127.0.0.1:{free_port()}/identity/v3"}
    done = cloud.run("env", "-u", "ASKOS_DATA", "askos", "ps", env=closed, check=False)
    assert "127.0.0.1" in one_line(done)


def test_help(cloud: Cloud) -> None:
    listing = cloud.askos("--help").stdout
    commands = re.findall(r"^  ([a-z]+) {2,}[A-Z]", listing, re.M)
    assert {"run", "ps", "logs", "exec", "up", "down", "image", "env"} <= set(commands)
    for command in commands:
        text = cloud.askos(command, "--help").stdout
        assert f"askos {command}" in text
        assert len(text.splitlines()) >= 5


def test_completion(cloud: Cloud, tmp_path: Path) -> None:
    script = cloud.askos("completion", "bash").stdout
    (tmp_path / "completion.bash").write_text(script)
    cloud.run("bash", "-n", str(tmp_path / "completion.bash"))
    assert "compdef" in cloud.askos("completion", "zsh").stdout
    assert "complete" in cloud.askos("completion", "fish").stdout
    cloud.create(None, name="completed-one")
    # What bash does when somebody types these words and hits Tab.
    ask = (
        f'source {tmp_path}/completion.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        "$(complete -p askos | sed 's/.*-F \\([^ ]*\\).*/\\1/') askos; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    for words, answer in ((["askos", "sto"], "stop"), (["askos", "show", "complet"], "completed-one")):
        assert cloud.run("bash", "-c", ask, "bash", *words).stdout.split() == [answer]
