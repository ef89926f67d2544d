#!/usr/bin/env bash
# `make tempest`: OpenStack's tests of Zun (zun-tempest-plugin) against clouds of their own, which go afterwards. What
# came of it is printed and written to docs/tempest.md. With arguments: those of tests/tempest/run.py, such as
# --at 1.40 --regex test_kill_container; the page is then left alone. Logs stay in .tempest/logs.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
need_root tempest "starts containers"
scripts/install.sh --dev

venv=.tempest
pinned="tempest==47.0.0 zun-tempest-plugin==4.14.0"
if [ "$(cat $venv/.installed 2>/dev/null)" != "$pinned" ]; then
  step "making a virtual environment with tempest" -- .venv/bin/python -m venv --clear $venv
  # shellcheck disable=SC2086  # two words
  step "installing $pinned" -- $venv/bin/python -m pip --disable-pip-version-check --no-input --quiet install $pinned ||
    die "pip could not install tempest; what it said is above."
  printf '%s' "$pinned" > $venv/.installed
fi
if ! command -v curl >/dev/null; then
  step "installing curl, which the tests run in a container" -- apt-get -y -qq --no-install-recommends install curl ||
    die "apt-get could not install curl; what it said is above."
fi

for name in $(compgen -e | grep -E '^(OS_|ASKOS_)' || true); do unset "$name"; done
[ $# != 0 ] || set -- --results docs/tempest.md
exec .venv/bin/python -m tests.tempest.run --venv $venv "$@"
