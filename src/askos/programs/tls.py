"""TLS without anybody's help: the cloud's own certificate authority, and its server's certificate.

Three files in `<data>/tls`: `authority.pem` (the authority's key and certificate, mode 0600), `ca.pem` (that
certificate alone, for clients to trust) and `server.pem` (the server's key and certificate, mode 0600). A key and
its certificate share a file, which is replaced as a whole: no crash leaves a pair that does not match.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from askos.client.credentials import write_private
from askos.model.errors import SetupError
from askos.paths import Paths
from askos.settings import Listen, own_address

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
"""Some clients refuse certificates that are good for longer than 398 days."""
RENEW_DAYS = 30
"""A certificate with less than this left is made anew."""
_BACKDATE = timedelta(hours=1)
"""Clients' clocks may be slow."""


class Pair(NamedTuple):
    """A private key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def certificate_names(listen: Listen, hostname: str) -> list[str]:
    """Every address and name under which clients may call a server that listens so."""
    names = [listen.address, hostname, "localhost", "127.0.0.1", "::1"]
    if ip_address(listen.address).is_unspecified:
        names = [own_address(4), own_address(6), *names[1:]]
    names += [host for host in [urlsplit(listen.url).hostname] if host]
    return list(dict.fromkeys(names))


def server_context(paths: Paths, names: Iterable[str]) -> ssl.SSLContext:
    """What the API server listens with; makes or renews whatever is missing or old. SetupError if impossible."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    refresh(context, paths, names)
    return context


def refresh(context: ssl.SSLContext, paths: Paths, names: Iterable[str]) -> bool:
    """Renew the server's certificate if it is time, and use it for connections from now on.

    Call it once a day while the server runs. Returns whether there is a new one.
    """
    renewed = ensure_certificate(paths, list(names), datetime.now(UTC))
    try:
        context.load_cert_chain(_server_file(paths))
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"Cannot use the certificate {_server_file(paths)}: {error}. Remove it.") from error
    return renewed


def ensure_certificate(paths: Paths, names: list[str], now: datetime) -> bool:
    """Make what is missing, wrong or about to expire. Returns whether the server's certificate is new."""
    authority = _read(_authority_file(paths))
    if authority is None or _expires_soon(authority.certificate, now):
        authority = _make_authority(now)
        _write(_authority_file(paths), authority)
    public = _pem(authority.certificate)
    try:
        if not paths.cacert.exists() or paths.cacert.read_text() != public:
            write_private(paths.cacert, public)
            paths.cacert.chmod(0o644)
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"Cannot write {paths.cacert}: {error}.") from error
    server = _read(_server_file(paths))
    if server is not None and _is_good(server.certificate, authority.certificate, names, now):
        return False
    _write(_server_file(paths), _make_server(authority, names, now))
    return True


def _authority_file(paths: Paths) -> Path:
    return paths.tls / "authority.pem"


def _server_file(paths: Paths) -> Path:
    return paths.tls / "server.pem"


def _expires_soon(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_after_utc - now < timedelta(days=RENEW_DAYS)


def _is_good(server: x509.Certificate, authority: x509.Certificate, names: list[str], now: datetime) -> bool:
    try:
        server.verify_directly_issued_by(authority)
        has = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return set(has) == set(map(_general_name, names)) and not _expires_soon(server, now)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name.lower().encode("idna").decode())
    except UnicodeError:
        raise SetupError(f"Cannot make a certificate for {name!r}: it is neither an address nor a name.") from None


def _make_authority(now: datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Askos authority {x509.random_serial_number():x}"[:40])])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key, now, timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(key, certificate)


def _make_server(authority: Pair, names: list[str], now: datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "askos")])
    # A certificate must not outlive its authority's.
    life = min(timedelta(days=SERVER_DAYS), authority.certificate.not_valid_after_utc - now)
    issuer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder(name, authority.certificate.subject, key, now, life)
        .add_extension(x509.SubjectAlternativeName(dict.fromkeys(map(_general_name, names))), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Pair(key, certificate)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _write(path: Path, pair: Pair) -> None:
    key = pair.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        write_private(path, key.decode() + _pem(pair.certificate))
    except OSError as error:
        raise SetupError(f"Cannot write {path}: {error.strerror}.") from error


def _read(path: Path) -> Pair | None:
    """The pair in a file, or None when there is no file. A broken file is not replaced silently: clients may
    trust what is in it."""
    try:
        content = path.read_bytes()
        key = serialization.load_pem_private_key(content, None)
        certificate = x509.load_pem_x509_certificate(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(f"Cannot read {path}: {error}. Remove it to have a new one made.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise SetupError(f"The key in {path} is not its certificate's. Remove the file to have a new one made.")
    return Pair(key, certificate)
