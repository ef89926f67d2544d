"""Names of images, the way docker reads them.

`busybox` means `docker.io/library/busybox:latest`, `ghcr.io/a/b` gets `:latest`, and what names a digest keeps
only that: `busybox:1@sha256:…` is `docker.io/library/busybox@sha256:…`, because the digest alone decides.
"""

from __future__ import annotations

import re

from askos.model.errors import InvalidError

_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_DOMAIN = re.compile(
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
    r"(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_LONGEST = 255
DEFAULT_DOMAIN = "docker.io"
SERVICE_DOMAIN = "images.askos.internal"


def is_image_id(text: str) -> bool:
    """Whether `text` is a full image id (64 hexadecimal digits, with or without "sha256:") and not a name."""
    return _ID.fullmatch(text) is not None


def normalise(ref: str) -> str:
    """The full form of an image name: domain/path:tag or domain/path@digest.

    Raises InvalidError when `ref` is not a name that a registry could have.
    """
    if not ref or ref != ref.strip():
        raise _invalid(ref, "it is empty" if not ref.strip() else "it begins or ends with a space")
    if is_image_id(ref):
        raise _invalid(ref, "it is an image id; give a name such as busybox:latest")
    rest, _, digest = ref.partition("@")
    if "@" in ref and not _DIGEST.fullmatch(digest):
        raise _invalid(ref, "what follows the @ is not a digest (sha256: and 64 hexadecimal digits)")
    domain, path = _split_domain(rest)
    tag = ""
    # A colon after the last slash begins the tag; one before it belongs to the registry's port.
    if ":" in path.rsplit("/", 1)[-1]:
        path, _, tag = path.rpartition(":")
        if not _TAG.fullmatch(tag):
            raise _invalid(ref, f"the tag {tag!r} is not allowed (letters, digits, _ . -, at most 128)")
    if not _DOMAIN.fullmatch(domain):
        raise _invalid(ref, f"{domain!r} is not the address of a registry")
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    for component in path.split("/"):
        if not _COMPONENT.fullmatch(component):
            why = "use lower case" if component != component.lower() else "letters, digits and . _ - between them"
            raise _invalid(ref, f"{component!r} is not allowed in a name ({why})")
    if len(domain) + 1 + len(path) > _LONGEST:
        raise _invalid(ref, f"the name is longer than {_LONGEST} characters")
    return f"{domain}/{path}@{digest}" if digest else f"{domain}/{path}:{tag or 'latest'}"


def of_service(image_uuid: str) -> str:
    """The name under which hosts keep an image of the image service. No registry has that address."""
    return f"{SERVICE_DOMAIN}/{image_uuid}:latest"


def image_uuid_of(ref: str) -> str | None:
    """The image of the image service that a normalised name of `of_service` means; None for any other name."""
    return ref.removeprefix(f"{SERVICE_DOMAIN}/").partition(":")[0] if is_of_service(ref) else None


def is_of_service(ref: str) -> bool:
    """Whether a normalised name is one of `of_service`."""
    return ref.startswith(f"{SERVICE_DOMAIN}/")


def at_registry(ref: str, domain: str) -> str:
    """The name as seen from a registry of one's own: what has no domain is there, not at the default one."""
    first, slash, _ = ref.partition("/")
    if is_image_id(ref) or (slash and _is_domain(first)):
        return ref
    return f"{domain}/{ref}"


def _is_domain(first: str) -> bool:
    """Whether the part of a name before its first slash is a registry's address."""
    return "." in first or ":" in first or first == "localhost" or first != first.lower()


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not (slash and _is_domain(first)):
        return DEFAULT_DOMAIN, name
    if first in ("index.docker.io", "registry-1.docker.io"):
        return DEFAULT_DOMAIN, rest
    return first, rest


def _invalid(ref: str, why: str) -> InvalidError:
    shown = ref if len(ref) <= 100 else ref[:100] + "…"
    return InvalidError(f"Image name {shown!r} cannot be used: {why}.", "image-name")
