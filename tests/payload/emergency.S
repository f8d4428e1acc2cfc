# Writes to the console in PCI slot 1 by its emergency register for ever (virtio 1.3 §5.3.4), and
# to the debug console after each 256 characters: its output shows that the vCPU is not held up.
        .globl _start
        .text
_start: mov     $0xcf8, %edx            # command register: decode memory
        mov     $0x80000804, %eax
        out     %eax, %dx
        mov     $0xcfc, %edx
        mov     $2, %eax
        out     %eax, %dx
        mov     $0xcf8, %edx            # BAR 0
        mov     $0x80000810, %eax
        out     %eax, %dx
        mov     $0xcfc, %edx
        in      %dx, %eax
        and     $~0xf, %eax
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
