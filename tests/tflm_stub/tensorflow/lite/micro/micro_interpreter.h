/* Runs tests.tflite_builder's conv_net in name only: one input of 72 bytes, one output of 3, which are
 * the first bytes of the input plus 1; five operators, each with an event within it. An input that
 * starts with -128, 127 fails. */
#ifndef STUB_MICRO_INTERPRETER_H_
#define STUB_MICRO_INTERPRETER_H_

#include <stddef.h>
#include <stdint.h>

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/micro/micro_profiler_interface.h"
#include "tensorflow/lite/schema/schema_generated.h"

union TfLitePtrUnion {
    void *data;
};

struct TfLiteTensor {
    TfLitePtrUnion data;
    size_t bytes;
};

STUB_OPEN
class MicroResourceVariables;

class MicroInterpreter {
 public:
    template <unsigned int N>
    MicroInterpreter(const ::tflite::Model *model, const MicroMutableOpResolver<N> &ops,
                     uint8_t *arena, size_t size, MicroResourceVariables * = nullptr,
                     MicroProfilerInterface *profiler = nullptr)
        : model_(model),
          complete_(ops.used == N),
          arena_(arena),
          size_(size),
          profiler_(profiler) {}
    TfLiteStatus AllocateTensors();
    TfLiteStatus Invoke();
    size_t inputs_size() const {
        return 1;
    }
    size_t outputs_size() const {
        return 1;
    }
    TfLiteTensor *input(size_t) {
        return &in_;
    }
    TfLiteTensor *output(size_t) {
        return &out_;
    }
    size_t arena_used_bytes() const;

 private:
    const ::tflite::Model *model_;
    bool complete_;
    uint8_t *arena_;
    size_t size_;
    MicroProfilerInterface *profiler_;
    TfLiteTensor in_, out_;
};
STUB_CLOSE

#endif
