"""Run the suite and tell what came of it.

`python -m tests.tempest.run --venv FOLDER [--at VERSION]… [--regex WORDS] [--results FILE]`
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.cloud_fixtures import Cloud
from tests.tempest import images
from tests.tempest.docker_api import docker_api
from tests.tempest.outside import outside

SUITE = "zun_tempest_plugin.tests.tempest.api"
VERSIONS = ("1.12", "1.40")
_LINE = re.compile(
    r"^\{\d+\} (?P<name>.+?) (?:\[(?P<seconds>[\d.]+)s\] )?\.\.\. (?P<result>ok|FAILED|SKIPPED)(?:: (?P<why>.*))?$"
)


class Result(NamedTuple):
    """What came of one test. `result` is "ok", "FAILED" or "SKIPPED"."""

    name: str
    result: str
    why: str
    seconds: float


OVERLAPPING = "test_container_network"
"""It makes a network with the first range that its own project has free, and gives up when another project has that
one; here all networks share the routing of the hosts. So it runs where no networks are made for the projects."""


def configuration(cloud: Cloud, folder: Path, version: str, *, isolated: bool) -> str:
    """tempest.conf, with credentials made for each class, and if `isolated` a network for each of these."""
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
lock_path = {folder}/lock
[auth]
use_dynamic_credentials = true
create_isolated_networks = {str(isolated).lower()}
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
[docker]
docker_remote_api_version = 1.40
api_url = tcp://127.0.0.1:2375
docker_remote_api_host = localhost
"""


def load_images(cloud: Cloud) -> None:
    """What the suite runs, onto the cloud's host."""
    for name, image in (("cirros:latest", images.cirros()), ("nginx:latest", images.nginx())):
        archive = cloud.home / "image.tar"
        archive.write_bytes(image.docker_archive(name))
        cloud.askos("image", "import", str(archive), name)
        archive.unlink()


def run(cloud: Cloud, venv: Path, folder: Path, version: str, regex: str) -> list[Result]:
    """All of one version, one test at a time. The log and every request stay in `folder`."""
    results = _run(cloud, venv, folder / "most", version, ["--regex", regex, "--exclude-regex", OVERLAPPING], True)
    results += _run(cloud, venv, folder / "network", version, ["--regex", f"(?=.*{OVERLAPPING})(?:{regex})"], False)
    if not results:
        raise SystemExit(f"askos: tempest ran no test; what it said is in {folder}")
    return results


def _run(cloud: Cloud, venv: Path, folder: Path, version: str, which: list[str], isolated: bool) -> list[Result]:
    for name in ("log", "lock", "bin"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "tempest.conf").write_text(configuration(cloud, folder, version, isolated=isolated))
    ping = folder / "bin" / "ping"
    if shutil.which("ping") is None and not ping.exists():
        ping.symlink_to(str(shutil.which("busybox")))
    env = {**cloud.env, "PATH": f"{venv}/bin:{cloud.env['PATH']}:{folder}/bin", "HOME": str(folder)}
    tempest = str(venv / "bin" / "tempest")
    work = folder / "work"
    subprocess.run([tempest, "init", str(work)], env=env, check=True, capture_output=True, timeout=120)
    command = [tempest, "run", "--config-file", str(folder / "tempest.conf"), "--serial", *which]
    results = []
    with (folder / "output.txt").open("w") as kept, subprocess.Popen(
        command, cwd=work, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            kept.write(line)
            kept.flush()
            if found := _LINE.match(line.rstrip()):
                name = found["name"].replace(f"{SUITE}.", "").split("[")[0]
                results.append(Result(name, found["result"], found["why"] or "", float(found["seconds"] or 0)))
                print(f"  {version}  {found['result']:8} {name} {found['why'] or ''}", flush=True)
    return results


def summary(version: str, results: Iterable[Result], seconds: float) -> str:
    """A section of the report."""
    by = {word: [r for r in results if r.result == word] for word in ("ok", "FAILED", "SKIPPED")}
    lines = [
        f"## From microversion {version}", "",
        f"{len(by['ok'])} passed, {len(by['FAILED'])} failed, {len(by['SKIPPED'])} skipped, in {seconds / 60:.0f} min.", "",
    ]  # fmt: skip
    for word, title in (("FAILED", "Failed"), ("ok", "Passed"), ("SKIPPED", "Skipped by the suite itself")):
        if not by[word]:
            continue
        lines += [f"{title}:", ""]
        why = {r.name: f": {r.why}" if r.why else "" for r in by[word]}
        lines += [f"* {name}{reason}" for name, reason in sorted(why.items())] + [""]
    return "\n".join(lines)


PREFACE = """\
# zun-tempest-plugin against Askos

OpenStack's own tests of Zun: zun-tempest-plugin 4.14.0 under tempest 47.0.0, unmodified, one at a time, against a
cloud of their own with identity, networks, volumes and images. `make tempest` runs them and writes this page.

One configuration cannot exercise all: at 1.12 the classes run at 1.20 and at 1.12, at 1.40 only `TestContainer` runs.
Zun itself, with Docker and the full set of OpenStack's services, passes 53 at 1.12 and 33 at 1.40.

`test_container_network` runs by itself, without the networks that tempest makes for each project: it gives up when
another project has the range that it wants, and here all networks share the routing of the hosts.

The suite pulls one image with Docker's own API and looks for Docker's networks: what it needs of that is answered by
`tests/tempest/docker_api.py`. The gateway of the external network, which it pings, is
`tests/tempest/outside.py`. The images are made from the machine's busybox and curl.

"""


def main() -> int:
    """Exit code 0 when no test failed."""
    parser = argparse.ArgumentParser(prog="make tempest")
    parser.add_argument("--venv", type=Path, required=True, help="the environment that has tempest")
    parser.add_argument("--at", action="append", help="lowest microversion; default 1.12 and then 1.40")
    parser.add_argument("--regex", default=re.escape(SUITE), help="which tests")
    parser.add_argument("--results", type=Path, help="write the results to this page")
    parser.add_argument("--keep", type=Path, help="leave logs in this folder")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="askos-tempest-")) if asked.keep is None else asked.keep.absolute()
    page, failed = PREFACE, 0
    cloud = Cloud()
    try:
        cloud.up()
        load_images(cloud)
        with outside(), docker_api({"alpine": images.alpine().docker_archive("alpine:latest")}):
            for version in asked.at or VERSIONS:
                begin = time.monotonic()
                results = run(cloud, asked.venv.absolute(), folder / version, version, asked.regex)
                text = summary(version, results, time.monotonic() - begin)
                print(text)
                page += text + "\n"
                failed += sum(r.result == "FAILED" for r in results)
    finally:
        if asked.keep is not None and (cloud.data / "log").exists():
            shutil.copytree(cloud.data / "log", folder / "cloud", dirs_exist_ok=True)
        cloud.close()
    if asked.results is not None:
        asked.results.write_text(page.rstrip() + "\n")
    if failed or asked.keep is not None:
        print(f"Logs: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
