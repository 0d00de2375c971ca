/* What a generated model promises the application, whichever backend made it.
 *
 * The model lives in one static arena; nothing is allocated. Calls come from one thread, in this
 * order: ec_model_init once, then as often as needed: fill every input, ec_model_invoke, read the
 * outputs. Inputs and outputs may share memory: an invoke may overwrite the inputs, and the outputs
 * hold until an input is written or the next invoke.
 */
#ifndef EC_MODEL_H_
#define EC_MODEL_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EC_TENSOR_MAX_RANK 8

/* Element types, little endian; the numbers are part of the interface. */
typedef enum {
    EC_FLOAT32 = 0,
    EC_INT8 = 1,
    EC_UINT8 = 2,
    EC_INT16 = 3,
    EC_INT32 = 4,
    EC_INT64 = 5,
    EC_BOOL = 6
} ec_dtype_t;

/* Results of ec_model_init and ec_model_invoke; everything but EC_MODEL_OK is negative. */
typedef enum {
    EC_MODEL_OK = 0,
    EC_MODEL_ERR_VERSION = -1, /* the model needs another version of the runtime */
    EC_MODEL_ERR_OPS = -2,     /* an operator could not be registered */
    EC_MODEL_ERR_ARENA = -3,   /* the arena is too small, or an operator refused its tensors */
    EC_MODEL_ERR_LAYOUT = -4,  /* the runtime's inputs or outputs differ from ec_model_info */
    EC_MODEL_ERR_STATE = -5,   /* ec_model_invoke before a successful ec_model_init */
    EC_MODEL_ERR_INVOKE = -6   /* an operator failed */
} ec_model_status_t;

/* An input or output. real = (stored - zero_point) * scale; scale 0 means not quantised. */
typedef struct {
    const char *name;
    ec_dtype_t dtype;
    uint32_t bytes;
    float scale;
    int32_t zero_point;
    uint32_t rank;
    int32_t shape[EC_TENSOR_MAX_RANK]; /* the first `rank` entries */
} ec_tensor_info_t;

typedef struct {
    const char *name;
    const char *sha256;  /* of the .tflite, 64 lower-case hex digits */
    const char *backend; /* "tflm" or "aot" */
    uint32_t model_bytes; /* constants that the model brings into flash */
    uint32_t arena_bytes; /* size of the static arena */
    uint32_t input_count;
    uint32_t output_count;
    const ec_tensor_info_t *inputs;
    const ec_tensor_info_t *outputs;
    uint32_t op_count;           /* operators that ec_model_invoke runs */
    const char *const *op_kinds; /* their kinds in order: "CONV_2D" */
} ec_model_info_t;

extern const ec_model_info_t ec_model_info;

/* Prepares the model; may be called again to start afresh. */
ec_model_status_t ec_model_init(void);

/* Where input `index` is to be written: ec_model_info.inputs[index].bytes bytes. NULL before a
 * successful ec_model_init and for an index that does not exist. */
void *ec_model_input(uint32_t index);

/* Runs one inference. */
ec_model_status_t ec_model_invoke(void);

/* Where output `index` stands after ec_model_invoke. NULL as for ec_model_input. */
const void *ec_model_output(uint32_t index);

/* Called after operator `op` (0 to ec_model_info.op_count - 1) of every invoke, for profiling; NULL,
 * as at the start: not called. Operators come in order; those that run in bands of rows take turns,
 * once for each band. */
typedef void (*ec_model_hook_t)(uint32_t op);
extern ec_model_hook_t ec_model_hook;

/* Bytes of the arena in use after ec_model_init, 0 before. */
uint32_t ec_model_arena_used(void);

#ifdef __cplusplus
}
#endif

#endif
