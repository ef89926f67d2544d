"""The containerd adapter against a real containerd: every verb, and what crashes leave."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from aiohttp import web
from google.protobuf import any_pb2

from askos.adapters.containerd import cgroups, mounts, processes, teardown
from askos.adapters.containerd.packing import make_pause_archive
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.sweep import sweep
from askos.model.errors import (
    AskosError,
    ConflictError,
    NotFoundError,
    RuntimeFailedError,
    SetupError,
    UnavailableError,
)
from askos.ports.runtime import ExecRequest, Limits

from .containerd_fixtures import BUSYBOX, Bench, bench, fresh, private

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
__all__ = ["bench", "fresh"]  # fixtures


async def _run(bench: Bench, container: str, *argv: str, **more: object) -> tuple[int, bytes, bytes]:
    session = await bench.runtime.exec(container, ExecRequest(list(argv), **more))  # type: ignore[arg-type]
    out = {"stdout": b"", "stderr": b""}
    try:
        async for stream, data in session.output():
            out[stream] += data
        return await session.wait(), out["stdout"], out["stderr"]
    finally:
        await session.close()


# Containers


async def test_a_container_from_start_to_removal(bench: Bench) -> None:
    before = time.time_ns() // 1000
    capsule, sandbox, container = await bench.up("sh", "-c", "echo out; echo err >&2; exit 3")
    ended = await bench.ended(capsule)
    assert (ended.state, ended.exit_code, ended.reason) == ("exited", 3, "Error")
    assert (ended.name, ended.run, ended.attempt, ended.capsule_uuid) == ("main", 1, 0, capsule)
    assert ended.sandbox_id == sandbox
    assert ended.image_id == (await bench.runtime.image("busybox")).id  # type: ignore[union-attr]
    assert ended.started_us is not None
    assert ended.finished_us is not None
    assert before < ended.started_us <= ended.finished_us
    log = bench.log(capsule)
    assert "stdout F out" in log
    assert "stderr F err" in log
    await bench.runtime.remove_container(container)
    assert (await bench.runtime.observe(capsule))[1] == []
    await bench.runtime.remove_sandbox(sandbox)
    assert await bench.runtime.observe(capsule) == ([], [])
    # Removing what is gone succeeds.
    await bench.runtime.remove_container(container)
    await bench.runtime.stop_container(container, 1)
    await bench.runtime.stop_sandbox(sandbox)
    await bench.runtime.remove_sandbox(sandbox)


async def test_making_twice_returns_what_exists(bench: Bench) -> None:
    config = bench.sandbox()
    first = await bench.runtime.run_sandbox(config)
    assert await bench.runtime.run_sandbox(config) == first
    container = bench.container(config.capsule_uuid, "sleep", "100")
    created = await bench.runtime.create_container(first, container, config)
    assert await bench.runtime.create_container(first, container, config) == created
    assert (await bench.one(config.capsule_uuid)).state == "created"
    await bench.runtime.start_container(created)
    await bench.runtime.start_container(created)
    assert (await bench.one(config.capsule_uuid)).state == "running"
    # A sandbox that has died is replaced by one that lives, under the same name.
    await bench.runtime.stop_sandbox(first)
    second = await bench.runtime.run_sandbox(config)
    assert second != first
    sandboxes, containers = await bench.runtime.observe(config.capsule_uuid)
    assert [(s.id, s.ready) for s in sandboxes] == [(second, True)]
    assert containers == []


async def test_many_askings_at_once_make_one_sandbox(bench: Bench) -> None:
    config = bench.sandbox()
    ids = await asyncio.gather(*(bench.runtime.run_sandbox(config) for _ in range(5)))
    assert len(set(ids)) == 1
    assert len((await bench.runtime.observe(config.capsule_uuid))[0]) == 1


async def test_what_the_process_gets(bench: Bench) -> None:
    capsule, _, container = await bench.up(
        "sh", "-c", "echo $A; pwd; hostname; cat /etc/resolv.conf; "
        "grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/1/status; sleep 100",
        environment={"A": "b c"}, workdir="/tmp", cpu=0.5, memory_bytes=48 << 20,
    )  # fmt: skip
    await asyncio.sleep(0.5)
    log = bench.log(capsule)
    for words in ("F b c\n", "F /tmp\n", "F box\n", "nameserver 10.1.2.1", "search askos.local"):
        assert words in log, words
    assert "NoNewPrivs:\t1" in log
    assert "Seccomp:\t2" in log
    assert "CapEff:\t00000000a80425fb" in log  # docker's set
    code, out, _ = await _run(bench, container, "sh", "-c", "cat /proc/kcore | wc -c; echo 1 > /proc/sys/kernel/sysrq")
    assert (code, out) == (1, b"0\n")
    groups = cgroups.groups(bench.instance)[container]
    values = {p.name: p.read_text().strip() for g in groups for p in g.iterdir() if p.name in _LIMITS}
    assert values.get("memory.limit_in_bytes", values.get("memory.max")) == str(48 << 20)
    assert values.get("cpu.shares", "512") == "512"
    assert await _ping(bench, container) == 0


_LIMITS = {"memory.limit_in_bytes", "memory.max", "cpu.shares"}


async def _ping(bench: Bench, container: str) -> int:
    # The sandbox's loopback is up only with the real plugin: bring it up from outside.
    answer = await bench.runtime.client.call("tasks.v1.Tasks/Get", api.GetTaskRequest(container_id=container), 5)
    subprocess.run(["nsenter", "-n", "-t", str(answer.process.pid), "ip", "link", "set", "lo", "up"], check=True)
    return (await _run(bench, container, "ping", "-c", "1", "-W", "2", "127.0.0.1"))[0]


async def test_entrypoints_and_commands(bench: Bench) -> None:
    for entrypoint, command, expected in (
        (["echo", "one"], ["two"], "one two"),
        (["echo", "one"], None, "one"),
        ([], ["echo", "three"], "three"),
    ):
        capsule, _, _ = await bench.up(entrypoint=entrypoint, command=command)
        await bench.ended(capsule)
        assert bench.log(capsule).strip().endswith(f"F {expected}")


async def test_a_missing_program_is_told_in_a_few_words(bench: Bench) -> None:
    config = bench.sandbox()
    sandbox = await bench.runtime.run_sandbox(config)
    for number, (argv, words) in enumerate(
        (
            (["nosuch"], 'cannot start "nosuch": no such file in the image'),
            (["/etc/passwd"], 'cannot start "/etc/passwd": it is not an executable file (permission denied)'),
            (["/no/such/file"], 'cannot start "/no/such/file": no such file in the image'),
        )
    ):
        container = bench.container(config.capsule_uuid, *argv, run=number + 1)
        created = await bench.runtime.create_container(sandbox, container, config)
        for _ in range(2):  # asking again says the same
            with pytest.raises(RuntimeFailedError) as caught:
                await bench.runtime.start_container(created)
            assert words in caught.value.message
            assert not caught.value.retryable
        with pytest.raises(RuntimeFailedError) as caught:
            await _run(bench, (await bench.up("sleep", "100"))[2], *argv)
        assert words in caught.value.message
        assert not caught.value.retryable


async def test_stopping_waits_then_kills(bench: Bench) -> None:
    capsule, _, container = await bench.up("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done")
    await asyncio.sleep(0.3)
    await bench.runtime.stop_container(container, 20)
    assert (await bench.one(capsule)).exit_code == 5
    capsule, _, container = await bench.up("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    await asyncio.sleep(0.3)
    started = time.monotonic()
    await bench.runtime.stop_container(container, 1)
    assert 0.9 < time.monotonic() - started < 6
    assert (await bench.one(capsule)).exit_code == 137


async def test_signals_reach_the_first_process(bench: Bench) -> None:
    capsule, _, container = await bench.up("sh", "-c", "trap 'exit 9' USR1; while :; do sleep 0.1; done")
    await asyncio.sleep(0.3)
    await bench.runtime.signal(container, signal.SIGUSR1)
    assert (await bench.ended(capsule)).exit_code == 9
    with pytest.raises(ConflictError):
        await bench.runtime.signal(container, signal.SIGUSR1)
    with pytest.raises(ConflictError):
        await bench.runtime.signal("0" * 64, signal.SIGUSR1)


async def test_too_much_memory_is_named(bench: Bench) -> None:
    events = []

    async def listen() -> None:
        async for event in bench.runtime.events():
            events.append(event)

    listener = asyncio.create_task(listen())
    await asyncio.sleep(0.2)
    capsule, _, container = await bench.up("sh", "-c", "exec tail /dev/zero", memory_bytes=16 << 20)
    await bench.ended(capsule)
    async with asyncio.timeout(5):
        while (ended := await bench.one(capsule)).reason != "OOMKilled":
            await asyncio.sleep(0.05)
    assert ended.exit_code == 137
    listener.cancel()
    kinds = {e.kind for e in events if e.container_id == container}
    assert kinds == {"start", "oom", "exit", "ended"}


async def test_other_clouds_stay_invisible(bench: Bench) -> None:
    capsule, _, _ = await bench.up("sleep", "100")
    other = bench.make_runtime()
    other._observer._instance = other.instance = "ffffffff"
    try:
        assert await other.observe() == ([], [])
        assert await other.observe(capsule) == ([], [])
    finally:
        await other.close()


# Layers


async def test_files_are_carried_over_once(bench: Bench) -> None:
    script = "echo one > /kept; rm /etc/group; mkdir /tmp/d; chmod 700 /tmp/d; exit 0"
    capsule, sandbox, old = await bench.up("sh", "-c", script)
    await bench.ended(capsule)
    config = bench.sandbox(capsule)
    again = bench.container(
        capsule, "sh", "-c", "cat /kept; ls /etc/group; stat -c %a /tmp/d; echo two >> /kept", run=2
    )
    new = await bench.runtime.create_container(sandbox, again, config)
    for _ in range(3):  # a crash after it, and the call again
        await bench.runtime.carry_layer(old, new)
    await bench.runtime.start_container(new)
    async with asyncio.timeout(10):
        while any(c.state != "exited" for c in (await bench.runtime.observe(capsule))[1]):
            await asyncio.sleep(0.05)
    log = bench.log(capsule, "2-0.log")
    assert "F one" in log
    assert "No such file" in log
    assert "F 700" in log
    with pytest.raises(ConflictError):
        await bench.runtime.carry_layer(old, new)  # it has been started
    third = bench.container(capsule, "cat", "/kept", run=3)
    last = await bench.runtime.create_container(sandbox, third, config)
    await bench.runtime.carry_layer(new, last)
    await bench.runtime.remove_container(new)
    await bench.runtime.start_container(last)
    async with asyncio.timeout(10):
        while any(c.state != "exited" for c in (await bench.runtime.observe(capsule))[1]):
            await asyncio.sleep(0.05)
    assert "F two" in bench.log(capsule, "3-0.log")


# Exec


async def test_exec_exit_codes_and_streams(bench: Bench) -> None:
    _, _, container = await bench.up("sleep", "1000")
    assert await _run(bench, container, "sh", "-c", "echo a; echo b >&2; exit 42") == (42, b"a\n", b"b\n")
    assert (await _run(bench, container, "sh", "-c", "kill -9 $$"))[0] == 137
    assert (await _run(bench, container, "true"))[0] == 0
    assert list(bench.runtime.exec_root.iterdir()) == []
    assert bench.runtime.live_execs == set()


async def test_exec_half_close(bench: Bench) -> None:
    _, _, container = await bench.up("sleep", "1000")
    session = await bench.runtime.exec(container, ExecRequest(["wc", "-c"], stdin=True))
    for _ in range(40):
        await session.write(b"x" * 10_000)
    await session.close_stdin()
    out = b"".join([data async for _, data in session.output()])
    assert out.strip() == b"400000"
    assert await session.wait() == 0
    await session.write(b"into the void")
    await session.close()


async def test_exec_terminal(bench: Bench) -> None:
    _, _, container = await bench.up("sleep", "1000")
    request = ExecRequest(["sh"], tty=True, stdin=True, width=101, height=33)
    session = await bench.runtime.exec(container, request)
    seen = b""
    output = session.output()

    async def until(words: bytes) -> None:
        nonlocal seen
        async with asyncio.timeout(10):
            while words not in seen:
                stream, data = await anext(output)
                assert stream == "stdout"
                seen += data

    await session.write(b"stty size; echo $TERM.\n")
    await until(b"33 101")
    await until(b"xterm.")
    await session.resize(80, 24)
    await session.write(b"stty size\n")
    await until(b"24 80")
    await session.write(b"exit 4\n")
    assert await asyncio.wait_for(session.wait(), 10) == 4
    async with asyncio.timeout(10):
        async for _ in output:
            pass
    await session.close()


async def test_exec_carries_a_hundred_megabytes_unharmed(bench: Bench) -> None:
    _, _, container = await bench.up("sleep", "1000")
    size = 100 << 20
    command = f"head -c {size} /dev/zero | tee /proc/self/fd/2 2>/dev/null | cat"
    session = await bench.runtime.exec(container, ExecRequest(["sh", "-c", command]))
    digest, count, memory = hashlib.sha256(), 0, _memory()
    async for stream, data in session.output():
        if stream == "stdout":
            digest.update(data)
            count += len(data)
        if count < 1 << 20:
            await asyncio.sleep(0.01)  # a slow reader: the rest has to wait in the process
    assert count == size
    assert digest.hexdigest() == hashlib.sha256(bytes(size)).hexdigest()
    assert await session.wait() == 0
    await session.close()
    assert _memory() - memory < 60 << 20


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_exec_echoes_megabytes_both_ways(bench: Bench) -> None:
    _, _, container = await bench.up("sleep", "1000")
    session = await bench.runtime.exec(container, ExecRequest(["cat"], stdin=True))
    block = random.randbytes(1 << 16)

    async def send() -> None:
        for _ in range(160):
            await session.write(block)
        await session.close_stdin()

    sender = asyncio.create_task(send())
    digest = hashlib.sha256()
    async for _, data in session.output():
        digest.update(data)
    await sender
    assert digest.hexdigest() == hashlib.sha256(block * 160).hexdigest()
    await session.close()


async def test_closing_kills_and_a_lingering_child_holds_nobody(bench: Bench) -> None:
    _, _, container = await bench.up("sleep", "1000")
    session = await bench.runtime.exec(container, ExecRequest(["sleep", "500"]))
    started = time.monotonic()
    await session.close()
    assert time.monotonic() - started < 5
    assert b"sleep 500" not in (await _run(bench, container, "ps"))[1]
    started = time.monotonic()
    assert await _run(bench, container, "sh", "-c", "sleep 60 & echo done") == (0, b"done\n", b"")
    assert time.monotonic() - started < 8
    # Nobody reads the output, and the process is full of it.
    session = await bench.runtime.exec(container, ExecRequest(["yes"]))
    await asyncio.sleep(0.3)
    started = time.monotonic()
    await session.close()
    assert time.monotonic() - started < 8


async def test_no_exec_where_nothing_runs(bench: Bench) -> None:
    capsule, _, container = await bench.up("true")
    await bench.ended(capsule)
    with pytest.raises(ConflictError):
        await bench.runtime.exec(container, ExecRequest(["true"]))
    with pytest.raises(ConflictError):
        await bench.runtime.exec("0" * 64, ExecRequest(["true"]))


# Images


async def test_images_by_name_and_id(bench: Bench) -> None:
    image = await bench.runtime.image("busybox")
    assert image is not None
    assert image.tags == [BUSYBOX]
    assert image.command == ["sh"]
    assert await bench.runtime.image(image.id) == image
    assert await bench.runtime.image(image.id.removeprefix("sha256:")[:12]) == image
    assert await bench.runtime.image("nosuch:1") is None
    assert [i.id for i in await bench.runtime.images()] == [image.id]


async def test_an_image_that_is_not_here_cannot_be_made_into_a_container(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="Pull it first"):
        await bench.up("true", image_ref="docker.io/library/nosuch:1")


async def test_names_come_and_go_one_by_one(bench: Bench, tmp_path: Path) -> None:
    archive = _renamed(bench.data / "busybox.tar", tmp_path / "two.tar", "docker.io/library/second:v1")
    assert await bench.runtime.import_image(str(archive)) == ["docker.io/library/second:v1"]
    image = await bench.runtime.image("second:v1")
    assert image is not None
    assert sorted(image.tags) == [BUSYBOX, "docker.io/library/second:v1"]
    await bench.runtime.remove_image("second:v1")
    assert await bench.runtime.image("second:v1") is None
    assert (await bench.runtime.image("busybox")) is not None
    await bench.runtime.remove_image("second:v1")


def _renamed(source: Path, target: Path, name: str) -> Path:
    import io
    import tarfile

    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            data = old.extractfile(member).read()  # type: ignore[union-attr]
            data = data.replace(BUSYBOX.encode(), name.encode()) if member.name == "index.json" else data
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return target


async def test_docker_save_archives_run(fresh: Bench, tmp_path: Path) -> None:
    archive = _docker_archive(fresh.data / "busybox.tar", tmp_path / "saved.tar.gz", "saved:v2")
    await fresh.runtime.remove_image("busybox")
    assert await fresh.runtime.images() == []
    assert await fresh.runtime.import_image(str(archive)) == ["docker.io/library/saved:v2"]
    capsule, _, _ = await fresh.up("echo", "runs", image_ref="saved:v2")
    assert (await fresh.ended(capsule)).exit_code == 0
    assert "F runs" in fresh.log(capsule)
    # The collector has had its chance, and containerd starts anew: all is still there.
    os.kill(fresh.containerd.pid or 0, signal.SIGKILL)
    await _back(fresh, 1)
    capsule, _, _ = await fresh.up("echo", "again", image_ref="saved:v2")
    assert (await fresh.ended(capsule)).exit_code == 0


def _docker_archive(source: Path, target: Path, tag: str) -> Path:
    import io
    import tarfile

    with tarfile.open(source) as old:
        files = {m.name: old.extractfile(m).read() for m in old}  # type: ignore[union-attr]
    blob = lambda digest: files["blobs/sha256/" + digest.removeprefix("sha256:")]  # noqa: E731
    manifest = json.loads(blob(json.loads(files["index.json"])["manifests"][0]["digest"]))
    layer = blob(manifest["layers"][0]["digest"])
    listing = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["abc/layer.tar"]}]
    with tarfile.open(target, "w:gz") as new:
        for name, data in (
            ("config.json", blob(manifest["config"]["digest"])),
            ("abc/layer.tar", layer),
            ("manifest.json", json.dumps(listing).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            new.addfile(info, io.BytesIO(data))
    return target


async def test_pulling_from_a_registry(bench: Bench, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(bench.data / "busybox.tar") as old:
        files = {m.name: old.extractfile(m).read() for m in old}  # type: ignore[union-attr]
    manifest_digest = json.loads(files["index.json"])["manifests"][0]["digest"]
    manifest = json.loads(files["blobs/sha256/" + manifest_digest[7:]])
    # Its own configuration, so that nothing is here already.
    config = json.loads(files["blobs/sha256/" + manifest["config"]["digest"][7:]]) | {"author": "registry"}
    blobs = {f"sha256:{name.split('/')[-1]}": data for name, data in files.items() if name.startswith("blobs")}
    # A layer that no other image has: random bytes after the end of the tar change nothing in it.
    layer_data = blobs[manifest["layers"][0]["digest"]] + bytes(10240) + random.randbytes(1024)
    manifest["layers"][0] |= {"digest": f"sha256:{hashlib.sha256(layer_data).hexdigest()}", "size": len(layer_data)}
    blobs[manifest["layers"][0]["digest"]] = layer_data
    config["rootfs"]["diff_ids"] = [manifest["layers"][0]["digest"]]
    steps: list[tuple[int, int]] = []
    data = json.dumps(config).encode()
    manifest["config"] |= {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}
    blobs[manifest["config"]["digest"]] = data
    top = json.dumps(manifest).encode()
    top_digest = f"sha256:{hashlib.sha256(top).hexdigest()}"

    async def serve(request: web.Request) -> web.StreamResponse:
        kind, what = request.match_info["kind"], request.match_info["what"]
        if request.match_info["name"] != "some/app":
            return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)
        body = top if kind == "manifests" and what in ("v1", top_digest) else blobs.get(what)
        if body is None:
            return web.json_response({"errors": [{"code": "BLOB_UNKNOWN"}]}, status=404)
        if len(body) > 1 << 20:
            answer = web.StreamResponse(headers={"Content-Length": str(len(body))})
            await answer.prepare(request)
            for start in range(0, len(body), len(body) // 4 + 1):
                await answer.write(body[start : start + len(body) // 4 + 1])
                await asyncio.sleep(0.4)
            return answer
        media = manifest["mediaType"] if kind == "manifests" else "application/octet-stream"
        headers = {"Docker-Content-Digest": what if what.startswith("sha256") else top_digest}
        return web.Response(body=body, content_type=media, headers=headers)

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    async def hello(_: web.Request) -> web.StreamResponse:
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/v2/", hello)
    app.router.add_get("/v2/hang/{rest:.*}", hang)
    app.router.add_get("/v2/{name:.+}/{kind:manifests|blobs}/{what}", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    impatient = bench.make_runtime(pull_stall_s=2.0)
    try:
        image = await bench.runtime.pull(f"{address}/some/app:v1", lambda done, total: steps.append((done, total)))
        assert steps == sorted(steps)
        assert 0 < steps[0][0] < steps[0][1] == len(layer_data)
        assert steps[-1][0] == steps[-1][1] >= len(layer_data)
        assert image.tags == [f"{address}/some/app:v1"]
        assert image.digests == [f"{address}/some/app@{top_digest}"]
        with pytest.raises(NotFoundError, match="does not exist"):
            await bench.runtime.pull(f"{address}/some/other:v1")
        with pytest.raises(NotFoundError, match="does not exist"):
            await bench.runtime.pull(f"{address}/some/app:v9")
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="nothing came"):
            await impatient.pull(f"{address}/hang/x:1")
        assert time.monotonic() - started < 8
        await bench.runtime.remove_image(f"{address}/some/app:v1")
    finally:
        await impatient.close()
        await runner.cleanup()
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await bench.runtime.pull(f"{address}/some/app:v1")


async def test_a_registry_that_has_no_address(bench: Bench) -> None:
    impatient = bench.make_runtime(pull_stall_s=5.0)
    try:
        with pytest.raises(UnavailableError) as caught:
            await asyncio.wait_for(impatient.pull("registry.invalid/x:1"), 30)
        assert len(caught.value.message) < 300
    finally:
        await impatient.close()


# Life and death of containerd


async def _back(bench: Bench, restarts: int) -> None:
    async with asyncio.timeout(60):
        while bench.containerd.restarts < restarts or not bench.containerd.answering.is_set():
            await asyncio.sleep(0.05)
        # The channel reconnects within a second.
        while True:
            with contextlib.suppress(RuntimeFailedError):
                await bench.runtime.observe()
                return
            await asyncio.sleep(0.05)


async def test_containerd_is_restarted_and_containers_live_on(fresh: Bench) -> None:
    capsule, _, container = await fresh.up("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
    before = await fresh.one(capsule)
    session = await fresh.runtime.exec(container, ExecRequest(["sh", "-c", "read x; exit 6"], stdin=True))
    events = aiter(fresh.runtime.events())
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.3)
    for number in (1, 2):
        pid = fresh.containerd.pid
        os.kill(pid or 0, signal.SIGKILL)
        await _back(fresh, number)
        assert fresh.containerd.pid != pid
    with pytest.raises(UnavailableError):
        await waiting
    after = await fresh.one(capsule)
    assert (after.id, after.state, after.started_us) == (before.id, "running", before.started_us)
    # An exec session survives it, too.
    await session.write(b"go\n")
    assert await asyncio.wait_for(session.wait(), 20) == 6
    await session.close()
    lines = len(fresh.log(capsule).splitlines())
    await asyncio.sleep(0.5)
    assert len(fresh.log(capsule).splitlines()) > lines


async def test_a_paused_container_outlives_containerd(fresh: Bench) -> None:
    """CRI cannot take a paused one over: it goes on for a moment, and whoever wants it paused pauses it again."""
    capsule, _, container = await fresh.up("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
    before = await fresh.one(capsule)
    for number in (1, 2):
        await fresh.runtime.pause(container)
        os.kill(fresh.containerd.pid or 0, signal.SIGKILL)
        await _back(fresh, number)
        after = await fresh.one(capsule)
        assert (after.id, after.state, after.started_us) == (before.id, "running", before.started_us)
    # CRI knows it as well as before: its limits can be changed, and its end is seen.
    await fresh.runtime.update_limits(container, Limits(cpu_shares=512, memory_bytes=48 << 20))
    changed = await fresh.one(capsule)
    assert (changed.cpu_shares, changed.memory_bytes) == (512, 48 << 20)
    lines = len(fresh.log(capsule).splitlines())
    await asyncio.sleep(0.5)
    assert len(fresh.log(capsule).splitlines()) > lines
    await fresh.runtime.signal(container, signal.SIGKILL)
    assert (await fresh.ended(capsule)).exit_code == 137
    assert not list(fresh.containerd.state.glob("r.sock*"))


async def test_a_paused_container_outlives_the_containerd_of_others(fresh: Bench) -> None:
    """Nobody lets it go on before CRI looks: to CRI it is lost, but it lives, can go on, and ends like any other."""
    capsule, _, container = await fresh.up("sleep", "1000")
    await fresh.runtime.pause(container)
    await fresh.containerd.detach()
    os.kill(fresh.containerd.pid or 0, signal.SIGKILL)
    config = str(fresh.containerd.state / "config.toml")
    await asyncio.create_subprocess_exec("containerd", "--config", config, stderr=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(AskosError):
                if (found := await fresh.one(capsule)).state:
                    break
            await asyncio.sleep(0.1)
    assert found.state == "paused"
    await fresh.runtime.unpause(container)
    assert (await fresh.one(capsule)).state == "running"
    await fresh.runtime.stop_container(container, 0)
    assert (await fresh.ended(capsule)).id == container
    fresh.containerd = private(fresh.data, fresh.instance)
    await fresh.containerd.start()


async def test_a_new_program_adopts_what_runs(fresh: Bench) -> None:
    capsule, _, _ = await fresh.up("sleep", "1000")
    before, pid = await fresh.one(capsule), fresh.containerd.pid
    with pytest.raises(SetupError, match="Another askos"):
        await private(fresh.data, fresh.instance).start()
    await fresh.containerd.detach()
    adopted = private(fresh.data, fresh.instance)
    await adopted.start()
    assert adopted.pid == pid
    await adopted.detach()
    # The record was never written: found all the same, but replaced, as nobody knows with what it was started.
    (fresh.containerd.state / "process.json").unlink()
    fresh.containerd = private(fresh.data, fresh.instance)
    await fresh.containerd.start()
    assert fresh.containerd.pid != pid
    assert not processes.command_line(pid or 0)
    assert (await fresh.one(capsule)).id == before.id
    assert (await fresh.one(capsule)).state == "running"


async def test_containerd_outlives_our_own_kill(fresh: Bench) -> None:
    await fresh.containerd.detach()
    os.kill(fresh.containerd.pid or 0, signal.SIGTERM)
    script = f"""
        import asyncio, os, sys
        from pathlib import Path
        from askos.adapters.containerd.supervise import PrivateContainerd
        async def main():
            c = PrivateContainerd(Path({str(fresh.data)!r}), {fresh.instance!r},
                cni_bin_dir=Path({str(fresh.data / "cni-bin")!r}), cni_conf_dir=Path({str(fresh.data / "cni-conf")!r}))
            await c.start()
            print(c.pid, flush=True)
            os.kill(os.getpid(), 9)
        asyncio.run(main())
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(script), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == -9
    fresh.containerd = private(fresh.data, fresh.instance)
    await fresh.containerd.start()
    assert fresh.containerd.pid == int(out)


