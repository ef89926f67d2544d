"""Options of create, and the commands beside the life of a container, in one process against a made-up cloud."""

from __future__ import annotations

import io
import json
import os
import tarfile
from base64 import b64encode
from ipaddress import IPv6Network

import pytest

from askos.cli import create_words, networks, packing
from askos.client.errors import ClientError
from askos.client.remote import Typed


def test_create_sends_what_was_asked_for(askos, cloud, tmp_path):
    (tmp_path / "conf").write_text("a=1\n")
    ran = askos(
        "create", "--name", "web", "-v", "data:/d", "--mount", "size=10g,dst=/new", "--file", f"{tmp_path}/conf:/etc/c",
        "-p", "80", "-p", "53/udp", "--net", "back:ip=10.0.0.9", "--net", "port=p1", "--health-cmd", "true",
        "--health-interval", "1m", "--health-retries", "2", "--disk", "5g", "--auto-heal", "--registry", "hub",
        "--zone", "nova", "--hint", "label:a=b", "--host", "h", "--runtime", "runsc", "--privileged",
        "--cpu-policy", "dedicated", "busybox",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (body,) = cloud.bodies
    assert body["mounts"] == [
        {"type": "volume", "source": "data", "destination": "/d"},
        {"type": "volume", "size": "10", "destination": "/new"},
        {"type": "bind", "source": b64encode(b"a=1\n").decode(), "destination": "/etc/c"},
    ]
    assert body["exposed_ports"] == {"80/tcp": {}, "53/udp": {}}
    assert body["nets"] == [{"network": "back", "v4-fixed-ip": "10.0.0.9"}, {"port": "p1"}]
    assert body["healthcheck"] == {"cmd": "true", "interval": 60, "retries": 2}
    rest = (
        "disk",
        "auto_heal",
        "registry",
        "availability_zone",
        "hints",
        "host",
        "runtime",
        "privileged",
        "cpu_policy",
    )
    assert [body[name] for name in rest] == [
        *(5, True, "hub", "nova", {"label:a": "b"}, "h", "runsc", True, "dedicated"),
    ]


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (("-v", "/etc:/x"), "askos volume create"),
        (("-v", "./here:/x"), "askos cp"),
        (("-v", "data"), "Write NAME:/path"),
        (("-v", "data:/x:ro"), "A capsule has readOnly"),
        (("--mount", "type=tmpfs,dst=/x"), "not 'tmpfs'"),
        (("--mount", "source=a"), "destination=/path"),
        (("--file", "nowhere:/x"), "cannot read nowhere"),
        (("-p", "8080:80"), "askos floating-ip attach"),
        (("-p", "0"), "is no port"),
        (("-p", "1-1000"), "more than 100 ports"),
        (("-p", "80", "--sg", "web"), "rule add"),
        (("--net", "host"), "network of its own"),
        (("--net", "a", "--net", "b", "--ip", "10.0.0.1"), "exactly one --net"),
        (("--ip", "10.0.0.1"), "exactly one --net"),
        (("--ip6", "fd00::1"), "exactly one --net"),
        (("--net", "a:ip6=fd00::5", "--ip6", "fd00::6"), "exactly one --net"),
        (("--net", "a:fd00::5"), "is no network"),
        (("--net", "port=p,ip6=fd00::5"), "a port has its address"),
        (("--health-retries", "2"), "--health-cmd"),
        (("--health-cmd", "x", "--health-interval", "soon"), "is not a time"),
        (("--disk", "much"), "is not a size"),
    ],
)
def test_what_cannot_be_is_a_mistake_of_use_with_a_hint(askos, cloud, flags, hint):
    ran = askos("create", *flags, "busybox")
    assert (ran.code, ran.err.count("\n"), cloud.bodies) == (2, 1, [])
    assert hint in ran.err


