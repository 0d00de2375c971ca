/* The sums over channels in ec_winograd_4x4 and ec_winograd_1x4. */
#ifndef EC_WINOGRAD_SUMS_H
#define EC_WINOGRAD_SUMS_H

#include <stdint.h>

/* sums [positions][4][2], int32, modulo 2^32: of u [positions][places][4] times
 * v [positions][places][2], words of two int16 each. `skip` words of v lie between positions. */
void ec_winograd_sums(const uint32_t *v, const uint32_t *u, int32_t *sums, int32_t places,
                      int32_t positions, int32_t skip);

#endif
