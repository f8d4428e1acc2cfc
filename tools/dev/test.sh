#!/bin/bash
# Every test: test.sh [--fast|--full]. The last line counts them.
source "$(dirname "$0")/common.sh"
source "$root/tools/dev/results.sh"

tier=normal
while [ $# -gt 0 ]; do
  case $1 in
    --fast | --full) tier=${1#--}; shift ;;
    *) usage_error "test: unknown option '$1'" ;;
  esac
done

results=$build/test-results
collected=$results/collected
rm -rf "$results"
mkdir -p "$results"
: > "$collected"

# step NAME COMMAND...: runs it; a step that fails without a failed test of its own counts as one.
step() {
  local name=$1 before after status=0
  shift
  say "$name"
  before=$(date +%s)
  "$@" || status=$?
  collect "$results/$name" > "$results/$name.collected"
  [ "$status" = 0 ] || grep -q '^failed ' "$results/$name.collected" ||
    echo "failed $name: ended with status $status" >> "$results/$name.collected"
  sed "s|^\([a-z]*\) |\1 $name/|" "$results/$name.collected" >> "$collected"
  after=$(date +%s)
  say "$name took $((after - before)) s"
}

# built FLAVOUR: a tree that does not build ends the run there and then.
built() {
  "$root/tools/dev/build.sh" "--$1" && return
  echo "failed build-$1: see the compiler's messages above" >> "$collected"
  summary "$collected"
  exit 1
}

# unit FLAVOUR [LABEL]: the unit tests of a tree.
unit() {
  local out=$results/unit-$1
  mkdir -p "$out"
  built "$1"
  GTEST_OUTPUT="xml:$out/" ctest --test-dir "$build/$1" --parallel "$jobs" --timeout 900 \
    --output-on-failure --label-exclude vm ${2:+--tests-regex "$2"} --output-junit "$out/ctest.xml" >&2
}

# Whole-VM tests; and, where a true KVM is, what this machine's KVM or kernel made the unit tests skip.
vm() {
  local tests=(vm_test '*') xml skipped
  "$root/tools/dev/images.sh" || return
  for xml in "$results"/unit-release/*_test.xml; do
    skipped=$(cases "$xml" | sed -nE 's/^skipped ([^:]*): .*/\1/p' | paste -sd:)
    [ -z "$skipped" ] || tests+=("$(basename "$xml" .xml)" "$skipped")
  done
  "$root/tools/dev/run_vm_tests.sh" "$results/vm" "${tests[@]}" >&2
}

# What was skipped here is judged where it ran.
replace_skipped() {
  local each
  for each in "$results"/vm/*_test.xml; do
    [ -e "$each" ] || continue
    cases "$each" | sed -E 's|^[a-z]+ ([^:]*): .*| unit-release/\1:|' > "$results/replaced"
    grep -vF -f "$results/replaced" "$collected" > "$collected.new" || true
    mv "$collected.new" "$collected"
  done
}

# Each fuzz target for a little while, as one test each.
fuzz_smoke() {
  local seconds=$1 target name status=0
  mkdir -p "$results/fuzz"
  for target in $("$root/tools/dev/fuzz.sh" --list); do
    name=${target%_fuzz}
    if "$root/tools/dev/fuzz.sh" "$name" --seconds "$seconds" >"$results/fuzz/$name.log" 2>&1; then
      echo "passed fuzz/$name: " >> "$collected"
    else
      tail -n 30 "$results/fuzz/$name.log" >&2
      echo "failed fuzz/$name: see build/test-results/fuzz/$name.log" >> "$collected"
      status=1
    fi
  done
  return $status
}

"$root/tools/dev/install.sh" boot testhost build test
step unit-release unit release
if [ "$tier" != fast ]; then
  if [ "$tier" = full ]; then export CROSVM_TEST_FULL=1; fi
  # One Clang tree serves both: sanitizers on the unit tests, and the fuzz targets. Guests leave half of the processors idle.
  "$root/tools/dev/install.sh" build clang
  nice -n 19 "$root/tools/dev/build.sh" --fuzz >"$results/build-fuzz.log" 2>&1 &
  building=$!
  step vm vm
  replace_skipped
  say "the rest of the Clang tree"
  wait "$building" || true  # is built once more, with its messages
  step unit-fuzz unit fuzz
  say "fuzz targets"
  fuzz_smoke "$([ "$tier" = full ] && echo 60 || echo 5)" || true
  if [ "$tier" = full ]; then
    step unit-tsan unit tsan '^(base|pci|virtio|virtio_rig|disk|devices|vhost|jail|control|vmm)_test$'
  fi
fi
summary "$collected"
