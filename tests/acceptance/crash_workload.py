"""What users do while things are killed, and what must be true of it afterwards.

Each slot holds one container at a time and belongs to one thread, so that its requests have an order. A slot knows
which ends its accepted requests allow; a request whose answer was lost allows both with and without it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.acceptance.crash_fixtures import Api, Cloud, LostError

_BEGIN = "echo $(cat /proc/sys/kernel/random/uuid) | tee -a /starts; "
_LONG = _BEGIN + 'trap "exit 0" TERM; sleep 3600 & wait'


class Kind(NamedTuple):
    """A way to run. `ends`: the status in which a started one settles."""

    script: str
    policy: str
    ends: frozenset[str]


KINDS = {
    "long": Kind(_LONG, "no", frozenset({"Running"})),
    "always": Kind(_LONG, "always", frozenset({"Running"})),
    "unless": Kind(_LONG, "unless-stopped", frozenset({"Running"})),
    "short": Kind(_BEGIN + "sleep 0.2", "no", frozenset({"Stopped"})),
    "failing": Kind(_BEGIN + "exit 3", "on-failure", frozenset({"Stopped"})),
    "flapping": Kind(_BEGIN + "sleep 0.5", "always", frozenset({"Running", "Restarting"})),
}
_MIX = ["long", "long", "long", "always", "unless", "short", "short", "failing", "flapping"]


@dataclass
class Slot:
    """One container: its name, its kind and the statuses that it may settle in ("gone" among them)."""

    index: int
    name: str = ""
    kind: str = ""
    ends: frozenset[str] = frozenset({"gone"})
    runs: int = 0
    """Starts that were asked for and may have been accepted."""
    kills: int = 0
    """Rounds in which something was asked for, so that its start may have been broken off."""
    history: list[str] = field(default_factory=list)

    def note(self, what: str, end: frozenset[str], status: int | None) -> None:
        """A request and its answer's status; None when no answer came."""
        self.history.append(f"{what}:{status or 'lost'}")
        if status is None:
            self.ends |= end
        elif 200 <= status < 300:
            self.ends = end
        elif status == 404:
            assert "gone" in self.ends, f"{self.name} was lost: {self.history}"
            self.ends = frozenset({"gone"})
        else:
            assert status == 409, f"{what} of {self.name} got {status}: {self.history}"


class Workload:
    """Threads that use the cloud until told to stop, or until it does not answer any more."""

    def __init__(self, cloud: Cloud, slots: list[Slot], seed: str, threads: int = 5) -> None:
        self.failures: list[BaseException] = []
        self._cloud = cloud
        self._seed = seed
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(slots[n::threads], n), name=f"user {n}") for n in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        if self.failures:
            raise self.failures[0]

    def _run(self, slots: list[Slot], number: int) -> None:
        chance = random.Random(f"{self._seed}/{number}")
        api = self._cloud.api()
        try:
            while not self._stop.is_set():
                slot = chance.choice(slots)
                for method, path, body, what, end in _request(slot, chance):
                    try:
                        status = api(method, path, body).status
                    except LostError:
                        slot.note(what, end, None)
                        return
                    slot.note(what, end, status)
                self._stop.wait(chance.uniform(0, 0.15))
        except LostError:
            pass  # killed while logging in
        except BaseException as error:
            self.failures.append(error)
        finally:
            api.close()


def _request(slot: Slot, chance: random.Random) -> Iterator[tuple[str, str, Any, str, frozenset[str]]]:
    if slot.ends == frozenset({"gone"}):
        slot.kind = chance.choice(_MIX)
        serial = int(slot.name.partition(".")[2] or 0) + 1
        slot.name = f"{slot.kind}-{slot.index}.{serial}"
        run = chance.random() < 0.8
        slot.runs = int(run)
        slot.kills = 0
        slot.history = []
        kind = KINDS[slot.kind]
        policy: dict[str, Any] = {"Name": kind.policy}
        if kind.policy == "on-failure":
            policy["MaximumRetryCount"] = "2"
        body = {
            "name": slot.name,
            "image": "busybox",
            "command": ["sh", "-c", kind.script],
            "memory": "32",
            "cpu": 0.1,
            "restart_policy": policy,
        }
        word = "true" if run else "false"
        yield "POST", f"?run={word}", body, f"create run={word}", kind.ends if run else frozenset({"Created"})
        return
    do = chance.choice(["start", "start", "stop", "stop", "reboot", "kill", "delete", "delete", "delete"])
    if do in ("start", "reboot"):
        slot.runs += 1
        query = "?timeout=1" if do == "reboot" else ""
        yield "POST", f"/{slot.name}/{do}{query}", None, do, KINDS[slot.kind].ends
        if slot.history[-1].endswith((":409", ":404")):
            slot.runs -= 1
    elif do == "delete":
        how = chance.choice(["", "?stop=true", "?force=true"])
        yield "DELETE", f"/{slot.name}{how}", None, f"delete{how}", frozenset({"gone"})
    else:
        query = "?timeout=1" if do == "stop" else "?signal=KILL"
        # What was only created may be stopped again before its first start has begun.
        unstarted = {"Created"} if slot.history[0].startswith("create run=false") else set()
        yield "POST", f"/{slot.name}/{do}{query}", None, do, frozenset({"Stopped"} | unstarted)


def unsettled(api: Api, slots: list[Slot]) -> list[str]:
    """What is not (yet) as the accepted requests want it."""
    found = api.list()
    wrong = []
    for slot in slots:
        item = found.pop(slot.name, None)
        status = "gone" if item is None else item["status"]
        busy = item is not None and item["task_state"] is not None
        if status not in slot.ends or busy:
            said = "" if item is None else f" ({item['task_state']}, {item['status_reason']})"
            wrong.append(f"{slot.name} is {status}{said}, not {sorted(slot.ends)}, after {slot.history}")
    return wrong + [f"{name} exists, but nobody made it" for name in found]
