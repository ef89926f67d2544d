"""Projects and roles are walls: every route of Zun's API, asked by everybody, with what each must be answered.

Routes come from the application's own table, so a new one is tested from its first day. The walls of capsules are in
test_capsule_walls.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest

from askos.api.app import ROUTES
from askos.api.core import Route
from askos.ports.calls import Frame

from .cloud import Answer, Cloud, facts

pytestmark = pytest.mark.asyncio(loop_scope="module")

MARK = "owners-mark"
"""In every name of the owner's: nobody else may ever be answered with it."""
NOWHERE = "00000000-0000-4000-8000-000000000000"
ADMIN = "root:elsewhere:admin"
USED = dict.fromkeys(
    ("memory_bytes", "memory_limit_bytes", "read_bytes", "write_bytes", "rx_bytes", "tx_bytes", "cpu_percent"), 0
)
ANSWERS: dict[str, Any] = {
    "run": {"output": MARK, "exit_code": 0}, "logs": ([Frame(1, MARK.encode())], None), "resize": None, "signal": None,
    "container_stats": USED, "top": {"titles": ["CMD"], "processes": [[MARK]]}, "put_archive": ([], None),
    "get_archive": ([Frame(1, MARK.encode())], {"name": MARK}),
}  # fmt: skip
OPERATORS = (
    "GET /v1/hosts", "GET /v1/hosts/{ident}", "GET /v1/services", "DELETE /v1/services", "PUT /v1/services/enable",
    "PUT /v1/services/disable", "PUT /v1/services/force_down", "PUT /v1/quotas/{project}", "DELETE /v1/quotas/{project}",
    "GET /v1/quota_classes/{name}", "PUT /v1/quota_classes/{name}", "POST /v1/networks", "DELETE /v1/networks/{ident}",
    "GET /v1/images", "POST /v1/images", "GET /v1/images/{ident}", "DELETE /v1/images/{ident}",
)  # fmt: skip
"""Everybody's business but the operators'."""
QUERIES = {
    "kill": "signal=TERM", "rename": f"name={MARK}-2", "execute": "command=id", "resize": "w=80&h=24",
    "execute_resize": f"exec_id={'a' * 64}&w=1&h=1", "get_archive": "path=/etc", "put_archive": "path=/tmp",
    "commit": "repository=snap", "add_security_group": "name=default", "remove_security_group": "name=default",
    "network_detach": "network=default", "enable": "host=host-1&binary=zun-compute",
    "disable": "host=host-1&binary=zun-compute", "force_down": "host=host-1&binary=zun-compute&forced_down=false",
}  # fmt: skip
STATUS = {"start": "Stopped", "unpause": "Paused"}
"""What a container must be for an action, where that is not Running."""
LATER = {"commit", "execute_resize", "remove_security_group", "network_attach", "attach", "container_actions"}
"""The owner passes the walls, but this cloud has not what they ask for (a session, another network, a terminal)."""


class Owned(NamedTuple):
    """A container and a registry, and who has them."""

    token: str
    container: str
    registry: str


async def owned(cloud: Cloud, status: str = "Running") -> Owned:
    token = cloud.project()
    body = {"registry": {"name": f"{MARK}-registry", "domain": "registry.invalid"}}
    registry = await cloud.ask("POST", "/v1/registries", token, body=body)
    assert registry.status == 201, registry
    container = await cloud.in_status(token, status, name=f"{MARK}-container", labels={"mark": MARK})
    await cloud.networking.default_group(token.split(":")[1])
    return Owned(token, container, registry.body["registry"]["uuid"])


def routes(cloud: Cloud) -> list[Route]:
    """All of Zun's that ask for a token, but capsules'."""
    found = [r for r in cloud.app()[ROUTES] if r.path.startswith("/v1/") and not r.public]
    found = [r for r in found if not r.path.startswith("/v1/capsules")]
    assert len(found) > 45, "where are the routes?"
    return found


def word(route: Route) -> str:
    return route.segments[-1]


async def call(cloud: Cloud, route: Route, token: str | None, have: Owned, ident: str | None = None) -> Answer:
    """Ask a route as its client would, of `ident` or of what there is."""
    theirs = {"containers": have.container, "registries": have.registry, "hosts": "host-1"}
    path = route.path.replace("{ident}", ident or theirs.get(route.segments[1], NOWHERE))
    path = path.replace("{project}", have.token.split(":")[1]).replace("{name}", "busybox")
    path = path.replace("{request_id}", f"req-{NOWHERE}")
    body: dict[str, Any] = {}
    if path == "/v1/containers":
        body = {"image": "busybox"}
    elif route.method == "PATCH" or word(route) == "resize_container":
        body = {"registry": {"username": "u"}} if "registries" in path else {"cpu": 0.5}
    elif path == "/v1/registries":
        body = {"registry": {"domain": "registry.invalid"}}
    elif word(route) == "put_archive":
        body = {"data": "YQ=="}
    elif "quota" in path:
        body = {"containers": 50}
    elif path == "/v1/networks":
        body = {"name": "any", "neutron_net_id": NOWHERE}
    elif path == "/v1/images":
        body = {"repo": "busybox", "host": "host-1"}
    query = QUERIES.get(word(route), "host=host-1&binary=zun-compute" if path == "/v1/services" else "")
    sends = {"body": body} if body else {}
    version = str(route.until)
    return await cloud.ask(route.method, f"{path}?{query}" if query else path, token, version=version, **sends)


