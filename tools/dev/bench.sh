#!/bin/bash
# Benchmarks: bench.sh [NAME] [--json] runs bench/NAME.sh, or all of them.
source "$(dirname "$0")/common.sh"

names=() options=()
for argument; do
  case $argument in
    --json) options+=(--json) ;;
    -*) usage_error "bench: unknown option '$argument'" ;;
    *) names+=("$argument") ;;
  esac
done
known=$(cd "$root/bench" && ls -- *.sh 2>/dev/null | sed 's/\.sh$//' | tr '\n' ' ') || true
[ -n "$known" ] || die "there is no benchmark yet" "add bench/NAME.sh"
[ ${#names[@]} -gt 0 ] || names=($known)
for name in "${names[@]}"; do
  [ -x "$root/bench/$name.sh" ] || usage_error "no benchmark '$name': one of $known"
  "$root/bench/$name.sh" "${options[@]}"
done
