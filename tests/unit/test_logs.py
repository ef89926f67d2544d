"""Reading container logs: CRI's format, over all runs, whole, in part, and while they are being written."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askos.loops import logs
from askos.loops.logs import Reader, Selection, nine_digits, parse

T = "2024-05-01T10:00:00.{:09d}Z"


def line(text: str, stream: str = "stdout", tag: str = "F", ns: int = 0) -> bytes:
    return f"{T.format(ns)} {stream} {tag} {text}\n".encode()


class Sink:
    """Takes what a reader sends."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []

    async def __call__(self, channel: int, data: bytes) -> None:
        self.pieces.append((channel, data))

    def of(self, channel: int) -> bytes:
        return b"".join(data for where, data in self.pieces if where == channel)


async def read(folder: Path, **selection: object) -> list[tuple[int, bytes]]:
    sink = Sink()
    await Reader(folder).history(Selection(**selection), sink)  # type: ignore[arg-type]
    return sink.pieces


def write(folder: Path, name: str, *lines: bytes) -> None:
    with (folder / name).open("ab") as file:
        file.write(b"".join(lines))


# -- history ----------------------------------------------------------------------------------------------------------


async def test_streams_stay_in_order_and_apart(tmp_path: Path) -> None:
    write(tmp_path, "1-0.log", line("a"), line("b"), line("x", "stderr"), line("c"))
    assert await read(tmp_path) == [(1, b"a\nb\n"), (2, b"x\n"), (1, b"c\n")]
    assert await read(tmp_path, stderr=False) == [(1, b"a\nb\nc\n")]
    assert await read(tmp_path, stdout=False) == [(2, b"x\n")]
    assert await read(tmp_path, stdout=False, stderr=False) == []


async def test_runs_and_attempts_are_one_log_in_their_order(tmp_path: Path) -> None:
    for name in ("10-0", "2-10", "2-9", "1-0", "2-0"):
        write(tmp_path, f"{name}.log", line(name))
    for other in ("etc-hosts", "x-1.log", "1-0.log.gz", "1.log", "1-0.log~"):
        write(tmp_path, other, line("not a log"))
    assert await read(tmp_path) == [(1, b"1-0\n2-0\n2-9\n2-10\n10-0\n")]


async def test_nothing_there(tmp_path: Path) -> None:
    assert await read(tmp_path / "nowhere") == []
    assert await read(tmp_path) == []
    write(tmp_path, "1-0.log")
    assert await read(tmp_path) == []
    assert await read(tmp_path, tail=5) == []


async def test_a_long_line_comes_together_again(tmp_path: Path) -> None:
    write(tmp_path, "1-0.log", line("one ", tag="P"), line("two ", tag="P"), line("three"), line("", tag="F"))
    assert await read(tmp_path) == [(1, b"one two three\n\n")]
    assert await read(tmp_path, timestamps=True) == [(1, f"{T.format(0)} one two three\n{T.format(0)} \n".encode())]


async def test_long_lines_of_both_streams_at_once(tmp_path: Path) -> None:
    write(
        tmp_path, "1-0.log", line("out ", tag="P", ns=1), line("err ", "stderr", tag="P", ns=2), line("end", ns=3),
        line("end", "stderr", ns=4), line("last", "stderr", ns=5),
    )  # fmt: skip
    sink = Sink()
    await Reader(tmp_path).history(Selection(timestamps=True), sink)
    assert sink.of(1) == f"{T.format(1)} out end\n".encode()
    assert sink.of(2) == f"{T.format(2)} err end\n{T.format(5)} last\n".encode()
    for tail, expected in (
        (1, (b"", b"last\n")),
        (2, (b"", b"err end\nlast\n")),
        (3, (b"out end\n", b"err end\nlast\n")),
    ):
        sink = Sink()
        await Reader(tmp_path).history(Selection(tail=tail), sink)
        assert (sink.of(1), sink.of(2)) == expected, tail


async def test_bytes_stay_as_they_are(tmp_path: Path) -> None:
    odd = b"\x00\xff  two  spaces \r\x1b[1m"
    write(tmp_path, "1-0.log", T.format(0).encode() + b" stdout F " + odd + b"\n")
    assert await read(tmp_path) == [(1, odd + b"\n")]


