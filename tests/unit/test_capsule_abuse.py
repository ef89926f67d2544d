"""Manifests of somebody who means harm: every one is refused in one answer, or is harmless."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from askos.api import manifests, podpatch, podview, weight
from askos.api.errors import ApiError
from askos.api.notices import Watch
from askos.api.podmoves import Moves
from askos.loops import worker
from askos.loops.worker import Allowance, Worker
from askos.model.identity import Caller
from askos.model.pods import Container, Content, EnvVar, Event, Pod
from askos.plan.environment import LONGEST, MOST, Facts, UnresolvedError, environment, expand
from askos.ports.store import Moved

from .cloud import Cloud
from .pods_world import CAPSULES, make, pod, report, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEMBER = Caller("ann", "p1", is_admin=False, roles=["member"])


def edit(path: str, value: Any) -> dict[str, Any]:
    """A good manifest with one place changed; what is missing on the way there is made."""
    body: Any = pod(volumes=[{"name": "v", "emptyDir": {}}])
    body["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    here: Any = body
    *way, last = [int(word) if word.isdigit() else word for word in path.split("/")]
    for at, word in enumerate(way):
        following = [*way, last][at + 1]
        if isinstance(here, dict):
            here = here.setdefault(word, [{}] if isinstance(following, int) else {})
        else:
            here = here[word]
    here[last] = value
    return dict(body)


C = "spec/containers/0"
NAMES = (".", "..", "a/b", "../../etc", "a\0b", "a\n", "A", " ", "-a", "a" * 64, "ａ", "con tainer", "..data", "%2e")
REFUSED: list[tuple[str, Any]] = [
    *((f"{C}/name", name) for name in NAMES),
    *(("spec/volumes/0/name", name) for name in NAMES),
    *(("metadata/name", name) for name in NAMES if name != "a" * 64),
    *(("metadata/namespace", name) for name in NAMES),
    *(("spec/hostname", name) for name in NAMES if name),
    *(("metadata/uid", uid) for uid in ("a/b", "../x", "a\0b", "x" * 65, "a b", "%")),
    *((f"{C}/volumeMounts/0/mountPath", at) for at in ("/", "//", "/.", "/./", "rel", "/a/../..", "/..", "a\0", "/a:b")),
    *((f"{C}/volumeMounts/0/subPath", at) for at in ("..", "/", "/etc", "a/..", "a/../../b", "a\0b", "./..")),
    *((f"{C}/volumeMounts/0/subPathExpr", at) for at in ("..", "/", "$(X)/../..", "/$(X)")),
    (f"{C}/volumeMounts/0/mountPropagation", "Bidirectional"),
    *((f"{C}/terminationMessagePath", at) for at in ("..", "/../etc/passwd", "rel", "/dev/", "/a\0b")),
    *((f"{C}/workingDir", at) for at in ("..", "/../..", "rel", "/proc/self/fd/7/../..", "/a\0")),
    *((f"{C}/env", [{"name": name, "value": "x"}]) for name in ("", "A=B", "A\nB", "A\0", "é", "A\x7f")),
    (f"{C}/env", [{"name": "A", "value": "x\0y"}]),
    *((f"{C}/securityContext/{word}", number) for word in ("runAsUser", "runAsGroup")
      for number in (-1, 2**31, 2**32, 2**63, 2**64, 1.5, True, "0", 10**30)),
    *((f"spec/securityContext/{word}", number) for word in ("fsGroup", "runAsUser")
      for number in (-1, 2**31, 2**32, 2**63, 2**64, 1.5, True, "0")),
    *(("spec/securityContext/supplementalGroups", [number]) for number in (-1, 2**31, 2**64, None, "root")),
    *((f"{C}/resources/limits/{word}", text) for word in ("cpu", "memory") for text in
      ("1e1000", "1e9999", "9" * 63, "1E99999", "-1", "1e18Ki", "NaN", "inf", "٣", "1 ", "0x10", "1" * 5000, 1e300)),
    *(("spec/volumes/0", {"name": "v", "emptyDir": {"sizeLimit": text}}) for text in ("-1", "1e99", "x")),
    *(("spec/volumes/0", {"name": "v", word: {"path": "/"}}) for word in ("hostPath", "local")),
    *(("spec/volumes/0", {"name": "v", "secret": {"secretName": "s", "defaultMode": mode}})
      for mode in (0o4755, 0o2755, 0o1777, -1, 2**40)),
    *(("spec/volumes/0", {"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": path}]}})
      for path in ("..", "../x", "/etc/x", "..data", "a/../b", "a//b", "a/", ".", "a\0")),
    *(("spec/volumes/0", {"name": "v", "downwardAPI": {"items": [{"path": path, "fieldRef": {"fieldPath": what}}]}})
      for path, what in (("../x", "metadata.name"), ("x", "spec.containers"), ("x", "status.podIP/.."))),
    *(("spec/securityContext/sysctls", [{"name": name, "value": "1"}]) for name in
      ("kernel.core_pattern", "kernel.modprobe", "vm.overcommit_memory", "net.core.somaxconn", "fs.file-max", "..",
       "net/ipv4/ip_forward", "net.ipv4.conf.all.forwarding", "kernel/../vm/x")),
    ("spec/securityContext/sysctls", [{"name": "net.ipv4.ping_group_range", "value": "0\n1"}]),
    *((f"spec/{word}", True) for word in ("hostNetwork", "hostPID", "hostIPC")),
    ("spec/hostUsers", False),
    ("spec/runtimeClassName", "../../runc"),
    ("spec/runtimeClassName", "io.containerd.runc.v2"),
    (f"{C}/securityContext/procMount", "Unmasked"),
    (f"{C}/securityContext/seccompProfile", {"type": "Localhost", "localhostProfile": "../../x"}),
    (f"{C}/securityContext/capabilities", {"add": ["CAP_SYS_ADMIN"]}),
    (f"{C}/securityContext/capabilities", {"add": ["sys_admin"]}),
    (f"{C}/securityContext/capabilities", {"add": ["NOT_ONE"]}),
    (f"{C}/livenessProbe/httpGet", {"port": 80, "httpHeaders": [{"name": "A", "value": "x\r\nHost: evil"}]}),
    (f"{C}/livenessProbe/httpGet", {"port": 80, "httpHeaders": [{"name": "A\r\nB", "value": "x"}]}),
    (f"{C}/livenessProbe/httpGet", {"port": 80, "path": "/x\r\n\r\nGET /y"}),
    (f"{C}/livenessProbe/httpGet", {"port": 80, "host": "a\r\nb"}),
    (f"{C}/livenessProbe/httpGet", {"port": 80, "scheme": "file"}),
    (f"{C}/livenessProbe/tcpSocket", {"port": 2**16}),
    ("spec/hostAliases", [{"ip": "1.2.3.4\n5.6.7.8 x", "hostnames": ["a"]}]),
    ("spec/hostAliases", [{"ip": "1.2.3.4", "hostnames": ["a\n6.6.6.6 login"]}]),
    ("spec/dnsConfig", {"nameservers": ["1.1.1.1\noptions x"]}),
    ("spec/dnsConfig", {"searches": ["a\nnameserver 6.6.6.6"]}),
    ("spec/dnsConfig", {"options": [{"name": "a\nnameserver", "value": "6.6.6.6"}]}),
    ("metadata/labels", {f"l{i}": "x" for i in range(10_001)}),
    ("metadata/labels", {"../x": "y"}),
    ("metadata/annotations", {"a": "x" * (257 << 10)}),
    ("spec/imagePullSecrets", [{"name": "../x"}]),
    ("content", {"secrets": {"../x": {}}}),
    ("content", {"configMaps": {"c": {"data": {"../x": "y"}}}}),
    ("content", {"secrets": {"s": {"stringData": {"..data": "y"}}}}),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(REFUSED)))
async def test_what_is_refused(number: int) -> None:
    path, value = REFUSED[number]
    with pytest.raises(ApiError) as caught:
        manifests.read(edit(path, value), caller=MEMBER, runtimes={"runc"})
    assert caught.value.status == 400, caught.value.detail
    assert len(caught.value.title) < 1000
    assert len(caught.value.detail) < 100_000


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{C}/securityContext/privileged", True),
        (f"{C}/securityContext/allowPrivilegeEscalation", True),
        (f"{C}/securityContext/capabilities", {"add": ["SYS_ADMIN"]}),
        (f"{C}/securityContext/capabilities", {"add": ["ALL"]}),
        (f"{C}/securityContext/capabilities", {"add": ["NET_ADMIN"]}),
        (f"{C}/securityContext/seccompProfile", {"type": "Unconfined"}),
        ("spec/securityContext/seccompProfile", {"type": "Unconfined"}),
        ("spec/initContainers", [{"name": "i", "image": "x", "securityContext": {"privileged": True}}]),
    ],
)
async def test_what_policy_refuses_at_each_door(cloud: Cloud, path: str, value: Any) -> None:
    """In a create, and in what a change would make of a capsule."""
    with pytest.raises(ApiError) as caught:
        manifests.read(edit(path, value), caller=MEMBER, runtimes=set())
    assert caught.value.status == 403, caught.value.detail
    token = cloud.project()
    uuid = (await make(cloud, token))["id"]
    body = {"spec": edit(path, value)["spec"]}
    got = await cloud.ask("PATCH", f"{CAPSULES}/{uuid}", token, version=None, body=body)
    assert got.status in (400, 403), got
    shown = json.dumps((await cloud.ask("GET", f"{CAPSULES}/{uuid}", token, version=None)).body)
    assert not any(word in shown for word in ("privileged", "Unconfined", "SYS_ADMIN", "Escalation"))


async def test_of_two_equal_keys_the_checked_one_is_the_one_that_counts(cloud: Cloud) -> None:
    good, evil = (
        '{"name": "app", "image": "b"}',
        '{"name": "app", "image": "b", "securityContext": {"privileged": true}}',
    )
    for first, second, status in ((good, evil, 403), (evil, good, 201)):
        text = f'{{"metadata": {{"name": "x"}}, "spec": {{"containers": [{first}], "containers": [{second}]}}}}'
        got = await cloud.ask("POST", CAPSULES, cloud.project(), version=None, data=text.encode())
        assert got.status == status
        assert b"privileged" not in got.raw or status == 403


# -- size ---------------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("depth", [51, 400, 900, 1100, 100_000])
@pytest.mark.parametrize("way", ["POST", "PUT", "PATCH", "content", "zun", "refused field", "list"])
async def test_deep_bodies_are_the_clients_mistake(cloud: Cloud, depth: int, way: str) -> None:
    token = cloud.project()
    deep = nested(depth) if way != "list" else b"[" * depth + b"]" * depth
    uuid = (await make(cloud, token))["id"]
    one, json_type = f"{CAPSULES}/{uuid}", {"Content-Type": "application/json"}
    asked: dict[str, tuple[str, str, bytes]] = {
        "PUT": ("PUT", one, deep),
        "PATCH": ("PATCH", one, deep),
        "content": ("PUT", f"{one}/content", b'{"secrets":' + deep + b"}"),
        "zun": ("POST", "/v1/capsules", b'{"template":{"metadata":' + deep + b"}}"),
        "refused field": ("POST", CAPSULES, b'{"metadata":{"name":"x"},"spec":{"affinity":' + deep + b"}}"),
    }
    method, path, data = asked.get(way, ("POST", CAPSULES, deep))
    got = await cloud.ask(method, path, token, data=data, headers=json_type)
    assert got.status == 400, got


async def test_too_many_parts_are_refused_before_they_cost_anything(cloud: Cloud) -> None:
    token = cloud.project()
    body = pod()
    body["spec"]["containers"] = [
        {"name": f"c{i}", "image": "b", "env": [{"name": f"E{j}", "value": ""} for j in range(200)]} for i in range(200)
    ]
    for method, path in (("POST", CAPSULES), ("PATCH", f"{CAPSULES}/{(await make(cloud, token, 'a'))['id']}")):
        got = await cloud.ask(method, path, token, version=None, body=body)
        got.refused(413, "", "Cannot take this request: its body has more than 20000 objects")
    with pytest.raises(ApiError):
        weight.check({"a": [1] * (weight.MOST_VALUES + 1)})
    weight.check({"a": ["{[" * 100_000], "b": {str(i): {} for i in range(weight.MOST_PARTS - 3)}})


async def test_the_most_labels_that_are_taken_come_back(cloud: Cloud) -> None:
    token, labels = cloud.project(), {f"l{i}": "x" * 63 for i in range(10_000)}
    made = await make(cloud, token, metadata={"labels": labels})
    assert made["metadata"]["labels"] == labels


async def test_a_patch_of_a_long_list() -> None:
    present = {"env": [{"name": f"E{i}", "value": "old"} for i in range(5000)]}
    patch = {
        "env": [
            *({"name": f"E{i}", "value": "new"} for i in range(4999, 0, -1)),
            {"name": "E0", "$patch": "delete"},
            {"name": "E0", "value": "again"},
            {"name": "gone", "$patch": "delete"},
        ]
    }
    found = podpatch.merged(present, patch, strategic=True)["env"]
    assert [item["name"] for item in found] == [*(f"E{i}" for i in range(1, 5000)), "E0"]
    assert {item["value"] for item in found} == {"new", "again"}
    for name in ([], {}, None, 1.5):
        with pytest.raises(ApiError, match="neither a string nor a whole number"):
            podpatch.merged(present, {"env": [{"name": name}]}, strategic=True)


# -- variables that multiply --------------------------------------------------------------------------------------


def bomb(count: int = 60) -> list[EnvVar]:
    first = EnvVar("A0", "x" * 1000)
    return [first, *(EnvVar(f"A{i}", f"$(A{i - 1})$(A{i - 1})") for i in range(1, count))]


def facts() -> Facts:
    return Facts(manifests.read(pod(), caller=MEMBER, runtimes=set()).pod, "u", "n", [], [], 1000, 1)


async def test_variables_that_double_each_other_end_where_linux_does() -> None:
    with pytest.raises(UnresolvedError, match="no program can be given so much"):
        environment(Container("c", "i", env=bomb()), Content(), facts())
    big = "x" * LONGEST
    assert expand("$(A)", {"A": big}) == big
    with pytest.raises(UnresolvedError):
        expand("$(A)$(A)", {"A": big})
    many = [EnvVar("A", big), *(EnvVar(f"V{i}", "$(A)") for i in range(MOST // LONGEST + 1))]
    with pytest.raises(UnresolvedError, match="of a volume"):
        environment(Container("c", "i", env=many), Content(), facts())
    same = environment(Container("c", "i", env=[EnvVar("A", big), EnvVar("A", "$(A)")]), Content(), facts())
    assert same.values == {"A": big}


async def test_the_server_shows_such_variables_as_they_were_given(cloud: Cloud) -> None:
    """Zun's view puts variables in: by the server, for whoever asks."""
    token = cloud.project()
    given = [{"name": v.name, "value": v.value} for v in bomb()]
    body = pod()
    body["spec"]["containers"][0] |= {"env": given, "args": ["$(A0)" * 1000, "$$" * (LONGEST + 1)]}
    made = await cloud.ask("POST", CAPSULES, token, version=None, body=body)
    assert made.status == 201
    shown = await cloud.ask("GET", f"/v1/capsules/{made.body['id']}", token)
    assert shown.status == 200
    values = shown.body["containers"][0]["environment"]
    assert values["A1"] == "x" * 2000
    assert values["A59"].startswith("$(A58)") or len(values["A59"]) <= LONGEST
    assert len(shown.raw) < 4 * MOST


