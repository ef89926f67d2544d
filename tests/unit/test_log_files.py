"""Logs that have become too long lose their oldest part, and are read and written on as if nothing had happened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from askos.adapters.containerd.log_files import trim
from askos.loops.logs import Reader, Selection
from askos.loops.pod_logs import InstanceLog

BLOCK = 64 << 10
STAMP = "2024-05-01T10:00:00.000000000Z"


def lines(first: int, end: int) -> bytes:
    return b"".join(f"{STAMP} stdout F line {number:07d}\n".encode() for number in range(first, end))


class Sink:
    """What a reader sends, as the numbers of its lines."""

    def __init__(self) -> None:
        self.data = b""

    async def __call__(self, _channel: int, data: bytes) -> None:
        self.data += data

    @property
    def numbers(self) -> list[int]:
        return [int(text.removeprefix(b"line ")) for text in self.data.splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 20,000 lines, about one MiB."""
    path = tmp_path / "capsule" / "main" / "1-0.log"
    path.parent.mkdir(parents=True)
    path.write_bytes(lines(0, 20_000))
    return path


def cut(path: Path, keep: int = 4 * BLOCK) -> list[Path]:
    # What is not on the disk yet has no blocks that could be counted.
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return trim(path.parents[2], keep, 0)


def test_the_oldest_part_is_off_the_disk(log: Path) -> None:
    size = log.stat().st_size
    assert cut(log) == [log]
    assert log.stat().st_size == size
    assert 4 * BLOCK <= log.stat().st_blocks * 512 <= 6 * BLOCK
    assert cut(log, 6 * BLOCK) == []


def test_what_is_short_or_no_log_stays(log: Path) -> None:
    other = log.with_name("other.txt")
    other.write_bytes(log.read_bytes())
    log.with_name("link.log").symlink_to(other)
    before = log.stat().st_blocks
    assert cut(log, 64 << 20) == []
    assert cut(log) == [log]
    assert other.read_bytes() == lines(0, 20_000)
    assert log.stat().st_blocks < before


async def test_what_is_left_is_read_from_its_first_whole_line_on(log: Path) -> None:
    cut(log)
    whole, pods, tail, long_tail = Sink(), Sink(), Sink(), Sink()
    await Reader(log.parent).history(Selection(), whole)
    await InstanceLog(log).history(Selection(), pods)
    await InstanceLog(log).history(Selection(tail=3), tail)
    await InstanceLog(log).history(Selection(tail=19_000), long_tail)
    first = whole.numbers[0]
    assert 20_000 - 5 * BLOCK // len(lines(0, 1)) - 2 <= first <= 20_000 - 4 * BLOCK // len(lines(0, 1))
    assert whole.numbers == pods.numbers == long_tail.numbers == list(range(first, 20_000))
    assert tail.numbers == [19_997, 19_998, 19_999]


async def test_who_follows_misses_nothing_that_was_read_before(log: Path) -> None:
    readers = [(Reader(log.parent), Sink()), (InstanceLog(log), Sink())]
    for reader, sink in readers:
        await reader.history(Selection(), sink)
    with log.open("ab") as file:
        file.write(lines(20_000, 20_010))
        cut(log)
        file.write(lines(20_010, 20_020))
    for reader, sink in readers:
        await reader.more(Selection(), sink)
        assert sink.numbers == list(range(20_020))


async def test_who_is_too_slow_goes_on_behind_the_hole(log: Path) -> None:
    reader, sink = InstanceLog(log), Sink()
    await reader.history(Selection(tail=19_999), Sink())
    with log.open("ab") as file:
        file.write(lines(20_000, 60_000))
    cut(log)
    await reader.more(Selection(), sink)
    assert sink.numbers == list(range(sink.numbers[0], 60_000))
    assert sink.numbers[0] > 50_000
