"""One capsule's worker: sequential inside a capsule, parallel between them.

A worker looks, asks a plain function what to do, reports, acts, and looks again; with nothing to do it sleeps until
it is poked (a new wish, an event of the runtime, a difference found by the relist) or until it wants to look anyway.
"""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
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
MOST_EVENTS = 50
"""Different events of a capsule that wait to be told; beyond, those of one reason become one. Never more than twice
as many."""
BURST = 25
"""How often events of a capsule are told at once before they have to wait for `SLOW_S`; one more every `SLOW_S`."""
SLOW_S = 10.0


class Allowance:
    """How soon a capsule may tell events: soon, unless it has told many lately. Times in seconds."""

    def __init__(self) -> None:
        self._left = float(BURST)
        self._at_s = 0.0

    def delay_s(self, now_s: float) -> float:
        """How long to wait before telling; counts this telling."""
        self._left = min(float(BURST), self._left + (now_s - self._at_s) / SLOW_S)
        self._at_s = now_s
        self._left = max(-1.0, self._left - 1)
        return EVENTS_S if self._left >= 0 else SLOW_S


class Worker(ABC):
    """Keeps one capsule as its assignment wants it. Each kind of capsule has its own `_step`."""

    seen: Any
    """What was seen at the last look; has `sandboxes` and `containers`."""

    def __init__(self, agent: Agent, assignment: Assignment, *, fresh: bool = False) -> None:
        """`fresh`: nothing of the capsule has ever been on this host, so that the first look finds nothing."""
        self.agent = agent
        self.assignment = assignment
        self.fresh = fresh
        self.bell = Bell()
        self.report: CapsuleReport | None = None
        self.gone = False
        self._sent: Report | None = None
        self._later: asyncio.TimerHandle | None = None
        self._events: list[Event] = []
        self._told = Allowance()
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
        """Report something that happened, with the next report or soon: later and later for a capsule that has ever
        more to tell, as each telling costs the server a transaction."""
        self._add(event)
        if self._later is None and self.report is not None and not self.gone:
            loop = asyncio.get_running_loop()
            due = loop.time() + self._told.delay_s(loop.time())
            # At the same moments for all workers of a host, so that what many tell becomes one transaction.
            self._later = loop.call_at(math.ceil(due / EVENTS_S) * EVENTS_S, self._send)

    def _add(self, event: Event) -> None:
        crowded = len(self._events) >= MOST_EVENTS
        for number, known in enumerate(self._events):
            alike = (known.type, known.reason, known.container) == (event.type, event.reason, event.container)
            if alike and (crowded or known.message == event.message):
                # Of too many that differ in their words only, the last one's words stay.
                counted = known.count + event.count
                self._events[number] = msgspec.structs.replace(
                    known, message=event.message, count=counted, at_us=event.at_us
                )
                return
        if len(self._events) < 2 * MOST_EVENTS:
            self._events.append(event)

    async def _run(self) -> None:
        while not self.gone:
            try:
                look_us = await self._step()
            except UnavailableError as error:
                _log.info("capsule %s has to wait: %s", self.assignment.capsule_uuid, error)
                await self.bell.wait(1.0)
                continue
            except Exception as error:
                if isinstance(error, AskosError):
                    _log.warning("capsule %s cannot be looked at: %s", self.assignment.capsule_uuid, error)
                else:
                    _log.exception("capsule %s: looking failed", self.assignment.capsule_uuid)
                await self.bell.wait(2.0)
                continue
            if look_us == 0:
                continue
            now = self.agent.clock()
            await self.bell.wait(None if look_us is None else max(0.0, (look_us - now) / 1e6))
        self.agent.done(self)

    @abstractmethod
    async def _step(self) -> int | None:
        """Look, decide, act. Returns 0 to look again at once, else when to look again at the latest."""

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
