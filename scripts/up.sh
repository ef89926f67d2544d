#!/usr/bin/env bash
# `make up`: install what is missing, start the cloud, run a first container, say what to do next.
. "$(dirname "$0")/common.sh"
need_root "run containers"
"$root/scripts/install.sh"
askos=$venv/bin/askos

say "starting Askos on $ASKOS_DATA"
"$askos" up --detach
done_in

if ! "$askos" show hello > /dev/null 2>&1; then
  say "running a first container: askos run --name hello busybox echo ..."
  "$askos" run --name hello busybox echo "Hello from a container on Askos" > /dev/null
  done_in
fi
say "its log: askos logs hello"
"$askos" logs hello | sed 's/^/    /'

url=$(sed -n "s/^export OS_AUTH_URL=['\"]\?\([^'\"]*\)['\"]\?$/\1/p" "$ASKOS_DATA/openrc")
first=
[ "$ASKOS_DATA" = /var/lib/askos ] || first="
    export ASKOS_DATA=$ASKOS_DATA"
cat <<EOF

  Askos runs.
    API          ${url%/identity/v3}
    clouds.yaml  $ASKOS_DATA/clouds.yaml
    openrc       $ASKOS_DATA/openrc

  Try next:$first
    askos run -d --name web busybox httpd -f -p 80
    askos ps
    askos exec -it web sh

  OpenStack clients:  eval "\$(askos env)"
  Stop:               make down
EOF
