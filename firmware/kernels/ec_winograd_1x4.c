/* Bits: TFLM reference_integer_ops::ConvPerChannel (int8). */
#include "ec_winograd_1x4.h"

#include <stddef.h>

#include "ec_winograd_1x4_steps.h"
#include "ec_winograd_store.h"
#include "ec_winograd_sums.h"

enum {
    EC_GROUP = EC_WINOGRAD_GROUP,
    EC_POSITIONS = EC_WINOGRAD_1X4_POSITIONS,
    EC_ROWS = EC_WINOGRAD_1X4_ROWS,
    EC_COLUMNS = 4 * EC_WINOGRAD_PAIR /* of outputs, in a pair of tiles */
};

/* Sizes that all functions below need, and where the buffers lie: v is
 * [pairs][6][rows of a band and two][places][2]. */
typedef struct {
    const ec_winograd_t *p;
    int32_t places;
    int32_t pairs;
    int32_t row_words;
    int32_t position_words;
    uint32_t *v;
    uint32_t *u;
    int32_t *sums;
    uint32_t *staged; /* a row of inputs with its padding */
} ec_plan_t;

/* V of row `y` of the inputs, as row `slot` of the band. */
static void ec_row(const ec_plan_t *plan, const int8_t *in, int32_t y, int32_t slot)
{
    const ec_conv_shape_t *s = &plan->p->shape;
    const int32_t words = plan->places / 2, row_words = s->in_width * words;
    const uint32_t pad = (uint32_t)(uint8_t)plan->p->in_zero * 0x01010101u;
    const int32_t left = s->pad_left * words;
    const int32_t right = (plan->pairs * EC_COLUMNS + 2) * words - left - row_words;
    const int within = y >= 0 && y < s->in_height;
    uint32_t *to = plan->v + slot * plan->row_words;
    const uint32_t *from = plan->staged;
    ec_winograd_stage(NULL, plan->staged, left, pad);
    ec_winograd_stage(within ? in + 4 * (ptrdiff_t)y * row_words : NULL, plan->staged + left,
                      row_words, pad);
    ec_winograd_stage(NULL, plan->staged + left + row_words, right, pad);
    for (int32_t pair = 0; pair < plan->pairs; ++pair) {
        for (int32_t tile = 0; tile < EC_WINOGRAD_PAIR; ++tile) {
            ec_winograd_1x4_tile(from, to + tile, plan->places, plan->position_words);
            from += 4 * words;
        }
        to += EC_POSITIONS * plan->position_words;
    }
}

/* Two rows of V elsewhere in the band. */
static void ec_keep(const ec_plan_t *plan, int32_t from, int32_t to)
{
    const int32_t positions = plan->pairs * EC_POSITIONS;
    const ptrdiff_t distance = (ptrdiff_t)(to - from) * plan->row_words;
    const int32_t quads = plan->row_words / 2; /* of both rows: places are even */
    for (int32_t i = 0; i < positions; ++i) {
        uint32_t *at = plan->v + (ptrdiff_t)i * plan->position_words + from * plan->row_words;
        const int32_t step = distance > 0 ? -4 : 4;
        at += distance > 0 ? 2 * plan->row_words - 4 : 0;
        for (int32_t quad = 0; quad < quads; ++quad) {
            const uint32_t a = at[0], b = at[1], c = at[2], d = at[3];
            at[distance] = a;
            at[distance + 1] = b;
            at[distance + 2] = c;
            at[distance + 3] = d;
            at += step;
        }
    }
}

/* The outputs of rows first to end - 1, whose V is there. */
static void ec_band(const ec_plan_t *plan, int8_t *out, int32_t first, int32_t end)
{
    const ec_winograd_t *p = plan->p;
    const ptrdiff_t group_words = (ptrdiff_t)EC_GROUP * EC_WINOGRAD_TAPS * (plan->places / 2);
    const int32_t skip = plan->position_words - EC_ROWS * plan->row_words;
    ec_winograd_tile_t at = {.rows = 1, .columns = EC_COLUMNS};
    const uint32_t *weights = p->weights;
    for (; at.channel < p->shape.out_channels; at.channel += EC_GROUP) {
        ec_winograd_1x4_weights(weights, plan->u, plan->places);
        weights += group_words;
        for (at.y = first; at.y < end; ++at.y) {
            const uint32_t *v = plan->v + (at.y - first) * plan->row_words;
            for (int32_t pair = 0; pair < plan->pairs; ++pair) {
                at.x = pair * EC_COLUMNS;
                ec_winograd_sums(v, plan->u, plan->sums, EC_ROWS * plan->places, EC_POSITIONS,
                                 skip);
                ec_winograd_store(p, ec_winograd_1x4_outputs, plan->sums, out, at);
                v += EC_POSITIONS * plan->position_words;
            }
        }
    }
}

/* One image, band after band. */
static void ec_image(const ec_plan_t *plan, const int8_t *in, int8_t *out)
{
    const ec_conv_shape_t *s = &plan->p->shape;
    const int32_t strips = plan->p->strips, reverse = plan->p->reverse;
    const int32_t bands = (s->out_height + strips - 1) / strips;
    for (int32_t i = 0; i < bands; ++i) {
        const int32_t first = strips * (reverse ? bands - 1 - i : i);
        const int32_t left = s->out_height - first;
        const int32_t rows = left < strips ? left : strips;
        int32_t slot = 0, slots = rows + EC_ROWS - 1;
        if (i > 0) { /* a whole band on the side that this one's V is shared with */
            ec_keep(plan, reverse ? 0 : strips, reverse ? strips : 0);
            slot = reverse ? 0 : EC_ROWS - 1;
            slots = reverse ? strips : slots;
        }
        for (; slot < slots; ++slot) {
            ec_row(plan, in, first - s->pad_top + slot, slot);
        }
        ec_band(plan, out, first, first + rows);
    }
}

void ec_winograd_1x4_s8(const ec_winograd_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    const ec_conv_shape_t *s = &p->shape;
    const ptrdiff_t in_image = (ptrdiff_t)s->in_height * s->in_width * s->in_channels;
    const ptrdiff_t out_image = (ptrdiff_t)s->out_height * s->out_width * s->out_channels;
    const int32_t row_words = s->in_channels; /* a pair of tiles, half as many places */
    ec_plan_t plan = {
        .p = p,
        .places = s->in_channels / 2,
        .pairs = (s->out_width + EC_COLUMNS - 1) / EC_COLUMNS,
        .row_words = row_words,
        .position_words = (p->strips + EC_ROWS - 1) * row_words,
        .v = scratch,
    };
    plan.u = plan.v + (ptrdiff_t)plan.pairs * EC_POSITIONS * plan.position_words;
    plan.sums = (int32_t *)(plan.u + (ptrdiff_t)EC_POSITIONS * EC_ROWS * EC_GROUP * plan.places);
    plan.staged = plan.u;
    for (int32_t i = 0; i < s->batches; ++i) {
        const int32_t batch = p->reverse ? s->batches - 1 - i : i;
        ec_image(&plan, in + batch * in_image, out + batch * out_image);
    }
}
