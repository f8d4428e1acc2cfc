# Writes one byte to the debug console, then runs for ever without an exit.
        .globl _start
        .text
_start: mov     $0x402, %edx
        mov     $'!', %al
        out     %al, %dx
1:      jmp     1b
