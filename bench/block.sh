#!/bin/bash
# How fast a disk is beside qemu-storage-daemon: block.sh [--json]. docs/bench.md tells how to read it.
#
# Environment: BENCH_DISK_MIB (512), the size of the image.
source "$(dirname "$0")/../tools/dev/common.sh"
source "$root/bench/lib/report.sh"

mebibytes=${BENCH_DISK_MIB:-512}
[[ $mebibytes =~ ^[1-9][0-9]*$ ]] || usage_error "bench block: BENCH_DISK_MIB is a number of MiB, not '$mebibytes'"

peer=
stop_peer() {
  [ -z "$peer" ] || { kill "$peer" && wait "$peer"; } 2>/dev/null || true
  peer=
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
  local tries
  for ((tries = 0; tries < 100; ++tries)); do
    [ -S "$out/socket" ] && return 0
    kill -0 "$peer" 2>/dev/null || break
    sleep 0.1
  done
  return 1
}

# compare NAME CACHE_DIRECT KEYS
compare() {
  local name=$1 load ours theirs ratio budget
  start_peer "$2" || { report_skip "$name" "qemu-storage-daemon did not start on this file system"; stop_peer; return 0; }
  say "$name: 8 loads, 5 rounds each"
  "$build/release/block_bench" "$out/disk.img" "$out/socket" "$3" > "$out/result" ||
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

report_begin block "$@"
"$root/tools/dev/install.sh" testhost
"$root/tools/dev/build.sh" --release block_bench
out=$(mktemp -d "$build/bench-block.XXXXXX")
trap 'stop_peer; rm -rf "$out" "$report_rows"' EXIT
report_note "$(nproc) processors, load average at the start $(cut -d ' ' -f 1-3 /proc/loadavg)"
# Random bytes: no layer below can store them in less.
head -c "${mebibytes}M" /dev/urandom > "$out/disk.img"
compare "cached" off ""
compare "direct" on direct
report_note "one image of $mebibytes MiB, both io_uring, driven by one thread in turns of 0.4 s; medians of 5"
report_end
