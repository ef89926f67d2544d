"""The router of the external network: a network namespace that has its gateway's address and knows the way back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

GATEWAY = "172.24.4.1"
_HERE, _THERE = "169.254.77.1", "169.254.77.2"


@contextmanager
def outside() -> Iterator[None]:
    """It answers while the block runs."""
    name = f"outside{os.getpid() % 10**6}"
    try:
        for words in (
            f"netns add {name}",
            f"link add {name} type veth peer name eth0 netns {name}",
            f"address add {_HERE}/30 dev {name}",
            f"link set {name} up",
            f"-n {name} address add {_THERE}/30 dev eth0",
            f"-n {name} address add {GATEWAY}/32 dev eth0",
            f"-n {name} link set eth0 up",
            f"-n {name} route add default via {_HERE}",
            f"route add {GATEWAY}/32 via {_THERE} dev {name}",
        ):
            subprocess.run(["ip", *words.split()], check=True, capture_output=True, timeout=20)
        yield
    finally:
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True, timeout=20)
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True, timeout=20)
