#!/usr/bin/env bash
# `make crash`: the crash tests for long. SEED, ROUNDS and SECONDS_MAX as in docs/testing.md; a failure prints its seed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
[ "$(id -u)" = 0 ] || die "\`make crash\` must be run as root: it starts containers."
export SEED=${SEED:-$RANDOM} ROUNDS=${ROUNDS:-20}
# No variable of the caller's shell may lead a test to another cloud.
for name in $(compgen -e | grep -E '^(OS_|ASKOS_)' | grep -vx ASKOS_CRASH_KEEP || true); do unset "$name"; done
say "== crash: seed $SEED, $ROUNDS rounds"
exec .venv/bin/python -m pytest -q -s --timeout "$((600 + 120 * ROUNDS))" \
  tests/acceptance/test_crash_everything.py tests/acceptance/test_capsule_crash.py tests/acceptance/test_crash.py
