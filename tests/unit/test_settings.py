"""Settings: where they come from, which source wins, and what is refused; the data folder and its errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from askos.cli.main import cli
from askos.model.errors import SetupError
from askos.paths import Paths, prepare_folders
from askos.programs import main
from askos.programs.facts import gather
from askos.settings import Settings, load

REPOSITORY = Path(__file__).parents[2]


def test_defaults_are_a_loopback_cloud_in_var_lib(tmp_path: Path) -> None:
    settings = load({}, {"ASKOS_DATA": str(tmp_path)})
    assert settings.listen.url == "http://127.0.0.1:9517"
    assert settings.database_url == f"sqlite+aiosqlite:///{tmp_path}/askos.db"
    assert settings.link_socket == tmp_path / "run/link.sock"
    assert settings.containerd_socket == tmp_path / "run/containerd/c.sock"
    assert (settings.host.cpu_allocation_ratio, settings.host.memory_allocation_ratio) == (16.0, 1.5)
    assert settings.host.warm_sandboxes == 2
    assert Settings().data == Path("/var/lib/askos")


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    (tmp_path / "askos.toml").write_text("[listen]\nport = 1000\naddress = '127.0.0.3'\n[limits]\nmax_cpu = 4\n")
    environ = {"ASKOS_DATA": str(tmp_path), "ASKOS_PORT": "2000", "ASKOS_ADDRESS": "127.0.0.2"}
    settings = load({"port": 3000, "address": None}, environ)
    assert settings.listen.port == 3000
    assert settings.listen.address == "127.0.0.2"
    assert settings.limits.max_cpu == 4.0
    assert settings.limits.min_cpu == 0.1


def test_file_by_flag_beats_file_by_variable(tmp_path: Path) -> None:
    by_flag, by_variable = tmp_path / "a.toml", tmp_path / "b.toml"
    by_flag.write_text("data = '/srv/a'\n")
    by_variable.write_text("data = '/srv/b'\n")
    assert load({}, {"ASKOS_CONFIG": str(by_variable)}).data == Path("/srv/b")
    assert load({}, {"ASKOS_CONFIG": str(by_variable)}, by_flag).data == Path("/srv/a")


def test_relative_data_of_a_person_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load({"data": "cloud"}, {}).data == tmp_path / "cloud"
    assert load({}, {"ASKOS_DATA": "cloud"}).data == tmp_path / "cloud"


def test_an_empty_variable_is_no_variable(tmp_path: Path) -> None:
    assert load({"data": tmp_path}, {"ASKOS_PORT": "", "ASKOS_CONFIG": ""}).listen.port == 9517


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("prot = 1\n", r"Unknown setting prot in .*/s\.toml\. Known are: data, listen"),
        ("[listen]\nprot = 1\n", r"Unknown setting prot in .*/s\.toml \[listen\]\. Known are: address, port"),
        ("listen = 1\n", r"Bad setting listen in .*: it is a section, \[listen\]"),
        (
            "[listen]\nport = 'x'\n",
            r"Bad setting port in .*/s\.toml \[listen\] = x: it must be a whole number from 1 to",
        ),
        ("[listen]\nport = 0\n", r"port in .* = 0: it must be a whole number from 1 to 65535"),
        ("[listen]\nport = 1.5\n", "port in .* = 1.5"),
        ("[listen]\nport = true\n", "port in .* = True"),
        ("[listen]\naddress = 'example.org'\n", "address in .* = example.org: it must be an IP address"),
        ("[listen]\npublic_url = 'ftp://x'\n", "public_url in .* = ftp://x: it must be a URL"),
        ("[link]\nsocket = 'run/l.sock'\n", "socket in .* = run/l.sock: it must be an absolute path"),
        ("[network]\npool = '10.0.0.1/12'\n", "pool in .* it must be an IPv4 network"),
        ("[network]\npool = '10.0.0.0/24'\n", "it must have room for a network"),
        ("[host]\ncpu_allocation_ratio = nan\n", "cpu_allocation_ratio in .* = nan"),
        ("[host]\nname = ''\n", "name in .* it must be a text that is not empty"),
        ("[log]\nlevel = 'loud'\n", "level in .* = loud: it must be one of debug, info"),
        ("[limits]\nmin_cpu = 8\nmax_cpu = 2\n", r"min_cpu = 8\.0 and max_cpu = 2\.0: nothing lies between"),
        ("[listen\n", r"Cannot read the settings file .*/s\.toml: .* It must be TOML"),
    ],
)
def test_a_bad_file_is_refused_with_name_and_place(tmp_path: Path, toml: str, expected: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text(toml)
    with pytest.raises(SetupError, match=expected) as caught:
        load({"data": tmp_path}, {}, file)
    assert "\n" not in caught.value.message


def test_bad_variables_and_flags_are_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="Bad setting ASKOS_PORT = http: it must be"):
        load({"data": tmp_path}, {"ASKOS_PORT": "http"})
    with pytest.raises(SetupError, match="Bad setting --log-level = loud: it must be"):
        load({"data": tmp_path, "log_level": "loud"}, {})
    with pytest.raises(SetupError, match="There is no setting prot"):
        load({"data": tmp_path, "prot": 1}, {})


def test_a_named_file_must_exist_and_an_implied_one_cannot_move_the_folder(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"Cannot read the settings file .*no\.toml: No such file"):
        load({}, {}, tmp_path / "no.toml")
    (tmp_path / "askos.toml").write_text("data = '/srv/elsewhere'\n")
    with pytest.raises(SetupError, match=r"Remove data from .*askos\.toml"):
        load({"data": tmp_path}, {})


@pytest.mark.parametrize(
    ("address", "url", "loopback"),
    [
        ("127.0.0.9", "http://127.0.0.9:9517", True),
        ("::1", "http://[::1]:9517", True),
        ("localhost", "http://127.0.0.1:9517", True),
        ("192.0.2.7", "https://192.0.2.7:9517", False),
        ("2001:db8::7", "https://[2001:db8::7]:9517", False),
    ],
)
def test_url_follows_the_address(tmp_path: Path, address: str, url: str, loopback: bool) -> None:
    listen = load({"data": tmp_path, "address": address}, {}).listen
    assert (listen.url, listen.is_loopback) == (url, loopback)


def test_url_of_a_wildcard_is_one_that_can_be_called(tmp_path: Path) -> None:
    listen = load({"data": tmp_path, "address": "0.0.0.0"}, {}).listen
    assert re.fullmatch(r"https://\d+\.\d+\.\d+\.\d+:9517", listen.url)
    assert "0.0.0.0" not in listen.url


def test_public_url_wins(tmp_path: Path) -> None:
    listen = load({"data": tmp_path, "public_url": "https://c.example.org/"}, {}).listen
    assert listen.url == "https://c.example.org"


def test_every_setting_can_be_set_from_all_three_sources_and_is_in_the_readme() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    for section in fields(Settings):
        value = getattr(Settings(), section.name)
        for spec in fields(value) if is_dataclass(value) else [section]:
            name = spec.metadata["name"] or spec.name
            assert f"`ASKOS_{name.upper()}`" in readme, f"README.md does not tell of ASKOS_{name.upper()}"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
class TestFolders:
    @pytest.fixture
    def tmp_path(self) -> Iterator[Path]:
        """A short path: pytest's own may be too long for sockets."""
        with tempfile.TemporaryDirectory(prefix="askos-") as folder:
            yield Path(folder)

    def test_everything_is_private_and_a_second_time_changes_nothing(self, tmp_path: Path) -> None:
        paths = Paths(tmp_path / "deep" / "data")
        prepare_folders(paths)
        (paths.run / "keep").write_text("x")
        prepare_folders(paths)
        assert (paths.run / "keep").read_text() == "x"
        for folder in paths.folders():
            assert folder.is_dir()
            assert folder.stat().st_mode & 0o777 == 0o700, folder

    def test_loose_subfolders_are_tightened(self, tmp_path: Path) -> None:
        paths = Paths(tmp_path / "data")
        prepare_folders(paths)
        paths.run.chmod(0o777)
        prepare_folders(paths)
        assert paths.run.stat().st_mode & 0o777 == 0o700

    def test_a_path_too_long_for_sockets(self, tmp_path: Path) -> None:
        data = tmp_path / ("x" * 100)
        with pytest.raises(SetupError, match=r"too long a path for the sockets.*at most 79 bytes") as caught:
            prepare_folders(Paths(data))
        assert not data.exists()
        assert "\n" not in caught.value.message

    def test_a_folder_that_others_can_change(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data").chmod(0o777)
        with pytest.raises(SetupError, match=r"can be changed by others.*chmod 700"):
            prepare_folders(Paths(tmp_path / "data"))

    def test_a_file_in_the_folders_place(self, tmp_path: Path) -> None:
        (tmp_path / "data").write_text("")
        with pytest.raises(SetupError, match="something that is no folder is in its place"):
            prepare_folders(Paths(tmp_path / "data"))
        with pytest.raises(SetupError, match="something that is no folder is in its place"):
            prepare_folders(Paths(tmp_path / "data" / "below"))

    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        mount = tmp_path / "disk"
        mount.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=70m,mode=0700", "none", mount], check=True)
        yield mount
        subprocess.run(["umount", mount], check=True)

    def test_a_full_disk(self, small_disk: Path) -> None:
        prepare_folders(Paths(small_disk))
        (small_disk / "big").write_bytes(bytes(20 << 20))
        with pytest.raises(SetupError, match=r"No space left for the data folder .*Free at least 64 MiB"):
            prepare_folders(Paths(small_disk))

    def test_a_read_only_disk(self, small_disk: Path) -> None:
        prepare_folders(Paths(small_disk))
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        with pytest.raises(SetupError, match=r"cannot be written: Read-only file system.*--data or ASKOS_DATA"):
            prepare_folders(Paths(small_disk))

    def test_not_root(self, tmp_path: Path) -> None:
        program = (
            "import os, pathlib; from askos.paths import Paths, prepare_folders; from askos.model.errors import *\n"
            f"os.setuid(65534)\ntry: prepare_folders(Paths(pathlib.Path({str(tmp_path / 'data')!r})))\n"
            "except SetupError as e: print(e.message)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout == "Askos must be root to run containers. Try again with sudo.\n"
        assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("file", "variable", "flags", "found"),
    [
        ("labels = {disk = 'ssd', rack = 'a b'}", "", None, {"disk": "ssd", "rack": "a b"}),
        ("labels = ['disk=ssd']", "", None, {"disk": "ssd"}),
        ("labels = {disk = 'ssd'}", "rack=b, gpu=", None, {"rack": "b", "gpu": ""}),
        ("", "rack=b", ("rack=c", "at=x=y"), {"rack": "c", "at": "x=y"}),
        ("", "", None, {}),
    ],
)
def test_labels_of_the_host(
    tmp_path: Path, file: str, variable: str, flags: tuple[str, ...] | None, found: dict[str, str]
) -> None:
    (tmp_path / "askos.toml").write_text(f"[host]\n{file}\n")
    settings = load({"data": tmp_path, "host_labels": flags}, {"ASKOS_HOST_LABELS": variable})
    assert dict(settings.host.labels) == found
    assert gather(settings, ["runc"]).labels == found


@pytest.mark.parametrize(
    "given",
    [
        ("disk",),
        ("=ssd",),
        ("a=1", "a=2"),
        ("a" * 256 + "=1",),
        ("a=1\n2",),
        tuple(f"k{n}=" for n in range(65)),
        5,
        {"a": 1},
    ],
)
def test_labels_that_are_none(tmp_path: Path, given: object) -> None:
    with pytest.raises(SetupError, match=r"^Bad setting --label = .*: it must be"):
        load({"data": tmp_path, "host_labels": given}, {})


def test_the_agents_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Settings] = []
    monkeypatch.setattr(main, "start", lambda settings, **_: started.append(settings))
    for words in (["agent", "--label", "disk=ssd", "--label", "rack=a"], ["up"]):
        done = CliRunner().invoke(cli, [*words, "--data", str(tmp_path)], obj=None)
        assert done.exit_code == 0, done.output
    assert [s.host.labels for s in started] == [(("disk", "ssd"), ("rack", "a")), ()]
