#!/bin/bash
# One fuzz target: fuzz.sh NAME [--seconds N]; fuzz.sh --list names them.
#
# The corpus grows in build/corpus/NAME from the seeds in fuzz/corpus/NAME; a crash is kept there too.
source "$(dirname "$0")/common.sh"

list() { (cd "$root/fuzz" && ls -- *_fuzz.cc 2>/dev/null | sed 's/\.cc$//') || true; }

name='' seconds=60
while [ $# -gt 0 ]; do
  case $1 in
    --list) list; exit ;;
    --seconds) needs_value "$1" $#; seconds=$2; shift 2 ;;
    -*) usage_error "fuzz: unknown option '$1'" ;;
    *) [ -z "$name" ] || usage_error "fuzz takes one target"; name=${1%_fuzz}; shift ;;
  esac
done
[[ $seconds =~ ^[1-9][0-9]*$ ]] || usage_error "--seconds needs a number above 0, not '$seconds'"
[ -n "$name" ] || { list | sed 's/_fuzz$//'; exit; }
[ -e "$root/fuzz/${name}_fuzz.cc" ] || usage_error "no fuzz target '$name': one of $(list | sed 's/_fuzz$//' | tr '\n' ' ')"

"$root/tools/dev/build.sh" --fuzz "${name}_fuzz"
program=$(find "$build/fuzz" -type f -perm -u+x -name "${name}_fuzz" -print -quit)
corpus=$build/corpus/$name
mkdir -p "$corpus"
seeds=()
[ ! -d "$root/fuzz/corpus/$name" ] || seeds=("$root/fuzz/corpus/$name")
export ASAN_SYMBOLIZER_PATH=/usr/bin/llvm-symbolizer-19
exec "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
  -artifact_prefix="$corpus/crash-" "$corpus" "${seeds[@]}"