def test_a_large_file_is_refused(tmp_path):
    (tmp_path / "big").write_bytes(bytes(create_words.FILE_BYTES + 1))
    with pytest.raises(ValueError, match="larger than 512 KiB"):
        create_words.file(f"{tmp_path}/big:/x")


def test_top_stats_pause_rename_update_commit_and_actions(askos, cloud):
    askos("run", "-d", "--name", "web", "busybox", "sleep", "100")
    assert askos("top", "web", "-o", "pid,args").out.splitlines() == ["PID  CMD", "7    -o pid,args"]
    table = askos("stats", "--no-stream").out.splitlines()
    assert table[1].split() == [
        "web",
        "12.50%",
        "32.0",
        "/",
        "64",
        "MiB",
        "50.00%",
        "1.5kB",
        "/",
        "20B",
        "0B",
        "/",
        "4.1kB",
    ]
    assert askos("pause", "web").out == "web\n"
    assert cloud.find("web").status == "Paused"
    again = askos("pause", "web", "nobody")
    assert (again.code, again.err.count("\n")) == (1, 2)
    assert askos("unpause", "web").code == 0
    assert askos("update", "--cpus", "2", "-m", "1g", "--no-auto-heal", "web").code == 0
    body = cloud.find("web").body
    assert (body["cpu"], body["memory"], body["auto_heal"]) == (2.0, "1024", False)
    assert askos("update", "web").code == 2
    assert askos("rename", "web", "www").out == "www\n"
    assert askos("commit", "www", "reg:5000/shop:2").out == "image-1\n"
    assert "repository=reg%3A5000%2Fshop&tag=2" in cloud.seen[-1] or "repository=reg:5000/shop&tag=2" in cloud.seen[-1]
    assert askos("events", "www").out.splitlines()[1].split()[0] == "create"
    assert "1.50 s" in askos("actions", "www").out
    assert len(askos("events", "--since", "2001-01-01T00:00:00Z", "www").out.splitlines()) == 2
    assert len(askos("actions", "--since", "2100-01-01T00:00:00Z", "www").out.splitlines()) == 1
    assert askos("actions", "--since", "soon", "www").code == askos("actions", "--since", "1h", "www", "r").code == 2


def test_cp_into_a_container_follows_dockers_rules(askos, cloud, tmp_path):
    askos("create", "--name", "web", "busybox")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("x" * 700)

    def names(key):
        with tarfile.open(fileobj=io.BytesIO(cloud.files.pop(key))) as tar:
            return tar.getnames()

    assert askos("cp", f"{tmp_path}/d", "web:/tmp").code == 0
    assert names("put /tmp") == ["d", "d/f"]
    assert askos("cp", f"{tmp_path}/d/.", "web:/tmp").code == 0
    assert names("put /tmp") == ["f"]
    assert askos("cp", f"{tmp_path}/d/f", "web:/tmp/g").code == 0
    assert names("put /tmp") == ["g"]
    assert askos("cp", f"{tmp_path}/d", "web:tmp/e").code == 0
    assert names("put /tmp") == ["e", "e/f"]
    for wrong in ("web:/none/g", "web:/none/"):
        refused = askos("cp", f"{tmp_path}/d/f", wrong)
        assert (refused.code, refused.err.count("\n")) == (1, 1)
        assert "Make it first" in refused.err
    assert askos("cp", "here", "there").code == 2
    assert askos("cp", "a:/x", "b:/y").code == 2


def test_cp_of_links_into_a_container(askos, cloud, tmp_path):
    askos("create", "--name", "web", "busybox")
    (tmp_path / "f").write_text("x")
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "lost").symlink_to("nowhere")

    def entry():
        with tarfile.open(fileobj=io.BytesIO(cloud.files.pop("put /tmp"))) as tar:
            (found,) = tar.getmembers()
            return found

    assert askos("cp", f"{tmp_path}/link", "web:/tmp").code == 0
    copied = entry()
    assert (copied.name, copied.linkname) == ("link", "f")
    assert askos("cp", "-L", f"{tmp_path}/link", "web:/tmp").code == 0
    copied = entry()
    assert (copied.name, copied.isreg(), copied.size) == ("link", True, 1)
    lost = askos("cp", "-L", f"{tmp_path}/lost", "web:/tmp")
    assert (lost.code, lost.err.count("\n")) == (1, 1)
    assert "leads nowhere" in lost.err


