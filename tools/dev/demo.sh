#!/bin/bash
# Boots Debian from its disk in crosvm: its console is ours, or with --headless runs one command.
source "$(dirname "$0")/common.sh"
source "$root/tools/dev/where.sh"

headless='' run='' kernel=cloud12 testhost=''
while [ $# -gt 0 ]; do
  case $1 in
    --headless) needs_value "$1" $#; headless=yes; run=$2; shift 2 ;;
    --kernel) needs_value "$1" $#; kernel=$2; shift 2 ;;
    --testhost) testhost=yes; shift ;;
    *) usage_error "demo: unknown option '$1'" ;;
  esac
done

"$root/tools/dev/build.sh" --release crosvm agent_run
"$root/tools/dev/images.sh" "$kernel"

disk=$images/root/debian12.img
scratch=$(mktemp -d "$build/demo.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
arguments=("$images/$kernel" "$scratch/disk")
here=("$root/tools/dev/demo_guest.sh")
if [ -n "$testhost" ] || ! runs_guests_here; then
  # The disk is one of the test host's own there, writable, and what is written is lost.
  here=("$root/tools/testhost/run.sh" --disk "$disk" --out "$scratch")
  arguments=("$images/$kernel" /dev/vdb)
  if [ -n "$headless" ]; then here+=(--timeout 600); else here+=(--timeout 0 --interactive); fi
  here+=(-- "$root/tools/dev/demo_guest.sh")
else
  export PATH=$build/release:$PATH
  cp --reflink=auto --sparse=always "$disk" "$scratch/disk"  # the demo cannot spoil the next one
fi

if [ -z "$headless" ]; then
  say "booting; log in as root, without a password. poweroff or Ctrl-A x ends the VM"
  status=0
  "${here[@]}" "${arguments[@]}" || status=$?
  exit "$status"
fi

log=$scratch/console.log
[[ ${arguments[1]} != /dev/* ]] || log=/out/console.log
status=0
"${here[@]}" "${arguments[@]}" "$log" "$run" </dev/null || status=$?
cp "$scratch/console.log" "$build/demo-console.log" 2>/dev/null || true
if [ "$status" = 125 ]; then
  tail -n 15 "$build/demo-console.log" >&2 || true
  say "125 may be the command's own status; if it did not run, see the guest's console, build/demo-console.log"
fi
exit "$status"
