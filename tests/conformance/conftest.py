"""The runtimes that one suite is held against."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from askos.adapters.containerd.runtime import ContainerdRuntime

from .subjects import QUICK_S, Subject, opened


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["fake", "containerd", "prepared"])
async def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    async with opened(request.param, tmp_path_factory.mktemp("logs")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def subject(request: pytest.FixtureRequest, machine: Subject) -> Subject:
    """In the third round every test finds prepared sandboxes, and must not notice."""
    if "prepared" in request.node.callspec.id:
        assert isinstance(machine.runtime, ContainerdRuntime)
        await machine.runtime.prepare(2)
        async with asyncio.timeout(QUICK_S):
            while machine.runtime.warm.ready < 2:
                await asyncio.sleep(0.02)
    return machine
