#!/bin/bash
# Runs test programs of build/release where KVM runs stock guests: run_vm_tests.sh RESULTS PROGRAM FILTER [PROGRAM FILTER]...
#
# Leaves RESULTS/PROGRAM.xml. FILTER is GoogleTest's; * for everything.
source "$(dirname "$0")/common.sh"
source "$root/tools/dev/where.sh"
source "$root/tools/dev/results.sh"

results=$1
shift
mkdir -p "$results"
results=$(cd "$results" && pwd)
seconds=3600
[ -z "${CROSVM_TEST_FULL:-}" ] || seconds=9000

# OUT PROGRAM FILTER...: a program that crashes leaves no XML.
script='out=$1; shift; status=0
while [ $# -gt 0 ]; do
  echo "== $1"
  timeout --foreground '$seconds' "$1" --gtest_filter="$2" --gtest_output="xml:$out/${1##*/}.xml" || status=1
  shift 2
done
exit $status'

asked=()     # names and filters
programs=()  # where they are
located=()   # these, and filters
while [ $# -gt 0 ]; do
  found=$(find "$build/release" -type f -perm -u+x -name "$1" -print -quit)
  [ -n "$found" ] || die "build/release has no test program $1" "run ./dev build --release"
  asked+=("$1" "$2")
  programs+=("$found")
  located+=("$found" "$2")
  shift 2
done

# The peer that this machine's Debian may lack; the test host sees it at the same place.
passt=$root/tools/testhost/passt.sh
"$passt" --fetch

if runs_guests_here; then
  CROSVM_BIN=$build/release/crosvm CROSVM_IMAGES=$images CROSVM_PASST=$passt \
    bash -c "$script" vm "$results" "${located[@]}"
  exit
fi

# A guest of 6 GiB needs a test host of 8. The programs are run from the copies found through PATH.
options=()
for program in "${programs[@]}"; do options+=(--program "$program"); done

# in_test_host OUT PROGRAM FILTER...
in_test_host() {
  local out=$1
  shift
  "$root/tools/testhost/run.sh" --mem 8G --timeout "$seconds" --out "$out" "${options[@]}" -- \
    env CROSVM_PASST="$passt" ${CROSVM_TEST_FULL:+CROSVM_TEST_FULL=1} bash -c "$script" vm /out "$@"
}

status=0
in_test_host "$results" "${asked[@]}" || status=$?
[ "$status" != 0 ] && [ -e "$results/vm_test.xml" ] || exit "$status"

# Now and then the emulated processors lose the state of a guest, or of the test host itself (ADR 6). A test
# whose guest's kernel died is therefore tried once more, in a new test host; a fault of ours comes again.
fault_cases "$results/vm_test.xml" | awk '!seen[$1]++' > "$results/faults"
if [ -s "$results/faults" ] && [ "$(wc -l < "$results/faults")" -le 3 ]; then
  mkdir -p "$results/retry"
  say "kernels of guests died, once more:"
  sed 's/^/  /' "$results/faults" >&2
  status=0
  in_test_host "$results/retry" vm_test "$(cut -d' ' -f1 "$results/faults" | paste -sd:)" || status=$?
  mv "$results/faults" "$results/retried"
  # What else failed, or crashed, has failed.
  for program in "${programs[@]}"; do [ -e "$results/${program##*/}.xml" ] || status=1; done
  ! collect "$results" | grep -q '^failed ' || status=1
fi
exit "$status"
