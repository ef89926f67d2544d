"""What requests cost, counted in statements of SQL: these numbers do not depend on the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from .cloud import Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "one"},
    "spec": {"containers": [{"name": "a", "image": "busybox"}, {"name": "b", "image": "busybox"}]},
}


@contextmanager
def counted(cloud: Cloud) -> Iterator[list[str]]:
    """The statements that are executed meanwhile."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    engines = {cloud.database._readers.sync_engine, cloud.database._writer.sync_engine}
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


async def test_posting_a_container_takes_few_statements_whatever_there_is(cloud: Cloud) -> None:
    token = cloud.project()
    await cloud.create(token)  # makes the project's network and group
    counts = []
    for _ in range(3):
        with counted(cloud) as statements:
            await cloud.create(token, run=True)
        counts.append(len(statements))
    assert max(counts) <= 10, statements
    assert statements.count("BEGIN IMMEDIATE") == 1, "it is one transaction"


async def test_posting_a_capsule_takes_few_statements_whatever_there_is(cloud: Cloud) -> None:
    token = cloud.project()
    await cloud.create(token)
    with counted(cloud) as statements:
        made = await cloud.ask("POST", "/askos/v1/capsules", token, version=None, body=POD)
    assert made.status in (201, 202), made
    assert len(statements) <= 10, statements
    assert statements.count("BEGIN IMMEDIATE") == 1, "it is one transaction"


async def test_a_list_takes_one_statement_for_what_is_shown_already(cloud: Cloud) -> None:
    token = cloud.project()
    for _ in range(3):
        await cloud.create(token)
    await cloud.ask("GET", "/v1/containers", token)
    with counted(cloud) as statements:
        listed = await cloud.ask("GET", "/v1/containers", token)
    assert len(listed.body["containers"]) == 3
    assert len(statements) == 1, statements


async def test_what_a_start_costs_the_store(cloud: Cloud) -> None:
    """From placement to the report "running": three transactions beside the POST at most, each small."""
    token = cloud.project()
    await cloud.create(token)
    uuid = await cloud.create(token, run=True)
    await cloud.place(await cloud.create(token))  # the host is there
    with counted(cloud) as placing:
        await cloud.place(uuid)
    assert len([s for s in placing if s.startswith(("INSERT", "UPDATE"))]) == 2, placing
    with counted(cloud) as reporting:
        await cloud.report(uuid, "running")
    assert reporting.count("BEGIN IMMEDIATE") == 1
    assert len(reporting) <= 9, reporting
