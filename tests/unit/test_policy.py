"""Policy: Zun's 82 rules, an operator's file, and what happens when the file changes or is wrong."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from askos.api import policy
from askos.api.policy_engine import Engine
from askos.api.policy_rules import BASE, DEFAULTS, ZUN
from askos.model.errors import SetupError
from askos.model.identity import Caller

from .cloud import Cloud, open_cloud

MEMBER = Caller("ann", "p", False, ["member"])
ADMIN = Caller("root", "elsewhere", True, ["admin"])
OPERATOR = Caller("op", "p", False, ["operator"])


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A place for a policy file, which is in use once it is written."""
    path = tmp_path / "policy.yaml"
    policy.use(path)
    yield path
    policy.use(None)


@pytest_asyncio.fixture
async def cloud(template: Path, tmp_path: Path, file: Path) -> AsyncIterator[Cloud]:
    async with open_cloud(template, tmp_path) as made:
        yield made


def test_there_are_82_rules_of_zuns() -> None:
    assert len(ZUN) == 82


@pytest.mark.parametrize("caller", [MEMBER, ADMIN, OPERATOR], ids=lambda c: c.user_id)
@pytest.mark.parametrize("project", ["p", "elsewhere"])
def test_the_table_and_oslo_policy_say_the_same(caller: Caller, project: str) -> None:
    engine = Engine(b"", "empty.yaml")
    differing = [
        rule
        for rule in DEFAULTS.keys() - BASE.keys()
        if policy.allows(caller, rule, project) != engine.allows(caller, rule, project)
    ]
    assert differing == []


def test_a_file_replaces_rules_and_leaves_the_others(file: Path) -> None:
    assert not policy.allows(OPERATOR, "quota:update")
    file.write_text('"quota:update": "role:operator"\n"mine": "role:operator"\n"host:get": "rule:mine"\n')
    assert policy.allows(OPERATOR, "quota:update", "any")
    assert policy.allows(OPERATOR, "host:get")
    assert not policy.allows(ADMIN, "quota:update")
    assert not policy.allows(MEMBER, "quota:update")
    assert policy.allows(ADMIN, "quota:delete")
    assert policy.allows(MEMBER, "quota:get", "p")
    assert not policy.allows(MEMBER, "quota:get", "q")


def test_a_file_is_read_anew_when_it_changes_and_when_it_goes(file: Path) -> None:
    file.write_text('"container:create:privileged": "role:admin"\n')
    assert policy.allows(ADMIN, "container:create:privileged")
    file.write_text('"container:create:privileged": "!"\n"container:stop": "!"\n')
    assert not policy.allows(ADMIN, "container:create:privileged")
    assert not policy.allows(MEMBER, "container:stop")
    file.unlink()
    assert policy.allows(MEMBER, "container:stop")


def test_a_broken_file_changes_nothing_and_is_told(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text('"container:stop": "!"\n')
    assert not policy.allows(MEMBER, "container:stop")
    file.write_text('"container:stop": [')
    with caplog.at_level(logging.ERROR):
        assert not policy.allows(MEMBER, "container:stop")
    assert "it is not YAML" in caplog.text
    file.write_text('"container:stop": "@"\n')
    assert policy.allows(MEMBER, "container:stop")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "it is not YAML"),
        ("- a", "it must map names of rules"),
        ('"container:stop": 5', "it must map names of rules"),
        ('"container:stop": "rule:nowhere"', "refers to one that does not exist"),
        ('"container:stop": "rule:container:stop"', "refers to one that does not exist, or to itself"),
    ],
)
def test_a_server_does_not_start_with_a_file_that_is_wrong(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    try:
        with pytest.raises(SetupError, match=why) as raised:
            policy.use(path)
        assert "\n" not in raised.value.message
        assert str(path) in raised.value.message
    finally:
        policy.use(None)


def test_a_rule_that_cannot_be_read_lets_nobody_pass(file: Path) -> None:
    file.write_text('"container:stop": "role:admin or ("\n')
    assert not policy.allows(ADMIN, "container:stop")


def test_who_sees_all_projects_is_a_rule_too(file: Path) -> None:
    file.write_text('"context_is_admin": "role:operator"\n')
    assert policy.seen(OPERATOR).is_admin
    assert not policy.seen(ADMIN).is_admin
    file.unlink()
    assert policy.seen(ADMIN).is_admin


def test_oslo_policy_is_not_imported_without_a_file() -> None:
    code = (
        "import sys; from pathlib import Path; import askos.api.app; from askos.api import policy; "
        "policy.use(Path('/nowhere/policy.yaml')); print('oslo_policy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "False"


@pytest.mark.asyncio
async def test_field_rules_strip_and_show_keys(cloud: Cloud, file: Path) -> None:
    token = "ann:p:member"
    uuid = await cloud.create(token)
    await cloud.place(uuid)
    hidden = {"host", "image_pull_policy", "privileged", "runtime"}
    assert not hidden & (await cloud.show(uuid, token)).keys()
    file.write_text('"container:get_one:host": "rule:admin_or_owner"\n"container:get_one:runtime": "!"\n')
    shown = await cloud.show(uuid, token)
    assert hidden & shown.keys() == {"host"}
    assert shown["host"] == "host-1"
    (listed,) = (await cloud.ask("GET", "/v1/containers?host=host-1", token)).body["containers"]
    assert hidden & listed.keys() == {"host"}
    assert hidden - (await cloud.show(uuid)).keys() == {"runtime"}


@pytest.mark.asyncio
async def test_routes_ask_the_file(cloud: Cloud, file: Path) -> None:
    file.write_text(
        '"zun-service:get_all": "role:reader or role:admin"\n"container:create": "role:admin"\n'
        '"capsule:get_all": "!"\n"registry:create": "!"\n'
    )
    assert (await cloud.ask("GET", "/v1/services", "eve:p:reader")).status == 200
    refused = await cloud.ask("POST", "/v1/containers", "ann:p:member", body={"image": "busybox"})
    refused.refused(403, "policy-not-authorized", "Policy doesn't allow container:create to be performed.")
    for path in ("/v1/capsules", "/askos/v1/capsules"):
        (await cloud.ask("GET", path, "root:p:admin")).refused(403, "policy-not-authorized")
    body = {"registry": {"domain": "d.example"}}
    (await cloud.ask("POST", "/v1/registries", "root:p:admin", body=body)).refused(403, "policy-not-authorized")
