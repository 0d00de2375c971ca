/* Bits: TFLM reference_integer_ops::FullyConnected and FullyConnectedPerChannel (int8).
 *
 * A row of inputs is expanded to int16 in scratch; the weights of eight outputs then meet it in one
 * pass with eight sums.
 */
#include "ec_fully_connected_pairs.h"

#include <stddef.h>
#include <string.h>

#include "ec_math.h"
#include "ec_pairs.h"
#include "ec_unpack.h"

enum { EC_BLOCK = 8, EC_STEP_WORDS = 4, EC_BLOCK_WORDS = 8 };

/* What ec_blocks works on. The assembly relies on the order. */
typedef struct {
    int8_t *out; /* next block */
    const int8_t *out_end;
    const uint32_t *acts;
    const uint32_t *acts_end;
    int32_t steps;
    const uint32_t *weights;
    const uint32_t *scales;
    int32_t scale_bytes; /* from one output's to the next one's */
    uint32_t limits[3];
    uint32_t *written; /* for a block of weights that are not read where they lie */
    const void *form;  /* that of those weights */
} ec_blocks_t;

#if defined(__ARM_FEATURE_DSP)

/* Registers: r0 acts, r1 weights, r2 a pair of inputs, r3 r12 lr the weights of two outputs each, then
 * r3 those of the last two; r4 r5 sums of 256 P + Q and of Q for outputs 1 and 0, r6 r7 for 3 and 2,
 * r8 r9 for 5 and 4, r10 r11 for 7 and 6. All are in use: the rest lies on the stack, in the order of
 * ec_blocks_t, with the address of the first step to take in the place of `steps`.
 *
 * One step is 15 instructions for 16 products, and EC_STEP_BYTES long. */
#define EC_STEP_BYTES "56"
#define EC_STEP                          \
    "ldmia.n r0!, {r2}\n\t"              \
    "ldmia.w r1!, {r3, r12, lr}\n\t"     \
    "smlad r4, r3, r2, r4\n\t"           \
    "smlad r6, r12, r2, r6\n\t"          \
    "smlad r8, lr, r2, r8\n\t"           \
    "sxtb16 r3, r3\n\t"                  \
    "sxtb16 r12, r12\n\t"                \
    "sxtb16 lr, lr\n\t"                  \
    "smlad r5, r3, r2, r5\n\t"           \
    "ldmia.n r1!, {r3}\n\t"              \
    "smlad r7, r12, r2, r7\n\t"          \
    "smlad r9, lr, r2, r9\n\t"           \
    "smlad r10, r3, r2, r10\n\t"         \
    "sxtb16 r3, r3\n\t"                  \
    "smlad r11, r3, r2, r11\n\t"

/* A sum becomes a result, 128 too large. */
#define EC_SCALE(a)                      \
    "ldm r0, {r2, r3, r12}\n\t"          \
    "add r0, r0, r1\n\t"                 \
    "smmlar lr, " a ", r2, r3\n\t"       \
    "add " a ", lr, " a ", asr #31\n\t"  \
    "asr " a ", " a ", r12\n\t"

