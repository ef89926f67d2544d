"""Which cloud a command talks to, and as whom.

In this order: `--os-cloud`, `--data`, OS_CLOUD, OS_AUTH_URL and its companions, and at last the local cloud,
whose server leaves `clouds.json` in its data folder. clouds.yaml is read as openstacksdk reads it (same
places, and secure.yaml beside it), so that a user of OpenStack needs nothing new.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from askos.client.errors import ClientError

DEFAULT_DATA = Path("/var/lib/askos")
LOCAL_FILE = "clouds.json"


class Cloud(NamedTuple):
    """Where a cloud is and how to log in. Immutable; secrets in it are never printed."""

    source: str
    """Where this came from, for messages: "OS_* variables", a file."""
    auth_url: str
    username: str = ""
    user_id: str = ""
    password: str = ""
    user_domain: tuple[str, str] = ("id", "default")
    """("id", value) or ("name", value)."""
    project: tuple[str, str] | None = None
    """("id", value) or ("name", value); None: whatever the credentials are scoped to."""
    project_domain: tuple[str, str] = ("id", "default")
    credential_id: str = ""
    credential_name: str = ""
    credential_secret: str = ""
    token: str = ""
    endpoint: str = ""
    """Overrides the catalog."""
    region: str = ""
    interface: str = "public"
    cacert: str = ""
    verify: bool = True

    def __repr__(self) -> str:
        return f"Cloud({self.auth_url}, from {self.source})"


def data_folder(flag: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The local cloud's folder: the flag, else ASKOS_DATA, else /var/lib/askos."""
    return Path(flag or environ.get("ASKOS_DATA") or DEFAULT_DATA)


def resolve(os_cloud: str | None = None, data: str | None = None, environ: Mapping[str, str] = os.environ) -> Cloud:
    """The cloud that flags and environment mean. Raises ClientError with what to do next."""
    if os_cloud:
        return named_cloud(os_cloud, data, environ)
    if data:
        return local_cloud(data_folder(data, environ))
    if environ.get("OS_CLOUD"):
        return named_cloud(environ["OS_CLOUD"], data, environ)
    if environ.get("OS_AUTH_URL"):
        return environment_cloud(environ)
    return local_cloud(data_folder(None, environ))


def local_cloud(data: Path) -> Cloud:
    """The cloud whose server keeps its files in `data`."""
    path = data / LOCAL_FILE
    document = read_document(path)
    if document is None:
        raise ClientError(
            f"cannot find a cloud: there is no {path}, and neither OS_CLOUD nor OS_AUTH_URL is set. "
            "Start a local one with `askos up -d` (as root), or point OS_AUTH_URL at another"
        )
    clouds = document.get("clouds")
    if not isinstance(clouds, dict) or not clouds:
        raise ClientError(f"cannot use {path}: it describes no cloud. Restart the server, which writes it anew")
    return from_entry(next(iter(clouds.values())), str(path))


def named_cloud(name: str, data: str | None, environ: Mapping[str, str]) -> Cloud:
    """A cloud of clouds.yaml by name; the local cloud answers to its own name without any file of the
    user's."""
    known: list[str] = []
    for path in search_paths("clouds", environ):
        clouds = (read_document(path) or {}).get("clouds")
        if not isinstance(clouds, dict):
            continue
        if isinstance(clouds.get(name), dict):
            return from_entry(merged(clouds[name], secrets(name, environ)), str(path))
        known += map(str, clouds)
    local = data_folder(data, environ) / LOCAL_FILE
    if os.access(local, os.R_OK):
        clouds = (read_document(local) or {}).get("clouds")
        if isinstance(clouds, dict) and isinstance(clouds.get(name), dict):
            return from_entry(clouds[name], str(local))
    found = f"known are {', '.join(known)}" if known else "no clouds.yaml was found"
    places = ", ".join(map(str, search_paths("clouds", environ)))
    raise ClientError(f"cannot find a cloud named {name!r}: {found}. Looked in {places}")


def search_paths(stem: str, environ: Mapping[str, str]) -> list[Path]:
    """Where openstacksdk looks for clouds.yaml or secure.yaml, in its order."""
    explicit = environ.get("OS_CLIENT_CONFIG_FILE" if stem == "clouds" else "OS_CLIENT_SECURE_FILE")
    config = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "/") / ".config")
    folders = [Path(), config / "openstack", Path("/etc/openstack")]
    usual = [folder / f"{stem}{ending}" for folder in folders for ending in (".yaml", ".yml", ".json")]
    return ([Path(explicit)] if explicit else []) + usual


