#!/usr/bin/env bash
# `make down` and `make clean` (--clean): stop the cloud; clean also removes its data and what install.sh made here.
. "$(dirname "$0")/common.sh"
if [ -x "$venv/bin/askos" ] && [ -d "$ASKOS_DATA" ]; then
  "$venv/bin/askos" down
fi
if [ "${1:-}" = --clean ]; then
  case $ASKOS_DATA in
    /|/var|/var/lib|/usr|/home|/root|/tmp|"$HOME") fail "will not remove $ASKOS_DATA" ;;
  esac
  if [ -e "$ASKOS_DATA" ]; then
    [ -e "$ASKOS_DATA/instance" ] || [ -z "$(ls -A "$ASKOS_DATA")" ] ||
      fail "will not remove $ASKOS_DATA: it does not look like a cloud's data folder."
    rm -rf --one-file-system -- "$ASKOS_DATA"
  fi
  if [ "$(readlink "$link" 2>/dev/null)" = "$venv/bin/askos" ]; then rm -f "$link"; fi
  rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
  find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
fi
