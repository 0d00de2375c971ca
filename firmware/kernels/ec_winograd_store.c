#include "ec_winograd_store.h"

#include <stddef.h>

#include "ec_math.h"

/* Outputs at the end of a map, of fewer channels or with limits: by way of a whole pair of tiles. */
static void ec_store_partly(const ec_winograd_t *p, ec_winograd_outputs_t outputs,
                            const int32_t *sums, const int32_t *scales, int8_t *out,
                            ec_winograd_tile_t at)
{
    int8_t tile[EC_WINOGRAD_MOST_TILE * EC_WINOGRAD_MOST_TILE * EC_WINOGRAD_PAIR * EC_WINOGRAD_GROUP];
    const ec_conv_shape_t *s = &p->shape;
    const int32_t rows = s->out_height - at.y, columns = s->out_width - at.x;
    const int32_t channels = s->out_channels - at.channel;
    outputs(sums, scales, tile, EC_WINOGRAD_GROUP, at.columns * EC_WINOGRAD_GROUP);
    for (int32_t y = 0; y < at.rows && y < rows; ++y) {
        for (int32_t x = 0; x < at.columns && x < columns; ++x) {
            const int8_t *const from = tile + (y * at.columns + x) * EC_WINOGRAD_GROUP;
            int8_t *const to = out + (ptrdiff_t)(y * s->out_width + x) * s->out_channels;
            for (int32_t i = 0; i < EC_WINOGRAD_GROUP && i < channels; ++i) {
                to[i] = (int8_t)ec_clamp(from[i], p->low, p->high);
            }
        }
    }
}

void ec_winograd_store(const ec_winograd_t *p, ec_winograd_outputs_t outputs, const int32_t *sums,
                       int8_t *out, ec_winograd_tile_t at)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t *const scales = p->scales + (ptrdiff_t)at.channel * EC_WINOGRAD_SCALE_WORDS;
    int8_t *const to = out + (ptrdiff_t)(at.y * s->out_width + at.x) * s->out_channels + at.channel;
    if (p->limited || at.y + at.rows > s->out_height || at.x + at.columns > s->out_width ||
        at.channel + EC_WINOGRAD_GROUP > s->out_channels) {
        ec_store_partly(p, outputs, sums, scales, to, at);
    } else {
        outputs(sums, scales, to, s->out_channels, s->out_width * s->out_channels);
    }
}

void ec_winograd_stage(const int8_t *from, uint32_t *to, int32_t words, uint32_t pad)
{
    if (!from) {
        for (int32_t i = 0; i < words; ++i) {
            to[i] = pad;
        }
        return;
    }
    for (; words >= 4; words -= 4, from += 16, to += 4) {
        EC_UNROLL
        for (int32_t i = 0; i < 4; ++i) {
            to[i] = ec_load_u32(from + 4 * i);
        }
    }
    for (int32_t i = 0; i < words; ++i) {
        to[i] = ec_load_u32(from + 4 * i);
    }
}
