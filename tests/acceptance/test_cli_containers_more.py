"""What else `askos` can do with containers, typed as a docker user would: on real containers."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

from tests.acceptance.cloud_fixtures import LIVES, Cloud, eventually
from tests.acceptance.terminal_fixtures import Terminal


def _start(cloud: Cloud, name: str, *flags: str, command: tuple[str, ...] = tuple(LIVES)) -> str:
    return cloud.askos("run", "-d", "--name", name, *flags, "busybox", *command).stdout.strip()


def _inside(cloud: Cloud, name: str, *command: str) -> str:
    return cloud.askos("exec", name, *command).stdout


def _fetch(address: str, port: int) -> tuple[str, ...]:
    """A command that gets / over HTTP. Not busybox' wget: some builds of it crash with a time limit."""
    return ("sh", "-c", f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 {address} {port}")


def test_run_it_detach_and_attach_again(cloud: Cloud) -> None:
    with Terminal("askos", "run", "-it", "--name", "shell", "busybox", "sh", env=cloud.env, rows=31, columns=91) as one:
        one.expect("#")
        one.expect_size(31, 91)
        one.type("kept=yes; echo ke''pt\n")
        one.expect("kept")
        one.type("\x10\x11")
        assert one.end() == 130
        assert "left running" in one.seen
    with Terminal("askos", "attach", "shell", env=cloud.env) as two:
        two.expect("#")
        two.type("echo $kept-it; exit 7\n")
        two.expect("yes-it")
        assert two.end() == 7
    assert "Start it with" in cloud.refused("attach", "shell")


def test_attach_without_a_terminal_shows_what_is_written(cloud: Cloud) -> None:
    _start(cloud, "talks", command=("sh", "-c", "while :; do echo tick; echo tock >&2; sleep 0.2; done"))
    with Terminal("askos", "attach", "--no-stdin", "talks", env=cloud.env) as watching:
        watching.expect("tick")
        watching.expect("tock")
        cloud.askos("kill", "talks")
        assert watching.end() == 137


def test_cp_both_ways(cloud: Cloud, tmp_path: Path) -> None:
    _start(cloud, "box")
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "file").write_bytes(bytes(range(256)) * 1000)
    (tree / "tool").write_text("#!/bin/sh\necho ran\n")
    (tree / "tool").chmod(0o755)
    (tree / "link").symlink_to("inner/file")
    cloud.askos("cp", str(tree), "box:/into")  # A new name.
    cloud.askos("cp", str(tree), "box:/into")  # Into the folder that is there now.
    cloud.askos("cp", f"{tree}/.", "box:/tmp")  # Only what is in it.
    assert _inside(cloud, "box", "/into/tool") == _inside(cloud, "box", "/tmp/tool") == "ran\n"
    assert _inside(cloud, "box", "readlink", "/into/tree/link") == "inner/file\n"
    assert _inside(cloud, "box", "stat", "-c", "%u:%g %a", "/into/tool") == "0:0 755\n"
    cloud.askos("cp", str(tree / "tool"), "box:/tmp/renamed")
    assert _inside(cloud, "box", "/tmp/renamed") == "ran\n"

    back = tmp_path / "back"
    cloud.askos("cp", "box:/into/tree", str(back))
    assert (back / "inner" / "file").read_bytes() == (tree / "inner" / "file").read_bytes()
    assert (back / "link").readlink() == Path("inner/file")
    cloud.askos("cp", "box:/into/tool", f"{back}/")
    cloud.askos("cp", "box:/into/tree/.", str(back / "inner"))
    assert (back / "inner" / "inner" / "file").exists()
    assert (back / "tool").stat().st_mode & 0o777 == 0o755
    archive = tmp_path / "a.tar"
    cloud.run("sh", "-c", f"askos cp box:/into - > {archive}")
    with tarfile.open(archive) as tar:
        assert {"into", "into/tool"} <= {name.rstrip("/") for name in tar.getnames()}
    cloud.run("sh", "-c", f"askos cp - box:/var < {archive}")
    assert _inside(cloud, "box", "/var/into/tool") == "ran\n"

    assert "/nothing" in cloud.refused("cp", "box:/nothing", str(tmp_path))
    assert "Make it first" in cloud.refused("cp", str(tree / "tool"), "box:/no/such/folder")
    assert "Make it first" in cloud.refused("cp", "box:/into/tool", f"{tmp_path}/none/")


