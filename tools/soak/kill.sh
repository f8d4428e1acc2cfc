#!/bin/bash
# Kills processes at random moments under load: kill.sh [N [SEED]] (default: 1000 and the time of day).
#
# N times each: the process of a disk that is to be started anew, for each way of doing I/O, with every request and every
# block verified; of a VM with a payload kernel, the VMM, its spawner and a worker, often two at once, after which nothing
# of it may remain; and a back-end of others, qemu-storage-daemon, under the load of a front-end and with a VM, which says
# so and ends with 33. All natively; what has a VM needs /dev/kvm. The logs stay in build/soak/kill; the last line has the
# seed.
source "$(dirname "$0")/../dev/common.sh"

count=${1:-1000}
seed=${2:-$(date +%s)}
[[ $count =~ ^[1-9][0-9]*$ && $seed =~ ^[0-9]+$ ]] || usage_error "soak kill: [N [SEED]], numbers, not '$*'"
"$root/tools/dev/install.sh" build testhost  # which brings qemu-storage-daemon
"$root/tools/dev/build.sh" --release crosvm devices_test native_test
tree=$build/release
export CROSVM_TEST_KILLS=$count CROSVM_TEST_SEED=$seed CROSVM_BIN=$tree/crosvm

logs=$build/soak/kill
rm -rf "$logs"
mkdir -p "$logs"
status=0
# part NAME PROGRAM FILTER LINES: a part of the tests; LINES of what it says are shown.
part() {
  say "kill: $1"
  "$tree/$2" --gtest_filter="$3" </dev/null 2>&1 | tee "$logs/$1.log" | grep -E "$4|  OK |FAILED|SKIPPED" || status=1
  grep -q 'FAILED\|SKIPPED' "$logs/$1.log" && status=1
  grep -q 'PASSED' "$logs/$1.log" || status=1
}
part disk src/devices/devices_test '*BlockRestartTest.EachRequestCompletesOnce*' ' requests, '
part vm tests/native/native_test 'NativeWorkerTest.NothingRemains*' '^(the VMM|the spawner|a worker): '
part backend tests/native/native_test 'NativeBackendKillTest.*' 'foreign back-end'
echo "kill: $count of each, seed $seed: $([ $status = 0 ] && echo ok || echo FAILED)" |
  tee "$logs/summary.log"
exit $status
