"""What pods need of the containerd adapter, against a real containerd: users, credentials, groups, attached clients."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import signal
import tarfile
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from askos.adapters.containerd import cgroups
from askos.adapters.containerd.sweep import sweep
from askos.model.errors import NotFoundError, RuntimeFailedError, UnavailableError
from askos.ports.runtime import Credential, ExecRequest, Limits, Security

from .containerd_fixtures import Bench, bench, fresh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
__all__ = ["bench", "fresh"]  # fixtures


async def _run(bench: Bench, container: str, *argv: str) -> tuple[int, str]:
    session = await bench.runtime.exec(container, ExecRequest(list(argv)))
    out = b""
    try:
        async for _, data in session.output():
            out += data
        return await session.wait(), out.decode()
    finally:
        await session.close()


# Images


def _blobs(archive: Path) -> tuple[dict[str, bytes], str]:
    """The blobs of an OCI archive by digest, and the digest of its manifest."""
    with tarfile.open(archive) as old:
        files = {m.name: old.extractfile(m).read() for m in old if m.isfile()}  # type: ignore[union-attr]
    blobs = {f"sha256:{name.rsplit('/', 1)[1]}": data for name, data in files.items() if name.startswith("blobs")}
    return blobs, json.loads(files["index.json"])["manifests"][0]["digest"]


def _variant(archive: Path, files: dict[str, str], **config: object) -> tuple[dict[str, bytes], str]:
    """Blobs and manifest digest of an image with another configuration and a few files more."""
    blobs, digest = _blobs(archive)
    manifest = json.loads(blobs[digest])
    settings = json.loads(blobs[manifest["config"]["digest"]])
    settings["config"] = {**settings.get("config", {}), **config}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            layer.addfile(info, io.BytesIO(text.encode()))
    layer_digest = _add(blobs, buffer.getvalue())
    settings["rootfs"]["diff_ids"].append(layer_digest)
    media = "application/vnd.oci.image.layer.v1.tar"
    manifest["layers"].append({"mediaType": media, "digest": layer_digest, "size": len(buffer.getvalue())})
    data = json.dumps(settings).encode()
    manifest["config"] |= {"digest": _add(blobs, data), "size": len(data)}
    return blobs, _add(blobs, json.dumps(manifest).encode())


def _add(blobs: dict[str, bytes], data: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    blobs[digest] = data
    return digest


class Registry:
    """Serves one image, to those who log in if `login` is set ("user:password")."""

    def __init__(self, blobs: dict[str, bytes], top: str, login: str = "") -> None:
        self.blobs = blobs
        self.top = top
        self.login = login
        self.seen: set[str] = set()
        self.address = ""

    async def __aenter__(self) -> Registry:
        app = web.Application()
        app.router.add_get("/v2/", self._hello)
        app.router.add_get("/v2/some/app/{kind:manifests|blobs}/{what}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def _refuse(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        self.seen.add(given)
        if not self.login or given == f"Basic {base64.b64encode(self.login.encode()).decode()}":
            return None
        headers = {"WWW-Authenticate": 'Basic realm="test"'}
        return web.json_response({"errors": [{"code": "UNAUTHORIZED", "message": given}]}, status=401, headers=headers)

    async def _hello(self, request: web.Request) -> web.StreamResponse:
        return self._refuse(request) or web.json_response({})

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        refused = self._refuse(request)
        if refused is not None:
            return refused
        kind, what = request.match_info["kind"], request.match_info["what"]
        digest = self.top if kind == "manifests" and what == "v1" else what
        if digest not in self.blobs:
            return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)
        media = json.loads(self.blobs[self.top])["mediaType"] if kind == "manifests" else "application/octet-stream"
        return web.Response(body=self.blobs[digest], content_type=media, headers={"Docker-Content-Digest": digest})


async def test_a_pull_with_a_login(bench: Bench) -> None:
    blobs, top = _variant(bench.data / "busybox.tar", {"mark": "login"})
    good, bad = Credential("somebody", "sesame-7"), Credential("somebody", "wrong-sesame")
    async with Registry(blobs, top, "somebody:sesame-7") as registry:
        name = f"{registry.address}/some/app:v1"
        for credential in (None, bad):
            with pytest.raises(NotFoundError, match="needs a login") as caught:
                await bench.runtime.pull(name, credential=credential)
            assert "sesame" not in caught.value.message
        image = await bench.runtime.pull(name, credential=good)
        assert image.tags == [name]
        await bench.runtime.remove_image(name)
        # By its digest: nothing else can come, whatever the tag has become.
        pinned = f"{registry.address}/some/app@{top}"
        image = await bench.runtime.pull(f"{registry.address}/some/app:v1@{top}", credential=good)
        assert image.digests == [pinned]
        assert await bench.runtime.image(pinned) == image
        capsule, _, _ = await bench.up("cat", "/mark", image_ref=pinned)
        assert (await bench.ended(capsule)).exit_code == 0
        assert bench.log(capsule).endswith("F login\n") or bench.log(capsule).endswith("P login\n")
        other = hashlib.sha256(b"other").hexdigest()
        with pytest.raises(NotFoundError):
            await bench.runtime.pull(f"{registry.address}/some/app@sha256:{other}", credential=good)
        await bench.clear()
        await bench.runtime.remove_image(pinned)
        assert await bench.runtime.image(pinned) is None


_PASSWD = "root:x:0:0:root:/:/bin/sh\napp:x:123:456::/:/bin/sh\nother:x:124:457::/:/bin/sh\n"
_GROUP = "root:x:0:\ndisk:x:6:root\napp:x:456:\nextra:x:789:app\nstaff:x:50:\n"


@pytest.mark.parametrize(
    ("image_user", "security", "expected"),
    [
        ("app", Security(), ("123", "456", {"456", "789"})),
        ("app:staff", Security(), ("123", "50", {"50"})),
        ("app:50", Security(), ("123", "50", {"50", "789"})),
        ("123", Security(), ("123", "456", {"456", "789"})),
        ("4000:5000", Security(), ("4000", "5000", {"5000"})),
        ("app", Security(run_as_group=70), ("123", "70", {"70", "789"})),
        ("app", Security(run_as_user=124), ("124", "457", {"457"})),
        ("app", Security(run_as_user=0, supplemental_groups=[9]), ("0", "0", {"0", "6", "9"})),
        ("", Security(run_as_group=70), ("0", "70", {"70", "6"})),
    ],
)
async def test_the_images_user(
    bench: Bench, image_user: str, security: Security, expected: tuple[str, str, set[str]]
) -> None:
    files = {"etc/passwd": _PASSWD, "etc/group": _GROUP, "mark": image_user}
    blobs, top = _variant(bench.data / "busybox.tar", files, User=image_user, StopSignal="SIGUSR2")
    async with Registry(blobs, top) as registry:
        name = f"{registry.address}/some/app:v1"
        image = await bench.runtime.pull(name)
        assert (image.user, image.stop_signal) == (image_user, "SIGUSR2")
        script = "trap 'exit 8' USR2; id -u; id -g; id -G; echo ready; while true; do sleep 0.1; done"
        capsule, sandbox, container = await bench.up("sh", "-c", script, image_ref=name, security=security)
        await bench.said(capsule, "ready")
        user, group, groups, _ = [line.split(" ", 3)[3] for line in bench.log(capsule).splitlines()]
        assert (user, group) == expected[:2]
        # Never those of root, which containerd would add.
        assert set(groups.split()) == expected[2]
        await bench.runtime.stop_container(container, 60)
        assert (await bench.one(capsule)).exit_code == 8
        await bench.runtime.remove_sandbox(sandbox)
        await bench.runtime.remove_image(name)


# Attached clients


async def test_attached_clients_get_every_byte(bench: Bench) -> None:
    """16 MiB through `cat` and back, with a reader that is slow at first."""
    capsule, _, container = await bench.up("sh", "-c", "cat", interactive=True, stdin_once=True)
    session = await bench.runtime.attach(container, stdin=True, tty=False)
    sent, got = hashlib.sha256(), hashlib.sha256()
    piece = b"".join(os.urandom(47).hex().encode() + b"\n" for _ in range(690))

    async def feed() -> None:
        for number in range(256):
            data = piece[number:] + piece[:number]
            sent.update(data)
            await session.write(data)
        await session.close_stdin()

    feeding = asyncio.create_task(feed())
    await asyncio.sleep(1)
    assert not feeding.done()
    async for stream, data in session.output():
        assert stream == "stdout"
        got.update(data)
    await feeding
    await session.close()
    assert got.digest() == sent.digest()
    assert (await bench.ended(capsule)).exit_code == 0


async def test_an_attached_client_learns_that_containerd_has_gone(fresh: Bench) -> None:
    capsule, _, container = await fresh.up("cat", interactive=True)
    session = await fresh.runtime.attach(container, stdin=True, tty=False)
    reading = asyncio.create_task(anext(session.output()))
    await asyncio.sleep(0.1)
    os.kill(fresh.containerd.pid or 0, signal.SIGKILL)
    with pytest.raises(UnavailableError, match="Attach again"):
        async with asyncio.timeout(60):
            await reading
    await session.write(b"dropped\n")
    await session.close()
    async with asyncio.timeout(60):
        while fresh.containerd.restarts < 1 or not fresh.containerd.answering.is_set():
            await asyncio.sleep(0.05)
    again = await _until_it_answers(fresh, container)
    output = again.output()
    await again.write(b"back\n")
    async with asyncio.timeout(60):
        assert await anext(output) == ("stdout", b"back\n")
    await output.aclose()
    await again.close()
    assert (await fresh.one(capsule)).state == "running"


async def _until_it_answers(bench: Bench, container: str) -> Any:
    async with asyncio.timeout(60):
        while True:
            try:
                return await bench.runtime.attach(container, stdin=True, tty=False)
            except (UnavailableError, RuntimeFailedError):
                await asyncio.sleep(0.1)


# Control groups


async def test_sweep_knows_both_layouts(fresh: Bench) -> None:
    capsules = [str(uuid.uuid4()) for _ in range(2)]
    for capsule in capsules:
        await fresh.runtime.prepare_group(capsule, 100, Limits())
    within = msgspec.structs.replace(fresh.sandbox(capsules[0]), cgroup_parent=fresh.runtime.group_of(capsules[0]))
    sandbox = await fresh.runtime.run_sandbox(within)
    config = fresh.container(capsules[0], "sleep", "1000")
    container = await fresh.runtime.create_container(sandbox, config, within)
    await fresh.runtime.start_container(container)
    plain, _, other = await fresh.up("sleep", "1000")
    found = cgroups.groups(fresh.instance)
    assert {p.parent.name for p in found[container]} == {capsules[0]}
    assert {p.parent.name for p in found[other]} == {f"askos-{fresh.instance}"}
    # What a crash may leave: a group with a process in it, within a capsule's and beside it.
    pids = cgroups.roots(fresh.instance)[0]
    planted = [pids / capsules[0] / ("e" * 64), pids / ("d" * 64)]
    sleepers = []
    for group in planted:
        group.mkdir(parents=True)
        sleepers.append(await asyncio.create_subprocess_exec("sleep", "1000"))
        (group / "cgroup.procs").write_text(str(sleepers[-1].pid))
    removed = await sweep(fresh.runtime, fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket)
    assert sorted(removed) == [f"control group {'d' * 64}", f"control group {'e' * 64}"]
    assert [await asyncio.wait_for(s.wait(), 60) for s in sleepers] == [-9, -9]
    assert not any(group.exists() for group in planted)
    # The living live, and a capsule's group that waits for its first sandbox is still there.
    assert (await fresh.one(capsules[0])).state == (await fresh.one(plain)).state == "running"
    assert await fresh.runtime.capsule_groups() == set(capsules)
    await fresh.clear()
    for capsule in capsules:
        await fresh.runtime.discard_group(capsule)
    assert cgroups.groups(fresh.instance) == {}
    assert await fresh.runtime.capsule_groups() == set()


async def test_discarding_a_group_kills_what_is_left(bench: Bench) -> None:
    capsule = str(uuid.uuid4())
    await bench.runtime.prepare_group(capsule, 100, Limits(memory_bytes=64 << 20))
    group = next(r / capsule for r in cgroups.roots(bench.instance) if (r / capsule).is_dir())
    inner = group / ("f" * 64)
    inner.mkdir()
    sleeper = await asyncio.create_subprocess_exec("sleep", "1000")
    (inner / "cgroup.procs").write_text(str(sleeper.pid))
    async with asyncio.timeout(60):
        await bench.runtime.discard_group(capsule)
        assert await sleeper.wait() == -9
    assert not group.exists()


async def test_limits_that_the_kernel_refuses_are_told(bench: Bench) -> None:
    capsule = str(uuid.uuid4())
    with pytest.raises(RuntimeFailedError, match=r"Could not limit the capsule: .*cpu"):
        await bench.runtime.prepare_group(capsule, 100, Limits(cpu_quota_us=1))
    await bench.runtime.discard_group(capsule)
