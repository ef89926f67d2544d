"""Every call of the recorded conversations is answered as Zun answered it, but for the differences that are known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.cloud import open_cloud

from .differences import KNOWN, NOT_SAID
from .replay import CONVERSATIONS, Replay


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_a_conversation_goes_as_with_zun(name: str, template: Path, tmp_path: Path) -> None:
    found, used = [], set()
    async with open_cloud(template, tmp_path) as cloud:
        replay = Replay(cloud)
        await replay.prepare(CONVERSATIONS[name])
        for call in CONVERSATIONS[name]:
            if any(re.fullmatch(pattern, f"{name}: {call.name}") for pattern in NOT_SAID):
                continue
            outcome = await replay.say(call)
            for difference in outcome.differences:
                known = [
                    i for i, k in enumerate(KNOWN)
                    if re.fullmatch(k.calls, f"{name}: {call.name}") and re.fullmatch(k.what, difference)
                ]  # fmt: skip
                used.update(known)
                if not known:
                    found.append(
                        f"{call.name} ({call.version} {call.role} {call.ask}): {difference}: {outcome.answer.raw[:300]!r}"
                    )
    assert not found, f"{len(found)} differences:\n" + "\n".join(found)
    stale = [k for i, k in enumerate(KNOWN) if k.calls.partition(":")[0] == name and k.always and i not in used]
    assert not stale, f"no differences any more: {stale}"


def test_every_difference_has_a_reason() -> None:
    assert all(len(k.why) > 10 for k in KNOWN)