async def test_setup_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="install the package containerd"):
        await private(tmp_path, "ab", binary="no-such-containerd").start()
    with pytest.raises(SetupError, match="shorter"):
        await private(tmp_path / ("x" * 100), "ab").start()


async def test_stop_leaves_no_process_and_no_mount(fresh: Bench) -> None:
    capsule, _, container = await fresh.up("sleep", "1000")
    assert teardown.shims(fresh.containerd.socket)
    assert mounts.below(fresh.data)
    task = api.GetTaskRequest(container_id=container)
    answer = await fresh.runtime.client.call("tasks.v1.Tasks/Get", task, 5)
    await fresh.containerd.stop()
    assert teardown.shims(fresh.containerd.socket) == {}
    assert mounts.below(fresh.data) == []
    assert cgroups.roots(fresh.instance) == []
    assert processes.identify(answer.process.pid) is None
    assert processes.with_arguments("--config", str(fresh.containerd.state / "config.toml")) == []
    # What was running is known as ended after the next start.
    await fresh.containerd.start()
    await _back(fresh, 0)
    assert (await fresh.one(capsule)).state == "exited"


async def test_nothing_is_left_after_many_crashes(fresh: Bench) -> None:
    """containerd is killed at random points of making and removing; then everything known is removed and swept."""
    removed: list[str] = []
    kept, _, survivor = await fresh.up("sleep", "1000")
    chance = random.Random()
    for number in range(1, 11):
        makers = [asyncio.create_task(fresh.up("sleep", "1000")) for _ in range(2)]
        await asyncio.sleep(chance.uniform(0.0, 0.35))
        os.kill(fresh.containerd.pid or 0, signal.SIGKILL)
        await asyncio.gather(*makers, return_exceptions=True)
        await _back(fresh, number)
        removed += await sweep(fresh.runtime, fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket)
        for sandbox in (await fresh.runtime.observe())[0]:
            if sandbox.capsule_uuid != kept and chance.random() < 0.5:
                await fresh.runtime.remove_sandbox(sandbox.id)
    print(f"swept: {sorted({line.rsplit(' ', 1)[0] for line in removed})}, {len(removed)} in all")
    assert (await fresh.one(kept)).state == "running"
    assert (await _run(fresh, survivor, "true"))[0] == 0
    await fresh.clear()
    await sweep(fresh.runtime, fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket)
    assert await sweep(fresh.runtime, fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket) == []
    assert await fresh.runtime.cri_lists() == ([], [])
    listed = await fresh.runtime.client.call("containers.v1.Containers/List", api.ListContainersRequest(), 5)
    assert list(listed.containers) == []
    assert teardown.shims(fresh.containerd.socket) == {}
    assert mounts.below(fresh.data) == []
    assert cgroups.groups(fresh.instance) == {}
    state = fresh.containerd.state
    assert list((state / "io.containerd.grpc.v1.cri" / "netns").iterdir()) == []
    assert list((state / "io.containerd.runtime.v2.task" / "k8s.io").iterdir()) == []
    # Room is made for the leases of unfinished work by now: the same capsules could be made again.
    capsule, _, _ = await fresh.up("true")
    assert (await fresh.ended(capsule)).exit_code == 0


