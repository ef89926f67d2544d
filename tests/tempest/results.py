"""What came of the suite, and the page that says so (docs/tempest.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

SUITE = "zun_tempest_plugin.tests.tempest.api"


class Result(NamedTuple):
    """What came of one test. `name` is module.class.test; `result` is "ok", "FAILED" or "SKIPPED"; `seconds` as told
    by tempest."""

    name: str
    result: str
    why: str
    seconds: float


DISABLED = {
    "test_capsules.TestCapsule.test_create_capsule": "bug 1941982",
    "test_capsules.TestCapsule.test_create_capsule_full": "bug 1941982",
    "test_capsules.TestCapsule.test_create_capsule_with_init_container": "bug 1941982",
    "test_capsules.TestCapsule.test_create_capsule_with_volume": "bug 1941982",
    "test_containers.TestContainer.test_reboot_container": "temporarily disabled",
    "test_containers.TestContainer.test_run_container_with_cinder_volumes": "bug 1897497",
    "test_containers.TestContainerLegacy.test_reboot_container": "temporarily disabled",
    "test_containers.TestContainerLegacy.test_run_container_with_cinder_volumes": "bug 1897497",
}
"""Tests that the suite has disabled by decorator, and its word for it."""

AT = {"TestContainer": "1.20", "TestContainerLegacy": "1.12", "TestCapsule": "1.12", "TestService": "1.12"}
"""The microversion at which a class runs, where the configured one is lower."""


def count(results: Iterable[Result]) -> str:
    """ "53 passed, 0 failed, 24 skipped"."""
    told = [each.result for each in results]
    return f"{told.count('ok')} passed, {told.count('FAILED')} failed, {told.count('SKIPPED')} skipped"


def unforeseen(results: Iterable[Result]) -> list[str]:
    """Tests that were skipped for another reason than their microversion or the suite's decorator."""
    return [
        f"{each.name}: {each.why}"
        for each in results
        if each.result == "SKIPPED" and "microversion range" not in each.why and DISABLED.get(each.name) != each.why
    ]


def page(first: Mapping[str, Sequence[Result]], enabled: Mapping[str, Sequence[Result]]) -> str:
    """The page. Both: results by configured microversion, of the suite as it is and of what it has disabled."""
    lines = [_PREFACE, "| `min_microversion` | the suite as it is | tests that the suite has disabled, enabled |"]
    lines += ["| --- | --- | --- |"]
    for version in first:
        lines.append(f"| {version} | {count(first[version])} | {count(enabled.get(version, ()))} |")
    lines += ["", _coverage(first, enabled), ""]
    for version in first:
        lines += [_section(f"From microversion {version}", first[version])]
        lines += [_section(f"Disabled by the suite, enabled, from {version}", enabled.get(version, ()))]
    return "\n".join(lines).rstrip() + "\n"


def _section(title: str, results: Sequence[Result]) -> str:
    lines = [f"## {title}", "", f"{len(results)} tests: {count(results)}.", ""]
    for word, heading in (("FAILED", "Failed"), ("ok", "Passed"), ("SKIPPED", "Skipped by the suite itself")):
        chosen = sorted(each for each in results if each.result == word)
        if chosen:
            lines += [f"{heading}:", "", *(f"* {_entry(each)}" for each in chosen), ""]
    return "\n".join(lines)


def _entry(result: Result) -> str:
    return f"{result.name}: {result.why}" if result.why else result.name


def _coverage(first: Mapping[str, Sequence[Result]], enabled: Mapping[str, Sequence[Result]]) -> str:
    """Where each test, whatever its class, was passed."""
    passed: dict[str, dict[str, None]] = {}
    for told in (first, enabled):
        for version, results in told.items():
            for each in results:
                _, of_class, test = each.name.split(".")
                at = passed.setdefault(test, {})
                if each.result == "ok":
                    at[max(version, AT.get(of_class, version), key=_order)] = None
    nowhere = sorted(test for test, at in passed.items() if not at)
    lines = [
        "## Coverage", "",
        "Put together, no skip leaves a test out: a test that one configuration skips is passed in another." if not nowhere
        else f"Passed in no configuration: {', '.join(nowhere)}.",
        "", "| test | passed at |", "| --- | --- |",
    ]  # fmt: skip
    lines += [f"| {test} | {', '.join(sorted(at, key=_order)) or '–'} |" for test, at in sorted(passed.items())]
    return "\n".join(lines)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


_PREFACE = """\
# zun-tempest-plugin against Askos

OpenStack's own tests of Zun: zun-tempest-plugin 4.14.0 under tempest 47.0.0, unmodified. `make tempest` runs them and
writes this page from what they said, in one go and without a second try.

Each configuration has clouds of its own, with identity, networks, volumes and images, in namespaces of their own
(`tests/tempest/sandbox.py`): nothing of them is left when they end, however they end. In a cloud, tests run one at
a time.

One configuration cannot exercise all: from 1.12, `TestContainer` runs at 1.20 and `TestContainerLegacy` at 1.12; from
1.40, `TestContainer` runs at 1.40 and `TestContainerLegacy` not at all. Zun itself, with Docker and the full set of
OpenStack's services, passes 53 from 1.12 and 33 from 1.40.

Six tests are disabled in the suite, by decorator, because of bugs of Zun or of its gate. They run here all the same: the
decorator does nothing then (`tests/tempest/enabled/sitecustomize.py`). One of them, `test_create_capsule_full`, runs bash
without an input and wants to see it running. Zun says so of whatever was started once; here the status is what is, and
such a bash has ended. So the image that the test gets has an entrypoint that gives bash an input which stays open.

Around the cloud: the suite pulls one image with Docker's own API and looks for Docker's networks; what it needs of that
is answered by `tests/tempest/docker_api.py`. The gateway of the external network, which it pings, is
`tests/tempest/outside.py`. The images are made from the machine's busybox, bash and curl (`tests/tempest/images.py`). The
configuration of tempest is in `tests/tempest/part.py`.

## Summary
"""
