"""Where variables get their values from."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from askos.model.pods import (
    ConfigMap,
    Container,
    Content,
    EnvFrom,
    EnvSource,
    EnvVar,
    FieldRef,
    KeyRef,
    ObjectRef,
    Pod,
    PodMetadata,
    PodSpec,
    ResourceFieldRef,
    Resources,
    Secret,
)
from askos.plan.environment import Facts, UnresolvedError, environment, expand, expand_all, field, resource_field

CONTENT = Content(
    config_maps={"web": ConfigMap(data={"a": "1", "b": "2", "odd=": "x"}, binary_data={"blob": b"\xff"})},
    secrets={"db": Secret(data={"password": b"pa$$word", "blob": b"\xff\xfe", "zero": b"a\0b"})},
)
LIMITED = Container(
    "limited", "i", resources=Resources(limits={"cpu": "1500m", "memory": "100Mi"}, requests={"cpu": "250m"})
)
POD = Pod(
    PodMetadata("web-0", "shop", "u-1", {"app": "web", "example.org/tier": "front"}, {"note": 'say "hi"\n'}),
    PodSpec([Container("main", "i")], init_containers=[LIMITED], node_name="node-1"),
)
FACTS = Facts(POD, "u-1", "node-1", ["192.0.2.1"], ["10.0.0.5"], 4000, 8 << 30, 100 << 30)


def values(*env: EnvVar, env_from: list[EnvFrom] | None = None, content: Content = CONTENT) -> dict[str, str]:
    return environment(Container("main", "i", env=list(env), env_from=env_from or []), content, FACTS).values


def refer(name: str = "X", **source: object) -> EnvVar:
    return EnvVar(name, value_from=EnvSource(**source))  # type: ignore[arg-type]


def test_later_wins() -> None:
    found = values(
        EnvVar("A", "first"),
        EnvVar("A", "second"),
        EnvVar("a", "own"),
        env_from=[
            EnvFrom(config_map_ref=ObjectRef("web")),
            EnvFrom("db_", secret_ref=ObjectRef("none", optional=True)),
        ],
    )
    assert found == {"a": "own", "b": "2", "A": "second"}


def test_env_from_in_its_order_with_prefix() -> None:
    more = msgspec.structs.replace(CONTENT, config_maps={**CONTENT.config_maps, "more": ConfigMap({"a": "9"})})
    sources = [EnvFrom(config_map_ref=ObjectRef("web")), EnvFrom("P_", config_map_ref=ObjectRef("more"))]
    assert values(env_from=sources, content=more) == {"a": "1", "b": "2", "P_a": "9"}
    sources = [EnvFrom(config_map_ref=ObjectRef("web")), EnvFrom(config_map_ref=ObjectRef("more"))]
    assert values(env_from=sources, content=more) == {"a": "9", "b": "2"}


def test_keys_that_are_no_names_are_told() -> None:
    found = environment(Container("c", "i", env_from=[EnvFrom("é", config_map_ref=ObjectRef("web"))]), CONTENT, FACTS)
    assert found.values == {}
    assert found.skipped == ["éa", "éb", "éodd="]


def test_expansion_sees_what_came_before() -> None:
    found = values(
        EnvVar("ONE", "$(a)-$(TWO)-$(nobody)-$$(a)"),
        EnvVar("TWO", "2"),
        EnvVar("THREE", "$(ONE)/$(TWO)"),
        env_from=[EnvFrom(config_map_ref=ObjectRef("web"))],
    )
    assert found["ONE"] == "1-$(TWO)-$(nobody)-$(a)"
    assert found["THREE"] == "1-$(TWO)-$(nobody)-$(a)/2"


def test_what_is_referred_to_is_not_expanded() -> None:
    found = values(EnvVar("A", "1"), refer(secret_key_ref=KeyRef("db", "password")))
    assert found["X"] == "pa$$word"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("", ""),
        ("$", "$"),
        ("$$", "$"),
        ("$$$", "$$"),
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(A)$(B)", "1"),
        ("$(Z)", "$(Z)"),
        ("$()", "$()"),
        ("$(A", "$(A"),
        ("$A ${A}", "$A ${A}"),
        ("$($(A))", "$($(A))"),
        ("a$(A)b$$c", "a1b$c"),
        ("$(A B)", "spaced"),
    ],
)
def test_expand(text: str, result: str) -> None:
    assert expand(text, {"A": "1", "B": "", "A B": "spaced"}) == result


@given(st.text(st.sampled_from("$()AB ")), st.dictionaries(st.sampled_from(["A", "B"]), st.text(max_size=3)))
def test_expansion_never_fails_and_escaping_undoes_it(text: str, known: dict[str, str]) -> None:
    expand(text, known)
    assert expand(text.replace("$", "$$"), known) == text


def test_expand_all_wants_every_name() -> None:
    assert expand_all("logs/$(A)/$$(B)", {"A": "1"}) == "logs/1/$(B)"
    with pytest.raises(UnresolvedError, match="'B'"):
        expand_all("logs/$(B)", {"A": "1"})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"config_map_key_ref": KeyRef("gone", "a")}, ["config map", "'gone'", "'X'"]),
        ({"config_map_key_ref": KeyRef("web", "gone")}, ["config map", "'web'", "key 'gone'", "'X'"]),
        ({"secret_key_ref": KeyRef("gone", "a")}, ["secret", "'gone'", "'X'"]),
        ({"secret_key_ref": KeyRef("db", "gone")}, ["secret", "'db'", "key 'gone'", "'X'"]),
        ({"secret_key_ref": KeyRef("db", "blob")}, ["'db'", "'blob'", "UTF-8"]),
        ({"secret_key_ref": KeyRef("db", "zero")}, ["'db'", "'zero'", "zero byte"]),
        ({"field_ref": FieldRef("spec.containers")}, ["'spec.containers'"]),
        ({"resource_field_ref": ResourceFieldRef("limits.gpu")}, ["'limits.gpu'"]),
        ({"resource_field_ref": ResourceFieldRef("limits.cpu", "nobody")}, ["'nobody'"]),
        ({"resource_field_ref": ResourceFieldRef("limits.cpu", divisor="-1")}, ["'-1'"]),
        ({}, ["'X'"]),
    ],
)
def test_what_cannot_be_answered_is_named(source: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UnresolvedError) as caught:
        values(refer(**source))
    for word in words:
        assert word in caught.value.message
    assert "pa$$word" not in caught.value.message


@pytest.mark.parametrize("source", [EnvFrom(config_map_ref=ObjectRef("gone")), EnvFrom(secret_ref=ObjectRef("gone"))])
def test_a_whole_object_that_is_not_there_is_named(source: EnvFrom) -> None:
    with pytest.raises(UnresolvedError, match="'gone'"):
        values(env_from=[source])


def test_optional_references_are_left_out() -> None:
    found = values(
        refer("A", config_map_key_ref=KeyRef("gone", "a", optional=True)),
        refer("B", config_map_key_ref=KeyRef("web", "gone", optional=True)),
        refer("C", secret_key_ref=KeyRef("gone", "a", optional=True)),
        refer("D", secret_key_ref=KeyRef("db", "gone", optional=True)),
        env_from=[EnvFrom(config_map_ref=ObjectRef("gone", optional=True))],
    )
    assert found == {}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web-0"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['example.org/tier']", "front"),
        ("metadata.labels['nobody']", ""),
        ("metadata.annotations['note']", 'say "hi"\n'),
        ("metadata.labels", 'app="web"\nexample.org/tier="front"'),
        ("metadata.annotations", 'note="say \\"hi\\"\\n"'),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "default"),
        ("status.hostIP", "192.0.2.1"),
        ("status.hostIPs", "192.0.2.1"),
        ("status.podIP", "10.0.0.5"),
        ("status.podIPs", "10.0.0.5"),
    ],
)
def test_fields(path: str, value: str) -> None:
    assert field(FieldRef(path), FACTS) == value


@pytest.mark.parametrize(
    ("resource", "container", "divisor", "value"),
    [
        ("limits.cpu", "limited", "1", "2"),
        ("limits.cpu", "limited", "1m", "1500"),
        ("limits.cpu", "limited", "0", "2"),
        ("requests.cpu", "limited", "1", "1"),
        ("requests.cpu", "limited", "1m", "250"),
        ("limits.memory", "limited", "1", str(100 << 20)),
        ("limits.memory", "limited", "1Mi", "100"),
        ("limits.memory", "limited", "1Gi", "1"),
        ("requests.memory", "limited", "1Mi", "100"),
        ("limits.cpu", "", "1", "4"),
        ("limits.memory", "", "1Gi", "8"),
        ("limits.ephemeral-storage", "", "1Gi", "100"),
        ("requests.memory", "", "1", "0"),
    ],
)
def test_resources(resource: str, container: str, divisor: str, value: str) -> None:
    ref = ResourceFieldRef(resource, container, divisor)
    assert resource_field(ref, FACTS, POD.spec.containers[0]) == value


def test_a_resource_in_an_environment_is_the_containers_own() -> None:
    variable = refer(resource_field_ref=ResourceFieldRef("limits.cpu", divisor="1m"))
    assert environment(msgspec.structs.replace(LIMITED, env=[variable]), CONTENT, FACTS).values == {"X": "1500"}
