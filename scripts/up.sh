#!/usr/bin/env bash
# `make up`: from a clone to a running container. Run it again: it takes seconds and changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
need_root up "starts containers"
begin=$(date +%s%N)
data=$(data_folder)

say "Askos: preparing this machine"
scripts/install.sh
askos() { .venv/bin/askos --data "$data" "$@"; }

say "Askos: starting the cloud in $data"
.venv/bin/askos up --detach --data "$data"

if ! askos show hello >/dev/null 2>&1; then
  say "Askos: running a first container"
  say '  $ askos run --name hello busybox echo "Hello from Askos"'
  askos run --name hello busybox echo "Hello from Askos" >/dev/null
fi
say "The log of the container hello:"
askos logs hello | sed 's/^/  /'

url=$(sed -n 's/^export OS_AUTH_URL=//p' "$data/openrc" | tr -d "'\"")
[ "$data" = /var/lib/askos ] || other="  export ASKOS_DATA=$data    # in your shell: this is not the default cloud
"
stop="make down"
[ "$data" = /var/lib/askos ] || stop="make down DATA=$data"
cat <<SCREEN

Askos is up ($(since "$begin")).
  API          ${url%/identity/v3}
  credentials  $data/clouds.yaml and $data/openrc
Try next:
${other:-}  askos run -d --name p busybox ping 127.0.0.1
  askos logs -f p
  askos exec -it p sh
Stop it with  $stop
SCREEN
