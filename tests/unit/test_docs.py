"""The documents do not point at what is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_are_named_exist(page: Path) -> None:
    there = {path.name for path in (ROOT / "tests").rglob("*.py")}
    named = {name.rpartition("/")[2] for name in re.findall(r"[\w/]*\btest_\w+\.py", page.read_text())}
    assert named <= there, f"{page.name} names tests that are not there"


def test_every_target_of_the_makefile_is_phony_and_told_of() -> None:
    makefile = (ROOT / "Makefile").read_text()
    rules = re.findall(r"^([a-z ]+):(?!=)", makefile, re.MULTILINE)
    targets = {word for rule in rules for word in rule.split()}
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert targets == set(phony[1].split())
    told = {word for line in re.findall(r"echo '(.*)'", makefile) for word in re.findall(r"[a-z]+", line)}
    assert targets - told <= {"help", "dev"}


def test_decisions_are_numbered_without_gaps_and_have_consequences() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text()
        assert text.startswith(f"# {int(record.name[:4])}. "), record.name
        assert "Accepted, 20" in text, record.name
        assert "Consequences:" in text, record.name
