#!/bin/bash
# The demo's guest, where its KVM is: demo_guest.sh IMAGES DISK [LOG COMMAND]. crosvm and agent_run are in PATH.
#
# IMAGES is the folder of kernel and initrd. The guest's console is our terminal; or, with COMMAND, the guest's agent
# runs that, we print what it says, power the guest off and exit with its status; LOG gets the console, and what crosvm
# says. 125: the command did not run to its end.
set -euo pipefail

images=$1 disk=$2
crosvm=(crosvm run -m 512 -c 2 -i "$images/initrd" -p quiet --block "$disk,root" --net user)
if [ $# -eq 2 ]; then
  exec "${crosvm[@]}" --serial type=stdout,hardware=virtio-console,console,stdin "$images/vmlinuz"
fi

log=$3 command=$4
scratch=$(mktemp -d)
vm='' agent=''
cleanup() {
  [ -z "$agent" ] || kill "$agent" 2>/dev/null || true
  [ -z "$vm" ] || kill "$vm" 2>/dev/null || true
  wait
  rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# crosvm connects once, when it starts: the agent's other end is there before.
socket=$scratch/agent
agent_run --wait 300 --power-off "$socket" -- sh -c "$command" & agent=$!
until [ -S "$socket" ]; do
  kill -0 "$agent" 2>/dev/null || exit 125
  sleep 0.02
done
"${crosvm[@]}" --serial "type=file,path=$log,console" \
  --serial "type=unix-stream,path=$socket,input-unix-stream,hardware=virtio-console,name=agent,num=2" \
  "$images/vmlinuz" </dev/null >>"$log" 2>&1 & vm=$!

# A VM that does not even start never connects: then nobody comes any more.
status=0
wait -n -p first "$agent" "$vm" || status=$?
if [ "$first" = "$vm" ]; then
  vm=''
  sleep 1  # to say what it has heard
  if kill "$agent" 2>/dev/null; then exit 125; fi
  status=0
  wait "$agent" || status=$?
  exit "$status"
fi
agent=''
# The guest is powering off; one that hangs is ended.
for _ in $(seq 300); do
  kill -0 "$vm" 2>/dev/null || break
  sleep 0.1
done
exit "$status"
