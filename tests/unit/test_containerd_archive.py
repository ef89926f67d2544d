"""Image archives: both forms are read, this machine's image is picked, and everything odd is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from askos.adapters.containerd import archive
from askos.adapters.containerd.archive import Archive, Found, architecture
from askos.model.errors import InvalidError

_OCI = "application/vnd.oci.image."
_OTHER = "arm64" if architecture() == "amd64" else "amd64"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class _Layout:
    """An OCI layout in the making."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.files[f"blobs/sha256/{_digest(data)[7:]}"] = data
        return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}

    def image(self, arch: str, layer: bytes, layers: int = 1) -> dict[str, Any]:
        config = {"os": "linux", "architecture": arch, "rootfs": {"diff_ids": [_digest(layer)] * layers}}
        manifest = {
            "config": self.blob(json.dumps(config).encode(), f"{_OCI}config.v1+json"),
            "layers": [self.blob(layer, f"{_OCI}layer.v1.tar")],
        }
        made = self.blob(json.dumps(manifest).encode(), f"{_OCI}manifest.v1+json")
        return {**made, "platform": {"os": "linux", "architecture": arch}}

    def index(self, *manifests: dict[str, Any]) -> None:
        self.files["index.json"] = json.dumps({"manifests": manifests}).encode()

    def write(self, path: Path, *, zipped: bool = False) -> str:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in self.files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        path.write_bytes(gzip.compress(buffer.getvalue()) if zipped else buffer.getvalue())
        return str(path)


def _named(descriptor: dict[str, Any], name: str) -> dict[str, Any]:
    return {**descriptor, "annotations": {"io.containerd.image.name": name}}


def _read(path: str, ref: str | None, tmp_path: Path) -> list[Found]:
    with Archive(path, tmp_path / "scratch") as opened:
        found = opened.images(ref)
        for image in found:
            for blob in (image.manifest, image.config, *image.layers):
                data = b"".join(opened.read(blob))
                assert (len(data), _digest(data)) == (blob.size, blob.digest)
        return found


@pytest.mark.parametrize("zipped", [False, True])
def test_an_oci_layout(tmp_path: Path, zipped: bool) -> None:
    layout = _Layout()
    layout.index(_named(layout.image(architecture(), b"layer" * 500_000), "busybox:1"))
    [image] = _read(layout.write(tmp_path / "a.tar", zipped=zipped), None, tmp_path)
    assert image.names == ["docker.io/library/busybox:1"]
    assert len(image.layers) == 1


def test_this_machines_image_is_picked_out_of_many(tmp_path: Path) -> None:
    layout = _Layout()
    other, ours = layout.image(_OTHER, b"other"), layout.image(architecture(), b"ours")
    absent = {**ours, "digest": "sha256:" + "0" * 64, "platform": {"os": "windows", "architecture": architecture()}}
    inner = json.dumps({"manifests": [absent, other, ours]}).encode()
    layout.index(_named(layout.blob(inner, f"{_OCI}index.v1+json"), "ghcr.io/a/b:v1"))
    [image] = _read(layout.write(tmp_path / "a.tar"), None, tmp_path)
    assert image.layers[0].digest == _digest(b"ours")
    layout.index(other)
    with pytest.raises(InvalidError, match="no image for linux"):
        _read(layout.write(tmp_path / "b.tar"), "x", tmp_path)


def test_one_image_with_several_names(tmp_path: Path) -> None:
    layout = _Layout()
    image = layout.image(architecture(), b"l")
    layout.index(_named(image, "a:1"), _named(image, "a:2"), _named(image, "a:1"))
    [found] = _read(layout.write(tmp_path / "a.tar"), None, tmp_path)
    assert found.names == ["docker.io/library/a:1", "docker.io/library/a:2"]


def test_a_name_is_asked_for_where_there_is_none(tmp_path: Path) -> None:
    layout = _Layout()
    image = layout.image(architecture(), b"l")
    layout.index({**image, "annotations": {"org.opencontainers.image.ref.name": "v1"}})
    path = layout.write(tmp_path / "a.tar")
    with pytest.raises(InvalidError, match="say which name"):
        _read(path, None, tmp_path)
    assert _read(path, "mine:v1", tmp_path)[0].names == ["docker.io/library/mine:v1"]


