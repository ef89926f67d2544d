"""What tests that run side by side may not do at once."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests of bridges use the same addresses on this one machine: one module at a time, of all runs there are."""
    if not request.path.name.startswith("test_bridge"):
        yield
        return
    with (Path(tempfile.gettempdir()) / "askos-test-bridges.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
