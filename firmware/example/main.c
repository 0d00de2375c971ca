/* The smallest program around a generated model: it runs once on zeros and prints the outputs.
 *
 *     cc -std=c11 -O2 -I. *.c example/main.c -lm && ./a.out
 */
#include <stdio.h>
#include <string.h>

#include "ec_model.h"

static void print_output(uint32_t index) {
    const ec_tensor_info_t *info = &ec_model_info.outputs[index];
    const uint8_t *bytes = (const uint8_t *)ec_model_output(index);
    printf("%s:", info->name);
    for (uint32_t i = 0; i < info->bytes; i++) printf(" %02x", bytes[i]);
    printf("\n");
}

int main(void) {
    if (ec_model_init() != EC_MODEL_OK) return 1;
    for (uint32_t i = 0; i < ec_model_info.input_count; i++) {
        memset(ec_model_input(i), 0, ec_model_info.inputs[i].bytes);
    }
    if (ec_model_invoke() != EC_MODEL_OK) return 1;
    for (uint32_t i = 0; i < ec_model_info.output_count; i++) print_output(i);
    return 0;
}
