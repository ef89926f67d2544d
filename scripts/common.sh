# What the scripts share. Sourced from the repository's root.
# shellcheck shell=bash

say() { printf '%s\n' "$*"; }

# One line, and out.
die() {
  printf 'askos: %s\n' "$*" >&2
  exit 1
}

need_root() {
  [ "$(id -u)" = 0 ] || die "\`make $1\` must be run as root: it $2. Try \`sudo make $1\`."
}

# step WORDS... -- COMMAND...: says what is done, does it, and says how long it took. Output is shown only if it fails.
step() {
  local words=() begin output
  while [ "$1" != -- ]; do words+=("$1"); shift; done
  shift
  printf '  %s ... ' "${words[*]}"
  begin=$(date +%s%N)
  if output=$("$@" 2>&1); then
    printf '%s\n' "$(since "$begin")"
  else
    printf 'failed\n%s\n' "$output" >&2
    return 1
  fi
}

# since NANOSECONDS: "1.2 s"
since() {
  local tenths=$((($(date +%s%N) - $1) / 100000000))
  printf '%d.%d s' $((tenths / 10)) $((tenths % 10))
}

data_folder() { printf '%s' "${ASKOS_DATA:-/var/lib/askos}"; }
