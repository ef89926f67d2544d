"""Who holds a data folder, also while the holder is just ending."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from askos.model.errors import SetupError
from askos.programs import locks

EXIT = {"x86_64": 60, "aarch64": 93}
"""The system call that ends one thread."""

DYING = """\
import ctypes, os, sys, threading, time
from pathlib import Path
from askos.programs import locks

locks.Lock(Path(sys.argv[1])).take("Askos")
threading.Thread(target=lambda: (time.sleep(1), os._exit(0))).start()
print("taken", flush=True)
ctypes.CDLL(None).syscall(int(sys.argv[2]), 0)
"""


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert locks.holder(path) is None
    lock = locks.Lock(path)
    lock.take("Askos")
    assert locks.holder(path) == os.getpid()
    with pytest.raises(SetupError, match=rf"Askos is running already on {tmp_path} \(process {os.getpid()}\)"):
        locks.Lock(path).take("Askos")
    lock.release()
    assert locks.holder(path) is None


@pytest.mark.parametrize("how", ["look", "take"])
def test_who_is_just_ending_holds_nothing(tmp_path: Path, how: str) -> None:
    path = tmp_path / "lock"
    argv = [sys.executable, "-c", DYING, str(path), str(EXIT[platform.machine()])]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        # Its first thread has ended, and another one has not yet: nothing is let go of.
        if how == "look":
            assert locks.holder(path) is None
        else:
            locks.Lock(path).take("Askos")