# -- events -------------------------------------------------------------------------------------------------------


def unhealthy(number: int, container: str = "app") -> Event:
    return Event("Warning", "Unhealthy", f"probe {number} failed", container, at_us=number + 1)


async def test_events_that_wait_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Worker):
        async def _step(self) -> int | None:
            return None

    silent = object.__new__(Silent)
    silent._events = []
    for number in range(100_000):
        silent._add(unhealthy(number))
    assert len(silent._events) == worker.MOST_EVENTS
    assert sum(event.count for event in silent._events) == 100_000
    assert any(event.message == "probe 99999 failed" for event in silent._events)
    for number in range(1000):
        silent._add(unhealthy(number, f"c{number}"))
    assert len(silent._events) == 2 * worker.MOST_EVENTS


async def test_who_tells_ever_more_waits_ever_longer() -> None:
    allowance, now_s, told = Allowance(), 1000.0, 0
    delays = []
    while now_s < 1000 + 3600:
        delays.append(allowance.delay_s(now_s))
        now_s += delays[-1] + 0.1
        told += 1
    assert delays[: worker.BURST] == [worker.EVENTS_S] * worker.BURST
    assert told < worker.BURST * 2 + 3600 / worker.SLOW_S, "an hour of failing probes"
    assert allowance.delay_s(now_s + 3600) == worker.EVENTS_S, "and is as quick as ever after a rest"


