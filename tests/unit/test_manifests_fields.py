"""Every field of Kubernetes is decided and described; any JSON is read or refused."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import msgspec
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from askos.api import fields, manifests, policy, shape
from askos.api.errors import ApiError
from askos.model import pods

from .kubernetes_fields import FIELDS
from .manifest_samples import ADMIN, DUMP, JOB, MEMBER, NGINX, SIDECAR, pod, read

# -- the tables -------------------------------------------------------------------------------------------------


def test_every_field_of_kubernetes_is_decided() -> None:
    for name, known in FIELDS.items():
        struct = getattr(pods, name)
        supported = set(shape.struct_fields(struct))
        refused = set(fields.REFUSED.get(struct, ()))
        muted = set(fields.WITHOUT_EFFECT.get(struct, ()))
        assert not supported & refused and not refused & muted, name
        decided = supported | refused | muted | ({"generateName"} if name == "PodMetadata" else set())
        assert decided == set(known), name


def test_the_tables_name_fields_that_exist() -> None:
    for struct, name in [*fields.NOTES, *fields.REFUSED_VALUES, *fields.QUANTITIES, *fields.ZERO_IS_DEFAULT]:
        assert name in {**shape.struct_fields(struct), **fields.REFUSED.get(struct, {}), "sysctls": 0}, (struct, name)


def docs() -> str:
    return (Path(__file__).parents[2] / "docs" / "capsules.md").read_text()


def test_the_docs_have_the_same_table() -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "capsule_fields.py"))
    text = docs()
    assert script["page"](text) == text, "run python scripts/capsule_fields.py"
    for names in FIELDS.values():
        assert all(f"`{name}`" in text for name in names)


def test_the_docs_have_the_same_lists() -> None:
    text = docs()
    sysctls = text.partition("`sysctls` that may be set:")[2].partition(".\n\n")[0]
    assert set(re.findall(r"`([a-z0-9_.]+)`", sysctls)) == fields.SYSCTLS
    default = text.partition("Capabilities that every container has")[2].partition(".\n\n")[0]
    assert set(re.findall(r"`([A-Z_]+)`", default)) == fields.DEFAULT_CAPABILITIES
    rules = dict(re.findall(r"^\| `(capsule:create:\w+)` \|.*\| (\w+) \|$", text, re.MULTILINE))
    for rule, who in rules.items():
        assert policy.allows(ADMIN, rule) == (who == "admins"), rule
        assert not policy.allows(MEMBER, rule)
    named = {rule for rule in policy.ADMIN_RULES | policy.NOBODY_RULES if rule.startswith("capsule:create:")}
    assert set(rules) == named


def test_the_schema_describes_what_is_read() -> None:
    schema = {**manifests.schema(), "components": {"schemas": manifests.components()}}
    validator = Draft202012Validator(schema)
    for text in (NGINX, JOB, SIDECAR, DUMP):
        body = yaml.safe_load(text)
        validator.validate(body)
    assert not validator.is_valid(pod(ports=[{"containerPort": "80"}]))
    assert not validator.is_valid({"metadata": {"name": "a"}})


# -- anything at all --------------------------------------------------------------------------------------------

NAMES = sorted(
    {name for names in FIELDS.values() for name in names} | {"content", "configMaps", "secrets", "stringData"}
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.sampled_from(["", "a", "/a", "1Gi", "Always", "SIGTERM", "\0", "\ud800", "..", "a" * 300]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=5)), inner, max_size=5)
    ),
    max_leaves=25,
)


def read_or_refuse(body: Any) -> None:
    error: ApiError | None = None
    try:
        found = read(body)
    except ApiError as raised:
        error = raised
    if error is None:
        msgspec.json.encode(found)
        return
    assert error.status in (400, 403)
    assert error.detail
    error.body("req-x")


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_any_json_is_read_or_refused(body: Any) -> None:
    read_or_refuse(body)


PLACES = ["spec", "metadata", "content", "container", "volume", "probe", "securityContext"]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from(NAMES), VALUES)
def test_any_value_at_a_real_place_is_read_or_refused(place: str, name: str, value: Any) -> None:
    body = yaml.safe_load(NGINX)
    container = body["spec"]["containers"][0]
    target = {
        "container": container,
        "volume": body["spec"]["volumes"][0],
        "probe": container["readinessProbe"],
        "securityContext": container["securityContext"],
    }.get(place) or body[place]
    target[name] = value
    read_or_refuse(body)
