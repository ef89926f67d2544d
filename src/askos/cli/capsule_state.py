"""How a capsule is, in the few words of a list: the STATUS, READY, RESTARTS and AGE that kubectl shows of a pod.

Pure functions of the API's object and the present time.
"""

from __future__ import annotations

import time
from typing import Any

from askos.cli import text

Capsule = dict[str, Any]


def moment(stamp: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp()


def since(stamp: str | None, now_s: float | None = None) -> str:
    """How long ago a time was, short: "5m30s"; empty for none."""
    if not stamp:
        return ""
    return text.short_span((time.time() if now_s is None else now_s) - moment(stamp))


def age(each: Capsule, now_s: float | None = None) -> str:
    """How long ago a capsule was made."""
    return since(each["metadata"].get("creationTimestamp"), now_s)


def condition(each: Capsule, kind: str) -> dict[str, Any]:
    """One of its conditions; empty when it has none of that type."""
    return next((c for c in each["status"].get("conditions", []) if c["type"] == kind), {})


def unplaced(each: Capsule) -> bool:
    """Whether it has no host yet."""
    return condition(each, "PodScheduled").get("status") == "False"


def sidecars(each: Capsule) -> set[str]:
    """Names of the init containers that go on beside the others."""
    return {c["name"] for c in each["spec"].get("initContainers", []) if c.get("restartPolicy") == "Always"}


def ready(each: Capsule) -> str:
    """Ready containers of all that are to go on: "1/2"."""
    mine = sidecars(each)
    inits = [c for c in each["status"].get("initContainerStatuses", []) if c["name"] in mine]
    apps = each["status"].get("containerStatuses", [])
    total = len(each["spec"].get("containers", [])) + len(mine)
    return f"{sum(1 for c in [*inits, *apps] if c.get('ready') and 'running' in c['state'])}/{total}"


def restarts(each: Capsule, now_s: float | None = None) -> str:
    """How often containers were started anew, and how long ago that was last: "3 (5m ago)"."""
    status, mine = each["status"], sidecars(each)
    inits, apps = status.get("initContainerStatuses", []), status.get("containerStatuses", [])
    if _initialising(each) is None:
        # Those that prepared are of the past, with their troubles.
        inits = [c for c in inits if c["name"] in mine]
    else:
        apps = []
    count = sum(int(c.get("restartCount") or 0) for c in [*inits, *apps])
    ends = [(c.get("lastState") or {}).get("terminated", {}).get("finishedAt") for c in [*inits, *apps]]
    last = max((stamp for stamp in ends if stamp), default=None)
    return f"{count} ({since(last, now_s)} ago)" if count and last else str(count)


def summary(each: Capsule) -> str:
    """One word for how a capsule is, as kubectl says it."""
    status = each["status"]
    if each["metadata"].get("deletionTimestamp") and status["phase"] not in ("Succeeded", "Failed"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    if status["phase"] == "Failed" and status.get("reason"):
        return str(status["reason"])  # evicted, or its time was over: that matters more than how a container took it
    word = _initialising(each)
    if word is not None:
        return word
    word = str(status.get("reason") or status["phase"])
    if unplaced(each):
        return word
    running = False
    # The first container has the last word.
    for c in reversed(status.get("containerStatuses", [])):
        state = c["state"]
        if (state.get("waiting") or {}).get("reason"):
            word = str(state["waiting"]["reason"])
        elif "terminated" in state:
            word = _ended(state["terminated"])
        elif "running" in state and c.get("ready"):
            running = True
    if word == "Completed" and running:
        return "Running" if condition(each, "Ready").get("status") == "True" else "NotReady"
    return word


def _initialising(each: Capsule) -> str | None:
    """The word for a capsule whose init containers are at work; None when they are done or there are none."""
    status, mine = each["status"], sidecars(each)
    if condition(each, "Initialized").get("status") == "True" or unplaced(each):
        return None
    every = status.get("initContainerStatuses", [])
    for number, c in enumerate(every):
        state = c["state"]
        ended = state.get("terminated")
        if (ended and ended.get("exitCode") == 0) or (c["name"] in mine and c.get("started")):
            continue
        if ended:
            return f"Init:{_ended(ended)}"
        reason = (state.get("waiting") or {}).get("reason")
        if reason and reason != "PodInitializing":
            return f"Init:{reason}"
        return f"Init:{number}/{len(every)}"
    return None


def _ended(ended: dict[str, Any]) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode')}"
