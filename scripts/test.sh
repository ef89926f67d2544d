#!/usr/bin/env bash
# `make test`: lint, then the tests in `tests/`, quick ones first. With names of test folders: only those.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
begin=$(date +%s%N)
if [ $# = 0 ] && [ "$(id -u)" != 0 ]; then
  die "\`make test\` must be run as root: it starts containers. \`make lint unit\` need not."
fi
scripts/install.sh --dev

# No variable of the caller's shell may lead a test to another cloud.
for name in $(compgen -e | grep -E '^(OS_|ASKOS_)' || true); do unset "$name"; done

if [ $# = 0 ]; then
  scripts/lint.sh
  set -- unit conformance integration acceptance
fi
for suite in "$@"; do
  suite_begin=$(date +%s%N)
  say "== $suite"
  # Most of a test on real containers is waiting for them: side by side costs little. Each worker has a cloud of its own, and a
  # module stays on one.
  case $suite in
    unit) spread=(-n 2 --dist worksteal) ;;
    *) spread=(-n 3 --dist loadfile) ;;
  esac
  # Short tracebacks: what is kept of a long output is often only its end, and the error stands there.
  .venv/bin/python -m pytest -q --tb=short "${spread[@]}" "tests/$suite"
  say "== $suite: $(since "$suite_begin")"
done
say "== all passed: $(since "$begin")"
