"""What a kubelet does at the edges: images with settings of their own, private registries, deletes at bad moments,
what is left of processes, many containers, gRPC. On real containers; many checks share few capsules."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.capsule_fixtures import Pod, container, pod
from tests.acceptance.cloud_fixtures import Cloud, eventually
from tests.acceptance.image_fixtures import Image, Registry

from askos.adapters.containerd import log_files

STOPS = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"
DEAF = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
FAST = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 30}
"""Of a probe that tells a change at once. On a busy machine a single run of it may take longer than a second."""


def state(made: Pod, name: str = "main") -> dict[str, Any]:
    return dict(made.of(name)["state"])


def waits(made: Pod, reason: str, name: str = "main") -> dict[str, Any]:
    """Wait until a container waits for this reason; its whole status."""

    def look() -> dict[str, Any] | None:
        shown = made.of(name)
        return shown if shown["state"].get("waiting", {}).get("reason") == reason else None

    return dict(eventually(look, f"{name} waits with {reason}") or {})


def ends(revision: str, *many: Pod) -> list[dict[str, Any]]:
    """Wait until they are gone; of each the phase and the ends of its containers by name, as the watch gives them with
    DELETED."""
    for made in many:
        made.gone()
    found = []
    for status in (made.last(revision) for made in many):
        every = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
        found.append({"phase": status["phase"], **{c["name"]: c["state"].get("terminated") for c in every}})
    return found


# -- images --------------------------------------------------------------------------------------------------------


SAYS = b"""echo "args $*"
echo "at $(/bin/sh -c pwd) as $(/bin/sh -c id)"
echo "variable $VARIABLE"
trap 'echo usr2 > /dev/termination-log; exit 0' USR2
trap '' TERM
echo ready
while :; do sleep 0.1; done
"""


def test_an_image_with_settings_of_its_own(cloud: Cloud, tmp_path: Path) -> None:
    files = {
        "says": SAYS,
        "etc/passwd": b"root:x:0:0::/root:/bin/sh\napp:x:1234:2345::/:/bin/sh\n",
        "etc/group": b"root:x:0:\napp:x:2345:\nmore:x:3456:app\n",
    }
    settings = {
        "Entrypoint": ["/bin/sh", "/says"],
        "Cmd": ["of", "the image"],
        "Env": ["PATH=/bin", "VARIABLE=image"],
        "User": "app",
        "WorkingDir": "/its/own",
        "StopSignal": "SIGUSR2",
    }
    archive = tmp_path / "own.tar"
    archive.write_bytes(Image("own", files, settings).oci_archive("docker.io/library/kubelet-own:1"))
    cloud.askos("image", "import", str(archive))

    def own(name: str, **fields: Any) -> dict[str, Any]:
        return {"name": name, "image": "kubelet-own:1", **fields}

    shell = ["/bin/sh", "-c", 'echo "shell $0 $*"; exec sh /says']
    env = [{"name": "VARIABLE", "value": "mine"}]
    body = pod(
        own("plain"),
        own("args", args=["$(VARIABLE)", "$$(X)"], env=env),
        own("command", command=shell),
        own("both", command=shell, args=["zero", "one"]),
        own("user", securityContext={"runAsUser": 77}, workingDir="/elsewhere"),
        own("group", securityContext={"runAsGroup": 88}),
        securityContext={"supplementalGroups": [99]}, terminationGracePeriodSeconds=60,
    )  # fmt: skip
    made = Pod.create(cloud, body).ready()
    for name in ("plain", "args", "command", "both", "user", "group"):
        made.says("ready", name)
    args, where, variable, _ = made.logs("plain").splitlines()
    assert (args, variable) == ("args of the image", "variable image")
    assert where.startswith("at /its/own as uid=1234(app) gid=2345(app) groups=")
    assert set(where.rpartition("=")[2].split(",")) == {"2345(app)", "3456(more)", "99"}
    assert made.logs("args").splitlines()[0] == "args mine $(X)"
    assert "variable mine" in made.logs("args")
    # With a command of its own the image's arguments do not count.
    assert made.logs("command").splitlines()[:2] == ["shell /bin/sh ", "args "]
    assert made.logs("both").splitlines()[0] == "shell zero one"
    assert "at /elsewhere as uid=77 gid=0(root)" in made.logs("user")
    assert "gid=88" in made.logs("group") and "uid=1234(app)" in made.logs("group")
    revision = made.show()["metadata"]["resourceVersion"]
    made.delete()
    (last,) = ends(revision, made)
    assert {last[name]["message"] for name in ("plain", "args", "user")} == {"usr2\n"}
    refused = Pod.create(cloud, pod(own("main"), securityContext={"runAsNonRoot": True}))
    assert "'app'" in waits(refused, "CreateContainerConfigError")["state"]["waiting"]["message"]


LOGIN = ("somebody", "open-sesame-7", "$2b$04$6fAvT3f5k9lYJGmc0CGmduSGpOqrK4jW5a/8VbnWhnaR08IRSFfKq")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs Debian's docker-registry")
    made = Registry(tmp_path, LOGIN)
    try:
        yield made
    finally:
        made.stop()


def test_a_registry_that_wants_a_login(cloud: Cloud, registry: Registry) -> None:
    image = Image("private", settings={"Cmd": ["/bin/sh", "-c", STOPS.replace("sleep", "/bin/sh -c 'sleep 0.1'; :")]})
    sha = registry.push("team/app", "1", image)
    name = f"{registry.address}/team/app"

    def make(ref: str, password: str | None, **fields: Any) -> Pod:
        body = pod({"name": "main", "image": ref, **fields}, imagePullSecrets=[{"name": "pull"}])
        if password is None:
            return Pod.create(cloud, body)
        auth = base64.b64encode(f"{LOGIN[0]}:{password}".encode()).decode()
        config = json.dumps({"auths": {registry.address: {"auth": auth}}})
        secret = {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config}}
        return Pod.create(cloud, {**body, "content": {"secrets": {"pull": secret}}})

    refused = []
    # One after the other: it is called by this name until it is tried again.
    for password in ("wrong-password-8", None):
        refused.append(make(f"{name}:1", password))
        assert "needs a login" in waits(refused[-1], "ErrImagePull")["state"]["waiting"]["message"]
    wrong, without = refused
    assert without.event("FailedToRetrieveImagePullSecret")["type"] == "Warning"
    by_digest = make(f"{name}@{sha}", LOGIN[1]).ready()
    by_tag = make(f"{name}:1", LOGIN[1]).ready()
    assert by_digest.of()["imageID"] == by_tag.of()["imageID"] == f"{name}@{sha}"
    told = json.dumps([made.show() | {"events": made.events()} for made in (wrong, without, by_digest, by_tag)])
    for secret in (LOGIN[1], "wrong-password-8"):
        for form in (secret, base64.b64encode(f"{LOGIN[0]}:{secret}".encode()).decode()):
            assert form not in told
            found = subprocess.run(["grep", "-rlaF", form, cloud.data], capture_output=True, text=True, check=False)
            assert found.stdout == ""
    other = cloud.token(cloud.make_login(f"kubelet-{registry.port}"))
    body = pod({"name": "main", "image": f"{name}:1", "imagePullPolicy": "Never"})
    stranger = Pod.create(cloud, body, token=other)
    # What somebody else has fetched with a log-in is not there for who has none.
    waits(stranger, "ErrImageNeverPull")


# -- processes -----------------------------------------------------------------------------------------------------


def test_what_containers_leave_behind(cloud: Cloud) -> None:
    forks = "(setsid sleep 4711 >/dev/null 2>&1 &); exit 0"
    memory = {"resources": {"limits": {"memory": "16Mi"}}}
    # Whoever forks does it once: in its next life there would be another one for a moment.
    once = {"restartPolicy": "Never"}
    shared = Pod.create(cloud, pod(container("forks", forks), container(), shareProcessNamespace=True, **once))
    separate = Pod.create(cloud, pod(container("forks", forks), container(), **once))
    eater = Pod.create(cloud, pod(container("eats", "tail /dev/zero", **memory), container()))
    missing = Pod.create(cloud, pod({**container(), "command": ["/nowhere"]}, **once))

    for each in (shared, separate):
        each.until(lambda s: "terminated" in s["containerStatuses"][0]["state"], "it has ended")
    eventually(lambda: "4711" not in shared.inside("ps") + separate.inside("ps"), "what it has forked is killed")
    # Orphans fall to the sandbox's own process, which has to take their ends.
    shared.inside("for i in 1 2 3; do (sh -c 'exec sleep 0.1' &); done")
    eventually(lambda: "sleep 0.1" not in shared.inside("ps -o args"), "they have ended")
    # Each has a moment between its end and its parent's look at it.
    eventually(lambda: "Z" not in shared.inside("ps -o stat").split(), "somebody has looked at their ends")

    backing = waits(eater, "CrashLoopBackOff", "eats")
    end = backing["lastState"]["terminated"]
    assert (end["reason"], end["exitCode"]) == ("OOMKilled", 137)
    assert (eater.of()["restartCount"], eater.status["phase"]) == (0, "Running")

    status = missing.phase("Failed")
    end = status["containerStatuses"][0]["state"]["terminated"]
    assert (end["reason"], end["exitCode"]) == ("StartError", 128)
    assert "/nowhere" in end["message"]


def test_many_containers_in_one_capsule(cloud: Cloud) -> None:
    asks = "trap 'exit 0' TERM INT; echo ready; while :; do sleep 1 & wait $!; done"
    many = [container(f"c{i}", asks) for i in range(20)]
    made = Pod.create(cloud, pod(*many, terminationGracePeriodSeconds=60))
    status = made.ready(120).status
    for i in range(20):
        made.says("ready", f"c{i}")
    assert [c["name"] for c in status["containerStatuses"]] == [f"c{i}" for i in range(20)]
    started = [c["state"]["running"]["startedAt"] for c in status["containerStatuses"]]
    assert started == sorted(started)
    revision = made.show()["metadata"]["resourceVersion"]
    made.delete()
    (last,) = ends(revision, made)
    assert {last[f"c{i}"]["exitCode"] for i in range(20)} == {0}


def test_long_logs(cloud: Cloud) -> None:
    script = (
        "yes 0123456789 | head -n 200000; head -c 100000 /dev/zero | tr '\\0' x; echo; echo end; "
        "until [ -e /go ]; do sleep 0.1; done; echo after; exec sleep 1000"
    )
    made = Pod.create(cloud, pod(container("main", script)))
    made.says("end", query="&tailLines=1")
    lines = made.logs().split("\n")
    assert len(lines) == 200_003
    assert set(lines[:200_000]) == {"0123456789"}
    assert lines[200_000:] == ["x" * 100_000, "end", ""]
    assert made.logs(query="&tailLines=2") == "x" * 100_000 + "\nend\n"
    assert made.logs(query="&limitBytes=12") == "0123456789\n0"
    # What the agent does now and then, for shorter logs.
    (path,) = (cloud.data / "log" / "capsules" / made.id / "main").iterdir()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    assert log_files.trim(path.parent, 1 << 20, 0) == [path]
    made.inside("touch /go")
    made.says("after", query="&tailLines=1")
    fewer = made.logs().split("\n")
    assert 10_000 < len(fewer) < 50_000
    assert set(fewer[:-4]) == {"0123456789"}
    assert fewer[-4:] == ["x" * 100_000, "end", "after", ""]


# -- deletes at bad moments ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def silent_registry() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_delete_at_any_moment(cloud: Cloud) -> None:
    hangs = {"exec": {"command": ["sleep", "1000"]}}
    answers = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    with silent_registry() as address:
        pulling = Pod.create(cloud, pod({"name": "main", "image": f"{address}/x:1"}))
        starting = Pod.create(cloud, pod(initContainers=[container("init", answers)]))
        backing = Pod.create(cloud, pod(container("main", "exit 3")))
        hooked = Pod.create(cloud, pod(container("main", answers, lifecycle={"postStart": hangs})))
        stopping = pod(container("main", answers, lifecycle={"preStop": hangs}), terminationGracePeriodSeconds=2)
        stopped = Pod.create(cloud, stopping)
        twice = Pod.create(cloud, pod(container("main", DEAF, lifecycle={"preStop": hangs})))
        starting.until(lambda s: "running" in s["initContainerStatuses"][0]["state"], "the init container runs")
        waits(backing, "CrashLoopBackOff")
        starting.says("ready", "init")
        hooked.event("Started")
        # While its hook runs it counts as not started, and nobody is shown its log.
        logs = cloud.data / "log" / "capsules" / hooked.id / "main"
        eventually(lambda: "ready" in "".join(path.read_text() for path in logs.glob("*")), "its trap is set")
        stopped.ready().says("ready")
        twice.ready().says("ready")
        pulling.event("Pulling")
        assert "waiting" in state(hooked)
        every = [pulling, starting, backing, hooked, stopped, twice]
        revision = twice.show()["metadata"]["resourceVersion"]
        begun = time.monotonic()
        twice.delete(600)
        for each in every[:-1]:
            each.delete()
        twice.delete(1)
        stopped.gone()
        # The hook's time is part of the grace; afterwards the signal has a short while of its own.
        assert time.monotonic() - begun >= 1.5
        pulled, initialised, backed, started, ended, killed = ends(revision, *every)
    assert (initialised["init"]["exitCode"], started["main"]["exitCode"], ended["main"]["exitCode"]) == (5, 5, 5)
    assert killed["main"]["exitCode"] == 137
    assert (backed["main"]["exitCode"], backed["main"]["reason"]) == (3, "Error")
    assert (pulled["main"]["exitCode"], pulled["main"]["reason"]) == (137, "ContainerStatusUnknown")


def test_the_same_name_again(cloud: Cloud) -> None:
    body = pod(container("main", DEAF), terminationGracePeriodSeconds=1)
    first = Pod.create(cloud, body).ready()
    first.says("ready")
    first.delete()
    second = Pod.create(cloud, body).ready()
    first.gone()
    assert (second.id != first.id, state(second).keys()) == (True, {"running"})


# -- order, restarts and conditions --------------------------------------------------------------------------------


def test_sidecars_with_startup_probes(cloud: Cloud) -> None:
    script = "sleep 0.5; touch /up; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    probe = {"exec": {"command": ["cat", "/up"]}, "periodSeconds": 1, "failureThreshold": 30}
    side = {"restartPolicy": "Always", "startupProbe": probe}
    init = [container("one", script, **side), container("once", "exit 0"), container("two", script, **side)]
    made = Pod.create(cloud, pod(initContainers=init))
    revision = made.show()["metadata"]["resourceVersion"]
    made.ready()
    seen = made.watched(
        revision, lambda told: told and "running" in told[-1]["object"]["status"]["containerStatuses"][0]["state"]
    )
    begun: list[str] = []
    for shown in (each["object"]["status"] for each in seen):
        every = {c["name"]: c for c in [*shown["initContainerStatuses"], *shown["containerStatuses"]]}
        assert not ("running" in every["once"]["state"] and every["once"]["ready"])
        for name, before in (("once", "one"), ("two", "one"), ("main", "two")):
            if "waiting" not in every[name]["state"]:
                assert every[before]["started"], f"{name} has begun before {before} was up"
        if "waiting" not in every["two"]["state"]:
            assert "terminated" in every["once"]["state"]
        begun += [name for name, c in every.items() if "waiting" not in c["state"] and name not in begun]
    assert begun == ["one", "once", "two", "main"]


def test_init_containers_that_fail(cloud: Cloud) -> None:
    def make(policy: str) -> Pod:
        return Pod.create(cloud, pod(initContainers=[container("init", "exit 3")], restartPolicy=policy))

    for policy in ("OnFailure", "Always"):
        # One after the other: after 10 s it is tried again.
        made = make(policy)
        backing = waits(made, "CrashLoopBackOff", "init")
        assert backing["restartCount"] == 1
        assert backing["lastState"]["terminated"]["exitCode"] == 3
        assert backing["state"]["waiting"]["message"].startswith("back-off 10s restarting failed container=init")
        shown = made.show()
        assert shown["status"]["phase"] == "Pending"
        assert shown["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
        conditions = {c["type"]: c for c in shown["status"]["conditions"]}
        assert conditions["PodReadyToStartContainers"]["status"] == "True"
        assert conditions["Initialized"]["reason"] == "ContainersNotInitialized"
        assert {c["observedGeneration"] for c in conditions.values()} == {shown["metadata"]["generation"]}


def test_probes_with_all_their_numbers(cloud: Cloud) -> None:
    sick = {"exec": {"command": ["test", "!", "-e", "/sick"]}, **FAST}
    live = container("main", DEAF, livenessProbe={**sick, "terminationGracePeriodSeconds": 1})
    killed = Pod.create(cloud, pod(live, terminationGracePeriodSeconds=600))
    twice = {**sick, "successThreshold": 2}
    env = [{"name": "FILE", "value": "/sick"}]
    twice["exec"] = {"command": ["test", "!", "-e", "$(FILE)"]}
    flaps = Pod.create(cloud, pod(container("main", readinessProbe=twice, env=env)))
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}
    unborn = Pod.create(cloud, pod(container("main", STOPS, startupProbe=never)))
    for made in (killed, flaps):
        made.ready()
        made.inside("touch /sick")
    flaps.until(lambda s: not s["containerStatuses"][0]["ready"], "it is not ready")
    unready = flaps.condition("Ready")
    initialised = flaps.condition("Initialized")
    flaps.inside("rm /sick")
    killed.until(lambda s: s["containerStatuses"][0]["restartCount"] == 1, "it was killed within its own grace")
    assert killed.of()["lastState"]["terminated"]["exitCode"] == 137
    unborn.until(lambda s: s["containerStatuses"][0]["restartCount"] >= 1, "it was restarted")
    assert "failed startup probe" in unborn.event("Killing")["message"]
    flaps.ready()
    again = flaps.condition("Ready")
    # Two successes in a row are needed, a second apart.
    assert again["lastTransitionTime"] > unready["lastTransitionTime"]
    assert flaps.condition("Initialized") == initialised
    assert flaps.of()["restartCount"] == 0


SERVES = """
import concurrent.futures, sys, grpc
def check(request, context):
    return b"\\x08\\x01" if request == b"\\x0a\\x03web" else b"\\x08\\x02"
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
handler = grpc.unary_unary_rpc_method_handler(check)
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})])
assert server.add_insecure_port(sys.argv[1])
server.start()
sys.stdin.read()
"""


def test_grpc_probes(cloud: Cloud) -> None:
    mark = "KUBELET_GRPC_MARK"
    env = [{"name": mark, "value": "1"}]
    good = {"grpc": {"port": 9000, "service": "web"}, **FAST}
    bad = {"grpc": {"port": 9000}, **FAST}
    sleeps = "exec sleep 1000"  # one process that stays, of all that bear the mark
    body = pod(
        container("good", sleeps, env=env, readinessProbe=good), container("bad", sleeps, env=env, readinessProbe=bad)
    )
    made = Pod.create(cloud, body)
    assert "failed to connect" in made.event("Unhealthy")["message"]
    pid = next(iter(cloud.processes(f"{mark}=1")))
    # grpcio's own server, in the capsule's network: an image with it would be large.
    inside = ["nsenter", "-t", str(pid), "-n", sys.executable, "-c", SERVES, f"{made.status['podIP']}:9000"]
    with subprocess.Popen(inside, stdin=subprocess.PIPE) as server:
        try:
            made.until(lambda s: [c["ready"] for c in s["containerStatuses"]] == [True, False], "one is healthy")
            eventually(
                lambda: any('"NOT_SERVING"' in e["message"] for e in made.events()), "the other says what is wrong"
            )
        finally:
            server.kill()
    made.until(lambda s: not s["containerStatuses"][0]["ready"], "nobody answers any more")


def test_a_deadline_with_what_had_ended_before(cloud: Cloud) -> None:
    made = Pod.create(cloud, pod(container("main", STOPS), container("done", "exit 0"), restartPolicy="Never"))
    made.says("ready")
    made.until(lambda s: "terminated" in s["containerStatuses"][1]["state"], "one has ended")
    # Given when there is something to end, and over by then or soon.
    assert made.api("PATCH", "", {"spec": {"activeDeadlineSeconds": 2}}).status == 200
    status = made.phase("Failed")
    assert status["reason"] == "DeadlineExceeded"
    ends = {c["name"]: c["state"]["terminated"] for c in status["containerStatuses"]}
    assert (ends["done"]["reason"], ends["main"]["exitCode"]) == ("Completed", 0)
    conditions = {c["type"]: (c["status"], c.get("reason")) for c in status["conditions"]}
    assert conditions["Ready"] == conditions["ContainersReady"] == ("False", "PodFailed")
    assert conditions["PodReadyToStartContainers"][0] == "False"


# -- names and files -----------------------------------------------------------------------------------------------


def test_names_and_resolvers(cloud: Cloud) -> None:
    config = {"nameservers": ["192.0.2.53"], "searches": ["a.example"], "options": [{"name": "edns0"}]}
    full = {"hostname": "front", "subdomain": "web", "setHostnameAsFQDN": True}
    named = Pod.create(cloud, pod(dnsPolicy="None", dnsConfig=config, **full))
    many = {"nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3"]}
    plenty = Pod.create(cloud, pod(dnsConfig=many))
    named.ready()
    name = "front.web.default.svc.askos.internal"
    assert named.inside("hostname; echo $HOSTNAME").split() == [name, name]
    assert f"{named.status['podIP']}\t{name}\tfront\n" in named.inside("cat /etc/hosts")
    assert set(named.inside("cat /etc/resolv.conf").splitlines()) == {
        "search a.example", "nameserver 192.0.2.53", "options edns0",
    }  # fmt: skip
    plenty.ready()
    assert plenty.inside("grep -c nameserver /etc/resolv.conf") == "3\n"
    assert "192.0.2.2" in plenty.event("DNSConfigForming")["message"]


def test_modes_and_owners_of_files(cloud: Cloud) -> None:
    items = [{"key": "a", "path": "deep/a", "mode": 0o755}, {"key": "b", "path": "b"}]
    cpu = {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"}}
    volumes = [
        {"name": "disk", "emptyDir": {}},
        {"name": "ram", "emptyDir": {"medium": "Memory"}},
        {"name": "config", "configMap": {"name": "c", "defaultMode": 0o440, "items": items}},
        {"name": "secret", "secret": {"secretName": "s"}},
        {"name": "about", "downwardAPI": {"items": [cpu]}},
        {"name": "absent", "configMap": {"name": "nobody", "optional": True}},
    ]
    mounts = [{"name": volume["name"], "mountPath": f"/v/{volume['name']}"} for volume in volumes]
    limits = {"resources": {"limits": {"cpu": "300m", "memory": "64Mi"}}}
    body = pod(
        container("main", volumeMounts=mounts, **limits),
        container("other", volumeMounts=mounts, securityContext={"runAsUser": 1000}, **limits),
        volumes=volumes,
        securityContext={"fsGroup": 2000},
    )
    content = {"configMaps": {"c": {"data": {"a": "1", "b": "2"}}}, "secrets": {"s": {"stringData": {"k": "hush"}}}}
    made = Pod.create(cloud, {**body, "content": content}).ready()
    shown = made.inside("cd /v; stat -Lc '%n %a %g' disk ram config/deep/a config/b secret/k about/cpu; ls absent")
    assert shown.splitlines() == [
        "disk 2777 2000", "ram 2777 2000", "config/deep/a 755 2000", "config/b 440 2000", "secret/k 644 2000",
        "about/cpu 644 2000",
    ]  # fmt: skip
    assert made.inside("readlink /v/config/b; cat /v/about/cpu") == "..data/b\n300"
    # A folder in memory is never larger than what the whole capsule may use.
    assert made.inside("df -k /v/ram | tail -n 1").split()[1] == str(128 << 10)
    script = "cd /v; touch disk/x ram/x; stat -c '%u %g' disk/x ram/x; cat config/b secret/k; id -G"
    assert made.inside(script, "other").split() == ["1000", "2000", "1000", "2000", "2hush0", "2000"]
    for name in ("config", "secret", "about"):
        assert made.inside(f"touch /v/{name}/x 2>/dev/null || echo refused") == "refused\n"
