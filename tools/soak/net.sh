#!/bin/bash
# Network cards for long: net.sh [CARD...]. Cards on taps in a process and by vhost-net, of 1 and 4 queue pairs, and the
# card of --net user: TCP and UDP, 1 and 8 streams, both ways, IPv4 and IPv6, MTUs from 68 to 65521, a file of 128 MiB both
# ways (16 without offloads), and a driver that goes and comes back 1,000 times under load; and all that CI runs a sample of.
#
# The tests are NetSoakTest and NetTest, each card's in a test host of its own. The logs stay in build/soak/net.
source "$(dirname "$0")/../dev/common.sh"

cards=(Worker WorkerOfFour Vhost VhostOfFour User)
for card; do
  [[ " ${cards[*]} " == *" $card "* ]] || usage_error "soak net: no card '$card': one of ${cards[*]}"
done
[ $# -eq 0 ] || cards=("$@")
"$root/tools/dev/build.sh" --release crosvm vm_test
"$root/tools/dev/images.sh" cloud12
logs=$build/soak/net
mkdir -p "$logs"
status=0
for card in "${cards[@]}"; do
  said=ok
  rm -rf "${logs:?}/$card"
  CROSVM_TEST_FULL=1 "$root/tools/dev/run_vm_tests.sh" "$logs/$card" vm_test "*NetSoakTest.*/$card:*NetTest.*/$card" \
    >"$logs/$card.log" 2>&1 || { said=FAILED status=1; }
  # A filter that finds nothing passes.
  grep -q 'PASSED.* [1-9][0-9]* test' "$logs/$card.log" || { said=FAILED status=1; }
  echo "net: $card: $said" | tee "$logs/$card/summary"
done
exit $status
