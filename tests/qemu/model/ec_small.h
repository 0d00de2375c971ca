#ifndef EC_SMALL_H_
#define EC_SMALL_H_

#include <stdint.h>

typedef struct {
    uint32_t count;
    const int8_t *weights;
} ec_small_t;

void ec_small_add(const ec_small_t *p, const int8_t *in, int8_t *out);
void ec_small_reverse(const ec_small_t *p, const int8_t *in, int8_t *out);

#endif
