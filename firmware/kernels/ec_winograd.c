/* Bits: TFLM reference_integer_ops::ConvPerChannel (int8). */
#include "ec_winograd.h"

#include <stddef.h>

#include "ec_math.h"
#include "ec_winograd_steps.h"

enum {
    EC_COLUMNS = 2 * EC_WINOGRAD_PAIR, /* of outputs, in a pair of tiles */
    EC_GROUP = EC_WINOGRAD_GROUP,
    EC_GROUP_SCALES = EC_GROUP * EC_WINOGRAD_SCALE_WORDS,
    EC_EDGE = EC_WINOGRAD_EDGE_WORDS,
    EC_PLACE = EC_WINOGRAD_PLACE_WORDS
};

/* Sizes that all functions below need, and where the buffers lie. */
typedef struct {
    const ec_winograd_t *p;
    int8_t *out;        /* of this image */
    int32_t places;
    int32_t groups;
    int32_t all_strips;
    int32_t pairs;
    int32_t block;      /* words of edges from place to place */
    uint32_t *edges;
    uint32_t *v;
    uint32_t *u;
    int32_t *sums;
    uint32_t *outside;  /* a row of padding */
} ec_plan_t;

/* Outputs at the end of a map, of fewer channels or with limits: by way of a whole pair of tiles */
static void ec_outputs_partly(const ec_plan_t *plan, int32_t group, int8_t *out, int32_t rows,
                              int32_t columns)
{
    const ec_winograd_t *p = plan->p;
    int8_t tile[2 * EC_COLUMNS * EC_GROUP];
    const int32_t left = p->shape.out_channels - group * EC_GROUP;
    const int32_t channels = left < EC_GROUP ? left : EC_GROUP;
    ec_winograd_outputs(plan->sums, p->scales + (ptrdiff_t)group * EC_GROUP_SCALES, tile, EC_GROUP,
                        EC_COLUMNS * EC_GROUP);
    for (int32_t y = 0; y < rows; ++y) {
        for (int32_t x = 0; x < columns; ++x) {
            const int8_t *const from = tile + (y * EC_COLUMNS + x) * EC_GROUP;
            const int32_t pixel = y * p->shape.out_width + x;
            int8_t *const to = out + (ptrdiff_t)pixel * p->shape.out_channels;
            for (int32_t i = 0; i < channels; ++i) {
                to[i] = (int8_t)ec_clamp(from[i], p->low, p->high);
            }
        }
    }
}

/* The outputs of one pair of tiles and one group. */
static void ec_pair(const ec_plan_t *plan, const uint32_t *v, const uint32_t *u, int32_t strip,
                    int32_t pair, int32_t group)
{
    const ec_winograd_t *p = plan->p;
    const ec_conv_shape_t *s = &p->shape;
    const int32_t rows = s->out_height - 2 * strip, columns = s->out_width - EC_COLUMNS * pair;
    int8_t *const out = plan->out + group * EC_GROUP +
                        (ptrdiff_t)(2 * strip * s->out_width + EC_COLUMNS * pair) * s->out_channels;
    ec_winograd_product(v, u, plan->sums, plan->places);
    if (rows < 2 || columns < EC_COLUMNS || p->limited ||
        s->out_channels - group * EC_GROUP < EC_GROUP) {
        ec_outputs_partly(plan, group, out, rows < 2 ? rows : 2,
                          columns < EC_COLUMNS ? columns : EC_COLUMNS);
    } else {
        ec_winograd_outputs(plan->sums, p->scales + (ptrdiff_t)group * EC_GROUP_SCALES, out,
                            s->out_channels, s->out_width * s->out_channels);
    }
}

/* B d of the columns beside the map, the same for all strips. */
static void ec_margins(const ec_plan_t *plan)
{
    const ec_conv_shape_t *s = &plan->p->shape;
    const uint32_t pad = (uint32_t)(uint16_t)(2 * plan->p->in_zero) * 0x10001u;
    const int32_t columns = plan->block / EC_EDGE;
    const int32_t behind = s->pad_left + s->in_width;
    for (int32_t place = 0; place < plan->places; ++place) {
        uint32_t *const edges = plan->edges + (ptrdiff_t)place * plan->block;
        for (int32_t x = s->pad_left > 0 ? 0 : behind; x < columns;
             x = x + 1 == s->pad_left ? behind : x + 1) {
            uint32_t *const to = edges + x * EC_EDGE;
            to[0] = to[2] = to[3] = 0;
            to[1] = pad;
        }
    }
}

/* B d of one strip. */
static void ec_strip(const ec_plan_t *plan, const int8_t *in, int32_t strip)
{
    const ec_conv_shape_t *s = &plan->p->shape;
    const int32_t words = plan->places / 2;
    const int32_t top = 2 * strip - s->pad_top;
    const int8_t *rows[4];
    if (top < 0 || top + 3 >= s->in_height) {
        const uint32_t pad = (uint32_t)(uint8_t)plan->p->in_zero * 0x01010101u;
        for (int32_t i = 0; i < s->in_width * words; ++i) {
            plan->outside[i] = pad;
        }
    }
    for (int32_t i = 0; i < 4; ++i) {
        const int32_t y = top + i;
        rows[i] = y < 0 || y >= s->in_height
                      ? (const int8_t *)plan->outside
                      : in + (ptrdiff_t)y * s->in_width * s->in_channels;
    }
    ec_winograd_columns(rows, plan->edges + s->pad_left * EC_EDGE, s->in_width, words, plan->block);
}

