#!/usr/bin/env bash
# Everything that can be checked without running the program.
. "$(dirname "$0")/common.sh"
bin=$venv/bin
say "ruff"
"$bin/ruff" check --quiet src tests bench scripts
"$bin/ruff" format --check --quiet src tests bench scripts
say "import contracts"
"$bin/lint-imports" --no-cache > /tmp/askos-imports.$$ 2>&1 || { cat /tmp/askos-imports.$$; rm -f /tmp/askos-imports.$$; exit 1; }
rm -f /tmp/askos-imports.$$
say "types"
"$bin/mypy"
say "generated code"
scripts/protos.sh --check
"$bin/python" scripts/check_migrations.py
say "lock files name no registry"
if grep -nE -- '--(index-url|extra-index-url|find-links|trusted-host)|https?://' requirements*.lock; then
  fail "a lock file names a registry: run scripts/lock.sh"
fi
