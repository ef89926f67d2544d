"""The name service of one network: UDP and TCP on the gateways' port 53, inside the network's namespace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from askos.adapters.bridge import host
from askos.adapters.bridge.forward import Forwarder
from askos.adapters.bridge.links import Bridge
from askos.adapters.bridge.spaces import SpaceGoneError, Spaces
from askos.adapters.bridge.workers import Workers
from askos.plan.names import DOMAIN, answer

_log = logging.getLogger(__name__)
_TTL_S = 5
_MAX_QUERIES = 64
_MAX_CONNECTIONS = 32
_IDLE_S = 10
_UDP_LIMIT = 1232
"""Larger answers go by TCP: what fits every path without fragments."""

Addresses = Callable[[], Mapping[str, list[str]] | None]


class NameService:
    """Answers for one network while its bridge exists. Limits hold per network: one tenant cannot starve others."""

    def __init__(self, bridge: Bridge, addresses: Addresses, forwarder: Forwarder) -> None:
        self.bridge = bridge
        self._nets = [ip_network(cidr) for cidr in (bridge.cidr, bridge.cidr6) if cidr]
        self._addresses = addresses
        self._forwarder = forwarder
        self._udp: list[asyncio.DatagramTransport] = []
        self._tcp: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._forwarding = 0

    async def start(self, sockets: list[socket.socket]) -> None:
        """Serve these, pairs of UDP and TCP; they are the service's from now on. OSError leaves none of them open."""
        loop = asyncio.get_running_loop()
        try:
            for one in sockets:
                if one.type == socket.SOCK_DGRAM:
                    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=one)
                    self._udp.append(transport)
                else:
                    self._tcp.append(await asyncio.start_server(self._accept, sock=one, limit=70000))
        except BaseException:
            await self.close()
            for one in sockets:
                one.close()
            raise

    async def close(self) -> None:
        """Give the sockets back at once; answers under way are dropped."""
        for transport in self._udp:
            transport.close()
        for server in self._tcp:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def datagram(self, query: bytes, sender: tuple[str, int], by: asyncio.DatagramTransport) -> None:
        """Take one UDP query; what the service knows itself is answered without a task. `by`: where it came in."""
        if not self._welcome(sender):
            return
        reply = self._local(query, _UDP_LIMIT)
        if isinstance(reply, bytes):
            by.sendto(reply, sender)
        elif reply is not None:
            self._keep(asyncio.get_running_loop().create_task(self._relay(reply, query, sender, by)))

    async def _relay(
        self, parsed: dns.message.Message, query: bytes, sender: tuple[str, int], by: asyncio.DatagramTransport
    ) -> None:
        reply = await self._forward(parsed, query)
        if len(reply) > _room(parsed):
            cut = dns.message.make_response(parsed, recursion_available=True)
            cut.flags |= dns.flags.TC
            reply = cut.to_wire()
        if not by.is_closing():
            by.sendto(reply, sender)

    def _welcome(self, sender: tuple[str, int]) -> bool:
        # What comes over the uplink is dropped before; should somebody flush the rules, it is still not answered.
        try:
            return any(ip_address(sender[0]) in net for net in self._nets)
        except ValueError:
            return False

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= _MAX_CONNECTIONS or not self._welcome(writer.get_extra_info("peername")):
            writer.close()
            return
        self._connections += 1
        self._keep(asyncio.get_running_loop().create_task(self._stream(reader, writer)))

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await asyncio.wait_for(reader.readexactly(2), _IDLE_S)
                query = await asyncio.wait_for(reader.readexactly(struct.unpack(">H", head)[0]), _IDLE_S)
                reply = self._local(query, 65535)
                if isinstance(reply, dns.message.Message):
                    reply = await self._forward(reply, query)
                if reply is None:
                    return
                writer.write(struct.pack(">H", len(reply)) + reply)
                await asyncio.wait_for(writer.drain(), _IDLE_S)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            self._connections -= 1
            writer.close()

    async def resolve(self, name: str) -> str:
        """What a program on this network would get for a name: its first IPv4 address, else an IPv6 one where the
        network has that. OSError without one. What has to be asked of others counts against the network's own limit."""
        found = await self._lookup(name, dns.rdatatype.A)
        if found is None and self.bridge.cidr6:
            found = await self._lookup(name, dns.rdatatype.AAAA)
        if found is None:
            raise OSError(f"no such host as {name[:60]}")
        return found

    async def _lookup(self, name: str, rdtype: dns.rdatatype.RdataType) -> str | None:
        try:
            query = dns.message.make_query(name, rdtype).to_wire()
        except (dns.exception.DNSException, ValueError) as error:
            raise OSError(f"{name[:60]!r} cannot be looked up") from error
        reply = self._local(query, 65535)
        if isinstance(reply, dns.message.Message):
            reply = await self._forward(reply, query)
        try:
            found = dns.message.from_wire(reply or b"")
            addresses = found.resolve_chaining().answer if isinstance(found, dns.message.QueryMessage) else None
        except (dns.exception.DNSException, ValueError, struct.error):
            addresses = None
        return str(addresses[0]) if addresses else None

    def _local(self, query: bytes, limit: int) -> bytes | dns.message.Message | None:
        """The reply; or the parsed query when others must be asked; or None for what deserves no answer."""
        try:
            parsed = dns.message.from_wire(query)
        except (dns.exception.DNSException, ValueError, struct.error):
            if len(query) < 12 or query[2] & 0x80:
                return None
            return query[:2] + bytes((0x80 | query[2] & 0x79, dns.rcode.FORMERR)) + bytes(8)
        if parsed.flags & dns.flags.QR:
            return None  # a response: answering it could go on for ever
        if parsed.opcode() != dns.opcode.QUERY:
            return _reply(parsed, dns.rcode.NOTIMP).to_wire()
        if len(parsed.question) != 1:
            return _reply(parsed, dns.rcode.FORMERR).to_wire()
        question = parsed.question[0]
        rdtype = dns.rdatatype.to_text(question.rdtype)
        said = answer(self._addresses(), self._nets, question.name.to_text(), rdtype)
        if said.kind == "forward":
            return parsed
        if said.kind == "unready":
            return _reply(parsed, dns.rcode.SERVFAIL).to_wire()
        reply = _reply(parsed, dns.rcode.NXDOMAIN if said.kind == "unknown" else dns.rcode.NOERROR)
        reply.flags |= dns.flags.AA
        for kind, data in _by_kind(said.data).items():
            reply.answer.append(dns.rrset.from_text_list(question.name, _TTL_S, "IN", kind, data))
        try:
            return reply.to_wire(max_size=min(limit, _room(parsed)) if limit == _UDP_LIMIT else limit)
        except dns.exception.TooBig:
            cut = _reply(parsed, dns.rcode.NOERROR)
            cut.flags |= dns.flags.TC
            return cut.to_wire()

    async def _forward(self, parsed: dns.message.Message, query: bytes) -> bytes:
        if self._forwarding >= _MAX_QUERIES:
            return _reply(parsed, dns.rcode.SERVFAIL).to_wire()
        self._forwarding += 1
        try:
            found = await self._forwarder.ask(query, _question_end(query))
        finally:
            self._forwarding -= 1
        return found if found is not None else _reply(parsed, dns.rcode.SERVFAIL).to_wire()