async def test_sweep_ends_exec_sessions_of_the_dead_and_leaves_the_living(fresh: Bench) -> None:
    _, _, container = await fresh.up("sleep", "1000")
    mine = await fresh.runtime.exec(container, ExecRequest(["sleep", "501"]))
    dead = await fresh.runtime.exec(container, ExecRequest(["sleep", "502"]))
    fresh.runtime.live_execs.discard(f"{container}.{dead._id}")
    removed = await sweep(fresh.runtime, fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket)
    assert removed == [f"exec session {dead._id} of container {container}"]
    listing = (await _run(fresh, container, "ps"))[1]
    assert b"sleep 501" in listing
    assert b"sleep 502" not in listing
    await mine.close()
    await dead.close()


@pytest.mark.parametrize("given_up", [False, True])
async def test_sweep_ends_a_start_of_the_dead_that_nobody_reads_from(fresh: Bench, given_up: bool) -> None:
    """Killed between starting a process and reading from it: the shim waits for a reader, and all others for the
    shim; when it gives up, the process lives on."""
    _, _, container = await fresh.up("sleep", "1000")
    folder = fresh.runtime.exec_root / f"{container}.stuck"
    folder.mkdir(parents=True)
    for name in ("stdout", "stderr"):
        os.mkfifo(folder / name, 0o600)
    client, fields = fresh.runtime.client, {"container_id": container, "exec_id": "stuck"}
    known = await client.call("containers.v1.Containers/Get", api.GetContainerRequest(id=container), 10)
    process = {**json.loads(known.container.spec.value)["process"], "args": ["sleep", "503"]}
    kind = "types.containerd.io/opencontainers/runtime-spec/1/Process"
    pipes = {name: str(folder / name) for name in ("stdout", "stderr")}
    spec = any_pb2.Any(type_url=kind, value=json.dumps(process).encode())
    await client.call("tasks.v1.Tasks/Exec", api.ExecProcessRequest(**fields, **pipes, spec=spec), 10)
    starting = asyncio.create_task(
        client.call("tasks.v1.Tasks/Start", api.StartRequest(**fields), 2 if given_up else 45)
    )
    while not (left := _inside(container, "sleep 503")):
        await asyncio.sleep(0.02)
    if given_up:
        await asyncio.gather(starting, return_exceptions=True)
    # A hang would last for the 30 s that the shim waits.
    async with asyncio.timeout(20):
        removed = await sweep(fresh.runtime, fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket)
        assert removed == [f"exec session stuck of container {container}"]
        while any(Path(f"/proc/{pid}").exists() for pid in left):
            await asyncio.sleep(0.02)
        # The shim serves others again.
        assert (await _run(fresh, container, "echo", "hi"))[1] == b"hi\n"
    assert not folder.exists()
    await asyncio.gather(starting, return_exceptions=True)


