"""What tests that run side by side may not do at once."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO

import pytest

_held: list[IO[str]] = []


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """Tests of bridges use the same addresses on this one machine, and look at its routes and whether it forwards: one
    module at a time, of all runs there are.

    Not a fixture, since waiting for the others is not to count against a test's own time limit.
    """
    if item.path.name.startswith(("test_bridge", "test_warm")) and not _held:
        _held.append((Path(tempfile.gettempdir()) / "askos-test-bridges.lock").open("w"))
        fcntl.flock(_held[0], fcntl.LOCK_EX)
    yield
    if _held and (nextitem is None or nextitem.path != item.path):
        _held.pop().close()