def test_cp_of_links_out_of_a_container(askos, cloud, tmp_path):
    askos("create", "--name", "web", "busybox")
    cloud.files["/srv/l"] = archive(("l", LINK, "../opt/m"))
    cloud.files["/srv/../opt/m"] = archive(("m", LINK, "/real"))
    cloud.files["/real"] = archive(("real", FILE, "hi"))
    cloud.files["/loop"] = archive(("loop", LINK, "loop"))
    assert askos("cp", "web:/srv/l", str(tmp_path)).code == 0
    assert os.readlink(tmp_path / "l") == "../opt/m"
    (tmp_path / "l").unlink()
    assert askos("cp", "-L", "web:/srv/l", str(tmp_path)).code == 0
    assert not (tmp_path / "l").is_symlink()
    assert (tmp_path / "l").read_text() == "hi"
    circle = askos("cp", "-L", "web:/loop", str(tmp_path))
    assert (circle.code, circle.err.count("\n")) == (1, 1)
    assert "in a circle" in circle.err


@pytest.mark.parametrize("flags", [(), ("-a",)])
def test_owners_are_kept_if_asked_for(askos, cloud, tmp_path, monkeypatch, flags):
    given = []
    monkeypatch.setattr(os, "chown", lambda *args, **more: given.append((args, more)))
    askos("create", "--name", "web", "busybox")
    cloud.files["/d"] = archive(("d", DIR, ""), ("d/f", FILE, "hi"), ("d/l", LINK, "f"), owner=(1000, 50))
    assert askos("cp", *flags, "web:/d", str(tmp_path)).code == 0
    to = tmp_path / "d"
    wanted = [((to / each, 1000, 50), {"follow_symlinks": each != "l"}) for each in ("f", "l", "")]
    assert given == (wanted if flags else [])
    assert (to / "f").stat().st_mode & 0o7777 == 0o755
    (tmp_path / "g").write_text("x")
    here = (tmp_path / "g").stat()
    monkeypatch.setattr(type(tmp_path), "lstat", lambda self: os.stat_result((*here[:4], 1234, 567, *here[6:])))
    assert askos("cp", *flags, f"{tmp_path}/g", "web:/tmp").code == 0
    with tarfile.open(fileobj=io.BytesIO(cloud.files["put /tmp"])) as tar:
        (found,) = tar.getmembers()
    assert (found.uid, found.gid) == ((1234, 567) if flags else (0, 0))


def test_who_is_not_root_cannot_give_files_away(askos, cloud, tmp_path, monkeypatch):
    def refused(*_args, **_more):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refused)
    askos("create", "--name", "web", "busybox")
    cloud.files["/f"] = archive(("f", FILE, "hi"), owner=(0, 0))
    told = askos("cp", "-a", "web:/f", str(tmp_path))
    assert (told.code, told.err.count("\n")) == (1, 1)
    assert "cannot be given to 0:0: only root may do that. Leave out -a" in told.err


def test_networks_of_other_projects_are_listed_if_asked_for(askos, cloud):
    for name, project, shared in (("own", "p" * 32, False), ("theirs", "q" * 32, False), ("common", "q" * 32, True)):
        cloud.networks.add("networks", name=name, project_id=project, shared=shared)

    def names(*flags):
        return [line.split()[0] for line in askos("network", "ls", *flags).out.splitlines()]

    assert names() == ["NAME", "public", "own", "common"]
    assert names("--all-projects") == ["NAME", "public", "own", "theirs", "common"]
    assert askos("network", "ls", "--all-projects").out.splitlines()[3].split()[-1] == "q" * 32


