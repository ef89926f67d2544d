"""Starting: what is missing is told in one clear line; two clouds, TLS, and starting twice."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tests.acceptance.cloud_fixtures import LIVES, Cloud, Done, eventually, free_port, nothing_remains, one_line
from tests.acceptance.image_fixtures import Image

import askos
from askos.settings import own_address

NewCloud = Callable[..., Cloud]
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")


def try_up(cloud: Cloud, *, path: str | None = None) -> str:
    """Start a cloud that must not start; the one line. Nothing may be left of the attempt."""
    environment = {"PATH": path} if path else {}
    where = ("--address", cloud.address, "--port", str(cloud.port))
    program = shutil.which("askos", path=cloud.env["PATH"]) or "askos"
    done = cloud.run(program, "up", "--detach", *where, check=False, env=environment)
    # Steps are told as they begin; what comes last is the error.
    steps, error = [s for s in done.stderr.splitlines() if s.startswith("  ")], done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == len(steps) + 1, done.stderr
    line = one_line(Done(done.args, done.returncode, "", error))
    with contextlib.suppress(OSError):
        cloud.instance = (cloud.data / "instance").read_text().strip()
    if cloud.instance:
        nothing_remains(cloud)
    return line


# -- what is missing -----------------------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may write to."""
    folder = Path(tempfile.mkdtemp(prefix="askos-acc-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_not_root(new_cloud: NewCloud, open_folder: Path) -> None:
    cloud = new_cloud(data=open_folder / "d")
    source = Path(askos.__file__).parents[1]
    for python in (sys.executable, "/usr/bin/python3"):
        # root's own virtual environment may be closed to others; then Debian's Python reads the same packages.
        command = (*NOBODY, "env", f"PYTHONPATH={source}:{sysconfig.get_path('purelib')}", python, "-m", "askos")
        if cloud.run(*command, "--version", check=False).returncode == 0:
            break
    else:
        pytest.skip("nobody can run neither this Python nor Debian's")
    for what in ("up", "up -d", "agent"):
        assert "must be root" in one_line(cloud.run(*command, *what.split(), check=False))
    assert not cloud.data.exists()


@pytest.mark.parametrize("program", ["containerd", "runc"])
def test_a_program_is_missing(new_cloud: NewCloud, tmp_path: Path, program: str) -> None:
    cloud = new_cloud()
    for folder in cloud.env["PATH"].split(":"):
        for file in Path(folder).iterdir() if Path(folder).is_dir() else ():
            link = tmp_path / file.name
            if not file.name.startswith(program) and not link.is_symlink():
                link.symlink_to(file)
    line = try_up(cloud, path=str(tmp_path))
    assert f"install the package {program}" in line
    cloud.up()


def test_the_port_is_in_use(new_cloud: NewCloud) -> None:
    cloud = new_cloud()
    with socket.create_server((cloud.address, cloud.port)):
        line = try_up(cloud)
        assert f"{cloud.address}:{cloud.port}: the port is in use" in line
        assert "--port" in line
    cloud.up()


def test_the_address_is_not_ours(new_cloud: NewCloud) -> None:
    assert "203.0.113.7" in try_up(new_cloud(address="203.0.113.7"))


def test_the_data_folder_cannot_be_written(new_cloud: NewCloud, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=700", "askos-test", str(tmp_path)], check=True, timeout=20)
    try:
        line = try_up(new_cloud(data=tmp_path / "d"))
        assert "Read-only file system" in line
        assert "--data" in line
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=20)
    (tmp_path / "file").touch()
    assert "no folder" in try_up(new_cloud(data=tmp_path / "file"))
    others = tmp_path / "others"
    others.mkdir()
    others.chmod(0o777)
    assert "can be changed by others" in try_up(new_cloud(data=others))


def test_the_path_is_too_long(new_cloud: NewCloud, tmp_path: Path) -> None:
    data = tmp_path / ("long" * 25)
    line = try_up(new_cloud(data=data))
    assert "too long" in line
    assert "--data" in line
    assert not data.exists()


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["--port", "99999"], "port"),
        (["--address", "localhost.example"], "address"),
        (["--network-pool", "10.0.0.0/30"], "network-pool"),
        (["--log-level", "loud"], "log-level"),
        (["--config", "/nowhere.toml"], "/nowhere.toml"),
    ],
)
def test_bad_settings(new_cloud: NewCloud, flags: list[str], hint: str) -> None:
    cloud = new_cloud()
    assert hint in cloud.refused("up", "-d", *flags)
    assert not cloud.data.exists()


@contextlib.contextmanager
def small_disk(size: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="askos-acc-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "askos-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=20)
        folder.rmdir()


def test_the_disk_is_full(new_cloud: NewCloud) -> None:
    with small_disk("1m") as folder:
        line = try_up(new_cloud(data=folder / "d"))
        assert "No space left" in line
        assert "--data" in line


