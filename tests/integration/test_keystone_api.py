"""The Keystone API as clients see it: openstacksdk, python-keystoneclient, gophercloud's bodies and the real CLI."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy import insert

from askos.adapters.identity.passwords import Passwords
from askos.adapters.identity.service import EmbeddedIdentity
from askos.adapters.identity.throttle import Throttle
from askos.adapters.sql import schema
from askos.adapters.sql.database import Database, sqlite_url
from askos.adapters.sql.migrate import upgrade
from askos.api.keystone import default_catalog, routes
from askos.ports.clock import now_us

# The OpenStack libraries use what newer Pythons deprecate.
pytestmark = pytest.mark.filterwarnings("ignore")

OPENSTACK = Path(sys.executable).parent / "openstack"
SERVICES = {"identity", "container", "network", "image", "block-storage", "volumev3"}


class Answer:
    def __init__(self, status: int, headers: dict[str, str], text: str) -> None:
        self.status = status
        self.headers = headers
        self.text = text

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def message(self) -> str:
        assert self.body["error"]["code"] == self.status
        assert self.body["error"]["title"]
        return str(self.body["error"]["message"])


class Cloud:
    def __init__(self, url: str, identity: EmbeddedIdentity, database: Database, password: str) -> None:
        self.url = url
        self.identity = identity
        self.database = database
        self.password = password
        self.http: aiohttp.ClientSession

    async def call(self, method: str, path: str, body: Any = None, token: str | None = None, **more: Any) -> Answer:
        headers = {**({"X-Auth-Token": token} if token else {}), **more.pop("headers", {})}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        async with self.http.request(
            method, f"{self.url}/identity{path}", data=data, headers=headers, allow_redirects=False, **more
        ) as response:
            return Answer(response.status, dict(response.headers), await response.text())

    async def login(self, name: str, password: str, project: str | None = None) -> str:
        user = {"name": name, "domain": {"id": "default"}, "password": password}
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
        if project is not None:
            auth["scope"] = {"project": {"name": project, "domain": {"name": "Default"}}}
        answer = await self.call("POST", "/v3/auth/tokens", {"auth": auth})
        assert answer.status == 201, answer.text
        return answer.headers["X-Subject-Token"]

    async def admin(self) -> str:
        return await self.login("admin", self.password, "admin")

    async def make(self, name: str, password: str, project: str, role: str = "member") -> tuple[str, str]:
        """A user with a role in a new project: their ids."""
        token = await self.admin()
        user = (await self.call("POST", "/v3/users", {"user": {"name": name, "password": password}}, token)).body
        made = (await self.call("POST", "/v3/projects", {"project": {"name": project}}, token)).body
        found = (await self.call("GET", f"/v3/roles?name={role}", token=token)).body["roles"][0]
        path = f"/v3/projects/{made['project']['id']}/users/{user['user']['id']}/roles/{found['id']}"
        assert (await self.call("PUT", path, token=token)).status == 204
        return user["user"]["id"], made["project"]["id"]


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    database = Database(sqlite_url(tmp_path / "askos.db"))
    await upgrade(database)
    identity = EmbeddedIdentity(
        database,
        passwords=Passwords(time_cost=1, memory_kib=8),
        throttle=Throttle(now_us, first_delay_s=0.02, max_delay_s=0.05),
    )
    await identity.bootstrap(tmp_path / "password")
    app = web.Application()
    app.add_routes(routes(identity, default_catalog))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    cloud = Cloud(f"http://127.0.0.1:{port}", identity, database, (tmp_path / "password").read_text().strip())
    async with aiohttp.ClientSession() as cloud.http:
        yield cloud
    await runner.cleanup()
    identity.close()
    await database.close()


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.wait_for(asyncio.to_thread(work), 200)


async def test_discovery(cloud: Cloud) -> None:
    for path in ("", "/"):
        answer = await cloud.call("GET", path)
        assert answer.status == 300
        (version,) = answer.body["versions"]["values"]
        assert version["links"] == [{"rel": "self", "href": f"{cloud.url}/identity/v3/"}]
    for path in ("/v3", "/v3/"):
        assert (await cloud.call("GET", path)).body["version"]["id"].startswith("v3.")

    from keystoneauth1 import discover, session

    found = await in_thread(lambda: discover.Discover(session.Session(), f"{cloud.url}/identity").version_data())
    assert [entry["version"][0] for entry in found] == [3]


async def test_gophercloud_shaped_log_in_and_what_the_token_says(cloud: Cloud) -> None:
    user_id, project_id = await cloud.make("alice", "wonderland", "web")
    body = {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"domain": {"name": "Default"}, "name": "alice", "password": "wonderland"}},
            },
            "scope": {"project": {"domain": {"name": "Default"}, "name": "web"}},
        }
    }
    answer = await cloud.call("POST", "/v3/auth/tokens", body)
    assert answer.status == 201
    token = answer.body["token"]
    assert token["user"]["id"] == user_id
    assert token["user"]["domain"] == {"id": "default", "name": "Default"}
    assert token["project"] == {"id": project_id, "name": "web", "domain": {"id": "default", "name": "Default"}}
    assert [role["name"] for role in token["roles"]] == ["member", "reader"]
    assert token["methods"] == ["password"]
    assert len(token["audit_ids"]) == 1
    assert token["expires_at"] > token["issued_at"]
    urls = {
        (service["type"], endpoint["interface"]): endpoint["url"]
        for service in token["catalog"]
        for endpoint in service["endpoints"]
    }
    assert urls["container", "public"] == f"{cloud.url}/v1"
    assert urls["identity", "internal"] == f"{cloud.url}/identity/v3"

    secret = answer.headers["X-Subject-Token"]
    subject = {"X-Subject-Token": secret}
    shown = await cloud.call("GET", "/v3/auth/tokens", token=secret, headers=subject)
    assert shown.body == answer.body
    assert shown.headers["X-Subject-Token"] == secret
    short = await cloud.call("GET", "/v3/auth/tokens?nocatalog", token=secret, headers=subject)
    assert "catalog" not in short.body["token"]
    head = await cloud.call("HEAD", "/v3/auth/tokens", token=secret, headers=subject)
    assert (head.status, head.text) == (200, "")

    rescope = {"auth": {"identity": {"methods": ["token"], "token": {"id": secret}}, "scope": "unscoped"}}
    unscoped = await cloud.call("POST", "/v3/auth/tokens", rescope)
    assert "project" not in unscoped.body["token"]
    assert "catalog" not in unscoped.body["token"]
    loose = unscoped.headers["X-Subject-Token"]
    assert (await cloud.call("GET", "/v3/auth/catalog", token=loose)).status == 403
    assert [p["id"] for p in (await cloud.call("GET", "/v3/auth/projects", token=loose)).body["projects"]] == [
        project_id
    ]
    assert (await cloud.call("GET", "/v3/auth/domains", token=loose)).body["domains"] == []
    assert (await cloud.call("GET", "/v3/auth/catalog", token=secret)).body["catalog"] == token["catalog"]

    assert (await cloud.call("DELETE", "/v3/auth/tokens", token=secret, headers=subject)).status == 204
    assert (await cloud.call("GET", "/v3/auth/tokens", token=secret, headers=subject)).status == 401
    admin = await cloud.admin()
    assert (await cloud.call("GET", "/v3/auth/tokens", token=admin, headers=subject)).status == 404


async def test_the_public_url_replaces_what_clients_used(cloud: Cloud) -> None:
    app = web.Application()
    app.add_routes(routes(cloud.identity, default_catalog, "https://cloud.example/askos/"))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with cloud.http.get(f"http://127.0.0.1:{runner.addresses[0][1]}/identity/v3") as response:
        shown = await response.json()
    await runner.cleanup()
    assert shown["version"]["links"][0]["href"] == "https://cloud.example/askos/identity/v3/"


async def test_errors_have_keystones_shape_and_name_the_field(cloud: Cloud) -> None:
    token = await cloud.admin()
    password = {"user": {"name": "admin", "domain": {"id": "default"}, "password": "wrong"}}
    denied = await cloud.call(
        "POST", "/v3/auth/tokens", {"auth": {"identity": {"methods": ["password"], "password": password}}}
    )
    assert denied.status == 401
    assert denied.message == "The request you have made requires authentication."
    assert denied.headers["WWW-Authenticate"] == f'Keystone uri="{cloud.url}/identity"'
    for path in ("/v3/users", "/v3/auth/projects", "/v3/roles", "/v3/services"):
        for bad in (None, "nonsense", "gAAAAAB" + "x" * 100):
            answer = await cloud.call("GET", path, token=bad)
            assert (answer.status, answer.message) == (401, denied.message)

    identity = {"methods": ["password"], "password": {"user": {"name": "x", "password": "y"}}}
    wrong: list[tuple[str, str, Any, str]] = [
        ("POST", "/v3/auth/tokens", b"{", "not valid JSON"),
        ("POST", "/v3/auth/tokens", b"\xff\xfe", "not valid JSON"),
        ("POST", "/v3/auth/tokens", [], "'body'"),
        ("POST", "/v3/auth/tokens", {}, "'auth'"),
        ("POST", "/v3/auth/tokens", {"auth": {"identity": {"methods": []}}}, "'auth.identity.methods'"),
        ("POST", "/v3/auth/tokens", {"auth": {"identity": {"methods": ["saml2"]}}}, "exactly one"),
        ("POST", "/v3/auth/tokens", {"auth": {"identity": {"methods": ["password"]}}}, "'auth.identity.password'"),
        ("POST", "/v3/auth/tokens", {"auth": {"identity": identity}}, "'auth.identity.password.user.domain'"),
        ("POST", "/v3/users", {"user": {}}, "'user.name'"),
        ("POST", "/v3/users", {"user": {"name": 7}}, "'user.name'"),
        ("POST", "/v3/users", {"user": {"name": " "}}, "'user.name'"),
        ("POST", "/v3/users", {"user": {"name": "a\u0000b"}}, "'user.name'"),
        ("POST", "/v3/users", {"user": {"name": "x" * 256}}, "'user.name'"),
        ("POST", "/v3/users", {"user": {"name": "x", "enabled": "yes"}}, "'user.enabled'"),
        ("POST", "/v3/users", {"user": {"name": "x", "domain_id": "other"}}, "'user.domain_id'"),
        ("POST", "/v3/projects", {"project": {"name": "x" * 65}}, "'project.name'"),
        ("POST", "/v3/projects", {"project": {"name": "x", "parent_id": "abc"}}, "'project.parent_id'"),
    ]
    for method, path, body, expected in wrong:
        answer = await cloud.call(method, path, body, token)
        assert answer.status == 400, (body, answer.text)
        assert expected in answer.message
    big = await cloud.call("POST", "/v3/auth/tokens", b'{"auth": "' + b"x" * 70_000 + b'"}')
    assert big.status == 413
    assert "65536" in big.message
    host = await cloud.call("GET", "/v3/users", token=token, headers={"Host": "evil.example/<x>"})
    assert host.status == 400

    assert (await cloud.call("GET", "/v3/users/none", token=token)).message == "Could not find user: none."
    assert (await cloud.call("DELETE", "/v3/projects/none", token=token)).status == 404
    assert (await cloud.call("GET", "/v3/domains/none", token=token)).status == 404
    assert (await cloud.call("GET", "/v3/groups", token=token)).status == 404
    assert (await cloud.call("POST", "/v3/projects", {"project": {"name": "admin"}}, token)).status == 409
    assert (await cloud.call("POST", "/v3/users", {"user": {"name": "admin"}}, token)).status == 409
    for path in ("/v3/roles", "/v3/domains", "/v3/services", "/v3/regions/x"):
        refused = await cloud.call("POST", path, {}, token)
        assert refused.status == 403
        assert "Cannot change" in refused.message


async def test_users_are_walls(cloud: Cloud) -> None:
    alice, web_project = await cloud.make("alice", "wonderland", "web")
    bob, other = await cloud.make("bob", "builder", "other")
    token = await cloud.login("alice", "wonderland", "web")
    theirs = await cloud.login("bob", "builder", "other")
    role = (await cloud.call("GET", "/v3/roles?name=admin", token=token)).body["roles"][0]["id"]
    forbidden = [
        ("GET", "/v3/users"),
        ("POST", "/v3/users"),
        ("GET", f"/v3/users/{bob}"),
        ("GET", "/v3/users/no-such-user"),
        ("PATCH", f"/v3/users/{alice}"),
        ("DELETE", f"/v3/users/{bob}"),
        ("POST", f"/v3/users/{bob}/password"),
        ("GET", f"/v3/users/{bob}/projects"),
        ("GET", f"/v3/users/{bob}/application_credentials"),
        ("POST", f"/v3/users/{bob}/application_credentials"),
        ("DELETE", f"/v3/users/{bob}/application_credentials/x"),
        ("GET", "/v3/projects"),
        ("POST", "/v3/projects"),
        ("GET", f"/v3/projects/{other}"),
        ("GET", "/v3/projects/no-such-project"),
        ("PATCH", f"/v3/projects/{web_project}"),
        ("DELETE", f"/v3/projects/{web_project}"),
        ("PUT", f"/v3/projects/{web_project}/users/{alice}/roles/{role}"),
        ("DELETE", f"/v3/projects/{other}/users/{bob}/roles/{role}"),
        ("GET", f"/v3/projects/{other}/users/{bob}/roles"),
        ("GET", f"/v3/projects/{other}/users/{bob}/roles/{role}"),
        ("GET", "/v3/role_assignments"),
        ("GET", f"/v3/role_assignments?user.id={bob}"),
        ("GET", "/v3/services"),
        ("GET", "/v3/endpoints"),
    ]
    for method, path in forbidden:
        answer = await cloud.call(method, path, {} if method in {"POST", "PATCH"} else None, token)
        assert answer.status == 403, (method, path, answer.text)
        assert answer.message
    for method in ("GET", "DELETE"):
        subject = {"X-Subject-Token": theirs}
        assert (await cloud.call(method, "/v3/auth/tokens", token=token, headers=subject)).status == 403

    assert (await cloud.call("GET", f"/v3/users/{alice}", token=token)).body["user"]["name"] == "alice"
    assert (await cloud.call("GET", f"/v3/projects/{web_project}", token=token)).body["project"]["name"] == "web"
    mine = (await cloud.call("GET", f"/v3/users/{alice}/projects", token=token)).body["projects"]
    assert [project["id"] for project in mine] == [web_project]
    held = (await cloud.call("GET", f"/v3/role_assignments?user.id={alice}", token=token)).body["role_assignments"]
    assert [one["scope"]["project"]["id"] for one in held] == [web_project]
    assert (await cloud.call("GET", f"/v3/users/{bob}", token=theirs)).status == 200


async def test_projects_users_and_filters(cloud: Cloud) -> None:
    token = await cloud.admin()
    made = await cloud.call("POST", "/v3/projects", {"project": {"name": "web", "description": None}}, token)
    assert made.status == 201
    project = made.body["project"]
    assert project["links"]["self"] == f"{cloud.url}/identity/v3/projects/{project['id']}"
    assert (project["domain_id"], project["parent_id"], project["enabled"]) == ("default", "default", True)
    path = f"/v3/projects/{project['id']}"
    changed = await cloud.call("PATCH", path, {"project": {"enabled": False, "description": "shop"}}, token)
    assert (changed.body["project"]["enabled"], changed.body["project"]["name"]) == (False, "web")

    async def names(query: str, kind: str = "projects") -> list[str]:
        return [one["name"] for one in (await cloud.call("GET", f"/v3/{kind}?{query}", token=token)).body[kind]]

    assert await names("") == ["admin", "web"]
    assert await names("name=web") == ["web"]
    assert await names("enabled=true") == ["admin"]
    assert await names("enabled=0") == ["web"]
    assert await names("domain_id=default&whatever=1") == ["admin", "web"]
    assert await names("domain_id=other") == []
    assert await names("name=nobody", "users") == []

    body = {"user": {"name": "alice", "password": "x", "default_project_id": project["id"], "email": "a@b"}}
    user = (await cloud.call("POST", "/v3/users", body, token)).body["user"]
    assert user["default_project_id"] == project["id"]
    assert "password" not in json.dumps(user).replace("password_expires_at", "")
    cleared = await cloud.call("PATCH", f"/v3/users/{user['id']}", {"user": {"default_project_id": None}}, token)
    assert "default_project_id" not in cleared.body["user"]

    async with cloud.database.write() as connection:
        await connection.execute(
            insert(schema.networks).values(
                uuid="n",
                project_id=project["id"],
                name="backend",
                created_us=0,
            )
        )
    busy = await cloud.call("DELETE", path, token=token)
    assert busy.status == 409
    assert "networks (backend)" in busy.message


async def test_changing_ones_password(cloud: Cloud) -> None:
    alice, _ = await cloud.make("alice", "wonderland", "web")
    token = await cloud.login("alice", "wonderland", "web")
    path = f"/v3/users/{alice}/password"

    async def change(old: str, new: str) -> Answer:
        return await cloud.call("POST", path, {"user": {"original_password": old, "password": new}}, token)

    wrong = await change("wrong", "new")
    assert (wrong.status, wrong.message) == (401, "The request you have made requires authentication.")
    assert (await cloud.call("POST", path, {"user": {"password": "new"}}, token)).status == 400
    assert (await change("wonderland", "looking-glass")).status == 204
    assert (await cloud.call("GET", f"/v3/users/{alice}", token=token)).status == 401
    await cloud.login("alice", "looking-glass", "web")


async def test_application_credentials(cloud: Cloud) -> None:
    alice, project = await cloud.make("alice", "wonderland", "web")
    token = await cloud.login("alice", "wonderland", "web")
    path = f"/v3/users/{alice}/application_credentials"

    async def create(token: str, **fields: Any) -> Answer:
        return await cloud.call("POST", path, {"application_credential": {"name": "ci", **fields}}, token)

    for fields, field in (
        ({"roles": [{"name": "admin"}]}, "roles[0]"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": "2001-01-01T00:00:00"}, "expires_at"),
        ({"access_rules": [{"path": "/"}]}, "access_rules"),
    ):
        answer = await create(token, **fields)
        assert answer.status == 400
        assert field in answer.message
    made = await create(token, roles=[{"name": "reader"}], expires_at="2099-01-01T00:00:00.000000")
    assert made.status == 201
    credential = made.body["application_credential"]
    assert credential["project_id"] == project
    assert credential["expires_at"] == "2099-01-01T00:00:00.000000"
    assert (await create(token)).status == 409
    shown = (await cloud.call("GET", f"{path}/{credential['id']}", token=token)).body["application_credential"]
    assert "secret" not in shown
    assert [one["id"] for one in (await cloud.call("GET", path, token=token)).body["application_credentials"]] == [
        credential["id"]
    ]

    def login(**fields: Any) -> dict[str, Any]:
        return {
            "auth": {
                "identity": {
                    "methods": ["application_credential"],
                    "application_credential": {"secret": credential["secret"], **fields},
                }
            }
        }

    issued = await cloud.call("POST", "/v3/auth/tokens", login(id=credential["id"]))
    assert [role["name"] for role in issued.body["token"]["roles"]] == ["reader"]
    assert issued.body["token"]["application_credential"] == {
        "id": credential["id"],
        "name": "ci",
        "restricted": True,
    }
    by_name = login(name="ci", user={"name": "alice", "domain": {"name": "Default"}})
    assert (await cloud.call("POST", "/v3/auth/tokens", by_name)).status == 201
    assert (await cloud.call("POST", "/v3/auth/tokens", login(name="ci"))).status == 400

    restricted = issued.headers["X-Subject-Token"]
    for answer in (
        await create(restricted, name="more"),
        await cloud.call("DELETE", f"{path}/{credential['id']}", token=restricted),
    ):
        assert answer.status == 403
        assert "application_credential" in answer.message
    admin = await cloud.admin()
    assert (await create(admin, name="for-her")).status == 403
    assert (await cloud.call("DELETE", f"{path}/{credential['id']}", token=token)).status == 204
    assert (await cloud.call("GET", path, token=restricted)).status == 401


async def test_openstacksdk_and_keystoneclient(cloud: Cloud) -> None:
    """All that the CLI does, through the libraries that it is made of."""
    import openstack
    from keystoneauth1 import session
    from keystoneauth1.identity import v3
    from keystoneclient.v3 import client as keystone

    def auth(user: str, password: str, project: str) -> dict[str, Any]:
        return {
            "auth_url": f"{cloud.url}/identity/v3",
            "username": user,
            "password": password,
            "project_name": project,
            "user_domain_id": "default",
            "project_domain_name": "Default",
        }

    def work() -> None:
        admin = openstack.connect(auth=auth("admin", cloud.password, "admin"), region_name="RegionOne")
        project = admin.identity.create_project(name="web", description="shop", domain_id="default")
        user = admin.identity.create_user(name="alice", password="wonderland", default_project_id=project.id)
        assert admin.identity.find_project("web").id == project.id
        assert admin.identity.find_user("alice", ignore_missing=False).id == user.id
        role = admin.identity.find_role("member")
        admin.identity.assign_project_role_to_user(project.id, user.id, role.id)
        assert admin.identity.validate_user_has_project_role(project.id, user.id, role.id)
        held = list(admin.identity.role_assignments(user_id=user.id, include_names=True))
        assert held[0].scope["project"]["name"] == "web"
        assert [one.name for one in admin.identity.domains()] == ["Default"]
        assert {one.type for one in admin.identity.services()} == SERVICES
        assert len(list(admin.identity.endpoints())) == 18
        assert [one.id for one in admin.identity.regions()] == ["RegionOne"]
        assert admin.identity.get_service(next(iter(admin.identity.services())).id).name
        assert admin.identity.update_project(project.id, description="new").description == "new"

        alice = openstack.connect(auth=auth("alice", "wonderland", "web"), region_name="RegionOne")
        assert alice.current_project_id == project.id
        assert alice.endpoint_for("container") == f"{cloud.url}/v1"
        made = alice.identity.create_application_credential(user.id, "ci", roles=[{"name": "member"}])
        assert made.secret
        assert alice.identity.find_application_credential(user.id, "ci").id == made.id
        program = session.Session(
            auth=v3.ApplicationCredential(
                f"{cloud.url}/identity/v3",
                application_credential_id=made.id,
                application_credential_secret=made.secret,
            )
        )
        assert program.get_project_id() == project.id
        alice.identity.delete_application_credential(user.id, made.id)

        tokens = session.Session(auth=v3.Password(**auth("alice", "wonderland", "web")))
        client = keystone.Client(session=tokens, interface="public")
        assert [one.name for one in client.auth.projects()] == ["web"]
        assert client.users.get(user.id).name == "alice"
        client.users.update_password("wonderland", "looking-glass")
        assert not admin.identity.unassign_project_role_from_user(project.id, user.id, role.id)
        admin.identity.delete_user(user.id, ignore_missing=False)
        admin.identity.delete_project(project.id, ignore_missing=False)
        assert admin.identity.find_project("web") is None
        admin.close()
        alice.close()

    await in_thread(work)


@pytest.mark.timeout(1200)  # ten starts of a program that takes two seconds of a processor for one
@pytest.mark.skipif(not OPENSTACK.exists(), reason="python-openstackclient is not installed")
async def test_the_openstack_command(cloud: Cloud) -> None:
    base = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}

    async def run(*words: str, user: str = "admin", password: str | None = None, project: str = "admin") -> Any:
        environment = {
            **base,
            "OS_AUTH_URL": f"{cloud.url}/identity/v3",
            "OS_USERNAME": user,
            "OS_PASSWORD": password or cloud.password,
            "OS_PROJECT_NAME": project,
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_IDENTITY_API_VERSION": "3",
        }
        process = await asyncio.create_subprocess_exec(
            OPENSTACK, *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, complaint = await asyncio.wait_for(process.communicate(), 200)
        assert process.returncode == 0, (words, complaint.decode())
        return json.loads(output) if "json" in words else output.decode()

    issued = await run("token", "issue", "-f", "json")
    await cloud.identity.validate(issued["id"])
    await run("project", "create", "web", "--description", "shop", "--domain", "default")
    made = await run(
        "user", "create", "alice", "--password", "wonderland", "--project", "web", "--domain", "default", "-f", "json"
    )
    assert made["name"] == "alice"
    await run("role", "add", "--user", "alice", "--project", "web", "member")
    listed = await run("role", "assignment", "list", "--names", "--project", "web", "-f", "json")
    assert [(one["Role"], one["User"], one["Project"]) for one in listed] == [
        ("member", "alice@Default", "web@Default")
    ]
    alice = {"user": "alice", "password": "wonderland", "project": "web"}
    catalog = await run("catalog", "list", "-f", "json", **alice)
    assert {one["Type"] for one in catalog} == SERVICES
    secret = await run("application", "credential", "create", "ci", "-f", "json", **alice)
    assert secret["Name" if "Name" in secret else "name"] == "ci"
    assert [one["Name"] for one in await run("project", "list", "-f", "json", **alice)] == ["web"]