def archive(*members, owner=(0, 0)):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.uid, info.gid = owner
            info.type, info.mode = kind, 0o4755
            if kind == tarfile.REGTYPE:
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
            else:
                info.linkname = text
                tar.addfile(info)
    return buffer.getvalue()


DIR, FILE, LINK, HARD = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def test_cp_out_of_a_container(askos, cloud, tmp_path):
    askos("create", "--name", "web", "busybox")
    cloud.files["/srv/d"] = cloud.files["/srv/d/."] = archive(("d", DIR, ""), ("d/f", FILE, "hi"), ("d/l", LINK, "f"))
    assert askos("cp", "web:/srv/d", f"{tmp_path}/new").code == 0
    assert (tmp_path / "new" / "l").read_text() == "hi"
    assert (tmp_path / "new" / "f").stat().st_mode & 0o7777 == 0o755
    assert askos("cp", "web:/srv/d", f"{tmp_path}/new").code == 0
    assert (tmp_path / "new" / "d" / "f").exists()
    assert askos("cp", "web:/srv/d/.", f"{tmp_path}/new/d").code == 0
    assert not (tmp_path / "new" / "d" / "d").exists()
    assert askos("cp", "web:/srv/d", "-").out.encode() == cloud.files["/srv/d"]
    missing = askos("cp", "web:/nope", str(tmp_path))
    assert (missing.code, missing.err.count("\n")) == (1, 1)
    assert "There is no '/nope' in the container. Check the path" in missing.err


@pytest.mark.parametrize(
    "hostile",
    [
        [("d", DIR, ""), ("d/../../out", FILE, "x")],
        [("d", DIR, ""), ("d/up", LINK, "../.."), ("d/up/out", FILE, "x")],
        [("d", DIR, ""), ("d/abs", LINK, "/"), ("d/abs/out", FILE, "x")],
        [("d", DIR, ""), ("d/hard", HARD, "d/../../secret")],
    ],
)
def test_an_archive_cannot_write_outside(tmp_path, hostile):
    (tmp_path / "secret").write_text("kept")
    (tmp_path / "in").mkdir()
    with pytest.raises(ClientError, match="leads out"):
        packing.unpack([archive(*hostile)], str(tmp_path / "in" / "d"), contents=False, complain=pytest.fail)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "secret"]
    assert (tmp_path / "secret").read_text() == "kept"


def test_special_files_are_left_out(tmp_path):
    told = []
    pieces = [archive(("d", DIR, ""), ("d/pipe", tarfile.FIFOTYPE, ""))]
    packing.unpack(pieces, str(tmp_path / "d"), contents=False, complain=told.append)
    assert list((tmp_path / "d").iterdir()) == []
    assert len(told) == 1


def test_keys_to_detach():
    typed = Typed(b"\x10\x11")
    assert typed.feed(b"ls\x10") == (b"ls", False)
    assert typed.feed(b"x") == (b"\x10x", False)
    assert typed.feed(b"\x10") == (b"", False)
    assert typed.feed(b"\x11") == (b"", True)
    assert Typed(b"").feed(b"\x10\x11") == (b"\x10\x11", False)


