"""A cloud behind TLS with an authority of its own."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta

import fakecloud
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fake")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*form))
    return path


@pytest.fixture
def cloud(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with fakecloud.FakeCloud(context) as running:
        yield running


def test_an_unknown_authority_is_told(askos, cloud):
    ran = askos("ps")
    assert ran.code == 1
    assert ran.err.startswith(f"askos: cannot trust {cloud.url}: self-signed certificate. Point OS_CACERT at")


def test_with_its_authority_all_works(askos, program, environment, certificate, monkeypatch):
    environment["OS_CACERT"] = str(certificate)
    monkeypatch.setenv("OS_CACERT", str(certificate))
    assert askos("run", "-d", "--name", "web", "busybox", "sleep", "100").code == 0
    done = program("exec", "web", "echo", "hi")
    assert (*done.communicate(timeout=30), done.returncode) == (b"hi\n", b"", 0)


def test_trust_can_be_given_up(askos, monkeypatch):
    monkeypatch.setenv("OS_INSECURE", "1")
    assert askos("ps").code == 0


def test_a_missing_authority_file_is_told(askos, monkeypatch):
    monkeypatch.setenv("OS_CACERT", "/nowhere.pem")
    ran = askos("ps")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "cannot read the certificate authority's file /nowhere.pem" in ran.err
