"""Image names are read the way docker reads them; reasons are cut down to what helps."""

from __future__ import annotations

import pytest

from askos.adapters.containerd.reasons import describe
from askos.model.errors import InvalidError
from askos.model.images import is_image_id, normalise

_HEX = "a" * 64


@pytest.mark.parametrize(
    ("ref", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox:1", "docker.io/library/busybox:1"),
        ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x:y", "localhost:5000/x:y"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("host:5000/x@sha256:" + _HEX, f"host:5000/x@sha256:{_HEX}"),
        ("busybox:1@sha256:" + _HEX, f"docker.io/library/busybox@sha256:{_HEX}"),
        ("a__b/c-d--e/f.g:Tag_1.2-x", "docker.io/a__b/c-d--e/f.g:Tag_1.2-x"),
        ("Registry/x", "Registry/x:latest"),
    ],
)
def test_names_get_their_full_form(ref: str, full: str) -> None:
    assert normalise(ref) == full
    assert normalise(full) == full


@pytest.mark.parametrize(
    "ref",
    [
        "", " ", " busybox", "busybox ", "Busybox", "a/B", "a//b", "/a", "a/", "a:", "a:b:c", "a@", "a@sha256:12",
        "a@md5:" + "0" * 32, "-a", "a-", "a..b", "a b", "a\nb", "a:" + "t" * 129, "a:.x", "x" * 300, _HEX,
        "sha256:" + _HEX, "http://x.y/z", "../etc", "a/../b", "ex$ample.com/x", "x.y:123456/z", "ö",
    ],
)  # fmt: skip
def test_what_no_registry_could_have_is_refused(ref: str) -> None:
    with pytest.raises(InvalidError, match="cannot be used"):
        normalise(ref)


def test_ids_are_told_from_names() -> None:
    assert is_image_id(_HEX)
    assert is_image_id("sha256:" + _HEX)
    assert not is_image_id(_HEX[:12])
    assert not is_image_id("busybox")


_CHAIN = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: "
)


@pytest.mark.parametrize(
    ("text", "reason", "retryable"),
    [
        (
            _CHAIN + 'exec: "x": executable file not found in $PATH: unknown',
            'cannot start "x": no such file in the image',
            False,
        ),
        (
            _CHAIN + 'exec: "/x": stat /x: no such file or directory: unknown',
            'cannot start "/x": no such file in the image',
            False,
        ),
        (_CHAIN + 'exec: "/tmp": is a directory: unknown', 'cannot start "/tmp": it is a folder', False),
        (
            _CHAIN + "exec /x.sh: exec format error: unknown",
            'cannot start "/x.sh": it is no program for this processor (exec format error)',
            False,
        ),
        (
            _CHAIN + 'error during container init: chdir to cwd ("/w") set in config.json failed: permission denied: x',
            "cannot start in the folder '/w': permission denied",
            False,
        ),
        (
            'failed to generate spec: unable to find user bob: no matching entries in passwd file',
            "the image has no user 'bob'",
            False,
        ),
        (
            'failed to setup network for sandbox "1": plugin type="x" failed (add): no address left',
            'plugin type="x" failed (add): no address left',
            True,
        ),
        (
            "starting container: starting sub-container [/x]: creating process: failed to load /x: no such file or directory",
            'cannot start "/x": no such file in the image',
            False,
        ),
        (
            'executing command "x" in sandbox: error finding executable "x" in PATH [/bin /sbin]: no such file or directory',
            'cannot start "x": no such file in the image',
            False,
        ),
        (_CHAIN + "can't get a PID from pipe: EOF: unknown", "can't get a PID from pipe: EOF", True),
    ],
)  # fmt: skip
def test_reasons_are_short_and_say_whether_to_try_again(text: str, reason: str, retryable: bool) -> None:
    assert describe(text) == (reason, retryable)


def test_a_reason_is_never_a_page() -> None:
    assert len(describe("word " * 10_000)[0]) < 400
