/* Instructions that every stock x86_64 kernel executes and that an incomplete KVM stops at. Entered in
 * 64-bit mode with rdi = PROBE_HAS_*, rsi = zeroed scratch memory, 64-byte aligned. Position-
 * independent; the gate of vector 3 points to kvm_probe_int3_handler. */
#ifdef __CET__
#include <cet.h>
#endif
#include "hypervisor/kvm/probe_abi.h"

.macro step number
        movb    $\number, %al
        outb    %al, $PROBE_PORT
.endm

        .section .rodata.kvm_probe, "a", @progbits
        .code64
        .globl  kvm_probe_start, kvm_probe_int3_handler, kvm_probe_end
kvm_probe_start:
        testl   $PROBE_HAS_CX16, %edi
        jz      1f
        step    PROBE_STEP_CMPXCHG16B
        xorl    %eax, %eax
        xorl    %edx, %edx
        movl    $0x11, %ebx
        movl    $0x22, %ecx
        lock cmpxchg16b (%rsi)          /* equal: stores rcx:rbx */
        jnz     wrong
        cmpq    $0x22, 8(%rsi)
        jne     wrong
1:
        testl   $PROBE_HAS_XSAVE, %edi
        jz      2f
        step    PROBE_STEP_XSETBV
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        movl    $3, %eax                /* XCR0: x87 and SSE */
        xsetbv
        step    PROBE_STEP_XSAVE
        movl    $0x1234, %eax
        movd    %eax, %xmm0
        movl    $3, %eax
        xorl    %edx, %edx
        xsave64 64(%rsi)
        pxor    %xmm0, %xmm0
        step    PROBE_STEP_XRSTOR
        movl    $3, %eax
        xorl    %edx, %edx
        xrstor64 64(%rsi)
        movd    %xmm0, %eax
        cmpl    $0x1234, %eax
        jne     wrong
2:
        step    PROBE_STEP_INT3
        xorl    %r8d, %r8d
        int3
        cmpl    $1, %r8d
        jne     wrong
        step    PROBE_STEP_DONE
wrong:
        step    PROBE_STEP_WRONG
3:      hlt
        jmp     3b

kvm_probe_int3_handler:
        incl    %r8d
        step    PROBE_STEP_IRETQ
        iretq
kvm_probe_end:

        .section .note.GNU-stack, "", @progbits
