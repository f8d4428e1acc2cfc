#!/bin/bash
# Builds one flavour: build.sh [--debug|--release|--asan|--tsan|--fuzz] [TARGET...] (default --debug, all).
source "$(dirname "$0")/common.sh"

flavour=debug
targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --debug | --release | --clang | --asan | --tsan | --fuzz) flavour=${1#--}; shift ;;
    --arch)
      needs_value "$1" $#
      [ "$2" = x86_64 ] || usage_error "cannot build for '$2' yet: only x86_64"
      shift 2 ;;
    -*) usage_error "build: unknown option '$1'" ;;
    *) targets+=("$1"); shift ;;
  esac
done

case $flavour in
  debug | release) "$root/tools/dev/install.sh" build ;;
  *) "$root/tools/dev/install.sh" build clang ;;
esac

# Objects of another clone of this tree are as good as ours.
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
cd "$root"
if [ ! -e "build/$flavour/build.ninja" ] || [ CMakePresets.json -nt "build/$flavour/build.ninja" ]; then
  mkdir -p "$build"
  cmake --preset "$flavour" >"$build/configure-$flavour.log" 2>&1 || {
    tail -n 30 "$build/configure-$flavour.log" >&2
    die "configuring build/$flavour failed" "see the messages above"
  }
fi
# ${targets:+...}: without targets, ninja's default.
cmake --build "build/$flavour" --parallel "$jobs" ${targets:+--target "${targets[@]}"} >&2 ||
  die "building build/$flavour failed" "see the compiler's messages above"
