"""Zun's capsule templates: what pod they become, what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from askos.api import schemas, template, textual
from askos.api.errors import ApiError
from askos.model import pods
from askos.model.volumes import GIB

ZONES = {"nova"}
VOLUME = "8c2d4f4a-3f0e-4b4a-9d0e-0c5b1f0f7a11"


def read(given: object) -> template.Order:
    return template.read(given, ZONES, schemas.DEFAULT_LIMITS)


def capsule(spec: dict[str, Any] | None = None, /, **container: Any) -> dict[str, Any]:
    return {
        "kind": "capsule",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"image": "busybox", **container}], **(spec or {})},
    }


FULL: dict[str, Any] = {
    "kind": "capsule",
    "capsuleVersion": "beta",
    "metadata": {"name": "pod1", "labels": {"app": "web", "n": 1, "long": "x" * 80}, "annotations": {"note": "hello"}},
    "restartPolicy": "Always",
    "availabilityZone": "nova",
    "spec": {
        "restartPolicy": "OnFailure",
        "initContainers": [
            {"image": "busybox", "command": ["sh", "-c", "echo $HOME > /work/f"], "volumeMounts": [{"name": "work", "mountPath": "/work"}]}
        ],
        "containers": [
            {
                "image": "registry.example:5000/busybox:latest", "name": "first", "command": ["sleep"], "args": ["100000"],
                "env": {"A": "b $(C)"}, "workDir": "/tmp", "imagePullPolicy": "always",
                "ports": [{"containerPort": 80, "name": "http", "hostPort": 8080, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": 0.2, "memory": 64}},
                "volumeMounts": [{"name": "work", "mountPath": "/work", "readOnly": True}, {"name": "old", "mountPath": "/old"}],
                "stdin": True, "tty": True,
            },
            {"image": "busybox", "args": ["sleep", "1"], "resources": {"requests": {"cpu": "0.1", "memory": "32"}}},
        ],
        "volumes": [
            {"name": "work", "cinder": {"size": 1, "autoRemove": True}},
            {"name": "old", "cinder": {"volumeID": VOLUME}},
        ],
    },
}  # fmt: skip


def test_all_fields() -> None:
    order = read(FULL)
    pod = order.pod
    assert pod.metadata == pods.PodMetadata(
        "pod1", labels={"app": "web", "n": "1", "long": "x" * 80}, annotations={"note": "hello"}
    )
    assert order.labels == {"app": "web", "n": "1"}, "only what a selector can name"
    assert pod.spec.restart_policy == "OnFailure"
    assert pod.spec.termination_grace_period_seconds == 10
    first, second = pod.spec.containers
    assert first == pods.Container(
        "first", "registry.example:5000/busybox:latest", args=["sleep", "100000"], working_dir="/tmp",
        ports=[pods.ContainerPort(80, "http", "TCP", 8080)], env=[pods.EnvVar("A", "b $$(C)")],
        resources=pods.Resources({"memory": "64Mi"}, {"cpu": "200m", "memory": "64Mi"}),
        volume_mounts=[pods.VolumeMount("work", "/work", read_only=True), pods.VolumeMount("old", "/old")],
        image_pull_policy="Always", stdin=True, tty=True,
    )  # fmt: skip
    assert second.name.startswith("capsule-pod1-")
    assert second.args == ["sleep", "1"] and second.command == []
    assert second.resources.requests == {"cpu": "100m", "memory": "32Mi"}
    assert second.image_pull_policy == "IfNotPresent"
    (init,) = pod.spec.init_containers
    assert init.args == ["sh", "-c", "echo $$HOME > /work/f"]
    (new,), (old,) = order.new_volumes, order.volumes
    assert (new.name, new.size_bytes, new.auto_remove) == ("work", GIB, True)
    assert (old.name, old.uuid, old.auto_remove) == ("old", VOLUME, False)
    assert [v.cinder.volume_id for v in pod.spec.volumes if v.cinder] == [new.uuid, VOLUME]
    (warning,) = order.warnings
    assert warning.startswith("spec.containers[0].ports[0].hostPort has no effect: no port of the host is opened")


def test_the_same_in_a_string_of_json_or_yaml() -> None:
    wanted = read(capsule()).pod.spec
    for text in (json.dumps(capsule()), yaml.safe_dump(capsule()), yaml.safe_dump(capsule(), default_flow_style=True)):
        found = read(text)
        assert [c.image for c in found.pod.spec.containers] == [c.image for c in wanted.containers]


def test_yaml_keeps_what_looks_like_a_date() -> None:
    text = "kind: capsule\nmetadata: {name: 2026-01-01}\nspec: {containers: [{image: busybox, env: {A: 2026-01-01}}]}\n"
    assert read(text).pod.spec.containers[0].env == [pods.EnvVar("A", "2026-01-01")]


def test_anchors_of_yaml() -> None:
    text = "kind: capsule\nmetadata: {}\nspec:\n  containers:\n  - &a {image: busybox}\n  - *a\n"
    assert len(read(text).pod.spec.containers) == 2


def test_a_capsule_without_a_name_gets_one() -> None:
    for metadata in ({}, {"name": None}, {"name": ""}):
        order = read({**capsule(), "metadata": metadata})
        assert order.pod.metadata.name.endswith("-capsule")
        assert order.pod.spec.containers[0].name.startswith(f"capsule-{order.pod.metadata.name}-")


@pytest.mark.parametrize(
    ("name", "hostname"), [("web", ""), ("My_Pod.1", "my-pod-1"), ("A" * 255, "a" * 63), ("1.", "1")]
)
def test_a_name_that_cannot_be_a_host_name(name: str, hostname: str) -> None:
    assert read({**capsule(), "metadata": {"name": name}}).pod.spec.hostname == hostname


def test_restart_policy_in_both_places() -> None:
    assert read(capsule()).pod.spec.restart_policy == "Always"
    assert read({**capsule(), "restartPolicy": "Never"}).pod.spec.restart_policy == "Never"
    assert (
        read({**capsule({"restartPolicy": "OnFailure"}), "restartPolicy": "Never"}).pod.spec.restart_policy
        == "OnFailure"
    )


def test_many_unnamed_containers_have_names_of_their_own() -> None:
    order = read(capsule({"containers": [{"image": "busybox"}] * 150, "initContainers": [{"image": "busybox"}] * 100}))
    names = {c.name for c in (*order.pod.spec.containers, *order.pod.spec.init_containers)}
    assert len(names) == 250


def test_what_zun_ignores_is_warned_about() -> None:
    body = capsule({"nodeName": "x", "terminationGracePeriodSeconds": 5, "bad\r\nX-Evil": 1})
    body["metadata"]["generation"] = 1
    assert read(body).warnings == [
        "metadata.generation has no effect: Zun's templates have no such field",
        "spec.nodeName has no effect: Zun's templates have no such field",
        "spec.terminationGracePeriodSeconds has no effect: Zun's templates have no such field",
    ]


MOUNT = {"name": "v", "mountPath": "/v"}

WRONG: list[tuple[Any, str, str]] = [
    (None, "template", "must be an object"),
    ([], "template", "must be an object"),
    ("", "template", "must be an object"),
    ("a: [", "template", "neither JSON nor YAML: "),
    ("a: 1\n---\nb: 2\n", "template", "neither JSON nor YAML: "),
    ("!!python/object/apply:os.system ['true']", "template", "neither JSON nor YAML: "),
    ("1: 2", "template", "must be a string"),
    ("a: !!binary aGk=", "template", "bytes means nothing"),
    ("[" * 2000, "template", "deep"),
    ({**capsule(), "kind": "pod"}, "kind", '"Capsule" or "capsule"'),
    ({k: v for k, v in capsule().items() if k != "metadata"}, "metadata", "required"),
    ({**capsule(), "capsuleVersion": "v1"}, "capsuleVersion", '"beta"'),
    ({**capsule(), "nets": []}, "nets", "no such field"),
    ({**capsule(), "spec": {}}, "spec.containers", "required"),
    ({**capsule(), "spec": None}, "spec", "required"),
    ({**capsule(), "availabilityZone": "mars"}, "availabilityZone", "the zones are: nova"),
    ({**capsule(), "metadata": {"name": "a b"}}, "metadata.name", "letters"),
    ({**capsule(), "metadata": {"name": "a\n"}}, "metadata.name", "letters"),
    ({**capsule(), "metadata": {"labels": []}}, "metadata.labels", "must be an object"),
    (capsule({"containers": []}), "spec.containers", "at least one"),
    (capsule({"containers": "x"}), "spec.containers", "must be a list"),
    (capsule({"restartPolicy": "Sometimes"}), "spec.restartPolicy", '"OnFailure"'),
    (capsule({"containers": [{"image": "x"}] * 251}), "spec.containers", "at most 250"),
    (capsule(image=None), "spec.containers[0].image", "required"),
    (capsule(image=""), "spec.containers[0].image", "required"),
    (capsule(image="Busy Box"), "spec.containers[0].image", "cannot be used"),
    (capsule(foo=1), "spec.containers[0].foo", "no such field"),
    (capsule(command="a"), "spec.containers[0].command", "must be a list"),
    (capsule(args=[1]), "spec.containers[0].args[0]", "quotes"),
    (capsule(env=[{"name": "a", "value": "b"}]), "spec.containers[0].env", "must be an object, not a list"),
    (capsule(env={"A": 1}), 'spec.containers[0].env["A"]', "quotes"),
    (capsule(env={"A=": "1"}), 'spec.containers[0].env["A="]', "without ="),
    (capsule(env={"A": "\0"}), 'spec.containers[0].env["A"]', "NUL"),
    (capsule(workDir="tmp"), "spec.containers[0].workDir", "absolute"),
    (capsule(name="a b"), "spec.containers[0].name", "letters"),
    (capsule(imagePullPolicy="x"), "spec.containers[0].imagePullPolicy", "ifnotpresent"),
    (capsule(ports=[{}]), "spec.containers[0].ports[0].containerPort", "required"),
    (capsule(ports=[{"containerPort": 70000}]), "spec.containers[0].ports[0].containerPort", "65535"),
    (capsule(ports=[{"containerPort": 80, "hostPort": -1}]), "spec.containers[0].ports[0].hostPort", "65535"),
    (capsule(ports=[{"containerPort": 80, "protocol": "SCTP"}]), "spec.containers[0].ports[0].protocol", '"UDP"'),
    (capsule(resources={"limits": {"cpu": 1}}), "spec.containers[0].resources.limits", "no such field"),
    (capsule(resources={"requests": {"cpu": "x"}}), "spec.containers[0].resources.requests.cpu", "not a number"),
    (capsule(resources={"requests": {"cpu": True}}), "spec.containers[0].resources.requests.cpu", "not a number"),
    (capsule(resources={"requests": {"cpu": 1e300}}), "spec.containers[0].resources.requests.cpu", "0.1 to 16"),
    (capsule(resources={"requests": {"cpu": 0.01}}), "spec.containers[0].resources.requests.cpu", "0.1 to 16"),
    (capsule(resources={"requests": {"memory": "64M"}}), "spec.containers[0].resources.requests.memory", "not a number"),
    (capsule(resources={"requests": {"memory": 64.5}}), "spec.containers[0].resources.requests.memory", "whole number"),
    (capsule(resources={"requests": {"memory": 1}}), "spec.containers[0].resources.requests.memory", "4 to 8192"),
    (capsule(resources={"requests": {"disk": 1}}), "spec.containers[0].resources.requests.disk", "no such field"),
    (capsule(stdin="maybe"), "spec.containers[0].stdin", "true or false"),
    (capsule(volumeMounts=[MOUNT]), "spec.containers[0].volumeMounts[0].name", "there are: none"),
    (capsule(volumeMounts=[{"name": "v"}]), "spec.containers[0].volumeMounts[0].mountPath", "required"),
    (capsule({"volumes": [{"name": "v", "cinder": {"size": 1}}]}), "spec.volumes[0].name", "no container mounts"),
    (capsule({"volumes": [{"name": "v", "emptyDir": {}}]}, volumeMounts=[MOUNT]), "spec.volumes[0].emptyDir", "no such field"),
    (capsule({"volumes": [{"name": "v", "cinder": {}}]}), "spec.volumes[0].cinder", "exactly one"),
    (capsule({"volumes": [{"name": "v", "cinder": {"size": 1, "volumeID": VOLUME}}]}), "spec.volumes[0].cinder", "exactly one"),
    (capsule({"volumes": [{"name": "v", "cinder": {"size": 0}}]}, volumeMounts=[MOUNT]), "spec.volumes[0].cinder.size", "1 to"),
    (capsule({"volumes": [{"name": "v", "cinder": {"size": 1.5}}]}, volumeMounts=[MOUNT]), "spec.volumes[0].cinder.size", "whole"),
    (capsule({"volumes": [{"name": "v", "cinder": {"volumeID": "x"}}]}, volumeMounts=[MOUNT]), "spec.volumes[0].cinder.volumeID", "not the id"),
    (capsule({"volumes": [{"name": "v", "cinder": {"size": 1}}] * 2}, volumeMounts=[MOUNT]), "spec.volumes[1].name", "several"),
    (capsule({"volumes": [{"name": "v", "cinder": {"size": 1}}]}, volumeMounts=[{**MOUNT, "mountPath": "v"}]),
     "spec.containers[0].volumeMounts[0].mountPath", "absolute"),
    (capsule({"volumes": [{"name": "v", "cinder": {"size": 1}}]}, volumeMounts=[MOUNT, MOUNT]),
     "spec.containers[0].volumeMounts[1].mountPath", "several"),
    (capsule({"initContainers": [{"command": ["x"]}]}), "spec.initContainers[0].image", "required"),
    (capsule({"initContainers": [{"image": "x", "name": "a"}]}, name="a"), "spec.containers[0].name", "several"),
]  # fmt: skip


@pytest.mark.parametrize(("given_", "path", "why"), WRONG, ids=[f"{i}-{row[1]}" for i, row in enumerate(WRONG)])
def test_what_is_wrong_is_named(given_: Any, path: str, why: str) -> None:
    before = json.dumps(given_)
    with pytest.raises(ApiError) as caught:
        read(given_)
    assert caught.value.status == 400
    assert caught.value.title.startswith("Cannot use this template: ")
    lines = [line for line in caught.value.detail.splitlines() if line.startswith(f"{path}: ")]
    assert len(lines) == 1, caught.value.detail
    assert why in lines[0]
    assert json.dumps(given_) == before


def test_everything_is_said_at_once() -> None:
    with pytest.raises(ApiError) as caught:
        read(
            {
                "kind": "pod",
                "metadata": {"name": "-"},
                "spec": {"containers": [{"image": 5, "foo": 1}, {"image": "x", "tty": 7}]},
            }
        )
    assert [line.split(": ")[0] for line in caught.value.detail.splitlines()] == [
        "kind", "spec.containers[0].image", "spec.containers[0].foo", "metadata.name", "spec.containers[1].tty",
    ]  # fmt: skip


# -- texts that want to cost more than they weigh ---------------------------------------------------------------


def test_aliases_cannot_multiply() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(textual.UnreadableError, match="aliases"):
        textual.read("\n".join(lines))


def test_a_text_cannot_contain_itself() -> None:
    with pytest.raises(textual.UnreadableError, match="itself"):
        textual.read("a: &a [*a]")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "- " * 100_000, "{a: " * 1000, "? " * 1000, "a:\n" + "- b\n" * 100_000]
)
def test_depth_and_length_are_bounded(text: str) -> None:
    with pytest.raises(textual.UnreadableError):
        textual.read(text)


def test_numbers_that_are_too_long() -> None:
    with pytest.raises(textual.UnreadableError):
        textual.read("a: " + "1" * 10_000)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(alphabet=st.characters(), max_size=60), st.text(alphabet="&*a:-[]{}!<>|\n \t'\"#%@`?,1.", max_size=60)
    )
)
def test_any_text_is_read_or_refused(text: str) -> None:
    found: Any = None
    try:
        found = textual.read(text)
    except textual.UnreadableError:
        return
    msgspec.json.encode(json.loads(json.dumps(found)))


NAMES = ["image", "name", "command", "env", "ports", "resources", "requests", "cpu", "memory", "volumeMounts", "mountPath",
         "volumes", "cinder", "size", "volumeID", "containers", "initContainers", "labels", "stdin", "template"]  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.sampled_from(["busybox", "/a", "\0", "\ud800", "Always", "1"]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["", "metadata", "spec", "container", "volume"]),
    st.sampled_from([*NAMES, *FULL, "annotations"]),
    VALUES,
)
def test_any_value_at_a_real_place_is_read_or_refused(place: str, name: str, value: Any) -> None:
    body = json.loads(json.dumps(FULL))
    container, volume = body["spec"]["containers"][0], body["spec"]["volumes"][0]
    target = {"": body, "container": container, "volume": volume}.get(place)
    (body[place] if target is None else target)[name] = value
    error: ApiError | None = None
    try:
        order = read(body)
    except ApiError as raised:
        error = raised
    if error is None:
        msgspec.json.encode(order)
        assert all(w.isascii() and w.isprintable() for w in order.warnings)
        return
    assert error.status == 400
    error.body("req-x")
