"""Prepared sandboxes: records, what qualifies, and the pool, against a CRI in memory."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd import adopting, spec, warm
from askos.adapters.containerd.adoptions import PREPARED, Adoption, Adoptions
from askos.adapters.containerd.details import Details
from askos.adapters.containerd.look import Observer
from askos.adapters.containerd.making import Maker
from askos.adapters.containerd.personal import resolv_conf, set_hostname
from askos.adapters.containerd.rpc import RpcError
from askos.adapters.containerd.warm import Warm, free_memory
from askos.model.errors import RuntimeFailedError
from askos.ports.runtime import SandboxConfig

ID = "0123456789abcdef" * 4


def adoption(sandbox_id: str = ID, capsule: str = "c1") -> Adoption:
    return Adoption(sandbox_id, capsule, 3, "web", "p1", 42)


def item(sandbox_id: str, *, prepared: bool = True) -> Any:
    labels = {PREPARED: "x"} if prepared else {spec.CAPSULE: "made-cold"}
    return cri.PodSandbox(id=sandbox_id, labels=labels, state=cri.SANDBOX_READY, created_at=7_000)


# -- records ----------------------------------------------------------------------------------------------------------


def test_a_claim_is_seen_by_its_maker_and_by_nobody_else(tmp_path: Path) -> None:
    mine = Adoptions(tmp_path / "a")
    assert mine.seen(item(ID)) is None
    mine.claim(adoption())
    seen = mine.seen(item(ID))
    assert seen is not None
    assert (seen.capsule_uuid, seen.attempt, seen.ready, seen.created_us) == ("c1", 3, True, 42)
    assert mine.of_capsule("c1") == [ID]
    assert not mine.abandoned(ID)

    others = Adoptions(tmp_path / "a")
    assert others.seen(item(ID)) is None
    assert others.of_capsule("c1") == []
    assert others.abandoned(ID)


def test_a_whole_record_is_seen_by_everybody(tmp_path: Path) -> None:
    mine = Adoptions(tmp_path)
    mine.claim(adoption())
    mine.complete(adoption())
    others = Adoptions(tmp_path)
    assert others.seen(item(ID)) == mine.seen(item(ID)) is not None
    assert others.of_capsule("c1") == [ID]
    assert others.of_capsule("c2") == []
    others.remove(ID)
    others.remove(ID)
    assert list(tmp_path.iterdir()) == []
    assert Adoptions(tmp_path).all() == {}


def test_a_forsaken_claim_is_nobodys(tmp_path: Path) -> None:
    mine = Adoptions(tmp_path)
    mine.claim(adoption())
    mine.forsake(ID)
    assert mine.seen(item(ID)) is None
    assert mine.abandoned(ID)


def test_sandboxes_made_for_their_capsule_need_no_record(tmp_path: Path) -> None:
    seen = Adoptions(tmp_path / "not-there").seen(item(ID, prepared=False))
    assert seen is not None
    assert (seen.capsule_uuid, seen.created_us) == ("made-cold", 7)


@pytest.mark.parametrize("torn", [b"", b"{", b'{"sandbox_id":1}', b"\xff"])
def test_an_unreadable_record_is_a_claim_of_nobody(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / f"{ID}.json").write_bytes(torn)
    (tmp_path / f"{ID}.new").write_bytes(b"draft of a process that was killed")
    (tmp_path / "README.json").write_bytes(b"not ours")
    found = Adoptions(tmp_path)
    assert set(found.all()) == {ID}
    assert found.abandoned(ID)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{ID}.json", "README.json"]


def test_the_files_name_wins_over_what_is_in_it(tmp_path: Path) -> None:
    Adoptions(tmp_path).complete(adoption())
    (tmp_path / f"{ID}.json").rename(tmp_path / f"{'f' * 64}.json")
    assert Adoptions(tmp_path).of_capsule("c1") == ["f" * 64]


# -- what a sandbox is given ------------------------------------------------------------------------------------------


def test_resolv_conf_as_containerd_writes_it() -> None:
    config = SandboxConfig(
        "c", "n", "p", 0, "h", ["10.0.0.1", "10.0.0.2"], ["a.b", "c"], dns_options=["ndots:2", "rotate"]
    )
    assert resolv_conf(config) == "search a.b c\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:2 rotate\n"
    assert resolv_conf(SandboxConfig("c", "n", "p", 0, "h", [])) == ""


def test_the_hosts_own_name_is_never_changed() -> None:
    before = os.uname().nodename
    with pytest.raises(ProcessLookupError):
        set_hostname(os.getpid(), f"/proc/{os.getpid()}/ns/net", "stolen")
    with pytest.raises(ProcessLookupError):
        set_hostname(2**22 + 1, "/proc/self/ns/net", "stolen")
    assert os.uname().nodename == before


def test_free_memory_is_what_the_kernel_says() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < free_memory() < total


# -- the pool ---------------------------------------------------------------------------------------------------------


class Cri:
    """Sandboxes in memory, behind `rpc.Client`'s one method that is used."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sandboxes: dict[str, Any] = {}
        self.made: list[str] = []
        self.removed: list[str] = []
        self.fail: list[RpcError] = []

    async def cri(self, method: str, request: Any, _timeout_s: float) -> Any:
        await asyncio.sleep(0)
        return getattr(self, method)(request)

    def RunPodSandbox(self, request: Any) -> Any:
        if self.fail:
            raise self.fail.pop(0)
        new = uuid.uuid4().hex * 2
        config = request.config
        self.sandboxes[new] = cri.PodSandbox(
            id=new, labels=config.labels, state=cri.SANDBOX_READY, metadata=config.metadata
        )
        self.made.append(new)
        folder = self.root / "sandboxes" / new
        folder.mkdir(parents=True)
        (folder / "hostname").write_text("prepared\n")
        return cri.RunPodSandboxResponse(pod_sandbox_id=new)

    def ListPodSandbox(self, request: Any) -> Any:
        wanted = request.filter
        return cri.ListPodSandboxResponse(
            items=[
                s
                for s in self.sandboxes.values()
                if (not wanted.id or wanted.id == s.id)
                and all(s.labels.get(k) == v for k, v in wanted.label_selector.items())
            ]
        )

    def Status(self, _request: Any) -> Any:
        return cri.StatusResponse(info={"config": json.dumps({"rootDir": str(self.root)})})

    def PodSandboxStatus(self, _request: Any) -> Any:
        netns = {"type": "network", "path": "/proc/self/ns/net"}
        info = {"pid": 4242, "runtimeSpec": {"linux": {"namespaces": [netns]}}}
        return cri.PodSandboxStatusResponse(info={"info": json.dumps(info)})

    def StopPodSandbox(self, _request: Any) -> Any:
        return cri.StopPodSandboxResponse()

    def RemovePodSandbox(self, request: Any) -> Any:
        self.sandboxes.pop(request.pod_sandbox_id, None)
        self.removed.append(request.pod_sandbox_id)
        return cri.RemovePodSandboxResponse()


