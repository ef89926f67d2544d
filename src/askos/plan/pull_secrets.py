"""Which log-ins a pod's pull secrets have for an image.

Two types of secret are read, as in Kubernetes: kubernetes.io/dockerconfigjson and the older kubernetes.io/dockercfg.
Each names registries as host[:port][/path]; labels of the host may hold "*". The longest name that fits is tried
first. What is in a secret is shown nowhere: not in what `problems` says, not in the representation of a `Login`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from askos.model.images import DEFAULT_DOMAIN, normalise
from askos.model.pods import Content, Secret

_ALIASES = {"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "docker.io"}
_KEYS = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}


class Login(msgspec.Struct, frozen=True):
    """A log-in at a registry; the same fields as `ports.runtime.Credential`."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return "Login(...)"


class _Entry(msgspec.Struct, frozen=True):
    host: str
    path: str
    login: Login


def credentials(content: Content, names: list[str], image: str) -> list[Login]:
    """The log-ins for an image (by any name that `normalise` takes; InvalidError), to be tried in this order.

    `names`: of the pod's imagePullSecrets. Empty: there is none, so pull without. Secrets that cannot be used are
    passed over: see `problems`.
    """
    host, _, path = normalise(image).partition("/")
    # Without tag and digest: "host/team" is to fit "host/team:1".
    path = re.sub(r"(?::[^/:@]+)?(?:@.*)?$", "", path)
    entries = [entry for entry, _ in _read(content, names) if entry is not None]
    fitting = [e for e in entries if _fits_host(e.host, host) and _fits_path(e.path, path)]
    # Stable: of names of the same length the secret that comes first in the pod goes first.
    fitting.sort(key=lambda e: (len(e.path), "*" not in e.host, len(e.host)), reverse=True)
    return list(dict.fromkeys(entry.login for entry in fitting))


def problems(content: Content, names: list[str]) -> list[str]:
    """Which of the pod's imagePullSecrets cannot be used, and why; one sentence each."""
    return [why for entry, why in _read(content, names) if entry is None]


def _read(content: Content, names: list[str]) -> Iterator[tuple[_Entry | None, str]]:
    """Every entry of every secret; for a secret that cannot be used None and why."""
    for name in names:
        secret = content.secrets.get(name)
        if secret is None:
            yield None, f"The pull secret {name!r} is not there. Give it with the capsule's content."
            continue
        try:
            yield from [(entry, "") for entry in _entries(secret)]
        except ValueError as error:
            yield None, f"The pull secret {name!r} cannot be used: {error}."


def _entries(secret: Secret) -> list[_Entry]:
    """Raises ValueError with a reason that holds nothing of the secret."""
    key = _KEYS.get(secret.type)
    if key is None:
        raise ValueError(f"its type is {secret.type!r}, not one of {', '.join(_KEYS)}")
    data = secret.data.get(key)
    if data is None:
        raise ValueError(f"it has no key {key!r}")
    try:
        tree = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ValueError(f"its key {key!r} is not JSON") from None
    if key == ".dockerconfigjson" and isinstance(tree, dict):
        tree = tree.get("auths", {})
    if not isinstance(tree, dict):
        raise ValueError(f"its key {key!r} does not list registries")
    return [_entry(name, value) for name, value in tree.items()]


def _entry(name: str, value: Any) -> _Entry:
    if not isinstance(value, dict):
        raise ValueError(f"what it has for {name!r} is not an object")
    fields = {k: v for k, v in value.items() if isinstance(v, str)}
    username, password = fields.get("username", ""), fields.get("password", "")
    if fields.get("auth"):
        try:
            decoded = base64.b64decode(fields["auth"], validate=True).decode()
        except (binascii.Error, ValueError):
            raise ValueError(f'"auth" of {name!r} is not base64') from None
        username, colon, password = decoded.partition(":")
        if not colon:
            raise ValueError(f'"auth" of {name!r} has no colon between name and password')
        # Some writers of such files end the password with zero bytes.
        password = password.rstrip("\0")
    login = Login(username, password, fields.get("identitytoken", ""), fields.get("registrytoken", ""))
    host, _, path = re.sub(r"^https?://", "", name).partition("/")
    # Log-ins are kept for a registry's API by old programs.
    path = re.sub(r"^v[12](?:/|$)", "", path).strip("/")
    return _Entry(DEFAULT_DOMAIN if host.lower() in _ALIASES else host.lower(), path, login)


def _fits_host(pattern: str, host: str) -> bool:
    """ "*" stands for anything within one label; the port must be the same."""
    name, _, port = pattern.partition(":")
    target, _, target_port = host.lower().partition(":")
    labels, targets = name.split("."), target.split(".")
    if port != target_port or len(labels) != len(targets):
        return False
    return all(
        re.fullmatch(".*".join(re.escape(part) for part in label.split("*")), of) is not None
        for label, of in zip(labels, targets, strict=True)
    )


def _fits_path(pattern: str, path: str) -> bool:
    return pattern in ("", path) or path.startswith(pattern + "/")