async def test_an_hour_of_events_moves_no_watch_and_fills_no_table(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = (await make(cloud, token))["id"]
    await cloud.place(uuid)
    await report(cloud, uuid, running())
    before = await cloud.store.revision()
    for start in range(0, 3600, 100):
        await report(cloud, uuid, running(), events=[unhealthy(n) for n in range(start, start + 100)])
    assert await cloud.store.revision() == before
    kept = await cloud.ask("GET", f"{CAPSULES}/{uuid}/events", token, version=None)
    assert len(kept.body["items"]) <= 200
    assert kept.body["items"][-1]["message"] == "probe 3599 failed"


# -- readers ------------------------------------------------------------------------------------------------------


class _Counting:
    """A store that counts how often it is asked what has moved."""

    def __init__(self) -> None:
        self.asked = 0

    async def moved(self, after: int, project_id: str | None, limit: int = 500) -> tuple[int, list[Moved]]:
        self.asked += 1
        return after, []


async def test_a_thousand_watches_ask_once() -> None:
    store, notices = _Counting(), Watch()
    moves = Moves(store, notices, 60.0)  # type: ignore[arg-type]
    with notices.follow("p"):
        await asyncio.gather(*(moves.moved(7, "p", 500) for _ in range(1000)))
        assert store.asked == 1
        await moves.moved(8, "p", 500)
        await moves.moved(7, "other", 500)
        assert store.asked == 3
        notices.changed("c", "elsewhere")
        await moves.moved(7, "p", 500)
        assert store.asked == 3
        notices.changed("c", "p")
        await asyncio.gather(*(moves.moved(7, "p", 500) for _ in range(1000)))
        assert store.asked == 4
    with notices.follow("p"):
        # Nobody has listened meanwhile.
        await moves.moved(7, "p", 500)
        assert store.asked == 5
    stale = Moves(store, notices, 0.0)  # type: ignore[arg-type]
    await stale.moved(7, "p", 500)
    await stale.moved(7, "p", 500)
    assert store.asked == 7
    assert len(stale._asked) == 1


async def test_showing_needs_no_look_at_the_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking msgspec for a struct's fields once for each part blocked the server for seconds."""
    made = manifests.read(pod(), caller=MEMBER, runtimes=set()).pod
    assert isinstance(made, Pod)
    first = podview.part_json(made.spec)
    monkeypatch.setattr("msgspec.structs.fields", lambda _type: pytest.fail("asked again"))
    assert podview.part_json(made.spec) == first
