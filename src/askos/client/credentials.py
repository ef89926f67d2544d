"""The files with which clients find a cloud: clouds.yaml, openrc, and clouds.json for our own CLI.

clouds.json holds the same document as clouds.yaml; reading it needs no YAML parser, which costs a command 35
ms. All three hold a password, so they are readable by their owner alone.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

CLOUD_NAME = "askos"
REGION = "RegionOne"
API_VERSION = "1.40"


def clouds_document(  # noqa: PLR0917 - the same six words in all three
    auth_url: str, username: str, password: str, project: str, cacert: str | None, endpoint: str
) -> dict[str, Any]:
    """The clouds.yaml document with one cloud, "askos".

    `auth_url` is Keystone v3's root (".../v3"), `endpoint` the container API's ("http://host:9517/v1"),
    `cacert` a file with the certificate authority's certificate, or None.
    """
    cloud: dict[str, Any] = {
        "auth": {
            "auth_url": auth_url,
            "username": username,
            "password": password,
            "project_name": project,
            "user_domain_id": "default",
            "project_domain_id": "default",
        },
        "region_name": REGION,
        "interface": "public",
        "identity_api_version": "3",
        "container_api_version": API_VERSION,
        "container_endpoint_override": endpoint,
    }
    if cacert is not None:
        cloud["cacert"] = cacert
    return {"clouds": {CLOUD_NAME: cloud}}


def environment(auth_url: str, username: str, password: str, project: str, cacert: str | None) -> dict[str, str]:
    """The OS_* variables for one user of the local cloud."""
    variables = {
        "OS_AUTH_URL": auth_url,
        "OS_USERNAME": username,
        "OS_PASSWORD": password,
        "OS_PROJECT_NAME": project,
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
        "OS_REGION_NAME": REGION,
        "OS_INTERFACE": "public",
        "OS_IDENTITY_API_VERSION": "3",
        "OS_CONTAINER_API_VERSION": API_VERSION,
    }
    if cacert is not None:
        variables["OS_CACERT"] = cacert
    return variables


def export_lines(variables: dict[str, str]) -> str:
    """Lines for a POSIX shell; values are quoted, so that any password survives `eval`."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def openrc(  # noqa: PLR0917 - the same six words in all three
    auth_url: str, username: str, password: str, project: str, cacert: str | None, endpoint: str
) -> str:
    """What a user sources to reach the cloud with any OpenStack client; `endpoint` is found by the
    catalog."""
    header = f"# Askos at {endpoint}: run `. openrc`, then askos or any OpenStack client.\n"
    return header + export_lines(environment(auth_url, username, password, project, cacert))


def clouds_yaml(document: dict[str, Any]) -> str:
    """The document as YAML text."""
    import yaml

    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def write_files(  # noqa: PLR0917 - the same six words in all three
    data: Path,
    auth_url: str,
    username: str,
    password: str,
    project: str,
    cacert: str | None,
    endpoint: str,
) -> None:
    """Write clouds.yaml, clouds.json and openrc into `data`, each atomically and with mode 0600. OSError if
    not."""
    document = clouds_document(auth_url, username, password, project, cacert, endpoint)
    write_private(data / "clouds.yaml", clouds_yaml(document))
    write_private(data / "openrc", openrc(auth_url, username, password, project, cacert, endpoint))
    # Last, because our own CLI takes its appearance as the sign that the cloud can be reached.
    write_private(data / "clouds.json", json.dumps(document, indent=1) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; its content is at no moment readable by others. OSError if impossible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
