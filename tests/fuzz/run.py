"""Ask everything that the OpenAPI document describes, with made-up values and a real token.

`python -m tests.fuzz.run [--seconds N] [--seed N] [--as admin|member]`. Exit code 0 when no answer was a 5xx or had
another form than the document says.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

from tests.acceptance.cloud_fixtures import BIN, Cloud
from tests.fuzz.world import furnish

LEFT_OUT = "/(exec|attach|portforward|sessions|wait|search|pull)$"
"""WebSockets, what answers only when something happens, and what asks a registry far away."""
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "ignored_auth",
)  # fmt: skip
"""All but those that ask for more than Zun does: it answers 404 to wrong methods far down, and ignores unknown fields."""
HERE = Path(__file__).parent


def command(cloud: Cloud, token: str, seed: int, *more: str) -> tuple[list[str], dict[str, str]]:
    """Schemathesis' arguments and environment for one round as whom the token belongs to."""
    world = cloud.home / f"world-{seed}.json"
    world.write_text(json.dumps(furnish(cloud, token)))
    argv = [
        str(BIN / "schemathesis"), "run", f"http://127.0.0.1:{cloud.port}/openapi.json",
        "--header", f"X-Auth-Token:{token}", "--checks", ",".join(CHECKS), "--exclude-path-regex", LEFT_OUT,
        "--request-timeout", "60", "--continue-on-failure", "--no-color", "--warnings", "off",
        "--suppress-health-check", "all", "--generation-database", "none", "--seed", str(seed), *more,
    ]  # fmt: skip
    variables = {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)}
    return argv, {**cloud.env, **variables, "ASKOS_FUZZ_WORLD": str(world), "ASKOS_FUZZ_SEED": str(seed)}


def main() -> int:
    """1 when a round found something."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="how long a round is")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="to do the same again")
    parser.add_argument("--as", dest="roles", choices=("admin", "member"), action="append", help="both if not given")
    parser.add_argument("more", nargs="*", help="arguments for schemathesis, behind --")
    asked = parser.parse_args()
    cloud = Cloud()
    found = 0
    try:
        cloud.up()
        # The member first: an administrator may take the host out of service.
        for role in asked.roles or ("member", "admin"):
            token = cloud.token(cloud.make_login("fuzz") if role == "member" else None)
            print(f"== as {role}, seed {asked.seed}", flush=True)
            argv, env = command(cloud, token, asked.seed, "--max-time", str(asked.seconds), *asked.more)
            done = subprocess.run(argv, env=env, cwd=cloud.home, stdin=subprocess.DEVNULL, check=False)
            found |= done.returncode
        return int(found != 0)
    finally:
        log = (cloud.data / "log" / "askos.log").read_text(errors="replace") if found else ""
        print("".join(line + "\n" for line in log.splitlines() if "rror" in line or "Traceback" in line)[-8000:])
        cloud.close()


if __name__ == "__main__":
    sys.exit(main())
