#!/bin/bash
# Runs test programs of build/release where KVM runs stock guests: run_vm_tests.sh RESULTS FILTER PROGRAM...
#
# Leaves RESULTS/PROGRAM.xml. FILTER is GoogleTest's and applies to all; * for everything.
source "$(dirname "$0")/common.sh"
source "$root/tools/dev/where.sh"
source "$root/tools/dev/results.sh"

results=$1
filter=$2
shift 2
mkdir -p "$results"
results=$(cd "$results" && pwd)
seconds=3600
[ -z "${CROSVM_TEST_FULL:-}" ] || seconds=9000

# one OUT BIN PROGRAM: the script that runs one program; a crash leaves no XML, which is the caller's to see.
script='out=$1 filter=$2; shift 2; status=0
for program; do
  echo "== $program"
  timeout --foreground '$seconds' "$program" --gtest_filter="$filter" --gtest_output="xml:$out/${program##*/}.xml" || status=1
done
exit $status'

programs=()
for program; do
  found=$(find "$build/release" -type f -perm -u+x -name "$program" -print -quit)
  [ -n "$found" ] || die "build/release has no test program $program" "run ./dev build --release"
  programs+=("$found")
done

# The peer that this machine's Debian may lack; the test host sees it at the same place.
passt=$root/tools/testhost/passt.sh
"$passt" --fetch

if runs_guests_here; then
  CROSVM_BIN=$build/release/crosvm CROSVM_IMAGES=$images CROSVM_PASST=$passt \
    bash -c "$script" vm "$results" "$filter" "${programs[@]}"
  exit
fi

# A guest of 6 GiB needs a test host of 8. The programs are run from the copies found through PATH.
options=()
for program in "${programs[@]}"; do options+=(--program "$program"); done

# in_test_host OUT FILTER
in_test_host() {
  "$root/tools/testhost/run.sh" --mem 8G --timeout "$seconds" --out "$1" "${options[@]}" -- \
    env CROSVM_PASST="$passt" ${CROSVM_TEST_FULL:+CROSVM_TEST_FULL=1} bash -c "$script" vm /out "$2" "${programs[@]##*/}"
}

status=0
in_test_host "$results" "$filter" || status=$?
[ "$status" != 0 ] && [ -e "$results/vm_test.xml" ] || exit "$status"

# Now and then the emulated processors lose the state of a guest, or of the test host itself (ADR 6). A
# guest's end in a double or triple fault is therefore tried once more, in a new test host; a fault of ours comes again.
fault_cases "$results/vm_test.xml" > "$results/faults"
if [ -s "$results/faults" ] && [ "$(wc -l < "$results/faults")" -le 3 ]; then
  mkdir -p "$results/retry"
  say "guests ended in a double or triple fault, once more: $(paste -sd' ' "$results/faults")"
  status=0
  in_test_host "$results/retry" "$(paste -sd: "$results/faults")" || status=$?
  mv "$results/faults" "$results/retried"
fi
exit "$status"