async def test_lines_that_are_none_are_skipped(tmp_path: Path) -> None:
    write(tmp_path, "1-0.log", b"\n", b"rubbish\n", b"a b c\n", line("good"))
    assert await read(tmp_path) == [(1, b"good\n")]


# -- tail and since ---------------------------------------------------------------------------------------------------


async def test_tail(tmp_path: Path) -> None:
    write(tmp_path, "1-0.log", line("a"), line("x", "stderr"), line("b"))
    write(tmp_path, "1-1.log", line("c ", tag="P"), line("d"), line("y", "stderr"))
    for tail, expected in (
        (0, []),
        (1, [(2, b"y\n")]),
        (2, [(1, b"c d\n"), (2, b"y\n")]),
        (3, [(1, b"b\nc d\n"), (2, b"y\n")]),
        (99, [(1, b"a\n"), (2, b"x\n"), (1, b"b\nc d\n"), (2, b"y\n")]),
    ):
        assert await read(tmp_path, tail=tail) == expected
    # It counts lines of what was asked for.
    assert await read(tmp_path, tail=2, stderr=False) == [(1, b"b\nc d\n")]
    assert await read(tmp_path, tail=1, stdout=False, timestamps=True) == [(2, f"{T.format(0)} y\n".encode())]


async def test_since(tmp_path: Path) -> None:
    write(tmp_path, "1-0.log", line("old", ns=999_999), line("just", ns=1_000_000), line("new", ns=2_000_000_00))
    start = 1_714_557_600_000_000
    assert await read(tmp_path, since_us=start) == [(1, b"old\njust\nnew\n")]
    assert await read(tmp_path, since_us=start + 1000) == [(1, b"just\nnew\n")]
    assert await read(tmp_path, since_us=start + 1001, tail=5) == [(1, b"new\n")]
    assert await read(tmp_path, since_us=start + 10**9) == []
    assert await read(tmp_path, since_us=10**40) == []


@pytest.mark.parametrize(
    ("stamp", "us"),
    [
        ("2024-05-01T10:00:00Z", 1_714_557_600_000_000),
        ("2024-05-01T10:00:00.5Z", 1_714_557_600_500_000),
        ("2024-05-01T10:00:00.123456789Z", 1_714_557_600_123_456),
        ("2024-05-01T12:00:00.000000001+02:00", 1_714_557_600_000_000),
        ("2024-05-01T04:30:00-05:30", 1_714_557_600_000_000),
    ],
)
def test_times(stamp: str, us: int) -> None:
    for since, found in ((us, True), (us + 1, False)):
        record = parse(f"{stamp} stdout F x".encode(), Selection(since_us=since))
        assert (record is not None) == found


@pytest.mark.parametrize("stamp", ["yesterday", "2024-13-01T00:00:00Z", "\u00b2024", ""])
def test_a_time_that_is_none_is_not_selected(stamp: str) -> None:
    assert parse(f"{stamp} stdout F x".encode(), Selection(since_us=0)) is None
    assert parse(f"{stamp} stdout F x".encode(), Selection()) is not None


# -- following --------------------------------------------------------------------------------------------------------


async def test_what_comes_later_is_read_once(tmp_path: Path) -> None:
    reader, sink, all_of_it = Reader(tmp_path), Sink(), Selection()
    await reader.more(all_of_it, sink)
    write(tmp_path, "1-0.log", line("a"))
    await reader.more(all_of_it, sink)
    await reader.more(all_of_it, sink)
    write(tmp_path, "1-0.log", line("b"), line("c")[:-3])  # the last is still being written
    await reader.more(all_of_it, sink)
    assert sink.of(1) == b"a\nb\n"
    write(tmp_path, "1-0.log", line("c")[-3:])
    write(tmp_path, "1-1.log", line("d"))  # a restart
    await reader.more(all_of_it, sink)
    assert sink.of(1) == b"a\nb\nc\nd\n"


async def test_following_goes_on_where_the_tail_ended(tmp_path: Path) -> None:
    write(tmp_path, "1-0.log", line("a"), line("b"))
    reader, sink = Reader(tmp_path), Sink()
    selection = Selection(tail=1)
    await reader.history(selection, sink)
    write(tmp_path, "1-0.log", line("c"))
    write(tmp_path, "2-0.log", line("d"))
    await reader.more(selection, sink)
    assert sink.of(1) == b"b\nc\nd\n"
    none = Sink()
    reader = Reader(tmp_path)
    await reader.history(Selection(tail=0), none)
    await reader.more(Selection(tail=0), none)
    assert none.pieces == []


