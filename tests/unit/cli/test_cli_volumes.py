"""`askos volume`, in one process against a made-up cloud."""

from __future__ import annotations

import json

import pytest

from askos.cli import volumes


def test_create_list_show_and_remove(askos, cloud):
    made = askos("volume", "create", "data", "--size", "10g")
    assert made.code == 0
    assert cloud.volumes["data"]["size_gib"] == 10
    assert made.out.strip() == cloud.volumes["data"]["id"]
    askos("volume", "create", "shared", "-s", "1t", "-m")
    assert (cloud.volumes["shared"]["size_gib"], cloud.volumes["shared"]["multiattach"]) == (1024, True)
    user = "8b1a9953-0000-4000-8000-000000000001"
    cloud.volumes["data"] |= {"status": "in-use", "attachments": [user], "host": "host-1"}
    table = askos("volume", "ls").out.splitlines()
    assert table[0].split() == ["NAME", "ID", "SIZE", "STATUS", "USED", "BY", "HOST"]
    assert table[1].split() == ["data", made.out[:8], "10", "GiB", "in-use", "8b1a9953", "host-1"]
    assert askos("volume", "ls", "-q").out.splitlines() == [v["id"] for v in cloud.volumes.values()]
    assert json.loads(askos("volume", "ls", "-o", "json").out) == list(cloud.volumes.values())
    shown = askos("volume", "show", "data").out
    assert f"Used by:  {user}" in shown
    assert "2026-11-21 07:15:52 UTC (" in shown
    assert json.loads(askos("volume", "show", "-o", "json", "data").out) == cloud.volumes["data"]
    refused = askos("volume", "rm", "data", "shared", "none")
    assert (refused.code, refused.out) == (1, "shared\n")
    assert refused.err.splitlines() == [
        'askos: cannot remove the volume data: Cannot delete volume "data": it is in use.',
        "askos: cannot remove the volume none: Volume none could not be found. See `askos volume ls`.",
    ]
    assert set(cloud.volumes) == {"data"}


def test_a_name_that_is_taken(askos):
    askos("volume", "create", "data", "-s", "1")
    again = askos("volume", "create", "data", "-s", "1")
    assert again.code == 1
    assert "has one of that name" in again.err and again.err.count("\n") == 1


@pytest.mark.parametrize(("given", "gib"), [("1", 1), ("10g", 10), ("1t", 1024), ("1.5g", 2), ("100m", 1), ("3GiB", 3)])
def test_sizes(given, gib):
    assert volumes.parse_size_gib(given) == gib


@pytest.mark.parametrize("given", ["", "0", "-1", "g", "ten", "0g", "1e3", "١"])
def test_what_is_no_size_is_a_mistake_of_use(askos, cloud, given):
    ran = askos("volume", "create", "data", f"--size={given}")
    assert ran.code == 2
    assert "Write 10g, 1t or a number of GiB" in ran.err
    assert cloud.volumes == {}


def test_names_are_completed(askos, program, cloud, environment):
    for name in ("data", "date", "other"):
        askos("volume", "create", name, "-s", "1")
    environment |= {"_ASKOS_COMPLETE": "bash_complete", "COMP_WORDS": "askos volume rm da", "COMP_CWORD": "3"}
    assert program().communicate(timeout=60)[0] == b"plain,data\nplain,date\n"
