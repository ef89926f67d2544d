"""Are the lock files what they should be? Every package pinned and hashed, and no registry named.

Where packages come from is the business of the machine that installs them, not of the repository.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock")
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)( ;.*)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def problems(name: str, text: str) -> list[str]:
    """What is wrong with a lock file, a sentence each."""
    found = []
    hashed = True
    for number, line in enumerate(text.splitlines(), 1):
        if PIN.match(line):
            if not hashed:
                found.append(f"{name}:{number - 1}: a package has no hash.")
            hashed = False
        elif HASH.match(line):
            hashed = True
        elif line.lstrip().startswith("--") or "://" in line:
            found.append(f"{name}:{number}: it says where packages come from: {line.strip()}")
        elif line.strip() and not line.lstrip().startswith("#"):
            found.append(f"{name}:{number}: neither a pinned package nor a hash: {line.strip()}")
    return found


def pins(text: str) -> dict[str, str]:
    """Package names and versions of a lock file."""
    return {match[1]: match[2] for line in text.splitlines() if (match := PIN.match(line))}


def main() -> int:
    """0 when all is well."""
    texts = {name: (ROOT / name).read_text() for name in LOCKS}
    found = [problem for name, text in texts.items() for problem in problems(name, text)]
    base, dev = (pins(texts[name]) for name in LOCKS)
    for package, version in base.items():
        if dev.get(package) != version:
            found.append(f"{LOCKS[1]}: {package} is {dev.get(package)}, but {version} in {LOCKS[0]}.")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        package = re.split(r"[\[<>=! ;]", requirement, maxsplit=1)[0]
        if package not in base:
            found.append(f"{LOCKS[0]}: {package} of pyproject.toml is missing. Run `make lock`.")
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