class NameServices:
    """The name services of all networks of this host."""

    def __init__(self, forwarder: Forwarder, spaces: Spaces, workers: Workers) -> None:
        self._forwarder = forwarder
        self._spaces = spaces
        self._workers = workers
        self._services: dict[str, NameService] = {}
        self._refused: set[str] = set()
        self._names: dict[str, dict[str, list[str]]] = {}

    def set_names(self, names: dict[str, dict[str, list[str]]]) -> None:
        """Network uuid -> lower-case name -> addresses; replaces everything."""
        self._names = names

    async def serve(self, bridge: Bridge) -> None:
        """Serve a bridge's network, unless it is already. A taken port 53 is logged once and does not stop anything."""
        uuid = bridge.network_uuid
        if uuid in self._services:
            if self._services[uuid].bridge == bridge:
                return
            await self.unserve(uuid)
        service = NameService(bridge, lambda: self._names.get(uuid), self._forwarder)
        try:
            await service.start(await self._workers.run(lambda _: self._spaces.inside(uuid, lambda: _bound(bridge))))
        except SpaceGoneError:
            return
        except OSError as error:
            if uuid not in self._refused:
                self._refused.add(uuid)
                _log.warning(
                    "Containers on %s find no names: port 53 of %s cannot be used (%s). See which program listens "
                    "inside of the network's namespace (nsenter --net=FILE ss -lnp sport = :53).",
                    bridge.cidr,
                    bridge.gateway,
                    error.strerror or error,
                )
            return
        self._services[uuid] = service
        self._refused.discard(uuid)

    async def resolve(self, network_uuid: str, name: str) -> str:
        """A name's address as a network's programs see it. OSError when it has none, or nobody can be asked."""
        service = self._services.get(network_uuid)
        if service is None:
            raise OSError(f"there is no name service to ask for {name[:60]}")
        return await service.resolve(name)

    def served(self) -> set[str]:
        """The uuids of the networks that are served."""
        return set(self._services)

    async def unserve(self, network_uuid: str) -> None:
        """End a network's service; one that is not served is fine."""
        service = self._services.pop(network_uuid, None)
        if service is not None:
            await service.close()

    async def close(self) -> None:
        """End all."""
        for uuid in list(self._services):
            await self.unserve(uuid)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, service: NameService) -> None:
        self._service = service
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own transport is no subclass of DatagramTransport.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._service.datagram(data, addr, self._transport)


def _bound(bridge: Bridge) -> list[socket.socket]:
    """Sockets on the gateways' port 53 of the calling thread's namespace. OSError leaves none open."""
    made: list[socket.socket] = []
    gateways = [bridge.gateway, *([bridge.gateway6] if bridge.gateway6 and host.has_ipv6() else [])]
    try:
        for gateway in gateways:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                one = socket.socket(host.family_of(gateway), kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
                made.append(one)
                if kind == socket.SOCK_STREAM:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind((gateway, 53))
                if kind == socket.SOCK_STREAM:
                    one.listen(100)
    except OSError:
        for one in made:
            one.close()
        raise
    return made


def _by_kind(data: list[str]) -> dict[str, list[str]]:
    """Data of an answer by the type of its records."""
    found: dict[str, list[str]] = {}
    for item in data:
        if item.endswith(DOMAIN):
            found.setdefault("PTR", []).append(f"{item}.")
        else:
            found.setdefault("AAAA" if ":" in item else "A", []).append(item)
    return found


def _reply(parsed: dns.message.Message, code: dns.rcode.Rcode) -> dns.message.Message:
    reply = dns.message.make_response(parsed, recursion_available=True)
    reply.set_rcode(code)
    return reply


def _room(parsed: dns.message.Message) -> int:
    """How much the asker takes by UDP."""
    return min(_UDP_LIMIT, max(512, parsed.payload))


def _question_end(query: bytes) -> int:
    """Where the (single, parsed before) question of a query ends."""
    _, length = dns.name.from_wire(query, 12)
    return 12 + length + 4
