#include "ec_winograd_map.h"

#include <stddef.h>

#include "ec_winograd_store.h"

enum {
    EC_GROUP = EC_WINOGRAD_GROUP,
    EC_MOST_ROWS = EC_WINOGRAD_MOST_TILE + 2
};

/* Sizes that all functions below need, and where the buffers lie. */
typedef struct {
    const ec_winograd_t *p;
    const ec_winograd_steps_t *steps;
    int8_t *out;         /* of this image */
    uint32_t pad;
    int32_t tile;
    int32_t wide;        /* columns of outputs in a pair of tiles */
    int32_t places;
    int32_t groups;
    int32_t all_strips;
    int32_t pairs;
    int32_t columns;     /* of edges */
    int32_t column_step; /* words of edges from column to column */
    ptrdiff_t u_words;   /* of a group */
    ptrdiff_t v_words;   /* of a pair of tiles */
    uint32_t *edges;
    uint32_t *v;
    uint32_t *u;
    int32_t *sums;
    uint32_t *outside;   /* a row of padding; or a strip's rows */
} ec_plan_t;

/* The outputs of one pair of tiles and one group. */
static void ec_pair(const ec_plan_t *plan, const uint32_t *v, const uint32_t *u, int32_t strip,
                    int32_t pair, int32_t group)
{
    const ec_winograd_tile_t at = {
        .y = plan->tile * strip,
        .x = plan->wide * pair,
        .channel = group * EC_GROUP,
        .rows = plan->tile,
        .columns = plan->wide,
    };
    plan->steps->product(v, u, plan->sums, plan->places);
    ec_winograd_store(plan->p, plan->steps->outputs, plan->sums, plan->out, at);
}

/* B d of the columns beside the map, the same for all strips. */
static void ec_margins(const ec_plan_t *plan)
{
    const ec_conv_shape_t *s = &plan->p->shape;
    const int32_t behind = s->pad_left + s->in_width, values = plan->tile + 2;
    const int32_t value_step = plan->steps->edges_by_row ? plan->columns : 1;
    uint32_t *edges = plan->edges;
    for (int32_t place = 0; place < plan->places; ++place) {
        for (int32_t x = s->pad_left > 0 ? 0 : behind; x < plan->columns;
             x = x + 1 == s->pad_left ? behind : x + 1) {
            uint32_t *const to = edges + x * plan->column_step;
            for (int32_t i = 0; i < values; ++i) {
                to[i * value_step] = i == 1 ? plan->pad : 0;
            }
        }
        edges += values * plan->columns;
    }
}

/* B d of one strip. */
static void ec_strip(const ec_plan_t *plan, const int8_t *in, int32_t strip)
{
    const ec_conv_shape_t *s = &plan->p->shape;
    const int32_t words = plan->places / 2, row_words = s->in_width * words;
    const int32_t top = plan->tile * strip - s->pad_top, count = plan->tile + 2;
    const int outside = top < 0 || top + count > s->in_height;
    const uint32_t pad = (uint32_t)(uint8_t)plan->p->in_zero * 0x01010101u;
    const int8_t *rows[EC_MOST_ROWS];
    uint32_t *staged = plan->outside;
    if (outside && !plan->steps->rows_together) {
        ec_winograd_stage(NULL, staged, row_words, pad);
    }
    for (int32_t i = 0; i < count; ++i) {
        const int32_t y = top + i;
        const int within = y >= 0 && y < s->in_height;
        const int8_t *const row = within ? in + 4 * (ptrdiff_t)y * row_words : NULL;
        rows[i] = row ? row : (const int8_t *)staged;
        if (outside && plan->steps->rows_together) {
            ec_winograd_stage(row, staged, row_words, pad);
            rows[i] = (const int8_t *)staged;
            staged += row_words;
        }
    }
    plan->steps->columns(rows, plan->edges + s->pad_left * plan->column_step, s->in_width, words,
                         plan->columns);
}

static uint32_t *ec_pair_tiles(const ec_plan_t *plan, int32_t pair, uint32_t *v)
{
    plan->steps->tiles(plan->edges + (ptrdiff_t)pair * plan->wide * plan->column_step, v,
                       plan->places, plan->columns);
    return v + plan->v_words;
}

static void ec_group_weights(const ec_plan_t *plan, int32_t group, uint32_t *u)
{
    const ptrdiff_t words = (ptrdiff_t)EC_GROUP * EC_WINOGRAD_TAPS * (plan->places / 2);
    plan->steps->weights(plan->p->weights + group * words, u, plan->places);
}

/* One image, strip after strip: U of all groups is in plan->u. */
static void ec_by_strip(const ec_plan_t *plan, const int8_t *in)
{
    for (int32_t i = 0; i < plan->all_strips; ++i) {
        const int32_t strip = plan->p->reverse ? plan->all_strips - 1 - i : i;
        ec_strip(plan, in, strip);
        for (int32_t pair = 0; pair < plan->pairs; ++pair) {
            ec_pair_tiles(plan, pair, plan->v);
            for (int32_t group = 0; group < plan->groups; ++group) {
                ec_pair(plan, plan->v, plan->u + group * plan->u_words, strip, pair, group);
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
                    from += plan->v_words;
                }
            }
        }
    }
}

void ec_winograd_map(const ec_winograd_t *p, const ec_winograd_steps_t *steps, uint32_t pad,
                     const int8_t *in, int8_t *out, void *scratch)
{
    const ec_conv_shape_t *s = &p->shape;
    const ptrdiff_t in_image = (ptrdiff_t)s->in_height * s->in_width * s->in_channels;
    const ptrdiff_t out_image = (ptrdiff_t)s->out_height * s->out_width * s->out_channels;
    const int32_t wide = EC_WINOGRAD_PAIR * steps->tile, values = steps->tile + 2;
    ec_plan_t plan = {
        .p = p,
        .steps = steps,
        .out = out,
        .pad = pad,
        .tile = steps->tile,
        .wide = wide,
        .places = s->in_channels / 2,
        .groups = (s->out_channels + EC_GROUP - 1) / EC_GROUP,
        .all_strips = (s->out_height + steps->tile - 1) / steps->tile,
        .pairs = (s->out_width + wide - 1) / wide,
        .column_step = steps->edges_by_row ? 1 : values,
    };
    uint32_t *const words = scratch;
    plan.columns = plan.pairs * wide + 2;
    plan.u_words = (ptrdiff_t)values * values * EC_GROUP * plan.places;
    plan.v_words = (ptrdiff_t)values * values * EC_WINOGRAD_PAIR * plan.places;
    const ptrdiff_t edge_words = (ptrdiff_t)values * plan.columns * plan.places;
    if (p->strips == 0) {
        plan.u = words;
        plan.edges = plan.u + plan.groups * plan.u_words;
        plan.v = plan.edges + edge_words;
        plan.outside = plan.v;
        plan.sums = (int32_t *)(plan.v + plan.v_words);
        for (int32_t group = 0; group < plan.groups; ++group) {
            ec_group_weights(&plan, group, plan.u + group * plan.u_words);
        }
        ec_margins(&plan);
    } else {
        plan.v = words;
        plan.edges = plan.v + (ptrdiff_t)p->strips * plan.pairs * plan.v_words;
        plan.outside = plan.edges + edge_words;
        plan.u = plan.edges;
        plan.sums = (int32_t *)(plan.u + plan.u_words);
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
