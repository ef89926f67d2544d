#!/usr/bin/env bash
# `make lint`: style, types, import contracts, and that nothing generated or pinned has drifted.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
say "== lint"
export PATH=$PWD/.venv/bin:$PATH
ruff check --quiet src tests bench scripts
ruff format --quiet --check src tests bench scripts || die "some files are not formatted: run \`make format\`."
mypy --no-error-summary
lint-imports --no-logo >/tmp/askos-imports.$$ 2>&1 || { cat /tmp/askos-imports.$$; rm -f /tmp/askos-imports.$$; exit 1; }
rm -f /tmp/askos-imports.$$
scripts/protos.sh --check
python scripts/check_locks.py
python scripts/check_migrations.py
