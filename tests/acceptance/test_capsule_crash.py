"""`kill -9` at random moments, while capsules of several containers are created and deleted.

ROUNDS=50 SEED=7 pytest tests/acceptance/test_capsule_crash.py --timeout 3600
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.acceptance import crash_checks as checks
from tests.acceptance.crash_fixtures import Api, Cloud, LostError, eventually

ROUNDS = int(os.environ.get("ROUNDS", "4"))
SEED = os.environ.get("SEED", "1")
VICTIMS = ("askos", "containerd", "both")
SLOTS = 12
USERS = 4
SETTLE_S = 90.0
BASE = "/askos/v1/capsules"
LIVES = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")


def container(name: str, command: list[str], **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": command, **fields}


def body(name: str, kind: str) -> dict[str, Any]:
    """A capsule of some kind; what it must become is `ENDS[kind]`."""
    mount = [{"name": "disk", "mountPath": "/disk"}]
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": 2,
        "volumes": [
            {"name": "disk", "emptyDir": {}},
            {"name": "ram", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "secret", "secret": {"secretName": "s"}},
        ],
    }
    check = {"exec": {"command": ["cat", "/disk/init"]}, "periodSeconds": 1}
    lasting = container("main", LIVES, volumeMounts=mount, readinessProbe=check)
    init = container("init", ["sh", "-c", "echo x >> /disk/init"], volumeMounts=mount)
    side = container("side", LIVES, restartPolicy="Always", volumeMounts=[{"name": "ram", "mountPath": "/ram"}])
    if kind == "lasting":
        spec |= {"initContainers": [init, side], "containers": [lasting, container("other", LIVES)]}
    elif kind == "job":
        work = container("main", ["sh", "-c", "sleep 0.3"], volumeMounts=[{"name": "secret", "mountPath": "/s"}])
        spec |= {"initContainers": [side], "containers": [work], "restartPolicy": "OnFailure"}
    elif kind == "failing":
        spec |= {"containers": [container("main", ["sh", "-c", "sleep 0.2; exit 3"])], "restartPolicy": "Never"}
    else:
        spec |= {"containers": [container("main", ["sh", "-c", "sleep 0.5; exit 1"]), container("other", LIVES)]}
    content = {"secrets": {"s": {"data": {"k": "aHVzaA=="}}}}
    return {"metadata": {"name": name}, "spec": spec, "content": content}


ENDS = {"lasting": {"Running"}, "job": {"Succeeded"}, "failing": {"Failed"}, "flapping": {"Running"}}


class Slot:
    """One capsule after the other; belongs to one thread. `may`: "there", "gone" or both, when an answer was lost."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.serial = 0
        self.kind = "lasting"
        self.may = {"gone"}

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.index}-{self.serial}"

    def act(self, api: Api, chance: random.Random) -> None:
        if self.may == {"gone"}:
            self.serial += 1
            self.kind = chance.choice(["lasting", "lasting", "job", "failing", "flapping"])
            self._ask(api, "POST", "", body(self.name, self.kind), "there")
        elif chance.random() < 0.4:
            grace = chance.choice(["", "?gracePeriodSeconds=0"])
            self._ask(api, "DELETE", f"/{self.name}{grace}", None, "gone")

    def _ask(self, api: Api, method: str, path: str, data: Any, then: str) -> None:
        try:
            answer = api.at(method, f"{BASE}{path}", data)
        except LostError:
            self.may.add(then)
            raise
        if answer.accepted:
            self.may = {then}
        elif answer.status == 404:
            assert "gone" in self.may, f"{self.name} was lost"
            self.may = {"gone"}
        else:
            raise AssertionError(f"{method} {self.name}: {answer.status} {answer.body!r}")


