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

ROUNDS = int(os.environ.get("ROUNDS", "3"))
SEED = os.environ.get("SEED", "1")
VICTIMS = ("askos", "containerd", "both")
SLOTS = 20
LEFT_ALONE = 5
"""Running containers that nobody asks anything of in a round: they must not notice it."""
SETTLE_S = 120.0
"""Generous: a stop may wait 10 s for its process, and the machine may be busy."""
TIDY_S = 60.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    try:
        made.up()
        yield made
    finally:
        made.remove()


@pytest.mark.timeout(300 + 150 * ROUNDS)
def test_killed_at_random(cloud: Cloud) -> None:
    chance = random.Random(SEED)
    slots = [Slot(n) for n in range(SLOTS)]
    try:
        for number in range(ROUNDS):
            one_round(cloud, slots, chance, number)
        the_end(cloud, slots, chance)
    except Exception as error:
        raise AssertionError(f"SEED={SEED} ROUNDS={ROUNDS}: {error}\n{cloud.log_tail()}") from error


def one_round(cloud: Cloud, slots: list[Slot], chance: random.Random, number: int) -> None:
    # The first three rounds see everybody killed; after that, chance decides.
    victim = VICTIMS[number] if number < len(VICTIMS) else chance.choice(VICTIMS)
    delay = chance.uniform(0.3, 4.0)
    again = chance.uniform(0.0, 1.5) if chance.random() < 0.5 else None
    begun = chance.uniform(0.1, 1.2) if chance.random() < 0.5 else None
    before = steady(cloud, slots)
    running = [slot for slot in slots if slot.name in before]
    alone = chance.sample(running, min(len(running), LEFT_ALONE))
    busy = [slot for slot in slots if slot not in alone]
    users = Workload(cloud, busy, f"{SEED}/{number}")
    users.start()
    time.sleep(delay)
    cloud.kill(victim)
    say(f"round {number}: killed {victim} after {delay:.1f} s, {len(alone)} containers left alone")
    kills = 1
    if victim == "containerd":
        time.sleep(1)  # users go on while containerd is away, and when it comes back
        users.stop()
    else:
        users.stop()
        if begun is not None:
            say(f"round {number}: killed a start after {begun:.1f} s")
            kills += 1
            cloud.killed_start(begun)
        cloud.up()
    if again is not None:
        time.sleep(again)
        cloud.kill("both")
        kills += 1
        say(f"round {number}: killed both again after {again:.1f} s")
        cloud.up()
    began = time.monotonic()
    api = cloud.client
    wrong = eventually(lambda: unsettled(api, slots), SETTLE_S)
    assert not wrong, f"round {number} ({victim}): not settled after {SETTLE_S:g} s:\n" + "\n".join(wrong)
    say(f"round {number}: settled after {time.monotonic() - began:.1f} s")
    for slot in slots:
        if slot in busy or slot.kind == "flapping":
            slot.kills += kills
        know(api, slot)
    wrong = eventually(lambda: checks.doubled(cloud, api, slots), TIDY_S)
    assert not wrong, f"round {number} ({victim}): doubled or half gone:\n" + "\n".join(wrong)
    checks.histories(cloud, api, slots)
    after = steady(cloud, slots)
    for slot in alone:
        assert after.get(slot.name) == before[slot.name], f"round {number} ({victim}): {slot.name} was restarted"


def say(text: str) -> None:
    print(text, flush=True)


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


def the_end(cloud: Cloud, slots: list[Slot], chance: random.Random) -> None:
    for slot in slots:
        if slot.ends != {"gone"}:
            answer = cloud.client("DELETE", f"/{slot.name}?force=true")
            assert answer.status == 204, f"{slot.name}: {answer.status} {answer.body!r}"
    time.sleep(chance.uniform(0, 1))
    cloud.kill("both")
    cloud.up()
    wrong = eventually(lambda: checks.leftovers(cloud), TIDY_S, 0.5)
    assert not wrong, "left over after everything was deleted:\n" + "\n".join(wrong)
    cloud.down()
    wrong = eventually(lambda: checks.on_machine(cloud), TIDY_S)  # init may reap a moment later
    assert not wrong, "left over after askos down:\n" + "\n".join(wrong)


@pytest.mark.timeout(600)
def test_down_after_a_crash(cloud: Cloud) -> None:
    """Nobody lives who could take anything down in order, and still nothing stays; the data does."""
    slots = [Slot(n) for n in range(6)]
    users = Workload(cloud, slots, SEED)
    users.start()
    time.sleep(1.5)
    cloud.kill("both")
    users.stop()
    cloud.down()
    wrong = eventually(lambda: checks.on_machine(cloud), TIDY_S)  # init may reap a moment later
    assert not wrong, "left over after askos down:\n" + "\n".join(wrong)
    cloud.up()
    wrong = eventually(lambda: [str(c) for c in cloud.client.list().values() if c["task_state"]], SETTLE_S)
    assert not wrong, "not settled:\n" + "\n".join(wrong)
    for name in cloud.client.list():
        assert cloud.client("DELETE", f"/{name}?force=true").status == 204
    wrong = eventually(lambda: checks.leftovers(cloud), TIDY_S, 0.5)
    assert not wrong, "left over after everything was deleted:\n" + "\n".join(wrong)
