"""Fixtures that the tests of the API and the store share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from .cloud import Cloud, make_template, open_cloud


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty database: copy it, do not use it."""
    path = tmp_path_factory.mktemp("template") / "askos.db"
    make_template(path)
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cloud(template: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cloud]:
    """The API of one module's tests; they keep apart by project."""
    async with open_cloud(template, tmp_path_factory.mktemp("cloud")) as made:
        yield made
