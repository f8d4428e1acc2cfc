# Drives the disk in PCI slot 1 as far as DRIVER_OK, then watches its configuration for ever. The
# debug console gets the capacity in MiB, as a letter ('A' is 0), whenever it changes, behind the
# interrupt status of that ('0' or '2', virtio 1.3 §4.1.4.5) and the configuration generation, as a
# digit.
#include "first_device.inc"
        .globl _start
        .text
_start: first_device
        mov     %rax, %rsi
        movb    $3, 0x14(%rsi)          # device_status: ACKNOWLEDGE and DRIVER
        movl    $1, 0x08(%rsi)          # driver features: VERSION_1 of the upper 32
        movl    $1, 0x0c(%rsi)
        movb    $0xb, 0x14(%rsi)        # FEATURES_OK
        movb    $0xf, 0x14(%rsi)        # DRIVER_OK
        mov     $0x402, %edx
        mov     $-1, %ebx               # the last capacity
1:      mov     0x2000(%rsi), %ecx      # capacity, low half, in sectors
        cmp     %ebx, %ecx
        je      1b
        mov     %ecx, %ebx
2:      mov     0x1000(%rsi), %al       # ISR, which reading clears; it comes after the change
        test    %al, %al
        jnz     3f
        cmpb    $0, seen(%rip)
        jne     2b
3:      movb    $1, seen(%rip)
        add     $'0', %al
        out     %al, %dx
        mov     0x15(%rsi), %al         # config_generation
        add     $'0', %al
        out     %al, %dx
        mov     %ecx, %eax
        shr     $11, %eax
        add     $'A', %eax
        out     %al, %dx
        jmp     1b
        .data
seen:   .byte   0                       # whether the first capacity was told
