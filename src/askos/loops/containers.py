"""The worker of a Zun container: what `plan.reconcile` decides, one action after the other."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from askos.loops.worker import Worker
from askos.model.capsules import Assignment
from askos.model.errors import AskosError, NotFoundError, RuntimeFailedError, UnavailableError
from askos.plan import backoff, container_steps, reconcile

if TYPE_CHECKING:
    from askos.loops.agent import Agent

_log = logging.getLogger(__name__)

MAX_FAILURES = 6
"""After so many failures of one wish in a row the capsule is in error."""
GIVE_UP_US = 15 * 60 * 1_000_000
"""No wish but a delete is worked on for longer than this without success."""


class ContainerWorker(Worker):
    """Keeps one Zun container as its assignment wants it."""

    def __init__(self, agent: Agent, assignment: Assignment, *, fresh: bool = False) -> None:
        self.seen = reconcile.Observed()
        self._failures = 0
        self._failing_since_us = 0
        self._trouble: reconcile.Trouble | None = _settled_failure(assignment)
        self._pulled = 0
        self._interruptible: asyncio.Task[reconcile.Observed | None] | None = None
        self.work = agent.container_work(self)
        self._known = False
        """Whether `seen` is how things are, without another look."""
        super().__init__(agent, assignment, fresh=fresh)

    def give(self, assignment: Assignment) -> None:
        """A new wish (or the same again)."""
        if assignment.wish.generation != self.assignment.wish.generation:
            self._failures = 0
            if self._interruptible is not None:
                # A pull or a long grace must not hold up the new wish.
                self._interruptible.cancel()
        super().give(assignment)

    async def _step(self) -> int | None:
        """Look, decide, act. Returns 0 to look again at once, else when to look again at the latest."""
        a = self.assignment
        if not self._known:
            self.seen = await self.work.observe(a, self._pulled)
            self.fresh = False
        self._known = False
        decision = reconcile.decide(a, self.seen, self._trouble, self.agent.clock())
        self._tell(a, decision.report, gone=decision.gone)
        if decision.gone:
            self.gone = True
            return 0
        if not decision.actions:
            if decision.report.settled and not (self._trouble is not None and self._trouble.final):
                # Only here, not after each action that went well: a start that always fails has some of those too.
                self._failures, self._trouble = 0, None
            return decision.look_us
        for action in decision.actions:
            if self.assignment.wish.generation != a.wish.generation:
                return 0
            try:
                after = await self._act(a, action)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                return 0
            except AskosError as error:
                self._note(a, action, error)
                return 0
            except Exception:
                _log.exception("capsule %s: %s failed", a.capsule_uuid, type(action).__name__)
                self._note(a, action, RuntimeFailedError("Something failed inside Askos; its log has more."))
                return 0
            if after is not None and len(decision.actions) == 1:
                # Looking again would only hold up its start. What happens to it rings the bell.
                self.seen, self._known = after, True
        return 0

    async def _act(self, a: Assignment, action: reconcile.Action) -> reconcile.Observed | None:
        begun = self.agent.clock()
        work = asyncio.ensure_future(self.work.perform(a, action))
        if isinstance(action, reconcile.PullImage | reconcile.StopContainer):
            self._interruptible = work
        try:
            after = await work
        finally:
            if not work.done():
                work.cancel()
            self._interruptible = None
            took_ms = (self.agent.clock() - begun) / 1000
            _log.debug("capsule %s: %s, %.1f ms", a.capsule_uuid, type(action).__name__, took_ms)
        if isinstance(action, reconcile.PullImage):
            self._pulled = a.wish.generation
        return after

    def _note(self, a: Assignment, action: reconcile.Action, error: AskosError) -> None:
        now = self.agent.clock()
        # A runtime that is away (being restarted) is nobody's fault and does not count.
        away = isinstance(error, UnavailableError) and not isinstance(action, reconcile.PullImage)
        self._failures += 0 if away else 1
        if self._trouble is None or self._trouble.generation != a.wish.generation:
            self._failing_since_us = now
        final = isinstance(error, NotFoundError) or (isinstance(error, RuntimeFailedError) and not error.retryable)
        gentle = isinstance(action, container_steps.GENTLE)
        limit = 3 if gentle or isinstance(action, reconcile.PullImage) else MAX_FAILURES
        if a.wish.state == "deleted":
            final = False
        else:
            final = final or self._failures >= limit or now > self._failing_since_us + GIVE_UP_US
        _log.info(
            "capsule %s: %s failed%s: %s",
            a.capsule_uuid,
            type(action).__name__,
            " for good" if final else "",
            error,
        )
        if final and gentle:
            # The container is as well as it was before.
            self.work.refuse(a, action, str(error))
            self._failures, self._trouble = 0, None
            return
        retry_us = now + backoff.retry_delay_us(max(self._failures, 1))
        self._trouble = reconcile.Trouble(a.wish.generation, str(error), final, retry_us)


def _settled_failure(a: Assignment) -> reconcile.Trouble | None:
    """What failed for good before the agent was restarted is not tried again without a new wish."""
    r = a.report
    if r.state == "error" and r.settled and r.generation == a.wish.generation:
        return reconcile.Trouble(r.generation, r.reason or "It failed before.", final=True)
    return None
