/* A model that does nothing: an image with it is what every image costs without a model. */
#include <stddef.h>

#include "ec_model.h"

const ec_model_info_t ec_model_info = {.name = "empty", .sha256 = "-", .backend = "empty"};

ec_model_hook_t ec_model_hook = NULL;

ec_model_status_t ec_model_init(void) {
    return EC_MODEL_OK;
}

void *ec_model_input(uint32_t index) {
    (void)index;
    return NULL;
}

ec_model_status_t ec_model_invoke(void) {
    return EC_MODEL_OK;
}

const void *ec_model_output(uint32_t index) {
    (void)index;
    return NULL;
}

uint32_t ec_model_arena_used(void) {
    return 0;
}
