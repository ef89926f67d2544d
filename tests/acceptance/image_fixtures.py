"""Image archives made on the spot, and a real registry to pull from."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.acceptance.cloud_fixtures import eventually, free_port

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_OCI = "application/vnd.oci.image"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar(files: Mapping[str, bytes], mode: int = 0o644) -> bytes:
    """A tar with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Image:
    """An image with busybox as its shell, a file that says which image it is, and a command that prints it. `files`
    are added to it; `settings` go before those of its configuration."""

    def __init__(
        self, title: str, files: Mapping[str, bytes] | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        busybox = shutil.which("busybox")
        assert busybox is not None
        own = {"bin/sh": Path(busybox).read_bytes(), "title": title.encode()}
        self.layer = tar({**own, **(files or {})}, 0o755)
        self.packed = gzip.compress(self.layer, 1)
        config = {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {
                "Env": ["PATH=/bin"],
                "Cmd": ["/bin/sh", "-c", 'read -r t </title; echo "$t"'],
                **(settings or {}),
            },
            "rootfs": {"type": "layers", "diff_ids": [digest(self.layer)]},
        }
        self.config = json.dumps(config).encode()

    def docker_archive(self, name: str) -> bytes:
        """What `docker save` writes."""
        manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["1/layer.tar"]}]
        return tar(
            {"config.json": self.config, "1/layer.tar": self.layer, "manifest.json": json.dumps(manifest).encode()}
        )

    def oci_archive(self, name: str) -> bytes:
        """An OCI image layout in a tar."""
        manifest = self.manifest(f"{_OCI}.manifest.v1+json", f"{_OCI}.config.v1+json", f"{_OCI}.layer.v1.tar+gzip")
        entry = {
            "mediaType": f"{_OCI}.manifest.v1+json",
            "digest": digest(manifest),
            "size": len(manifest),
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rsplit(":", maxsplit=1)[-1],
            },
        }
        blobs = {f"blobs/sha256/{digest(b)[7:]}": b for b in (self.config, self.packed, manifest)}
        index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        return tar({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **blobs})

    def manifest(self, kind: str, config: str, layer: str) -> bytes:
        described: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {"mediaType": config, "size": len(self.config), "digest": digest(self.config)},
            "layers": [{"mediaType": layer, "size": len(self.packed), "digest": digest(self.packed)}],
        }
        return json.dumps(described).encode()


class Registry:
    """Debian's docker-registry on a port of loopback. `login`: a user's name, password, and the password's bcrypt
    hash; nobody else gets anything then."""

    def __init__(self, folder: Path, login: tuple[str, str, str] | None = None) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        config = folder / "registry.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/blobs}}}}\n"
            f"http: {{addr: {self.address}}}\n"
        )
        self._headers: dict[str, str] = {}
        if login is not None:
            name, password, hashed = login
            (folder / "users").write_text(f"{name}:{hashed}\n")
            with config.open("a") as file:
                file.write(f"auth: {{htpasswd: {{realm: test, path: {folder}/users}}}}\n")
            self._headers["Authorization"] = "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
        self._process = subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(self._answers, "the registry answers")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def push(self, repository: str, tag: str, image: Image) -> str:
        """What `docker push` does, in plain HTTP; the digest of the image."""
        for blob in (image.config, image.packed):
            where = self._call("POST", f"/v2/{repository}/blobs/uploads/", b"", 202)["location"]
            path = where.split(self.address, 1)[-1]
            self._call("PUT", f"{path}{'&' if '?' in path else '?'}digest={digest(blob)}", blob, 201)
        layer = "application/vnd.docker.image.rootfs.diff.tar.gzip"
        manifest = image.manifest(_MANIFEST, "application/vnd.docker.container.image.v1+json", layer)
        self._call("PUT", f"/v2/{repository}/manifests/{tag}", manifest, 201, _MANIFEST)
        return digest(manifest)

    def _call(
        self, method: str, path: str, body: bytes, wanted: int, content_type: str = "application/octet-stream"
    ) -> dict[str, str]:
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, path, body, {"Content-Type": content_type, **self._headers})
            response = connection.getresponse()
            text = response.read()
            assert response.status == wanted, (method, path, response.status, text)
            return {key.lower(): value for key, value in response.getheaders()}
        finally:
            connection.close()

    def _answers(self) -> bool:
        assert self._process.poll() is None, "docker-registry ended at once"
        try:
            self._call("GET", "/v2/", b"", 200)
        except OSError:
            return False
        return True
