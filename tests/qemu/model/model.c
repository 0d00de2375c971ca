/* A model written by hand: two inputs, two operators, two outputs; an invoke overwrites input 0. */
#include "ec_model.h"

#include <stddef.h>

#include "ec_small.h"

static const int8_t w_0[100] = {
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
    24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45,
    46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67,
    68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89,
    90, 91, 92, 93, 94, 95, 96, 97, 98, 99,
};
static const ec_small_t p_0 = {.count = 100, .weights = w_0};
static const ec_small_t p_1 = {.count = 4, .weights = NULL};

static _Alignas(16) uint8_t ec_arena[208];

static const char *const c_op_kinds[] = {"ADD", "odd %kind"};

static const ec_tensor_info_t c_inputs[] = {
    {"four", EC_INT8, 4, 0.5f, 0, 2, {1, 4}},
    {"hundred", EC_INT8, 100, 0.5f, 0, 2, {1, 100}},
};

static const ec_tensor_info_t c_outputs[] = {
    {"sums", EC_INT8, 100, 0.5f, 0, 2, {1, 100}},
    {"turned", EC_INT8, 4, 0.5f, 0, 2, {1, 4}},
};

const ec_model_info_t ec_model_info = {
    .name = "two words",
    .sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    .backend = "aot",
    .model_bytes = sizeof(w_0) + sizeof(p_0) + sizeof(p_1),
    .arena_bytes = sizeof(ec_arena),
    .input_count = 2,
    .output_count = 2,
    .inputs = c_inputs,
    .outputs = c_outputs,
    .op_count = 2,
    .op_kinds = c_op_kinds,
};

ec_model_hook_t ec_model_hook = NULL;

ec_model_status_t ec_model_init(void) {
    return EC_MODEL_OK;
}

void *ec_model_input(uint32_t index) {
    return index == 0 ? ec_arena + 100 : ec_arena;
}

ec_model_status_t ec_model_invoke(void) {
    ec_small_add(&p_0, (const int8_t *)ec_arena, (int8_t *)ec_arena);
    if (ec_model_hook != NULL) ec_model_hook(0);
    ec_small_reverse(&p_1, (const int8_t *)ec_arena + 100, (int8_t *)ec_arena + 104);
    for (uint32_t i = 100; i < 104; i++) ec_arena[i] = 0;
    if (ec_model_hook != NULL) ec_model_hook(1);
    return EC_MODEL_OK;
}

const void *ec_model_output(uint32_t index) {
    return index == 0 ? ec_arena : ec_arena + 104;
}

uint32_t ec_model_arena_used(void) {
    return sizeof(ec_arena);
}
