"""One private cloud for all acceptance tests; it must leave nothing behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator

import pytest
from tests.acceptance.client_fixtures import CLIENTS, not_run
from tests.acceptance.cloud_fixtures import Cloud, nothing_remains, remains


@pytest.fixture(scope="session")
def shared_cloud() -> Iterator[Cloud]:
    """The cloud itself. In the end it is taken down and must be gone without a trace."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("containerd", "runc", "nft", "busybox"))):
        pytest.skip("needs root, containerd, runc, nftables and busybox-static: `make up` installs them")
    cloud = Cloud()
    try:
        cloud.up()
        yield cloud
        assert remains(cloud.data, cloud.instance), "the look for remains cannot even see a running cloud"
        cloud.down()
        nothing_remains(cloud)
    except AssertionError as error:
        left = remains(cloud.data, cloud.instance) if cloud.instance else []
        raise AssertionError(f"{error}\nleft: {left}\n{cloud.log_tail()}") from None
    finally:
        cloud.close()


@pytest.fixture
def cloud(shared_cloud: Cloud) -> Iterator[Cloud]:
    """The shared cloud, without containers before and after."""
    yield shared_cloud
    shared_cloud.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Who reads of a test that failed sees what there was in the cloud."""
    report = yield
    cloud = getattr(item, "funcargs", {}).get("cloud")
    if report.when == "call" and report.failed and isinstance(cloud, Cloud):
        report.sections.append(("the cloud", cloud.state()))
    return report


@pytest.fixture
def new_cloud() -> Iterator[Callable[[], Cloud]]:
    """Makes clouds for one test, not yet up; each is taken down and must be gone without a trace."""
    made: list[Cloud] = []

    def make(**options: object) -> Cloud:
        made.append(Cloud(**options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()
    for each in made:
        if each.instance:
            nothing_remains(each)


@pytest.fixture(autouse=True)
def scenario(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that is marked with `runs` must run the clients' subcommands that it names."""
    CLIENTS.ran.clear()
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        return
    missing = not_run(getattr(request.function, "scenario_of", ()), CLIENTS.ran)
    assert not missing, f"the scenario is said to run {missing}, and does not"
