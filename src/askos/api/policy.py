"""Who may do what: Zun's rules (`policy_rules`), as they are or as the operator's policy file changes them. Projects
are walls, and the store's scope is where they stand.

Without a file the defaults are of three kinds only (owners, administrators, nobody) and are answered from a table; with
one, oslo.policy answers. It is imported then: it takes longer than the rest of a start.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

import msgspec

from askos.api.errors import ApiError
from askos.api.policy_rules import ADMIN, DEFAULTS, NOBODY
from askos.model.errors import SetupError
from askos.model.identity import Caller

_log = logging.getLogger(__name__)

ADMIN_RULES = frozenset(rule for rule, check in DEFAULTS.items() if check in (ADMIN, "rule:context_is_admin"))
NOBODY_RULES = frozenset(rule for rule, check in DEFAULTS.items() if check == NOBODY)


class Rules(Protocol):
    """Rules in force."""

    def allows(self, caller: Caller, rule: str, project_id: str) -> bool:
        """Whether the caller passes a rule for something of a project."""


class PolicyFile:
    """The operator's file, read anew when it has changed. While it cannot be read, what it said before stays; a file
    that goes away takes its rules with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._rules: Rules | None = None

    def load(self) -> None:
        """Read the file. Raises SetupError when it is there and cannot be used."""
        self._stamp = self._stamped()
        if self._stamp is None:
            self._rules = None
            return
        try:
            text = self._path.read_bytes()
        except OSError as error:
            raise SetupError(f"Cannot read the policy file {self._path}: {error.strerror}.") from error
        from askos.api.policy_engine import Engine  # slow to import

        self._rules = Engine(text, str(self._path))

    def rules(self) -> Rules | None:
        """The rules in force; None: the defaults."""
        if self._stamped() != self._stamp:
            try:
                self.load()
                _log.info("the policy file %s was read anew", self._path)
            except SetupError as error:
                _log.error("%s The rules stay as they were.", error)
        return self._rules

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


_files: list[PolicyFile] = []
"""The file in use: at most one. Policy is the process', as its API is."""


def use(path: Path | None) -> None:
    """Take the rules from a file, which need not be there (yet); None: the defaults. SetupError when it cannot be
    used."""
    _files.clear()
    if path is not None:
        file = PolicyFile(path)
        file.load()
        _files.append(file)


def _in_force() -> Rules | None:
    return _files[0].rules() if _files else None


def seen(caller: Caller) -> Caller:
    """The caller with the rule `context_is_admin` applied: it says who sees all projects."""
    rules = _in_force()
    if rules is None:
        return caller
    is_admin = rules.allows(msgspec.structs.replace(caller, is_admin=False), "context_is_admin", caller.project_id)
    return caller if is_admin == caller.is_admin else msgspec.structs.replace(caller, is_admin=is_admin)


def allows(caller: Caller, rule: str, project_id: str | None = None) -> bool:
    """Whether the caller passes a rule. `project_id`: of what it is about; None: the caller's own, because the scope of
    a search decides what is found."""
    rules = _in_force()
    if rules is not None:
        return rules.allows(caller, rule, caller.project_id if project_id is None else project_id)
    if rule in NOBODY_RULES:
        return False
    return caller.is_admin or (rule not in ADMIN_RULES and project_id in (None, caller.project_id))


def enforce(caller: Caller, rule: str, project_id: str | None = None) -> None:
    """Raises a 403 when the caller does not pass."""
    if not allows(caller, rule, project_id):
        title = f"Policy doesn't allow {rule} to be performed."
        raise ApiError(403, title, code="container.policy-not-authorized")


def enforce_writer(caller: Caller) -> None:
    """Raises a 403 for a caller who may only look: one with the role reader and nothing beside it. Roles of other
    names are an operator's own, and mean what a member may, as they do in Zun."""
    if {role.lower() for role in caller.roles} == {"reader"}:
        title = "Policy doesn't allow this to be performed: the role reader may look, and change or run nothing."
        raise ApiError(403, title, code="container.policy-not-authorized")