def _saved(path: Path, **changes: Any) -> str:
    config = {"os": "linux", "architecture": architecture(), "rootfs": {"diff_ids": ["sha256:1", "sha256:2"]}}
    item = {"Config": "c.json", "RepoTags": ["a:1", "b:2"], "Layers": ["x/layer.tar", "y/layer.tar"], **changes}
    with tarfile.open(path, "w") as tar:
        for name, data in (
            ("./c.json", json.dumps(config).encode()),
            ("x/layer.tar", gzip.compress(b"one")),
            ("manifest.json", json.dumps([item]).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("y/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../x/layer.tar"
        tar.addfile(link)
    return str(path)


def test_docker_save_with_links_between_layers(tmp_path: Path) -> None:
    [image] = _read(_saved(tmp_path / "a.tar"), None, tmp_path)
    assert image.names == ["docker.io/library/a:1", "docker.io/library/b:2"]
    assert [layer.digest for layer in image.layers] == [_digest(gzip.compress(b"one"))] * 2 or len(image.layers) == 2
    assert image.layers[0].digest == image.layers[1].digest
    assert image.layers[0].media_type.endswith("tar+gzip")
    assert _read(_saved(tmp_path / "b.tar", RepoTags=None), "c", tmp_path)[0].names == ["docker.io/library/c:latest"]


@pytest.mark.parametrize(
    "changes",
    [
        {"Layers": ["x/layer.tar"]},
        {"Layers": ["../../etc/passwd", "x/layer.tar"]},
        {"Layers": ["/etc/passwd", "x/layer.tar"]},
        {"Layers": None},
        {"Config": "/etc/passwd"},
        {"Config": None},
        {"RepoTags": ["UPPER"]},
    ],
)
def test_docker_saves_that_do_not_fit_together(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        _read(_saved(tmp_path / "a.tar", **changes), None, tmp_path)


def _bad_tar(path: Path, info: tarfile.TarInfo) -> str:
    with tarfile.open(path, "w") as tar:
        tar.addfile(info)
    return str(path)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    layout = _Layout()
    layout.index(_named(layout.image(architecture(), b"l" * 5000), "a"))
    good = Path(layout.write(tmp_path / "good.tar")).read_bytes()
    for name, data in (
        ("empty", b""),
        ("text", b"hello world" * 100),
        ("short", good[: good.index(b"l" * 5000) + 100]),
        ("not gzip", b"\x1f\x8b" + b"x" * 100),
        ("half gzip", gzip.compress(good)[:-30]),
        ("tar of nothing", bytes(10240)),
    ):
        path = tmp_path / "bad"
        path.write_bytes(data)
        with pytest.raises(InvalidError, match="Could not load an image"):
            _read(str(path), "x", tmp_path)
        assert not list((tmp_path / "scratch").iterdir()) if (tmp_path / "scratch").exists() else True, name
    with pytest.raises(InvalidError, match="No such file"):
        _read(str(tmp_path / "missing"), None, tmp_path)
    for name in ("../x", "/x", "a/../../x"):
        with pytest.raises(InvalidError, match="outside"):
            _read(_bad_tar(tmp_path / "t.tar", tarfile.TarInfo(name)), None, tmp_path)


def test_layouts_that_lie_are_refused(tmp_path: Path) -> None:
    for change in ("size", "digest", "layers", "loop", "config"):
        layout = _Layout()
        image = layout.image(architecture(), b"l", layers=2 if change == "layers" else 1)
        if change == "size":
            image["size"] += 1
        elif change == "digest":
            image["digest"] = "sha256:../../../../etc/passwd"
        elif change == "config":
            layout.files = {k: v for k, v in layout.files.items() if b"diff_ids" not in v}
        elif change == "loop":
            entry = "blobs/sha256/" + "0" * 64
            image = {"mediaType": f"{_OCI}index.v1+json", "digest": "sha256:" + "0" * 64, "size": 1}
            layout.files[entry] = json.dumps({"manifests": [image]}).encode()
        layout.index(_named(image, "a"))
        with pytest.raises(InvalidError):
            _read(layout.write(tmp_path / "a.tar"), None, tmp_path)


def test_size_limits_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = _Layout()
    layout.index(_named(layout.image(architecture(), bytes(4 << 20)), "a"))
    path = layout.write(tmp_path / "bomb.tar.gz", zipped=True)
    assert Path(path).stat().st_size < 100_000
    monkeypatch.setattr(archive, "_UNZIPPED_LIMIT", 2 << 20)
    with pytest.raises(InvalidError, match="larger than"):
        _read(path, None, tmp_path)
    layout.files["index.json"] = b"[" * (9 << 20)
    with pytest.raises(InvalidError, match="MiB"):
        _read(layout.write(tmp_path / "json.tar"), None, tmp_path)
    # A header that claims to be huge is not read into memory.
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "pax.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(3 << 20))
    with pytest.raises(InvalidError):
        _read(str(tmp_path / "pax.tar"), None, tmp_path)
