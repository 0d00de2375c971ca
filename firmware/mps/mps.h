/* Arm's MPS2 and MPS3 FPGA boards as QEMU has them: what differs between them. */
#ifndef EC_MPS_H_
#define EC_MPS_H_

#include <stdint.h>

typedef struct {
    uintptr_t uart; /* base address of the first CMSDK APB UART */
} mps_t;

extern const mps_t mps;

/* What the linker script defines. */
extern uint32_t mps_stack_start[], mps_stack_end[], mps_handler_stack_end[];
extern uint32_t mps_data_load[], mps_data_start[], mps_data_end[], mps_bss_start[], mps_bss_end[];

#define MPS_STACK_PAINT 0xA5C3A5C3u

/* Ends the emulator with an exit status (semihosting). */
void mps_exit(uint32_t status) __attribute__((noreturn));

/* Counts the wraps of the tick counter. */
void mps_tick_wrapped(void);

#endif
