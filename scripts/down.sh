#!/usr/bin/env bash
# `make down`: stop the cloud and its containers, and leave nothing of it but its data.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
data=$(data_folder)
need_root down "stops containers"
if ! [ -e "$data/instance" ]; then
  say "  no cloud was ever started in $data"
  exit 0
fi
if ! [ -d "$data/run" ]; then
  say "  nothing runs on $data"
  exit 0
fi
[ -x .venv/bin/askos ] || scripts/install.sh
.venv/bin/askos down --data "$data"
