#!/usr/bin/env bash
# Installs what is missing and nothing else: Debian packages, and the virtual environment with the pinned packages.
# With --dev, also what the tests need. Does nothing, in no time, when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

lock=requirements.lock
[ "${1:-}" = --dev ] && lock=requirements-dev.lock

packages=(containerd runc nftables iproute2 e2fsprogs busybox-static ca-certificates)
[ "$lock" = requirements-dev.lock ] && packages+=(docker-registry procps util-linux)

# Debian packages

is_installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing_packages() {
  local package
  for package in "$@"; do is_installed "$package" || printf '%s ' "$package"; done
}

# Runs in a subshell, as `step` does with all it is given.
apt_install() {
  local policy=/usr/sbin/policy-rc.d
  local get=(apt-get -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300)
  export DEBIAN_FRONTEND=noninteractive
  # What is installed must not start services: Askos runs its own containerd.
  if [ ! -e "$policy" ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
  fi
  # The lists may be there and good: updating them is slow, so try without.
  "${get[@]}" install "$@" || { apt-get -qq update && "${get[@]}" install "$@"; }
}

install_packages() {
  local missing
  if ! command -v dpkg-query >/dev/null; then
    for program in containerd runc nft ip mkfs.ext4 busybox; do
      command -v "$program" >/dev/null || die "$program is missing. Install it: only Debian's packages are known here."
    done
    return
  fi
  read -ra missing <<<"$(missing_packages "$@")"
  [ ${#missing[@]} = 0 ] && return
  [ "$(id -u)" = 0 ] || die "these Debian packages are missing: ${missing[*]}. Become root to have them installed."
  step "installing Debian packages: ${missing[*]}" -- apt_install "${missing[@]}" ||
    die "apt-get could not install ${missing[*]}; what it said is above."
}

# gVisor's runsc: hosts that have it offer it to pods that ask for it (runtimeClassName: runsc). Nothing else needs it.
install_gvisor() {
  if command -v runsc >/dev/null || [ -e .venv/.gvisor-tried ] || [ "$(id -u)" != 0 ]; then return; fi
  : > .venv/.gvisor-tried  # asking apt takes half a second
  apt-cache show runsc >/dev/null 2>&1 || return 0
  step "installing gVisor (optional)" -- apt_install runsc ||
    say "  gVisor could not be installed, so pods cannot ask for it; everything else works."
}

# Python

is_usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
    candidate=$(command -v "$candidate" 2>/dev/null) || continue
    if is_usable "$candidate"; then
      printf '%s' "$candidate"
      return
    fi
  done
  return 1
}

make_environment() {
  local python
  python=$(find_python) || die "no Python from 3.11 on was found. Install one, or name it: PYTHON=/path/to/python3."
  step "making a virtual environment with $("$python" --version)" -- "$python" -m venv --clear .venv
}

# What was installed is written down in the environment; the same words mean that there is nothing to do.
fingerprint() {
  { cat "$1" pyproject.toml; pwd; .venv/bin/python --version; } | sha256sum | cut -d' ' -f1
}

is_current() { [ "$(cat ".venv/.installed-$1" 2>/dev/null)" = "$(fingerprint "$1")" ]; }

pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input --quiet "$@"; }

find_python >/dev/null || packages+=(python3 python3-venv)
install_packages "${packages[@]}"
if ! [ -x .venv/bin/python ] || ! is_usable .venv/bin/python; then make_environment; fi
if ! is_current "$lock"; then
  count=$(grep -c '==' "$lock")
  # Not --no-deps: that a dependency is missing from the lock must come out here.
  step "installing $count pinned Python packages" -- pip install --require-hashes -r "$lock" ||
    die "pip could not install the packages of $lock; what it said is above."
  step "installing askos" -- pip install --no-deps --no-build-isolation -e . ||
    die "pip could not install askos itself; what it said is above."
  .venv/bin/python -m compileall -q src || true  # so that the first command is as quick as the second
  # The development lock holds all of the other.
  for done in requirements.lock "$lock"; do fingerprint "$done" > ".venv/.installed-$done"; done
fi

install_gvisor

# The command on the PATH: only a link of ours is replaced.
link=${ASKOS_LINK:-/usr/local/bin/askos} program=$PWD/.venv/bin/askos
if [ "$(readlink "$link" 2>/dev/null)" != "$program" ] && [ "$(id -u)" = 0 ] && [ "$lock" = requirements.lock ]; then
  case $(readlink "$link" 2>/dev/null) in
    '')
      if [ -e "$link" ]; then
        say "  $link is not ours and was left alone; use $program"
      else
        ln -s "$program" "$link"
      fi
      ;;
    */.venv/bin/askos) ln -sfn "$program" "$link" ;;
    *) say "  $link is not ours and was left alone; use $program" ;;
  esac
fi