def _inside(container: str, command: str) -> list[int]:
    """The processes with a command line in a container, seen from the host."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and container in (entry / "cgroup").read_text():
                words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                if b" ".join(words).decode() == command:
                    found.append(int(entry.name))
    return found


async def test_sweep_removes_planted_leftovers(fresh: Bench) -> None:
    capsule, _, _ = await fresh.up("sleep", "1000")
    spaces = fresh.containerd.state / "io.containerd.grpc.v1.cri" / "netns"
    planted = spaces / "cni-planted"
    planted.touch()
    subprocess.run(["unshare", f"--net={planted}", "true"], check=True)
    group = cgroups.roots(fresh.instance)[0] / ("e" * 64)
    group.mkdir()
    sleeper = await asyncio.create_subprocess_exec("sleep", "1000")
    (group / "cgroup.procs").write_text(str(sleeper.pid))
    removed = await sweep(fresh.runtime, fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket)
    assert sorted(removed) == [f"control group {'e' * 64}", "network namespace cni-planted"]
    assert not planted.exists()
    assert await asyncio.wait_for(sleeper.wait(), 5) == -9
    assert (await fresh.one(capsule)).state == "running"


async def test_sweep_removes_layers_that_were_being_unpacked_when_somebody_was_killed(fresh: Bench) -> None:
    """Not while something is pulled: nobody can tell whose they are then."""
    name = f"extract-12345-abcd sha256:{'e' * 64}"
    command = ["ctr", "-a", str(fresh.containerd.socket), "-n", "k8s.io", "snapshots", "--snapshotter"]
    command += [fresh.containerd.snapshotter, "prepare", name]
    await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    asked = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    registry = await asyncio.start_server(swallow, "127.0.0.1", 0)
    pulling = asyncio.create_task(fresh.runtime.pull(f"127.0.0.1:{registry.sockets[0].getsockname()[1]}/some/app:1"))
    await asyncio.wait_for(asked.wait(), 20)
    places = fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket
    assert await sweep(fresh.runtime, *places) == []
    pulling.cancel()
    await asyncio.gather(pulling, return_exceptions=True)
    registry.close()
    assert await sweep(fresh.runtime, *places) == [f"snapshot {name}"]
    assert await sweep(fresh.runtime, *places) == []


async def test_the_sandbox_image_can_be_busybox_too(fresh: Bench) -> None:
    archive = fresh.data / "pause.tar"
    await asyncio.to_thread(make_pause_archive, archive, None)
    assert await fresh.runtime.import_image(str(archive)) == ["askos.local/pause:1"]
    capsule, _, _ = await fresh.up("sleep", "100")
    assert [s.ready for s in (await fresh.runtime.observe(capsule))[0]] == [True]
    answer = await fresh.runtime.client.call("tasks.v1.Tasks/List", api.ListTasksRequest(), 5)
    commands = [processes.command_line(task.pid) for task in answer.tasks]
    assert ["/busybox", "sleep", "2147483647"] in commands


async def test_the_native_snapshotter_carries_too(fresh: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from askos.adapters.containerd import config

    async def no_overlay(_: Path) -> bool:
        return False

    monkeypatch.setattr(config, "carries_overlay", no_overlay)
    await fresh.containerd.stop()
    await fresh.containerd.start()
    assert fresh.containerd.snapshotter == "native"
    await fresh.runtime.close()
    fresh.runtime = fresh.make_runtime()
    await test_files_are_carried_over_once(fresh)


async def test_how_fast_it_is(bench: Bench) -> None:
    times: dict[str, list[float]] = {"sandbox": [], "create": [], "start": [], "observe": []}
    for _ in range(7):
        config = bench.sandbox()
        marks = [time.perf_counter()]
        sandbox = await bench.runtime.run_sandbox(config)
        marks.append(time.perf_counter())
        container = bench.container(config.capsule_uuid, "sleep", "100")
        created = await bench.runtime.create_container(sandbox, container, config)
        marks.append(time.perf_counter())
        await bench.runtime.start_container(created)
        marks.append(time.perf_counter())
        await bench.runtime.observe(config.capsule_uuid)
        for name, one, other in zip(("sandbox", "create", "start"), marks, marks[1:], strict=False):
            times[name].append((other - one) * 1000)
        for _ in range(20):
            begun = time.perf_counter()
            await bench.runtime.observe(config.capsule_uuid)
            times["observe"].append((time.perf_counter() - begun) * 1000)
        await bench.runtime.remove_sandbox(sandbox)
    middle = {name: sorted(values)[len(values) // 2] for name, values in times.items()}
    print("median ms:", {name: round(value, 2) for name, value in middle.items()})
    assert middle["observe"] < 50
