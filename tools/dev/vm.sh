#!/bin/bash
# Whole-VM tests alone: vm.sh [FILTER].
source "$(dirname "$0")/common.sh"
source "$root/tools/dev/results.sh"

[ $# -le 1 ] || usage_error "vm takes one filter"
"$root/tools/dev/build.sh" --release
"$root/tools/dev/images.sh"
results=$build/test-results/vm-alone
rm -rf "$results"
status=0
"$root/tools/dev/run_vm_tests.sh" "$results" vm_test "${1:-*}" || status=$?
collect "$results" > "$build/vm.collected"
[ "$status" = 0 ] || grep -q '^failed ' "$build/vm.collected" ||
  echo "failed vm_test: ended with status $status" >> "$build/vm.collected"
summary "$build/vm.collected"
