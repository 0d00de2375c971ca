/* The cycle counter of Cortex-M cores, in their data watchpoint and trace unit (DWT). Cores may use
 * it for their own clocks, so that it is never set. */
#include <Arduino.h>

#include "ec_arduino.h"

#ifndef EC_REGISTER
#define EC_REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))
#endif

#define EC_DEMCR EC_REGISTER(0xE000EDFCu)
#define EC_DEMCR_TRACE (1u << 24)
#define EC_DWT_CTRL EC_REGISTER(0xE0001000u)
#define EC_DWT_CTRL_COUNT 1u
#define EC_DWT_CYCLES EC_REGISTER(0xE0001004u)
#define EC_DWT_LOCK EC_REGISTER(0xE0001FB0u)
#define EC_DWT_KEY 0xC5ACCE55u /* opens the lock that a Cortex-M7 has; others ignore it */

static void dwt_start(void) {
    EC_DEMCR = EC_DEMCR | EC_DEMCR_TRACE;
    EC_DWT_LOCK = EC_DWT_KEY;
    EC_DWT_CTRL = EC_DWT_CTRL | EC_DWT_CTRL_COUNT;
}

static uint32_t dwt_now(void) {
    return EC_DWT_CYCLES;
}

const arduino_counter_t arduino_dwt = {dwt_start, dwt_now};
