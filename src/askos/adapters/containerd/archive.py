"""Reading image archives: an OCI layout or the output of `docker save`, as a tar, plain or gzipped.

Nothing is unpacked: entries are found by name inside the archive and read in place, so a hostile name cannot reach
a file of the host. A gzipped archive is first unzipped into a temporary file, whose size is limited. What does not
fit together is refused with InvalidError before anything is stored.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import posixpath
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from askos.model.errors import InvalidError, UnavailableError
from askos.model.images import normalise

CHUNK = 1 << 20
_ENTRIES_LIMIT = 100_000
_JSON_LIMIT = 8 << 20
_UNZIPPED_LIMIT = 100 << 30
_KEEP_FREE = 512 << 20
_DEPTH = 4
_INDEX_TYPES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_MANIFEST_TYPES = {_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"}
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


class Blob(msgspec.Struct, frozen=True):
    """One blob to be stored: from `entry` of the archive, or from `data` when we made it ourselves."""

    digest: str
    size: int
    media_type: str
    entry: str | None = None
    data: bytes | None = None


class Found(msgspec.Struct, frozen=True):
    """One image in an archive, for this machine's platform. `names` are normalised."""

    names: list[str]
    manifest: Blob
    config: Blob
    layers: list[Blob]


def architecture() -> str:
    """This machine's architecture in OCI's words."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


class Archive:
    """An opened archive; use it as a context manager. All methods block: call them in a thread."""

    def __init__(self, path: str, scratch: Path) -> None:
        self.path = path
        self._file = _open_plain(path, scratch)
        try:
            self._entries = self._index()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def images(self, ref: str | None) -> list[Found]:
        """The images in the archive; `ref` names one that the archive does not name."""
        if "index.json" in self._entries and "oci-layout" in self._entries:
            found = self._oci(ref)
        elif "manifest.json" in self._entries:
            found = self._docker(ref)
        else:
            raise self._invalid("it holds neither an OCI layout (index.json) nor docker save's manifest.json")
        if not found:
            raise self._invalid(f"it holds no image for linux/{architecture()}")
        return found

    def read(self, blob: Blob) -> Iterator[bytes]:
        """The content of a blob in chunks of at most CHUNK bytes."""
        if blob.data is not None:
            yield blob.data
            return
        assert blob.entry is not None
        yield from self._chunks(blob.entry)

    # The tar itself

    def _index(self) -> dict[str, tarfile.TarInfo]:
        entries: dict[str, tarfile.TarInfo] = {}
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", _Headers(self._file)), mode="r:") as tar:
                for count, member in enumerate(tar):
                    if count >= _ENTRIES_LIMIT:
                        raise self._invalid(f"it has more than {_ENTRIES_LIMIT} entries")
                    name = posixpath.normpath(member.name)
                    if name.startswith(("/", "..")):
                        raise self._invalid(f"an entry points outside the archive: {member.name[:100]!r}")
                    if member.isfile() or member.issym() or member.islnk():
                        entries[name] = member
        except (tarfile.TarError, EOFError, OSError, UnicodeError) as error:
            raise self._invalid(f"it is not a tar archive ({error})") from None
        return entries

    def _member(self, name: str) -> tarfile.TarInfo:
        name = posixpath.normpath(name)
        # docker save made symbolic links for layers that several images share.
        for _ in range(8):
            member = self._entries.get(name)
            if member is None:
                raise self._invalid(f"it lacks {name[:150]!r}, which it refers to")
            if member.isfile():
                return member
            folder = posixpath.dirname(name) if member.issym() else ""
            name = posixpath.normpath(posixpath.join(folder, member.linkname))
        raise self._invalid(f"{name[:150]!r} is a link without an end")

    def _chunks(self, name: str) -> Iterator[bytes]:
        member = self._member(name)
        # Positioned reads: the file's own position is shared with nobody who matters, but stays out of it.
        offset, left = member.offset_data, member.size
        while left:
            data = os.pread(self._file.fileno(), min(CHUNK, left), offset)
            if not data:
                raise self._invalid("it ends in the middle of an entry")
            yield data
            offset += len(data)
            left -= len(data)

    def _bytes(self, name: str) -> bytes:
        member = self._member(name)
        if member.size > _JSON_LIMIT:
            raise self._invalid(f"{name[:150]!r} is larger than {_JSON_LIMIT >> 20} MiB")
        return b"".join(self._chunks(name))

    def _json(self, name: str, kind: type) -> Any:
        try:
            value = json.loads(self._bytes(name))
        except (ValueError, RecursionError):
            raise self._invalid(f"{name[:150]!r} is not JSON") from None
        if not isinstance(value, kind):
            raise self._invalid(f"{name[:150]!r} has an unexpected form")
        return value

    # OCI layout

    def _oci(self, ref: str | None) -> list[Found]:
        found: dict[str, Found] = {}
        for descriptor in _list(self._json("index.json", dict).get("manifests")):
            manifest = self._choose(descriptor, _DEPTH)
            if manifest is None:
                continue
            names = self._oci_names(_dict(_dict(descriptor).get("annotations")), ref)
            image = self._oci_image(manifest, names)
            if image.manifest.digest in found:
                names = found[image.manifest.digest].names
                image = msgspec.structs.replace(image, names=[*names, *(n for n in image.names if n not in names)])
            found[image.manifest.digest] = image
        return list(found.values())

    def _oci_names(self, annotations: dict[str, Any], ref: str | None) -> list[str]:
        full = annotations.get("io.containerd.image.name")
        if isinstance(full, str) and full:
            return [normalise(full)]
        name = annotations.get("org.opencontainers.image.ref.name")
        # By the specification this is only a tag, but many tools put the whole name there.
        if isinstance(name, str) and ("/" in name or ":" in name):
            return [normalise(name)]
        return [self._given(ref)]

    def _given(self, ref: str | None) -> str:
        if ref is None:
            raise self._invalid("it does not name its image; say which name it shall have")
        return normalise(ref)

    def _choose(self, descriptor: Any, depth: int) -> dict[str, Any] | None:
        """The descriptor of the manifest for this platform: itself, or one from the index it names."""
        described = _dict(descriptor)
        media_type = described.get("mediaType", "")
        if media_type in _INDEX_TYPES:
            if depth == 0:
                raise self._invalid("its indexes are nested too deeply")
            inner = self._json(self._blob_entry(described), dict)
            for child in _list(inner.get("manifests")):
                chosen = self._choose(child, depth - 1)
                if chosen is not None:
                    return chosen
            return None
        if media_type not in _MANIFEST_TYPES or not _fits(described.get("platform")):
            return None
        if self._blob_entry(described, required=False) not in self._entries:
            return None
        return described

    def _oci_image(self, descriptor: dict[str, Any], names: list[str]) -> Found:
        entry = self._blob_entry(descriptor)
        manifest = self._json(entry, dict)
        config = self._blob(manifest.get("config"), _CONFIG)
        layers = [self._blob(layer, _LAYER) for layer in _list(manifest.get("layers"))]
        assert config.entry is not None
        self._check_config(self._json(config.entry, dict), len(layers))
        return Found(names, self._blob(descriptor, _MANIFEST), config, layers)

    def _blob(self, descriptor: Any, media_type: str) -> Blob:
        descriptor = _dict(descriptor)
        entry = self._blob_entry(descriptor)
        size = self._member(entry).size
        if descriptor.get("size") != size:
            raise self._invalid(f"{entry!r} has {size} bytes, but {descriptor.get('size')!r} were announced")
        return Blob(descriptor["digest"], size, str(descriptor.get("mediaType") or media_type), entry)

    def _blob_entry(self, descriptor: Any, *, required: bool = True) -> str:
        digest = _dict(descriptor).get("digest")
        if not isinstance(digest, str) or not digest.startswith("sha256:") or len(digest) != 71:
            raise self._invalid("a descriptor in it has no sha256 digest")
        entry = f"blobs/sha256/{digest[7:]}"
        if required:
            self._member(entry)
        return entry

    # docker save

    def _docker(self, ref: str | None) -> list[Found]:
        return [self._docker_image(_dict(item), ref) for item in self._json("manifest.json", list)]

    def _docker_image(self, item: dict[str, Any], ref: str | None) -> Found:
        tags = [tag for tag in _list(item.get("RepoTags")) if isinstance(tag, str)]
        names = [normalise(tag) for tag in tags] or [self._given(ref)]
        config_data = self._bytes(_string(item.get("Config")))
        config_json = self._json(_string(item.get("Config")), dict)
        entries = [_string(layer) for layer in _list(item.get("Layers"))]
        self._check_config(config_json, len(entries))
        layers = [self._docker_layer(entry) for entry in entries]
        config = Blob(_sha256(config_data), len(config_data), _CONFIG, data=config_data)
        manifest_data = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor(config),
                "layers": [_descriptor(layer) for layer in layers],
            },
            separators=(",", ":"),
        ).encode()
        manifest = Blob(_sha256(manifest_data), len(manifest_data), _MANIFEST, data=manifest_data)
        return Found(names, manifest, config, layers)

    def _docker_layer(self, entry: str) -> Blob:
        hasher, size, zipped = hashlib.sha256(), 0, False
        for chunk in self._chunks(entry):
            if size == 0:
                zipped = chunk.startswith(b"\x1f\x8b")
            hasher.update(chunk)
            size += len(chunk)
        return Blob(f"sha256:{hasher.hexdigest()}", size, f"{_LAYER}+gzip" if zipped else _LAYER, entry)

    # Checks

    def _check_config(self, config: dict[str, Any], layers: int) -> None:
        if not _fits(config):
            theirs = f"{config.get('os')}/{config.get('architecture')}"
            raise self._invalid(f"its image is for {theirs}, this machine is linux/{architecture()}")
        diff_ids = _list(_dict(config.get("rootfs")).get("diff_ids"))
        if len(diff_ids) != layers:
            raise self._invalid(f"its configuration names {len(diff_ids)} layers, but it has {layers}")

    def _invalid(self, why: str) -> InvalidError:
        return _not_an_archive(self.path, why)


class _Headers:
    """A file for reading tar headers: refuses long reads, because a header may claim any size for itself."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > CHUNK:
            raise tarfile.ReadError("a header is larger than 1 MiB")
        return self._file.read(size)


