"""What users ask of capsules while somebody is killed, and what each capsule must become."""

from __future__ import annotations

import random
import shutil
import threading
from typing import Any

from tests.acceptance.crash_fixtures import Api, Cloud, LostError

USERS = 4
VOLUMES = 3
BASE = "/askos/v1/capsules"
LIVES = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]


def container(name: str, command: list[str], **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": command, **fields}


def body(name: str, kind: str, volume: str) -> dict[str, Any]:
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
    if kind == "keeping":
        # Every start of it leaves a line in the volume, for good.
        claim = [{"name": "claim", "mountPath": "/claim"}, {"name": "claim", "mountPath": "/part", "subPath": "a/b"}]
        says = f"echo $HOSTNAME | tee -a /part/starts >> /claim/starts; sync; {LIVES[2]}"
        spec["volumes"].append({"name": "claim", "persistentVolumeClaim": {"claimName": volume}})
        spec |= {"containers": [container("main", ["sh", "-c", says], volumeMounts=claim)]}
    elif kind == "walled":
        spec |= {
            "runtimeClassName": "runsc",
            "containers": [{k: v for k, v in lasting.items() if k != "readinessProbe"}],
        }
        spec |= {"initContainers": [init]}
    elif kind == "lasting":
        spec |= {"initContainers": [init, side], "containers": [lasting, container("other", LIVES)]}
    elif kind == "job":
        work = container("main", ["sh", "-c", "sleep 0.3"], volumeMounts=[{"name": "secret", "mountPath": "/s"}])
        spec |= {"initContainers": [side], "containers": [work], "restartPolicy": "OnFailure"}
    elif kind == "failing":
        spec |= {"containers": [container("main", ["sh", "-c", "sleep 0.2; exit 3"])], "restartPolicy": "Never"}
    else:
        spec |= {"containers": [container("main", ["sh", "-c", "sleep 0.5; exit 1"]), container("other", LIVES)]}
    content = {"secrets": {"s": {"data": {"k": "aHVzaA=="}}}}
    return {"metadata": {"name": name, "labels": {"n": "0"}}, "spec": spec, "content": content}


ENDS = {
    "lasting": {"Running"},
    "keeping": {"Running"},
    "walled": {"Running"},
    "job": {"Succeeded"},
    "failing": {"Failed"},
    "flapping": {"Running"},
}
STEADY = ("lasting", "keeping", "walled")
KINDS = ["lasting", "lasting", "keeping", "keeping", "job", "failing", "flapping"]
if shutil.which("runsc"):
    KINDS.append("walled")


class Slot:
    """One capsule after the other; belongs to one thread. `may`: "there", "gone" or both, when an answer was lost.

    `label`, `secret` and `image` are what was asked for last; several when an answer was lost."""

    def __init__(self, index: int, kinds: list[str] = KINDS) -> None:
        self.index = index
        self._kinds = kinds
        self.serial = 0
        self.kind = "lasting"
        self.may = {"gone"}
        self.asked = 0
        self._begin()

    def _begin(self) -> None:
        self.label, self.secret, self.image = {"0"}, {b"hush"}, {"busybox"}

    @property
    def volume(self) -> str:
        return f"data-{self.index % VOLUMES}"

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.index}-{self.serial}"

    def act(self, api: Api, chance: random.Random) -> None:
        if self.may == {"gone"}:
            self.serial += 1
            self.kind = chance.choice(self._kinds)
            self._begin()
            self._ask(api, "POST", "", body(self.name, self.kind, self.volume), "there")
            return
        number = chance.random()
        if number < 0.35:
            grace = chance.choice(["", "?gracePeriodSeconds=0"])
            self._ask(api, "DELETE", f"/{self.name}{grace}", None, "gone")
        elif number < 0.7 and self.may == {"there"}:
            self._change(api, chance.choice(["label", "secret", "image"]))

    def _change(self, api: Api, what: str) -> None:
        self.asked += 1
        text = str(self.asked)
        if what == "label":
            self._ask_for(api, self.label, text, "PATCH", "", {"metadata": {"labels": {"n": text}}})
        elif what == "secret":
            content = {"secrets": {"s": {"stringData": {"k": text}}}}
            self._ask_for(api, self.secret, text.encode(), "PUT", "/content", content)
        else:
            image = "busybox:latest" if self.image == {"busybox"} else "busybox"
            patch = {"spec": {"containers": [{"name": "main", "image": image}]}}
            self._ask_for(api, self.image, image, "PATCH", "", patch)

    def _ask_for(self, api: Api, wanted: set[Any], value: Any, method: str, path: str, data: Any) -> None:
        try:
            answer = api.at(method, f"{BASE}/{self.name}{path}", data)
        except LostError:
            wanted.add(value)
            raise
        assert answer.accepted, f"{method} {self.name}{path}: {answer.status} {answer.body!r}"
        wanted.clear()
        wanted.add(value)

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
