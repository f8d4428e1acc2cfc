#!/bin/bash
# How fast a network card is: net.sh [--json]. docs/bench.md tells how to read it.
#
# Environment: BENCH_NET_PARTS ("tap guests"), what is measured; BENCH_NET_SECONDS (2), of each run in guests;
# BENCH_NET_ROUNDS (9), of these; BENCH_NET_PATHS ("tap vhost-net user"), what connects them.
source "$(dirname "$0")/../tools/dev/common.sh"
source "$root/tools/dev/where.sh"
source "$root/bench/lib/report.sh"

parts=" ${BENCH_NET_PARTS:-tap guests} " seconds=${BENCH_NET_SECONDS:-2} rounds=${BENCH_NET_ROUNDS:-9}
[[ $seconds$rounds =~ ^[1-9][0-9]*$ ]] ||
  usage_error "bench net: BENCH_NET_SECONDS and BENCH_NET_ROUNDS are numbers, not '$seconds' and '$rounds'"

# rate_of WAY FRAMES BYTES: shows a rate of frames, and what it is in bits.
rate_of() {
  case $1 in
    echo*) report_value "$1, round trip, ours in a worker" "$(awk -v r="$2" 'BEGIN { printf "%.1f", 1e6 / r }')" us ;;
    *)
      report_value "$1, ours in a worker" "$2" /s
      report_value "  that is" "$(awk -v r="$2" -v b="$3" 'BEGIN { printf "%.2f", r * b * 8 / 1e9 }')" Gb/s ;;
  esac
}

# Frames of a driver that the benchmark plays, through taps of a network namespace that is gone with it.
bench_tap() {
  local load bytes target rate cpu ratio low high
  local place=(unshare -n)
  [ "$(id -u)" = 0 ] || place=(unshare -Urn)
  if ! "${place[@]}" sh -c 'ip tuntap add mode tap name try multi_queue vnet_hdr' 2>/dev/null; then
    report_skip "frames through a tap" "no network namespace with taps: it needs root, or /dev/net/tun and user namespaces"
    return 0
  fi
  say "frames through a tap: 11 loads, 11 rounds each"
  "${place[@]}" "$root/bench/lib/net_taps.sh" "$build/release" "$out" > "$out/result" ||
    die "the benchmark ended early" "see the message above"
  while IFS=$'\t' read -r load bytes target rate cpu ratio low high; do
    case $target in
      0)
        rate_of "$load" "$rate" "$bytes"
        report_value "  CPU time of its process" "$cpu" us ;;
      1) report_value "  / on a thread" "$ratio" "" "" "" "$low" "$high" ;;
      2) report_value "  / a tap read and written in a loop" "$ratio" "" "" "" "$low" "$high" ;;
    esac
  done < "$out/result"
  report_note "frames: one thread plays driver and host, in turns of 0.15 s; medians of 11"
}

# What programs of a guest get, beside QEMU.
bench_guests() {
  local name="iperf3 between guest and host" place status=0 path what ours theirs ratio low high more
  "$root/tools/dev/images.sh" cloud12
  rm -rf "$build/bench/net"
  mkdir -p "$build/bench/net"
  say "$name: a guest of crosvm and one of QEMU on each path, $rounds rounds of $seconds s each way"
  local run=(env "BENCH_NET_PATHS=${BENCH_NET_PATHS:-tap vhost-net user}"
    "$root/bench/lib/net_peers.sh" "$images/cloud12" "$images/root/debian12.img" "$seconds" "$rounds")
  if runs_guests_here; then
    place="this machine's KVM"
    PATH=$build/release:$PATH unshare -n "${run[@]}" "$build/bench/net" >&2 || status=$?
  else
    place="one test host: only the ratios mean something"
    "$root/tools/testhost/run.sh" --timeout 1800 --out "$build/bench/net" -- "${run[@]}" /out >&2 || status=$?
  fi
  [ "$status" = 0 ] || die "the guests ended with status $status" "see the messages above, and build/bench/net"
  for path in ${BENCH_NET_PATHS:-tap vhost-net user}; do
    if [ -s "$build/bench/net/$path.skipped" ]; then
      report_skip "$name, $path" "$(cat "$build/bench/net/$path.skipped")"
      continue
    fi
    while IFS=$'\t' read -r what ours theirs ratio low high more; do
      report_value "$path, $what, crosvm" "$ours" "$more"
      report_value "  QEMU" "$theirs" "$more"
      # More is better, but for times.
      if [ "$more" = ms ]; then
        report_value "  QEMU / crosvm" "$ratio" "" 1.0 least "$low" "$high"
      else
        report_value "  crosvm / QEMU" "$ratio" "" 1.0 least "$low" "$high"
      fi
    done < "$build/bench/net/$path.result"
  done
  report_note "guests: cloud12 and Debian's root disk, 1 vCPU, 512 MiB, one queue pair, in $place"
}

report_begin net "$@"
"$root/tools/dev/install.sh" testhost boot
"$root/tools/dev/build.sh" --release net_bench agent_run crosvm
out=$(mktemp -d "$build/bench-net.XXXXXX")
trap 'rm -rf "$out" "$report_rows"' EXIT
report_note "$(nproc) processors, load average at the start $(cut -d ' ' -f 1-3 /proc/loadavg)"
for part in tap guests; do
  [[ $parts != *" $part "* ]] || "bench_$part"
done
report_end