def secrets(name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """What secure.yaml adds to a cloud."""
    for path in search_paths("secure", environ):
        clouds = (read_document(path) or {}).get("clouds")
        if isinstance(clouds, dict):
            entry = clouds.get(name)
            return entry if isinstance(entry, dict) else {}
    return {}


def merged(base: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """`base` with `extra` laid over it, folder by folder."""
    result = dict(base)
    for key, value in extra.items():
        below = result.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        result[key] = merged(below, value) if both and isinstance(below, dict) else value
    return result


def read_document(path: Path) -> dict[str, Any] | None:
    """A YAML or JSON file, or None if there is none. ClientError if it cannot be read."""
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        hint = "Run as its owner (root), or set OS_AUTH_URL" if isinstance(error, PermissionError) else "Check it"
        raise ClientError(f"cannot read {path}: {(why or 'unreadable').lower()}. {hint}") from None
    try:
        if path.suffix == ".json":
            document = json.loads(text)
        else:
            import yaml

            try:
                document = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(str(error)) from None
    except ValueError as error:
        raise ClientError(f"cannot read {path}: {' '.join(str(error).split())}. Correct it") from None
    if document is not None and not isinstance(document, dict):
        raise ClientError(f"cannot read {path}: it is not a mapping with the key 'clouds'. Correct it")
    return document or {}


def environment_cloud(environ: Mapping[str, str]) -> Cloud:
    """The cloud of the OS_* variables, in the names of Keystone v3 and the older ones that are still
    about."""
    auth = {key.removeprefix("OS_").lower(): value for key, value in environ.items() if key.startswith("OS_") and value}
    auth.setdefault("project_name", auth.get("tenant_name", ""))
    auth.setdefault("project_id", auth.get("tenant_id", ""))
    entry: dict[str, Any] = {"auth": auth, **auth}
    entry.pop("token", None)
    entry["interface"] = auth.get("interface") or auth.get("endpoint_type") or "public"
    entry["verify"] = auth.get("insecure", "").lower() not in {"1", "true", "yes", "on"}
    entry.setdefault("container_endpoint_override", auth.get("endpoint_override", ""))
    return from_entry(entry, "the OS_* variables")


def from_entry(entry: dict[str, Any], source: str) -> Cloud:
    """A cloud from one entry of clouds.yaml. ClientError when it lacks what a login needs."""
    auth = entry.get("auth")
    auth = auth if isinstance(auth, dict) else {}

    def text(*names: str) -> str:
        return next((str(auth[name]) for name in names if auth.get(name)), "")

    def either(prefix: str) -> tuple[str, str] | None:
        if text(f"{prefix}_id"):
            return "id", text(f"{prefix}_id")
        return ("name", text(f"{prefix}_name")) if text(f"{prefix}_name") else None

    fallback = ("id", text("default_domain_id", "default_domain") or "default")
    cloud = Cloud(
        source=source,
        auth_url=text("auth_url").rstrip("/"),
        username=text("username"),
        user_id=text("user_id"),
        password=text("password"),
        user_domain=either("user_domain") or either("domain") or fallback,
        project=either("project"),
        project_domain=either("project_domain") or either("domain") or fallback,
        credential_id=text("application_credential_id"),
        credential_name=text("application_credential_name"),
        credential_secret=text("application_credential_secret"),
        token=text("token", "auth_token"),
        endpoint=str(entry.get("container_endpoint_override") or "").rstrip("/"),
        region=str(entry.get("region_name") or ""),
        interface=str(entry.get("interface") or "public").removesuffix("URL"),
        cacert=os.path.expanduser(str(entry.get("cacert") or "")),
        verify=entry.get("verify") is not False,
    )
    return checked(cloud)


def checked(cloud: Cloud) -> Cloud:
    """The cloud, if a login can be tried with it."""
    problem = ""
    if not cloud.auth_url.startswith(("http://", "https://")):
        problem = f"its auth URL {cloud.auth_url!r} does not begin with http:// or https://"
    elif cloud.token:
        pass
    elif cloud.credential_id or cloud.credential_name:
        if not cloud.credential_secret:
            problem = "the application credential has no secret (OS_APPLICATION_CREDENTIAL_SECRET)"
    elif not (cloud.username or cloud.user_id):
        problem = "there is no user name (OS_USERNAME) and no application credential"
    elif not cloud.password:
        problem = "there is no password (OS_PASSWORD)"
    elif cloud.project is None:
        problem = "there is no project (OS_PROJECT_NAME)"
    if problem:
        raise ClientError(f"cannot log in with {cloud.source}: {problem}. Add it, or see `askos env --help`")
    return cloud
