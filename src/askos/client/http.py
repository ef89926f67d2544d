"""HTTP with the standard library alone: a command that prints one table must not pay for more.

`Http` may be used by several threads; each request borrows a connection. An idle connection is used again
only for a moment, so that a server that has just closed it is not mistaken for one that is gone.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

from askos.client.errors import ClientError, ConnectionBrokenError, NoAnswerError

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 120.0
REUSE_S = 1.0
CHUNK = 64 * 1024


class Answer(NamedTuple):
    """A complete answer."""

    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes


class Stream:
    """An answer whose body is read as it comes. Use as a context manager; the connection ends with it."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.reason = response.reason
        self._connection = connection
        self._response = response

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()
        self._connection.close()

    def chunks(self) -> Iterator[bytes]:
        """Pieces as they arrive, never empty. ConnectionBrokenError when the server goes away before the
        end."""
        while True:
            try:
                data = self._response.read1(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise ConnectionBrokenError(f"the connection broke: {reason_of(error)}. Try again") from error
            if not data:
                return
            yield data

    def read(self) -> bytes:
        """All of the body."""
        return b"".join(self.chunks())


class Http:
    """Requests to any URL, with one idea of which certificates to trust (`cacert`: a PEM file)."""

    def __init__(self, cacert: str = "", *, verify: bool = True) -> None:
        self._cacert = cacert
        self._verify = verify
        self._context: ssl.SSLContext | None = None
        self._idle: dict[str, list[tuple[http.client.HTTPConnection, float]]] = {}

    def close(self) -> None:
        """Give up the idle connections. The next request makes a new one."""
        for idle in self._idle.values():
            while idle:
                idle.pop()[0].close()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        body: bytes | None = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Answer:
        """One request, answered in full. NoAnswerError, ConnectionBrokenError, ClientError for bad trust."""
        base, connection, response = self._send(method, url, headers, body, timeout_s)
        try:
            answer = Answer(response.status, response.reason, response.headers, response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ConnectionBrokenError(f"{base} broke off its answer: {reason_of(error)}. Try again") from error
        if response.will_close:
            connection.close()
        else:
            self._idle.setdefault(base, []).append((connection, time.monotonic()))
        return answer

    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        body: bytes | Iterable[bytes] | None = None,
        timeout_s: float | None = None,
    ) -> Stream:
        """One request whose body may be produced, and whose answer is read, bit by bit. `timeout_s` None: for
        ever, which is what following a log means."""
        _base, connection, response = self._send(method, url, headers, body, timeout_s)
        return Stream(connection, response)

    def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | Iterable[bytes] | None,
        timeout_s: float | None,
    ) -> tuple[str, http.client.HTTPConnection, http.client.HTTPResponse]:
        parts = urlsplit(url)
        base = f"{parts.scheme}://{parts.netloc}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = self._borrow(base) or self._connect(base, parts.scheme, parts.hostname or "", parts.port)
        connection.sock.settimeout(timeout_s)
        try:
            try:
                if body is None and method in {"POST", "PUT", "PATCH"}:
                    headers = {**headers, "Content-Length": "0"}
                connection.request(method, target, body=body, headers=headers)
            except (BrokenPipeError, ConnectionResetError):
                # A server that refuses a long body may answer and hang up before it has read all of it.
                if body is None or isinstance(body, bytes):
                    raise
            return base, connection, connection.getresponse()
        except TimeoutError:
            connection.close()
            raise NoAnswerError(base, f"no answer within {timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NoAnswerError(base, reason_of(error)) from error
        except BaseException:
            connection.close()
            raise

    def _borrow(self, base: str) -> http.client.HTTPConnection | None:
        idle = self._idle.get(base)
        while idle:
            connection, since = idle.pop()
            if time.monotonic() - since < REUSE_S:
                return connection
            connection.close()
        return None

    def _connect(self, base: str, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        if scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_TIMEOUT_S, context=self.trust())
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.connect()
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        except ssl.SSLCertVerificationError as error:
            raise ClientError(
                f"cannot trust {base}: {error.verify_message}. "
                "Point OS_CACERT at the file of the authority that signed its certificate"
            ) from None
        except OSError as error:
            raise NoAnswerError(base, reason_of(error)) from None
        return connection

    def trust(self) -> ssl.SSLContext:
        """The TLS context: the system's authorities, or only the given one."""
        if self._context is None:
            try:
                self._context = ssl.create_default_context(cafile=self._cacert or None)
            except (OSError, ssl.SSLError) as error:
                raise ClientError(
                    f"cannot read the certificate authority's file {self._cacert}: {reason_of(error)}. Check OS_CACERT"
                ) from None
            if not self._verify:
                self._context.check_hostname = False
                self._context.verify_mode = ssl.CERT_NONE
        return self._context


def reason_of(error: BaseException) -> str:
    """The operating system's or protocol's word for a failure, in lower case."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer is cut off"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
