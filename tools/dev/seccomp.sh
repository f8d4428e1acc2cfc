#!/bin/bash
# What jailed processes and the VMM's threads call over the test suite, against the policies: seccomp.sh [PROGRAM...]
# (default: the tests that run crosvm natively and those of the devices).
#
# Prints for each policy the calls that no line allows, and what it allows that nothing used; a line that stays
# although nothing here uses it says why in a comment. Status 1 when a call is not allowed. The recording stays in
# build/seccomp.
source "$(dirname "$0")/common.sh"

"$root/tools/dev/install.sh" build seccomp
"$root/tools/dev/build.sh" --release crosvm native_test devices_test policy_usage
binaries=$build/release
[ $# -gt 0 ] || set -- "$binaries/tests/native/native_test" "$binaries/src/devices/devices_test"

recording=$build/seccomp
rm -rf "$recording"
mkdir -p "$recording"
for program; do
  name=$(basename "$program")
  say "recording $name"
  CROSVM_BIN=$binaries/crosvm strace -f -Y -qq -e raw=all -e signal=none -o "$recording/$name.trace" \
    "$program" >"$recording/$name.log" 2>&1 || say "$name fails when it is traced: see $recording/$name.log"
done
cat "$recording"/*.trace | "$binaries/tools/seccomp/policy_usage" "$root/src/jail/policies/$(uname -m)"