class Pool:
    """A pool over it."""

    def __init__(self, root: Path) -> None:
        self.cri = Cri(root)
        self.adoptions = Adoptions(root / "adopted")
        self.maker = Maker(self.cri)  # type: ignore[arg-type]
        self.plugged: list[tuple[str, ...]] = []
        self.plug_fails: Exception | None = None
        self.observer = Observer(self.cri, "abc", self.adoptions, Details(self.cri))  # type: ignore[arg-type]
        self.warm = Warm(
            self.cri,  # type: ignore[arg-type]
            self.maker,
            self.adoptions,
            "abc",
            make_config=self._config,
            plug=self._plug,
            default_handler=lambda: "runc",
        )

    def _config(self, config: SandboxConfig) -> Any:
        return spec.sandbox_config(config, "abc", "/askos-abc", Path("/logs"))

    async def _plug(self, *call: str) -> None:
        await asyncio.sleep(0)
        if self.plug_fails is not None:
            raise self.plug_fails
        self.plugged.append(call)

    async def run(self, capsule: str = "c1", **more: Any) -> str:
        config = SandboxConfig(capsule, "web", "p1", more.pop("attempt", 0), "web", ["10.0.0.1"], **more)

        async def existing() -> tuple[str, bool] | None:
            found = await self.observer.sandboxes(capsule)
            return next(((s.id, s.ready) for s in found if s.attempt == config.attempt), None)

        request = cri.RunPodSandboxRequest(config=self._config(config))
        return await self.warm.run(config, existing, lambda: self.maker.sandbox(request, existing))

    async def filled(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.warm.ready != count:
                await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    monkeypatch.setattr(warm, "_QUIET_S", 0.01)
    monkeypatch.setattr(warm, "_AGAIN_S", 0.01)
    # No process of a sandbox exists here.
    monkeypatch.setattr(adopting, "set_hostname", lambda *_: None)
    made = Pool(tmp_path)
    yield made
    await made.warm.close()


async def test_a_prepared_sandbox_is_taken_once_and_replaced(pool: Pool) -> None:
    await pool.warm.prepare(2)
    await pool.filled(2)
    first, second = pool.cri.made
    assert await pool.observer.sandboxes(None) == []
    assert await pool.run("c1") == first
    await pool.warm.finished(first)
    assert await pool.run("c2") == second
    await pool.warm.finished(second)
    assert [call[::2] for call in pool.plugged] == [(first, "c1"), (second, "c2")]
    assert await pool.run("c1") == first
    assert {s.capsule_uuid: s.id for s in await pool.observer.sandboxes(None)} == {"c1": first, "c2": second}
    await pool.filled(2)
    assert len(pool.cri.made) == 4
    assert (pool.cri.root / "sandboxes" / first / "hostname").read_text() == "web\n"


@pytest.mark.parametrize(
    "unusual", [{"handler": "runsc"}, {"sysctls": {"net.core.somaxconn": "9"}}, {"share_pid": True}], ids=str
)
async def test_what_is_fixed_at_the_making_does_not_qualify(pool: Pool, unusual: dict[str, Any]) -> None:
    await pool.warm.prepare(1)
    await pool.filled(1)
    prepared = set(pool.cri.made)
    assert await pool.run(**unusual) not in prepared
    assert pool.warm.ready == 1
    assert pool.plugged == []


@pytest.mark.parametrize(
    "usual",
    [{}, {"handler": "runc"}, {"dns_search": ["a"]}, {"dns_options": ["ndots:5"]}, {"cgroup_parent": "/askos-abc/c1"}],
    ids=str,
)
async def test_everything_else_does(pool: Pool, usual: dict[str, Any]) -> None:
    await pool.warm.prepare(1)
    await pool.filled(1)
    prepared = set(pool.cri.made)
    assert await pool.run(**usual) in prepared


async def test_with_none_wanted_everything_is_cold_and_nothing_is_kept(pool: Pool) -> None:
    await pool.warm.prepare(2)
    await pool.filled(2)
    taken = await pool.run("c1")
    await pool.warm.finished(taken)
    await pool.warm.prepare(0)
    assert set(pool.cri.sandboxes) == {taken}
    cold = await pool.run("c2")
    assert pool.cri.sandboxes[cold].labels[spec.CAPSULE] == "c2"


async def test_nothing_is_prepared_beside_a_start(pool: Pool) -> None:
    with pool.warm.starting():
        await pool.warm.prepare(1)
        await asyncio.sleep(0.1)
        assert pool.cri.made == []
    await pool.filled(1)


async def test_nothing_is_prepared_without_memory(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "free_memory", lambda: 1 << 20)
    await pool.warm.prepare(1)
    await asyncio.sleep(0.1)
    assert pool.cri.made == []
    monkeypatch.undo()
    monkeypatch.setattr(warm, "_QUIET_S", 0.01)
    await pool.filled(1)


async def test_a_failing_runtime_is_asked_again(pool: Pool) -> None:
    pool.cri.fail = [RpcError("RunPodSandbox", "unknown", "no"), RpcError("RunPodSandbox", "unavailable", "away")]
    await pool.warm.prepare(1)
    await pool.filled(1)


async def test_one_whose_process_ended_is_removed_and_the_next_taken(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.warm.prepare(2)
    await pool.filled(2)
    first, second = pool.cri.made
    calls = []

    def first_is_dead(*_: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ProcessLookupError

    monkeypatch.setattr(adopting, "set_hostname", first_is_dead)
    assert await pool.run() == second
    assert first in pool.cri.removed
    assert [s.id for s in await pool.observer.sandboxes("c1")] == [second]


@pytest.mark.parametrize("error", [RuntimeFailedError("no network"), OSError(28, "No space left on device")])
async def test_a_network_that_fails_is_told_to_who_makes_the_container(pool: Pool, error: Exception) -> None:
    await pool.warm.prepare(1)
    await pool.filled(1)
    pool.plug_fails = error
    taken = await pool.run()
    with pytest.raises(RuntimeFailedError):
        await pool.warm.finished(taken)
    assert taken in pool.cri.removed
    assert await pool.observer.sandboxes("c1") == []
    assert pool.adoptions.all() == {}
    await pool.warm.finished(taken)  # told once


async def test_of_what_a_dead_process_left_ready_ones_are_used_and_torn_ones_removed(pool: Pool) -> None:
    await pool.warm.prepare(3)
    await pool.filled(3)
    await pool.warm.close()
    good, torn, whole = pool.cri.made
    pool.adoptions.claim(adoption(torn))
    pool.adoptions.complete(adoption(whole, "c9"))
    new = Pool(pool.cri.root)
    new.cri.sandboxes = pool.cri.sandboxes
    await new.warm.prepare(1)
    await new.filled(1)
    assert new.cri.removed == [torn]
    assert new.cri.made == []
    assert await new.run("c1") == good
    assert await new.run("c9", attempt=3) == whole
    await new.warm.close()


async def test_those_of_another_version_are_removed(pool: Pool) -> None:
    await pool.warm.prepare(1)
    await pool.filled(1)
    await pool.warm.close()
    (old,) = pool.cri.made
    pool.cri.sandboxes[old].labels[PREPARED] = "0" * 16
    new = Pool(pool.cri.root)
    new.cri.sandboxes = pool.cri.sandboxes
    await new.warm.prepare(1)
    await new.filled(1)
    assert new.cri.removed == [old]
    await new.warm.close()


async def test_records_of_vanished_sandboxes_go(pool: Pool) -> None:
    pool.adoptions.complete(adoption())
    await pool.observer.sandboxes("c1")
    assert set(pool.adoptions.all()) == {ID}, "a look at one capsule does not see all"
    await pool.observer.sandboxes(None)
    assert pool.adoptions.all() == {}


async def test_a_start_that_was_broken_off_stays_cold(pool: Pool) -> None:
    """containerd may still be making it: a prepared one beside it would be a second."""
    await pool.warm.prepare(1)
    await pool.filled(1)
    config = SandboxConfig("c1", "web", "p1", 0, "web", [], share_pid=True)

    async def nobody() -> None:
        return None

    async def for_ever() -> str:
        await asyncio.Event().wait()
        return ""

    task = asyncio.create_task(pool.warm.run(config, nobody, for_ever))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await pool.run("c1") not in pool.cri.made[:1]
    assert pool.warm.ready == 1
