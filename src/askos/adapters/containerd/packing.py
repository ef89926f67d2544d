"""Packing images of our own: the pause image of every sandbox, and a busybox to begin with.

Both are made on the spot, because an embedded cloud must come up where no registry can be reached.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from askos.adapters.containerd.archive import architecture
from askos.adapters.containerd.config import PAUSE_IMAGE
from askos.model.errors import SetupError

_BUSYBOX_REF = "docker.io/library/busybox:latest"
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
_GROUP = b"root:x:0:\nnogroup:x:65534:\n"
# The program of a sandbox on x86-64. It blocks SIGCHLD, then for ever: waits for one, reaps every ended child.
# Blocking comes first: a blocked signal stays pending even though its default is to be ignored, so none is lost.
_PAUSE_X86_64 = bytes.fromhex(
    "4883ec10"  # sub rsp, 16
    "48c7042400000100"  # mov qword [rsp], 1 << (SIGCHLD - 1)
    "31ff"  # xor edi, edi            SIG_BLOCK
    "4889e6"  # mov rsi, rsp
    "31d2"  # xor edx, edx
    "41ba08000000"  # mov r10d, 8
    "b80e000000"  # mov eax, 14             rt_sigprocmask
    "0f05"  # syscall
    # wait:
    "4889e7"  # mov rdi, rsp
    "31f6"  # xor esi, esi
    "31d2"  # xor edx, edx
    "41ba08000000"  # mov r10d, 8
    "b880000000"  # mov eax, 128            rt_sigtimedwait without a limit
    "0f05"  # syscall
    # reap:
    "48c7c7ffffffff"  # mov rdi, -1
    "31f6"  # xor esi, esi
    "ba01000000"  # mov edx, WNOHANG
    "4d31d2"  # xor r10, r10
    "b83d000000"  # mov eax, 61             wait4
    "0f05"  # syscall
    "85c0"  # test eax, eax
    "7fe4"  # jg reap
    "ebce"  # jmp wait
)


def pause_elf() -> bytes | None:
    """A static program that only waits and reaps children; None on processors we have not written it for."""
    if architecture() != "amd64":
        return None
    base, header_size, program_size = 0x400000, 64, 56
    entry = base + header_size + program_size
    size = header_size + program_size + len(_PAUSE_X86_64)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01" + bytes(9), 2, 62, 1, entry, header_size, 0, 0, header_size, program_size, 1, 0, 0, 0,
    )  # fmt: skip
    program = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return header + program + _PAUSE_X86_64


def make_pause_archive(path: Path, program: bytes | None) -> None:
    """Write the sandbox image's archive around `pause_elf()`; without a program it is busybox's sleep."""
    layer = _Layer()
    if program is not None:
        layer.file("pause", program, 0o755)
        entrypoint = ["/pause"]
    else:
        layer.copy("busybox", _busybox())
        entrypoint = ["/busybox", "sleep", "2147483647"]
    _write_archive(path, PAUSE_IMAGE, layer.finish(), {"Entrypoint": entrypoint})


def make_busybox_archive(path: Path) -> None:
    """Write an OCI archive of docker.io/library/busybox:latest, made from this machine's busybox-static.

    Raises SetupError when that is not installed.
    """
    busybox = _busybox()
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, timeout=20).stdout.decode().split()
    layer = _Layer()
    for folder in ("bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "var", "var/tmp"):
        layer.folder(folder, 0o1777 if folder == "var/tmp" else 0o700 if folder == "root" else 0o755)
    layer.folder("tmp", 0o1777)
    layer.file("etc/passwd", _PASSWD, 0o644)
    layer.file("etc/group", _GROUP, 0o644)
    layer.copy("bin/busybox", busybox)
    for applet in applets:
        if applet != "busybox":
            layer.link(f"bin/{applet}", "busybox")
    layer.link("usr/bin/env", "../../bin/busybox")
    config = {"Cmd": ["sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    _write_archive(path, _BUSYBOX_REF, layer.finish(), config)


class _Layer:
    """A layer in the making. Times are zero, so that the same content makes the same image."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.GNU_FORMAT)  # noqa: SIM115

    def folder(self, name: str, mode: int) -> None:
        self._add(name, tarfile.DIRTYPE, mode)

    def link(self, name: str, target: str) -> None:
        self._add(name, tarfile.SYMTYPE, 0o777, linkname=target)

    def file(self, name: str, data: bytes, mode: int) -> None:
        self._add(name, tarfile.REGTYPE, mode, data=data)

    def copy(self, name: str, source: str) -> None:
        self.file(name, Path(source).read_bytes(), 0o755)

    def finish(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()

    def _add(self, name: str, kind: bytes, mode: int, data: bytes = b"", linkname: str = "") -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.size, info.linkname = kind, mode, len(data), linkname
        self._tar.addfile(info, io.BytesIO(data))


def _busybox() -> str:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SetupError("busybox is not installed: install the package busybox-static (apt install busybox-static).")
    if b"/ld-" in Path(busybox).read_bytes()[:4096]:
        raise SetupError(f"{busybox} is not a static program: install busybox-static (apt install busybox-static).")
    return busybox


def _write_archive(path: Path, name: str, layer: bytes, run: dict[str, Any]) -> None:
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = _json(
        {
            "architecture": architecture(),
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created_by": "askos"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    )
    described = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    described["annotations"] = {"io.containerd.image.name": name}
    entries = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "manifests": [described]}),
    }
    for blob in (layer, config, manifest):
        entries[f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}"] = blob
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    with tarfile.open(new, "w", format=tarfile.GNU_FORMAT) as tar:
        for entry, data in entries.items():
            info = tarfile.TarInfo(entry)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    new.replace(path)


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
