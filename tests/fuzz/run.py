"""Ask everything that the OpenAPI document describes, with made-up values and a real token.

`python -m tests.fuzz.run --schemathesis PROGRAM [--seconds N] [--seed N]`. Exit code 0 when no answer was a 5xx or
had another form than the document says.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from tests.acceptance.cloud_fixtures import Cloud

LEFT_OUT = "/(exec|attach|portforward|sessions|wait|search)$"
"""WebSockets, what answers only when something happens, and a search that asks a registry far away."""


def main() -> int:
    """Schemathesis' own exit code."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--schemathesis", required=True, help="the program")
    parser.add_argument("--seconds", type=int, default=120, help="how long")
    parser.add_argument("--seed", type=int, help="to do the same again")
    asked = parser.parse_args()
    cloud = Cloud()
    try:
        cloud.up()
        login = cloud.make_login("fuzz")
        command = [
            asked.schemathesis, "run", f"http://127.0.0.1:{cloud.port}/openapi.json",
            "--header", f"X-Auth-Token:{cloud.token(login)}",
            "--checks", "not_a_server_error,response_schema_conformance,content_type_conformance",
            "--exclude-path-regex", LEFT_OUT, "--max-time", str(asked.seconds), "--request-timeout", "30",
            "--continue-on-failure", "--no-color", "--warnings", "off", "--generation-database", "none",
        ]  # fmt: skip
        if asked.seed is not None:
            command += ["--seed", str(asked.seed)]
        return subprocess.run(command, env=cloud.env, cwd=cloud.home, stdin=subprocess.DEVNULL, check=False).returncode
    finally:
        cloud.clear()
        cloud.close()


if __name__ == "__main__":
    sys.exit(main())
