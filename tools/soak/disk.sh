#!/bin/bash
# Disk images against their models: disk.sh [N [SEED [REQUESTS]]] (default: 2000, the time of day, 2000000).
#
# N processes that work on images on real files are killed at random moments, by io_uring and by threads; the power of
# images in memory is cut at 2,000 points; 300 images get 10,000 random requests each, which do what they do to a flat model
# and what qemu-img reads; so do REQUESTS to images of all formats in files, raw and qcow2 by direct I/O, too; and REQUESTS of
# a fuzz target to qcow2 images in memory. The logs stay in build/soak/disk; the last line has the seed.
#
# Environment: SOAK_DISK_PARTS ("kill power oracle formats fuzz"), what is run.
source "$(dirname "$0")/../dev/common.sh"

parts=" ${SOAK_DISK_PARTS:-kill power oracle formats fuzz} "
count=${1:-2000}
seed=${2:-$(date +%s)}
wanted=${3:-2000000}
[[ $count =~ ^[1-9][0-9]*$ && $seed =~ ^[0-9]+$ && $wanted =~ ^[1-9][0-9]*$ ]] ||
  usage_error "soak disk: [N [SEED [REQUESTS]]], numbers, not '$*'"
"$root/tools/dev/install.sh" build testhost  # which brings qemu-img
"$root/tools/dev/build.sh" --release disk_test disk_kill_test
tree=$build/release
export CROSVM_TEST_KILLS=$count CROSVM_TEST_SEED=$seed CROSVM_TEST_FULL=1

logs=$build/soak/disk
rm -rf "$logs"
mkdir -p "$logs"
status=0
wants() { [[ $parts == *" $1 "* ]]; }
# part NAME PROGRAM FILTER: a part of the tests; what counts of what it says is shown.
part() {
  wants "$1" || return 0
  say "disk: $1"
  "$tree/$2" --gtest_filter="$3" </dev/null 2>&1 | tee "$logs/$1.log" |
    grep -E ' kills, |requests, seeds|  OK |FAILED|SKIPPED' || status=1
  grep -q 'FAILED\|SKIPPED' "$logs/$1.log" && status=1
  grep -q 'PASSED' "$logs/$1.log" || status=1
}
part kill tests/disk_kill/disk_kill_test '*'
part power src/disk/disk_test 'Qcow2PowerTest.*'
part oracle src/disk/disk_test 'Qcow2RandomTest.*'
CROSVM_TEST_REQUESTS=$wanted part formats src/disk/disk_test '*RandomDiskTest.*'
# fuzz: one round grows the corpus that the next begins with.
fuzz() {
  local program requests=0 round=0 in_round
  say "disk: fuzz"
  "$root/tools/dev/build.sh" --fuzz qcow2_oracle_fuzz
  program=$(find "$build/fuzz" -type f -perm -u+x -name qcow2_oracle_fuzz -print -quit)
  mkdir -p "$logs/corpus"
  while [ $status = 0 ] && [ "$requests" -lt "$wanted" ]; do
    round=$((round + 1))
    "$program" -seed=$((seed % 1000000 + round)) -max_total_time=300 -len_control=0 -max_len=4096 -timeout=120 \
      -rss_limit_mb=4096 -artifact_prefix="$logs/crash-" "$logs/corpus" >"$logs/fuzz-$round.log" 2>&1 || status=1
    in_round=$(sed -n 's/^oracle: \([0-9]*\) requests.*/\1/p' "$logs/fuzz-$round.log")
    [ "${in_round:-0}" -gt 0 ] || status=1
    requests=$((requests + ${in_round:-0}))
  done
  say "disk: $requests fuzzed requests in $round rounds"
}
! wants fuzz || fuzz
echo "disk:$parts: $count kills, $wanted requests, seed $seed: $([ $status = 0 ] && echo ok || echo FAILED)" | tee "$logs/summary.log"
exit $status
