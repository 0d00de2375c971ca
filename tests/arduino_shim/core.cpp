/* The simulated core. Settings of the environment make it a broken one:
 * SHIM_RATE      what the cycle counter counts for a cycle of the clock (1)
 * SHIM_PASS      cycles that a pass of the loop at the start takes (3)
 * SHIM_TAKES     the most bytes that the port takes at once (all)
 * SHIM_SLOW      times that a delay is as long as it should be (1)
 * SHIM_NO_TRACE  the debugger's units do not come on */
#include "Arduino.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const double PASSES = 1e6, READS = 2; /* of the loop, and of clocks around it */
static double seconds;
static double counted;
static uint32_t demcr, control;
static bool open_lock;

static double setting(const char *name, double otherwise) {
    const char *text = getenv(name);
    return text == NULL ? otherwise : atof(text);
}

static void pass(double duration) {
    seconds += duration;
    if ((demcr >> 24 & 1u) != 0 && (control & 1u) != 0) {
        counted += duration * EC_BOARD_CLOCK_HZ * setting("SHIM_RATE", 1);
    }
}

static void step(void) {
    pass(setting("SHIM_PASS", 3) * PASSES / READS / EC_BOARD_CLOCK_HZ);
}

unsigned long micros(void) {
    step();
    return (uint32_t)(uint64_t)(seconds * 1e6);
}

unsigned long millis(void) {
    step();
    return (uint32_t)(uint64_t)(seconds * 1e3);
}

void delay(unsigned long ms) {
    pass((double)ms / 1e3 * setting("SHIM_SLOW", 1));
}

Register::operator uint32_t() const {
    switch (address) {
        case 0xE000EDFCu: return demcr;
        case 0xE0001000u: return control;
        case 0xE0001004u: step(); return (uint32_t)(uint64_t)counted;
        default: abort();
    }
}

/* The lock is that of a Cortex-M7. */
void Register::operator=(uint32_t value) const {
    switch (address) {
        case 0xE000EDFCu: demcr = getenv("SHIM_NO_TRACE") != NULL ? 0 : value; break;
        case 0xE0001FB0u: open_lock = value == 0xC5ACCE55u; break;
        case 0xE0001000u: control = open_lock ? value : control; break;
        default: abort();
    }
}

SerialPort Serial;
static bool begun;

void SerialPort::begin(unsigned long baud) {
    if (baud != EC_BOARD_BAUD) abort();
    begun = true;
}

/* Ends the program with its input. */
int SerialPort::read(void) {
    if (!begun) abort();
    uint8_t byte;
    if (::read(0, &byte, 1) != 1) exit(0);
    return byte;
}

size_t SerialPort::write(const uint8_t *bytes, size_t count) {
    const size_t most = (size_t)setting("SHIM_TAKES", 1e9);
    return fwrite(bytes, 1, count < most ? count : most, stdout);
}

void SerialPort::flush(void) {
    fflush(stdout);
}

int main(void) {
    setup();
    for (;;) loop();
}
