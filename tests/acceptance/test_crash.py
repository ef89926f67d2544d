"""`kill -9` at random moments, while containers are created, started, stopped and deleted.

The seed decides who is killed when, and what users ask for; the scheduler decides the rest. For a long run:

    ROUNDS=50 SEED=7 pytest tests/acceptance/test_crash.py --timeout 3600
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest

from tests.acceptance import crash_checks as checks
from tests.acceptance.crash_fixtures import Api, Cloud, eventually
from tests.acceptance.crash_workload import KINDS, Slot, Workload, unsettled

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SEED = os.environ.get("SEED", "1")
SLOTS = 20
SETTLE_S = 60.0
TIDY_S = 30.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    try:
        made.up()
        yield made
    finally:
        made.remove()


@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_killed_at_random(cloud: Cloud) -> None:
    chance = random.Random(SEED)
    slots = [Slot(n) for n in range(SLOTS)]
    try:
        for number in range(ROUNDS):
            one_round(cloud, slots, chance, number)
        the_end(cloud, slots)
    except Exception as error:
        raise AssertionError(f"SEED={SEED} ROUNDS={ROUNDS}: {error}\n{cloud.log_tail()}") from error


def one_round(cloud: Cloud, slots: list[Slot], chance: random.Random, number: int) -> None:
    # The first two rounds see everybody killed; after that, chance decides.
    victim = chance.choice(["askos", "containerd", "both"]) if number > 2 else ("askos", "containerd", "both")[number]
    delay = chance.uniform(0.3, 4.0)
    before = steady(cloud, slots)
    for slot in slots:
        slot.touched = False
    users = Workload(cloud, slots, f"{SEED}/{number}")
    users.start()
    time.sleep(delay)
    cloud.kill(victim)
    print(f"round {number}: killed {victim} after {delay:.1f} s", flush=True)
    if victim != "containerd":
        users.stop()
        cloud.up()
    else:
        time.sleep(1)  # users go on while containerd is away, and when it comes back
        users.stop()
    began = time.monotonic()
    api = cloud.client
    wrong = eventually(lambda: unsettled(api, slots), SETTLE_S)
    assert not wrong, f"round {number} ({victim}): not settled after {SETTLE_S:g} s:\n" + "\n".join(wrong)
    print(f"round {number}: settled after {time.monotonic() - began:.1f} s", flush=True)
    for slot in slots:
        slot.kills += slot.touched
        know(api, slot)
    wrong = eventually(lambda: checks.doubled(cloud, api, slots), TIDY_S)
    assert not wrong, f"round {number} ({victim}): doubled or half gone:\n" + "\n".join(wrong)
    checks.histories(cloud, api, slots)
    after = steady(cloud, slots)
    for slot in slots:
        if slot.name in before and not slot.touched:
            assert after.get(slot.name) == before[slot.name], f"round {number} ({victim}): {slot.name} was restarted"


def steady(cloud: Cloud, slots: list[Slot]) -> dict[str, checks.Running]:
    """Containers that run and do not end by themselves."""
    running = checks.Runtime(cloud).running
    uuids = {name: item["uuid"] for name, item in cloud.client.list().items()}
    lasting = [s.name for s in slots if s.kind and KINDS[s.kind].ends == {"Running"}]
    return {name: running[uuids[name]][0] for name in lasting if uuids.get(name) in running}


def know(api: Api, slot: Slot) -> None:
    """What came of a request whose answer was lost is known now."""
    if len(slot.ends) > 1 and slot.kind != "flapping":
        item = api.list().get(slot.name)
        slot.ends = frozenset({"gone" if item is None else item["status"]})
    elif slot.kind == "flapping" and slot.name not in api.list():
        slot.ends = frozenset({"gone"})


def the_end(cloud: Cloud, slots: list[Slot]) -> None:
    api = cloud.client
    for slot in slots:
        if slot.ends != {"gone"}:
            answer = api("DELETE", f"/{slot.name}?force=true")
            assert answer.status == 204, f"{slot.name}: {answer.status} {answer.body!r}"
    wrong = eventually(lambda: checks.leftovers(cloud, down=False), TIDY_S, 0.5)
    assert not wrong, "left over after everything was deleted:\n" + "\n".join(wrong)
    cloud.down()
    wrong = checks.leftovers(cloud, down=True)
    assert not wrong, "left over after askos down:\n" + "\n".join(wrong)
