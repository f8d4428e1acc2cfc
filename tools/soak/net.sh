#!/bin/bash
# Network cards for long: net.sh. Cards on taps in a process and by vhost-net, of 1 and 4 queue pairs: TCP and UDP, 1 and 8
# streams, both ways, IPv4 and IPv6, MTUs from 68 to 65521, a file of 128 MiB both ways, and a driver that goes and comes
# back 1,000 times under load.
#
# The tests are NetSoakTest and NetTest, of which CI runs a sample. The log stays in build/soak/net.
source "$(dirname "$0")/../dev/common.sh"

[ $# -eq 0 ] || usage_error "soak net takes no arguments"
"$root/tools/dev/build.sh" --release crosvm vm_test
"$root/tools/dev/images.sh" cloud12
logs=$build/soak/net
rm -rf "$logs"
mkdir -p "$logs"
"$root/tools/testhost/run.sh" --timeout 20000 --out "$logs" -- env CROSVM_TEST_FULL=1 \
  vm_test --gtest_filter='*NetSoakTest.*:*NetTest.*' | tee "$logs/summary.log"
