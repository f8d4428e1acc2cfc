#!/bin/bash
# How fast a disk is beside qemu-storage-daemon: block.sh [--json]. docs/bench.md tells how to read it.
#
# Environment: BENCH_DISK_MIB (512), the size of the image; BENCH_KILLS (20), of the disk's process with each executor.
source "$(dirname "$0")/../tools/dev/common.sh"
source "$root/bench/lib/report.sh"

mebibytes=${BENCH_DISK_MIB:-512}
[[ $mebibytes =~ ^[1-9][0-9]*$ ]] || usage_error "bench block: BENCH_DISK_MIB is a number of MiB, not '$mebibytes'"

kills=${BENCH_KILLS:-20}
[[ $kills =~ ^[0-9]+$ ]] || usage_error "bench block: BENCH_KILLS is a number, not '$kills'"

peer='' worker=''
stop_peer() {
  local each
  for each in $peer $worker; do { kill "$each" && wait "$each"; } 2>/dev/null || true; done
  peer='' worker=''
}

# wait_for_socket PID SOCKET
wait_for_socket() {
  local tries
  for ((tries = 0; tries < 100; ++tries)); do
    [ -S "$2" ] && return 0
    kill -0 "$1" 2>/dev/null || break
    sleep 0.1
  done
  return 1
}

# Starts the peer on the image; CACHE_DIRECT is on or off.
start_peer() {
  rm -f "$out/socket"
  qemu-storage-daemon \
    --blockdev "driver=file,node-name=file,filename=$out/disk.img,cache.direct=$1,aio=io_uring,locking=off" \
    --blockdev driver=raw,node-name=disk,file=file \
    --export "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=$out/socket,writable=on,num-queues=4" \
    >&2 &
  peer=$!
  wait_for_socket "$peer" "$out/socket"
}

# Our device in a jailed process of its own, on the image with KEYS.
start_worker() {
  rm -f "$out/worker"
  "$build/release/crosvm" --no-syslog devices --block "vhost=$out/worker,path=$out/disk.img${1:+,$1}" >&2 &
  worker=$!
  wait_for_socket "$worker" "$out/worker"
}

# compare NAME CACHE_DIRECT KEYS PLACE, which is worker or here
compare() {
  local name="$1, $4" load ours theirs ratio budget socket=()
  start_peer "$2" || { report_skip "$name" "qemu-storage-daemon did not start on this file system"; stop_peer; return 0; }
  if [ "$4" = worker ]; then
    start_worker "$3" || die "crosvm devices did not start" "see the message above"
    socket=("$out/worker")
  fi
  say "$name: 8 loads, 5 rounds each"
  "$build/release/block_bench" "$out/disk.img" "$out/socket" "$3" "${socket[@]}" > "$out/result" ||
    die "the benchmark ended early" "see the message above"
  stop_peer
  while IFS=$'\t' read -r load ours theirs ratio; do
    budget=
    case $load in "read, QD1" | "read, QD32") budget=1.0 ;; esac
    report_value "4 KiB random $load, $name" "$ours" /s
    report_value "  qemu-storage-daemon" "$theirs" /s
    report_value "  ratio" "$ratio" "" $budget ${budget:+least}
  done < "$out/result"
}

# stall NAME EXECUTOR: how long a disk whose process is killed stands still.
stall() {
  local middle longest
  say "restart, $1: $kills kills"
  "$build/release/restart_bench" "$out/disk.img" "async-executor=$2" "$kills" > "$out/result" ||
    die "the benchmark ended early" "see the message above"
  IFS=$'\t' read -r middle longest < "$out/result"
  report_value "stall of a disk whose process is killed, $1, median" "$middle" ms
  report_value "  longest of $kills" "$longest" ms
}

report_begin block "$@"
"$root/tools/dev/install.sh" testhost
"$root/tools/dev/build.sh" --release block_bench restart_bench crosvm
out=$(mktemp -d "$build/bench-block.XXXXXX")
trap 'stop_peer; rm -rf "$out" "$report_rows"' EXIT
report_note "$(nproc) processors, load average at the start $(cut -d ' ' -f 1-3 /proc/loadavg)"
# Random bytes: no layer below can store them in less.
head -c "${mebibytes}M" /dev/urandom > "$out/disk.img"
for place in worker here; do
  compare "cached" off "" $place
  compare "direct" on direct $place
done
if [ "$kills" != 0 ]; then
  stall io_uring uring
  stall threads epoll
fi
report_note "one image of $mebibytes MiB, both io_uring, driven by one thread in turns of 0.4 s; medians of 5"
report_end
