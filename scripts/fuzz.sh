#!/usr/bin/env bash
# `make fuzz`: schemathesis asks a cloud of its own everything that its OpenAPI document describes, for two minutes.
# Arguments are those of tests/fuzz/run.py, such as --seconds 600.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
need_root fuzz "starts a cloud"
scripts/install.sh --dev

venv=.fuzz
pinned="schemathesis==4.32.5"
if [ "$(cat $venv/.installed 2>/dev/null)" != "$pinned" ]; then
  step "making a virtual environment with schemathesis" -- .venv/bin/python -m venv --clear $venv
  step "installing $pinned" -- $venv/bin/python -m pip --disable-pip-version-check --no-input --quiet install $pinned ||
    die "pip could not install schemathesis; what it said is above."
  printf '%s' "$pinned" > $venv/.installed
fi

for name in $(compgen -e | grep -E '^(OS_|ASKOS_)' || true); do unset "$name"; done
exec .venv/bin/python -m tests.fuzz.run --schemathesis "$PWD/$venv/bin/schemathesis" "$@"
