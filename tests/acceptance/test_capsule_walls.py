"""Walls of real capsules: between projects by packet and by probe, to the host by confinement, around secrets."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.capsule_fixtures import BASE, Pod, container, pod
from tests.acceptance.cloud_fixtures import Cloud, Login, eventually

from askos.settings import own_address

FAST = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 1}
PATIENT = {"periodSeconds": 1, "timeoutSeconds": 30}
"""Of a probe that has to succeed, on a busy machine, too."""
WEB = "mkdir /www; echo ok > /www/ok; exec httpd -f -p 80 -h /www"


@pytest.fixture(scope="module")
def stranger(shared_cloud: Cloud) -> Login:
    return shared_cloud.make_login("stranger")


def create_as(cloud: Cloud, login: Login, body: dict[str, Any]) -> Pod:
    return Pod.create(cloud, body, token=cloud.token(login))


def ready(made: Pod) -> set[str]:
    return {c["name"] for c in made.status["containerStatuses"] if c["ready"]}


def test_no_probe_reaches_what_its_capsule_cannot(cloud: Cloud, stranger: Login) -> None:
    """A probe is made by the host's own agent: it must not lend the host's network, nor its names."""
    victim = Pod.create(
        cloud, pod(container("web", WEB, readinessProbe={"httpGet": {"path": "/ok", "port": 80}}))
    ).ready()
    there, api, own = victim.status["podIP"], cloud.port, own_address()
    gateway = victim.inside('ip route | sed -n "s/default via //p"', "web").split()[0]
    redirect = f"HTTP/1.0 302 Found\\r\\nLocation: http://127.0.0.1:{api}/healthcheck\\r\\n\\r\\n"
    serves = f'while :; do printf "{redirect}" | nc -l -p 8081; done'
    tries: dict[str, dict[str, Any]] = {
        "victim-http": {"httpGet": {"host": there, "port": 80, "path": "/ok"}},
        "victim-tcp": {"tcpSocket": {"host": there, "port": 80}},
        "victim-name": {"tcpSocket": {"host": victim.show()["metadata"]["name"], "port": 80}},
        "loopback": {"tcpSocket": {"host": "127.0.0.1", "port": api}},
        "localhost": {"httpGet": {"host": "localhost", "port": api, "path": "/healthcheck"}},
        "zero": {"tcpSocket": {"host": "0.0.0.0", "port": api}},
        "mapped": {"tcpSocket": {"host": f"::ffff:{own}", "port": api}},
        "host": {"tcpSocket": {"host": own, "port": api}},
        "host-name": {"tcpSocket": {"host": socket.gethostname(), "port": api}},
        "gateway": {"tcpSocket": {"host": gateway, "port": api}},
        "metadata": {"httpGet": {"host": "169.254.169.254", "port": 80}},
        "redirect": {"httpGet": {"host": "127.0.0.1", "port": 8081}},
        "sneaky": {"httpGet": {"host": f"x@127.0.0.1:{api}/#", "port": 80}},
    }
    assert cloud.http("GET", "/healthcheck").status == 200
    body = pod(
        container("good", WEB, readinessProbe={"httpGet": {"path": "/ok", "port": 80}, **PATIENT}),
        container("server", serves),
        *(container(name, readinessProbe={**probe, **FAST}) for name, probe in tries.items()),
    )
    made = create_as(cloud, stranger, body)
    made.until(lambda s: {c["name"] for c in s["containerStatuses"] if c["ready"]} >= {"good", "server"}, "it probes")
    seen: set[str] = set()

    def every_one_failed() -> bool:
        assert ready(made) == {"good", "server"}
        seen.update(e["container"] for e in made.events() if e["reason"] == "Unhealthy")
        return seen >= set(tries)

    eventually(every_one_failed, f"every probe has been tried; so far {seen}")
    told = json.dumps(made.events())
    assert "Debian" not in told
    # What a friend may do, a probe may as well.
    friend = pod(container("friend", readinessProbe={**tries["victim-http"], **PATIENT}),
                 container("named", readinessProbe={**tries["victim-name"], **PATIENT}))  # fmt: skip
    Pod.create(cloud, friend).ready()


def test_no_packet_from_capsule_to_capsule_of_another(cloud: Cloud, stranger: Login) -> None:
    victim = Pod.create(cloud, pod(container("web", WEB))).ready()
    there, name = victim.status["podIP"], victim.show()["metadata"]["name"]
    eventually(lambda: "ok" in victim.inside(f"wget -q -O - http://{there}/ok || true", "web"), "it serves")
    gateway = victim.inside('ip route | sed -n "s/default via //p"', "web").split()[0]
    script = (
        f"timeout 2 wget -q -O - http://{there}/ok; timeout 2 wget -q -O - http://alias/ok;"
        f"timeout 2 nslookup {name} {gateway}; timeout 2 nslookup {name}; cat /etc/resolv.conf; echo done; sleep 1000"
    )
    body = pod(
        container("main", script),
        hostAliases=[{"ip": there, "hostnames": ["alias"]}],
        dnsPolicy="None",
        dnsConfig={"nameservers": [gateway]},
    )
    made = create_as(cloud, stranger, body)
    made.says("done")
    text = made.logs()
    assert f"nameserver {gateway}" in text
    assert "ok" not in text.splitlines()
    assert there not in text.replace(f"({there}", "")


# -- confinement --------------------------------------------------------------------------------------------------

LOOK = r"""
grep -E 'NoNewPrivs|Seccomp:|CapEff|CapBnd' /proc/self/status
mount -t tmpfs none /mnt 2>/dev/null && echo BAD mount
for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper \
  /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/*/devices.allow; do
  (echo x > $f) 2>/dev/null && echo BAD $f
done
mknod /disk b $(sed -n 's/^ *\([0-9]*\) *\([0-9]*\) .* \(vd\|sd\|nvme\|xvd\).*/\1 \2/p' /proc/partitions | head -1) 2>/dev/null
dd if=/disk of=/dev/null bs=512 count=1 2>/dev/null && echo BAD disk
chroot /proc/1/root cat MARKER 2>/dev/null
for fd in /proc/self/fd/* /proc/1/fd/*; do cat $fd/../../../../../../../../MARKER 2>/dev/null; done
cat /proc/self/mountinfo
echo looked
"""


@pytest.fixture
def marker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file on the host that no capsule may read."""
    path = tmp_path_factory.mktemp("outside") / "marker"
    path.write_text("BAD: the host's file")
    yield path
    path.unlink()


def test_a_container_is_confined_in_every_way_it_can_ask_for(cloud: Cloud, marker: Path) -> None:
    look = LOOK.replace("MARKER", str(marker))
    volumes = [{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}},
               {"name": "s", "secret": {"secretName": "s"}}]  # fmt: skip
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    security = {"fsGroup": 0, "supplementalGroups": [0]}
    body = pod(
        container("plain", look + "sleep 1000", volumeMounts=mounts),
        container("root", look + "sleep 1000", volumeMounts=mounts, securityContext={"runAsUser": 0, "runAsGroup": 0}),
        volumes=volumes, securityContext=security, shareProcessNamespace=True,
    )  # fmt: skip
    body["content"] = {"secrets": {"s": {"stringData": {"a": "b"}}}}
    made = create_as(cloud, cloud.make_login("confined"), body)
    for name in ("plain", "root"):
        made.says("looked", name)
        text = made.logs(name)
        assert "BAD" not in text, text
        facts = dict(line.split(":\t") for line in text.splitlines() if ":\t" in line)
        assert facts["NoNewPrivs"] == "1"
        assert facts["Seccomp"] == "2"
        # docker's default set, to the bit.
        assert facts["CapBnd"] == "00000000a80425fb"
        roots = [line.split()[3] for line in text.splitlines() if line.count(" ") > 8 and " - " in line]
        ours = [root for root in roots if "capsules/" in root]
        assert ours, "its volumes are mounted from the capsule's folder"
        assert all(f"capsules/{made.id}/" in root for root in ours), ours
        assert not any("/log/" in root or root.endswith((".log", ".db", ".key")) for root in roots), roots


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("empty", {"env": [{"name": "X", "value": ""}], "volumeMounts": [{"subPathExpr": "$(X)"}]}),
        ("up", {"env": [{"name": "X", "value": ".."}], "volumeMounts": [{"subPathExpr": "$(X)"}]}),
        ("far up", {"env": [{"name": "X", "value": "../../../etc"}], "volumeMounts": [{"subPathExpr": "a/$(X)"}]}),
        ("absolute", {"env": [{"name": "X", "value": "/etc"}], "volumeMounts": [{"subPathExpr": "$(X)"}]}),
        ("unknown", {"volumeMounts": [{"subPathExpr": "$(Y)"}]}),
        ("a link", {"volumeMounts": [{"subPath": "out"}]}),
        ("behind a link", {"volumeMounts": [{"subPath": "out/passwd"}]}),
        ("procfs", {"volumeMounts": [{"mountPath": "/proc"}]}),
        ("in procfs", {"volumeMounts": [{"mountPath": "/proc/self/attr"}]}),
        ("a leaked descriptor", {"workingDir": "/proc/self/fd/7"}),
        ("another", {"workingDir": "/proc/self/fd/8"}),
        ("a bomb", {"env": [{"name": "A0", "value": "x" * 1000},
                            *({"name": f"A{i}", "value": f"$(A{i - 1})$(A{i - 1})"} for i in range(1, 60))]}),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_not_made(cloud: Cloud, marker: Path, what: str, fields: dict[str, Any]) -> None:
    reads = f"cat {marker} .{marker} ../../../../../../../../../../..{marker} /v/shadow /v/passwd; sleep 1000"
    mounts = [{"name": "v", "mountPath": "/v", **mount} for mount in fields.pop("volumeMounts", [])]
    link = container("link", "ln -s /etc /v/out", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    body = pod(
        container("main", reads, volumeMounts=mounts, **fields),
        initContainers=[link], volumes=[{"name": "v", "emptyDir": {}}],
    )  # fmt: skip
    made = create_as(cloud, cloud.make_login(f"maker-{secrets.token_hex(3)}"), body)

    def failed() -> bool:
        status = made.of()
        state = status["state"].get("waiting") or status["state"].get("terminated") or {}
        last = status["lastState"].get("terminated", {})
        words = (
            "CreateContainerConfigError",
            "CreateContainerError",
            "RunContainerError",
            "StartError",
            "ContainerCannotRun",
        )
        return state.get("reason") in words or last.get("reason") in words or state.get("reason") == "CrashLoopBackOff"

    eventually(failed, f"{what} is not made: {made.status}")
    answer = made.api("GET", "/logs?container=main")
    assert b"BAD" not in answer.body, answer
    assert b"root:" not in answer.body, answer
    assert made.of()["started"] is False


def test_messages_are_the_containers_own_words(cloud: Cloud, marker: Path) -> None:
    """A message file cannot be turned into a window on the host's files, whatever it is mounted over."""
    before = Path("/etc/passwd").read_bytes()
    attack = f"rm -f $M; ln -sf {marker} $M; mv $M /gone; mkdir -p $M; ln -s /etc/shadow $M/x; echo mine > $M; exit 3"
    paths = {"plain": "/dev/termination-log", "passwd": "/etc/passwd", "volume": "/v/message", "hosts": "/etc/hosts"}
    body = pod(
        *(
            container(
                name, attack.replace("$M", path), terminationMessagePath=path,
                terminationMessagePolicy="FallbackToLogsOnError", volumeMounts=[{"name": "v", "mountPath": "/v"}],
            )
            for name, path in paths.items()
        ),
        volumes=[{"name": "v", "emptyDir": {}}], restartPolicy="Never",
    )  # fmt: skip
    made = create_as(cloud, cloud.make_login("messenger"), body)
    for status in made.phase("Failed")["containerStatuses"]:
        ended = status["state"]["terminated"]
        assert "BAD" not in ended.get("message", ""), status
        assert "root:" not in ended.get("message", ""), status
    assert made.of("plain")["state"]["terminated"]["message"] == "mine\n"
    assert Path("/etc/passwd").read_bytes() == before
    assert marker.read_text().startswith("BAD")


# -- secrets ------------------------------------------------------------------------------------------------------


def hidden() -> tuple[str, list[bytes]]:
    """A new secret word, and the forms in which it could give itself away."""
    word = "s3cr3t" + secrets.token_hex(12)
    forms = [word.encode()]
    for shift in range(3):
        # Whatever stands before it in the text that is encoded.
        forms.append(base64.b64encode(b" " * shift + word.encode())[4 * (shift > 0) : -4])
    return word, forms


def files_of(cloud: Cloud) -> Iterator[Path]:
    """Every file of a cloud that is on a disk and not containerd's own; some go while one looks."""
    for folder, folders, names in os.walk(cloud.data):
        here = Path(folder)
        folders[:] = [f for f in folders if not os.path.ismount(here / f) and f != "containerd"]
        for path in (here / name for name in names):
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(path.lstat().st_mode) and not os.path.ismount(path):  # such as a network namespace
                    yield path


def test_secrets_are_nowhere_but_where_they_are_wanted(new_cloud: Callable[..., Cloud]) -> None:
    cloud = new_cloud()
    cloud.up("--log-level", "debug")
    words = {name: hidden() for name in ("env", "from", "file", "pull", "put", "patch", "exec")}
    w = {name: word for name, (word, _) in words.items()}
    auth = base64.b64encode(f"ann:{w['pull']}".encode()).decode()
    config = json.dumps({"auths": {f"127.0.0.1:{cloud.port}": {"auth": auth}}})
    sources = {
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "env"}}}],
        "envFrom": [{"secretRef": {"name": "from"}}],
        "volumeMounts": [{"name": "file", "mountPath": "/secret"}],
    }
    body = pod(
        container("main", "cat /secret/*; env | wc -l; sleep 1000", **{**sources, "args": ["x"]}),
        container("nope", image=f"127.0.0.1:{cloud.port}/team/app:1", imagePullPolicy="Always"),
        volumes=[{"name": "file", "secret": {"secretName": "file"}}], imagePullSecrets=[{"name": "login"}],
    )  # fmt: skip
    body["spec"]["containers"][0]["command"] = ["sh", "-c", "test -s /secret/f && env | wc -l; sleep 1000"]
    body["content"] = {
        "secrets": {
            "s": {"stringData": {"env": w["env"]}},
            "from": {"data": {"B": base64.b64encode(w["from"].encode()).decode()}},
            "file": {"stringData": {"f": w["file"]}},
            "login": {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config}},
        }
    }
    made = Pod.create(cloud, body)
    made.until(lambda s: "running" in made.of()["state"], "it runs")
    eventually(lambda: made.of("nope")["state"]["waiting"]["reason"] in ("ErrImagePull", "ImagePullBackOff"), "no pull")
    assert w["env"] in made.inside("echo $A$B; cat /secret/f")
    patched = made.api("PATCH", "", {"content": {"secrets": {"more": {"stringData": {"x": w["patch"]}}}}})
    assert patched.status == 200, patched
    answers = [patched.body]
    answers += [made.api("PUT", "/content", {"secrets": {"s": {"stringData": {"env": w["put"]}},
                                                         "from": body["content"]["secrets"]["from"],
                                                         "file": {"stringData": {"f": w["file"] + "2"}}}}).body]  # fmt: skip
    eventually(lambda: made.inside("cat /secret/f").endswith("2"), "the file is swapped")
    # Wrong ones come back in no message, either.
    for bad in ({"secrets": {"s": {"data": {"k": w["put"] + "!"}}}}, {"secrets": {"s": {"stringData": {"/": w["put"]}}}},
                {"secrets": {"s": {"stringData": [w["put"]]}}}, {"secrets": {"s": w["put"]}}):  # fmt: skip
        refused = made.api("PUT", "/content", bad)
        assert refused.status == 400
        answers.append(refused.body)
    assert made.inside(f"true {w['exec']}; echo ok").strip() == "ok"
    for path in ("", "/events", "/stats", "/logs?container=main"):
        answers.append(made.api("GET", path).body)
    answers.append(cloud.api("GET", f"{BASE}?all_projects=true").body)
    answers.append(cloud.api("GET", f"{BASE}?watch=true&timeoutSeconds=1").body)
    answers.append(cloud.api("GET", f"/v1/capsules/{made.id}").body)
    ours = {cloud.pid()} | {int(p) for p in os.listdir("/proc") if p.isdigit() and _is_askos(int(p), cloud)}
    processes = [_proc(pid, file) for pid in ours for file in ("cmdline", "environ")]
    on_disk = {path: _content(path) for path in files_of(cloud)}
    assert any(path.name.endswith("-wal") or path.suffix == ".db" for path in on_disk)
    assert (cloud.data / "log" / "askos.log") in on_disk
    tasks = cloud.data / "run" / "containerd" / "io.containerd.runtime.v2.task" / "k8s.io"
    bundles = [_content(path) for path in tasks.glob("*/config.json")]
    assert any(words["env"][1][0] in bundle for bundle in bundles), "the search finds what is there"
    for name, (_, forms) in words.items():
        for form in forms:
            assert not [a for a in answers if form in a], name
            assert not [p for p in processes if form in p], name
            assert not [str(path) for path, data in on_disk.items() if form in data], name
    (key,) = [path for path in on_disk if path.name == "content.key"]
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(cloud.data.stat().st_mode) & 0o077 == 0 or stat.S_IMODE(key.parent.stat().st_mode) & 0o007 == 0
    made.delete(0)
    made.gone()


def _proc(pid: int, file: str) -> bytes:
    return _content(Path(f"/proc/{pid}/{file}"))


def _content(path: Path) -> bytes:
    """What is in a file; nothing when it has gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _is_askos(pid: int, cloud: Cloud) -> bool:
    """Programs of the cloud, not what runs in its containers."""
    command = _proc(pid, "cmdline")
    return str(cloud.data).encode() in command or b"containerd" in command
