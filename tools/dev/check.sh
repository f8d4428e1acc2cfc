#!/bin/bash
# Judges the sources without running them: check.sh [--full]. Every check runs; each says ok or why not.
source "$(dirname "$0")/common.sh"
source "$root/tools/dev/sources.sh"

full=''
while [ $# -gt 0 ]; do
  case $1 in
    --full) full=yes; shift ;;
    *) usage_error "check: unknown option '$1'" ;;
  esac
done

"$root/tools/dev/install.sh" build clang check
cd "$root"
failed=0

# check NAME COMMAND...
check() {
  local name=$1
  shift
  if "$@"; then say "check $name: ok"; else say "check $name: FAILED"; failed=$((failed + 1)); fi
}

formatted() {
  all_sources | xargs -r clang-format-19 --dry-run -Werror || { say "fix: ./dev fix"; return 1; }
}

# Both compilers, all warnings on: the trees that the tests use.
compilers() {
  "$root/tools/dev/build.sh" --release && "$root/tools/dev/build.sh" --fuzz
}

tidy() {
  local files
  if [ -n "$full" ]; then files=$(all_sources); else files=$(changed_sources); fi
  # Headers are judged through the files that include them; what no tree compiles cannot be judged.
  files=$(grep '\.cc$' <<<"$files" | while read -r file; do
    ! grep -qF "\"$root/$file\"" build/fuzz/compile_commands.json || echo "$file"; done) || true
  [ -n "$files" ] || return 0
  xargs -r -P "$jobs" -n 4 clang-tidy-19 -p build/fuzz --quiet <<<"$files" 2>"$build/tidy.log" || {
    grep -E 'error:' "$build/tidy.log" | head -n 5 >&2
    return 1
  }
}

# docs/options.md is printed by the option table itself.
docs() {
  "$build/release/crosvm" --print-options-md | diff -u docs/options.md - ||
    { say "fix: build/release/crosvm --print-options-md > docs/options.md"; return 1; }
}

# Each start of a VM, and of each of its devices, executes crosvm: what it weighs is paid often (docs/adr/0010).
small() {
  local stripped bytes
  stripped=$(mktemp)
  strip -o "$stripped" build/release/crosvm
  bytes=$(stat -c %s "$stripped")
  rm -f "$stripped"
  [ "$bytes" -le 4000000 ] || {
    say "crosvm has $bytes bytes without symbols, 4000000 are its budget"
    say "fix: link with -Wl,-Map=FILE to see what came in; what is large and seldom used goes into a program of its own (find_companion_program)"
    return 1
  }
}

# A script is judged by bash itself.
scripts() {
  local file status=0
  while read -r file; do bash -n "$file" || status=1; done < <(git ls-files --cached --others --exclude-standard | grep -E '(\.sh|^dev|^\.ci/run|tools/testhost/session)$')
  return $status
}

check format formatted
check layering "$root/tools/check_layering.sh"
check scripts scripts
check compilers compilers
check "option table's docs" docs
check "crosvm's size" small
check clang-tidy tidy
[ "$failed" = 0 ] || die "$failed checks failed" "see above"
