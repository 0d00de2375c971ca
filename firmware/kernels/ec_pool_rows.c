/* Bits: TFLM AveragePool of a window that covers the map; sums of int8 are exact in any order. */
#include "ec_pool_rows.h"

#include "ec_math.h"
#include "ec_window.h"

/* Adds `lanes` (1 or 4) channels of all pixels of the band to their sums. */
static void ec_pool_rows_add(const ec_pool_rows_t *p, const int8_t *in, int32_t lanes,
                             int32_t *sums)
{
    const int8_t *end = in + p->pixels * p->channels;
    int32_t a = 0, b = 0, c = 0, d = 0;
    if (lanes == 1) {
        for (; in < end; in += p->channels) a += in[0];
        sums[0] += a;
        return;
    }
    for (; in < end; in += p->channels) {
        a += in[0];
        b += in[1];
        c += in[2];
        d += in[3];
    }
    sums[0] += a;
    sums[1] += b;
    sums[2] += c;
    sums[3] += d;
}

void ec_average_pool_rows_s8(const ec_pool_rows_t *p, const int8_t *in, int32_t *sums, int8_t *out)
{
    for (int32_t i = 0; p->first && i < p->channels; i++) sums[i] = 0;
    for (int32_t done = 0, lanes; done < p->channels; done += lanes) {
        lanes = ec_window_lanes(p->channels - done);
        ec_pool_rows_add(p, in + done, lanes, sums + done);
    }
    for (int32_t i = 0; p->last && i < p->channels; i++) {
        out[i] = (int8_t)ec_clamp(ec_pool_mean(sums[i], p->count), p->low, p->high);
    }
}
