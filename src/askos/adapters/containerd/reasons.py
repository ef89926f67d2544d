"""Short reasons for people out of the runtime's long chains of messages.

runc and containerd report failures as "failed to …: failed to …: OCI runtime create failed: …: the reason:
unknown". What a user can act on is the last link, and for the usual mistakes a plain sentence.
"""

from __future__ import annotations

import re

_PROGRAMS = (
    re.compile(r'exec: \\?"(?P<program>[^"\\]+)\\?": (?P<why>[^"]*)'),
    re.compile(r"exec (?P<program>/\S+): (?P<why>.*)"),
    # gVisor's words.
    re.compile(r'error finding executable \\?"(?P<program>[^"\\]+)\\?" in PATH \[[^\]]*\]: (?P<why>.*)'),
    re.compile(r"failed to load (?P<program>/[^:]*): (?P<why>.*)"),
)
_CHDIR = re.compile(r'chdir to cwd \(\\?"(?P<folder>[^"\\]+)\\?"\)[^:]*: (?P<why>[^:]*)')
_USER = re.compile(r"unable to find (?P<kind>user|group) (?P<name>[^:]+): no matching entries")
_WRAPPERS = re.compile(
    r"^(?:rpc error: code = \w+ desc = |an error occurred when try to [^:]*|failed to [^:]*|"
    r"OCI runtime (?:create|exec|start) failed|runc (?:create|run|exec) failed|"
    r"unable to start container process|error during container init|exec failed|container_linux\.go:\d+):? ?"
)
_LONGEST = 300


def describe(text: str) -> tuple[str, bool]:
    """A short reason for a runtime's message, and whether the same call may succeed later."""
    known = _program(text) or _user(text)
    if known is not None:
        return known, False
    if "no command specified" in text:
        return "neither the request nor the image says what to run; give a command", False
    return shorten(text), True


def shorten(text: str) -> str:
    """The message without the links of the chain that only say who passed it on."""
    rest = text.strip()
    while match := _WRAPPERS.match(rest):
        if match.end() == len(rest):
            break
        rest = rest[match.end() :].lstrip(": ")
    rest = rest.removesuffix(": unknown").replace('\\"', '"')
    return rest if len(rest) <= _LONGEST else rest[:_LONGEST] + "…"


def _program(text: str) -> str | None:
    match = _CHDIR.search(text)
    if match:
        why = match["why"].strip() or "it cannot be entered"
        return f"cannot start in the folder {match['folder']!r}: {why}"
    match = next((found for found in (pattern.search(text) for pattern in _PROGRAMS) if found), None)
    if match is None:
        return None
    program, why = match["program"].rstrip(":"), match["why"]
    if "executable file not found" in why or "no such file" in why:
        reason = "no such file in the image"
    elif "permission denied" in why:
        reason = "it is not an executable file (permission denied)"
    elif "is a directory" in why:
        reason = "it is a folder"
    elif "exec format error" in why:
        reason = "it is no program for this processor (exec format error)"
    else:
        reason = shorten(why)
    return f'cannot start "{program}": {reason}'


def _user(text: str) -> str | None:
    match = _USER.search(text)
    return f"the image has no {match['kind']} {match['name'].strip()!r}" if match else None
