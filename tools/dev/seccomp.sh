#!/bin/bash
# What jailed processes and the VMM's threads call over the test suite, against the policies:
# seccomp.sh [--vms] [PROGRAM...] (default: the tests that run crosvm natively and those of the devices). --vms records the
# whole-VM tests too, where this machine runs guests or in the test host, which takes hours.
#
# Prints for each policy the calls that no line allows, and what it allows that nothing used; a line that stays
# although nothing here uses it says why in a comment. Status 1 when a call is not allowed. The recording stays in
# build/seccomp.
source "$(dirname "$0")/common.sh"

vms=
[ "${1:-}" != --vms ] || { vms=yes; shift; }
"$root/tools/dev/install.sh" build seccomp
"$root/tools/dev/build.sh" --release crosvm native_test devices_test policy_usage
binaries=$build/release
[ $# -gt 0 ] || set -- "$binaries/tests/native/native_test" "$binaries/src/devices/devices_test"

recording=$build/seccomp
rm -rf "$recording"
mkdir -p "$recording"
trace=(strace -f --decode-pids=comm,pidns -qq -e 'raw=!execve,clone,clone3' -e signal=none)
# Left out: chains by the million, which are served by the same calls as those of the other tests; and processes killed
# faster than they can start when they are traced.
left_out='-*GeneratedChains*:*EachRequestCompletesOnce*:*NothingRemainsWhateverIsKilled*'
for program; do
  name=$(basename "$program")
  say "recording $name"
  CROSVM_BIN=$binaries/crosvm GTEST_FILTER=$left_out "${trace[@]}" -o "$recording/$name.trace" \
    "$program" >"$recording/$name.log" 2>&1 || say "$name fails when it is traced: see $recording/$name.log"
done
if [ -n "$vms" ]; then
  source "$root/tools/dev/where.sh"
  "$root/tools/dev/build.sh" --release vm_test
  "$root/tools/dev/images.sh"
  passt=$root/tools/testhost/passt.sh
  "$passt" --fetch
  say "recording vm_test"
  if runs_guests_here; then
    CROSVM_BIN=$binaries/crosvm CROSVM_IMAGES=$images CROSVM_PASST=$passt "${trace[@]}" -o "$recording/vm_test.trace" \
      "$binaries/tests/vm/vm_test" >"$recording/vm_test.log" 2>&1 || say "vm_test fails when it is traced"
  else
    "$root/tools/testhost/run.sh" --mem 8G --timeout 0 --out "$recording" --program "$binaries/tests/vm/vm_test" -- \
      env CROSVM_PASST="$passt" "${trace[@]}" -o /out/vm_test.trace vm_test >"$recording/vm_test.log" 2>&1 ||
      say "vm_test fails when it is traced: see $recording/vm_test.log"
  fi
fi
cat "$recording"/*.trace | "$binaries/tools/seccomp/policy_usage" "$root/src/jail/policies/$(uname -m)"
