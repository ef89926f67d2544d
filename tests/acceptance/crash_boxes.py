"""Containers of which everything is asked that Zun knows, and what each must then be."""

from __future__ import annotations

import base64
import io
import itertools
import random
import tarfile
from collections import Counter
from contextlib import suppress
from typing import Any

import websocket
from tests.acceptance.crash_fixtures import Answer, Api, LostError
from tests.acceptance.crash_model import Known, Thing
from tests.acceptance.crash_world import NEUTRON, PORT, World

BASE = "/v1/containers"
PATHS = ("one", "two")
LOGGED = frozenset({
    "create", "delete", "start", "stop", "reboot", "pause", "unpause", "kill", "rebuild", "commit", "add_security_group",
    "remove_security_group", "network_attach", "network_detach",
})  # fmt: skip
_OLD = "container 1.13"
_SCRIPT = (
    "echo $(cat /proc/sys/kernel/random/uuid) | tee -a /starts; "
    f"nc -ll -p {PORT} -e cat /proc/sys/kernel/hostname & "
    "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"
)
_ACTIONS = {
    "Running": (
        "stop", "reboot", "pause", "kill", "signal", "rebuild", "attach", "execute", "terminal", "limits",
        "resize_container", "rename", "old_rename", "heal", "top", "stats", "logs", "get", "put", "put", "commit",
        "add_group", "remove_group", "plug", "unplug", "list", "log", "size", "keep", "delete",
    ),
    "Stopped": (
        "start", "start", "reboot", "rebuild", "limits", "put", "get", "commit", "add_group", "plug", "unplug",
        "delete", "rename",
    ),
    "Created": ("start", "start", "reboot", "limits", "resize_container", "add_group", "plug", "delete", "rename"),
    "Paused": (
        "unpause", "unpause", "put", "get", "limits", "commit", "add_group", "remove_group", "plug", "unplug", "delete",
    ),
}  # fmt: skip
_ANY = tuple(dict.fromkeys(itertools.chain(*_ACTIONS.values())))