def test_networks(askos, cloud):
    made = askos("network", "create", "back")
    assert made.code == 0, made.err
    (subnet,) = cloud.networks.things["subnets"].values()
    assert (subnet["cidr"], subnet["network_id"]) == ("192.168.0.0/24", made.out.strip())
    assert "192.168.0.0/24" in askos("network", "ls").out
    assert "external" in askos("network", "ls").out
    assert "192.168.0.0/24" in askos("network", "show", "back").out
    refused = askos("network", "create", "all", "--subnet", "0.0.0.0/0")
    assert "that is everything" in refused.err
    assert [n["name"] for n in cloud.networks.things["networks"].values()] == ["public", "back"]
    cloud.networks.add("networks", name="busy")
    gone = askos("network", "rm", "back", "busy", "none")
    assert (gone.code, gone.out) == (1, "back\n")
    assert gone.err.splitlines() == [
        "askos: cannot remove the network busy: Unable to complete operation on network busy. It is in use.",
        "askos: cannot remove the network none: there is no network none. See `askos network ls`.",
    ]
    askos("create", "--name", "web", "busybox")
    assert askos("network", "connect", "--ip", "10.0.0.9", "back", "web").out == "web\n"
    assert any("network_attach?network=back&fixed_ip=10.0.0.9" in line for line in cloud.seen)
    assert askos("network", "disconnect", "back", "web").code == 0


def test_networks_of_both_ip_versions(askos, cloud):
    made = askos("network", "create", "back", "--subnet6", "2001:db8:5::/64", "--gateway6", "none")
    assert made.code == 0, made.err
    four, six = cloud.networks.things["subnets"].values()
    assert (four["ip_version"], "gateway_ip" in four) == (4, False)
    assert six | {"id": ""} == {
        "id": "", "network_id": made.out.strip(), "ip_version": 6, "cidr": "2001:db8:5::/64", "name": "back",
        "gateway_ip": None,
    }  # fmt: skip
    assert "192.168.0.0/24, 2001:db8:5::/64" in askos("network", "ls", "--no-trunc").out
    shown = askos("network", "show", "back").out
    assert "2001:db8:5::/64, gateway none" in shown
    assert askos("network", "create", "local", "--subnet6", "auto").code == 0
    made_up = IPv6Network(list(cloud.networks.things["subnets"].values())[-1]["cidr"])
    assert made_up.prefixlen == 64
    assert made_up.subnet_of(IPv6Network("fd00::/8"))
    refused = askos("network", "create", "none", "--gateway6", "fd00::1")
    assert (refused.code, "goes with --subnet6" in refused.err) == (1, True)
    assert networks.local_range() != networks.local_range()


@pytest.mark.parametrize(
    ("flags", "net"),
    [
        (("--net", "a:ip6=fd00::5"), {"network": "a", "v6-fixed-ip": "fd00::5"}),
        (
            ("--net", "a:ip=10.0.0.5,ip6=fd00::5"),
            {"network": "a", "v4-fixed-ip": "10.0.0.5", "v6-fixed-ip": "fd00::5"},
        ),
        (("--net", "name=a,ip6=fd00::5"), {"network": "a", "v6-fixed-ip": "fd00::5"}),
        (("--net", "a", "--ip6", "fd00::5"), {"network": "a", "v6-fixed-ip": "fd00::5"}),
        (
            ("--net", "a:ip6=fd00::5", "--ip", "10.0.0.5"),
            {"network": "a", "v4-fixed-ip": "10.0.0.5", "v6-fixed-ip": "fd00::5"},
        ),
    ],
)
def test_addresses_of_both_ip_versions(askos, cloud, flags, net):
    assert askos("create", *flags, "busybox").code == 0
    assert cloud.bodies[-1]["nets"] == [net]


def test_rules_of_ipv6(askos, cloud):
    askos("sg", "create", "web")
    for flags in (("--from", "fd00::/8"), ("--protocol", "icmpv6"), ("--port", "80", "--ipv6")):
        assert askos("sg", "rule", "add", "web", *flags).code == 0
    assert [r["ethertype"] for r in cloud.networks.things["security-group-rules"].values()] == ["IPv6"] * 3


def test_a_cloud_without_networks_says_so(askos, cloud):
    cloud.networks.offered = False
    ran = askos("network", "ls")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "no service of type network" in ran.err


