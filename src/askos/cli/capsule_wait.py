"""Waiting until capsules are ready or have ended; and saying what hinders those that are not.

Much that looks bad passes: an image that comes with the second try, a program that waits for its neighbour by
crashing, content that is given a moment later. So a trouble is taken for one that stays only when it has lasted for
a while, each kind for its own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from askos.cli import capsule_state, terminal, text
from askos.client.capsules import Capsule, Capsules
from askos.client.errors import ApiError, ConnectionBrokenError, NoAnswerError

LOOK_S = 2
"""Between two looks at capsules of which nothing is heard, whole seconds."""
REJOIN_WITHIN_S = 30.0
"""How long a server may be away."""
STEADY_S = 0.5
"""How long a capsule without readiness probes must stay ready: a program that ends at once was never ready."""
CRASHES = 2
"""Restarts after which a crash is taken for one that will come again."""


class Trouble(NamedTuple):
    """What hinders a capsule. `lasting_s`: how long it must have lasted to be taken for one that stays."""

    kind: str
    text: str
    lasting_s: float


READY = "ready"


class Outcome(NamedTuple):
    """How the wait for one capsule ended: `word` for the line that tells it, `good` for the exit code."""

    word: str
    good: bool


PATIENCE_S = {
    "InvalidImageName": 0.0,
    "ErrImageNeverPull": 5.0,
    "ErrImagePull": 25.0,
    "ImagePullBackOff": 25.0,
    "CreateContainerConfigError": 10.0,
    "CreateContainerError": 15.0,
    "FailedMount": 10.0,
    "FailedCreatePodSandBox": 30.0,
    "Unschedulable": 10.0,
}
"""Seconds by reason. An image is tried again after 10 s: one that failed twice has failed."""
FAMILIES = {"ErrImagePull": "image", "ImagePullBackOff": "image"}
"""Reasons that take turns while nothing gets better."""


def outcome(each: Capsule) -> Outcome | None:
    """How it has ended or got ready; None while it is on its way."""
    status = each["status"]
    if status["phase"] == "Succeeded":
        return Outcome("succeeded", True)
    if status["phase"] == "Failed":
        return Outcome(f"failed: {_why_failed(each)}", False)
    if each["metadata"].get("deletionTimestamp"):
        return Outcome("is being deleted", False)
    is_ready = capsule_state.condition(each, "Ready").get("status") == "True" and not _is_old(each)
    return Outcome(READY, True) if is_ready else None


def _probed(each: Capsule) -> bool:
    """Whether all containers say themselves when they are ready."""
    return all(c.get("readinessProbe") for c in each["spec"].get("containers", []))


def _why_failed(each: Capsule) -> str:
    status = each["status"]
    words = [str(status[key]) for key in ("reason", "message") if status.get(key)]
    if words:
        return ": ".join(words)
    for c in _containers(each):
        ended = c["state"].get("terminated")
        if ended and ended.get("exitCode") != 0:
            return f"{c['name']}: {_end(ended)}"
    return "no reason was given"


def _end(ended: dict[str, Any]) -> str:
    words = [str(ended.get("reason") or "ended"), f"exit code {ended.get('exitCode')}"]
    message = " ".join(str(ended.get("message") or "").split())
    return ", ".join(words) + (f": {message}" if message else "")


def _containers(each: Capsule) -> list[dict[str, Any]]:
    status = each["status"]
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def restart_counts(each: Capsule) -> dict[str, int]:
    """How often its containers have been started anew, by name."""
    return {c["name"]: int(c.get("restartCount") or 0) for c in _containers(each)}


def _is_old(each: Capsule) -> bool:
    """Whether what is told is of the time before the last change of the capsule."""
    return int(each["status"].get("observedGeneration") or 0) < int(each["metadata"].get("generation") or 0)


def trouble(
    each: Capsule, events: Iterable[dict[str, Any]] = (), before: Mapping[str, int] = MappingProxyType({})
) -> Trouble | None:
    """What hinders a capsule now. `events`: for what its status does not tell; `before`: restarts that do not count,
    by container."""
    scheduled = capsule_state.condition(each, "PodScheduled")
    if scheduled.get("reason") == "Unschedulable":
        return Trouble("Unschedulable", str(scheduled.get("message") or "no host"), PATIENCE_S["Unschedulable"])
    if _is_old(each):
        return None
    for c in _containers(each):
        waiting = c["state"].get("waiting") or {}
        reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        ended = (c.get("lastState") or {}).get("terminated") or c["state"].get("terminated") or {}
        if reason in ("CrashLoopBackOff", "RunContainerError", "PostStartHookError"):
            again = int(c.get("restartCount") or 0) - before.get(c["name"], 0)
            lasting_s = 0.0 if again >= CRASHES else float("inf")
            # The end itself says more than that there is a back-off.
            told = _end(ended) if ended and reason == "CrashLoopBackOff" else message
            return Trouble(f"{c['name']}/crash", f"{c['name']}: {reason}: {told}", lasting_s)
        if reason in PATIENCE_S:
            kind = f"{c['name']}/{FAMILIES.get(reason, reason)}"
            return Trouble(kind, f"{c['name']}: {reason}: {message}".rstrip(": "), PATIENCE_S[reason])
    if each["status"]["phase"] == "Pending":
        last = next((e for e in reversed(list(events)) if e["type"] == "Warning"), None)
        if last is not None:
            reason = str(last["reason"])
            return Trouble(reason, f"{reason}: {last['message']}", PATIENCE_S.get(reason, float("inf")))
    return None


def waits_for(each: Capsule, events: Iterable[dict[str, Any]] = ()) -> str:
    """What is still to come, for people."""
    events = list(events)
    hindrance = trouble(each, events)
    if hindrance is not None:
        return hindrance.text
    if capsule_state.unplaced(each):
        return "a host"
    for c in _containers(each):
        if "terminated" in c["state"] or c.get("ready"):
            continue
        if "running" not in c["state"]:
            return f"{c['name']}: {(c['state'].get('waiting') or {}).get('reason') or 'waiting'}"
        unhealthy = [e for e in events if e["reason"] == "Unhealthy" and e.get("container") == c["name"]]
        if unhealthy:
            return f"{c['name']}: {unhealthy[-1]['message']}"
        init = any(c["name"] == one["name"] for one in each["spec"].get("initContainers", []))
        return f"the end of {c['name']}" if init else f"{c['name']} to be ready"
    return "news of its host"


class Wait:
    """Waits for several capsules at once. `told` hears of each, with the capsule as it is then and what came of it."""

    def __init__(
        self, api: Capsules, made: list[Capsule], timeout_s: float, told: Callable[[Capsule, Outcome], None]
    ) -> None:
        self._api = Capsules(api.session)
        self._pending = {str(each["id"]): each for each in made}
        self._events: dict[str, list[dict[str, Any]]] = {}
        self._since: dict[str, tuple[str, float]] = {}
        self._steady: dict[str, float] = {}
        self._before = {ident: restart_counts(each) for ident, each in self._pending.items()}
        # Everything is heard again from the oldest on: some may have changed while others were made.
        self._revision = min((str(each["metadata"]["resourceVersion"]) for each in made), key=int, default="0")
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._told = told
        self._note = terminal.Note()
        self._begun = time.monotonic()

    def run(self) -> None:
        """Until all are told. ApiError when the server does not want to answer, NoAnswerError when it is away for
        long."""
        away_since = 0.0
        try:
            self._judge(list(self._pending))
            while self._pending:
                try:
                    if self._steady:
                        self._watch_steady()
                    else:
                        self._follow()
                    away_since = 0.0
                except (ConnectionBrokenError, NoAnswerError):
                    away_since = away_since or time.monotonic()
                    if time.monotonic() - away_since > REJOIN_WITHIN_S:
                        raise
                    time.sleep(0.5)
                self._judge(list(self._pending))
        finally:
            self._note.clear()

    @property
    def left(self) -> list[str]:
        """Names of those that are not told yet."""
        return [str(each["metadata"]["name"]) for each in self._pending.values()]

    def _follow(self) -> None:
        """Hear of changes for a moment."""
        heard = False
        try:
            for change in self._changes():
                self._revision = str(change["object"]["metadata"]["resourceVersion"])
                ident = str(change["object"].get("id"))
                if ident not in self._pending:
                    continue
                heard = True
                if change["type"] == "DELETED":
                    self._tell(ident, Outcome("failed: somebody deleted it", False))
                else:
                    self._pending[ident] = change["object"]
                    self._judge([ident])
                if self._steady or not self._pending:
                    return
        except ApiError as error:
            if error.status != 410:
                raise
            self._revision = self._api.listed()[1]
        if not heard:
            self._look(list(self._pending))

    def _watch_steady(self) -> None:
        """Look again at those that have just got ready."""
        time.sleep(max(0.0, min(self._steady.values()) + STEADY_S - time.monotonic()))
        now = time.monotonic()
        self._look([ident for ident, since in self._steady.items() if since + STEADY_S <= now])

    def _changes(self) -> Iterator[dict[str, Any]]:
        left = min(self._deadline - time.monotonic(), LOOK_S)
        return self._api.watch(self._revision, timeout_s=max(1, round(left)))

    def _look(self, idents: list[str]) -> None:
        """Look anew: what hinders some of them is told by their events only."""
        for ident in idents:
            try:
                self._pending[ident] = self._api.show(ident)
                self._events[ident] = self._api.events(ident)
            except ApiError as error:
                if error.status != 404:
                    raise
                self._tell(ident, Outcome("failed: somebody deleted it", False))

    def _judge(self, idents: list[str]) -> None:
        now = time.monotonic()
        for ident in idents:
            each, events = self._pending[ident], self._events.get(ident, [])
            found = outcome(each)
            if found is None or found.word != READY or _probed(each):
                self._steady.pop(ident, None)
            elif now < self._steady.setdefault(ident, now) + STEADY_S:
                continue
            hindrance = None if found else trouble(each, events, self._before[ident])
            if hindrance is None:
                self._since.pop(ident, None)
            elif self._since.get(ident, ("", 0.0))[0] != hindrance.kind:
                self._since[ident] = (hindrance.kind, now)
            if found is None and hindrance is not None and now - self._since[ident][1] >= hindrance.lasting_s:
                found = Outcome(f"is not ready: {hindrance.text}", False)
            if found is None and now >= self._deadline:
                with contextlib.suppress(ApiError):
                    events = self._api.events(ident)
                span = text.short_span(self._timeout_s)
                found = Outcome(f"is not ready after {span}; it waits for {waits_for(each, events)}", False)
            if found is not None:
                self._tell(ident, found)
            else:
                took = text.short_span(now - self._begun)
                self._note.show(f"{each['metadata']['name']}: {waits_for(each, events)} ({took})")

    def _tell(self, ident: str, found: Outcome) -> None:
        self._note.clear()
        self._steady.pop(ident, None)
        self._told(self._pending.pop(ident), found)
