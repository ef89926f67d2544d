"""One capsule's worker: sequential inside a capsule, parallel between them.

A worker looks, asks a plain function what to do, reports, acts, and looks again; with nothing to do it sleeps until
it is poked (a new wish, an event of the runtime, a difference found by the relist) or until it wants to look anyway.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from askos.loops.wake import Bell
from askos.model.capsules import Assignment, CapsuleReport, Report
from askos.model.errors import AskosError, UnavailableError
from askos.model.pods import Event

if TYPE_CHECKING:
    from askos.loops.agent import Agent

_log = logging.getLogger(__name__)

STEP_S = 0.2
"""Steps on the way that last no longer are not reported."""
EVENTS_S = 0.5
"""How long an event waits for others, or for a report to go with."""


class Worker:
    """Keeps one capsule as its assignment wants it. Each kind of capsule has its own `_step`."""

    seen: Any
    """What was seen at the last look; has `sandboxes` and `containers`."""

    def __init__(self, agent: Agent, assignment: Assignment) -> None:
        self.agent = agent
        self.assignment = assignment
        self.bell = Bell()
        self.report: CapsuleReport | None = None
        self.gone = False
        self._sent: Report | None = None
        self._later: asyncio.TimerHandle | None = None
        self._events: list[Event] = []
        self.task = asyncio.create_task(self._run(), name=f"capsule {assignment.capsule_uuid}")

    def give(self, assignment: Assignment) -> None:
        """A new wish (or the same again)."""
        last = self.report.report if self.report is not None else assignment.report
        self.assignment = msgspec.structs.replace(assignment, report=last)
        self.bell.ring()

    def stop(self) -> None:
        """Work and report no more."""
        self.task.cancel()
        if self._later is not None:
            self._later.cancel()

    def tell(self, event: Event) -> None:
        """Report something that happened, with the next report or soon."""
        for number, known in enumerate(self._events):
            if (known.type, known.reason, known.message, known.container) == (
                event.type,
                event.reason,
                event.message,
                event.container,
            ):
                counted = known.count + event.count
                self._events[number] = msgspec.structs.replace(known, count=counted, at_us=event.at_us)
                return
        self._events.append(event)
        if self._later is None and self.report is not None and not self.gone:
            self._later = asyncio.get_running_loop().call_later(EVENTS_S, self._send)

    async def _run(self) -> None:
        while not self.gone:
            try:
                look_us = await self._step()
            except UnavailableError as error:
                _log.info("capsule %s has to wait: %s", self.assignment.capsule_uuid, error)
                await self.bell.wait(1.0)
                continue
            except Exception as error:
                if not isinstance(error, AskosError):
                    _log.exception("capsule %s: looking failed", self.assignment.capsule_uuid)
                await self.bell.wait(2.0)
                continue
            if look_us == 0:
                continue
            now = self.agent.clock()
            await self.bell.wait(None if look_us is None else max(0.0, (look_us - now) / 1e6))
        self.agent.done(self)

    async def _step(self) -> int | None:
        """Look, decide, act. Returns 0 to look again at once, else when to look again at the latest."""
        raise NotImplementedError

    def _tell(self, a: Assignment, report: Report, *, gone: bool) -> None:
        self.report = CapsuleReport(a.capsule_uuid, a.epoch, report, gone)
        self.assignment = msgspec.structs.replace(self.assignment, report=report)
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if not gone and self._sent is not None and not _differs(self._sent, report) and not self._events:
            return
        if gone or report.settled or report.reason is not None:
            self._send()
        else:
            # A step on the way: worth telling only if it lasts, since telling costs the server a transaction.
            self._later = asyncio.get_running_loop().call_later(STEP_S, self._send)

    def _send(self) -> None:
        assert self.report is not None
        self._later = None
        self._sent = self.report.report
        events, self._events = self._events, []
        self.agent.send([msgspec.structs.replace(self.report, events=events)])


def _differs(old: Report, new: Report) -> bool:
    return msgspec.structs.replace(old, observed_us=0) != msgspec.structs.replace(new, observed_us=0)