class Users:
    """Threads that create and delete until told to stop or until nobody answers."""

    def __init__(self, cloud: Cloud, slots: list[Slot], seed: str) -> None:
        self.failures: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(cloud.api(), slots[n::USERS], random.Random(f"{seed}/{n}")))
            for n in range(USERS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, api: Api, slots: list[Slot], chance: random.Random) -> None:
        try:
            while slots and not self._stop.is_set():
                chance.choice(slots).act(api, chance)
                self._stop.wait(chance.uniform(0, 0.4))
        except LostError:
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            api.close()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        if self.failures:
            raise self.failures[0]


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    try:
        made.up()
        yield made
    finally:
        made.remove()


def shown(cloud: Cloud) -> dict[str, dict[str, Any]]:
    answer = cloud.client.at("GET", BASE)
    assert answer.status == 200, answer.body
    return {each["metadata"]["name"]: each for each in answer.json()["items"]}


def unsettled(cloud: Cloud, slots: list[Slot]) -> list[str]:
    found = shown(cloud)
    wrong = []
    for slot in slots:
        each = found.pop(slot.name, None)
        if each is None or each["metadata"].get("deletionTimestamp"):
            if "gone" not in slot.may or each is not None:
                wrong.append(f"{slot.name} is {'going' if each else 'gone'}, not {slot.may}")
            continue
        status = each["status"]
        if "there" not in slot.may or status["phase"] not in ENDS[slot.kind]:
            wrong.append(f"{slot.name} is {status['phase']}, may be {slot.may}: {status.get('containerStatuses')}")
        if slot.kind == "lasting" and not all(c["ready"] for c in status["containerStatuses"]):
            wrong.append(f"{slot.name} is not ready: {status['containerStatuses']}")
    return wrong + [f"{name} exists, but nobody made it" for name in found]


def lives(each: dict[str, Any]) -> list[tuple[str, str, int, str]]:
    """What changes when a container is restarted."""
    status = each["status"]
    every = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
    return [(c["name"], c.get("containerID", ""), c["restartCount"], str(c["state"])) for c in every]


@pytest.mark.timeout(120 + 90 * ROUNDS)
def test_capsules_killed_at_random(cloud: Cloud) -> None:
    chance = random.Random(SEED)
    slots = [Slot(n) for n in range(SLOTS)]
    try:
        for number in range(ROUNDS):
            one_round(cloud, slots, chance, number)
        the_end(cloud)
    except Exception as error:
        raise AssertionError(f"SEED={SEED} ROUNDS={ROUNDS}: {error}\n{cloud.log_tail()}") from error


def one_round(cloud: Cloud, slots: list[Slot], chance: random.Random, number: int) -> None:
    victim = VICTIMS[number % len(VICTIMS)]
    delay = chance.uniform(0.5, 4.0)
    before = shown(cloud)
    steady = [s for s in slots if s.name in before and s.kind == "lasting"]
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
    for slot in alone:
        assert lives(after[slot.name]) == lives(before[slot.name]), (
            f"round {number} ({victim}): {slot.name} was touched"
        )
    for name, each in after.items():
        now = [c["restartCount"] for c in each["status"]["containerStatuses"]]
        assert all(new >= old for new, old in zip(now, counts.get(name, now), strict=True)), f"{name} counts back"


def the_end(cloud: Cloud) -> None:
    for name in shown(cloud):
        answer = cloud.client.at("DELETE", f"{BASE}/{name}?gracePeriodSeconds=1")
        assert answer.status == 202, answer.body
    cloud.kill("both")
    # Sandboxes made in advance belong to nobody: without them, nothing may be left.
    cloud.environment["ASKOS_WARM_SANDBOXES"] = "0"
    cloud.up()
    wrong = eventually(lambda: checks.leftovers(cloud) + [str(p) for p in (cloud.data / "capsules").iterdir()], 45, 0.5)
    assert not wrong, "left over after everything was deleted:\n" + "\n".join(wrong)
    cloud.down()
    wrong = eventually(lambda: checks.on_machine(cloud), 5.0)
    assert not wrong, "left over after askos down:\n" + "\n".join(wrong)
