#!/usr/bin/env bash
# `make fuzz`: schemathesis asks a cloud of its own everything that its OpenAPI document describes, a minute as a member
# and a minute as an administrator.
# Arguments are those of tests/fuzz/run.py, such as --seconds 600.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
need_root fuzz "starts a cloud"
scripts/install.sh --dev

for name in $(compgen -e | grep -E '^(OS_|ASKOS_)' || true); do unset "$name"; done
exec .venv/bin/python -m tests.fuzz.run "$@"
