"""The ecosystem's clients, unmodified, against the generated clouds.yaml and the output of `askos env`."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from keystoneauth1 import discover
from keystoneauth1.identity import v3
from keystoneauth1.session import Session
from tests.acceptance.client_fixtures import runs
from tests.acceptance.cloud_fixtures import LIVES, Cloud, Done, eventually
from zunclient import client as zun_client

Client = Callable[..., Done]


def test_what_is_written_for_clients_is_private(cloud: Cloud) -> None:
    for name in ("clouds.yaml", "openrc", "clouds.json", "admin-password"):
        assert stat.S_IMODE((cloud.data / name).stat().st_mode) == 0o600, name
    entry = yaml.safe_load((cloud.data / "clouds.yaml").read_text())["clouds"]["askos"]
    assert entry == yaml.safe_load(cloud.askos("env", "--clouds").stdout)["clouds"]["askos"]


def test_openstack_token_issue(cloud: Cloud) -> None:
    token = json.loads(cloud.openstack("token", "issue", "-f", "json").stdout)
    assert cloud.api("GET", "/v1/containers", token=token["id"]).status == 200
    by_variables = cloud.run("bash", "-c", 'eval "$(askos env)" && openstack token issue -f value -c project_id').stdout
    assert by_variables.strip() == token["project_id"]
    by_openrc = cloud.run("bash", "-c", f". {cloud.data}/openrc && openstack token issue -f value -c user_id").stdout
    assert by_openrc.strip() == token["user_id"]


def test_openstack_appcontainer(cloud: Cloud) -> None:
    def appcontainer(*arguments: str) -> str:
        return cloud.openstack("appcontainer", *arguments).stdout

    def as_json(*arguments: str) -> Any:
        # Behind the image every word belongs to the container's command.
        return json.loads(appcontainer(arguments[0], "-f", "json", *arguments[1:]))

    made = as_json("run", "--name", "web", "--memory", "64", "--environment", "A=b", "--wait", "busybox", *LIVES)
    assert (made["name"], made["status"], made["memory"]) == ("web", "Running", "64")
    (listed,) = as_json("list")
    assert (listed["uuid"], listed["name"], listed["status"]) == (made["uuid"], "web", "Running")
    shown = as_json("show", "web")
    assert (shown["uuid"], shown["image"], shown["environment"]) == (made["uuid"], "busybox", {"A": "b"})
    assert appcontainer("exec", "web", "sh", "-c", "echo $A; echo kept > /file").strip() == "b"
    appcontainer("stop", "web")
    cloud.wait_for("web", "Stopped")
    appcontainer("start", "web")
    cloud.wait_for("web", "Running")
    assert appcontainer("exec", "web", "cat", "/file").strip() == "kept"
    appcontainer("delete", "--stop", "web")
    eventually(lambda: not cloud.containers(), "openstack appcontainer delete --stop")
    appcontainer("run", "--name", "short", "--restart", "on-failure:3", "busybox", "echo", "hi")
    cloud.wait_for("short", "Stopped")
    assert appcontainer("logs", "short").strip() == "hi"
    appcontainer("delete", "short")
    eventually(lambda: not cloud.containers(), "openstack appcontainer delete")


@runs("zun", "run", "list", "show", "exec", "stop", "start", "delete", "logs")
def test_zun(cloud: Cloud) -> None:
    def zun(*arguments: str) -> str:
        return cloud.zun(*arguments).stdout

    assert "| name " in zun("run", "--name", "web", "busybox", *LIVES)
    uuid = cloud.wait_for("web", "Running")["uuid"]
    assert uuid in zun("list")
    assert uuid in zun("show", "web")
    assert zun("exec", "web", "sh", "-c", "echo $((6 * 7)); echo kept > /file").strip() == "42"
    zun("stop", "web")
    cloud.wait_for("web", "Stopped")
    zun("start", "web")
    cloud.wait_for("web", "Running")
    assert zun("exec", "web", "cat", "/file").strip() == "kept"
    zun("delete", "--stop", "web")
    eventually(lambda: not cloud.containers(), "zun delete --stop")
    zun("run", "--name", "short", "busybox", "echo", "hi")
    cloud.wait_for("short", "Stopped")
    assert zun("logs", "short").strip() == "hi"
    zun("delete", "short")
    eventually(lambda: not cloud.containers(), "zun delete")


def test_clients_tell_what_was_refused(cloud: Cloud) -> None:
    missing = cloud.openstack("appcontainer", "show", "nobody", check=False)
    assert missing.returncode != 0
    assert "nobody could not be found" in missing.stderr
    wrong = cloud.openstack("--os-password", "wrong", "token", "issue", check=False)
    assert wrong.returncode != 0
    assert "HTTP 401" in wrong.stderr


# -- the libraries below -------------------------------------------------------------------------------------------


@pytest.fixture
def session(cloud: Cloud) -> Iterator[Session]:
    login = cloud.login()
    domains = {"user_domain_id": "default", "project_domain_id": "default"}
    auth = v3.Password(
        auth_url=f"http://127.0.0.1:{cloud.port}/identity/v3",
        username=login.user,
        password=login.password,
        project_name=login.project,
        **domains,
    )
    session = Session(auth=auth)
    yield session
    session.session.close()


@pytest.mark.parametrize("service", ["container", "application-container"])
def test_keystoneauth_finds_the_service(cloud: Cloud, session: Session, service: str) -> None:
    endpoint = session.get_endpoint(service_type=service, interface="public", region_name="RegionOne")
    assert endpoint == f"http://127.0.0.1:{cloud.port}/v1"
    data = session.auth.get_endpoint_data(session, service_type=service, interface="public", discover_versions=True)
    assert data.api_version == (1, 0)


def test_keystoneauth_discovers_identity(cloud: Cloud, session: Session) -> None:
    for path in ("identity", "identity/", "identity/v3"):
        found = discover.Discover(session, f"http://127.0.0.1:{cloud.port}/{path}", authenticated=False)
        assert found.url_for("3") == f"http://127.0.0.1:{cloud.port}/identity/v3/"
    assert session.get("/auth/projects", endpoint_filter={"service_type": "identity"}).json()["projects"]


def test_microversion_negotiation_of_zunclient(cloud: Cloud, session: Session) -> None:
    zun = zun_client.Client("1.latest", session=session)
    assert zun.api_version.get_string() == "1.40"
    cloud.running(name="seen")
    (container,) = zun.containers.list()
    assert container.name == "seen"
    assert [c.uuid for c in zun.containers.list(limit=1)] == [container.uuid]
    assert zun.containers.execute("seen", command="sh -c 'exit 3'", run=True)["exit_code"] == 3
    assert zun_client.Client("1.12", session=session).containers.get("seen").status == "Running"


def test_an_application_credential(cloud: Cloud, session: Session) -> None:
    user = session.get_user_id()
    made = session.post(
        f"/users/{user}/application_credentials",
        endpoint_filter={"service_type": "identity"},
        json={"application_credential": {"name": "robot"}},
    ).json()["application_credential"]
    try:
        variables = {
            "OS_AUTH_TYPE": "v3applicationcredential",
            "OS_AUTH_URL": f"http://127.0.0.1:{cloud.port}/identity/v3",
            "OS_APPLICATION_CREDENTIAL_ID": made["id"],
            "OS_APPLICATION_CREDENTIAL_SECRET": made["secret"],
        }
        assert cloud.run("openstack", "appcontainer", "list", "-f", "json", env=variables).stdout.strip() == "[]"
        assert cloud.askos("ps", "-q", env=variables).stdout == ""
    finally:
        path = f"/identity/v3/users/{user}/application_credentials/{made['id']}"
        assert cloud.api("DELETE", path).status == 204
    assert cloud.run("openstack", "appcontainer", "list", env=variables, check=False).returncode != 0


def test_gophercloud_discovery(cloud: Cloud) -> None:
    """gophercloud takes the catalog's URL as it is when it ends in v1, else it reads `versions` behind it."""
    (version,) = cloud.http("GET", "/").json()["versions"]
    assert (version["id"], version["status"]) == ("v1", "CURRENT")
    assert cloud.http("GET", "/v1").json()["id"] == "v1"
    # Without a version in the URL it asks for /containers, and sends no microversion.
    answer = cloud.http("GET", "/containers", headers={"X-Auth-Token": cloud.token()})
    assert (answer.status, answer.headers["openstack-api-version"]) == (200, "container 1.1")
    found = {s["type"] for s in cloud.api("GET", "/identity/v3/auth/catalog").json()["catalog"]}
    assert {"container", "identity"} <= found
