"""Reports of hosts in the store: whose count, what they end, and hosts that fall silent."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from askos.adapters.sql.schema import ports
from askos.loops.placement import HOST_GONE, PlacementLoop
from askos.model.capsules import (
    Capsule,
    CapsuleReport,
    ContainerReport,
    Wish,
)
from askos.plan import placement as plan
from askos.plan import zun_status
from askos.ports.store import Change

from .store_subject import HOST, OTHER, Subject, report, rewish, subject

__all__ = ["subject"]  # fixtures

# -- reports ----------------------------------------------------------------------------------------------------------


async def test_a_report_is_written(subject: Subject) -> None:
    made = await subject.placed()
    sent = report(made, containers=[ContainerReport("main", "running", started_us=5)], observed_us=9)
    assert await subject.store.apply_reports(HOST, [sent]) == []
    now = await subject.get(made.uuid)
    assert now.report == sent.report
    assert now.revision == await subject.store.revision() == made.revision + 1
    assert subject.told[-1] == Change(now.revision, "container", made.uuid, deleted=False, project_id="p")
    # What says nothing new writes nothing.
    again = msgspec.structs.replace(sent, report=msgspec.structs.replace(sent.report, observed_us=10))
    assert await subject.store.apply_reports(HOST, [again, sent]) == []
    assert await subject.get(made.uuid) == now


async def test_a_report_of_an_old_epoch_is_dropped(subject: Subject) -> None:
    made = await subject.placed()
    for epoch in (0, 2):
        assert await subject.store.apply_reports(HOST, [report(made, "error", epoch=epoch, gone=True)]) == []
        assert await subject.get(made.uuid) == made


async def test_a_report_of_another_host_is_dropped_and_the_host_told(subject: Subject) -> None:
    made = await subject.placed()
    await subject.hosts(OTHER)
    unplaced = await subject.create()
    sent = [
        report(made, "error", gone=True),
        report(unplaced, "error"),
        report(msgspec.structs.replace(made, uuid="x")),
    ]
    before = await subject.store.revision()
    assert await subject.store.apply_reports(OTHER, sent) == [made.uuid, unplaced.uuid, "x"]
    assert await subject.get(made.uuid) == made
    assert await subject.get(unplaced.uuid) == unplaced
    assert await subject.store.revision() == before


async def test_gone_counts_only_when_it_was_wished(subject: Subject) -> None:
    made = await subject.placed()
    assert await subject.store.apply_reports(HOST, [report(made, "none", gone=True)]) == []
    assert not await subject.gone(made.uuid)
    await subject.store.wish(made.uuid, rewish("deleted"))
    now = await subject.get(made.uuid)
    assert await subject.store.apply_reports(HOST, [report(now, "exited", settled=False)]) == []
    assert not await subject.gone(made.uuid)
    assert await subject.store.apply_reports(HOST, [report(now, "none", gone=True)]) == [made.uuid]
    assert await subject.gone(made.uuid)
    assert await subject.count(ports) == 0
    assert subject.told[-1].deleted
    assert subject.told[-1].host_uuid == HOST
    # Sent again after a reconnect: nothing to do, and the host may forget it.
    assert await subject.store.apply_reports(HOST, [report(now, "none", gone=True)]) == [made.uuid]


async def test_many_reports_in_one_go(subject: Subject) -> None:
    made = [await subject.placed() for _ in range(5)]
    await subject.store.wish(made[1].uuid, rewish("deleted"))
    leaving = await subject.get(made[1].uuid)
    sent = [
        report(made[0], "created"), report(leaving, gone=True), report(made[0], "running"), report(made[2], epoch=7),
        report(leaving, gone=True), report(made[3], "exited"),
    ]  # fmt: skip
    assert set(await subject.store.apply_reports(HOST, sent)) == {leaving.uuid}
    states = [(await subject.get(c.uuid)).report.state for c in made if c.uuid != leaving.uuid]
    assert states == ["running", "none", "exited", "none"]
    assert await subject.store.apply_reports(HOST, []) == []


async def test_auto_remove(subject: Subject) -> None:
    made = await subject.placed(auto_remove=True)
    stays = await subject.placed(auto_remove=False)
    for sent in (report(made, "running"), report(made, "exited", settled=False), report(made, "error")):
        await subject.store.apply_reports(HOST, [sent])
        assert (await subject.get(made.uuid)).wish == made.wish
    await subject.store.apply_reports(HOST, [report(stays, "exited"), report(made, "exited"), report(made, "exited")])
    now = await subject.get(made.uuid)
    assert (now.wish.state, now.wish.task) == ("deleted", "deleting")
    assert now.wish.generation > made.wish.generation
    assert (await subject.get(stays.uuid)).wish == stays.wish
    await subject.store.apply_reports(HOST, [report(now, "none", gone=True)])
    assert await subject.gone(made.uuid)


async def test_auto_remove_does_not_overrule_a_new_start(subject: Subject) -> None:
    made = await subject.placed(auto_remove=True)
    await subject.store.wish(made.uuid, rewish("running"))
    await subject.store.apply_reports(HOST, [report(made, "exited")])  # of the wish before
    assert (await subject.get(made.uuid)).wish.state == "running"


@pytest.mark.parametrize("meanwhile", ["running", "deleted"])
async def test_auto_remove_does_not_overrule_what_comes_meanwhile(subject: Subject, meanwhile: str) -> None:
    made = await subject.placed(auto_remove=True)
    wish = subject.store.wish

    async def later(uuid: str, change: Callable[[Capsule], Wish]) -> Capsule:
        await wish(uuid, rewish(meanwhile))
        if meanwhile == "deleted":
            await subject.another().apply_reports(HOST, [report(await subject.get(uuid), "none", gone=True)])
        return await wish(uuid, change)

    subject.store.wish = later  # type: ignore[method-assign]
    assert await subject.store.apply_reports(HOST, [report(made, "exited")]) == []
    if meanwhile == "deleted":
        assert await subject.gone(made.uuid)
    else:
        assert (await subject.get(made.uuid)).wish == rewish(meanwhile)(made)


# -- silent hosts -----------------------------------------------------------------------------------------------------


async def test_orphans(subject: Subject) -> None:
    await subject.hosts(HOST, OTHER)
    leaving, staying = await subject.placed(), await subject.placed()
    elsewhere = await subject.placed(OTHER)
    for c in (leaving, elsewhere):
        await subject.store.wish(c.uuid, rewish("deleted"))
    subject.now += 60_000_000
    assert await subject.store.drop_orphans(60_000_000) == []
    await subject.store.host_seen(OTHER, 1, connected=True)
    subject.now += 1
    assert await subject.store.drop_orphans(60_000_000) == [leaving.uuid]
    assert await subject.gone(leaving.uuid)
    assert not await subject.gone(staying.uuid)
    assert not await subject.gone(elsewhere.uuid)
    assert subject.told[-1].deleted
    # The host comes back and hears that it may forget it.
    assert await subject.store.apply_reports(HOST, [report(leaving)]) == [leaving.uuid]


async def test_waiting_for_a_silent_host_ends(subject: Subject) -> None:
    loop = PlacementLoop(subject.store, plan.Ratios(), lambda: subject.now)
    waiting, settled = await subject.placed(), await subject.placed()
    await subject.store.apply_reports(HOST, [report(settled)])
    subject.now += 300_000_001
    await loop.once()

    async def status(c: Capsule) -> zun_status.View:
        now = await subject.get(c.uuid)
        return zun_status.view(now.wish, now.placement, now.report)

    assert await status(waiting) == ("Error", HOST_GONE, None)
    assert (await status(settled)).status == "Running"
    before = await subject.store.revision()
    await loop.once()
    assert await subject.store.revision() == before
    # The host is back: what it says counts again, also while it has not finished, or nothing has changed.
    await subject.store.apply_reports(HOST, [CapsuleReport(waiting.uuid, 1, waiting.report)])
    assert (await status(waiting)).status == "Creating"
    await subject.store.apply_reports(HOST, [report(waiting, "none", settled=False, progress="image_pulling")])
    assert await status(waiting) == ("Creating", None, "image_pulling")
    await subject.store.apply_reports(HOST, [report(waiting)])
    assert (await status(waiting)).status == "Running"
