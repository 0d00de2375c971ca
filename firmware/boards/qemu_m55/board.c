#include "mps.h"

const mps_t mps = {.uart = 0x59303000}; /* the secure alias: the processor starts secure */
