"""Which cloud is meant: flags, variables, files; and the files that the server leaves."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
import yaml

from askos.client import connection, credentials
from askos.client.errors import ClientError

PASSWORD = 'it\'s "quoted" $HOME `id` \\ ü\n2'
ARGUMENTS = ("http://127.0.0.1:9517/v3", "admin", PASSWORD, "admin", None, "http://127.0.0.1:9517/v1")
BASE = {
    "OS_AUTH_URL": "https://ks.example:5000/v3/",
    "OS_USERNAME": "u",
    "OS_PASSWORD": "p",
    "OS_PROJECT_NAME": "demo",
}


def test_the_files_are_private_and_say_the_same(tmp_path):
    old = os.umask(0)
    try:
        credentials.write_files(tmp_path, *ARGUMENTS)
    finally:
        os.umask(old)
    assert sorted(os.listdir(tmp_path)) == ["clouds.json", "clouds.yaml", "openrc"]
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in os.listdir(tmp_path)} == {0o600}
    document = credentials.clouds_document(*ARGUMENTS)
    assert json.loads((tmp_path / "clouds.json").read_text()) == document
    assert yaml.safe_load((tmp_path / "clouds.yaml").read_text()) == document
    assert document["clouds"]["askos"]["auth"]["password"] == PASSWORD


def test_openrc_survives_a_shell(tmp_path):
    credentials.write_files(tmp_path, *ARGUMENTS)
    script = f'. {tmp_path}/openrc; printf %s "$OS_PASSWORD"'
    out = subprocess.run(["sh", "-c", script], capture_output=True, check=True, env={"HOME": "/x"}, timeout=20).stdout
    assert out.decode() == PASSWORD


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    credentials.write_private(tmp_path / "openrc", "old")

    def refuse(*_):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        credentials.write_private(tmp_path / "openrc", "new")
    assert os.listdir(tmp_path) == ["openrc"]
    assert (tmp_path / "openrc").read_text() == "old"


def test_the_local_cloud(tmp_path):
    credentials.write_files(tmp_path, *ARGUMENTS)
    for found in (
        connection.resolve(environ={"ASKOS_DATA": str(tmp_path)}),
        connection.resolve(data=str(tmp_path), environ=BASE),
        connection.resolve(os_cloud="askos", environ={"ASKOS_DATA": str(tmp_path), "HOME": "/nowhere"}),
    ):
        assert found.auth_url == "http://127.0.0.1:9517/v3"
        assert (found.username, found.password, found.project) == ("admin", PASSWORD, ("name", "admin"))
        assert found.user_domain == ("id", "default")
        assert found.endpoint == "http://127.0.0.1:9517/v1"
        assert PASSWORD not in repr(found)


def test_no_cloud_at_all(tmp_path):
    with pytest.raises(ClientError, match=r"there is no .*clouds\.json.*`askos up -d`"):
        connection.resolve(environ={"ASKOS_DATA": str(tmp_path)})


def test_variables():
    found = connection.resolve(environ=BASE)
    assert found.auth_url == "https://ks.example:5000/v3"
    assert (found.interface, found.region, found.verify) == ("public", "", True)
    found = connection.resolve(
        environ={**BASE, "OS_USER_DOMAIN_NAME": "People", "OS_PROJECT_ID": "p1", "OS_ENDPOINT_TYPE": "internalURL",
                 "OS_REGION_NAME": "R2", "OS_CACERT": "/ca.pem", "OS_INSECURE": "true"}
    )  # fmt: skip
    assert (found.user_domain, found.project, found.interface) == (
        ("name", "People"),
        ("id", "p1"),
        "internal",
    )
    assert (found.region, found.cacert, found.verify) == ("R2", "/ca.pem", False)


def test_an_application_credential_needs_no_user():
    found = connection.resolve(
        environ={
            "OS_AUTH_URL": "http://x/v3",
            "OS_APPLICATION_CREDENTIAL_ID": "i",
            "OS_APPLICATION_CREDENTIAL_SECRET": "s",
        }
    )
    assert (found.credential_id, found.credential_secret, found.project) == ("i", "s", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
     ({"OS_PASSWORD": ""}, "no password"), ({"OS_USERNAME": ""}, "no user name"),
     ({"OS_PROJECT_NAME": ""}, "no project"),
     ({"OS_AUTH_URL": "ks.example"}, "does not begin with http"), ({"OS_APPLICATION_CREDENTIAL_ID": "i"}, "no secret")],
)  # fmt: skip
def test_what_is_missing_is_named(change, message):
    with pytest.raises(ClientError, match=message) as caught:
        connection.resolve(environ={**BASE, **change})
    assert "'p'" not in str(caught.value)


def test_clouds_yaml_with_its_secrets(tmp_path):
    folder = tmp_path / ".config" / "openstack"
    folder.mkdir(parents=True)
    entry = {"auth": {"auth_url": "http://a/v3", "username": "u", "project_name": "demo", "user_domain_name": "D"},
             "region_name": "R1", "cacert": "~/ca.pem", "verify": False}  # fmt: skip
    (folder / "clouds.yaml").write_text(yaml.safe_dump({"clouds": {"one": entry, "two": {}}}))
    (folder / "secure.yaml").write_text(yaml.safe_dump({"clouds": {"one": {"auth": {"password": "hidden"}}}}))
    environ = {"HOME": str(tmp_path), "ASKOS_DATA": str(tmp_path)}
    found = connection.resolve(environ={**environ, **BASE, "OS_CLOUD": "one"})
    assert (found.auth_url, found.password, found.user_domain) == ("http://a/v3", "hidden", ("name", "D"))
    assert found.cacert == os.path.expanduser("~/ca.pem")
    assert found.verify is False
    with pytest.raises(ClientError, match=r"no user name|does not begin"):
        connection.resolve(os_cloud="two", environ=environ)
    with pytest.raises(ClientError, match="'three': known are one, two"):
        connection.resolve(os_cloud="three", environ=environ)


def test_an_unreadable_file_is_told(tmp_path):
    (tmp_path / "clouds.json").write_text("{")
    with pytest.raises(ClientError, match=r"cannot read .*clouds\.json"):
        connection.resolve(data=str(tmp_path), environ={})
    (tmp_path / "c.yaml").write_text("a: [")
    with pytest.raises(ClientError, match=r"cannot read .*c\.yaml"):
        connection.resolve(os_cloud="x", environ={"OS_CLIENT_CONFIG_FILE": str(tmp_path / "c.yaml"), "HOME": "/x"})
