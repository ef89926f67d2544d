#!/usr/bin/env bash
# Installs what is missing: Debian packages, the virtual environment, and askos on the PATH. Quick when nothing is.
# With --dev also what the tests and checks need.
. "$(dirname "$0")/common.sh"
need_root "install packages"

packages=(containerd runc nftables iproute2 busybox-static python3 python3-venv ca-certificates)
lock=requirements.lock
if [ "${1:-}" = --dev ]; then
  packages+=(docker-registry debootstrap util-linux procps wrk)
  lock=requirements-dev.lock
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  say "installing Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # Packages that start services must not: Askos runs its own containerd.
  policy=/usr/sbin/policy-rc.d made_policy=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    made_policy=1
  fi
  trap '[ -z "$made_policy" ] || rm -f "$policy"' EXIT
  log=$(mktemp)
  apt-get install -y -q --no-install-recommends "${missing[@]}" > "$log" 2>&1 ||
    { apt-get update -q > "$log" 2>&1 && apt-get install -y -q --no-install-recommends "${missing[@]}" >> "$log" 2>&1; } ||
    { tail -20 "$log" >&2; fail "apt-get could not install ${missing[*]}; its last lines are above."; }
  rm -f "$log"
  [ -z "$made_policy" ] || rm -f "$policy"
  trap - EXIT
  done_in
fi

# The first Python that is new enough and can make a virtual environment.
python=
for candidate in "${PYTHON:-}" python3 /usr/bin/python3; do
  [ -n "$candidate" ] || continue
  if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || fail "needs Python 3.11 or newer with venv. Install python3 and python3-venv, or set PYTHON."

if [ ! -x "$venv/bin/python" ]; then
  say "making the virtual environment"
  "$python" -m venv "$venv"
  done_in
fi
# The dev lock holds everything of the plain one, so that a dev environment is good for both.
want=$(sha256sum pyproject.toml requirements*.lock | sha256sum | cut -c1-40)
have=$(cat "$venv/installed" 2>/dev/null || true)
if [ "$have" != "$want $lock" ] && [ "$have" != "$want requirements-dev.lock" ]; then
  say "installing Python packages from $lock"
  log=$(mktemp)
  { "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "$lock" &&
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . ; } > "$log" 2>&1 ||
    { tail -20 "$log" >&2; fail "pip could not install the packages of $lock; its last lines are above."; }
  rm -f "$log"
  "$venv/bin/python" -m compileall -q src > /dev/null || true
  printf '%s %s\n' "$want" "$lock" > "$venv/installed"
  done_in
fi

if [ "$(readlink "$link" 2>/dev/null)" != "$venv/bin/askos" ]; then
  if [ -e "$link" ] && [ ! -L "$link" ]; then
    say "leaving $link alone, which is not ours; use $venv/bin/askos"
  else
    mkdir -p "$(dirname "$link")"
    ln -sfn "$venv/bin/askos" "$link"
  fi
fi
