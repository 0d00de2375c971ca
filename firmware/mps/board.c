/* The board's promises on QEMU's MPS2 and MPS3 machines: CMSDK UART, SysTick, semihosting. */
#include "ec_board.h"

#include "mps.h"

#define EC_UART ((volatile uint32_t *)mps.uart)
#define EC_UART_DATA 0
#define EC_UART_STATE 1
#define EC_UART_CTRL 2
#define EC_UART_BAUDDIV 4
#define EC_UART_TX_FULL 1u
#define EC_UART_RX_FULL 2u
#define EC_UART_ENABLE 3u
#define EC_UART_FASTEST 16u
#define EC_UART_POLLS 1000000000u /* without a byte: some five minutes under QEMU */

#define EC_SYSTICK ((volatile uint32_t *)0xE000E010u)
#define EC_SYSTICK_CTRL 0
#define EC_SYSTICK_RELOAD 1
#define EC_SYSTICK_VALUE 2
#define EC_SYSTICK_RUN 7u /* enabled, with its interrupt, on the processor's clock */
#define EC_SYSTICK_MASK 0xFFFFFFu
#define EC_SYSTICK_WRAPS 255u /* at most, for 32 bits of ticks */

#define EC_CHECK_LOOPS 100000u
#define EC_CHECK_TICKS ((uint32_t)(2.0 * EC_CHECK_LOOPS / (1.0 * EC_BOARD_SCALE)))

static volatile uint32_t wraps; /* of SysTick's 24 bits */

void mps_tick_wrapped(void) {
    wraps++;
}

void ec_board_ticks_start(void) {
    EC_SYSTICK[EC_SYSTICK_VALUE] = 0; /* any write clears the counter and starts a whole tick */
    wraps = 0;
}

uint32_t ec_board_ticks(void) {
    uint32_t before, value;
    do {
        before = wraps;
        value = EC_SYSTICK[EC_SYSTICK_VALUE]; /* counts down; the next value after 0 is the mask */
    } while (before != wraps);
    if (before > EC_SYSTICK_WRAPS) return 0;
    return (before << 24) + ((0u - value) & EC_SYSTICK_MASK);
}

/* Whether a loop of known length takes the ticks it should: QEMU counts instructions only under
 * `-icount shift=0`, and anything else would be taken for them. */
static bool ticks_are_instructions(void) {
    uint32_t loops = EC_CHECK_LOOPS;
    ec_board_ticks_start();
    __asm volatile("1: subs %0, %0, #1\n\tbne 1b" : "+l"(loops)::"cc");
    const uint32_t ticks = ec_board_ticks();
    return ticks >= EC_CHECK_TICKS && ticks <= EC_CHECK_TICKS + 1;
}

bool ec_board_init(void) {
    EC_UART[EC_UART_BAUDDIV] = EC_UART_FASTEST;
    EC_UART[EC_UART_CTRL] = EC_UART_ENABLE;
    EC_SYSTICK[EC_SYSTICK_RELOAD] = EC_SYSTICK_MASK;
    EC_SYSTICK[EC_SYSTICK_CTRL] = EC_SYSTICK_RUN;
    return ticks_are_instructions();
}

/* A UART cannot tell that the host is gone, and a machine that nobody drives would keep a processor
 * of the host busy for ever: long silence counts as its end. */
int ec_board_read(void) {
    uint32_t polls = 0;
    while ((EC_UART[EC_UART_STATE] & EC_UART_RX_FULL) == 0) {
        if (++polls == EC_UART_POLLS) return EC_BOARD_EOF;
    }
    return (int)(EC_UART[EC_UART_DATA] & 0xFFu);
}

void ec_board_write(uint8_t byte) {
    while ((EC_UART[EC_UART_STATE] & EC_UART_TX_FULL) != 0) {
    }
    EC_UART[EC_UART_DATA] = byte;
}

uint32_t ec_board_stack_used(void) {
    const uint32_t *word = mps_stack_start;
    while (word < mps_stack_end && *word == MPS_STACK_PAINT) word++;
    return (uint32_t)(mps_stack_end - word) * sizeof *word;
}

void ec_board_exit(int status) {
    mps_exit((uint32_t)status);
}