async def state_of(cloud: Cloud, have: Owned) -> Any:
    registry = await cloud.ask("GET", f"/v1/registries/{have.registry}", have.token)
    return await cloud.store.capsules_by_uuid([have.container]), registry.body


async def test_without_a_good_token_nothing_is_answered(cloud: Cloud) -> None:
    have = await owned(cloud)
    cloud.calls.answers = ANSWERS
    before, asked = await state_of(cloud, have), len(cloud.calls.asked)
    for route in routes(cloud):
        for token in (None, "", "expired", "ann:p1:nobody"):
            got = await call(cloud, route, token, have)
            assert got.status == 401, route
            assert MARK.encode() not in got.raw
    assert await state_of(cloud, have) == before
    assert len(cloud.calls.asked) == asked


@pytest.mark.parametrize("role", ["member", "reader"])
async def test_what_is_anothers_is_like_what_is_not_there(cloud: Cloud, role: str) -> None:
    have = await owned(cloud)
    await cloud.networking.default_group(have.token.split(":")[1])
    stranger = cloud.project().replace("member", role)
    cloud.calls.answers = ANSWERS
    before, asked = await state_of(cloud, have), len(cloud.calls.asked)
    for route in routes(cloud):
        got = await call(cloud, route, stranger, have)
        name = f"{route.method} {route.path}"
        assert MARK.encode() not in got.raw, (name, got)
        if name in OPERATORS or "{project}" in name or (role == "reader" and route.for_writers):
            assert got.status == 403, (name, got)
        elif "{ident}" in name:
            assert got.status == 404, (name, got)
            absent = await call(cloud, route, stranger, have, NOWHERE)
            assert absent.status == 404, (name, absent)
            for key in ("code", "title", "detail"):
                ident = have.registry if "registries" in name else have.container
                assert got.error[key].replace(ident, "") == absent.error[key].replace(NOWHERE, ""), name
            by_name = await call(cloud, route, stranger, have, f"{MARK}-container")
            assert by_name.status == 404, (name, by_name)
        else:
            assert got.status not in (401, 403, 404), (name, got)
    assert await state_of(cloud, have) == before
    assert len([c for c in cloud.calls.asked[asked:] if have.container in str(c)]) == 0, "a host was asked"


async def test_a_reader_looks_and_touches_nothing(cloud: Cloud) -> None:
    have = await owned(cloud)
    reader = have.token.replace("member", "reader")
    cloud.calls.answers = ANSWERS
    before = await state_of(cloud, have)
    for route in routes(cloud):
        got = await call(cloud, route, reader, have)
        name = f"{route.method} {route.path}"
        if route.for_writers or name in OPERATORS:
            got.refused(403, "policy-not-authorized", "Policy doesn't allow")
        else:
            assert got.status == route.success or word(route) in ("{request_id}", "search"), (name, got)
    assert await state_of(cloud, have) == before


async def test_an_owner_and_an_administrator_pass(cloud: Cloud) -> None:
    await cloud.store.register_host(facts(), "nova")
    for route in routes(cloud):
        name = f"{route.method} {route.path}"
        for admin in (False, True):
            if name in OPERATORS and not admin:
                continue
            have = await owned(cloud, STATUS.get(word(route), "Running" if route.method != "DELETE" else "Stopped"))
            cloud.calls.answers = ANSWERS
            got = await call(cloud, route, ADMIN if admin else have.token, have)
            assert got.status not in (401, 403, 500), (name, admin, got)
            passes = route.success in (got.status, 101) or got.status in (400, 404, 409, 503)
            assert passes, (name, admin, got)
            whole = word(route) not in LATER | {"{request_id}", "search"} and name not in OPERATORS
            if whole and not admin:
                assert got.status == route.success, (name, got)


async def test_operators_routes_are_refused_to_owners(cloud: Cloud) -> None:
    have = await owned(cloud)
    known = {f"{r.method} {r.path}" for r in routes(cloud)}
    assert set(OPERATORS) <= known, set(OPERATORS) - known
    for route in routes(cloud):
        if f"{route.method} {route.path}" in OPERATORS:
            got = await call(cloud, route, have.token, have)
            got.refused(403, "policy-not-authorized", "Policy doesn't allow")


async def test_all_projects_and_force_are_for_administrators(cloud: Cloud) -> None:
    have = await owned(cloud)
    stranger = cloud.project()
    for path in ("/v1/containers", "/v1/registries"):
        (await cloud.ask("GET", f"{path}?all_projects=1", stranger)).refused(403, "policy-not-authorized")
        assert MARK.encode() in (await cloud.ask("GET", f"{path}?all_projects=1", ADMIN)).raw
        assert MARK.encode() not in (await cloud.ask("GET", path, ADMIN)).raw
        assert MARK.encode() not in (await cloud.ask("GET", path, stranger)).raw
    one = f"/v1/containers/{have.container}"
    for query in ("all_projects=1", "force=true"):
        (await cloud.ask("DELETE", f"{one}?{query}", have.token)).refused(403, "policy-not-authorized")
    for version in ("1.1", "1.20", "1.40"):
        shown = await cloud.ask("GET", one, have.token, version=version)
        assert "host" not in shown.body or shown.body["host"] is None
    assert re.fullmatch(r"[\w-]+", (await cloud.show(have.container))["host"])
