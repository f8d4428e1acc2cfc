#!/bin/bash
# What the formats of disks cost: disk.sh [--json]. docs/bench.md tells how to read it.
#
# Environment: BENCH_DISK_MIB (512), the size of the images; BENCH_DISK_PARTS ("device zstd lookup checks"),
# what is measured.
source "$(dirname "$0")/../tools/dev/common.sh"
source "$root/bench/lib/report.sh"
source "$root/bench/lib/block_peers.sh"

mebibytes=${BENCH_DISK_MIB:-512} parts=" ${BENCH_DISK_PARTS:-device zstd lookup checks} "
[[ $mebibytes =~ ^[1-9][0-9]*$ ]] || usage_error "bench disk: BENCH_DISK_MIB is a number of MiB, not '$mebibytes'"

# compare NAME [PEER BUDGET]...: the first target that was added, beside each other one.
compare() {
  local name=$1 load target rate cpu ratio low high cpu_ratio
  local peers_of=("${@:2}")
  run_loads "$name" "$mebibytes"
  while IFS=$'\t' read -r load target rate cpu ratio low high cpu_ratio; do
    if [ "$target" = 0 ]; then
      report_value "${name/,/, 4 KiB random $load,}" "$rate" /s
      report_value "  CPU time a request" "$cpu" us
    else
      report_value "  / ${peers_of[2 * target - 2]}" "$ratio" "" "${peers_of[2 * target - 1]}" least "$low" "$high"
      report_value "  CPU time / ${peers_of[2 * target - 2]}" "$cpu_ratio" ""
    fi
  done < "$out/result"
}

bench_device() {
  # Random bytes: no layer below can store them in less.
  head -c "${mebibytes}M" /dev/urandom > "$out/disk.img"
  "$build/release/crosvm" disk convert "$out/disk.img" "$out/disk.qcow2" >&2
  # By direct I/O it counts for more where on the host's disk a file lies than what it is: two raw files may differ
  # twofold. So there the bytes of both are the same, in the raw file, which the qcow2 image names.
  qemu-img create -q -f qcow2 -o "data_file=$out/disk.img,data_file_raw=on,preallocation=metadata" "$out/named.qcow2" \
    "${mebibytes}M"
  head -c "${mebibytes}M" /dev/urandom | dd of="$out/disk.img" bs=1M iflag=fullblock conv=notrunc status=none
  "$build/release/disk_bench" settle "$out"/disk.img "$out"/*.qcow2 || die "the files cannot be read" "see the message above"

  local raw="path=$out/disk.img,lock=false" daemon="qemu-storage-daemon"
  add_worker "path=$out/disk.qcow2"
  add_worker "$raw"
  if add_daemon "$out/disk.qcow2" qcow2 off; then
    compare "qcow2, cached" "our raw" 0.9 $daemon 1.0
  else
    report_skip "qcow2, cached / $daemon" "it did not start on this file system"
    stop_peers
  fi
  add_worker "path=$out/named.qcow2,lock=false,direct"
  add_worker "$raw,direct"
  compare "qcow2 of a raw data file, direct" "our raw" 0.9
  add_worker "path=$out/disk.qcow2,direct"
  if add_daemon "$out/disk.qcow2" qcow2 on; then
    compare "qcow2, direct" $daemon 1.0
  else
    report_skip "qcow2, direct / $daemon" "it did not start on this file system"
    stop_peers
  fi
  "$build/release/crosvm" disk check "$out/disk.qcow2" >&2 || die "the benchmark damaged its image" "report it"
  rm -f "$out"/*.img "$out"/*.qcow2
}

bench_zstd() {
  local ours theirs cpu their_cpu ratio low high cpu_ratio cpu_low cpu_high
  # Files as they are on disks; what is at hand.
  tar cf - --ignore-failed-read -C / usr/lib usr/share 2>/dev/null | head -c "${mebibytes}M" > "$out/files.img" || true
  truncate -s %4096 "$out/files.img"
  "$build/release/crosvm" disk convert "$out/files.img" "$out/files.zst" >&2
  rm -f "$out/files.img"
  say "zstd: 9 rounds"
  IFS=$'\t' read -r ours theirs cpu their_cpu ratio low high cpu_ratio cpu_low cpu_high \
    < <("$build/release/disk_bench" zstd "$out/files.zst" 9) || die "the benchmark ended early" "see the message above"
  report_value "zstd, seekable, from start to end" "$ours" MiB/s
  report_value "  zstd -d" "$theirs" MiB/s
  report_value "  / zstd -d" "$ratio" "" 0.65 least "$low" "$high"
  report_value "  work for a second of CPU / zstd -d" "$cpu_ratio" "" 0.65 least "$cpu_low" "$cpu_high"
  rm -f "$out/files.zst"
}

# make_sizes: the images of lookup and checks.
sizes=(1G 16G 256G 8T)
make_sizes() {
  local size
  for size in "${sizes[@]}"; do
    [ -e "$out/$size.qcow2" ] || "$build/release/crosvm" create_qcow2 "$out/$size.qcow2" "$(numfmt --from=iec "$size")" >&2
  done
}

bench_lookup() {
  local i found warm cold first_found first_warm first_cold
  make_sizes
  say "lookup: 9 rounds"
  "$build/release/disk_bench" lookup 9 "${sizes[@]/*/$out/&.qcow2}" > "$out/result" ||
    die "the benchmark ended early" "see the message above"
  for ((i = 0; i < ${#sizes[@]}; i++)); do
    IFS=$'\t' read -r found warm cold
    if [ "$i" = 0 ]; then
      first_found=$found first_warm=$warm first_cold=$cold
    fi
    report_value "lookup in memory, ${sizes[i]}iB, CPU time" "$found" ns
    report_value "  / 1 GiB" "$(ratio "$found" "$first_found")" "" 1.5
    report_value "  read of 4 KiB, CPU time" "$warm" ns
    report_value "  / 1 GiB" "$(ratio "$warm" "$first_warm")" "" 1.2
    report_value "  read of 4 KiB with its table, CPU time" "$cold" ns
    report_value "  / 1 GiB" "$(ratio "$cold" "$first_cold")" "" 1.2
  done < "$out/result"
}

bench_checks() {
  local write check share low high
  make_sizes
  "$build/release/disk_bench" lookup 1 "$out/8T.qcow2" > /dev/null
  say "checks: 9 rounds"
  IFS=$'\t' read -r write check share low high < <("$build/release/disk_bench" checks 9 "$out/8T.qcow2") ||
    die "the benchmark ended early" "see the message above"
  report_value "write of 4 KiB in place, 8 TiB, CPU time" "$write" ns
  report_value "  overlap check, CPU time" "$check" ns
  report_value "  share of the write" "$share" % 2 most "$low" "$high"
}

report_begin disk "$@"
"$root/tools/dev/install.sh" testhost boot test
"$root/tools/dev/build.sh" --release block_bench disk_bench crosvm
out=$(mktemp -d "$build/bench-disk.XXXXXX")
trap 'stop_peers; rm -rf "$out" "$report_rows"' EXIT
report_note "$(nproc) processors, load average at the start $(cut -d ' ' -f 1-3 /proc/loadavg)"
for part in device zstd lookup checks; do
  [[ $parts != *" $part "* ]] || "bench_$part"
done
report_note "images of $mebibytes MiB; requests driven by one thread, jailed workers, in turns of 0.15 s; medians of 13"
report_end
