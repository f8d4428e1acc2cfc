#!/bin/bash
# Runs test programs of build/release where KVM runs stock guests: run_vm_tests.sh RESULTS FILTER PROGRAM...
#
# Leaves RESULTS/PROGRAM.xml. FILTER is GoogleTest's and applies to all; * for everything.
source "$(dirname "$0")/common.sh"
source "$root/tools/dev/where.sh"

results=$1
filter=$2
shift 2
mkdir -p "$results"
results=$(cd "$results" && pwd)
seconds=1500
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

if runs_guests_here; then
  CROSVM_BIN=$build/release/crosvm CROSVM_IMAGES=$images \
    bash -c "$script" vm "$results" "$filter" "${programs[@]}"
else
  # A guest of 6 GiB needs a test host of 8. The programs are run from the copies found through PATH.
  options=()
  for program in "${programs[@]}"; do options+=(--program "$program"); done
  "$root/tools/testhost/run.sh" --mem 8G --timeout "$seconds" --out "$results" "${options[@]}" -- \
    env ${CROSVM_TEST_FULL:+CROSVM_TEST_FULL=1} bash -c "$script" vm /out "$filter" "${programs[@]##*/}"
fi
