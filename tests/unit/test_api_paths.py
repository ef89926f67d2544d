"""Whatever stands in a path, the answer is one of the API's own."""

from __future__ import annotations

import pytest

from .cloud import Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("odd", ["%0A", "a%0Ab", "%0D%0A", "%00", "%2F", "%C3%A4%0A", "%1B%0A%25"])
async def test_odd_characters_in_a_path_are_answered_in_json(cloud: Cloud, odd: str) -> None:
    for path in ("/v1/containers", "/v1/registries", "/askos/v1/capsules"):
        got = await cloud.ask("GET", f"{path}/{odd}", cloud.project())
        assert got.status in (400, 404), (path, got)
        assert got.error["title"]
