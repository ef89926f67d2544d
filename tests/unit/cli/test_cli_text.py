"""Pure functions: parsing and rendering."""

from __future__ import annotations

import pytest

from askos.cli import output, ps, text
from askos.cli.output import Column


@pytest.mark.parametrize(
    ("given", "mib"),
    [("512m", 512), ("512", 512), ("1g", 1024), ("1.5G", 1536), ("1GiB", 1024), ("64MB", 64), ("2048k", 2),
     ("1500k", 2), ("1t", 1048576), ("8388608b", 8)],
)  # fmt: skip
def test_memory(given, mib):
    assert text.parse_memory_mib(given) == mib


@pytest.mark.parametrize("given", ["", "m", "-1m", "1x", "0", "0m", "1m2", "1 2m", "nan", "5ib"])
def test_memory_that_is_none(given):
    with pytest.raises(ValueError, match=r"not a size|less than 1 MiB"):
        text.parse_memory_mib(given)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("10m", 1_000_000 - 600), ("1h30m", 1_000_000 - 5400), ("2d", 1_000_000 - 172800), ("1700000000", 1_700_000_000),
     ("1700000000.9", 1_700_000_000), ("1970-01-01T01:00:00Z", 3600), ("1970-01-01T01:00:00+01:00", 0),
     ("1970-01-02", 86400), ("20000d", 0)],
)  # fmt: skip
def test_since(given, seconds):
    assert text.parse_since_s(given, 1_000_000.5) == seconds


@pytest.mark.parametrize("given", ["yesterday", "10x", "", "m"])
def test_since_that_is_none(given):
    with pytest.raises(ValueError, match="not a time"):
        text.parse_since_s(given, 0)


def test_restart_policies():
    assert text.parse_restart("always") == {"Name": "always", "MaximumRetryCount": "0"}
    assert text.parse_restart("on-failure:5") == {"Name": "on-failure", "MaximumRetryCount": "5"}
    for wrong in ("never", "always:3", "on-failure:x", "on-failure:", ""):
        with pytest.raises(ValueError, match=r"polic|retries"):
            text.parse_restart(wrong)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 seconds"), (1, "1 second"), (119, "119 seconds"), (120, "2 minutes"), (7199, "119 minutes"),
     (7200, "2 hours"), (172800, "2 days"), (86400 * 90, "3 months"), (86400 * 800, "2 years")],
)  # fmt: skip
def test_spans(seconds, words):
    assert text.span(seconds) == words


def test_ago():
    assert text.ago("1970-01-01 00:00:10", 15.0) == "5 seconds ago"
    assert text.ago("1970-01-01 00:00:10.500000", 15.0) == "4 seconds ago"
    assert text.ago("1970-01-01 00:00:10", 5.0) == "0 seconds ago"
    assert text.ago(None) == ""
    assert text.ago("soon") == "soon"


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"status": "Running", "status_detail": "Up 5 mins"}, "Up 5 mins"),
        ({"status": "Running", "status_detail": None}, "Running"),
        ({"status": "Stopped", "status_detail": "Exited(0) 8 mins ago "}, "Exited(0) 8 mins ago"),
        ({"status": "Creating", "task_state": "image_pulling"}, "Creating (image pulling)"),
        ({"status": "Deleting", "task_state": "container_deleting"}, "Deleting"),
        ({"status": "Error", "status_reason": "no such\n image"}, "Error: no such image"),
        (
            {"status": "Created", "status_detail": "Created", "status_reason": "no program"},
            "Created: no program",
        ),
        ({"status": "Created", "status_detail": "Created"}, "Created"),
    ],
)
def test_status(container, words):
    assert text.status(container) == words


def test_sizes():
    assert [text.size(n) for n in (0, 999, 1000, 4_300_000, 1_234_000_000)] == [
        "0B",
        "999B",
        "1kB",
        "4.3MB",
        "1.23GB",
    ]


def test_a_table_is_aligned_and_not_cut_without_a_width():
    columns = [Column("NAME", 4), Column("UUID"), Column("COMMAND", 4)]
    made = output.table(columns, [["a", "1234", "x" * 300], ["longer", "5", ""]], width=None)
    assert made == f"NAME    UUID  COMMAND\na       1234  {'x' * 300}\nlonger  5\n"


def test_a_table_fits_its_width_and_never_cuts_ids():
    columns = [Column("NAME", 4), Column("UUID"), Column("COMMAND", 4)]
    rows = [["n" * 30, "0123456789" * 3, "c" * 60]]
    made = output.table(columns, rows, width=60)
    assert all(len(line) <= 60 for line in made.splitlines())
    assert "0123456789" * 3 in made
    assert "n…" in made
    assert "c…" in made
    assert "0123456789" * 3 in output.table(columns, rows, width=10)


def test_wide_characters_and_control_characters():
    made = output.table([Column("NAME"), Column("X")], [["東京", "a"], ["\x1b[31mred", "b"]], width=None)
    assert made.splitlines()[1] == "東京         a"
    assert made.splitlines()[2] == "\\x1b[31mred  b"
    assert output.cut("東京都", 5) == "東京…"


def test_an_empty_list_is_its_head():
    assert output.table([Column("NAME"), Column("X")], [], width=40) == "NAME  X\n"


@pytest.mark.parametrize(
    ("key", "value", "matching"),
    [("name", "we", True), ("name", "x", False), ("status", "running", True), ("status", "UP", True),
     ("status", "error", False), ("label", "app", True), ("label", "app=web", True), ("label", "app=x", False),
     ("label", "other", False), ("image", "busybox", True), ("image", "busybox:1", True), ("image", "busy", False)],
)  # fmt: skip
def test_filters(key, value, matching):
    container = {"name": "web", "status": "Running", "labels": {"app": "web"}, "image": "busybox:1"}
    assert ps.matches(container, key, value) is matching


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0s"), (0.9, "0s"), (119, "119s"), (120, "2m"), (330, "5m30s"), (599, "9m59s"), (600, "10m"),
        (3 * 3600 - 1, "179m"), (3 * 3600, "3h"), (5 * 3600 + 1260, "5h21m"), (30 * 3600, "30h"), (49 * 3600, "2d1h"),
        (8 * 86400, "8d"), (400 * 86400, "400d"), (760 * 86400, "2y30d"), (9 * 365 * 86400, "9y"),
    ],
)  # fmt: skip
def test_short_spans(seconds, words):
    assert text.short_span(seconds) == words
