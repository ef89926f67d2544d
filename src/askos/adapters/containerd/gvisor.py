"""gVisor's runsc behind containerd's own shim for runc.

runsc has runc's command line, and most of what that shim asks of an OCI runtime works as it is. gVisor differs in
that all containers of a sandbox live in one process of the host: the shim would take the end of that for the end of
each container, and a container's streams are handed over when it starts, not when it is made. The program written
here stands between the two. For each container but the sandbox's own it keeps a *stand-in*: a process of the host
that holds the container's streams from create to start, then waits for the container and ends with its exit code.
Its id is what the shim is told.

Limits of CPU and memory hold for the sandbox as a whole, through the capsule's control group.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

HANDLER = "runsc"
_MODE = 0o755

# Beside a container's log.json, in its bundle: askos.pid names the stand-in, askos.go is the pipe that it waits at
# for the start; askos.started is there once it has been started, and askos.end holds what runsc says of its end.
_PROGRAM = r"""#!/bin/sh
# Written by askos at each start; changes made here are lost.
# Makes gVisor's runsc fit containerd's shim for runc. $1 and on: what that shim asks of runc.
runsc=@RUNSC@
# The sandbox's network namespace is used as it is: so addresses, probes and port forwarding work as with runc.
flags='--network=host'

command='' id='' last='' root='' log='' bundle='' pid_file='' process='' console='' next=''
for word; do
  case $next in
    '') ;;
    skip) next=''; continue ;;
    *) eval "$next=\$word"; next=''; continue ;;
  esac
  case $word in
    --root) next=root ;;
    --log) next=log ;;
    --bundle) next=bundle ;;
    --pid-file) next=pid_file ;;
    --process) next=process ;;
    --console-socket) next=console ;;
    --log-format | --criu) next=skip ;;
    -*) ;;
    *) if [ -z "$command" ]; then command=$word; elif [ -z "$id" ]; then id=$word; else last=$word; fi ;;
  esac
done
here=${log%/*}

quietly() { "$runsc" $flags --root "$root" --log /dev/null "$@"; }

# The id of the stand-in, if it lives. Ids are used again by the kernel, so its command line is looked at.
stand_in() {
  read -r pid 2>/dev/null <"$here/askos.pid" && grep -q "$id" "/proc/$pid/cmdline" 2>/dev/null && echo "$pid"
}

# The container does not run: its stand-in is about to tell how it ended, or waits for what will never come.
end_stand_in() {
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    pid=$(stand_in)
    [ -n "$pid" ] || return 0
    sleep 0.05
  done
  kill -9 "$pid" 2>/dev/null
}

# Put this process, and so its children, into all control groups of process $1.
join_groups_of() {
  while IFS=: read -r _ controllers path; do
    case $controllers in
      '') folder=/sys/fs/cgroup; [ -d $folder/unified ] && folder=$folder/unified ;;
      *) folder=/sys/fs/cgroup/${controllers#name=} ;;
    esac
    echo $$ 2>/dev/null >"$folder$path/cgroup.procs"
  done <"/proc/$1/cgroup"
}

case $command in
  create)
    "$runsc" $flags "$@" || exit
    grep -q '"io.kubernetes.cri.container-type": *"container"' "$bundle/config.json" || exit 0
    # So that use and lack of memory are counted where they happen.
    join_groups_of "$(cat "$pid_file")" 2>/dev/null
    rm -f "$here/askos.go" "$here/askos.started"
    mkfifo -m 600 "$here/askos.go" || exit
    # With a terminal the streams here are the shim's own, and it waits for their end.
    [ -n "$console" ] && exec </dev/null >/dev/null 2>&1
    # Open for both, so that nothing waits here and a start that comes early is not lost.
    exec 3<&0 4<>"$here/askos.go"
    (
      # A signal before the start ends this process, as it would end the container.
      read -r _ <&4
      exec </dev/null >/dev/null 2>&1 4<&-
      quietly wait "$id" >"$here/askos.end"
      # {"id":"…","exitStatus":3}. Without an answer the sandbox has gone, and took the container with it.
      answer='' && read -r answer <"$here/askos.end"
      code=${answer##*exitStatus\":}
      code=${code%%[!0-9]*}
      exit "${code:-137}"
    ) <&3 3<&- &
    echo $! >"$here/askos.pid" && printf %s $! >"$pid_file"
    ;;
  start)
    if [ ! -e "$here/askos.pid" ]; then
      exec "$runsc" $flags "$@" </dev/null >/dev/null 2>&1
    fi
    pid=$(stand_in)
    if [ -z "$pid" ]; then
      echo 'container not running' >&2
      exit 1
    fi
    : >"$here/askos.started"
    if ! "$runsc" $flags "$@" <"/proc/$pid/fd/0" >>"/proc/$pid/fd/1" 2>>"/proc/$pid/fd/2"; then
      rm -f "$here/askos.started"
      exit 1
    fi
    echo go 1<>"$here/askos.go"
    ;;
  kill)
    if [ -e "$here/askos.pid" ] && [ ! -e "$here/askos.started" ]; then
      pid=$(stand_in)
      [ -n "$pid" ] && kill "-$last" "$pid" 2>/dev/null && exit 0
      echo 'container not running' >&2
      exit 1
    fi
    # A start that was broken off has left the stand-in without its word.
    [ -e "$here/askos.pid" ] && echo go 1<>"$here/askos.go"
    said=$("$runsc" $flags "$@" 2>&1) && exit 0
    case $(quietly state "$id" 2>/dev/null) in
      *'"running"'*) ;;
      *)
        said='container not running'
        case $last in 9 | KILL | SIGKILL) end_stand_in ;; esac
        ;;
    esac
    printf '%s\n' "$said" >&2
    exit 1
    ;;
  delete)
    "$runsc" $flags "$@"
    code=$?
    pid=$(stand_in)
    [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null
    exit $code
    ;;
  exec)
    # The shim signals the process of the host that waits for the one inside; when that is killed, nobody tells the
    # sandbox. So it is given the writing end of a pipe, whose end a watcher waits for.
    mark=$here/askos.exec.$$
    mkfifo -m 600 "$mark.end" || exit
    exec 5<>"$mark.end" 6>"$mark.end" 7<"$mark.end" 5<&-
    rm -f "$mark.end"
    set -- --process "$process" --detach --pid-file "$pid_file" --internal-pid-file "$mark.pid" \
      ${console:+--console-socket "$console"} "$id"
    if ! "$runsc" $flags --root "$root" --log "$log" --log-format json exec "$@" 7<&-; then
      rm -f "$mark.pid"
      exit 1
    fi
    (
      exec </dev/null >/dev/null 2>&1 6>&-
      read -r _ <&7
      quietly kill --pid "$(cat "$mark.pid")" "$id" 9
      rm -f "$mark.pid"
    ) &
    ;;
  update)
    # A container has no limits of its own here.
    ;;
  *)
    exec "$runsc" $flags "$@"
    ;;
esac
"""


def installed() -> Path | None:
    """Where runsc is on this machine; None when it is not."""
    found = shutil.which("runsc")
    return Path(found) if found else None


def write_program(path: Path, runsc: Path) -> None:
    """Write the program that containerd calls in runsc's place."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(_PROGRAM.replace("@RUNSC@", shlex.quote(str(runsc))))
    new.chmod(_MODE)
    new.replace(path)


def container_of(record: Path) -> str:
    """The id of the container that one of the files in runsc's root is about."""
    return record.name.partition("_sandbox:")[0]
