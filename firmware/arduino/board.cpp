/* The board's promises under an Arduino core: `Serial`, which leads to the computer on all of them,
 * and a counter that is held against the core's clock. */
#include <Arduino.h>

#include "ec_arduino.h"
#include "ec_board.h"

#define EC_LINE 256u         /* bytes sent at once: most lines are shorter */
#define EC_PATIENCE_MS 2000u /* for a line to be taken */

#define EC_CHECK_PASSES 1000000u
#define EC_CHECK_CYCLES 12u /* of one pass at most: memories are slow on some boards */
#define EC_CHECK_PART 50u   /* counter and clock may differ by a 50th */

/* The milliseconds after which the counter may have passed 2^32, with the same tolerance. */
#define EC_LONGEST_MS \
    (UINT32_MAX / EC_CHECK_PART * (uint64_t)(EC_CHECK_PART - 1u) * 1000u / EC_BOARD_HZ)

static uint8_t line[EC_LINE];
static uint32_t length;
static uint32_t start_ticks;
static uint32_t start_ms;

void ec_board_ticks_start(void) {
    start_ms = (uint32_t)millis();
    start_ticks = arduino_counter->now();
}

uint32_t ec_board_ticks(void) {
    const uint32_t ticks = arduino_counter->now() - start_ticks;
    const uint32_t ms = (uint32_t)millis() - start_ms;
    return ms > EC_LONGEST_MS ? 0 : ticks;
}

/* A pass is a subtraction and a branch: nothing else is in the function, so that its count stays in
 * a register. */
__attribute__((noinline)) static void spin(uint32_t passes) {
    for (; passes != 0; passes--) __asm volatile("" : "+r"(passes));
}

/* Whether a loop of known length takes a possible number of cycles, and the counter agrees with the
 * core's microseconds. */
static bool counter_is_right(void) {
    const uint32_t first = arduino_counter->now();
    const uint32_t first_us = (uint32_t)micros();
    spin(EC_CHECK_PASSES);
    const uint64_t ticks = arduino_counter->now() - first;
    const uint64_t us = (uint32_t)micros() - first_us;
    const uint64_t cycles = ticks * EC_BOARD_CLOCK_HZ / EC_BOARD_HZ;
    const uint64_t expected = us * EC_BOARD_HZ / 1000000u;
    const uint64_t off = ticks > expected ? ticks - expected : expected - ticks;
    return cycles >= EC_CHECK_PASSES && cycles <= EC_CHECK_CYCLES * EC_CHECK_PASSES &&
           off <= expected / EC_CHECK_PART;
}

bool ec_board_init(void) {
    Serial.begin(EC_BOARD_BAUD);
    arduino_counter->start();
    return counter_is_right();
}

int ec_board_read(void) {
    int byte;
    while ((byte = Serial.read()) < 0) {
    }
    return byte;
}

/* Sends what was written. A host that does not take it in time is gone, and a port may say that it
 * took less than all. */
static void send_line(void) {
    const uint32_t start = (uint32_t)millis();
    uint32_t sent = 0;
    while (sent < length && (uint32_t)millis() - start < EC_PATIENCE_MS) {
        sent += (uint32_t)Serial.write(line + sent, length - sent);
    }
    Serial.flush();
    length = 0;
}

/* By the line: USB carries whole packets better than single bytes. */
void ec_board_write(uint8_t byte) {
    line[length++] = byte;
    if (byte == '\n' || length == EC_LINE) send_line();
}

uint32_t ec_board_stack_used(void) {
    return EC_BOARD_UNKNOWN;
}

void ec_board_exit(int) {
}

/* What the core calls: once, and for ever. */
void setup(void) {
}

void loop(void) {
    ec_app_main();
}
