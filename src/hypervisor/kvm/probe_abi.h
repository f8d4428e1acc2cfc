/* Between kvm/probe_payload.S and kvm/probe.cc; only macros, for the assembler. */
#pragma once

#define PROBE_PORT 0xf4 /* the guest writes the step it begins, one byte */

#define PROBE_STEP_CMPXCHG16B 1
#define PROBE_STEP_XSETBV 2
#define PROBE_STEP_XSAVE 3
#define PROBE_STEP_XRSTOR 4
#define PROBE_STEP_INT3 5
#define PROBE_STEP_IRETQ 6
#define PROBE_STEP_DONE 0x5a
#define PROBE_STEP_WRONG 0xff /* the last step had another effect than it must have */

/* Bits of rdi: what the guest's CPUID offers. */
#define PROBE_HAS_CX16 1
#define PROBE_HAS_XSAVE 2
