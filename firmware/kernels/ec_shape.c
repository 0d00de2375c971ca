#include "ec_shape.h"

#include <string.h>

/* `count` runs; each is read as a whole before it is written, so that it may overlap itself. */
static void ec_copy_runs(const uint8_t *in, uint8_t *out, int32_t run, int32_t count,
                         int32_t in_stride, int32_t out_stride)
{
    for (int32_t i = 0; i < count; i++) {
        const uint8_t *from = in + i * in_stride;
        uint8_t *to = out + i * out_stride;
        if (run == 1) {
            *to = *from;
        } else if (run == 2) {
            uint16_t half;
            memcpy(&half, from, sizeof half);
            memcpy(to, &half, sizeof half);
        } else if (run == 4) {
            uint32_t word;
            memcpy(&word, from, sizeof word);
            memcpy(to, &word, sizeof word);
        } else {
            memmove(to, from, (size_t)run);
        }
    }
}

void ec_copy(const ec_copy_t *p, const void *in, void *out)
{
    const int32_t sign = p->reverse ? -1 : 1;
    const int32_t *last = p->axes + 3 * (p->rank - 1);
    int32_t index[EC_SHAPE_AXES] = {0};
    int32_t from = p->in_start;
    int32_t to = p->out_start;
    if (p->reverse) {
        for (int32_t i = 0; i < p->rank; i++) {
            from += (p->axes[3 * i] - 1) * p->axes[3 * i + 1];
            to += (p->axes[3 * i] - 1) * p->axes[3 * i + 2];
        }
    }
    for (;;) {
        ec_copy_runs((const uint8_t *)in + from, (uint8_t *)out + to, p->run, last[0],
                     sign * last[1], sign * last[2]);
        int32_t i = p->rank - 2;
        for (; i >= 0; i--) {
            const int32_t *axis = p->axes + 3 * i;
            if (++index[i] < axis[0]) {
                from += sign * axis[1];
                to += sign * axis[2];
                break;
            }
            index[i] = 0;
            from -= sign * (axis[0] - 1) * axis[1];
            to -= sign * (axis[0] - 1) * axis[2];
        }
        if (i < 0) {
            return;
        }
    }
}

static void ec_pad_fill(const ec_pad_t *p, uint8_t *out, int32_t bytes)
{
    if (p->width == 1) {
        memset(out, (int)(p->value & 0xFFu), (size_t)bytes);
    } else if (p->width == 2) {
        const uint16_t half = (uint16_t)p->value;
        for (int32_t i = 0; i < bytes; i += 2) {
            memcpy(out + i, &half, sizeof half);
        }
    } else {
        for (int32_t i = 0; i < bytes; i += 4) {
            memcpy(out + i, &p->value, sizeof p->value);
        }
    }
}

static int ec_pad_inside(const ec_pad_t *p, int32_t row)
{
    for (int32_t i = p->rank - 1; i >= 0; i--) {
        const int32_t *axis = p->axes + 3 * i;
        const int32_t place = row % axis[0];
        if (place < axis[1] || place >= axis[2]) {
            return 0;
        }
        row /= axis[0];
    }
    return 1;
}

/* The rows of the input come in the order of those of the output that lie inside. */
void ec_pad(const ec_pad_t *p, const void *in, void *out)
{
    const int32_t width = p->before + p->run + p->after;
    int32_t inside = 1;
    for (int32_t i = 0; i < p->rank; i++) {
        inside *= p->axes[3 * i + 2] - p->axes[3 * i + 1];
    }
    int32_t from = p->reverse ? (inside - 1) * p->run : 0;
    for (int32_t i = 0; i < p->rows; i++) {
        const int32_t row = p->reverse ? p->rows - 1 - i : i;
        uint8_t *to = (uint8_t *)out + row * width;
        if (!ec_pad_inside(p, row)) {
            ec_pad_fill(p, to, width);
            continue;
        }
        memmove(to + p->before, (const uint8_t *)in + from, (size_t)p->run);
        ec_pad_fill(p, to, p->before);
        ec_pad_fill(p, to + p->before + p->run, p->after);
        from += p->reverse ? -p->run : p->run;
    }
}
