"""One configuration of the suite against a cloud of its own: a process that `run.py` starts in a sandbox.

`python -m tests.tempest.part --venv FOLDER --logs FOLDER --at VERSION --regex WORDS [--enabled]`
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.acceptance.cloud_fixtures import Cloud
from tests.tempest import images
from tests.tempest.docker_api import docker_api
from tests.tempest.outside import outside
from tests.tempest.results import SUITE, Result

_LINE = re.compile(
    r"^\{\d+\} (?P<name>.+?) (?:\[(?P<seconds>[\d.]+)s\] )?\.\.\. (?P<result>ok|FAILED|SKIPPED)(?:: (?P<why>.*))?$"
)
_CLASS = re.compile(r"setUpClass \((?P<name>.+)\)")


def configuration(cloud: Cloud, folder: Path, version: str) -> str:
    """tempest.conf, with credentials made for each class, and a network for each of these."""
    login = cloud.login()
    found = cloud.api("GET", "/networking/v2.0/networks?router:external=true")
    networks = found.json()["networks"] if found.status == 200 else []
    if not networks:
        raise SystemExit(f"askos: the cloud has no external network: {found.body.decode(errors='replace')}")
    return f"""\
[DEFAULT]
debug = true
log_dir = {folder}/log
log_file = tempest.log
[oslo_concurrency]
lock_path = {cloud.home}/lock
[auth]
use_dynamic_credentials = true
create_isolated_networks = true
admin_username = {login.user}
admin_password = {login.password}
admin_project_name = {login.project}
admin_domain_name = Default
tempest_roles = member
[identity]
uri_v3 = http://127.0.0.1:{cloud.port}/identity/v3
auth_version = v3
region = RegionOne
[service_available]
nova = false
swift = false
cinder = true
glance = true
neutron = true
zun = true
[network]
public_network_id = {networks[0]["id"]}
project_network_cidr = 10.100.0.0/16
project_network_mask_bits = 24
[volume]
catalog_type = block-storage
[container_service]
min_microversion = {version}
cirros_image = cirros:latest
nginx_image = nginx
ubuntu_image = ubuntu
[docker]
docker_remote_api_version = 1.40
api_url = tcp://127.0.0.1:2375
docker_remote_api_host = localhost
"""


def load_images(cloud: Cloud) -> None:
    """What the suite runs, onto the cloud's host."""
    for name, image in (("cirros", images.cirros()), ("nginx", images.nginx()), ("ubuntu", images.ubuntu())):
        archive = cloud.home / "image.tar"
        archive.write_bytes(image.docker_archive(f"{name}:latest"))
        cloud.askos("image", "import", str(archive), f"{name}:latest")
        archive.unlink()


class Tempest:
    """tempest, set up for one cloud. Its log and every request stay in `logs`."""

    def __init__(self, cloud: Cloud, venv: Path, logs: Path, version: str, *, enabled: bool) -> None:
        self.version, self._logs = version, logs
        (logs / "log").mkdir(parents=True, exist_ok=True)
        (logs / "tempest.conf").write_text(configuration(cloud, logs, version))
        home = cloud.home / "tempest"
        programs = home / "bin"
        programs.mkdir(parents=True)
        if shutil.which("ping") is None:
            (programs / "ping").symlink_to(str(shutil.which("busybox")))
        self._env = {**cloud.env, "PATH": f"{venv}/bin:{cloud.env['PATH']}:{programs}", "HOME": str(home)}
        self._work, self._tempest = home / "work", str(venv / "bin" / "tempest")
        subprocess.run(
            [self._tempest, "init", str(self._work)], env=self._env, check=True, capture_output=True, timeout=120
        )
        if enabled:
            self._env["PYTHONPATH"] = str(Path(__file__).parent / "enabled")

    def _command(self, *words: str) -> list[str]:
        return [self._tempest, "run", "--config-file", str(self._logs / "tempest.conf"), *words]

    def chosen(self, which: list[str]) -> list[str]:
        """The names of the tests that these words choose."""
        done = subprocess.run(
            self._command("--list-tests", *which),
            cwd=self._work, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        names = [_short(line) for line in done.stdout.splitlines() if line.startswith(SUITE)]
        if not names and "FAILED" in done.stdout + done.stderr:
            raise SystemExit(f"askos: tempest could not list its tests: {done.stdout}{done.stderr}")
        return names

    def run(self, which: list[str]) -> list[Result]:
        """One test at a time. A test that tempest chose and told nothing of has failed."""
        found: dict[str, Result] = {}
        chosen = self.chosen(which)
        if not chosen:
            return []
        with (self._logs / "output.txt").open("w") as kept, subprocess.Popen(
            self._command("--serial", *which), cwd=self._work, env=self._env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                kept.write(line)
                kept.flush()
                for result in _results(line, chosen):
                    found[result.name] = result
                    print(f"  {self.version}  {result.result:8} {result.name} {result.why}", flush=True)
        silent = "tempest told nothing of it"
        return [found.get(name, Result(name, "FAILED", silent, 0.0)) for name in chosen]


def _short(name: str) -> str:
    return name.strip().replace(f"{SUITE}.", "").split("[")[0]


def _results(line: str, chosen: list[str]) -> list[Result]:
    """What a line of tempest's output says: of a class, it says it of each of its tests."""
    if not (told := _LINE.match(line.rstrip())):
        return []
    of_class = _CLASS.match(told["name"])
    name = _short(of_class["name"] if of_class else told["name"])
    names = [each for each in chosen if each.startswith(f"{name}.")] if of_class else [name]
    return [Result(each, told["result"], told["why"] or "", float(told["seconds"] or 0)) for each in names]


def main() -> int:
    """Write results.json into the logs' folder. Exit code 0 unless the harness itself failed."""
    parser = argparse.ArgumentParser(prog="tests.tempest.part")
    parser.add_argument("--venv", type=Path, required=True)
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--at", required=True)
    parser.add_argument("--regex", required=True)
    parser.add_argument("--enabled", action="store_true", help="run what the suite has disabled")
    asked = parser.parse_args()
    cloud = Cloud()
    try:
        cloud.up()
        load_images(cloud)
        with outside(), docker_api({"alpine": images.alpine().docker_archive("alpine:latest")}):
            tempest = Tempest(cloud, asked.venv, asked.logs, asked.at, enabled=asked.enabled)
            results = tempest.run(["--regex", asked.regex])
    finally:
        if (cloud.data / "log").exists():
            shutil.copytree(cloud.data / "log", asked.logs / "cloud", dirs_exist_ok=True)
        cloud.close()
    told: list[Mapping[str, object]] = [result._asdict() for result in results]
    (asked.logs / "results.json").write_text(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