def _open_plain(path: str, scratch: Path) -> IO[bytes]:
    try:
        file = open(path, "rb")  # noqa: SIM115 - handed to the caller
    except OSError as error:
        raise _not_an_archive(path, error.strerror or str(error)) from None
    try:
        zipped_mark = file.read(2)
        file.seek(0)
        if zipped_mark != b"\x1f\x8b":
            return file
        with file, gzip.GzipFile(fileobj=file) as zipped:
            return _unzipped(path, zipped, scratch)
    except BaseException:
        file.close()
        raise


def _unzipped(path: str, zipped: gzip.GzipFile, scratch: Path) -> IO[bytes]:
    scratch.mkdir(parents=True, exist_ok=True)
    plain = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - handed to the caller
    try:
        size = 0
        while chunk := zipped.read(CHUNK):
            size += len(chunk)
            if size > _UNZIPPED_LIMIT:
                raise _not_an_archive(path, f"it is larger than {_UNZIPPED_LIMIT >> 30} GiB when unzipped")
            if size % (64 << 20) < CHUNK and shutil.disk_usage(scratch).free < _KEEP_FREE:
                raise UnavailableError(f"Could not read {path}: the disk of {scratch} is full. Free some space.")
            plain.write(chunk)
        plain.seek(0)
    except (EOFError, OSError, zlib.error) as error:
        plain.close()
        raise _not_an_archive(path, f"it cannot be unzipped ({error})") from None
    except BaseException:
        plain.close()
        raise
    return plain


def _not_an_archive(path: str, why: str) -> InvalidError:
    return InvalidError(f"Could not load an image from {path}: {why}.", "image-archive")


def _fits(described: Any) -> bool:
    if not isinstance(described, dict):
        return True
    theirs = (described.get("os") or "linux", described.get("architecture") or architecture())
    return theirs == ("linux", architecture())


def _descriptor(blob: Blob) -> dict[str, Any]:
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
