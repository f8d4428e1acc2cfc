#!/bin/bash
# The QEMU of the test host, Debian 13's: qemu.sh --fetch gets it, qemu.sh ARGUMENT... runs it.
#
# Debian 12's is not good enough when it emulates several processors. It leaves garbage in EFLAGS after
# cmpxchg16b, which a kernel of 6.12 uses in every small allocation; and it may keep running code that another
# processor has just rewritten, which kernels do to themselves (int3 in sched_clock_cpu, an oops).
source "$(dirname "$0")/../dev/common.sh"
source "$root/tools/testhost/unpacked.sh"

unpacked=$build/qemu
if [ "${1:-}" = --fetch ]; then
  fetch_unpacked qemu-system-x86 "$unpacked"
  exit
fi

# Modules of the machine's own QEMU would not fit.
export QEMU_MODULE_DIR=$unpacked/usr/lib/x86_64-linux-gnu/qemu
exec_unpacked "$unpacked" qemu-system-x86_64 -L "$unpacked/usr/share/qemu" -L "$unpacked/usr/share/seabios" "$@"