static uint32_t *ec_pair_tiles(const ec_plan_t *plan, int32_t pair, uint32_t *v)
{
    ec_winograd_tiles(plan->edges + (ptrdiff_t)pair * EC_COLUMNS * EC_EDGE, v,
                      plan->places, plan->block);
    return v + (ptrdiff_t)plan->places * EC_PLACE;
}

static void ec_group_weights(const ec_plan_t *plan, int32_t group, uint32_t *u)
{
    const ptrdiff_t words = (ptrdiff_t)EC_GROUP * EC_WINOGRAD_TAPS * (plan->places / 2);
    ec_winograd_weights(plan->p->weights + group * words, u, plan->places);
}

/* One image, strip after strip: U of all groups is in plan->u. */
static void ec_by_strip(const ec_plan_t *plan, const int8_t *in)
{
    const ptrdiff_t group_words = (ptrdiff_t)EC_WINOGRAD_POSITIONS * EC_GROUP * plan->places;
    for (int32_t i = 0; i < plan->all_strips; ++i) {
        const int32_t strip = plan->p->reverse ? plan->all_strips - 1 - i : i;
        ec_strip(plan, in, strip);
        for (int32_t pair = 0; pair < plan->pairs; ++pair) {
            ec_pair_tiles(plan, pair, plan->v);
            for (int32_t group = 0; group < plan->groups; ++group) {
                ec_pair(plan, plan->v, plan->u + group * group_words, strip, pair, group);
            }
        }
    }
}

/* One image, band after band. */
static void ec_by_band(const ec_plan_t *plan, const int8_t *in)
{
    const int32_t strips = plan->p->strips;
    const int32_t bands = (plan->all_strips + strips - 1) / strips;
    for (int32_t i = 0; i < bands; ++i) {
        const int32_t first = strips * (plan->p->reverse ? bands - 1 - i : i);
        const int32_t left = plan->all_strips - first;
        const int32_t end = first + (left < strips ? left : strips);
        uint32_t *v = plan->v;
        ec_margins(plan);
        for (int32_t strip = first; strip < end; ++strip) {
            ec_strip(plan, in, strip);
            for (int32_t pair = 0; pair < plan->pairs; ++pair) {
                v = ec_pair_tiles(plan, pair, v);
            }
        }
        for (int32_t group = 0; group < plan->groups; ++group) {
            const uint32_t *from = plan->v;
            ec_group_weights(plan, group, plan->u);
            for (int32_t strip = first; strip < end; ++strip) {
                for (int32_t pair = 0; pair < plan->pairs; ++pair) {
                    ec_pair(plan, from, plan->u, strip, pair, group);
                    from += (ptrdiff_t)plan->places * EC_PLACE;
                }
            }
        }
    }
}

void ec_winograd_s8(const ec_winograd_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    const ec_conv_shape_t *s = &p->shape;
    const ptrdiff_t in_image = (ptrdiff_t)s->in_height * s->in_width * s->in_channels;
    const ptrdiff_t out_image = (ptrdiff_t)s->out_height * s->out_width * s->out_channels;
    ec_plan_t plan = {
        .p = p,
        .out = out,
        .places = s->in_channels / 2,
        .groups = (s->out_channels + EC_GROUP - 1) / EC_GROUP,
        .all_strips = (s->out_height + 1) / 2,
        .pairs = (s->out_width + EC_COLUMNS - 1) / (EC_COLUMNS),
    };
    const int32_t columns = plan.pairs * EC_COLUMNS + 2;
    const ptrdiff_t edge_words = (ptrdiff_t)columns * EC_EDGE * plan.places;
    const ptrdiff_t v_words = (ptrdiff_t)plan.places * EC_PLACE;
    const ptrdiff_t u_words = (ptrdiff_t)plan.places * EC_WINOGRAD_POSITIONS * EC_GROUP;
    uint32_t *const words = scratch;
    plan.block = columns * EC_EDGE;
    if (p->strips == 0) {
        plan.u = words;
        plan.edges = plan.u + plan.groups * u_words;
        plan.v = plan.edges + edge_words;
        plan.outside = plan.v;
        plan.sums = (int32_t *)(plan.v + v_words);
        for (int32_t group = 0; group < plan.groups; ++group) {
            ec_group_weights(&plan, group, plan.u + group * u_words);
        }
        ec_margins(&plan);
    } else {
        plan.v = words;
        plan.edges = plan.v + (ptrdiff_t)p->strips * plan.pairs * v_words;
        plan.outside = plan.edges + edge_words;
        plan.u = plan.edges;
        plan.sums = (int32_t *)(plan.u + u_words);
    }
    for (int32_t i = 0; i < s->batches; ++i) {
        const int32_t batch = p->reverse ? s->batches - 1 - i : i;
        plan.out = out + batch * out_image;
        if (p->strips == 0) {
            ec_by_strip(&plan, in + batch * in_image);
        } else {
            ec_by_band(&plan, in + batch * in_image);
        }
    }
}
