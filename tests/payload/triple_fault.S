# Writes one byte to the debug console, then faults with no interrupt table to report it through.
        .globl _start
        .text
_start: mov     $0x402, %edx
        mov     $'!', %al
        out     %al, %dx
        lidt    empty(%rip)
        ud2
empty:  .word   0
        .quad   0
