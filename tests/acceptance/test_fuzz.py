"""A short round of what `make fuzz` does at length: made-up requests to everything that the OpenAPI document describes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from tests.acceptance.cloud_fixtures import Cloud
from tests.fuzz.run import command


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("role", ["member", "admin"])
def test_every_answer_is_as_documented(new_cloud: Callable[[], Cloud], role: str) -> None:
    """Counted requests, not counted seconds: a slow machine asks the same. The cloud is one of its own, because an
    administrator may take the host out of service."""
    cloud = new_cloud()
    cloud.up()
    token = cloud.token(cloud.make_login("fuzz") if role == "member" else None)
    argv, env = command(cloud, token, 1, "--phases", "fuzzing", "--max-examples", "6", "--no-shrink")
    done = subprocess.run(
        argv,
        env=env,
        cwd=cloud.home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}{done.stderr[-2000:]}\n{cloud.log_tail()}"
    assert "No issues found" in done.stdout
