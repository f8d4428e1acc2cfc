#!/bin/bash
# The QEMU of the test host, Debian 13's: qemu.sh --fetch gets it, qemu.sh ARGUMENT... runs it.
#
# Debian 12's is not good enough when it emulates several processors. It leaves garbage in EFLAGS after
# cmpxchg16b, which a kernel of 6.12 uses in every small allocation; and it may keep running code that another
# processor has just rewritten, which kernels do to themselves (int3 in sched_clock_cpu, an oops).
# The package and its libraries are unpacked, not installed, and run by their own dynamic linker.
source "$(dirname "$0")/../dev/common.sh"

unpacked=$build/qemu
lib=$unpacked/usr/lib/x86_64-linux-gnu

if [ "${1:-}" = --fetch ]; then
  [ ! -d "$unpacked" ] || exit 0
  source "$root/tools/dev/apt_suite.sh"
  only_one
  [ ! -d "$unpacked" ] || exit 0
  say "fetching the test host's QEMU (qemu-system-x86 of Debian trixie)"
  update_suite trixie
  rm -rf "$unpacked.new"
  fetch_closure trixie qemu-system-x86 "$unpacked.new"
  mv "$unpacked.new" "$unpacked"
  exit 0
fi

# Modules of the machine's own QEMU would not fit.
export QEMU_MODULE_DIR=$lib/qemu
exec "$unpacked/usr/lib64/ld-linux-x86-64.so.2" --library-path "$lib" "$unpacked/usr/bin/qemu-system-x86_64" \
  -L "$unpacked/usr/share/qemu" -L "$unpacked/usr/share/seabios" "$@"
