"""The client's side of grpc.health.v1.Health/Check over a connection that is already made.

grpcio dials by itself and cannot use a socket of another network namespace; the one call that is needed here is a
small one: two protobuf fields over HTTP/2.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

UNIMPLEMENTED = 12
_STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_MAX_MESSAGE = 64 * 1024


class Answer(NamedTuple):
    """`code`: the gRPC status, 0 when `status` (SERVING ...) is the answer; `message`: the server's words."""

    code: int
    message: str
    status: str


async def check(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str, service: str, agent: str
) -> Answer:
    """Ask once. ValueError when the other side speaks no gRPC; OSError when it hangs up."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    try:
        connection.initiate_connection()
        stream = connection.get_next_available_stream_id()
        connection.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/grpc.health.v1.Health/Check"),
                (":authority", authority),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", agent),
            ],
        )
        connection.send_data(stream, _message(_request(service)), end_stream=True)
        headers: dict[str, str] = {}
        body = bytearray()
        while True:
            writer.write(connection.data_to_send())
            data = await reader.read(64 * 1024)
            if not data:
                raise ConnectionError("the server closed the connection")
            for event in connection.receive_data(data):
                match event:
                    case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                        headers.update((str(k), str(v)) for k, v in event.headers or [])
                    case h2.events.DataReceived():
                        body += event.data or b""
                        if len(body) > _MAX_MESSAGE:
                            raise ValueError("the answer is too long for a health check")
                        if event.flow_controlled_length:
                            connection.acknowledge_received_data(event.flow_controlled_length, stream)
                    case h2.events.StreamEnded():
                        return _answer(headers, bytes(body))
                    case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                        raise ConnectionError(f"the server gave the call up (error {event.error_code})")
    except h2.exceptions.ProtocolError as error:
        raise ValueError(f"the server does not speak HTTP/2: {error}") from error


def _answer(headers: dict[str, str], body: bytes) -> Answer:
    if headers.get(":status") != "200":
        raise ValueError(f"unexpected HTTP status {headers.get(':status', 'none')}")
    number = headers.get("grpc-status", "")
    if not number.isascii() or not number.isdigit():
        raise ValueError("the answer has no gRPC status")
    if int(number):
        return Answer(int(number), unquote(headers.get("grpc-message", "")), "")
    if len(body) < 5 or body[0] != 0 or len(body) != 5 + int.from_bytes(body[1:5], "big"):
        raise ValueError("the answer is not one plain gRPC message")
    return Answer(0, "", _STATUSES.get(_status(body[5:]), "UNKNOWN"))


# -- protobuf ----------------------------------------------------------------------------------------------------------


def _message(payload: bytes) -> bytes:
    """A gRPC message: not compressed, its length, itself."""
    return b"\x00" + len(payload).to_bytes(4, "big") + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _request(service: str) -> bytes:
    """HealthCheckRequest: `string service = 1`."""
    name = service.encode()
    return b"\x0a" + _varint(len(name)) + name if name else b""


def _status(payload: bytes) -> int:
    """HealthCheckResponse: `ServingStatus status = 1`; other fields are passed over. ValueError if it is garbage."""
    at, found = 0, 0
    while at < len(payload):
        tag, at = _read_varint(payload, at)
        match tag & 7:
            case 0:
                value, at = _read_varint(payload, at)
                found = value if tag >> 3 == 1 else found
            case 1:
                at += 8
            case 2:
                length, at = _read_varint(payload, at)
                at += length
            case 5:
                at += 4
            case _:
                raise ValueError("the answer is no protobuf message")
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("the answer is no protobuf message")
