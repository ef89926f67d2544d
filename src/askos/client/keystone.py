"""Logging in with Keystone v3, and finding the container API in its catalog."""

from __future__ import annotations

import json
import time
from typing import Any

from askos.client.connection import Cloud
from askos.client.errors import LoginError, api_error
from askos.client.http import Http
from askos.client.tokens import Login

SERVICE_TYPES = ("container", "application-container")
FALLBACK_LIFE_S = 300.0
"""Taken for a token whose end cannot be read: short, for a wrong guess only costs a login."""


def login(http: Http, cloud: Cloud) -> Login:
    """A token for the cloud's project and the container API's address. LoginError, NoAnswerError,
    ApiError."""
    body = json.dumps({"auth": auth_document(cloud)}).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    for root in token_roots(cloud.auth_url):
        answer = http.request("POST", f"{root}/auth/tokens", headers=headers, body=body)
        if answer.status not in {404, 405}:
            break
    if answer.status == 401:
        raise LoginError(
            f"cannot log in to {cloud.auth_url}{_as_whom(cloud)}: the credentials in {cloud.source} "
            "are refused. Check user, password and project there"
        )
    if answer.status in {404, 405}:
        raise LoginError(f"cannot log in to {cloud.auth_url}: no Keystone v3 answers there. Check OS_AUTH_URL")
    if answer.status not in {200, 201}:
        error = api_error(answer.status, answer.reason, answer.body)
        raise LoginError(
            f"cannot log in to {cloud.auth_url}{_as_whom(cloud)}: {error.message.rstrip('.')}. "
            + (f"Check the credentials in {cloud.source}" if answer.status < 500 else "See to the server")
        )
    token = answer.headers.get("X-Subject-Token", "")
    try:
        document = json.loads(answer.body)["token"]
    except (ValueError, KeyError, TypeError):
        document = None
    if not token or not isinstance(document, dict):
        raise LoginError(f"cannot log in to {cloud.auth_url}: the answer is not Keystone's. Check OS_AUTH_URL")
    endpoint = cloud.endpoint or catalog_endpoint(document.get("catalog") or [], cloud)
    network = next(iter(endpoints(document.get("catalog") or [], cloud, ("network",))), "")
    project = str((document.get("project") or {}).get("id") or "")
    return Login(token, endpoint, expiry_s(str(document.get("expires_at") or "")), network, project)


def token_roots(auth_url: str) -> list[str]:
    """Where `/auth/tokens` may be: OS_AUTH_URL comes with and without the version."""
    last = auth_url.rsplit("/", 1)[-1]
    if last == "v3":
        return [auth_url]
    if last == "v2.0":
        return [auth_url.removesuffix("v2.0") + "v3"]
    return [f"{auth_url}/v3", auth_url]


def auth_document(cloud: Cloud) -> dict[str, Any]:
    """The `auth` object of Keystone's POST /v3/auth/tokens."""
    if cloud.credential_id or cloud.credential_name:
        credential: dict[str, Any] = {"secret": cloud.credential_secret}
        if cloud.credential_id:
            credential["id"] = cloud.credential_id
        else:
            credential["name"] = cloud.credential_name
            credential["user"] = _user(cloud)
        # Its project is part of the credential: Keystone refuses a scope beside it.
        identity = {"methods": ["application_credential"], "application_credential": credential}
        return {"identity": identity}
    if cloud.token:
        identity = {"methods": ["token"], "token": {"id": cloud.token}}
    else:
        user = {**_user(cloud), "password": cloud.password}
        identity = {"methods": ["password"], "password": {"user": user}}
    document: dict[str, Any] = {"identity": identity}
    if cloud.project is not None:
        kind, value = cloud.project
        project: dict[str, Any] = {kind: value}
        if kind == "name":
            project["domain"] = dict([cloud.project_domain])
        document["scope"] = {"project": project}
    return document


def catalog_endpoint(catalog: list[dict[str, Any]], cloud: Cloud) -> str:
    """The container API's URL of the cloud's region and interface. LoginError when the catalog has none."""
    found = endpoints(catalog, cloud, SERVICE_TYPES)
    if found:
        return found[0]
    matching = _of_interface(catalog, cloud, SERVICE_TYPES)
    if matching:
        regions = ", ".join(sorted({str(endpoint.get("region")) for endpoint in matching}))
        raise LoginError(
            f"cannot find containers in region {cloud.region} of {cloud.auth_url}: "
            f"the service is in {regions}. Set OS_REGION_NAME to one of them"
        )
    if not catalog:
        raise LoginError(
            f"cannot find any service at {cloud.auth_url}: the login has no project. "
            "Set OS_PROJECT_NAME to one of yours"
        )
    raise LoginError(
        f"cannot find a container service in the catalog of {cloud.auth_url} "
        f"(interface {cloud.interface}). Ask the operator for an endpoint of type 'container'"
    )


def endpoints(catalog: list[dict[str, Any]], cloud: Cloud, types: tuple[str, ...]) -> list[str]:
    """The URLs of services of these types, in the cloud's region and of its interface."""
    return [
        str(endpoint["url"]).rstrip("/")
        for endpoint in _of_interface(catalog, cloud, types)
        if not cloud.region or cloud.region in {endpoint.get("region"), endpoint.get("region_id")}
    ]


def _of_interface(catalog: list[dict[str, Any]], cloud: Cloud, types: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        endpoint
        for service in catalog
        if service.get("type") in types
        for endpoint in service.get("endpoints") or []
        if endpoint.get("interface") == cloud.interface
    ]


def expiry_s(text: str) -> float:
    """Keystone's expires_at (ISO 8601, UTC) as seconds since the epoch."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return time.time() + FALLBACK_LIFE_S


def _user(cloud: Cloud) -> dict[str, Any]:
    if cloud.user_id:
        return {"id": cloud.user_id}
    return {"name": cloud.username, "domain": dict([cloud.user_domain])}


def _as_whom(cloud: Cloud) -> str:
    if cloud.credential_id or cloud.credential_name:
        return f" with application credential {cloud.credential_name or cloud.credential_id}"
    if cloud.token:
        return " with the given token"
    project = f" (project {cloud.project[1]})" if cloud.project else ""
    return f" as {cloud.username or cloud.user_id}{project}"
