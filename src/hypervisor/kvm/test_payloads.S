/* Bare-metal guests of the tests, for x86_64::enter_long_mode: 64-bit, position-independent. */
#ifdef __CET__
#include <cet.h>
#endif
#include "hypervisor/kvm/test_abi.h"

.macro payload name
        .globl  payload_\name\()_start, payload_\name\()_end
payload_\name\()_start:
.endm

.macro end_payload name
        outb    %al, $TEST_DONE_PORT
9:      hlt
        jmp     9b
payload_\name\()_end:
.endm

        .section .rodata.kvm_test, "a", @progbits
        .code64

/* Ports: one write of each size, then a read of each size whose value is written back. */
payload ports
        movw    $TEST_PORT, %dx
        movl    $0x44332211, %eax
        outb    %al, %dx
        outw    %ax, %dx
        outl    %eax, %dx
        inb     %dx, %al
        outb    %al, %dx
        inw     %dx, %ax
        outw    %ax, %dx
        inl     %dx, %eax
        outl    %eax, %dx
end_payload ports

/* Four bytes at rsi by one string instruction, then three bytes read to rdi. */
payload string_io
        movw    $TEST_PORT, %dx
        movl    $4, %ecx
        rep outsb
        movl    $3, %ecx
        rep insb
end_payload string_io

/* Memory at rdi: a write of each size, then a read of each size whose value is written back. */
payload mmio
        movabsq $0x8877665544332211, %rax
        movb    %al, (%rdi)
        movw    %ax, 2(%rdi)
        movl    %eax, 4(%rdi)
        movq    %rax, 8(%rdi)
        movq    16(%rdi), %rax
        movq    %rax, 24(%rdi)
        movzbl  32(%rdi), %eax
        movb    %al, 33(%rdi)
end_payload mmio

/* Says the 32 bits at rdi, then stores esi there. */
payload exchange
        movw    $TEST_PORT, %dx
        movl    (%rdi), %eax
        outl    %eax, %dx
        movl    %esi, (%rdi)
end_payload exchange

/* Writes the bytes 1 and 2 and the words 2 to TEST_PORT, then the same to memory at rdi. */
payload doorbells
        movw    $TEST_PORT, %dx
        movl    $1, %eax
        outb    %al, %dx
        movl    $2, %eax
        outb    %al, %dx
        outw    %ax, %dx
        movl    $1, %eax
        movb    %al, (%rdi)
        movl    $2, %eax
        movb    %al, (%rdi)
        movw    %ax, (%rdi)
end_payload doorbells

/* Says ebx of the CPUID leaf in edi. */
payload cpuid
        movl    %edi, %eax
        xorl    %ecx, %ecx
        cpuid
        movl    %ebx, %eax
        movw    $TEST_PORT, %dx
        outl    %eax, %dx
end_payload cpuid

/* Says that it runs, then never comes back by itself. */
payload spin
        movw    $TEST_PORT, %dx
        outb    %al, %dx
1:      jmp     1b
end_payload spin

payload triple_fault
        ud2                             /* no gate is present */
end_payload triple_fault

/* Enables the LAPIC, gives IOAPIC pin edi the redirection entry esi, says that it is ready, and takes
 * interrupts. The handlers do not return by iretq, so that an incomplete KVM gets this far. */
        .globl  payload_interrupts_edge_41, payload_interrupts_level_42
payload interrupts
        movb    $0xff, %al              /* the PICs answer the same lines: mask them */
        outb    %al, $0x21
        outb    %al, $0xa1
        movl    $0xfee00000, %r8d
        movl    $0x1ff, 0xf0(%r8)       /* spurious vector 255, LAPIC on */
        movl    $0xfec00000, %r9d
        leal    0x10(,%edi,2), %eax
        movl    %eax, (%r9)
        movl    %esi, 0x10(%r9)
        incl    %eax
        movl    %eax, (%r9)
        movl    $0, 0x10(%r9)           /* destination: LAPIC 0 */
        movw    $TEST_PORT, %dx
        outb    %al, %dx
1:      sti
2:      hlt
        jmp     2b
payload_interrupts_edge_41:
        movb    $0x41, %al
        jmp     3f
payload_interrupts_level_42:
        movb    $0x42, %al
3:      movl    $0, 0xb0(%r8)           /* EOI */
        addq    $40, %rsp               /* rip, cs, rflags, rsp, ss */
        movw    $TEST_IRQ_PORT, %dx
        outb    %al, %dx
        jmp     1b
end_payload interrupts
        movb    $0xff, %al              /* the PICs answer the same lines: mask them */
        outb    %al, $0x21
        outb    %al, $0xa1

        .section .note.GNU-stack, "", @progbits
