"""The bridge network's parts that need no root: wire forms, names, rules' text, the plugins without an agent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from askos.adapters.bridge import cni, host, links, plugin
from askos.adapters.bridge.journal import Journal, valid_id
from askos.adapters.bridge.links import Owner
from askos.model.errors import SetupError

NET = "1b2c3d4e-0000-4000-8000-000000000001"


def request(**more: str) -> bytes:
    env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/n", "CNI_IFNAME": "eth0", **more}
    return b"\0".join(f"{k}={v}".encode() for k, v in env.items()) + b'\0\0{"cniVersion":"0.4.0"}'


def test_calls_from_the_wire() -> None:
    call = cni.parse(request(CNI_ARGS="IgnoreUnknown=1;K8S_POD_UID=u-1;K8S_POD_NAME=x"))
    assert call == cni.Call("ADD", "c1", "/n", "eth0", "u-1", "0.4.0")
    assert cni.result(call, {"ips": [{"address": "a"}]})["ips"] == [{"version": "4", "address": "a"}]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (request(CNI_COMMAND="GC"), 4),
        (request(CNI_CONTAINERID="../x"), 4),
        (request(CNI_CONTAINERID=""), 4),
        (request()[:-1], 6),
        (request().replace(b"0.4.0", b"0.1.0"), 1),
        (request().partition(b"{")[0] + b"[]", 6),
        (b"", 4),
    ],
)
def test_broken_calls_get_the_codes_of_the_specification(bad: bytes, code: int) -> None:
    with pytest.raises(cni.CniError) as caught:
        cni.parse(bad)
    assert caught.value.code == code


def test_names_fit_and_owners_are_found_again() -> None:
    assert links.uplink_name("abcdef", NET) == "akabcdu1b2c3d4e"
    assert links.port_name("abcdef", NET) == "akabcdp1b2c3d4e"
    for whose in (Owner("abcdef", "net", NET), Owner("abcdef", "port", NET, "f" * 64)):
        assert links.owner(whose.alias()) == whose
        assert len(whose.alias()) < 256
    assert links.owner("") is None
    assert links.owner("uplink: rack 3") is None


def test_container_ids_cannot_leave_the_folder() -> None:
    assert valid_id("a" * 64)
    assert not any(map(valid_id, ["", ".", "..", "a/b", "-a", "a\n", "a" * 300, "ä"]))


def test_journal_survives_broken_files(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("c1", "u1", "/n", ["l1"], [NET])
    entry = journal.read("c1")
    assert entry is not None
    assert (entry.capsule_uuid, entry.links, entry.networks) == ("u1", ["l1"], [NET])
    (tmp_path / "c2.json").write_text('{"container_id":')
    (tmp_path / ".c3.new").write_text("half")
    journal.tidy()
    assert sorted(e.container_id for e in journal.entries()) == ["c1", "c2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c1.json", "c2.json"]
    broken = journal.read("c2")
    assert broken is not None
    assert broken.made_us == 0
    journal.remove("c2")
    journal.remove("c2")
    assert journal.read("c2") is None


def test_loopback_answers_in_the_callers_version(tmp_path: Path) -> None:
    plugin.install(tmp_path / "bin", tmp_path / "conf", "abcdef", tmp_path / "s")
    program = str(tmp_path / "bin" / "loopback")

    def run(command: str, config: str) -> str:
        env = {"CNI_COMMAND": command, "CNI_NETNS": "/n", "CNI_IFNAME": "lo"}
        return subprocess.run(
            [program], env=env, input=config, capture_output=True, text=True, check=True, timeout=9
        ).stdout

    old = json.loads(run("ADD", '{"cniVersion":"0.3.1","name":"cni-loopback","type":"loopback"}'))
    assert old["cniVersion"] == "0.3.1"
    assert old["ips"] == [{"version": "4", "interface": 0, "address": "127.0.0.1/8"}]
    assert old["interfaces"][0]["sandbox"] == "/n"
    assert "version" not in json.loads(run("ADD", '{"name":"x",\n"cniVersion":"1.0.0"}'))["ips"][0]
    assert "1.0.0" in json.loads(run("VERSION", ""))["supportedVersions"]
    assert run("DEL", "{}") == ""


def test_the_client_without_an_agent_gives_a_cni_error(tmp_path: Path) -> None:
    plugin.install(tmp_path / "bin", tmp_path / "conf", "abcdef", tmp_path / "s")
    conf = json.loads((tmp_path / "conf" / plugin.CONF).read_text())

    def run(config: dict[str, object]) -> tuple[int, dict[str, object]]:
        done = subprocess.run(
            [str(tmp_path / "bin" / plugin.NAME)],
            env={"CNI_COMMAND": "ADD"},
            input=json.dumps(config),
            capture_output=True,
            text=True,
            check=False,
            timeout=9,
        )
        return done.returncode, json.loads(done.stdout)

    code, answer = run(conf["plugins"][0])
    assert (code, answer["code"]) == (1, 11)
    assert str(tmp_path / "s") in str(answer["msg"])
    code, answer = run({"type": "askos-cni"})
    assert code == 1
    assert "askosSocket" in str(answer["msg"])


def test_install_and_uninstall_touch_only_our_own(tmp_path: Path) -> None:
    folders = tmp_path / "bin", tmp_path / "conf"
    folders[0].mkdir()
    (folders[0] / "loopback").write_text("somebody else's")
    plugin.install(*folders, "abcdef", tmp_path / "s")
    before = (folders[0] / plugin.NAME).stat().st_mtime_ns
    plugin.install(*folders, "abcdef", tmp_path / "s")
    assert (folders[0] / plugin.NAME).stat().st_mtime_ns == before
    plugin.uninstall(*folders, "fedcba")
    assert (folders[1] / plugin.CONF).exists()
    plugin.uninstall(*folders, "abcdef")
    assert [path.name for folder in folders for path in folder.iterdir()] == ["loopback"]
    with pytest.raises(SetupError, match="letters, digits"):
        plugin.install(*folders, "abcdef", tmp_path / 'quo"te')


def test_the_client_is_valid_python() -> None:
    text = plugin.client_text(sys.executable)
    compile(text, "askos-cni", "exec")
    assert text.startswith(f"#!{sys.executable} -ISE\n")


def test_resolvers_are_read_as_the_c_library_does(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text(
        "# x\nnameserver 10.0.0.1\nsearch a b\nnameserver nonsense\n"
        "nameserver ::1\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n"
    )
    assert host.resolvers(conf) == ["10.0.0.1", "::1", "1.1.1.1"]
    assert "10.0.0.1/32" in host.host_routes(conf)
    assert host.resolvers(tmp_path / "missing") == []
