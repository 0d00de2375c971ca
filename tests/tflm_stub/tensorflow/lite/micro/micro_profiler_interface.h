#ifndef STUB_MICRO_PROFILER_INTERFACE_H_
#define STUB_MICRO_PROFILER_INTERFACE_H_

#include <stdint.h>

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

STUB_OPEN
class MicroProfilerInterface {
 public:
    virtual ~MicroProfilerInterface() {}
    virtual uint32_t BeginEvent(const char *tag) = 0;
    virtual void EndEvent(uint32_t event_handle) = 0;
};
STUB_CLOSE

#endif
