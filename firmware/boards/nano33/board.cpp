#include "ec_arduino.h"

const arduino_counter_t *const arduino_counter = &arduino_dwt;
