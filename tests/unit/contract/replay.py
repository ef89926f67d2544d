"""Replays a conversation: the application answers for itself, a made-up host does what its containers did then."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from askos.model.capsules import CapsuleReport, CapsuleState, ContainerReport, Report
from askos.model.errors import InvalidError, NotFoundError
from askos.ports.calls import Frame
from tests.unit.cloud import HOST, Answer, Cloud, facts
from tests.unit.pods_world import ended, report, running

from .shapes import Types, differences, gather, is_name, new_types

DATA = Path(__file__).parent / "data"
TOKENS = {
    "demo": "ann:demo:member", "admin": "root:admin:admin", "admin-in-demo": "root:demo:admin",
    "other": "eve:other:member", "none": None,
}  # fmt: skip
STATES: dict[str, CapsuleState] = {
    "Created": "created", "Running": "running", "Stopped": "exited", "Error": "error", "Restarting": "restarting",
    "Paused": "paused",
}  # fmt: skip
RANGES = {"net1": "10.77.0.0/24", "net2": "10.88.0.0/24", "net3": "10.99.3.0/24"}
BEFORE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "twin1": ("twin", "Created", {}), "twin2": ("twin", "Created", {}), "zero": ("zero", "Stopped", {}),
    "failing": ("failing", "Running", {}), "downhost": ("downhost", "Running", {}),
    "q1": ("q1", "Running", {"memory": "128", "cpu": 0.1}),
    **{f"list{n}": (f"list-{n}", "Created", {"memory": "64"}) for n in range(5)},
}  # fmt: skip
"""Containers made before a conversation: name, status and fields."""
_ANY = re.compile(r"\{[\w.#:-]+\}")


class Call(msgspec.Struct):
    """One line of a conversation; see data/README.md."""

    name: str
    version: str | None
    role: str
    ask: str
    status: int | None
    body: Any = msgspec.UNSET
    text: str | None = None
    send: dict[str, str] = {}
    headers: dict[str, str | None] = {}
    shape: Any = msgspec.UNSET
    becomes: str | None = None
    meanwhile: dict[str, str] = {}


class Outcome(NamedTuple):
    """What came of one call."""

    call: Call
    answer: Answer
    differences: list[str]


def conversation(name: str) -> list[Call]:
    """The calls of a file."""
    lines = (DATA / f"{name}.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Call) for line in lines]


CONVERSATIONS = {path.stem: conversation(path.stem) for path in sorted(DATA.glob("*.jsonl"))}


def _all_types() -> Types:
    types = new_types()
    for calls in CONVERSATIONS.values():
        for call in calls:
            if call.shape is not msgspec.UNSET and call.shape != "text":
                gather(call.shape, types)
    # What comes and goes between two looks, as the recordings' notes tell.
    types["task_state"].add("str")
    types["finish_time"].add("null")
    return types


TYPES = _all_types()


class Replay:
    """One conversation under way. `names`: what the names in it stand for in this cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.names = {
            "{host}": "host-1", "{host.uuid}": HOST, "{project.demo}": "demo", "{project.admin}": "admin",
            "{user.demo}": "ann", "{user.admin}": "root", "{base}": cloud.url,
        }  # fmt: skip
        cloud.calls.answers = dict(ANSWERS)

    async def prepare(self, calls: list[Call]) -> None:
        """What was there before the first call."""
        await self.cloud.store.register_host(facts(), "nova")
        for name in ("net1", "net2", "net3"):
            self.cloud.now += 1_000_000  # the first is the project's default
            net = await self._neutron("networks", "network", {"name": name})
            subnet = {"network_id": net["id"], "ip_version": 4, "cidr": RANGES[name]}
            await self._neutron("subnets", "subnet", subnet)
            self.names[f"{{{name}.id}}"] = net["id"]
        port = await self._neutron("ports", "port", {"network_id": self.names["{net2.id}"]})
        self.names["{port0.id}"] = self.names["{net2.port}"] = port["id"]
        for name, project in (("vol1", "demo"), ("vol2", "demo"), ("vol.other", "other")):
            volume = await self.cloud.volumes.create(project, "ann", name, 1, multiattach=False)
            self.names[f"{{{name}}}"] = self.names[f"{{{name}.id}}"] = volume.uuid
        group = await self._neutron("security-groups", "security_group", {"name": "web-sg"})
        self.names["{sg.web}"] = group["id"]
        await self.cloud.networking.ensure_external()
        made: set[str] = set()
        for call in calls:
            made.update(_ANY.findall(call.headers.get("location") or ""))
        shapes = json.dumps([None if c.shape is msgspec.UNSET else c.shape for c in calls])
        asked = json.dumps([(c.ask, None if c.body is msgspec.UNSET else c.body) for c in calls])
        for found in sorted({*_ANY.findall(asked), *_ANY.findall(shapes)}):
            if found[1:-6] in BEFORE and found not in made:
                self.names[found] = await self._made_before(found[1:-6])

    async def _made_before(self, name: str) -> str:
        """A container that was there when the conversation began."""
        shown, status, fields = BEFORE[name]
        uuid = await self.cloud.create(str(TOKENS["demo"]), name=shown, run=status != "Created", **fields)
        await self._reach(uuid, status)
        return uuid

    async def _neutron(self, path: str, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        got = await self.cloud.ask(
            "POST", f"/networking/v2.0/{path}", TOKENS["demo"], version=None, body={kind: fields}
        )
        assert got.status == 201, got
        return dict(got.body[kind])

    async def say(self, call: Call) -> Outcome:
        """Make the call as it was made then."""
        method, _, path = self._filled(call.ask).partition(" ")
        if call.becomes is not None:
            await self._reach(path.split("?")[0].rsplit("/", 1)[-1], call.becomes)
        for name, status in call.meanwhile.items():
            await self._reach(self.names[name], status)
        if "forced_down=" in path:  # a host that is down answers nothing
            self.cloud.calls.answers = {} if "=True" in path else dict(ANSWERS)
        more: dict[str, Any] = {}
        if call.body is not msgspec.UNSET:
            more["data"] = self._filled(json.dumps(call.body)).encode()
        elif call.text is not None:
            more["data"] = call.text.encode()
        headers = dict(call.send)
        if "data" in more and call.body is not msgspec.UNSET:
            headers.setdefault("Content-Type", "application/json")
        version = None if "OpenStack-API-Version" in headers else call.version
        answer = await self.cloud.ask(
            method, path, headers.pop("X-Auth-Token", TOKENS[call.role]), version=version, headers=headers, **more
        )
        return Outcome(call, answer, self._compare(call, answer))

    def _filled(self, text: str) -> str:
        return _ANY.sub(lambda found: self.names.get(found[0], found[0]), text)

    # -- the host ----------------------------------------------------------------------------------------------

    async def _reach(self, ident: str, status: str) -> None:
        """Its host brings a container to a status."""
        capsules = await self.cloud.store.capsules_by_uuid([ident])
        if not capsules:
            return
        (capsule,) = capsules
        if status == "Error without a host":
            await self.cloud.store.place(ident, lambda _c, _l: None, "There are not enough hosts available.")
            return
        if capsule.placement.host_uuid is None:
            await self.cloud.place(ident)
            (capsule,) = await self.cloud.store.capsules_by_uuid([ident])
        gone = status.startswith("gone")
        if capsule.kind == "capsule":
            names = [c.name for c in capsule.spec.pod.spec.containers] if capsule.spec.pod else []
            if gone:
                await report(self.cloud, ident, *(ended(n) for n in names), phase="Failed", gone=True)
            else:
                await report(self.cloud, ident, *(running(n) for n in names))
            return
        if gone and capsule.wish.state != "deleted":
            if capsule.spec.auto_remove:
                await self._reach(ident, "Stopped")
            else:
                await self.cloud.store.wish(ident, lambda c: msgspec.structs.replace(c.wish, state="deleted"))
            (capsule,) = await self.cloud.store.capsules_by_uuid([ident])
        state = STATES.get(status, "none")
        container = ContainerReport(
            "main", "running" if state == "running" else "exited" if state == "exited" else "waiting",
            container_id="c" * 64, run=capsule.wish.run, exit_code=0 if state == "exited" else None,
            started_us=self.cloud.now, image_id="sha256:1", command=["sleep"], entrypoint=[],
        )  # fmt: skip
        why = "It could not be made." if state == "error" else None
        told = Report(
            capsule.wish.generation, True, state, why, hostname=ident[:12], containers=[container],
            observed_us=self.cloud.now,
        )  # fmt: skip
        sent = CapsuleReport(ident, capsule.placement.epoch, told, gone)
        await self.cloud.store.apply_reports(str(capsule.placement.host_uuid), [sent])

    # -- comparing ---------------------------------------------------------------------------------------------

    def _compare(self, call: Call, answer: Answer) -> list[str]:
        found = []
        if answer.status != call.status:
            found.append(f"status is {answer.status}, not {call.status}")
        else:
            found += self._headers(call, answer)
            if call.shape == "text":
                pass
            elif call.shape is msgspec.UNSET:
                found += [f"there is a body: {answer.raw[:80]!r}"] if answer.raw else []
            elif answer.body is None and answer.raw.strip() != b"null":
                found.append("there is no body" if not answer.raw else f"the body is not JSON: {answer.raw[:80]!r}")
            else:
                found += differences(call.shape, answer.body, TYPES, self.names)
        self._learn(call, answer)
        return found

    def _headers(self, call: Call, answer: Answer) -> list[str]:
        expected: dict[str, str | None] = {"content-type": "application/json"}
        if call.version is not None:
            expected["openstack-api-version"] = f"container {call.version}"
        expected |= call.headers
        found = []
        if expected.get("openstack-api-version") and call.version == "latest":
            expected["openstack-api-version"] = "container 1.40"
        for name, wanted in expected.items():
            value = answer.headers.get(name)
            if name == "content-type" and value is not None:
                value = value.partition(";")[0]
            if name == "x-openstack-request-id" and wanted is not None:
                self.names[wanted] = value or ""
                same = value is not None
            elif wanted == "*":
                same = value is not None
            elif name == "location" and wanted is not None:
                same = self._fits(wanted, value or "")
            elif name == "allow" and wanted is not None:
                same = _words(wanted) == _words(value)
            else:
                same = value == wanted
            if not same:
                found.append(f"header {name} is {value}, not {wanted}")
        if "X-Openstack-Request-Id" not in answer.headers:
            found.append("there is no X-Openstack-Request-Id")
        return found

    def _fits(self, pattern: str, value: str) -> bool:
        """Compare a text with names in it, and learn what new ones stand for."""
        filled = self._filled(pattern)
        unknown = _ANY.findall(filled)
        quoted = re.escape(filled)
        for name in unknown:
            quoted = quoted.replace(re.escape(name), "([0-9a-f-]{36})")
        found = re.fullmatch(quoted, value)
        if found is None:
            return False
        self.names.update(zip(unknown, found.groups(), strict=True))
        return True

    def _learn(self, call: Call, answer: Answer) -> None:
        """Names of what was made must be known even when its answer has another form."""
        if isinstance(answer.body, dict) and isinstance(call.shape, dict):
            for key in ("uuid", "id"):
                if is_name(call.shape.get(key)) and isinstance(answer.body.get(key), str):
                    self.names.setdefault(call.shape[key], answer.body[key])
        if wanted := call.headers.get("x-openstack-request-id"):
            self.names[wanted] = answer.headers.get("X-Openstack-Request-Id", "")
        location = call.headers.get("location")
        if location is not None and (value := answer.headers.get("Location")):
            self._fits(location, value)


def _words(text: str | None) -> set[str]:
    return {word.strip() for word in (text or "").split(",")} - {"HEAD", "OPTIONS"}


def _top(ps_args: str | None) -> dict[str, Any]:
    if "bad" in (ps_args or ""):
        raise InvalidError("ps refuses these arguments.")
    return {"titles": ["PID", "CMD"], "processes": [["1", "sleep"]]}


def _get(path: str) -> tuple[list[Frame], Any]:
    if path == "/no/such":
        return [], NotFoundError("There is no such file.")
    told = {"name": "f", "size": 1, "mode": 420, "mtime": "2026-01-01T00:00:00Z", "linkTarget": ""}
    return [Frame(1, b"a tar archive")], told


ANSWERS: dict[str, Any] = {
    "run": {"output": "hello\n", "exit_code": 0},
    "logs": ([Frame(1, b"hello\n")], None),
    "signal": None,
    "resize": None,
    "top": lambda a: _top(a["ps_args"]),
    "container_stats": {
        "cpu_percent": 1.0, "memory_bytes": 1, "memory_limit_bytes": 2, "read_bytes": 3, "write_bytes": 4,
        "rx_bytes": 5, "tx_bytes": 6,
    },
    "get_archive": lambda a: _get(a["path"]),
    "put_archive": lambda a: ([], NotFoundError("There is no such folder.") if a["path"] == "/no/such" else None),
    "exec": lambda _a: ([Frame(control={"started": True})], {"exit_code": 0}),
    "attach": lambda _a: ([Frame(control={"started": True})], {"exit_code": 0}),
    "commit": lambda _a: ([], {"id": "sha256:1", "name": "x", "size_bytes": 1}),
    "image_pull": ([], {"id": "sha256:1"}),
    "images": [],
}  # fmt: skip
"""What the made-up host answers."""
