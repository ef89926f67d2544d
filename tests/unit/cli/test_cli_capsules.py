"""`askos capsule`, in one process against a made-up cloud."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time

import pytest
import yaml
from fakecapsules import condition, ended, running, status, unplaced, waiting

from askos.cli import capsule_wait

POD = {"kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{"name": "main", "image": "busybox"}]}}


def pod(name, **spec):
    return {**POD, "metadata": {"name": name}, "spec": {**POD["spec"], **spec}}


@pytest.fixture
def manifest(tmp_path):
    """Writes documents to a file; gives its name."""

    def write(*documents, name="pod.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("---\n".join(yaml.safe_dump(d) if not isinstance(d, str) else d for d in documents))
        return str(path)

    return write


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """No test waits for what people wait for."""
    monkeypatch.setattr(capsule_wait, "PATIENCE_S", dict.fromkeys(capsule_wait.PATIENCE_S, 0.2))
    monkeypatch.setattr(capsule_wait, "STEADY_S", 0.1)
    monkeypatch.setattr(capsule_wait, "LOOK_S", 1)


# -- create --------------------------------------------------------------------------------------------------------


def test_create_waits_until_all_are_ready_or_have_ended(askos, cloud, manifest):
    cloud.capsules.scripts["slow"] = [
        (0.1, status("Pending", waiting("ContainerCreating"))),
        (0.2, status("Running", running(ready=False))),
        (0.2, status("Running", running())),
    ]
    cloud.capsules.scripts["job"] = [(0.1, status("Succeeded", ended()))]
    cloud.capsules.warnings = ['spec.x has no effect: \\"never\\"']
    ran = askos("capsule", "create", "-f", manifest(pod("slow"), pod("job")))
    assert ran.code == 0
    assert ran.out.splitlines() == ["capsule job succeeded", "capsule slow ready"]
    assert ran.err.splitlines() == [
        f'askos: warning: {name}: spec.x has no effect: "never"' for name in ("slow", "job")
    ]


def test_what_passes_by_itself_is_waited_for(askos, cloud, manifest):
    cloud.capsules.scripts["web"] = [
        (0.0, status("Pending", waiting("ErrImagePull", "no route"))),
        (0.05, status("Pending", waiting("ImagePullBackOff", "Back-off"))),
        (0.05, status("Pending", waiting("CreateContainerConfigError", "the secret s is not there"))),
        (0.05, status("Running", waiting("CrashLoopBackOff", "back-off", restarts=1))),
        (0.3, status("Running", running(restarts=1))),
    ]
    ran = askos("capsule", "create", "-f", manifest(POD))
    assert (ran.code, ran.out, ran.err) == (0, "capsule web ready\n", "")


def test_ready_for_a_blink_is_not_ready(askos, cloud, manifest):
    cloud.capsules.scripts["web"] = [
        (0.0, status("Running", running())),
        (0.05, status("Failed", ended(7))),
    ]
    ran = askos("capsule", "create", "-f", manifest(POD))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "askos: capsule web failed: main: Error, exit code 7. See `askos capsule describe web`.\n"


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (unplaced("There are not enough hosts available."), "There are not enough hosts available"),
        (
            status("Pending", waiting("ImagePullBackOff", "Back-off pulling x.")),
            "main: ImagePullBackOff: Back-off pulling x",
        ),
        (
            status("Pending", waiting("CreateContainerConfigError", "The secret 's' is not there")),
            "main: CreateContainerConfigError: The secret 's' is not there",
        ),
        (
            status("Running", waiting("CrashLoopBackOff", "back-off", restarts=2, lastState=ended(3)["state"])),
            "main: CrashLoopBackOff: Error, exit code 3",
        ),
    ],
)
def test_what_stays_is_told(askos, cloud, manifest, last, told):
    cloud.capsules.scripts["web"] = [(0.0, last)]
    ran = askos("capsule", "create", "-f", manifest(POD))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"askos: capsule web is not ready: {told}. See `askos capsule describe web`.\n"


def test_what_only_an_event_tells(askos, cloud, manifest):
    message = "The secret 'x' is not there."
    cloud.capsules.events["web"] = [{"type": "Warning", "reason": "FailedMount", "message": message, "container": ""}]
    cloud.capsules.scripts["web"] = [(0.0, status("Pending", waiting("ContainerCreating")))]
    ran = askos("capsule", "create", "-f", manifest(POD))
    assert ran.code == 1
    assert f"capsule web is not ready: FailedMount: {message[:-1]}. See" in ran.err


def test_the_end_of_patience_says_what_is_waited_for(askos, cloud, manifest):
    cloud.capsules.scripts["web"] = [(0.0, status("Running", running(ready=False)))]
    cloud.capsules.events["web"] = [
        {"type": "Warning", "reason": "Unhealthy", "message": "Readiness probe failed: 404", "container": "main"}
    ]
    ran = askos("capsule", "create", "--timeout", "1", "-f", manifest(POD))
    assert ran.code == 1
    told = "capsule web is not ready after 1s; it waits for main: Readiness probe failed: 404."
    assert ran.err == f"askos: {told} See `askos capsule describe web`.\n"


def test_somebody_deletes_it_meanwhile(askos, cloud, manifest):
    cloud.capsules.scripts["web"] = [(0.1, None)]
    ran = askos("capsule", "create", "-f", manifest(POD))
    assert (ran.code, ran.err.split(". ")[0]) == (1, "askos: capsule web failed: somebody deleted it")


def test_ctrl_c_says_what_is_left(program, cloud, manifest):
    cloud.capsules.scripts["web"] = [(0.0, status("Pending", waiting("ContainerCreating")))]
    process = program("capsule", "create", "-f", manifest(POD))
    while not any("watch" in seen for seen in cloud.seen):
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"web is still there" in err


def test_create_without_waiting_and_its_forms(askos, cloud, manifest):
    cloud.capsules.scripts["web"] = []
    path = manifest(POD)
    assert askos("capsule", "create", "--no-wait", "-f", path).out == "capsule web accepted\n"
    again = askos("capsule", "create", "-f", path)
    assert again.code == 1
    assert "already. See `askos capsule describe web`." in again.err
    ids = askos("capsule", "create", "-q", "-f", manifest(pod("a"), pod("b"))).out.splitlines()
    assert ids == [cloud.capsules.find(name)["id"] for name in ("a", "b")]
    shown = json.loads(askos("capsule", "create", "-o", "json", "-f", manifest(pod("c"))).out)
    assert (shown["metadata"]["name"], shown["status"]["phase"]) == ("c", "Running")
    several = yaml.safe_load(askos("capsule", "create", "-o", "yaml", "-f", manifest(pod("d"), pod("e"))).out)
    assert [each["metadata"]["name"] for each in several] == ["d", "e"]


def test_a_refused_manifest_tells_every_field(askos, cloud, manifest):
    cloud.capsules.refusal = (
        "Cannot use this manifest: 2 fields are wrong; see detail.",
        "spec.a: no\nspec.b: no\x1b[2J",
    )
    ran = askos("capsule", "create", "-f", manifest(POD))
    assert ran.code == 1
    assert ran.err.splitlines() == [
        "askos: cannot create capsule web: Cannot use this manifest: 2 fields are wrong.",
        "  spec.a: no",
        "  spec.b: no\\x1b[2J",
    ]


# -- manifests -----------------------------------------------------------------------------------------------------


def test_content_goes_with_the_pods_that_refer_to_it(askos, cloud, manifest, tmp_path):
    spec = {
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [
            {"name": "main", "image": "x", "envFrom": [{"configMapRef": {"name": "conf"}}]},
        ],
        "volumes": [
            {"name": "a", "secret": {"secretName": "login"}},
            {"name": "b", "projected": {"sources": [{"configMap": {"name": "deep"}}]}},
        ],
    }

    def of(kind, name, **more):
        return {"kind": kind, "metadata": {"name": name}, **more}

    login = of("Secret", "login", stringData={"a": "b"}, type="Opaque")
    folder = tmp_path / "folder"
    manifest(
        pod("web", **spec),
        {"kind": "List", "items": [of("ConfigMap", "conf", data={"k": "v"}), login]},
        name="folder/a.yml",
    )
    manifest(of("Secret", "pull", data={"x": "eA=="}), of("ConfigMap", "deep"), name="folder/b.yaml")
    (folder / "c.json").write_text(json.dumps(of("ConfigMap", "unused")))
    (folder / "README.md").write_text("no manifest: [")
    elsewhere = manifest(
        {"kind": "ConfigMap", "metadata": {"name": "conf", "namespace": "else"}, "data": {"k": "other"}}
    )
    ran = askos("capsule", "create", "-n", "mine", "-f", str(folder), "-f", elsewhere)
    assert ran.code == 0
    (body,) = cloud.capsules.bodies
    assert body["metadata"]["namespace"] == "mine"
    assert body["content"] == {
        "configMaps": {"conf": {"data": {"k": "v"}}, "deep": {}},
        "secrets": {"login": {"stringData": {"a": "b"}, "type": "Opaque"}, "pull": {"data": {"x": "eA=="}}},
    }
    assert ran.err.splitlines() == [
        "askos: warning: ConfigMap unused is left out: no Pod of namespace mine refers to it",
        "askos: warning: ConfigMap conf is left out: no Pod of namespace else refers to it",
    ]


def test_from_standard_input(program, cloud):
    import subprocess

    process = program("capsule", "create", "-f", "-", "--no-wait", stdin=subprocess.PIPE)
    out, _ = process.communicate(json.dumps(POD).encode(), timeout=30)
    assert (process.returncode, out) == (0, b"capsule web accepted\n")


def test_times_are_text_and_numbers_are_numbers(askos, cloud, manifest):
    text = "kind: Pod\nmetadata: {name: web}\nspec: {a: 2026-11-21, b: 12:30, c: 0644, d: 1.5, e: 80, containers: []}\n"
    askos("capsule", "create", "--no-wait", "-f", manifest(text))
    (body,) = cloud.capsules.bodies
    assert body["spec"] == {"a": "2026-11-21", "b": "12:30", "c": 420, "d": 1.5, "e": 80, "containers": []}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "in line 2: did not find"),
        ("[1]", "a document in it is not an object with keys"),
        ("", "there is no Pod in it"),
        ("kind: Deployment", "holds a Deployment"),
        ("kind: Pod\na: &a [*a]", "it has no form in JSON (circular reference detected)"),
        ("kind: Pod\na: !!binary aGk=", "it has no form in JSON"),
        ("kind: Pod\na: .nan", "it has no form in JSON"),
        ("kind: Pod\na: !!python/object:os.system x", "could not determine a constructor"),
        (
            "a0: &a0 xxxxxxxxxx\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)),
            "endless",
        ),
        (
            "{kind: ConfigMap, metadata: {name: a}}\n---\n{kind: ConfigMap, metadata: {name: a}}\n---\n{kind: Pod}",
            "several",
        ),
        ("{kind: Secret, metadata: [a]}\n---\n{kind: Pod}", "cannot use a Secret: it has no name"),
    ],
)
def test_files_that_cannot_be_used(askos, cloud, manifest, text, told):
    ran = askos("capsule", "create", "-f", manifest(text))
    assert ran.code == 1
    assert told in ran.err
    assert ran.err.count("\n") == 1 and "mistake in askos" not in ran.err
    assert cloud.capsules.bodies == []


def test_files_that_are_not_there(askos, tmp_path):
    assert "no such file" in askos("capsule", "create", "-f", str(tmp_path / "none")).err
    assert "no file in it ends in" in askos("capsule", "create", "-f", str(tmp_path)).err
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (5 << 20))
    assert "larger than 4 MiB" in askos("capsule", "create", "-f", str(large)).err


# -- apply, label, delete --------------------------------------------------------------------------------------------


def test_apply_creates_changes_and_leaves_alone(askos, cloud, manifest):
    path = manifest(POD)
    assert askos("capsule", "apply", "-f", path).out == "capsule web ready\n"
    assert askos("capsule", "apply", "-f", path).out == "capsule web unchanged\ncapsule web ready\n"
    changed = manifest(pod("web", containers=[{"name": "main", "image": "busybox:2"}]))
    # The container's restarts of before are no sign of trouble.
    assert askos("capsule", "apply", "-f", changed).out == "capsule web changed\ncapsule web ready\n"
    assert cloud.capsules.find("web")["spec"]["containers"][0]["image"] == "busybox:2"


def test_label(askos, cloud):
    each = cloud.capsules.add("web", status("Running", running() | {"name": "c"}), labels={"a": "1", "b": "2"})
    assert askos("capsule", "label", "web", "a=3", "b-", "c=").out == "capsule web: a=3,c=\n"
    assert each["metadata"]["labels"] == {"a": "3", "c": ""}
    for wrong in (("a",), ("-",), ("a=1", "a-")):
        assert askos("capsule", "label", "web", "--", *wrong).code == 2


def test_delete_waits_and_goes_on_after_failures(askos, cloud):
    up = status("Running", running() | {"name": "c"})
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "1"}), ("c", {})):
        cloud.capsules.add(name, up, labels=labels)
    cloud.capsules.linger_s = 0.3
    ran = askos("capsule", "delete", "--grace", "3", "c", "none")
    assert (ran.code, ran.out) == (1, "c\n")
    assert ran.err == "askos: cannot delete capsule none: Capsule none could not be found. See `askos capsule ls`.\n"
    assert cloud.capsules.find("c") is None
    assert [q for m, _, q in cloud.capsules.queries if m == "DELETE"] == [{"gracePeriodSeconds": "3"}] * 2
    ran = askos("capsule", "delete", "-l", "x=1", "--force", "--no-wait")
    assert (ran.code, sorted(ran.out.split())) == (0, ["a", "b"])
    assert askos("capsule", "delete", "-l", "x=9").err == "(no capsule has the labels x=9)\n"
    for wrong in ((), ("a", "-l", "x=1")):
        assert askos("capsule", "delete", *wrong).code == 2


def test_delete_what_a_manifest_made(askos, cloud, manifest):
    path = manifest(pod("a"), pod("b"))
    askos("capsule", "create", "-f", path)
    assert askos("capsule", "delete", "-f", path).out == "a\nb\n"
    assert cloud.capsules.items == []


# -- lists and views -------------------------------------------------------------------------------------------------


def named(*statuses):
    return [{**each, "name": f"c{number}"} for number, each in enumerate(statuses)]


def test_the_words_for_states(askos, cloud):
    inits = {
        "initContainers": [{"name": "i0", "image": "x"}, {"name": "i1", "image": "x"}],
        "containers": [{"name": "c0", "image": "x"}],
    }
    sidecar = {
        "initContainers": [{"name": "i0", "image": "x", "restartPolicy": "Always"}],
        "containers": [{"name": "c0", "image": "x"}],
    }
    wait = waiting("PodInitializing")
    done = ended()
    cases = {
        "up": (status("Running", *named(running(), running())), None, "2/2", "Running"),
        "half": (status("Running", *named(running(), ended())), None, "1/2", "NotReady"),
        "done": (status("Succeeded", *named(ended())), None, "0/1", "Completed"),
        "err": (status("Failed", *named(ended(1))), None, "0/1", "Error"),
        "oom": (status("Failed", *named(ended(137, "OOMKilled"))), None, "0/1", "OOMKilled"),
        "loop": (status("Running", *named(waiting("CrashLoopBackOff", restarts=3))), None, "0/1", "CrashLoopBackOff"),
        "making": (status("Pending", *named(waiting("ContainerCreating"))), None, "0/1", "ContainerCreating"),
        "late": (status("Failed", *named(ended(137)), reason="DeadlineExceeded"), None, "0/1", "DeadlineExceeded"),
        "homeless": (unplaced("none"), {"containers": [{"name": "c0", "image": "x"}]}, "0/1", "Pending"),
        "init0": (status("Pending", wait, inits=(running(ready=False), wait)), inits, "0/1", "Init:0/2"),
        "init1": (status("Pending", wait, inits=(done, wait)), inits, "0/1", "Init:1/2"),
        "initerr": (status("Pending", wait, inits=(done, ended(1))), inits, "0/1", "Init:Error"),
        "initloop": (
            status("Pending", wait, inits=(done, waiting("CrashLoopBackOff", restarts=2))), inits, "0/1", "Init:CrashLoopBackOff",
        ),
        "side": (status("Running", running(), inits=(running(),)), sidecar, "2/2", "Running"),
    }  # fmt: skip
    for name, (given, spec, _, _) in cases.items():
        cloud.capsules.add(name, given, spec=spec)
    cloud.capsules.add("going", status("Running", *named(running())))["metadata"]["deletionTimestamp"] = (
        "2026-11-21T07:00:00Z"
    )
    rows = {row.split()[0]: row.split()[1:4] for row in askos("capsule", "ls").out.splitlines()[1:]}
    assert rows == {name: [ready, word, rows[name][2]] for name, (_, _, ready, word) in cases.items()} | {
        "going": ["1/1", "Terminating", "0"]
    }
    assert (rows["loop"][2], rows["initloop"][2]) == ("3", "2")


def test_ls_and_its_forms(askos, cloud):
    last = {"terminated": {"exitCode": 1, "finishedAt": "2026-11-21T07:00:00Z"}}
    cloud.capsules.add("a", status("Running", *named(running(restarts=2) | {"lastState": last})), labels={"x": "1"})
    for name in ("b", "c"):
        cloud.capsules.add(name, status("Running", *named(running())))
    table = askos("capsule", "ls").out.splitlines()
    assert table[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert len(table) == 4, "all pages are read"
    assert "2 (" in table[1] and " ago)" in table[1]
    assert [each["id"] for each in cloud.capsules.items] == askos("capsule", "ls", "-q").out.split()
    assert json.loads(askos("capsule", "ls", "-o", "json", "-l", "x=1").out) == [cloud.capsules.find("a")]
    wide = askos("capsule", "ls", "-o", "wide", "--show-labels").out.splitlines()
    assert wide[0].split()[5:] == ["ADDRESS", "HOST", "ID", "LABELS"]
    assert wide[1].split()[-4:] == ["10.64.0.2", "host-1", cloud.capsules.find("a")["id"], "x=1"]
    cloud.capsules.add("a", status("Running", *named(running())), namespace="other")
    assert askos("capsule", "ls").out.splitlines()[4].split()[:2] == ["other", "a"]
    assert askos("capsule", "ls", "-n", "other").out.splitlines()[1].split()[0] == "a"
    assert askos("capsule", "ls", "--watch", "-q").code == 2


def test_watch_goes_on_with_changes(program, cloud):
    each = cloud.capsules.add("a", status("Pending", *named(waiting("ContainerCreating"))))
    process = program("capsule", "ls", "--watch")
    assert process.stdout.readline().split()[0] == b"NAMESPACE"
    assert process.stdout.readline().split()[1:4] == [b"a", b"0/1", b"ContainerCreating"]
    cloud.loop.call_soon_threadsafe(cloud.capsules._set, each, status("Running", *named(running())))
    assert process.stdout.readline().split()[1:4] == [b"a", b"1/1", b"Running"]
    cloud.loop.call_soon_threadsafe(cloud.capsules._changed, "DELETED", each)
    assert process.stdout.readline().split()[1:4] == [b"a", b"1/1", b"Deleted"]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


@pytest.mark.parametrize("forgets", [False, True])
def test_watch_survives_a_server_that_goes_away(program, cloud, forgets):
    each = cloud.capsules.add("a", status("Running", *named(running())))
    other = cloud.capsules.add("b", status("Running", *named(running())))
    cloud.capsules.add("c", status("Running", *named(running())))
    process = program("capsule", "ls", "--watch")
    assert [process.stdout.readline().split()[1] for _ in range(4)] == [b"NAME", b"a", b"b", b"c"]

    def happens():
        cloud.capsules.break_watch = True
        cloud.capsules.forgets = forgets
        cloud.capsules.items.remove(other)
        cloud.capsules._changed("DELETED", other)
        cloud.capsules._set(each, status("Running", *named(waiting("CrashLoopBackOff"))))
        if forgets:
            cloud.capsules.changes.clear()

    while not any("watch=true" in seen for seen in cloud.seen):
        time.sleep(0.01)
    cloud.loop.call_soon_threadsafe(happens)
    seen = [process.stdout.readline().split()[1:4] for _ in range(2)]
    assert sorted(seen) == [[b"a", b"0/1", b"CrashLoopBackOff"], [b"b", b"1/1", b"Deleted"]]
    assert b"trying again" in process.stderr.readline()
    assert process.stderr.readline() == b"askos: the server is back.\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert process.stdout.read() == process.stderr.read() == b""


def test_describe(askos, cloud):
    spec = {
        "restartPolicy": "Never",
        "initContainers": [{"name": "side", "image": "s", "restartPolicy": "Always"}],
        "containers": [
            {
                "name": "main",
                "image": "busybox",
                "command": ["sh", "-c", "sleep 1"],
                "ports": [{"name": "http", "containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": "http", "path": "/ok"}, "periodSeconds": 3},
                "livenessProbe": {"grpc": {"port": 9}},
                "startupProbe": {"exec": {"command": ["test", "-e", "/a b"]}},
                "lifecycle": {"preStop": {"sleep": {"seconds": 2}}},
                "envFrom": [{"prefix": "P_", "secretRef": {"name": "login", "optional": True}}],
                "env": [
                    {"name": "A", "value": "x\ny"},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "k"}}},
                ],
                "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "p", "readOnly": True}],
                "securityContext": {"runAsUser": 5, "capabilities": {"add": ["CHOWN"]}},
            }
        ],
        "volumes": [
            {"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "w", "projected": {"sources": [{"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}}]}},
        ],
    }
    crashed = waiting("CrashLoopBackOff", "back-off 10s", restarts=4, lastState=ended(137, "OOMKilled")["state"])
    each = cloud.capsules.add("web", status("Running", crashed, inits=(running(),)), spec=spec, labels={"app": "web"})
    each["metadata"]["annotations"] = {"note": "two\nlines", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    cloud.capsules.events["web"] = [
        {
            "type": "Warning", "reason": "BackOff", "message": "Back-off\nrestarting", "count": 5, "container": "main",
            "firstTimestamp": "2026-11-21T07:00:00Z", "lastTimestamp": "2026-11-21T07:01:00Z",
        }
    ]  # fmt: skip
    shown = askos("capsule", "describe", "web")
    assert shown.code == 0
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    for wanted in (
        "Name: web", "Labels: app=web", "Annotations: note=two\\nlines", "Status: Running (CrashLoopBackOff)",
        "Addresses: 10.64.0.2", "Host: host-1", "QoS class: BestEffort", "Restart policy: Never",
        "Kind: sidecar: started before and stopped after the others", "Ports: 80/TCP (http)",
        "Command: sh -c 'sleep 1'", "State: Waiting (CrashLoopBackOff)", "back-off 10s",
        "Last state: Terminated (OOMKilled)", "exit code 137", "Restarts: 4",
        "Readiness: http-get http://:http/ok delay=0s timeout=1s period=3s success=1 failure=3",
        "Liveness: grpc :9 delay=0s timeout=1s period=10s success=1 failure=3",
        "Startup: exec test -e '/a b' delay=0s timeout=1s period=10s success=1 failure=3",
        "Before stop: sleep 2s", "Variables from: secret login with prefix P_, optional",
        "Environment: A=x\\ny", "B from key k of config map conf", "Mounts: /v from v (ro, path=p)",
        "Security: runAsUser 5, capabilities add [CHOWN]",
        "v: empty folder that lives as long as the capsule, in memory, at most 1Mi", "secret s", "p from k",
    ):  # fmt: skip
        assert wanted in lines, wanted
    assert "last-applied" not in shown.out
    event = next(line for line in lines if line.startswith("Warning"))
    assert event.startswith("Warning BackOff ") and " (x5 over " in event and event.endswith("main Back-off restarting")
    assert lines.count("Conditions:") == 1
    assert json.loads(askos("capsule", "get", "-o", "json", "web").out) == each
    assert yaml.safe_load(askos("capsule", "get", each["id"]).out) == each
    assert askos("capsule", "events", "web").out.splitlines()[1].startswith("Warning  BackOff")


def test_a_capsule_of_which_nothing_is_known_yet(askos, cloud):
    cloud.capsules.add("web", unplaced("no host\nat all"), spec={"containers": [{"name": "main", "image": "x"}]})
    shown = askos("capsule", "describe", "web").out
    assert "Pending (Unschedulable)" in shown
    assert "no host at all" in shown
    assert shown.endswith("Events:  none\n")


def test_top(askos, cloud):
    sample = {"name": "c", "cpuUsageNanoCores": 12_400_000, "memoryWorkingSetBytes": 3 << 20, "pids": 2}
    cloud.capsules.stats = [
        {"id": "1", "name": "web", "containers": [sample, {"name": "a"}]},
        {"id": "2", "name": "idle", "containers": []},
    ]
    ran = askos("capsule", "top")
    assert [line.split() for line in ran.out.splitlines()[1:]] == [
        ["web", "a", "-", "-", "-", "-"],
        ["web", "c", "12m", "3.0Mi", "2", "-"],
    ]
    assert ran.err == "askos: nothing runs in idle.\n"
    assert json.loads(askos("capsule", "top", "web", "-o", "json").out) == cloud.capsules.stats[:1]


# -- logs and ports --------------------------------------------------------------------------------------------------


def test_logs(askos, cloud, program):
    cloud.capsules.add("web", status("Running", *named(running())))
    cloud.capsules.logs["main"] = [b"one\ntw", b"o\nend"]
    flags = ("--tail", "5", "-p", "-t", "--limit-bytes", "9", "--since", "100")
    assert askos("capsule", "logs", "-n", "default", *flags, "web").out == "one\ntwo\nend"
    assert cloud.capsules.queries[-1][2] == {
        "namespace": "default", "previous": "true", "timestamps": "true", "tailLines": "5", "limitBytes": "9",
        "sinceTime": "1970-01-01T00:01:40Z",
    }  # fmt: skip
    assert askos("capsule", "logs", "--tail", "x", "web").code == 2
    cloud.capsules.logs["main"] = [b"\xff\0raw"]
    assert program("capsule", "logs", "web").communicate(timeout=30)[0] == b"\xff\0raw"


def test_logs_of_all_containers(askos, cloud):
    spec = {
        "initContainers": [{"name": "prep", "image": "x"}],
        "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}, {"name": "late", "image": "x"}],
    }
    cloud.capsules.add("web", status("Running", running(), running(), running()), spec=spec)
    cloud.capsules.logs |= {"prep": [b"p\n"], "a": [b"one\ntw", b"o\nend"], "b": [b"b1\n", b"b2\n"]}
    ran = askos("capsule", "logs", "--all-containers", "web")
    assert ran.out.splitlines() == ["[prep] p", "[a] one", "[a] two", "[a] end", "[b] b1", "[b] b2"]
    assert ran.code == 1
    assert ran.err == "askos: cannot read the log of late in web: it is waiting to start.\n"
    followed = askos("capsule", "logs", "-f", "--all-containers", "web")
    assert sorted(followed.out.splitlines()) == sorted(ran.out.splitlines())
    assert askos("capsule", "logs", "--all-containers", "-c", "a", "web").code == 2


def test_port_forward(program, cloud):
    spec = {"containers": [{"name": "c0", "image": "x", "ports": [{"name": "http", "containerPort": 80}]}]}
    cloud.capsules.add("web", status("Running", running()), spec=spec)
    process = program("capsule", "port-forward", "web", ":http", ":81")
    first = process.stdout.readline().decode().split()
    assert (first[:2], first[3:]) == (["Forwarding", "from"], ["->", "80"])
    second = process.stdout.readline().decode().split()

    def talk(where, said):
        host, _, port = where.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as line:
            line.sendall(said)
            line.shutdown(socket.SHUT_WR)
            heard = b""
            while piece := line.recv(65536):
                heard += piece
            return heard

    for said in (b"hello", b"x" * 300_000):
        assert talk(first[2], said) == said.upper()
    with contextlib.suppress(ConnectionResetError):
        assert talk(second[2], b"") == b""
    assert process.stderr.readline() == b"askos: connection refused by 81.\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


@pytest.mark.parametrize("given", ["0", "80x:", "1:2:3", "70000", "x:80", ":", "8080:", "٨٠"])
def test_what_is_no_port_is_a_mistake_of_use(askos, cloud, given):
    cloud.capsules.add("web", status("Running", *named(running())))
    assert askos("capsule", "port-forward", "web", given).code == 2


def test_ports_that_cannot_be_forwarded(askos, cloud):
    cloud.capsules.add("web", status("Running", *named(running())))
    cloud.capsules.add("old", status("Succeeded", *named(ended())))
    assert "no port of that name" in askos("capsule", "port-forward", "web", "http").err
    assert "not running, but Succeeded" in askos("capsule", "port-forward", "old", "80").err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = askos("capsule", "port-forward", "web", f"{taken.getsockname()[1]}:80")
    assert ran.code == 1
    assert ran.err.endswith(": address already in use. Choose another port.\n")


# -- mix-ups, completion ----------------------------------------------------------------------------------------------


def test_containers_and_capsules_are_mixed_up(askos, cloud):
    cloud.capsules.add("web", status("Running", *named(running())))
    askos("run", "-d", "--name", "box", "busybox", "sleep", "100")
    for command in (("show",), ("logs",), ("rm",), ("stop",)):
        ran = askos(*command, "web")
        assert ran.code == 1
        assert "It is a capsule: use `askos capsule`, such as `askos capsule describe web`." in ran.err
    assert "It is a capsule" in askos("exec", "web", "ls").err
    for command in ("describe", "delete", "logs", "events"):
        assert "It is a container: leave out `capsule`, as in `askos show box`." in askos("capsule", command, "box").err
    assert askos("show", "none").err.endswith("See `askos ps -a`.\n")


def completed(program, environment, line):
    count = len(line.split()) - (0 if line.endswith(" ") else 1)
    environment |= {"_ASKOS_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(count)}
    out = program().communicate(timeout=60)[0].decode()
    return [row.partition(",")[2] for row in out.splitlines()]


def test_names_and_containers_are_completed(program, cloud, environment):
    spec = {"initContainers": [{"name": "prep", "image": "x"}], "containers": [{"name": "main", "image": "x"}]}
    cloud.capsules.add("web", status("Running", running(), inits=(ended(),)), spec=spec)
    cloud.capsules.add("wide", status("Running", *named(running())), namespace="other")
    assert completed(program, environment, "askos capsule describe w") == ["web", "wide"]
    assert completed(program, environment, "askos capsule describe -n other w") == ["wide"]
    assert completed(program, environment, "askos capsule delete web w") == ["wide"]
    assert completed(program, environment, "askos capsule logs web -c ") == ["main", "prep"]
    assert completed(program, environment, "askos capsule exec web -c m") == ["main"]
    assert completed(program, environment, "askos capsule ls -n ") == ["default", "other"]


# -- pure pieces -------------------------------------------------------------------------------------------------------


def test_stale_news_after_a_change_is_neither_good_nor_bad():
    each = {
        "metadata": {"generation": 2},
        "spec": {"containers": [{"name": "c0"}]},
        "status": status("Running", *named(running()), observed=1),
    }
    assert capsule_wait.outcome(each) is None
    each["status"] = status("Running", *named(waiting("CrashLoopBackOff", restarts=9)), observed=1)
    assert capsule_wait.trouble(each) is None
    each["status"]["observedGeneration"] = 2
    assert capsule_wait.trouble(each).lasting_s == 0
    assert capsule_wait.trouble(each, before={"c0": 8}).lasting_s == float("inf")


def test_what_is_waited_for():
    def of(given, **spec):
        each = {"metadata": {"generation": 1}, "spec": {"containers": [], **spec}, "status": given}
        return capsule_wait.waits_for(each)

    init = {"initContainers": [{"name": "c0"}]}
    none = [condition("PodScheduled", False)]
    assert of(status("Pending", conditions=none)) == "a host"
    assert of(status("Pending", inits=named(running(ready=False))), **init) == "the end of c0"
    assert of(status("Running", *named(running(), running(ready=False)))) == "c1 to be ready"
    assert of(status("Pending", *named(waiting("ContainerCreating")))) == "c0: ContainerCreating"
    assert of(status("Pending")) == "news of its host"