def test_top_stats_pause_and_the_action_log(cloud: Cloud) -> None:
    _start(cloud, "busy", "-m", "64m")
    table = ("top", "busy", "-o", "pid,args")
    assert cloud.askos(*table).stdout.splitlines()[0].split() == ["PID", "COMMAND"]
    # For a moment after its start it is still the runtime's own program.
    eventually(lambda: LIVES[0] in cloud.askos(*table).stdout, "it is what was asked for")
    (used,) = json.loads(cloud.askos("stats", "-o", "json").stdout)
    assert (used["CONTAINER"], used["MEM LIMIT(MiB)"]) == ("busy", 64.0)
    row = cloud.askos("stats", "--no-stream", "busy").stdout.splitlines()[1]
    assert re.match(r"busy +\d+\.\d\d% +\d+\.\d / 64 MiB ", row)
    with Terminal("askos", "stats", "busy", env=cloud.env) as live:
        live.expect("busy")
        live.expect("busy")
        live.type("\x03")
        assert live.end() == 130
    cloud.askos("pause", "busy")
    assert "(paused)" in cloud.askos("ps").stdout
    assert "Running" not in cloud.askos("show", "busy").stdout
    cloud.askos("unpause", "busy")
    cloud.askos("update", "--cpus", "0.5", "--memory", "96m", "busy")
    cloud.askos("rename", "busy", "calm")
    shown = json.loads(cloud.askos("show", "-o", "json", "calm").stdout)
    assert (shown["status"], shown["cpu"], shown["memory"]) == ("Running", 0.5, "96")
    told = json.loads(cloud.askos("actions", "-o", "json", "calm").stdout)
    assert [one["action"] for one in told] == ["unpause", "pause", "create"]
    steps = cloud.askos("actions", "calm", told[0]["request_id"]).stdout
    assert "Success" in steps
    assert "in Running state" in cloud.refused("unpause", "calm")


def test_rebuild_begins_anew(cloud: Cloud) -> None:
    _start(cloud, "again")
    _inside(cloud, "again", "touch", "/gone")
    cloud.askos("rebuild", "again")
    assert "gone" not in _inside(cloud, "again", "ls", "/")


def test_commit_and_run_from_it(cloud: Cloud) -> None:
    _start(cloud, "source")
    _inside(cloud, "source", "sh", "-c", "echo baked > /cake")
    image = cloud.askos("commit", "source", "bakery:2").stdout.strip()

    def baked() -> bool:
        done = cloud.askos("run", "--rm", "--image-driver", "glance", image, "cat", "/cake", check=False)
        return (done.returncode, done.stdout) == (0, "baked\n")

    eventually(baked, "the image can be run")


def test_networks_with_packets(cloud: Cloud) -> None:
    cloud.askos("network", "create", "back", "--subnet", "192.168.91.0/24")
    _start(cloud, "db", "--net", "back:ip=192.168.91.9")
    _start(cloud, "web")
    ping = ("exec", "web", "ping", "-c", "1", "-W", "1", "192.168.91.9")
    assert cloud.askos(*ping, check=False).returncode != 0
    cloud.askos("network", "connect", "--ip", "192.168.91.33", "back", "web")
    eventually(lambda: cloud.askos(*ping, check=False).returncode == 0, "web reaches db")
    assert "192.168.91.33" in cloud.askos("show", "web").stdout
    assert "192.168.91.33" in cloud.askos("network", "show", "back").stdout
    assert "in use" in cloud.refused("network", "rm", "back")
    cloud.askos("network", "disconnect", "back", "web")
    eventually(lambda: cloud.askos(*ping, check=False).returncode != 0, "web does not reach db any more")
    cloud.askos("rm", "-f", "db", "web")
    cloud.askos("network", "rm", "back")
    assert "back" not in cloud.askos("network", "ls").stdout


def test_a_port_is_opened_and_a_floating_address_leads_there(cloud: Cloud) -> None:
    server = ("sh", "-c", "mkdir /www; echo served > /www/index.html; exec httpd -f -p 8080 -h /www")
    _start(cloud, "site", "-p", "8080", command=server)
    inside = cloud.askos("port", "site").stdout.split()[-1]
    address = cloud.askos("floating-ip", "create").stdout.strip()
    cloud.askos("floating-ip", "attach", address, "site")
    assert f"8080 -> {address}:8080" in cloud.askos("port", "site").stdout.splitlines()
    assert "site" in cloud.askos("fip", "ls").stdout
    _start(cloud, "visitor")
    fetch = ("exec", "visitor", *_fetch(inside.split(":")[0], 8080))
    eventually(lambda: "served" in cloud.askos(*fetch, check=False).stdout, "the port is open")
    outside = _fetch(address, 8080)
    eventually(lambda: "served" in cloud.run(*outside, check=False).stdout, "it is reached from outside")
    cloud.askos("floating-ip", "detach", address)
    eventually(lambda: "served" not in cloud.run(*outside, check=False).stdout, "it is not any more")
    cloud.askos("floating-ip", "rm", address)


