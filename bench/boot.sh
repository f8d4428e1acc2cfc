#!/bin/bash
# How fast and how small a start is: boot.sh [--json]. docs/bench.md tells how to read it.
#
# Environment: BENCH_STARTS (50) starts of a payload, BENCH_ROUNDS (5) boots a monitor, 0 to leave a part
# out; BENCH_KERNEL (vmlinuz), a file of build/images/cloud12.
source "$(dirname "$0")/../tools/dev/common.sh"
source "$root/tools/dev/where.sh"
source "$root/bench/lib/report.sh"

starts=${BENCH_STARTS:-50} rounds=${BENCH_ROUNDS:-5} kernel=${BENCH_KERNEL:-vmlinuz}
for number in "$starts" "$rounds"; do
  [[ $number =~ ^[0-9]+$ ]] || usage_error "bench boot: BENCH_STARTS and BENCH_ROUNDS are numbers, not '$number'"
done

# Exec to the first byte of a guest of three instructions, on this machine's own KVM.
native_start() {
  local name="exec to first guest instruction" copy=$build/bench/crosvm disk=$build/bench/disk.img result
  [ "$starts" -gt 0 ] || { report_skip "$name" "BENCH_STARTS is 0"; return 0; }
  if ! (exec 3<>/dev/kvm) 2>/dev/null; then
    report_skip "$name" "/dev/kvm does not open; crosvm doctor tells why"
    return 0
  fi
  say "$starts starts of a payload"
  # A copy: pages that another crosvm shares would count in part only.
  mkdir -p "${copy%/*}"
  cp "$build/release/crosvm" "$copy"
  truncate -s 64M "$disk"
  local base=(run -m 512 --serial type=stdout,hardware=debugcon --serial type=sink,num=1)
  local devices=(--block "$disk" --serial type=sink,hardware=virtio-console,num=1)
  for with in "no devices" "block, console, rng" "the same without sandbox"; do
    local flags=("${base[@]}")
    case $with in
      "no devices") flags+=(--no-rng) ;;
      "block, console, rng") flags+=("${devices[@]}") ;;
      *) flags+=("${devices[@]}" --disable-sandbox) ;;
    esac
    result=$("$build/release/start_bench" "$starts" "$copy" "${flags[@]}" "$build/release/payload/payload_spin") ||
      die "the payload did not start" "see the message above, and crosvm doctor"
    report_value "$name, $with, CPU, median of $starts" "$(field cpu_ms <<<"$result")" ms 8
    report_value "$name, $with, wall, median of $starts" "$(field wall_ms <<<"$result")" ms 15
    report_value "$name, $with, wall, fastest" "$(field wall_ms_min <<<"$result")" ms
    report_value "memory beside guest RAM (PSS), $with" "$(field beside_ram_kib <<<"$result")" KiB 5120
  done
}

# Exec to the guest's init, beside QEMU.
boot_beside_peers() {
  local out=$build/bench/boot file=$images/cloud12/$kernel initrd=$images/cloud12/initrd
  local disk=$images/root/debian12.img
  local name="exec to guest init" place status=0 monitor
  [ "$rounds" -gt 0 ] || { report_skip "$name" "BENCH_ROUNDS is 0"; return 0; }
  "$root/tools/dev/images.sh" cloud12
  [ -e "$file" ] || usage_error "bench boot: BENCH_KERNEL names no file of build/images/cloud12: '$kernel'"
  rm -rf "$out"
  mkdir -p "$out"
  say "$rounds boots each of crosvm, crosvm --hugepages, QEMU microvm and QEMU q35, the first and the last also with a root disk"
  if runs_guests_here; then
    "$root/tools/dev/install.sh" testhost
    place="this machine's KVM"
    PATH=$build/release:$PATH "$root/bench/lib/boot_peers.sh" "$rounds" "$file" "$initrd" "$disk" "$out" || status=$?
  else
    place="one test host: only the ratios mean something"
    "$root/tools/testhost/run.sh" --timeout $((rounds * 6 * 125 + 300)) --out "$out" -- \
      "$root/bench/lib/boot_peers.sh" "$rounds" "$file" "$initrd" "$disk" /out >&2 || status=$?
  fi
  [ "$status" = 0 ] || die "the boots ended with status $status" "see the messages above"

  declare -A wall
  for monitor in crosvm crosvm-hugepages microvm q35 crosvm-disk q35-disk; do
    [ -s "$out/$monitor.json" ] || die "no boot of $monitor reached the guest's init" "see the messages above"
    wall[$monitor]=$(field wall_ms < "$out/$monitor.json" | median)
    report_value "$name, $monitor, wall, median of $(wc -l < "$out/$monitor.json")" "${wall[$monitor]}" ms
  done
  report_value "$name, crosvm / QEMU microvm" "$(ratio "${wall[crosvm]}" "${wall[microvm]}")" "" 0.7
  report_value "$name, crosvm --hugepages / QEMU microvm" "$(ratio "${wall[crosvm-hugepages]}" "${wall[microvm]}")" ""
  report_value "$name, crosvm / QEMU q35" "$(ratio "${wall[crosvm]}" "${wall[q35]}")" ""
  report_value "exec to login from the root disk, crosvm / QEMU q35" \
    "$(ratio "${wall[crosvm-disk]}" "${wall[q35-disk]}")" ""
  report_note "guest init: cloud12 $kernel, 1 vCPU, 512 MiB, in $place"
  [ ! -e "$out/failed" ] || report_note "boots that did not reach init: $(sort "$out/failed" | uniq -c | xargs)"
}

binary_size() {
  local stripped bytes
  stripped=$(mktemp)
  strip -o "$stripped" "$build/release/crosvm"
  bytes=$(stat -c %s "$stripped")
  rm -f "$stripped"
  report_value "crosvm binary, stripped" "$(awk -v b="$bytes" 'BEGIN { printf "%.2f", b / 1e6 }')" MB 4
}

report_begin boot "$@"
"$root/tools/dev/build.sh" --release crosvm start_bench payload_spin
# What else the machine does is in the wall times.
report_note "$(nproc) processors, load average at the start $(cut -d ' ' -f 1-3 /proc/loadavg)"
native_start
boot_beside_peers
binary_size
report_end
