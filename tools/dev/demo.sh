#!/bin/bash
# Boots a stock Debian kernel in crosvm: its console is ours, or with --headless runs one command.
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

"$root/tools/dev/build.sh" --release crosvm
"$root/tools/dev/images.sh" "$kernel"

params=quiet
if [ -n "$headless" ]; then
  encoded=$(printf '%s' "$run" | base64 -w0)
  # x86 Linux cuts its command line at 2047 bytes; crosvm's own words need some of them.
  [ ${#encoded} -le 1800 ] || die "the command for the guest is too long (${#run} bytes)" "keep it below 1350 bytes"
  params+=" crosvm.run=$encoded"
fi
arguments=(run -m 512 -c 2 -i "$images/$kernel/initrd" -p "$params" "$images/$kernel/vmlinuz")

if [ -z "$testhost" ] && runs_guests_here; then
  crosvm=("$build/release/crosvm")
else
  crosvm=("$root/tools/testhost/run.sh")
  if [ -n "$headless" ]; then crosvm+=(--timeout 600); else crosvm+=(--timeout 0 --interactive); fi
  crosvm+=(-- crosvm)
fi

if [ -z "$headless" ]; then
  say "booting; Ctrl-A x ends the VM, leaving the shell powers it off"
  exec "${crosvm[@]}" "${arguments[@]}"
fi

console=$build/demo-console.log
status=0
"${crosvm[@]}" "${arguments[@]}" </dev/null | "$root/tools/dev/frame.sh" "$console" || status=${PIPESTATUS[1]}
if [ "$status" = 125 ] && ! grep -q "^@@crosvm-exit" "$console"; then
  tail -n 15 "$console" >&2
  die "the guest did not get to run the command" "see its console, build/demo-console.log, and crosvm doctor"
fi
exit "$status"
