"""No subcommand of the clients without a scenario."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from tests.acceptance.client_fixtures import not_run, subcommands


def scenarios(program: str) -> set[str]:
    """The subcommands that tests are marked with."""
    found = set()
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"tests.acceptance.{file.stem}")
        for test in vars(module).values():
            found |= {name for by, name in getattr(test, "scenario_of", ()) if by == program}
    return found


@pytest.mark.parametrize("program", ["openstack", "zun"])
def test_every_subcommand_is_run_by_a_scenario(program: str) -> None:
    known, run = subcommands(program), scenarios(program)
    assert len(known) > 50
    assert known - run == set(), "no scenario runs these"
    assert run - known == set(), "the installed client has no such subcommands"


def test_what_is_only_said_to_be_run_is_found() -> None:
    ran = [
        ("openstack", "--os-cloud", "x", "appcontainer", "quota", "class", "get", "list"),
        ("zun", "exec", "web", "list"),
    ]
    said = [("openstack", "appcontainer quota class get"), ("openstack", "appcontainer quota get"), ("zun", "exec")]
    assert not_run([*said, ("zun", "list")], ran) == ["openstack appcontainer quota get", "zun list"]
