#!/usr/bin/env bash
# `make clean`: down, then remove the cloud's data, the virtual environment, caches and the link in /usr/local/bin.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
need_root clean "stops containers and removes their data"
data=$(data_folder)

# Only what Askos made, by name: somebody may have named a folder that holds more.
made=(admin-password adopted askos.db askos.db-shm askos.db-wal capsules certs.d clouds.json clouds.yaml cni containerd
  content.key first-image host-uuid image-rights.json images instance lock log openrc run server.lock tls volumes)

if [ -e "$data/instance" ]; then
  scripts/down.sh
  if grep -q " $data/" /proc/mounts; then
    die "something is still mounted below $data (see /proc/mounts), so its data was not removed. Unmount it first."
  fi
  for name in "${made[@]}"; do rm -rf --one-file-system "${data:?}/$name"; done
  if rmdir "$data" 2>/dev/null; then
    say "  removed $data"
  else
    say "  removed what Askos made in $data; what else is there was kept"
  fi
fi
link=${ASKOS_LINK:-/usr/local/bin/askos}
if [ "$(readlink "$link" 2>/dev/null)" = "$PWD/.venv/bin/askos" ]; then rm -f "$link"; fi
rm -rf .venv .tempest .functional .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
find src tests bench scripts -name __pycache__ -type d -prune -exec rm -rf {} +
