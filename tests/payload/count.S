# Writes to the debug console for ever: its output shows whether the vCPU runs.
        .globl _start
        .text
_start: mov     $0x402, %edx
        mov     $'.', %al
1:      out     %al, %dx
        jmp     1b
