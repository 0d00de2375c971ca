/* Microseconds, for cores without a cycle counter. */
#include <Arduino.h>

#include "ec_arduino.h"

static void micros_start(void) {
}

static uint32_t micros_now(void) {
    return (uint32_t)micros();
}

const arduino_counter_t arduino_micros = {micros_start, micros_now};