def test_the_disk_fills_up_later(new_cloud: NewCloud) -> None:
    with small_disk("160m") as folder, contextlib.ExitStack() as stack:
        cloud = new_cloud(data=folder / "d")
        stack.callback(cloud.close)  # Before its disk is gone, and with room on it.
        stack.callback((folder / "filler").unlink, missing_ok=True)
        cloud.up()
        box = cloud.running(LIVES, name="box")
        cloud.askos("ps")  # Logs in.
        with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(b"\0" * 4096):
                pass
        for command in (["create", "busybox"], ["run", "busybox", "true"], ["run", "-d", "busybox", *LIVES]):
            done = cloud.askos(*command, check=False)
            assert "space" in one_line(done)
        archive = cloud.home / "big.tar"
        archive.write_bytes(Image("big").docker_archive("big:1"))
        said = one_line(cloud.askos("image", "import", str(archive), check=False))
        # After the next heartbeat, which cannot be noted on this disk, the host counts as gone.
        assert "space" in said or "host is not connected" in said
        assert cloud.show(box)["status"] == "Running"
        (folder / "filler").unlink()
        eventually(
            lambda: cloud.askos("run", "--rm", "busybox", "echo", "again", check=False).stdout == "again\n",
            "room again",
        )
        cloud.clear()


# -- together ------------------------------------------------------------------------------------------------------


def test_a_second_up_changes_nothing(cloud: Cloud) -> None:
    uuid = cloud.running()
    pid, containerd, port = cloud.pid(), (cloud.data / "run/containerd/process.json").read_text(), cloud.port
    password = (cloud.data / "admin-password").read_text()
    for flags in ([], ["--port", str(free_port())]):
        done = cloud.askos("up", "--detach", *flags)
        assert "running already" in done.stderr
    assert cloud.pid() == pid
    assert (cloud.data / "run/containerd/process.json").read_text() == containerd
    assert (cloud.data / "admin-password").read_text() == password
    assert cloud.show(uuid)["status"] == "Running"
    assert "running already" in one_line(cloud.askos("up", "--port", str(port), check=False))


def test_down_without_up(new_cloud: NewCloud) -> None:
    cloud = new_cloud()
    assert "nothing runs" in cloud.askos("down").stderr
    assert not cloud.data.exists()
    cloud.up()
    cloud.down()
    assert "nothing runs" in cloud.askos("down").stderr


def test_two_clouds_do_not_touch_each_other(cloud: Cloud, new_cloud: NewCloud) -> None:
    other = new_cloud()
    other.up()
    assert other.instance != cloud.instance
    mine, theirs = cloud.running(("httpd", "-f", "-p", "80"), name="same"), other.running(name="same")
    address = next(iter(cloud.show(mine)["addresses"].values()))[0]["addr"]
    assert address != next(iter(other.show(theirs)["addresses"].values()))[0]["addr"]
    assert other.inside(theirs, f"nc -w 1 {address} 80 </dev/null")[0] != 0
    assert other.inside(theirs, f"ping -c 1 -W 1 {address}")[0] != 0
    assert other.api("GET", f"/v1/containers/{mine}").status == 404
    assert other.api("GET", "/v1/containers", token=cloud.token()).status == 401
    assert [c["uuid"] for c in other.containers()] == [theirs]
    other.down()
    nothing_remains(other)
    assert cloud.inside(mine, "echo alive") == (0, "alive\n")
    assert cloud.askos("run", "--rm", "busybox", "echo", "hi").stdout == "hi\n"


def shim_socket(cloud: Cloud, container: str) -> Path:
    """Where containerd puts the socket of a shim: outside of all that belongs to a cloud."""
    name = hashlib.sha256(f"{cloud.data}/run/containerd/c.sock/k8s.io/{container}".encode()).hexdigest()
    return Path("/run/containerd/s") / name


def test_down_leaves_no_socket_of_a_shim(new_cloud: NewCloud) -> None:
    cloud = new_cloud()
    cloud.up()
    cloud.running()
    tasks = cloud.data / "run/containerd/io.containerd.runtime.v2.task/k8s.io"
    sockets = [s for s in (shim_socket(cloud, name) for name in os.listdir(tasks)) if s.exists()]
    assert sockets, "this containerd puts its shims' sockets elsewhere"
    cloud.down()
    assert not [s for s in sockets if s.exists()]
    nothing_remains(cloud)
    assert not list((cloud.data / "log" / "capsules").glob("*/exec*"))


# -- TLS -----------------------------------------------------------------------------------------------------------


def test_tls_on_an_address_that_others_reach(new_cloud: NewCloud) -> None:
    address = own_address()
    if address.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    cloud = new_cloud(address=address)
    done = cloud.up()
    assert f"https://{address}:{cloud.port}" in done.stderr
    entry = yaml.safe_load((cloud.data / "clouds.yaml").read_text())["clouds"]["askos"]
    assert entry["auth"]["auth_url"].startswith(f"https://{address}:{cloud.port}/")
    trusted = ssl.create_default_context(cafile=entry["cacert"])

    def get(context: ssl.SSLContext) -> int:
        connection = http.client.HTTPSConnection(address, cloud.port, timeout=60, context=context)
        with contextlib.closing(connection):
            connection.request("GET", "/healthcheck")
            return connection.getresponse().status

    assert get(trusted) == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        get(ssl.create_default_context())
    old = ssl.create_default_context(cafile=entry["cacert"])
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    assert get(old) == 200
    assert cloud.askos("run", "--name", "hello", "busybox", "echo", "hi").stdout == "hi\n"
    assert "hello" in cloud.openstack("appcontainer", "list").stdout
    assert "hello" in cloud.zun("list").stdout
    # The very address is no way in for a container.
    cloud.askos("run", "-d", "--name", "box", "busybox", *LIVES)
    inside = cloud.askos("exec", "box", "nc", "-w", "1", address, str(cloud.port), check=False)
    assert inside.returncode != 0
    cloud.askos("rm", "-f", "box", "hello")
