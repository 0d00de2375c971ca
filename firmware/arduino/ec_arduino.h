/* Real boards under their Arduino cores: what differs between them is the counter of ticks. */
#ifndef EC_ARDUINO_H_
#define EC_ARDUINO_H_

#include <stdint.h>

/* A counter of EC_BOARD_HZ ticks a second that starts again at 0 after 2^32 - 1. */
typedef struct {
    void (*start)(void); /* makes it run */
    uint32_t (*now)(void);
} arduino_counter_t;

extern const arduino_counter_t arduino_dwt;    /* cycles of a Cortex-M3 or larger */
extern const arduino_counter_t arduino_micros; /* the Arduino core's microseconds */

/* The board's own. */
extern const arduino_counter_t *const arduino_counter;

#endif
