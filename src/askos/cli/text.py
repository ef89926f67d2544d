"""Words and numbers as people write and read them. Pure functions, without imports that cost time."""

from __future__ import annotations

import math
import re
import time
from typing import Any

UNITS = {"b": 1 / 1024 / 1024, "k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0 * 1024}
"""Memory units in MiB."""
SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_memory_mib(text: str) -> int:
    """'512m', '1.5g', '512' (MiB) as MiB, rounded up. ValueError says what is accepted."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", text.strip().lower())
    if not match or (match.group(2) == "" and text.strip().lower().endswith("ib")):
        raise ValueError(f"{text!r} is not a size. Write 512m, 1.5g or a number of MiB")
    mib = math.ceil(float(match.group(1)) * UNITS[match.group(2) or "m"])
    if mib < 1:
        raise ValueError(f"{text!r} is less than 1 MiB")
    return mib


def parse_size_gib(text: str) -> int:
    """'10g', '1t' or a number of GiB as GiB; less than a whole one is rounded up. ValueError otherwise."""
    gib = 0
    if text.isascii():
        try:
            gib = int(text) if text.isdigit() else -(-parse_memory_mib(text) // 1024)
        except ValueError:
            gib = 0
    if gib < 1:
        raise ValueError(f"{text!r} is not a size. Write 10g, 1t or a number of GiB")
    return gib


def parse_span_s(text: str) -> int | None:
    """'90s', '10m', '1h30m', '2d' in seconds, or None if it is not a span."""
    if not re.fullmatch(r"(\d+[smhdw])+", text):
        return None
    return sum(int(number) * SPANS[unit] for number, unit in re.findall(r"(\d+)([smhdw])", text))


def parse_since_s(text: str, now_s: float) -> int:
    """'10m' (ago), an epoch in seconds, or RFC 3339, as seconds since the epoch. ValueError otherwise."""
    span = parse_span_s(text)
    if span is not None:
        return max(0, int(now_s) - span)
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return int(float(text))
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time. Write 10m, 2026-11-21T08:00:00Z or seconds since 1970") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def parse_restart(text: str) -> dict[str, str]:
    """'no', 'always', 'unless-stopped', 'on-failure[:n]' as the API's restart_policy. ValueError
    otherwise."""
    name, colon, count = text.partition(":")
    if name not in {"no", "always", "on-failure", "unless-stopped"}:
        raise ValueError(f"{text!r} is not a policy. Write no, always, unless-stopped or on-failure[:N]")
    if colon and (name != "on-failure" or not count.isdecimal()):
        raise ValueError(f"{text!r}: only on-failure takes a number of retries, as in on-failure:3")
    return {"Name": name, "MaximumRetryCount": count or "0"}


def ago(api_time: str | None, now_s: float | None = None) -> str:
    """'5 minutes ago' for the API's 'YYYY-MM-DD HH:MM:SS' (UTC)."""
    if not api_time:
        return ""
    from datetime import UTC, datetime

    try:
        then = datetime.fromisoformat(api_time).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return api_time
    return f"{span(max(0.0, (time.time() if now_s is None else now_s) - then))} ago"


def span(seconds: float) -> str:
    """A length of time in its largest sensible unit: '45 seconds', '3 hours'."""
    for unit, length, until in (
        ("second", 1, 120),
        ("minute", 60, 7200),
        ("hour", 3600, 172800),
        ("day", 86400, 86400 * 60),
        ("month", 86400 * 30, 86400 * 730),
        ("year", 86400 * 365, math.inf),
    ):
        if seconds < until:
            count = int(seconds // length)
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return ""


def short_span(seconds: float) -> str:
    """A length of time in one or two units, as kubectl's columns have it: '45s', '5m30s', '3h', '2d4h'."""
    left = max(0, int(seconds))
    # (up to, unit, its length, the smaller unit that is told beside it)
    for until, unit, length, rest, short in (
        (120, "s", 1, "", 1),
        (600, "m", 60, "s", 1),
        (3 * 3600, "m", 60, "", 1),
        (8 * 3600, "h", 3600, "m", 60),
        (48 * 3600, "h", 3600, "", 1),
        (8 * 86400, "d", 86400, "h", 3600),
        (2 * 365 * 86400, "d", 86400, "", 1),
        (8 * 365 * 86400, "y", 365 * 86400, "d", 86400),
    ):
        if left < until:
            more = left % length // short if rest else 0
            return f"{left // length}{unit}" + (f"{more}{rest}" if more else "")
    return f"{left // (365 * 86400)}y"


def size(count: float) -> str:
    """Bytes with a decimal unit, as docker shows them: '12.3MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f}B" if unit == "B" else f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}TB"


def command(words: list[str] | str | None) -> str:
    """A command as one would type it."""
    if not words:
        return ""
    if isinstance(words, str):
        return words
    import shlex

    return shlex.join(words)


def addresses(value: dict[str, list[dict[str, Any]]] | None) -> str:
    """All addresses of a container: '10.0.0.5, 10.1.0.7'."""
    return ", ".join(str(address["addr"]) for ports in (value or {}).values() for address in ports)


def status(container: dict[str, Any]) -> str:
    """One phrase for how a container is: the task under way, why it failed, or 'Up 5 mins'."""
    word = str(container.get("status") or "Unknown")
    task = container.get("task_state")
    if task:
        doing = str(task).removeprefix("container_").replace("_", " ")
        return word if word.lower() == doing else f"{word} ({doing})"
    reason = " ".join(str(container.get("status_reason") or "").split())
    if word in {"Error", "Unknown"} or (word == "Created" and reason):
        return f"{word}: {reason}" if reason else word
    return str(container.get("status_detail") or "").strip() or word
