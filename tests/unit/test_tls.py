"""TLS: a real handshake with what the cloud made itself, and what makes it renew."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from askos.model.errors import SetupError
from askos.paths import Paths
from askos.programs.tls import certificate_names, ensure_certificate, refresh, server_context
from askos.settings import Listen

NAMES = ["127.0.0.1", "::1", "cloud.example.org", "localhost"]
NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(tmp_path)
    found.tls.mkdir(mode=0o700)
    return found


async def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bytes | None:
    """Connect over TLS on loopback, calling the server by `name`; returns the certificate that it showed."""

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"wine")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=server)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        try:
            assert await reader.read(4) == b"wine"
            shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            return shown
        finally:
            writer.close()


def trusting(paths: Paths) -> ssl.SSLContext:
    """A client that trusts the cloud's authority and nothing else, and checks what later Pythons check too."""
    context = ssl.create_default_context(cafile=str(paths.cacert))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def server_certificate(paths: Paths) -> x509.Certificate:
    return x509.load_pem_x509_certificate((paths.tls / "server.pem").read_bytes())


@pytest.mark.parametrize("name", NAMES)
async def test_a_client_that_trusts_the_authority_connects_by_every_name(paths: Paths, name: str) -> None:
    assert await shake_hands(server_context(paths, NAMES), trusting(paths), name) is not None


async def test_another_name_and_another_authority_are_refused(paths: Paths, tmp_path: Path) -> None:
    server = server_context(paths, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await shake_hands(server, trusting(paths), "other.example.org")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        await shake_hands(server, ssl.create_default_context(), "localhost")
    other = Paths(tmp_path / "other")
    other.tls.mkdir(parents=True)
    server_context(other, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake_hands(server, trusting(other), "localhost")


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated")
async def test_old_tls_versions_are_refused(paths: Paths) -> None:
    server, client = server_context(paths, NAMES), trusting(paths)
    client.set_ciphers("ALL:@SECLEVEL=0")  # else the client itself would refuse
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):  # an alert, or a reset when that is faster
        await shake_hands(server, client, "localhost")
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await shake_hands(server, client, "localhost") is not None


async def test_a_restart_shows_the_same_certificate(paths: Paths) -> None:
    first = await shake_hands(server_context(paths, NAMES), trusting(paths), "localhost")
    again = await shake_hands(server_context(paths, list(reversed(NAMES))), trusting(paths), "localhost")
    assert first == again


def test_keys_are_private_and_the_authority_is_public(paths: Paths) -> None:
    ensure_certificate(paths, NAMES, NOW)
    modes = {file.name: file.stat().st_mode & 0o777 for file in paths.tls.iterdir()}
    assert modes == {"authority.pem": 0o600, "server.pem": 0o600, "ca.pem": 0o644}
    assert "PRIVATE" not in paths.cacert.read_text()


def test_renewed_when_less_than_30_days_are_left(paths: Paths) -> None:
    assert ensure_certificate(paths, NAMES, NOW)
    trusted = paths.cacert.read_text()
    end = server_certificate(paths).not_valid_after_utc
    assert not ensure_certificate(paths, NAMES, end - timedelta(days=30, minutes=1))
    assert ensure_certificate(paths, NAMES, end - timedelta(days=29))
    assert server_certificate(paths).not_valid_after_utc > end
    assert paths.cacert.read_text() == trusted, "clients must go on trusting the same authority"


def test_renewed_when_the_names_change(paths: Paths) -> None:
    ensure_certificate(paths, NAMES, NOW)
    assert ensure_certificate(paths, [*NAMES, "new.example.org"], NOW)
    alternative = server_certificate(paths).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "new.example.org" in alternative.get_values_for_type(x509.DNSName)


async def test_a_running_server_takes_up_a_renewed_certificate(paths: Paths) -> None:
    context = server_context(paths, NAMES)
    first = await shake_hands(context, trusting(paths), "localhost")
    assert not refresh(context, paths, NAMES)
    assert refresh(context, paths, [*NAMES, "new.example.org"])
    second = await shake_hands(context, trusting(paths), "new.example.org")
    assert second is not None
    assert second != first


def test_an_expired_authority_takes_its_certificates_along(paths: Paths) -> None:
    ensure_certificate(paths, NAMES, NOW)
    trusted, later = paths.cacert.read_text(), NOW + timedelta(days=3650 - 29)
    assert ensure_certificate(paths, NAMES, later)
    authority = x509.load_pem_x509_certificate(paths.cacert.read_bytes())
    assert paths.cacert.read_text() != trusted
    server_certificate(paths).verify_directly_issued_by(authority)


def test_near_its_authoritys_end_a_certificate_does_not_outlive_it(paths: Paths) -> None:
    ensure_certificate(paths, NAMES, NOW)
    authority = x509.load_pem_x509_certificate(paths.cacert.read_bytes())
    ensure_certificate(paths, NAMES, NOW + timedelta(days=3650 - 100))
    assert server_certificate(paths).not_valid_after_utc == authority.not_valid_after_utc


def test_a_lost_public_copy_comes_back(paths: Paths) -> None:
    ensure_certificate(paths, NAMES, NOW)
    trusted = paths.cacert.read_text()
    paths.cacert.unlink()
    assert not ensure_certificate(paths, NAMES, NOW)
    assert paths.cacert.read_text() == trusted


def test_a_broken_file_is_named_and_kept(paths: Paths) -> None:
    broken = paths.tls / "authority.pem"
    broken.write_text("nonsense")
    with pytest.raises(SetupError, match=r"Cannot read .*/authority\.pem: .*Remove it to have a new one made"):
        ensure_certificate(paths, NAMES, NOW)
    assert broken.read_text() == "nonsense"


def test_a_name_that_cannot_be_certified(paths: Paths) -> None:
    with pytest.raises(SetupError, match="Cannot make a certificate for"):
        ensure_certificate(paths, ["a" * 64 + ".example.org"], NOW)


def test_names_cover_every_way_to_call_the_server() -> None:
    listen = Listen(address="192.0.2.7", public_url="https://cloud.example.org:9517")
    names = certificate_names(listen, "box")
    assert names == ["192.0.2.7", "box", "localhost", "127.0.0.1", "::1", "cloud.example.org"]


def test_names_of_a_wildcard_are_addresses_that_can_be_called() -> None:
    listen = Listen(address="0.0.0.0")
    names = certificate_names(listen, "box")
    assert "0.0.0.0" not in names
    assert listen.url.removeprefix("https://").removesuffix(":9517") in names
    assert socket.inet_aton(names[0])
