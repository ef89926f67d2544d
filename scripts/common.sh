# Shared by the scripts beside it: what is said, and where things are. Source it.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
venv=$root/.venv
link=/usr/local/bin/askos
export ASKOS_DATA=${ASKOS_DATA:-/var/lib/askos}
began=$SECONDS

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
done_in() { printf '    done in %d s\n' $((SECONDS - began)); began=$SECONDS; }
fail() { printf 'askos: %s\n' "$*" >&2; exit 1; }
need_root() { [ "$(id -u)" = 0 ] || fail "must be root to $1. Try again with sudo."; }
