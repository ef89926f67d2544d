"""The page of `make tempest`: what was passed where, and which skips are foreseen."""

from __future__ import annotations

from tests.tempest.part import _results
from tests.tempest.results import DISABLED, Result, count, page, unforeseen
from tests.tempest.run import parts

RANGE = "The microversion range[1.40 - latest] of this test is out of the configuration range[1.20 - 1.20]."
KILL, COMMIT = "test_containers.TestContainer.test_kill_container", "test_containers.TestContainer.test_commit_140"
REBOOT = "test_containers.TestContainer.test_reboot_container"


def test_a_line_of_tempest_is_a_result() -> None:
    ok = "{0} zun_tempest_plugin.tests.tempest.api.test_containers.TestContainer.test_kill_container [7.5s] ... ok\n"
    assert _results(ok, [KILL]) == [Result(KILL, "ok", "", 7.5)]
    skipped = f"{{0}} zun_tempest_plugin.tests.tempest.api.{COMMIT} ... SKIPPED: {RANGE}"
    assert _results(skipped, [COMMIT]) == [Result(COMMIT, "SKIPPED", RANGE, 0.0)]
    assert _results("Captured traceback:", [KILL]) == []


def test_what_is_said_of_a_class_holds_for_each_of_its_tests() -> None:
    line = "{0} setUpClass (zun_tempest_plugin.tests.tempest.api.test_containers.TestContainer) [0.1s] ... FAILED"
    other = "test_containers.TestContainerLegacy.test_kill_container"
    assert [r.name for r in _results(line, [KILL, COMMIT, other])] == [KILL, COMMIT]


def test_only_microversions_and_the_suites_own_decorators_may_skip() -> None:
    foreseen = [Result(COMMIT, "SKIPPED", RANGE, 0.0), Result(REBOOT, "SKIPPED", DISABLED[REBOOT], 0.0)]
    assert unforeseen(foreseen) == []
    other = Result(KILL, "SKIPPED", "This test requires glance service", 0.0)
    assert unforeseen([*foreseen, other]) == [f"{KILL}: This test requires glance service"]
    assert len(unforeseen([Result(REBOOT, "SKIPPED", "another bug", 0.0)])) == 1


def test_the_page_names_every_test_and_where_it_was_passed() -> None:
    first = {
        "1.12": [Result(KILL, "ok", "", 1.0), Result(COMMIT, "SKIPPED", RANGE, 0.0)],
        "1.40": [Result(KILL, "FAILED", "", 1.0), Result(COMMIT, "ok", "", 1.0)],
    }
    enabled = {"1.12": [], "1.40": [Result(REBOOT, "FAILED", "", 1.0)]}
    assert count(first["1.40"]) == "1 passed, 1 failed, 0 skipped"
    text = page(first, enabled)
    assert "| test_kill_container | 1.20 |" in text
    assert "| test_commit_140 | 1.40 |" in text
    assert "Passed in no configuration: test_reboot_container." in text
    assert f"* {COMMIT}: {RANGE}" in text
    assert page(first, {"1.12": [], "1.40": [Result(REBOOT, "ok", "", 1.0)]}).count("in no configuration") == 0


def test_each_test_runs_in_one_part_of_a_version_and_the_disabled_ones_once_more() -> None:
    import re

    suite = "zun_tempest_plugin.tests.tempest.api."
    names = [f"{suite}{name}[id-1]" for name in (KILL, REBOOT, KILL.replace("r.t", "rLegacy.t"), *DISABLED)]
    chosen = parts(["1.40"], "")
    for name in names:
        found = [part.name for part in chosen if re.search(part.regex, name)]
        usual = "1.40-legacy" if "Legacy" in name else "1.40-newer"
        assert found == [usual, "1.40-enabled"] if name.removeprefix(suite).split("[")[0] in DISABLED else [usual]
    assert not any(re.search(part.regex, f"tempest.api.volume.{REBOOT}") for part in chosen)
    assert [p.name for p in parts(["1.40"], "kill") if re.search(p.regex, names[0])] == ["1.40-newer"]
    assert not [p.name for p in parts(["1.40"], "kill") if re.search(p.regex, names[1])]
