/* What a board promises the application. The board owns the entry point: it calls ec_app_main once
 * it can run C, and ec_app_main calls everything below. All of it is polled, from one thread. */
#ifndef EC_BOARD_H_
#define EC_BOARD_H_

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *id;
    const char *unit;  /* what is counted: "instructions", "cycles", "nanoseconds" */
    const char *scale; /* units in one tick, a whole number or a fraction: "40", "125/4" */
    uint32_t hz;       /* ticks in one second, 0: ticks say nothing about time */
} ec_board_t;

/* Of board.toml, through the build. */
extern const ec_board_t ec_board;

#define EC_BOARD_UNKNOWN UINT32_MAX
#define EC_BOARD_EOF (-1)

/* Starts the serial link and the tick counter. False: the counter does not count what ec_board
 * says; the link works all the same. */
bool ec_board_init(void);

/* Sets the tick counter to 0. */
void ec_board_ticks_start(void);

/* Ticks since ec_board_ticks_start; 0, which the host refuses, where they may be 2^32 or more. */
uint32_t ec_board_ticks(void);

/* Waits for the next byte from the host: 0 to 255, EC_BOARD_EOF where the host is gone. */
int ec_board_read(void);

/* Sends one byte to the host. */
void ec_board_write(uint8_t byte);

/* The deepest the stack has been since the start in bytes, EC_BOARD_UNKNOWN where the board cannot
 * tell. */
uint32_t ec_board_stack_used(void);

/* Ends the program with an exit status where it can end; returns on boards that cannot. */
void ec_board_exit(int status);

/* The application; returns only where ec_board_read or ec_board_exit did. */
void ec_app_main(void);

#ifdef __cplusplus
}
#endif

#endif