__attribute__((naked, noinline)) static void ec_blocks(__attribute__((unused)) const ec_blocks_t *b)
{
    __asm__ volatile(
        "push {r4-r11, lr}\n\t"
        "ldm r0, {r1-r11}\n\t"
        "sub r5, r5, #1\n\t" /* of the steps behind the first, what makes no turn of 8 */
        "and r5, r5, #7\n\t"
        "mov r12, #" EC_STEP_BYTES "\n\t"
        "adr.w lr, 3f\n\t"
        "sub lr, lr, #" EC_STEP_BYTES " - 1\n\t"
        "mls r5, r5, r12, lr\n\t"
        "push {r1-r11}\n"
        "1:\n\t"
        "ldr r1, [sp, #20]\n\t"
        "ldr r0, [sp, #8]\n\t"
        "ldmia r1!, {r4-r11}\n\t"
        "ldr pc, [sp, #16]\n\t"
        ".balign 4\n"
        "2:\n\t"
        ".rept 8\n\t"
        EC_STEP
        ".endr\n"
        "3:\n\t"
        ".if 3b - 2b - 8 * " EC_STEP_BYTES "\n\t"
        ".error \"EC_STEP_BYTES\"\n\t"
        ".endif\n\t"
        "ldr r2, [sp, #12]\n\t"
        "cmp r0, r2\n\t"
        "bne.w 2b\n\t"
        "str r1, [sp, #20]\n\t"
        EC_SPLIT("r4", "r5") EC_SPLIT("r6", "r7") EC_SPLIT("r8", "r9") EC_SPLIT("r10", "r11")
        "ldrd r0, r1, [sp, #24]\n\t"
        EC_SCALE("r5") EC_SCALE("r4") EC_SCALE("r7") EC_SCALE("r6")
        EC_SCALE("r9") EC_SCALE("r8") EC_SCALE("r11") EC_SCALE("r10")
        "str r0, [sp, #24]\n\t"
        EC_PACK("r5", "r4", "r7", "r6") EC_PACK("r9", "r8", "r11", "r10")
        "ldrd r2, r3, [sp, #32]\n\t"
        "ldr r12, [sp, #40]\n\t"
        EC_LIMIT("r5") EC_LIMIT("r9")
        "ldrd r0, r2, [sp]\n\t"
        "str r5, [r0], #4\n\t"
        "str r9, [r0], #4\n\t"
        "str r0, [sp]\n\t"
        "cmp r0, r2\n\t"
        "bne.w 1b\n\t"
        "add sp, sp, #44\n\t"
        "pop {r4-r11, pc}\n\t");
}

#else

static int8_t ec_result(const ec_blocks_t *b, int32_t sum, const uint32_t *scale)
{
    const int32_t x = ec_doubling_high_mul(sum, (int32_t)scale[0]) + (int32_t)scale[1];
    return ec_pairs_limit(ec_clamp((int16_t)((x + (sum >> 31)) >> scale[2]), 0, 255), b->limits);
}

/* Outputs 2 * at and 2 * at + 1 of a block. */
static void ec_two_outputs(const ec_blocks_t *b, const uint32_t *weights, const uint32_t *scales,
                           int8_t *out, int32_t at)
{
    const uint32_t *acts = b->acts;
    const uint32_t *words = weights + EC_BLOCK_WORDS + at;
    uint32_t s = weights[2 * at];
    uint32_t q = weights[2 * at + 1];
    do {
        EC_UNROLL for (int32_t i = 0; i < 2; ++i) {
            int32_t both = ec_half(words, i);
            EC_ORDER(i, both); /* one load that extends the sign, for both forms */
            const int32_t x = ec_half(acts, i);
            s = ec_mac(both, x, s);
            q = ec_mac((int8_t)both, x, q);
        }
        words += EC_STEP_WORDS;
        ++acts;
    } while (acts != b->acts_end);
    const int32_t step = b->scale_bytes / (int32_t)sizeof(*scales);
    scales += 2 * at * step;
    out[2 * at] = ec_result(b, (int32_t)q, scales);
    out[2 * at + 1] = ec_result(b, (int32_t)(s - q) >> 8, scales + step);
}

static void ec_blocks(const ec_blocks_t *b)
{
    const uint32_t *weights = b->weights;
    const uint32_t *scales = b->scales;
    for (int8_t *out = b->out; out != b->out_end; out += EC_BLOCK) {
        for (int32_t at = 0; at < EC_BLOCK / 2; ++at) {
            ec_two_outputs(b, weights, scales, out, at);
        }
        weights += EC_BLOCK_WORDS + (ptrdiff_t)EC_STEP_WORDS * b->steps;
        scales += EC_BLOCK * b->scale_bytes / (int32_t)sizeof(*scales);
    }
}

#endif

/* A row of `count` inputs as pairs. */
static void ec_expand(const int8_t *from, int32_t count, uint32_t *to)
{
    for (; count > 0; count -= 4) {
        uint32_t word = 0;
        if (count >= 4) {
            word = ec_load_u32(from);
        } else {
            memcpy(&word, from, (uint32_t)count);
        }
        to[0] = ec_bytes_even(word);
        to[1] = ec_bytes_odd(word);
        to += 2;
        from += 4;
    }
}

