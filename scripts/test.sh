#!/usr/bin/env bash
# `make test`: install what the tests need, then lint and every test. Arguments go to pytest.
. "$(dirname "$0")/common.sh"
need_root "run the tests, which run real containers"
"$root/scripts/install.sh" --dev
if [ $# -eq 0 ]; then
  scripts/lint.sh
  set -- tests
fi
say "pytest $*"
exec "$venv/bin/pytest" -q "$@"
