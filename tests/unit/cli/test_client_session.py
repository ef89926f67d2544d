"""Logging in, keeping tokens, and errors of the line."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from askos.client import connection, keystone, native, wire
from askos.client.connection import Cloud
from askos.client.containers import Containers, exit_code
from askos.client.errors import ApiError, ConnectionBrokenError, LoginError, NoAnswerError, api_error
from askos.client.http import Http
from askos.client.session import Session
from askos.client.tokens import Login, TokenCache


@pytest.fixture
def where(cloud):
    return Cloud(source="test", auth_url=cloud.url, username=cloud.user, password=cloud.password,
                 project=("name", cloud.project))  # fmt: skip


@pytest.fixture
def session():
    """Makes sessions that are closed at the end."""
    opened = []

    def start(cloud, cache=None):
        opened.append(Session(cloud, cache))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def cache(tmp_path):
    return TokenCache(tmp_path / "cache" / "askos")


def test_the_token_is_kept_in_a_private_place(where, cache, cloud, session):
    Containers(session(where, cache)).list()
    Containers(session(where, cache)).list()
    assert cloud.logins == 1
    (file,) = cache.folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert cloud.password not in file.read_text()


def test_a_refused_token_is_renewed_once(where, cache, cloud, session):
    Containers(session(where, cache)).list()
    cloud.tokens.clear()
    assert Containers(session(where, cache)).list() == []
    assert cloud.logins == 2


def test_a_token_that_is_refused_at_once_is_an_error(where, cache, cloud, session):
    line = session(where, cache)
    line.login()
    cloud.tokens.clear()
    with pytest.raises(ApiError) as caught:
        line.request("GET", "/containers")
    assert caught.value.status == 401
    assert cloud.logins == 1


def test_an_endpoint_that_has_moved_is_looked_up_again(where, cache, cloud, session):
    cache.put(where, Login("old", "http://127.0.0.1:9/v1", 4e9))
    assert Containers(session(where, cache)).list() == []


def test_other_users_have_other_tokens(where, cache):
    cache.put(where, Login("t", "e", 4e9))
    assert cache.get(where) == Login("t", "e", 4e9)
    assert cache.get(where._replace(username="eve")) is None
    assert cache.get(where._replace(project=("name", "other"))) is None
    assert cache.get(where._replace(auth_url="http://other")) is None


def test_old_and_broken_tokens_are_not_used(where, cache):
    cache.put(where, Login("t", "e", 1000.0))
    assert cache.get(where) is None
    (file,) = cache.folder.iterdir()
    file.write_text("{")
    assert cache.get(where) is None


def test_a_cache_that_cannot_be_written_is_no_error(where, tmp_path, cloud, session):
    (tmp_path / "file").write_text("")
    assert Containers(session(where, TokenCache(tmp_path / "file" / "askos"))).list() == []


def test_application_credentials(where, cache, session):
    found = where._replace(username="", password="", project=None, credential_id="cred", credential_secret="shh")
    assert Containers(session(found, cache)).list() == []


def test_wrong_credentials(where, session):
    with pytest.raises(LoginError, match="are refused"):
        session(where._replace(password="x")).login()


CATALOG = [
    {"type": "container", "endpoints": [
        {"interface": "public", "region": "R1", "url": "http://one/v1/"},
        {"interface": "internal", "region": "R1", "url": "http://in/v1"},
        {"interface": "public", "region": "R2", "url": "http://two/v1"}]},
]  # fmt: skip


def test_the_catalog():
    cloud = Cloud(source="t", auth_url="http://x")
    assert keystone.catalog_endpoint(CATALOG, cloud) == "http://one/v1"
    assert keystone.catalog_endpoint(CATALOG, cloud._replace(region="R2")) == "http://two/v1"
    assert keystone.catalog_endpoint(CATALOG, cloud._replace(interface="internal")) == "http://in/v1"
    alias = [{**CATALOG[0], "type": "application-container"}]
    assert keystone.catalog_endpoint(alias, cloud) == "http://one/v1"
    for catalog, change, why in (
        (CATALOG, {"region": "R3"}, "the service is in R1, R2"),
        (CATALOG, {"interface": "admin"}, "cannot find a container service"),
        ([], {}, "has no project"),
    ):
        with pytest.raises(LoginError, match=why):
            keystone.catalog_endpoint(catalog, cloud._replace(**change))


def test_where_keystone_may_be():
    assert keystone.token_roots("http://x/v3") == ["http://x/v3"]
    assert keystone.token_roots("http://x/identity") == ["http://x/identity/v3", "http://x/identity"]
    assert keystone.token_roots("http://x/v2.0") == ["http://x/v3"]


def test_auth_documents():
    cloud = Cloud("t", "http://x", token="tok", project=("id", "p1"))
    assert keystone.auth_document(cloud) == {
        "identity": {"methods": ["token"], "token": {"id": "tok"}}, "scope": {"project": {"id": "p1"}}}  # fmt: skip
    cloud = Cloud("t", "http://x", user_id="u1", password="p", project=("name", "n"), project_domain=("name", "D"))
    assert keystone.auth_document(cloud) == {
        "identity": {"methods": ["password"], "password": {"user": {"id": "u1", "password": "p"}}},
        "scope": {"project": {"name": "n", "domain": {"name": "D"}}},
    }


@pytest.mark.parametrize(
    ("body", "message", "kind"),
    [
        (b'{"errors":[{"code":"container.conflict","status":409,"title":"No way.","detail":"No way."}]}',
         "No way", "conflict"),
        (b'{"errors":[{"code":"container.","title":"Internal Server Error","detail":"id is 7"}]}', "id is 7", ""),
        (b'{"error":{"code":401,"title":"Unauthorized","message":"go away."}}', "go away", ""),
        (b"<html>gateway</html>", "HTTP 502: Bad Gateway", ""),
        (b"", "HTTP 502: Bad Gateway", ""),
        (b"[]", "[]", ""),
        (b"{}", "HTTP 502 Bad Gateway", ""),
    ],
)  # fmt: skip
def test_error_bodies(body, message, kind):
    error = api_error(502, "Bad Gateway", body)
    assert (error.message, error.kind) == (message, kind)


def test_frames_come_as_they_arrive():
    stream = b"\x01\x00\x00\x00\x03abc\x02\x00\x00\x00\x02xy\x01\x00\x00\x00\x00"
    assert list(native.frames([stream])) == [(1, b"abc"), (2, b"xy")]
    single = list(native.frames([bytes([b]) for b in stream]))
    assert b"".join(d for c, d in single if c == 1) == b"abc"
    assert b"".join(d for c, d in single if c == 2) == b"xy"
    for cut in (1, 4, 6, 9, 13):
        with pytest.raises(ConnectionBrokenError):
            list(native.frames([stream[:cut]]))


def test_lines():
    assert list(native.lines([b'{"a"', b':1}\n{"b":2}\n\n', b'{"c":3}'])) == [
        b'{"a":1}',
        b'{"b":2}',
        b'{"c":3}',
    ]


def test_results_of_processes():
    assert wire.result(b'{"status":"Success"}') == (0, "")
    code = b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}'
    assert wire.result(code) == (3, "")
    assert wire.result(b'{"status":"Failure","message":"no such file or directory"}').exit_code == 127
    assert wire.result(b'{"status":"Failure","message":"permission denied"}').exit_code == 126
    assert wire.result(b'{"status":"Failure","message":"host lost"}') == (125, "host lost")
    for broken in (b"", b"[]", b"{}", b'{"status":"Failure","reason":"NonZeroExitCode"}'):
        assert wire.result(broken).exit_code == 125


def test_exit_codes_in_status_detail():
    assert exit_code({"status_detail": "Exited(3) 8 mins ago "}) == 3
    assert exit_code({"status_detail": "Exited(137) None ago "}) == 137
    assert exit_code({"status_detail": "Up 5 mins"}) is None
    assert exit_code({"status_detail": None}) is None


def serve_once(answer: bytes) -> str:
    """A server that sends these bytes to its first caller and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            caller, _ = listener.accept()
            with caller:
                caller.recv(65536)
                caller.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_broken_answers_are_told():
    http = Http()
    with pytest.raises(NoAnswerError, match="closed the connection without an answer"):
        http.request("GET", serve_once(b""), headers={})
    with pytest.raises(ConnectionBrokenError, match="cut off"):
        http.request("GET", serve_once(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), headers={})
    cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nwo"
    with http.stream("GET", serve_once(cut), headers={}) as stream, pytest.raises(ConnectionBrokenError):
        stream.read()


def test_no_answer_in_time():
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, pytest.raises(NoAnswerError, match=r"no answer within 0\.2 s"):
        Http().request("GET", f"http://127.0.0.1:{listener.getsockname()[1]}", headers={}, timeout_s=0.2)


def test_the_folder_of_data(monkeypatch):
    assert str(connection.data_folder(None, {})) == "/var/lib/askos"
    assert str(connection.data_folder(None, {"ASKOS_DATA": "/d"})) == "/d"
    assert str(connection.data_folder("/f", {"ASKOS_DATA": "/d"})) == "/f"
    assert os.sep in str(connection.data_folder(None))
