# Writes to the console in PCI slot 1 by its emergency register for ever (virtio 1.3 §5.3.4), and
# to the debug console after each 256 characters: its output shows that the vCPU is not held up.
#include "first_device.inc"
        .globl _start
        .text
_start: first_device
        movb    $3, 0x14(%rax)          # device_status: ACKNOWLEDGE and DRIVER
        lea     0x2008(%rax), %rsi      # emerg_wr, behind the sizes and the number of ports
        xor     %ecx, %ecx
        mov     $0x402, %edx
1:      movl    $'e', (%rsi)
        inc     %cl
        jnz     1b
        mov     $'.', %al
        out     %al, %dx
        jmp     1b
