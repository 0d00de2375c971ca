#include "mps.h"

const mps_t mps = {.uart = 0x40004000};
