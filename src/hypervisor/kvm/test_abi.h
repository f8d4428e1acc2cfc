/* Between kvm/test_payloads.S and the tests; only macros, for the assembler. */
#pragma once

#define TEST_DONE_PORT 0xf4 /* the guest has done what it was written for */
#define TEST_PORT 0x510     /* what the payload has to say */
#define TEST_IRQ_PORT 0x514 /* the handler of an interrupt, after its EOI: the vector */
#define TEST_MMIO 0x80000000