/* All outputs of a row whose inputs are expanded. */
static void ec_row(const ec_fully_connected_pairs_t *p, ec_blocks_t *b, int8_t *out)
{
    const int32_t rest = p->outputs % EC_BLOCK;
    const int32_t whole = p->outputs - rest;
    b->out = out;
    b->out_end = out + whole;
    b->weights = p->weights;
    b->scales = p->scales;
    if (whole > 0) ec_blocks(b);
    if (rest > 0) {
        int8_t last[EC_BLOCK];
        b->out = last;
        b->out_end = last + EC_BLOCK;
        b->weights += (EC_BLOCK_WORDS + (ptrdiff_t)EC_STEP_WORDS * p->steps) * (whole / EC_BLOCK);
        b->scales += (ptrdiff_t)whole * p->scale_step;
        ec_blocks(b);
        memcpy(out + whole, last, (uint32_t)rest);
    }
}

/* Writes a block of weights of the form; returns what is behind it in flash. */
typedef const uint32_t *ec_write_t(const void *form, const uint32_t *from, uint32_t *to);

/* The same, block after block written behind the inputs first. */
static inline void ec_written_row(const ec_fully_connected_pairs_t *p, const uint32_t *from,
                                  ec_write_t *write, ec_blocks_t *b, int8_t *out)
{
    b->weights = b->written;
    b->scales = p->scales;
    for (int32_t left = p->outputs; left > 0; left -= EC_BLOCK) {
        int8_t last[EC_BLOCK];
        from = write(b->form, from, b->written);
        b->out = left < EC_BLOCK ? last : out;
        b->out_end = b->out + EC_BLOCK;
        ec_blocks(b);
        if (left < EC_BLOCK) {
            memcpy(out, last, (uint32_t)left);
        }
        out += EC_BLOCK;
        b->scales += (ptrdiff_t)EC_BLOCK * p->scale_step;
    }
}

static const uint32_t *ec_unpacked(const void *form, const uint32_t *from, uint32_t *to)
{
    const ec_fully_connected_pairs_t *const p = form;
    const int32_t words = EC_STEP_WORDS * p->steps;
    memcpy(to, from, EC_BLOCK_WORDS * sizeof(*from));
    from += EC_BLOCK_WORDS;
    ec_unpack_words(from, p->bits, words, to + EC_BLOCK_WORDS);
    return from + ec_packed_words(words, p->bits);
}

static void ec_packed_row(const ec_fully_connected_pairs_t *p, ec_blocks_t *b, int8_t *out)
{
    ec_written_row(p, p->weights, ec_unpacked, b, out);
}

static const uint32_t *ec_decoded(const void *form, const uint32_t *from, uint32_t *to)
{
    ec_decode_t block = *(const ec_decode_t *)form;
    block.packed = from;
    return ec_decode(&block, to);
}

static void ec_decoded_row(const ec_fully_connected_pairs_t *p, ec_blocks_t *b, int8_t *out)
{
    const ec_decode_t *const decode = b->form;
    ec_written_row(p, decode->packed, ec_decoded, b, out);
}

static void ec_rows(const ec_fully_connected_pairs_t *p, const void *form, const int8_t *in,
                    int8_t *out, void *scratch,
                    void (*row)(const ec_fully_connected_pairs_t *p, ec_blocks_t *b, int8_t *out))
{
    uint32_t *const acts = scratch;
    ec_blocks_t b = {
        .acts = acts,
        .acts_end = acts + p->steps,
        .steps = p->steps,
        .scale_bytes = p->scale_step * (int32_t)sizeof(*p->scales),
        .limits = {p->limits[0], p->limits[1], p->limits[2]},
        .written = acts + p->steps,
        .form = form,
    };
    for (int32_t batch = 0; batch < p->batches; ++batch) {
        ec_expand(in, p->inputs, acts);
        row(p, &b, out);
        in += p->inputs;
        out += p->outputs;
    }
}

void ec_fully_connected_pairs_s8(const ec_fully_connected_pairs_t *p, const int8_t *in, int8_t *out,
                                 void *scratch)
{
    ec_rows(p, p, in, out, scratch, ec_row);
}

void ec_fully_connected_pairs_packed_s8(const ec_fully_connected_pairs_t *p, const int8_t *in,
                                        int8_t *out, void *scratch)
{
    ec_rows(p, p, in, out, scratch, ec_packed_row);
}

void ec_fully_connected_pairs_decoded_s8(const ec_fully_connected_pairs_decoded_t *p,
                                         const int8_t *in, int8_t *out, void *scratch)
{
    ec_rows(&p->matrix, &p->decode, in, out, scratch, ec_decoded_row);
}
