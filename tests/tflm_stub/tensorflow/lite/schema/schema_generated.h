#ifndef STUB_SCHEMA_GENERATED_H_
#define STUB_SCHEMA_GENERATED_H_

#include <stdint.h>

#ifndef STUB_VERSION
#define STUB_VERSION 3
#endif

namespace tflite {

struct Model {
    uint32_t version() const {
        return STUB_VERSION;
    }
};

inline const Model *GetModel(const void *data) {
    return static_cast<const Model *>(data);
}

}

#endif
