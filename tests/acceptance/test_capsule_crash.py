"""`kill -9` at random moments, while capsules of several containers are created, changed and deleted; some of them
share volumes of the volume service, and some run in gVisor, where it is installed.

ROUNDS=50 SEED=7 pytest tests/acceptance/test_capsule_crash.py --timeout 3600
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance import crash_checks as checks
from tests.acceptance.capsule_checks import know, shown, unsettled
from tests.acceptance.capsule_workload import BASE, STEADY, VOLUMES, Slot, Users
from tests.acceptance.crash_fixtures import Cloud, eventually

ROUNDS = int(os.environ.get("ROUNDS", "3"))
SEED = os.environ.get("SEED", "1")
VICTIMS = ("askos", "containerd", "both")
SLOTS = 12
SETTLE_S = 150.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    try:
        made.up()
        yield made
    finally:
        made.remove()


class Ledger:
    """What was once written into the volumes must never be missing again."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._lines: dict[str, list[str]] = {}
        for number in range(VOLUMES):
            asked = {"name": f"data-{number}", "size_gib": 1, "multiattach": True}
            answer = cloud.client.at("POST", "/askos/v1/volumes", asked)
            assert answer.status == 201, answer.body

    def check(self, found: dict[str, dict[str, Any]], slots: list[Slot]) -> None:
        users: dict[str, set[str]] = {f"data-{number}": set() for number in range(VOLUMES)}
        for slot in (s for s in slots if s.kind == "keeping" and s.name in found):
            users[slot.volume].add(found[slot.name]["id"])
            folder = self._cloud.data / "capsules" / found[slot.name]["id"] / "block" / "claim"
            lines = self._read(folder / "starts")
            assert slot.name in lines, f"{slot.name} did not write into {slot.volume}: {lines}"
            assert lines == self._read(folder / "a/b/starts"), f"{slot.volume} differs by its sub path"
            before = self._lines.get(slot.volume, [])
            assert lines[: len(before)] == before, f"{slot.volume} lost what was in it: {before}, now {lines}"
            self._lines[slot.volume] = lines
        shown = self._cloud.client.at("GET", "/askos/v1/volumes").json()["volumes"]
        assert {v["name"]: set(v["attachments"]) for v in shown} == users

    @staticmethod
    def _read(path: Path) -> list[str]:
        return path.read_text().splitlines()

    def remove(self) -> None:
        """All of them; then no file may be left."""
        for volume in self._cloud.client.at("GET", "/askos/v1/volumes").json()["volumes"]:
            answer = self._cloud.client.at("DELETE", f"/askos/v1/volumes/{volume['id']}")
            assert answer.status == 202, answer.body
        wrong = eventually(lambda: [str(path) for path in (self._cloud.data / "volumes").iterdir()], 60.0)
        assert not wrong, f"files of volumes are left: {wrong}"


def lives(each: dict[str, Any]) -> list[tuple[str, str, int, str]]:
    """What changes when a container is restarted."""
    status = each["status"]
    every = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
    return [(c["name"], c.get("containerID", ""), c["restartCount"], str(c["state"])) for c in every]


@pytest.mark.timeout(300 + 180 * ROUNDS)
def test_capsules_killed_at_random(cloud: Cloud) -> None:
    chance = random.Random(SEED)
    slots = [Slot(n) for n in range(SLOTS)]
    try:
        ledger = Ledger(cloud)
        for number in range(ROUNDS):
            one_round(cloud, slots, chance, number)
            ledger.check(shown(cloud), slots)
        the_end(cloud, ledger)
    except Exception as error:
        raise AssertionError(f"SEED={SEED} ROUNDS={ROUNDS}: {error}\n{cloud.log_tail()}") from error


def one_round(cloud: Cloud, slots: list[Slot], chance: random.Random, number: int) -> None:
    victim = VICTIMS[number % len(VICTIMS)]
    delay = chance.uniform(0.5, 4.0)
    before = shown(cloud)
    steady = [s for s in slots if s.name in before and s.kind in STEADY]
    alone = chance.sample(steady, min(len(steady), 3))
    counts = {name: [c["restartCount"] for c in each["status"]["containerStatuses"]] for name, each in before.items()}
    users = Users(cloud, [s for s in slots if s not in alone], f"{SEED}/{number}")
    time.sleep(delay)
    cloud.kill(victim)
    print(f"round {number}: killed {victim} after {delay:.1f} s; {len(alone)} left alone", flush=True)
    if victim == "containerd":
        time.sleep(1)
    users.stop()
    if victim != "containerd":
        cloud.up()
    began = time.monotonic()
    wrong = eventually(lambda: unsettled(cloud, slots), SETTLE_S)
    assert not wrong, f"round {number} ({victim}): not settled:\n" + "\n".join(wrong)
    print(f"round {number}: settled after {time.monotonic() - began:.1f} s", flush=True)
    after = shown(cloud)
    for slot in slots:
        slot.may = {"there"} if slot.name in after else {"gone"}
        if slot.name in after:
            know(cloud, slot, after[slot.name])
    for slot in alone:
        assert lives(after[slot.name]) == lives(before[slot.name]), (
            f"round {number} ({victim}): {slot.name} was touched"
        )
    for name, each in after.items():
        now = [c["restartCount"] for c in each["status"]["containerStatuses"]]
        assert all(new >= old for new, old in zip(now, counts.get(name, now), strict=True)), f"{name} counts back"


def the_end(cloud: Cloud, ledger: Ledger) -> None:
    for name in shown(cloud):
        answer = cloud.client.at("DELETE", f"{BASE}/{name}?gracePeriodSeconds=1")
        assert answer.status == 202, answer.body
    cloud.kill("both")
    # Sandboxes made in advance belong to nobody: without them, nothing may be left.
    cloud.environment["ASKOS_WARM_SANDBOXES"] = "0"
    cloud.up()
    wrong = eventually(
        lambda: checks.leftovers(cloud) + [str(p) for p in (cloud.data / "capsules").iterdir()], 90.0, 0.5
    )
    assert not wrong, "left over after everything was deleted:\n" + "\n".join(wrong)
    ledger.remove()
    cloud.down()
    wrong = eventually(lambda: checks.on_machine(cloud), 60.0)
    assert not wrong, "left over after askos down:\n" + "\n".join(wrong)
