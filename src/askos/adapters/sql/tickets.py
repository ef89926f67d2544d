"""The store's tickets of interactive sessions."""

from __future__ import annotations

import msgspec
from sqlalchemy import delete, insert, select

from askos.adapters.sql import queries
from askos.adapters.sql.base import Base
from askos.adapters.sql.schema import capsules, session_tickets
from askos.ports.tickets import Ticket

_COLUMNS = [session_tickets.c[name] for name in Ticket.__struct_fields__]


class SqlTickets(Base):
    """`ports.tickets.TicketStore`."""

    async def add_ticket(self, ticket: Ticket, most: int) -> None:
        """See the port."""
        mine = session_tickets.c.capsule_uuid == ticket.capsule_uuid
        async with self._db.write() as connection:
            there = select(capsules.c.uuid).where(capsules.c.uuid == ticket.capsule_uuid)
            if (await connection.execute(there)).first() is None:
                raise queries.not_found("container", ticket.capsule_uuid)
            await connection.execute(delete(session_tickets).where(session_tickets.c.expires_us <= self._clock()))
            newest = select(session_tickets.c.id).where(mine).order_by(session_tickets.c.id.desc())
            old = (await connection.execute(newest.offset(most - 1))).scalars().all()
            if old:
                await connection.execute(delete(session_tickets).where(session_tickets.c.id.in_(old)))
            argv = None if ticket.argv is None else msgspec.json.encode(ticket.argv).decode()
            values = {**msgspec.structs.asdict(ticket), "argv": argv}
            await connection.execute(insert(session_tickets).values(**values))

    async def take_ticket(self, digest: str) -> Ticket | None:
        """See the port."""
        this = session_tickets.c.digest == digest
        async with self._db.write() as connection:
            row = (await connection.execute(select(*_COLUMNS).where(this))).first()
            # Of two servers that read it at the same time one removes it.
            if row is None or (await connection.execute(delete(session_tickets).where(this))).rowcount != 1:
                return None
        argv = None if row.argv is None else msgspec.json.decode(row.argv, type=list[str])
        ticket = Ticket(**{**row._mapping, "argv": argv})
        return ticket if ticket.expires_us > self._clock() else None

    async def awaits(self, capsule_uuid: str, exec_id: str) -> bool:
        """See the port."""
        query = select(session_tickets.c.id).where(
            session_tickets.c.capsule_uuid == capsule_uuid,
            session_tickets.c.exec_id == exec_id,
            session_tickets.c.expires_us > self._clock(),
        )
        async with self._db.read() as connection:
            return (await connection.execute(query)).first() is not None
