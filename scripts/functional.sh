#!/usr/bin/env bash
# `make functional`: python-zunclient's own functional tests, unmodified, against a cloud of their own, which goes
# afterwards. Arguments are those of tests/functional/run.py, such as --regex test_execute.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
need_root functional "starts containers"
scripts/install.sh --dev

venv=.functional
pinned="python-zunclient==5.5.0 python-openstackclient==10.5.0 tempest==47.0.0 ddt==1.7.2"
if [ "$(cat $venv/.installed 2>/dev/null)" != "$pinned" ]; then
  step "making a virtual environment with python-zunclient's tests" -- .venv/bin/python -m venv --clear $venv
  # shellcheck disable=SC2086  # four words
  step "installing $pinned" -- $venv/bin/python -m pip --disable-pip-version-check --no-input --quiet install $pinned ||
    die "pip could not install the tests; what it said is above."
  printf '%s' "$pinned" > $venv/.installed
fi

for name in $(compgen -e | grep -E '^(OS_|ASKOS_)' || true); do unset "$name"; done
exec .venv/bin/python -m tests.functional.run --venv $venv "$@"
