"""`askos env`."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from askos.client import credentials


@pytest.fixture
def local(cloud, tmp_path, askos, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    credentials.write_files(
        folder, f"{cloud.url}/v3", cloud.user, cloud.password, cloud.project, None, f"{cloud.url}/v1"
    )
    for name in ("OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_PROJECT_NAME"):
        monkeypatch.delenv(name)
    return folder


def test_the_lines_lead_a_shell_to_the_cloud(local, askos, environment, program):
    assert askos("ps").code == 0
    script = f"{askos('env').out}\nenv -u ASKOS_DATA {program('--help').args[0]} ps -o json"
    clean = {k: v for k, v in environment.items() if not k.startswith("OS_")}
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=clean, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_left_over_variables_are_taken_away(local, askos, monkeypatch):
    monkeypatch.setenv("OS_CLOUD", "elsewhere")
    lines = askos("env").out.splitlines()
    assert lines[0] == "unset OS_CLOUD"
    assert all(line.startswith("export OS_") for line in lines[1:])


def test_clouds_yaml(local, askos, tmp_path, monkeypatch):
    out = askos("env", "--clouds").out
    entry = yaml.safe_load(out)["clouds"]["askos"]
    assert (
        entry["auth"]["password"]
        == yaml.safe_load((local / "clouds.yaml").read_text())["clouds"]["askos"]["auth"]["password"]
    )
    (tmp_path / "c.yaml").write_text(out)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "c.yaml"))
    monkeypatch.setenv("ASKOS_DATA", "/nowhere")
    assert askos("--os-cloud", "askos", "ps").code == 0
    assert askos("ps", "--os-cloud", "askos").code == 0
    assert "export OS_PASSWORD=" in askos("env", "--os-cloud", "askos").out


def test_unset_covers_all_that_is_set(local, askos):
    names = set(askos("env", "--unset").out.split()[1:])
    set_by_env = {line.split("=")[0].removeprefix("export ") for line in askos("env").out.splitlines()}
    assert set_by_env <= names


def test_without_a_local_cloud(askos):
    ran = askos("env")
    assert (ran.code, ran.out) == (1, "")
    assert "`askos up -d`" in ran.err
