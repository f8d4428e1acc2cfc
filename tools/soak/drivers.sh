#!/bin/bash
# Takes a disk's driver away and gives it back 1,000 times, while its disk and another are written to: drivers.sh.
#
# The test is VirtioTest.DriversComeAndGoUnderLoad, which CI runs with few cycles. The log stays in
# build/soak/drivers.
source "$(dirname "$0")/../dev/common.sh"

[ $# -eq 0 ] || usage_error "soak drivers takes no arguments"
"$root/tools/dev/build.sh" --release crosvm vm_test
"$root/tools/dev/images.sh" cloud12
logs=$build/soak/drivers
rm -rf "$logs"
mkdir -p "$logs"
"$root/tools/testhost/run.sh" --timeout 9000 --out "$logs" -- env CROSVM_TEST_FULL=1 \
  vm_test --gtest_filter=VirtioTest.DriversComeAndGoUnderLoad | tee "$logs/summary.log"