class Box(Thing):
    """One container after the other, of one thread."""

    def __init__(self, world: World, index: int, volumes: list[Any]) -> None:
        super().__init__()
        self.world = world
        self.index = index
        self.serial = 0
        self.volumes = volumes
        """Volumes of the same thread, see `crash_things.Volume`."""
        self.ends = Known("gone")
        self.uuid = ""
        self._begin()

    def _begin(self) -> None:
        self.serial += 1
        self.hostname = f"{self.world.tag}-box-{self.index}-{self.serial}"
        self.uuid = ""
        self.history = []
        self.name = Known(self.hostname)
        self.memory = Known("32")
        self.cpu = Known(0.1)
        self.heal = Known(False)
        self.interactive = False
        self.passing = False
        """Whether it goes with the end of its process."""
        self.groups: Known[frozenset[str]] = Known(frozenset())
        self.nets = {net: Known(False) for net in self.world.sides}
        self.files: dict[str, Known[str | None]] = {path: Known(None) for path in PATHS}
        self.volume: Any = None
        self.sized = False
        self.injected = ""
        self.steady = ""
        """The status that it is known to be in, while nobody has asked for another."""
        self.ran = False
        """Whether it is known to have run since it was made, or made anew."""
        self.accepted: list[tuple[str, str]] = []
        """Actions that are in its log, with their requests."""
        self.lost: list[str] = []
        self.not_done: list[str] = []
        """Requests that were refused."""

    def __repr__(self) -> str:
        return f"{self.hostname} ({self.uuid or 'uuid not known'}) after {self.history}"

    # -- asking --------------------------------------------------------------------------------------------------

    def act(self, api: Api, chance: random.Random) -> None:
        if self.uuid == "" and self.ends.sure != "gone":
            self._find(api)
        if self.ends.sure == "gone":
            self._create(api, chance)
            return
        words = _ANY if self.ends.sure is None or chance.random() < 0.1 else _ACTIONS[self.ends.sure]
        getattr(self, f"_{chance.choice(words)}")(api, chance)

    def _find(self, api: Api) -> None:
        """Whether a create without an answer has happened."""
        answer = api.at("GET", f"{BASE}/{self.hostname}")
        assert answer.status in (200, 404), answer.body
        if answer.status == 200:
            self.uuid = answer.json()["uuid"]
            self.ends.values = [end for end in self.ends.values if end != "gone"]
        else:
            self.gone()

    def gone(self) -> None:
        """It is not there any more."""
        self.ends = Known("gone")
        if self.volume is not None:
            self.volume.user = None
            self.volume = None

    def _do(
        self, api: Api, word: str, query: str = "", body: Any = None, *, verb: str = "POST", also: tuple[int, ...] = (),
        **headers: str,
    ) -> str:  # fmt: skip
        self.world.aim.sends(word)
        path = f"{BASE}/{self.uuid}{'' if word in ('delete', 'update') else '/' + word}{query}"
        outcome = self.ask(api, word, verb, path, body, refused=(404, 409, *also), **headers)
        if self.answer.status == 404 and b"container-not-found" in self.answer.body:
            assert "gone" in self.ends.values, f"{self} was lost: {self.answer.body!r}"
            self.gone()
        if outcome == "refused" and self.answer.request_id:
            self.not_done.append(self.answer.request_id)
        if word in LOGGED:
            self._note(word, outcome)
        return outcome

    def _note(self, word: str, outcome: str) -> None:
        if outcome == "done":
            self.accepted.append((word, self.answer.request_id))
        elif outcome == "lost":
            self.lost.append(word)

    def _to(self, outcome: str, *ends: str) -> None:
        """A request has ended that leads to one of these."""
        if outcome == "refused":
            return
        before = self.ends.values if outcome == "lost" else []
        self.ends.values = list(dict.fromkeys([*before, *ends]))
        self.steady = ""

    def _halted(self) -> tuple[str, ...]:
        """What comes of a stop: one that has perhaps not begun to run yet is as it was made."""
        ended = "gone" if self.passing else "Stopped"
        return (ended,) if self.ran else (ended, "Created")

    def _create(self, api: Api, chance: random.Random) -> None:
        self._begin()
        run = chance.random() < 0.8
        self.interactive = chance.random() < 0.4
        body: dict[str, Any] = {
            "name": self.hostname, "hostname": self.hostname, "image": "busybox", "command": ["sh", "-c", _SCRIPT],
            "memory": "32", "cpu": 0.1, "interactive": self.interactive, "tty": self.interactive,
            "restart_policy": {"Name": chance.choice(["no", "always"])},
        }  # fmt: skip
        if chance.random() < 0.2:
            self.passing = True
            body |= {"auto_remove": True, "restart_policy": {"Name": "no"}}
        if chance.random() < 0.3:
            body["healthcheck"] = {"cmd": "test -s /starts", "interval": 1, "retries": 3, "timeout": 10}
        if chance.random() < 0.15:
            body |= {"image": self.world.image, "image_driver": "glance"}
        if chance.random() < 0.6:
            group = chance.choice([self.world.open, self.world.shut])
            body["security_groups"] = [group]
            self.groups = Known(frozenset({group}))
        mounts = []
        volume = next((v for v in self.volumes if v.user is None and v.usable), None)
        if volume is not None and chance.random() < 0.6:
            mounts.append({"source": volume.ident, "destination": "/data"})
        elif chance.random() < 0.3:
            self.sized = True
            mounts.append({"size": 1, "destination": "/data"})
        if chance.random() < 0.3:
            self.injected = f"of {self.hostname}"
            source = base64.b64encode(self.injected.encode()).decode()
            mounts.append({"source": source, "destination": "/etc/injected", "type": "bind"})
        if mounts:
            body["mounts"] = mounts
        self.world.aim.sends("create")
        # A volume may still be in the hands of the container before, which is being deleted.
        outcome = self.ask(api, "create", "POST", f"{BASE}?run={run}", body, refused=(400, 409))
        self._note("create", outcome)
        self._to(outcome, "Running" if run else "Created")
        if outcome == "done":
            self.uuid = self.answer.json()["uuid"]
        if (
            volume is not None
            and outcome != "refused"
            and any(m.get("source") and m.get("type") is None for m in mounts)
        ):
            self.volume = volume
            volume.user = self

    def _start(self, api: Api, chance: random.Random) -> None:
        self._to(self._do(api, "start"), "Running")

    def _stop(self, api: Api, chance: random.Random) -> None:
        self._to(self._do(api, "stop", "?timeout=1"), *self._halted())

    def _reboot(self, api: Api, chance: random.Random) -> None:
        self._to(self._do(api, "reboot", "?timeout=1"), "Running")

    def _pause(self, api: Api, chance: random.Random) -> None:
        # One that is just being stopped cannot be paused any more.
        ends = ("Paused",) if self.steady == "Running" else ("Paused", *self._halted())
        self._to(self._do(api, "pause"), *ends)

    def _unpause(self, api: Api, chance: random.Random) -> None:
        self._to(self._do(api, "unpause"), "Running")

    def _kill(self, api: Api, chance: random.Random) -> None:
        self._to(self._do(api, "kill", chance.choice(["", "?signal=KILL", "?signal=9"])), *self._halted())

    def _signal(self, api: Api, chance: random.Random) -> None:
        outcome = self._do(api, "kill", "?signal=USR2")
        if outcome == "refused" and self.answer.status:
            # Its log says that it was asked for, and that it failed.
            self.not_done.remove(self.answer.request_id)
            self.lost.append("kill")

    def _rebuild(self, api: Api, chance: random.Random) -> None:
        ends = {"Running": ("Running",), "": ("Running", "Created")}.get(self.steady, ("Created",))
        outcome = self._do(api, "rebuild")
        for known in self.files.values():
            known.told(None, outcome)
        self._to(outcome, *ends)
        self.ran = self.ran and outcome == "refused"

    def _delete(self, api: Api, chance: random.Random) -> None:
        how = chance.choice(["", "?stop=true", "?force=true"])
        self._to(self._do(api, "delete", how, verb="DELETE"), "gone")

    def _limits(self, api: Api, chance: random.Random, word: str = "update", verb: str = "PATCH") -> None:
        memory, cpu = str(chance.randint(24, 64)), chance.choice([0.1, 0.2, 0.3])
        outcome = self._do(api, word, "", {"memory": memory, "cpu": cpu}, verb=verb)
        self.memory.told(memory, outcome)
        self.cpu.told(cpu, outcome)

    def _resize_container(self, api: Api, chance: random.Random) -> None:
        self._limits(api, chance, "resize_container", "POST")

    def _rename(self, api: Api, chance: random.Random) -> None:
        name = f"{self.hostname}-{len(self.history)}"
        self.name.told(name, self._do(api, "update", "", {"name": name}, verb="PATCH"))

    def _old_rename(self, api: Api, chance: random.Random) -> None:
        name = f"{self.hostname}-{len(self.history)}"
        self.name.told(name, self._do(api, "rename", f"?name={name}", OpenStack_API_Version=_OLD))

    def _heal(self, api: Api, chance: random.Random) -> None:
        wanted = chance.random() < 0.5
        self.heal.told(wanted, self._do(api, "update", "", {"auto_heal": wanted}, verb="PATCH"))

    def _add_group(self, api: Api, chance: random.Random) -> None:
        group = chance.choice([self.world.open, self.world.shut])
        before = list(self.groups.values)
        outcome = self._do(api, "add_security_group", f"?name={group}", also=(400,), OpenStack_API_Version=_OLD)
        if self.answer.status == 400:
            assert any(group in groups for groups in before), f"{self.answer.body!r}: {self.groups}, {self}"
        self._regroup([groups | {group} for groups in before], outcome)

    def _remove_group(self, api: Api, chance: random.Random) -> None:
        group = chance.choice([self.world.open, self.world.shut])
        before = list(self.groups.values)
        outcome = self._do(api, "remove_security_group", f"?name={group}", also=(400,), OpenStack_API_Version=_OLD)
        if self.answer.status == 400:
            assert any(group not in groups for groups in before), f"{self.answer.body!r}: {self.groups}, {self}"
        self._regroup([groups - {group} for groups in before], outcome)

    def _regroup(self, after: list[frozenset[str]], outcome: str) -> None:
        if outcome == "done":
            self.groups.values = after
        elif outcome == "lost":
            self.groups.values = [*self.groups.values, *after]

    def _plug(self, api: Api, chance: random.Random) -> None:
        net = chance.choice(self.world.sides)
        query = f"?network={net}"
        if chance.random() < 0.4:
            port = self._port(api, net)
            if not port:
                return
            query = f"?port={port}"
        outcome = self._do(api, "network_attach", query, also=(400,))
        if self.answer.status == 400:
            assert True in self.nets[net].values, f"{self.answer.body!r}: {self}"
        self.nets[net].told(True, outcome)

    def _port(self, api: Api, net: str) -> str:
        """A port of the user's own, which stays when the container goes; empty when it is not known."""
        body = {"port": {"network_id": net, "description": self.hostname}}
        outcome = self.ask(api, "port", "POST", f"{NEUTRON}/ports", body, refused=())
        return str(self.answer.json()["port"]["id"]) if outcome == "done" else ""

    def _unplug(self, api: Api, chance: random.Random) -> None:
        net = chance.choice(self.world.sides)
        outcome = self._do(api, "network_detach", f"?network={net}", also=(400,))
        if self.answer.status == 400:
            assert False in self.nets[net].values, f"{self.answer.body!r}: {self}"
        self.nets[net].told(False, outcome)

    def _commit(self, api: Api, chance: random.Random) -> None:
        outcome = self._do(api, "commit", f"?repository={self.world.tag}-committed&tag=t{len(self.history)}")
        if outcome == "done":
            self.world.committed.append(self.answer.json()["uuid"])

    # -- looking -------------------------------------------------------------------------------------------------

    def _list(self, api: Api, chance: random.Random) -> None:
        self._do(api, "network_list", verb="GET")

    def _log(self, api: Api, chance: random.Random) -> None:
        if self._do(api, "container_actions", verb="GET") == "done" and (
            found := self.answer.json()["containerActions"]
        ):
            one = chance.choice(found)["request_id"]
            self._do(api, f"container_actions/{one}", verb="GET")

    def _top(self, api: Api, chance: random.Random) -> None:
        self._do(api, "top", verb="GET")

    def _stats(self, api: Api, chance: random.Random) -> None:
        self._do(api, "stats", verb="GET")

    def _logs(self, api: Api, chance: random.Random) -> None:
        self._do(api, "logs", verb="GET")

    def _size(self, api: Api, chance: random.Random) -> None:
        self._do(api, "resize", f"?h={chance.randint(10, 50)}&w={chance.randint(40, 200)}")

    def _put(self, api: Api, chance: random.Random) -> None:
        path, content = chance.choice(PATHS), f"{self.hostname}-{len(self.history)}"
        data = base64.b64encode(tarred(path, content)).decode()
        known = self.files[path]
        outcome = self._do(api, "put_archive", "?path=/", {"data": data})
        # What fails on its way may have come to something.
        known.told(content, "lost" if outcome == "refused" and b"conflict" in self.answer.body else outcome)

    def _get(self, api: Api, chance: random.Random) -> None:
        path = chance.choice(PATHS)
        if self._do(api, "get_archive", f"?path=/{path}", verb="GET", also=(404,)) == "done":
            self.sees(path, self.answer)

    def sees(self, path: str, answer: Answer) -> None:
        """What is in a file, by an answer of get_archive."""
        found = None
        if answer.status == 200:
            found = untarred(base64.b64decode(answer.json()["data"]))[path]
        assert self.files[path].looked(found), f"/{path} holds {found!r}, not {self.files[path]}: {self}"

    def _execute(self, api: Api, chance: random.Random) -> None:
        if self._do(api, "execute", "", {"command": f"echo {self.hostname}"}) == "done":
            told = self.answer.json()
            assert (told["output"], told["exit_code"]) == (f"{self.hostname}\n", 0), f"{told}: {self}"

    def _keep(self, api: Api, chance: random.Random) -> None:
        """Leave something in a volume, where it has to stay whatever becomes of the container."""
        if self.volume is None:
            return
        content = f"{self.hostname}-{len(self.history)}"
        outcome = self._do(api, "execute", "", {"command": f"sh -c 'echo {content} > /data/kept && sync'"})
        if outcome == "done" and self.answer.json()["exit_code"] != 0:
            outcome = "lost"
        self.volume.content.told(content, "lost" if outcome == "refused" and self.answer.status == 409 else outcome)

    def _terminal(self, api: Api, chance: random.Random) -> None:
        body = {"command": "sh", "run": False, "interactive": True}
        if self._do(api, "execute", "", body) != "done":
            return
        told = self.answer.json()
        with suppress(OSError, websocket.WebSocketException):
            session = websocket.create_connection(told["proxy_url"], timeout=5, subprotocols=["binary"])
            try:
                session.send_binary(b"echo $((40+2))\n")
                self._do(api, "execute_resize", f"?exec_id={told['exec_id']}&h=20&w=70", also=(400,))
                session.recv()
            finally:
                session.close(timeout=1)

    def _attach(self, api: Api, chance: random.Random) -> None:
        if self._do(api, "attach", verb="GET", also=(400,)) != "done":
            assert self.answer.status != 400 or not self.interactive, f"{self.answer.body!r}: {self}"
            return
        with suppress(OSError, websocket.WebSocketException):
            session = websocket.create_connection(self.answer.json(), timeout=5, subprotocols=["binary"])
            session.send_binary(b"hello\n")
            session.close(timeout=1)

    # -- afterwards ----------------------------------------------------------------------------------------------

    def wrong(self, shown: dict[str, dict[str, Any]]) -> list[str]:
        """What the API says of it that cannot be. `shown`: containers by uuid."""
        if not self.uuid and self.ends.sure != "gone":
            found = [c for c in shown.values() if c["hostname"] == self.hostname]
            self.uuid = found[0]["uuid"] if found else ""
        item = shown.pop(self.uuid, None)
        status = "gone" if item is None else item["status"]
        if status not in self.ends.values or (item is not None and item["task_state"] is not None):
            said = item and {k: item[k] for k in ("task_state", "status_reason", "status_detail")}
            return [f"is {status} ({said}), not {self.ends}: {self}"]
        self.ends.looked(status)
        self.steady = status
        self.ran = self.ran or status in ("Running", "Stopped", "Paused")
        if item is None:
            self.gone()
            return []
        bad = [
            f"has {field} {item[field]!r}, not {known}: {self}"
            for field, known in (
                ("name", self.name), ("memory", self.memory), ("cpu", self.cpu), ("auto_heal", self.heal),
            )
            if not known.looked(item[field])
        ]  # fmt: skip
        if not self.groups.looked(frozenset(item["security_groups"])):
            bad.append(f"has the groups {item['security_groups']}, not {self.groups}: {self}")
        return bad

    def wrong_inside(self, api: Api) -> list[str]:
        """What its networks, files and log say that cannot be, once it has settled."""
        bad = []
        answer = api.at("GET", f"{BASE}/{self.uuid}/network_list")
        on = {entry["net_id"] for entry in answer.json()["networks"]}
        bad += [f"{net} is {net in on}, not {k}: {self}" for net, k in self.nets.items() if not k.looked(net in on)]
        for path in PATHS:
            answer = api.at("GET", f"{BASE}/{self.uuid}/get_archive?path=/{path}")
            if answer.status == 409 and self.steady == "Created":
                answer = Answer(404, b"")  # it has no files yet
            assert answer.status in (200, 404), f"get_archive: {answer.status} {answer.body!r}: {self}"
            self.sees(path, answer)
        if self.steady == "Running":
            self._see_mounts(api)
        return bad + self._wrong_log(api)

    def _see_mounts(self, api: Api) -> None:
        def cat(path: str) -> str | None:
            done = api("POST", f"/{self.uuid}/execute", {"command": f"cat {path}"})
            assert done.status == 200, f"cat {path}: {done.status} {done.body!r}: {self}"
            return str(done.json()["output"]).strip() if done.json()["exit_code"] == 0 else None

        if self.injected:
            assert cat("/etc/injected") == self.injected, f"{self}"
        if self.volume is not None:
            kept = cat("/data/kept")
            assert self.volume.content.looked(kept), f"the volume holds {kept!r}, not {self.volume.content}: {self}"

    def _wrong_log(self, api: Api) -> list[str]:
        answer = api.at("GET", f"{BASE}/{self.uuid}/container_actions")
        found = answer.json()["containerActions"]
        bad = [f"{a['action']} of {a['start_time']} goes on for ever: {self}" for a in found if not a["finish_time"]]
        ids = [a["request_id"] for a in found]
        bad += [f"{word} was accepted ({r}) and is not in the log: {self}" for word, r in self.accepted if r not in ids]
        bad += [f"{r} was refused and is in the log: {self}" for r in self.not_done if r in ids]
        counted = Counter(a["action"] for a in found)
        most = Counter([word for word, _ in self.accepted] + self.lost)
        bad += [f"{n} times {word} is in the log: {self}" for word, n in counted.items() if n > most[word]]
        return bad + [f"{id_} is in the log twice: {self}" for id_, n in Counter(ids).items() if n > 1]

    def remove(self, api: Api, chance: random.Random) -> None:
        """Delete it, in whatever status it is."""
        how = "" if self.steady not in ("Running", "Restarting") else chance.choice(["?stop=true", "?force=true"])
        with suppress(LostError):
            answer = api.at("DELETE", f"{BASE}/{self.uuid}{how}")
            assert answer.status == 204, f"cannot be deleted: {answer.status} {answer.body!r}: {self}"


def tarred(name: str, content: str) -> bytes:
    """An archive of one file."""
    buffer, data = io.BytesIO(), content.encode()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def untarred(data: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: f.read().decode() for m in tar.getmembers() if (f := tar.extractfile(m)) is not None}
