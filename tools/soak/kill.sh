#!/bin/bash
# Kills processes at random moments under load: kill.sh [N [SEED]] (default: 1000 and the time of day).
#
# N times each: the process of a disk that is to be started anew, for each way of doing I/O, with every request and every
# block verified; and, of a VM with a payload kernel, the VMM, its spawner or a worker, often two at once, after which
# nothing of it may remain. All natively; the second part needs /dev/kvm. The log stays in build/soak/kill; the last line
# has the seed.
source "$(dirname "$0")/../dev/common.sh"

count=${1:-1000}
seed=${2:-$(date +%s)}
[[ $count =~ ^[1-9][0-9]*$ && $seed =~ ^[0-9]+$ ]] || usage_error "soak kill: [N [SEED]], numbers, not '$*'"
"$root/tools/dev/build.sh" --release crosvm devices_test native_test
tree=$build/release

logs=$build/soak/kill
rm -rf "$logs"
mkdir -p "$logs"
export CROSVM_TEST_KILLS=$count CROSVM_TEST_SEED=$seed
status=0
"$tree/src/devices/devices_test" --gtest_filter='*BlockRestartTest.EachRequestCompletesOnce*' 2>&1 </dev/null |
  tee "$logs/disk.log" | grep -E 'requests|OK|FAILED|PASSED' || status=1
CROSVM_BIN=$tree/crosvm "$tree/tests/native/native_test" --gtest_filter='NativeWorkerTest.NothingRemains*' 2>&1 </dev/null |
  tee "$logs/vm.log" | grep -E 'the VMM|the spawner|a worker|OK|FAILED|PASSED' || status=1
! grep -hq 'FAILED' "$logs"/*.log || status=1
left=$(pgrep -c crosvm-spawner || true)
echo "kill: $count of each, seed $seed, $left spawners left: $([ $status = 0 ] && echo ok || echo FAILED)" | tee "$logs/summary.log"
exit $status