def test_a_security_group_opens_while_it_runs(cloud: Cloud) -> None:
    cloud.askos("sg", "create", "web")
    _start(cloud, "site", "--sg", "web", command=("httpd", "-f", "-p", "80", "-h", "/etc"))
    _start(cloud, "visitor")
    address = json.loads(cloud.askos("show", "-o", "json", "site").stdout)["addresses"]
    (port,) = next(iter(address.values()))
    fetch = ("exec", "visitor", *_fetch(port["addr"], 80))

    def answers() -> bool:
        return "HTTP/1" in cloud.askos(*fetch, check=False).stdout

    assert not answers()
    rule = cloud.askos("sg", "rule", "add", "web", "--port", "80").stdout.strip()
    eventually(answers, "the rule lets it through")
    assert rule in cloud.askos("sg", "show", "web").stdout
    cloud.askos("sg", "rule", "rm", rule)
    eventually(lambda: not answers(), "it does not any more")
    cloud.askos("rm", "-f", "site")
    cloud.askos("sg", "rm", "web")


def test_volumes_and_files(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("key=1\n")
    cloud.askos("volume", "create", "data", "--size", "1g")
    cloud.askos("run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", "echo kept > /d/f")
    # The container goes a moment after the command has ended, and with it its hold on the volume.
    eventually(lambda: not cloud.containers(), "--rm removes it")
    both = ("--rm", "-v", "data:/d", "--file", f"{tmp_path}/conf:/etc/app/conf")
    assert cloud.askos("run", *both, "busybox", "cat", "/d/f", "/etc/app/conf").stdout == "kept\nkey=1\n"
    assert "/d" in cloud.askos("run", "--rm", "--mount", "size=1,dst=/d", "busybox", "df", "/d").stdout
    eventually(lambda: not cloud.containers(), "--rm removes them")
    eventually(lambda: cloud.askos("volume", "ls", "-q").stdout.count("\n") == 1, "the new volume went with it")
    cloud.askos("volume", "rm", "data")


def test_restart_policies_and_rm(cloud: Cloud) -> None:
    _start(cloud, "stubborn", "--restart", "on-failure:2", command=("sh", "-c", "echo try; exit 3"))
    assert cloud.askos("wait", "stubborn").stdout == "3\n"
    assert cloud.askos("logs", "stubborn").stdout == "try\n" * 3
    _start(cloud, "gone", "--rm", command=("sleep", "1"))
    eventually(lambda: "gone" not in cloud.askos("ps", "-a").stdout, "--rm removes it when it has ended")
    assert "exclude each other" in cloud.askos("run", "--rm", "--restart", "always", "busybox", check=False).stderr


def test_health_is_shown(cloud: Cloud) -> None:
    _start(cloud, "ill", "--health-cmd", "test -e /well", "--health-interval", "1s", "--health-retries", "1")
    eventually(lambda: "(unhealthy)" in cloud.askos("ps").stdout, "it is not well")
    _inside(cloud, "ill", "touch", "/well")
    eventually(lambda: "(healthy)" in cloud.askos("ps").stdout, "it is well")


def test_registries_quota_hosts_and_services(cloud: Cloud) -> None:
    cloud.askos("registry", "add", "mine", "reg.example:5000", "-u", "al", "--password-stdin", input="s3cret\n")
    listed = cloud.askos("registry", "ls", "-o", "json").stdout
    assert "reg.example:5000" in listed
    assert "s3cret" not in listed
    cloud.askos("registry", "update", "mine", "--domain", "other.example")
    assert "other.example" in cloud.askos("registry", "ls").stdout
    cloud.askos("registry", "rm", "mine")
    assert "containers" in cloud.askos("quota", "show").stdout
    (host,) = cloud.askos("host", "ls", "-q").stdout.split()
    assert f"Name:        {host}" in cloud.askos("host", "show", host).stdout
    cloud.askos("service", "disable", "--reason", "new disks", host)
    try:
        assert "disabled: new disks" in cloud.askos("service", "ls").stdout
        assert "not enough hosts" in cloud.askos("run", "busybox", "true", check=False).stderr
    finally:
        cloud.askos("service", "enable", host)
    assert cloud.askos("run", "--rm", "busybox", "echo", "works").stdout == "works\n"


def test_exec_with_variables_and_a_folder(cloud: Cloud) -> None:
    uuid = cloud.running(environment={"WHO": "me", "KEPT": "yes"})
    script = 'echo "$WHO $KEPT $MORE $(pwd)"'
    done = cloud.askos("exec", "-e", "WHO=you", "-e", "MORE=a=b", "-w", "/tmp", uuid, "sh", "-c", script)
    assert done.stdout == "you yes a=b /tmp\n"
    assert cloud.askos("exec", uuid, "sh", "-c", script).stdout == "me yes  /\n"
    assert "workdir" in cloud.refused("exec", "-w", "tmp", uuid, "pwd")
