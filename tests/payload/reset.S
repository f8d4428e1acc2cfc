# Writes one byte to the debug console, then asks the keyboard controller for a reset.
        .globl _start
        .text
_start: mov     $0x402, %edx
        mov     $'!', %al
        out     %al, %dx
1:      mov     $0xfe, %al
        out     %al, $0x64
        jmp     1b
