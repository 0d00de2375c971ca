/* From reset to ec_app_main, on any Cortex-M with the vectors at the start of flash. */
#include "ec_board.h"
#include "mps.h"

#define EC_CPACR (*(volatile uint32_t *)0xE000ED88u)
#define EC_CPACR_FLOAT (0xFu << 20) /* full access to the floating-point unit and Helium */
#define EC_SEMIHOSTING_EXIT_EXTENDED 0x20u
#define EC_SEMIHOSTING_APPLICATION_EXIT 0x20026u
#define EC_FAULT_STATUS 99u

void mps_reset(void);
void mps_start(void);

void mps_exit(uint32_t status) {
    const uint32_t block[2] = {EC_SEMIHOSTING_APPLICATION_EXIT, status};
    register uint32_t operation __asm("r0") = EC_SEMIHOSTING_EXIT_EXTENDED;
    register const uint32_t *argument __asm("r1") = block;
    __asm volatile("bkpt 0xAB" : "+r"(operation) : "r"(argument) : "memory");
    for (;;) {
    }
}

static void fault(void) {
    mps_exit(EC_FAULT_STATUS);
}

/* The stack is painted from its far end up to where it stands now. */
static void paint_stack(void) {
    uint32_t *here;
    __asm volatile("mov %0, sp" : "=r"(here));
    for (volatile uint32_t *word = mps_stack_start; word < here; word++) *word = MPS_STACK_PAINT;
}

/* The application runs on the process stack, handlers on the main one: a fault can be told even
 * when it is the stack that ended. */
__attribute__((naked)) void mps_reset(void) {
    __asm volatile("ldr r0, =mps_stack_end\n\t"
                   "msr psp, r0\n\t"
                   "movs r0, #2\n\t"
                   "msr control, r0\n\t"
                   "isb\n\t"
                   "b mps_start");
}

void mps_start(void) {
    EC_CPACR |= EC_CPACR_FLOAT;
    __asm volatile("dsb\n\tisb" ::: "memory");
    paint_stack();
    const uint32_t *from = mps_data_load;
    for (uint32_t *to = mps_data_start; to < mps_data_end; to++) *to = *from++;
    for (uint32_t *to = mps_bss_start; to < mps_bss_end; to++) *to = 0;
    ec_app_main();
    mps_exit(0);
}

typedef void (*vector_t)(void);

typedef struct {
    uint32_t *stack;
    vector_t reset;
    vector_t faults[13]; /* NMI, faults, SVCall and others: nothing here raises them on purpose */
    vector_t systick;
} vectors_t;

extern const vectors_t mps_vectors;
__attribute__((section(".vectors"), used)) const vectors_t mps_vectors = {
    .stack = mps_handler_stack_end,
    .reset = mps_reset,
    .faults = {fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault,
               fault},
    .systick = mps_tick_wrapped,
};
