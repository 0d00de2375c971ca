/* The firmware as a program of this computer: the link is its standard input and output. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "ec_board.h"

#define EC_NS_PER_TICK 10u /* a 32-bit counter of them lasts 43 seconds */

static uint64_t start;

static uint64_t now(void) {
    struct timespec time;
    if (clock_gettime(CLOCK_MONOTONIC, &time) != 0) abort();
    return ((uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec) / EC_NS_PER_TICK;
}

bool ec_board_init(void) {
    return true;
}

void ec_board_ticks_start(void) {
    start = now();
}

uint32_t ec_board_ticks(void) {
    const uint64_t ticks = now() - start;
    return ticks > UINT32_MAX ? 0 : (uint32_t)ticks;
}

int ec_board_read(void) {
    const int byte = getchar();
    return byte == EOF ? EC_BOARD_EOF : byte;
}

void ec_board_write(uint8_t byte) {
    if (putchar(byte) == EOF) exit(1);
    if (byte == '\n' && fflush(stdout) != 0) exit(1);
}

uint32_t ec_board_stack_used(void) {
    return EC_BOARD_UNKNOWN;
}

void ec_board_exit(int status) {
    exit(status);
}

int main(void) {
    ec_app_main();
    return 0;
}
