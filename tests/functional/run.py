"""Run python-zunclient's functional tests, unmodified, against a cloud of their own.

`python -m tests.functional.run --venv FOLDER [--regex WORDS] [--keep FOLDER]`. Exit code 0 when tests ran, and none
of them failed or was skipped.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.acceptance.cloud_fixtures import Cloud
from tests.acceptance.image_fixtures import Image

SUITE = "zunclient.tests.functional"
_APPLETS = ("sleep", "cat", "echo", "ls")


def configuration(cloud: Cloud) -> str:
    """What python-zunclient's `tools/run_functional.sh` writes."""
    login = cloud.login()
    return f"""\
[functional]
api_version = 1
os_auth_url = http://127.0.0.1:{cloud.port}/identity/v3
os_identity_api_version = 3
os_username = {login.user}
os_password = {login.password}
os_project_name = {login.project}
os_user_domain_id = default
os_project_domain_id = default
os_service_type = container
os_endpoint_type = public
"""


def load_image(cloud: Cloud) -> None:
    """`cirros`, the image of the suite, made from this machine's busybox."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    scripts = {f"bin/{name}": f'#!/bin/sh\nexec /bin/busybox {name} "$@"\n'.encode() for name in _APPLETS}
    image = Image("cirros", {"bin/busybox": Path(busybox).read_bytes(), **scripts})
    archive = cloud.home / "cirros.tar"
    archive.write_bytes(image.docker_archive("cirros:latest"))
    cloud.askos("image", "import", str(archive), "cirros:latest")


def run(cloud: Cloud, venv: Path, folder: Path, regex: str) -> bool:
    """Run the tests one by one, telling what came of each; whether all passed. `folder` keeps what they said."""
    # The suite looks for `openstack` where tox would have put it.
    tools = folder / ".tox" / "functional"
    tools.mkdir(parents=True, exist_ok=True)
    (tools / "bin").symlink_to(venv / "bin")
    config = folder / "test.conf"
    config.write_text(configuration(cloud))
    config.chmod(0o600)
    env = {**cloud.env, "PATH": f"{venv}/bin:{cloud.env['PATH']}", "ZUNCLIENT_TEST_CONFIG": str(config)}
    listed = subprocess.run(
        [venv / "bin" / "python", "-m", "testtools.run", "--list", f"{SUITE}.osc.v1.test_container"],
        cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    names = [name for name in listed.split() if re.search(regex, name)]
    if not names:
        raise SystemExit(f"askos: no test's name matches {regex!r}; there are:\n{listed}")
    passed = 0
    for name in names:
        done = subprocess.run(
            [venv / "bin" / "python", "-m", "testtools.run", name],
            cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        (folder / f"{name}.txt").write_text(said)
        ran = re.search(r"^Ran (\d+) tests? in ([\d.]+)s$", said, re.MULTILINE)
        fine = done.returncode == 0 and ran is not None and ran[1] == "1" and "skipped" not in said.lower()
        passed += fine
        took = f" [{float(ran[2]):.1f}s]" if ran else ""
        print(f"  {'ok' if fine else 'FAILED':8} {name.removeprefix(SUITE + '.')}{took}", flush=True)
        if not fine:
            print(said.rstrip())
    print(f"{passed} of {len(names)} passed")
    return passed == len(names)


def main() -> int:
    """Exit code 0 when no test failed."""
    parser = argparse.ArgumentParser(prog="make functional")
    parser.add_argument(
        "--venv", type=Path, required=True, help="the environment that has python-zunclient and tempest"
    )
    parser.add_argument("--regex", default="", help="which tests")
    parser.add_argument("--keep", type=Path, help="leave what the tests said in this folder")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="askos-functional-")) if asked.keep is None else asked.keep.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    cloud = Cloud()
    fine = False
    try:
        cloud.up()
        load_image(cloud)
        fine = run(cloud, asked.venv.absolute(), folder, asked.regex)
        if not fine:
            print(cloud.log_tail())
    finally:
        cloud.clear()
        cloud.close()
        (folder / "test.conf").unlink(missing_ok=True)
        if asked.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if fine else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
