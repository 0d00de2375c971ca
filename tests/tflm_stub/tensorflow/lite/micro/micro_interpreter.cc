#include "tensorflow/lite/micro/micro_interpreter.h"

STUB_OPEN

static const size_t kUsed = 200, kLeast = 256, kOutput = 128;
static const int kOps = 5;

TfLiteStatus MicroInterpreter::AllocateTensors() {
    const uint8_t *file = reinterpret_cast<const uint8_t *>(model_);
    if (file[4] != 'T' || file[5] != 'F' || file[6] != 'L') return kTfLiteError;
    if (!complete_ || size_ < kLeast) return kTfLiteError;
    in_ = {{arena_}, 72};
    out_ = {{arena_ + kOutput}, 3};
    return kTfLiteOk;
}

TfLiteStatus MicroInterpreter::Invoke() {
    const uint8_t *from = static_cast<const uint8_t *>(in_.data.data);
    uint8_t *to = static_cast<uint8_t *>(out_.data.data);
    if (from[0] == 0x80 && from[1] == 0x7f) return kTfLiteError;
    for (int i = 0; i < kOps; i++) {
        const uint32_t op = profiler_->BeginEvent("op");
        const uint32_t part = profiler_->BeginEvent("a part of it");
        if (i < 3) to[i] = static_cast<uint8_t>(from[i] + 1);
        profiler_->EndEvent(part);
        profiler_->EndEvent(op);
    }
    return kTfLiteOk;
}

size_t MicroInterpreter::arena_used_bytes() const {
    return kUsed;
}

STUB_CLOSE