def test_free_subnets():
    assert networks.free_subnet(["192.168.0.0/23", "10.0.0.0/8"]) == "192.168.2.0/24"
    assert networks.free_subnet(["192.168.0.0/16"]) == "172.16.0.0/24"
    with pytest.raises(ClientError, match="Name one with --subnet"):
        networks.free_subnet(["0.0.0.0/0"])


def test_security_groups(askos, cloud):
    made = askos("sg", "create", "web").out.strip()
    assert askos("sg", "rule", "add", "web", "--port", "80-90", "--from-group", "default").code == 0
    (rule,) = cloud.networks.things["security-group-rules"].values()
    assert rule | {"id": ""} == {
        "id": "", "security_group_id": made, "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
        "port_range_min": 80, "port_range_max": 90, "remote_group_id": "sg-1",
    }  # fmt: skip
    assert askos("sg", "rule", "add", "web", "--port", "x").code == 2
    assert askos("sg", "rule", "rm", rule["id"]).code == 0
    askos("create", "--name", "box", "busybox")
    assert askos("sg", "attach", "web", "box").code == 0
    assert askos("sg", "rm", "web").code == 0
    assert "default" in askos("security-group", "ls").out


def test_floating_addresses(askos, cloud):
    askos("create", "--name", "web", "busybox")
    address = askos("fip", "create").out.strip()
    assert address == "172.24.4.7"
    assert "has no address" in askos("fip", "attach", address, "web").err
    port = cloud.networks.add("ports", device_id=cloud.find("web").uuid, network_id="n1")
    assert askos("fip", "attach", address, "web").code == 0
    (one,) = cloud.networks.things["floatingips"].values()
    assert one["port_id"] == port["id"]
    assert "172.24.4.7" in askos("floating-ip", "ls").out
    assert askos("fip", "detach", address).code == 0
    assert one["port_id"] is None
    assert askos("fip", "rm", address).code == 0
    assert cloud.networks.things["floatingips"] == {}
    taken = askos("fip", "attach", "web")
    assert (taken.code, taken.out.strip()) == (0, "172.24.4.7"), "a new one, as none was named"
    (one,) = cloud.networks.things["floatingips"].values()
    assert one["port_id"] == port["id"]
    assert askos("fip", "attach", "172.24.4.7", "172.24.4.8", "web").code == 2


def test_a_registrys_password_comes_from_standard_input_only(program, askos, cloud):
    import subprocess

    command = ("registry", "add", "hub", "docker.io", "-u", "al")
    told = program(*command, "--password-stdin", stdin=subprocess.PIPE).communicate(b"s3cret\n", timeout=60)
    assert told == (b"r-1\n", b"")
    assert cloud.registries["hub"] == {"name": "hub", "domain": "docker.io", "username": "al", "password": "s3cret"}
    _, complaint = program(*command).communicate(timeout=60)
    assert b"Use --password-stdin" in complaint
    listed = askos("registry", "ls")
    assert "docker.io" in listed.out
    assert "s3cret" not in listed.out


def test_quota(askos):
    assert [line.split() for line in askos("quota", "show").out.splitlines()] == [
        ["OF", "IN", "USE", "LIMIT"], ["containers", "2", "40"], ["memory", "512", "MiB", "unlimited"],
    ]  # fmt: skip
    assert json.loads(askos("quota", "show", "-o", "json").out)["containers"] == {"limit": 40, "in_use": 2}
    assert askos("quota", "set", "--containers", "5").code == 2


def test_what_a_server_does_not_offer_is_told(askos):
    for command in (("host", "ls"), ("service", "ls")):
        ran = askos(*command)
        assert (ran.code, ran.err.count("\n")) == (1, 1)
        assert "does not offer" in ran.err


@pytest.mark.parametrize(
    ("words", "found"),
    [("askos network rm pu", b"plain,public\n"), ("askos sg show de", b"plain,default\n")],
)
def test_names_are_completed(program, environment, words, found):
    environment |= {"_ASKOS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "3"}
    assert program().communicate(timeout=60)[0] == found
