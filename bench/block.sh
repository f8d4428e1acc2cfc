#!/bin/bash
# How fast a disk is beside qemu-storage-daemon: block.sh [--json]. docs/bench.md tells how to read it.
#
# Environment: BENCH_DISK_MIB (512), the size of the image; BENCH_KILLS (20), of the disk's process with each executor.
source "$(dirname "$0")/../tools/dev/common.sh"
source "$root/bench/lib/report.sh"
source "$root/bench/lib/block_peers.sh"

mebibytes=${BENCH_DISK_MIB:-512}
[[ $mebibytes =~ ^[1-9][0-9]*$ ]] || usage_error "bench block: BENCH_DISK_MIB is a number of MiB, not '$mebibytes'"

kills=${BENCH_KILLS:-20}
[[ $kills =~ ^[0-9]+$ ]] || usage_error "bench block: BENCH_KILLS is a number, not '$kills'"

# compare NAME CACHE_DIRECT KEYS PLACE, which is worker or here
compare() {
  local name="$1, $4" keys="path=$out/disk.img${3:+,$3}" load target rate cpu ratio low high cpu_ratio budget
  if [ "$4" = worker ]; then add_worker "$keys"; else targets=("$keys"); fi
  if ! add_daemon "$out/disk.img" raw "$2"; then
    report_skip "$name" "qemu-storage-daemon did not start on this file system"
    stop_peers
    return 0
  fi
  run_loads "$name" "$mebibytes"
  while IFS=$'\t' read -r load target rate cpu ratio low high cpu_ratio; do
    if [ "$target" = 0 ]; then
      report_value "4 KiB random $load, $name" "$rate" /s
      continue
    fi
    budget=
    case $load in "read, QD1" | "read, QD32") budget=1.0 ;; esac
    report_value "  qemu-storage-daemon" "$rate" /s
    report_value "  ratio" "$ratio" "" "$budget" "${budget:+least}" "$low" "$high"
    report_value "  ratio of CPU time a request" "$cpu_ratio" ""
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
"$root/tools/dev/build.sh" --release block_bench disk_bench restart_bench crosvm
out=$(mktemp -d "$build/bench-block.XXXXXX")
trap 'stop_peers; rm -rf "$out" "$report_rows"' EXIT
report_note "$(nproc) processors, load average at the start $(cut -d ' ' -f 1-3 /proc/loadavg)"
# Random bytes: no layer below can store them in less.
head -c "${mebibytes}M" /dev/urandom > "$out/disk.img"
"$build/release/disk_bench" settle "$out/disk.img" || die "the image cannot be read" "see the message above"
for place in worker here; do
  compare "cached" off "" $place
  compare "direct" on direct $place
done
if [ "$kills" != 0 ]; then
  stall io_uring uring
  stall threads epoll
fi
report_note "one image of $mebibytes MiB, both io_uring, driven by one thread in turns of 0.15 s; medians of 13"
report_end
