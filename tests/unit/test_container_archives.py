"""Files into and out of a container's root, which may be full of traps."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from askos.loops.packing_up import Source
from askos.loops.unpacking import unpack
from askos.model.errors import InvalidError, NotFoundError


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with a secret, and a container's root in it that has links to the outside."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "shadow").write_text("the host's")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("the container's")
    (root / "out").symlink_to("../etc")
    (root / "far").symlink_to(tmp_path / "etc")
    (root / "rel").symlink_to("../../../../../../../../etc")
    (root / "in").symlink_to("/etc")
    return tmp_path


def tarred(*entries: tarfile.TarInfo | tuple[str, bytes], mode: str = "w") -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size, info.uid, info.gid, info.mode, info.mtime = (
                    len(entry[1]),
                    os.getuid(),
                    os.getgid(),
                    0o640,
                    99,
                )
                tar.addfile(info, io.BytesIO(entry[1]))
    buffer.seek(0)
    return buffer


def entry(name: str, kind: bytes, link: str = "", mode: int = 0o755) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.gid = kind, link, mode, os.getuid(), os.getgid()
    return info


def read(root: Path, path: str) -> tuple[dict[str, object], dict[str, tarfile.TarInfo], dict[str, bytes]]:
    source = Source(root, path)
    try:
        told = source.stat()
        data = b"".join(source.pieces())
    finally:
        source.close()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {m.name: m for m in tar}
        texts = {m.name: tar.extractfile(m).read() for m in members.values() if m.isfile()}  # type: ignore[union-attr]
    return told, members, texts


# -- into it ------------------------------------------------------------------------------------------------------


def test_files_folders_links_and_what_they_are(host: Path) -> None:
    archive = tarred(
        entry("a", tarfile.DIRTYPE, mode=0o2750), ("a/b", b"text"), entry("a/s", tarfile.SYMTYPE, "/nowhere"),
        entry("a/h", tarfile.LNKTYPE, "a/b"), entry("a/p", tarfile.FIFOTYPE, mode=0o600), ("deep/er/file", b"x"),
    )  # fmt: skip
    unpack(host / "root", "/", archive)
    a = host / "root" / "a"
    assert (a / "b").read_text() == "text"
    assert stat.S_IMODE((a / "b").stat().st_mode) == 0o640
    assert (a / "b").stat().st_mtime == 99
    assert stat.S_IMODE(a.stat().st_mode) == 0o2750
    assert os.readlink(a / "s") == "/nowhere"
    assert (a / "h").stat().st_ino == (a / "b").stat().st_ino
    assert stat.S_ISFIFO((a / "p").lstat().st_mode)
    assert (host / "root" / "deep" / "er" / "file").read_text() == "x"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_owners_and_set_id_bits_are_kept(host: Path) -> None:
    info = tarfile.TarInfo("su")
    info.uid, info.gid, info.mode = 1234, 4321, 0o4755
    unpack(host / "root", "/", tarred(info))
    there = (host / "root" / "su").stat()
    assert (there.st_uid, there.st_gid, stat.S_IMODE(there.st_mode)) == (1234, 4321, 0o4755)


@pytest.mark.parametrize("path", ["/out", "/far", "/rel", "/in", "out/../rel"])
def test_links_lead_to_the_containers_own_folders_or_nowhere(host: Path, path: str) -> None:
    archive = tarred(("shadow", b"changed"))
    if path == "/far":
        with pytest.raises(NotFoundError):
            unpack(host / "root", path, archive)
    else:
        unpack(host / "root", path, archive)
        assert (host / "root" / "etc" / "shadow").read_text() == "changed"
    assert (host / "etc" / "shadow").read_text() == "the host's"


def test_a_link_in_the_archive_is_no_way_out(host: Path) -> None:
    archive = tarred(entry("way", tarfile.SYMTYPE, str(host / "etc")), ("way/shadow", b"changed"))
    with pytest.raises(InvalidError):
        unpack(host / "root", "/", archive)
    archive = tarred(entry("way2", tarfile.SYMTYPE, "../../etc"), ("way2/shadow", b"changed"))
    unpack(host / "root", "/", archive)
    assert (host / "root" / "etc" / "shadow").read_text() == "changed"
    assert (host / "etc" / "shadow").read_text() == "the host's"


def test_a_hard_link_is_no_way_out(host: Path) -> None:
    for link in ("../etc/shadow", str(host / "etc" / "shadow"), "out/../../etc/shadow"):
        with pytest.raises(InvalidError):
            unpack(host / "root", "/", tarred(entry("h", tarfile.LNKTYPE, link)))
    unpack(host / "root", "/", tarred(entry("h", tarfile.LNKTYPE, "far")))
    assert (host / "root" / "h").is_symlink()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a/.."])
def test_names_that_lead_out_are_refused(host: Path, name: str) -> None:
    with pytest.raises(InvalidError, match="leads out"):
        unpack(host / "root", "/", tarred((name, b"x")))
    assert not (host / "x").exists()


def test_absolute_names_are_within_the_folder(host: Path) -> None:
    unpack(host / "root", "/etc", tarred(("/etc/x", b"1")))
    assert (host / "root" / "etc" / "etc" / "x").read_text() == "1"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_devices_are_refused(host: Path, kind: bytes) -> None:
    info = entry("disk", kind)
    info.devmajor, info.devminor = 8, 0
    with pytest.raises(InvalidError, match="device"):
        unpack(host / "root", "/", tarred(info))
    assert not (host / "root" / "disk").exists()


def test_where_nothing_can_be_put(host: Path) -> None:
    with pytest.raises(NotFoundError):
        unpack(host / "root", "/missing", tarred(("x", b"")))
    with pytest.raises(InvalidError, match="not a folder"):
        unpack(host / "root", "/etc/passwd", tarred(("x", b"")))
    with pytest.raises(InvalidError, match="not a tar archive"):
        unpack(host / "root", "/", io.BytesIO(b"this is no archive" * 100))
    with pytest.raises(InvalidError, match="kernel's own"):
        unpack(Path("/"), "/proc", tarred(("x", b"")))


def test_what_is_there_is_replaced_but_never_a_folder_by_a_file(host: Path) -> None:
    unpack(host / "root", "/", tarred(("out", b"now a file")))
    assert (host / "root" / "out").read_text() == "now a file"
    unpack(host / "root", "/", tarred(entry("etc", tarfile.DIRTYPE), ("etc/passwd", b"new")))
    assert (host / "root" / "etc" / "passwd").read_text() == "new"
    with pytest.raises(InvalidError, match="in the way"):
        unpack(host / "root", "/", tarred(("etc", b"file")))
    assert (host / "root" / "etc" / "passwd").read_text() == "new"


def test_a_compressed_archive_is_one_too(host: Path) -> None:
    unpack(host / "root", "/", tarred(("z", b"1"), mode="w:gz"))
    assert (host / "root" / "z").read_text() == "1"


# -- out of it ----------------------------------------------------------------------------------------------------


def test_a_folder_has_its_name_at_the_top(host: Path) -> None:
    told, members, texts = read(host / "root", "/etc")
    assert list(members) == ["etc", "etc/passwd"]
    assert texts == {"etc/passwd": b"the container's"}
    assert told["name"] == "etc"
    assert told["mode"] == 1 << 31 | 0o755


def test_a_file(host: Path) -> None:
    path = host / "root" / "etc" / "passwd"
    path.chmod(0o4640)
    os.utime(path, ns=(0, 1_500_000_000_250_000_000))
    told, members, texts = read(host / "root", "etc/passwd")
    assert texts == {"passwd": b"the container's"}
    assert told == {
        "name": "passwd", "size": 15, "mode": 1 << 23 | 0o640, "mtime": "2017-07-14T02:40:00.25Z", "linkTarget": "",
    }  # fmt: skip
    assert members["passwd"].mode == 0o4640


def test_everything_and_links_stay_links(host: Path) -> None:
    (host / "root" / "twice").hardlink_to(host / "root" / "etc" / "passwd")
    told, members, _ = read(host / "root", "/")
    assert told["name"] == "/"
    assert members["./far"].linkname == str(host / "etc")
    assert members["./twice"].islnk()
    assert members["./twice"].linkname == "./etc/passwd"
    assert not any("shadow" in name for name in members)


def test_a_link_is_told_and_not_followed_but_with_a_slash(host: Path) -> None:
    told, members, _ = read(host / "root", "/in")
    assert (told["linkTarget"], members["in"].issym()) == ("/etc", True)
    assert told["mode"] == 1 << 27 | 0o777
    _, members, texts = read(host / "root", "/in/")
    assert texts == {"in/passwd": b"the container's"}
    with pytest.raises(NotFoundError):
        read(host / "root", "/far/shadow")


def test_the_way_through_links_stays_inside(host: Path) -> None:
    _, _, texts = read(host / "root", "/rel/passwd")
    assert texts == {"passwd": b"the container's"}
    for path in ("/rel/shadow", "/../etc/shadow", "/etc/../../etc/shadow", "/missing", "/etc/passwd/x"):
        with pytest.raises(NotFoundError):
            read(host / "root", path)


def test_what_the_kernel_makes_up_is_left_out() -> None:
    with pytest.raises(InvalidError, match="kernel's own"):
        Source(Path("/"), "/proc/self")


@pytest.mark.parametrize("depth", [200, 600])
def test_deep_folders(host: Path, depth: int) -> None:
    fd = os.open(host / "root" / "etc", os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    if depth > 500:
        with pytest.raises(InvalidError, match="nested deeper"):
            read(host / "root", "/etc")
    else:
        assert len(read(host / "root", "/etc")[1]) == depth + 2


def test_large_and_empty_files(host: Path) -> None:
    root = host / "root"
    (root / "big").write_bytes(bytes(range(256)) * 5000)
    (root / "empty").write_bytes(b"")
    _, _, texts = read(root, "/big")
    assert texts["big"] == bytes(range(256)) * 5000
    assert read(root, "/empty")[2] == {"empty": b""}


def test_what_was_taken_can_be_put_elsewhere(host: Path) -> None:
    source = Source(host / "root", "/")
    data = b"".join(source.pieces())
    source.close()
    (host / "other").mkdir()
    unpack(host / "other", "/", io.BytesIO(data))
    assert (host / "other" / "etc" / "passwd").read_text() == "the container's"
    assert os.readlink(host / "other" / "rel").endswith("/etc")