async def test_timestamps_over_a_line_that_is_read_in_two_goes(tmp_path: Path) -> None:
    write(tmp_path, "1-0.log", line("half ", tag="P", ns=1))
    reader, sink, selection = Reader(tmp_path), Sink(), Selection(timestamps=True)
    await reader.more(selection, sink)
    write(tmp_path, "1-0.log", line("whole", ns=2), line("next", ns=3))
    await reader.more(selection, sink)
    assert sink.of(1) == f"{T.format(1)} half whole\n{T.format(3)} next\n".encode()


async def test_a_log_that_vanishes_is_the_end_of_it(tmp_path: Path) -> None:
    write(tmp_path, "1-0.log", line("a"))
    reader, sink = Reader(tmp_path), Sink()
    await reader.more(Selection(), sink)
    (tmp_path / "1-0.log").unlink()
    await reader.more(Selection(), sink)
    tmp_path.rmdir()
    await reader.more(Selection(), sink)
    assert sink.pieces == [(1, b"a\n")]


async def test_a_slow_taker_gets_it_in_pieces(tmp_path: Path) -> None:
    size = 4 << 20
    write(tmp_path, "1-0.log", *(line("x" * 1023) for _ in range(size // 1024)))
    taken: list[int] = []

    async def slow(_channel: int, data: bytes) -> None:
        taken.append(len(data))
        await asyncio.sleep(0)

    await Reader(tmp_path).history(Selection(), slow)
    assert sum(taken) == size
    assert max(taken) < 2 * logs._CHUNK

    async def broken(_channel: int, _data: bytes) -> None:
        raise ConnectionResetError

    for _ in range(20):
        with contextlib.suppress(ConnectionResetError):
            await Reader(tmp_path).history(Selection(), broken)
            pytest.fail("it did not say so")
    # Nothing stays open, but for what a thread has just let go of.
    assert sum(_points_at(fd, tmp_path / "1-0.log") for fd in os.listdir("/proc/self/fd")) <= 2


def _points_at(fd: str, path: Path) -> bool:
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}")) == path
    except OSError:
        return False


# -- anything ---------------------------------------------------------------------------------------------------------

RECORDS = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from("FP"), st.text("ab \u00e4", max_size=4)),
    max_size=12,
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(RECORDS, st.integers(0, 8), st.lists(st.integers(0, 400), max_size=3))
async def test_any_log_in_any_pieces(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str, str, str]], tail: int, cuts: list[int]
) -> None:
    """Read as it grows, a log is what was written; and a tail is the end of it."""
    folder = tmp_path_factory.mktemp("log")
    data = b"".join(line(text, stream, tag) for stream, tag, text in records)
    reader, sink = Reader(folder), Sink()
    at = 0
    for cut in [*sorted(cuts), len(data)]:
        write(folder, "1-0.log", data[at : max(cut, at)])
        at = max(cut, at)
        await reader.more(Selection(), sink)
    wanted = {1: b"", 2: b""}
    for stream, tag, text in records:
        wanted[1 if stream == "stdout" else 2] += text.encode() + (b"\n" if tag == "F" else b"")
    assert {c: sink.of(c) for c in (1, 2)} == wanted
    end = Sink()
    await Reader(folder).history(Selection(tail=tail, stderr=False), end)
    pieces = wanted[1].split(b"\n")
    lines = [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])
    assert end.of(1) == b"".join(lines[-tail:] if tail else [])


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"2026-11-21T12:36:39.66624923Z", b"2026-11-21T12:36:39.666249230Z"),
        (b"2026-11-21T12:36:39Z", b"2026-11-21T12:36:39.000000000Z"),
        (b"2026-11-21T12:36:39.5-05:00", b"2026-11-21T12:36:39.500000000-05:00"),
        (b"2026-11-21T12:36:39+01:00", b"2026-11-21T12:36:39.000000000+01:00"),
        (b"2026-11-21T12:36:39.123456789Z", b"2026-11-21T12:36:39.123456789Z"),
        (b"yesterday", b"yesterday"),
    ],
)
def test_times_have_nine_digits(written: bytes, shown: bytes) -> None:
    assert nine_digits(written) == shown
