"""A host in memory that obeys the rules of a real runtime, and refuses what a real one would refuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import msgspec

from askos.model.capsules import Assignment, CapsuleSpec, ContainerSpec, RestartPolicy, Wish
from askos.plan import reconcile as r


def assignment(policy: str = "no", retries: int = 0, **wish: object) -> Assignment:
    spec = CapsuleSpec(
        [ContainerSpec("main", "busybox", command=["sleep", "9"])], restart_policy=RestartPolicy(policy, retries)
    )
    return Assignment("11111111-2222-3333-4444-555555555555", "p", "web", 1, spec, Wish(**wish), [], [])


@dataclass
class World:
    """What is on the host. `starts` counts starts by run; `files` has an x for each start that wrote into a layer."""

    image: bool = True
    sandboxes: dict[str, r.Sandbox] = field(default_factory=dict)
    containers: dict[str, r.Container] = field(default_factory=dict)
    starts: list[tuple[int, int]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    marks: dict[str, tuple[str, str] | None] = field(default_factory=dict)
    """The mark that a layer carries, by the container that holds the layer."""
    logs: bool = False
    ports: dict[str, list[str]] = field(default_factory=dict)
    """What each sandbox is plugged into."""
    cables: list[str] = field(default_factory=list)
    """The capsule's ports now: what new sandboxes get."""
    health: r.Health | None = None
    """Of the newest container that runs."""
    volumes: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    committing: bool = False
    removed: list[str] = field(default_factory=list)
    """Files that went with a container."""
    break_off: int = 0
    """So many of the next starts are broken off: whoever asked for them is killed meanwhile."""
    now: int = 1_000_000_000
    limits: tuple[int, int] = (1024, 512 << 20)
    """Shares and bytes that the spec asks for."""
    _ids: count[int] = field(default_factory=count)

    def observed(self) -> r.Observed:
        image = r.Image("sha256:1", [], ["sh"]) if self.image else None
        running = [c.id for c in self.containers.values() if c.state == "running"]
        return r.Observed(
            list(self.sandboxes.values()), list(self.containers.values()), image, logs=self.logs,
            volumes=self.volumes, folders=self.volumes, wired=self.ports, refused=self.refused,
            health=dict.fromkeys(running, self.health) if self.health else {}, committing=self.committing,
        )  # fmt: skip

    def exit(self, code: int) -> None:
        for c in self.containers.values():
            if c.state == "running":
                self._set(c, state="exited", exit_code=code, finished_us=self.now)

    def _set(self, c: r.Container, **values: object) -> None:
        self.containers[c.id] = msgspec.structs.replace(c, **values)

    def act(self, action: r.Action) -> None:
        self.now += 1000
        match action:
            case r.PullImage():
                self.image = True
            case r.RunSandbox(attempt):
                assert all(s.attempt != attempt for s in self.sandboxes.values()), "attempt used twice"
                assert not any(s.ready for s in self.sandboxes.values()), "two ready sandboxes"
                new = f"s{next(self._ids)}"
                self.sandboxes[new] = r.Sandbox(new, attempt, True)
                self.ports[new] = list(self.cables)
                self.logs = True
            case r.CreateContainer():
                assert self.sandboxes[action.sandbox_id].ready, "container in a stopped sandbox"
                new = f"c{next(self._ids)}"
                self.containers[new] = r.Container(
                    new, action.sandbox_id, "main", action.run, action.attempt, "created", image_id=action.image_id,
                    cpu_shares=self.limits[0], memory_bytes=self.limits[1],
                )  # fmt: skip
                self.files[new] = ""
            case r.CarryLayer(old, new):
                assert self.containers[old].state in ("exited", "created")
                assert self.containers[new].state in ("exited", "created")
                started = [c for c in (old, new) if self.containers[c].started_us is not None]
                assert len(started) < 2, "layers exchanged between two containers that have run"
                if self.marks.get(new) != (old, new):
                    self.files[new], self.files[old] = self.files[old], self.files[new]
                    self.marks[old], self.marks[new] = self.marks.get(new), (old, new)
            case r.StartContainer(container_id):
                c = self.containers[container_id]
                assert c.state == "created", "started twice"
                assert self.sandboxes[c.sandbox_id].ready
                assert not any(o.state in ("running", "paused") for o in self.containers.values()), (
                    "two running at once"
                )
                if self.break_off:
                    # containerd kills what it had begun to start, and never starts this container again.
                    self.break_off -= 1
                    self._set(c, state="exited", exit_code=128, reason="StartError", finished_us=self.now)
                    return
                self.starts.append((c.run, c.attempt))
                self.files[container_id] += "x"
                self._set(c, state="running", started_us=self.now)
            case r.StopContainer(container_id):
                self._set(self.containers[container_id], state="exited", exit_code=143, finished_us=self.now)
            case r.PauseContainer(container_id):
                assert self.containers[container_id].state == "running"
                self._set(self.containers[container_id], state="paused")
            case r.UnpauseContainer(container_id):
                assert self.containers[container_id].state == "paused"
                self._set(self.containers[container_id], state="running")
            case r.UpdateLimits(container_id):
                assert self.containers[container_id].state in ("running", "paused")
                self._set(self.containers[container_id], cpu_shares=self.limits[0], memory_bytes=self.limits[1])
            case r.SetUpVolumes():
                self.volumes = True
            case r.SyncNetwork(sandbox_id):
                assert self.sandboxes[sandbox_id].ready
                self.ports[sandbox_id] = list(self.cables)
            case r.RemoveContainer(container_id):
                assert self.containers[container_id].state not in ("running", "paused"), "removed while it runs"
                self.containers.pop(container_id)
                self.removed.append(self.files.get(container_id, ""))
            case r.StopSandbox(sandbox_id):
                self.sandboxes[sandbox_id] = msgspec.structs.replace(self.sandboxes[sandbox_id], ready=False)
                for c in list(self.containers.values()):
                    if c.sandbox_id == sandbox_id and c.state in ("running", "paused"):
                        self._set(c, state="exited", exit_code=137, finished_us=self.now)
            case r.RemoveSandbox(sandbox_id):
                self.sandboxes.pop(sandbox_id, None)
                for c in list(self.containers.values()):
                    if c.sandbox_id == sandbox_id:
                        self.containers.pop(c.id)
            case r.TearDown():
                self.logs = self.volumes = False

    def settle(self, a: Assignment, *, crash_after: int | None = None) -> tuple[Assignment, r.Decision]:
        """Look, decide, act until there is nothing to do; or stop dead after so many actions."""
        done = 0
        for _ in range(50):
            decision = r.decide(a, self.observed(), None, self.now)
            a = msgspec.structs.replace(a, report=decision.report)
            if not decision.actions:
                return a, decision
            for action in decision.actions:
                if crash_after is not None and done >= crash_after:
                    return a, decision
                self.act(action)
                done += 1
        raise AssertionError(f"does not settle: {decision}")
