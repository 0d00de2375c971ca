"""TensorFlow Lite Micro: the model as a C array, the operators it needs, and the glue.

The library itself is the user's (PlatformIO or a source tree): nothing of it is copied here. The
tables hold facts of `micro_mutable_op_resolver.h` and of what the reference kernels accept, the
latter measured operator by operator with the `tflite-micro` interpreter (0.dev20261023).
"""

from __future__ import annotations

from string import Template
from typing import NamedTuple

from edgecompress.backends import CONTRACT, cgen, contract, describe
from edgecompress.errors import ConfigError, UnsupportedError
from edgecompress.tflite import Op, Program, Tensor

NAME = "tflm"


FILES = (CONTRACT, "model.cc", "model_data.cc", "model_data.h", "model_ops.cc", "model_ops.h")
"""What `generate` gives, sorted."""


class Kernel(NamedTuple):
    """An operator of TFLM: the resolver's method, and the element types its data may have.

    No types means that the types are not checked here.
    """

    method: str
    dtypes: frozenset[str]


_BUILTINS = """
ABS Abs float32 int8 int16; ADD Add float32 int8 int16 int32; ADD_N AddN float32 int8;
ARG_MAX ArgMax float32 int8; ARG_MIN ArgMin float32 int8;
AVERAGE_POOL_2D AveragePool2D float32 int8 int16; BATCH_MATMUL BatchMatMul;
BATCH_TO_SPACE_ND BatchToSpaceNd float32 int8; BROADCAST_ARGS BroadcastArgs;
BROADCAST_TO BroadcastTo; CAST Cast; CEIL Ceil float32;
CONCATENATION Concatenation float32 int8 int16 int32 int64 bool; CONV_2D Conv2D; COS Cos float32;
CUMSUM CumSum float32 int8; DEPTH_TO_SPACE DepthToSpace float32 int8;
DEPTHWISE_CONV_2D DepthwiseConv2D; DEQUANTIZE Dequantize; DIV Div float32 int8 int32;
DYNAMIC_UPDATE_SLICE DynamicUpdateSlice; ELU Elu float32 int8; EMBEDDING_LOOKUP EmbeddingLookup;
EQUAL Equal float32 int8 int32 int64 bool; EXP Exp float32;
EXPAND_DIMS ExpandDims float32 int8 int16; FILL Fill float32 int8 int32; FLOOR Floor float32;
FLOOR_DIV FloorDiv float32; FLOOR_MOD FloorMod float32; FULLY_CONNECTED FullyConnected;
GATHER Gather float32 int8; GATHER_ND GatherNd float32 int8;
GREATER Greater float32 int8 int16 int32 int64;
GREATER_EQUAL GreaterEqual float32 int8 int32 int64; HARD_SWISH HardSwish float32 int8;
L2_NORMALIZATION L2Normalization float32 int8; L2_POOL_2D L2Pool2D float32;
LEAKY_RELU LeakyRelu float32 int8 int16; LESS Less float32 int8 int32 int64;
LESS_EQUAL LessEqual float32 int8 int32 int64; LOG Log float32;
LOG_SOFTMAX LogSoftmax float32 int8; LOGICAL_AND LogicalAnd; LOGICAL_NOT LogicalNot bool;
LOGICAL_OR LogicalOr; LOGISTIC Logistic float32 int8 int16;
MAX_POOL_2D MaxPool2D float32 int8 int16; MAXIMUM Maximum float32 int8 int16 int32 int64;
MEAN Mean float32 int8 int16; MINIMUM Minimum float32 int8 int16 int32 int64;
MIRROR_PAD MirrorPad float32 int8; MUL Mul float32 int8 int16 int32; NEG Neg float32;
NOT_EQUAL NotEqual float32 int8 int32 int64 bool; PACK Pack float32 int8 int16 int32 int64;
PAD Pad float32 int8 int16 int32; PADV2 PadV2 float32 int8 int16 int32; PRELU Prelu float32 int8;
QUANTIZE Quantize; REDUCE_ALL ReduceAll bool; REDUCE_MAX ReduceMax float32 int8;
REDUCE_MIN ReduceMin float32 int8; RELU Relu float32 int8 int16; RELU6 Relu6 float32 int8 int16;
RESHAPE Reshape; RESIZE_BILINEAR ResizeBilinear float32 int8;
RESIZE_NEAREST_NEIGHBOR ResizeNearestNeighbor float32 int8 int16;
REVERSE_V2 ReverseV2 float32 int8 int16 uint8 int32 int64 bool; ROUND Round float32;
RSQRT Rsqrt float32 int8 int16; SELECT_V2 SelectV2 float32 int8 int16; SHAPE Shape;
SIN Sin float32; SLICE Slice float32 int8 int16 int32 bool; SOFTMAX Softmax float32 int8 int16;
SPACE_TO_BATCH_ND SpaceToBatchNd float32 int8; SPACE_TO_DEPTH SpaceToDepth float32 int8;
SPLIT Split float32 int8 int16 int32; SPLIT_V SplitV float32 int8 int16 int32; SQRT Sqrt float32;
SQUARE Square float32; SQUARED_DIFFERENCE SquaredDifference float32 int8 int16 int32;
SQUEEZE Squeeze; STRIDED_SLICE StridedSlice float32 int8 int16 int32 bool;
SUB Sub float32 int8 int16 int32; SUM Sum float32 int8 int16; SVDF Svdf;
TANH Tanh float32 int8 int16; TRANSPOSE Transpose float32 int8 int16;
TRANSPOSE_CONV TransposeConv;
UNIDIRECTIONAL_SEQUENCE_LSTM UnidirectionalSequenceLSTM;
UNPACK Unpack float32 int8 int16 int32; ZEROS_LIKE ZerosLike float32 int8 int32 int64
"""


def _builtins() -> dict[str, Kernel]:
    entries = (entry.split() for entry in _BUILTINS.split(";"))
    return {kind: Kernel(f"Add{method}", frozenset(types)) for kind, method, *types in entries}


BUILTINS: dict[str, Kernel] = _builtins()

CUSTOMS: dict[str, str] = {
    "CIRCULAR_BUFFER": "AddCircularBuffer",
    "TFLM_DECODE": "AddDecode",
    "TFLite_Detection_PostProcess": "AddDetectionPostprocess",
    "ethos-u": "AddEthosU",
    "SignalDelay": "AddDelay",
    "SignalEnergy": "AddEnergy",
    "SignalFftAutoScale": "AddFftAutoScale",
    "SignalFilterBank": "AddFilterBank",
    "SignalFilterBankLog": "AddFilterBankLog",
    "SignalFilterBankSpectralSubtraction": "AddFilterBankSpectralSubtraction",
    "SignalFilterBankSquareRoot": "AddFilterBankSquareRoot",
    "SignalFramer": "AddFramer",
    "SignalIrfft": "AddIrfft",
    "SignalOverlapAdd": "AddOverlapAdd",
    "SignalPCAN": "AddPCAN",
    "SignalRfft": "AddRfft",
    "SignalStacker": "AddStacker",
    "SignalWindow": "AddWindow",
}
"""Custom operators that TFLM brings, and the resolver's methods."""

_STATEFUL = frozenset(
    {"IF", "WHILE", "CALL", "CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}
)

_WEIGHTED: dict[tuple[str, str], frozenset[str]] = {
    ("float32", "float32"): frozenset({"float32"}),
    ("int8", "int8"): frozenset({"int32"}),
    ("int8", "int4"): frozenset({"int32"}),
    ("int16", "int8"): frozenset({"int32", "int64"}),
}
"""(activation, weights) -> bias types that convolutions and fully connected take.

There are no hybrid kernels: float activations with integer weights do not run. A bias of another
type is not checked by TFLM and would give wrong numbers.
"""

_WEIGHTS: dict[str, tuple[int, int, int]] = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
"""Which inputs are the activation, the weights and the bias."""

_NO_INT4 = frozenset({"TRANSPOSE_CONV"})

_DATA_INPUT = {"SPLIT": 1, "FILL": 1, "SELECT_V2": 1}
"""Which input carries the data where it is not the first."""

_CONSTANT_INPUTS: dict[str, tuple[int, ...]] = {
    "BROADCAST_TO": (1,),
    "EXPAND_DIMS": (1,),
    "FILL": (0,),
    "PAD": (1,),
    "PADV2": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "SPLIT": (0,),
    "SPLIT_V": (2,),
    "STRIDED_SLICE": (1, 2, 3),
    "TRANSPOSE": (1,),
}
"""Inputs that must be constants, because TFLM plans its memory before it runs."""

_CONVERSIONS: dict[str, frozenset[tuple[str, str]]] = {
    "QUANTIZE": frozenset(
        (
            *(
                (source, f"int{bits}")
                for source in ("float32", "int8", "int16", "int32")
                for bits in (8, 16)
            ),
            ("int8", "uint8"),
            ("uint8", "int8"),
        )
    ),
    "DEQUANTIZE": frozenset((source, "float32") for source in ("int8", "int16", "uint8")),
    "CAST": frozenset(
        (source, target)
        for source in ("float32", "int8", "int16", "int32", "bool")
        for target in ("float32", "int8", "int16", "int32", "bool")
    ),
    "BATCH_MATMUL": frozenset((kind, kind) for kind in ("float32", "int8", "int16")),
}
"""(from, to) element types; for BATCH_MATMUL the types of its two sides."""


def supports(program: Program) -> list[str]:
    """Why this model cannot run on TFLM: one line per operator or tensor, none if it can.

    Each names the operator, the layer it comes from and its shapes.
    """
    reasons = describe.boundary(program)
    for op in program.ops:
        reason = _op_reason(program, op)
        if reason:
            reasons.append(f"{describe.where(program, op)}: {reason}")
    return reasons


def _op_reason(program: Program, op: Op) -> str:
    """Why `op` does not run, or an empty string."""
    if op.kind == "CUSTOM":
        return "" if op.custom in CUSTOMS else "TFLM has no such custom operator"
    if op.kind in _STATEFUL:
        return "control flow and variables are not supported; unroll loops, keep no state"
    if op.kind not in BUILTINS:
        return "TFLM has no such operator; replace the layer"
    args = program.args(op)
    for place in _CONSTANT_INPUTS.get(op.kind, ()):
        tensor = args[place] if place < len(args) else None
        if tensor is not None and tensor.data is None and tensor.elements:
            return f"its input {place} is computed at run time; TFLM needs a constant there"
    if op.kind in _WEIGHTS:
        return _weights_reason(op, args)
    if op.kind in _CONVERSIONS:
        pair = args[1] if op.kind == "BATCH_MATMUL" else program.results(op)[0]
        return _conversion_reason(op, args[0], pair)
    return _data_reason(op, args)


def _data_reason(op: Op, args: tuple[Tensor | None, ...]) -> str:
    allowed = BUILTINS[op.kind].dtypes
    place = _DATA_INPUT.get(op.kind, 0)
    data = args[place] if place < len(args) else None
    if data is None or not allowed or data.dtype in allowed:
        return ""
    return f"TFLM takes {', '.join(sorted(allowed))} here, not {data.dtype}"


def _conversion_reason(op: Op, source: Tensor | None, target: Tensor | None) -> str:
    if source is None or target is None or (source.dtype, target.dtype) in _CONVERSIONS[op.kind]:
        return ""
    if source.dtype == "float16" and source.data is not None:
        return "float16 weights do not run on TFLM; quantise to int8, or keep float32"
    return f"TFLM does not combine {source.dtype} with {target.dtype} here"


def _weights_reason(op: Op, args: tuple[Tensor | None, ...]) -> str:
    data, weights, bias = (args[i] if i < len(args) else None for i in _WEIGHTS[op.kind])
    if data is None or weights is None:
        return "its input or its weights are missing"
    biases = _WEIGHTED.get((data.dtype, weights.dtype))
    if biases is None or (weights.dtype == "int4" and op.kind in _NO_INT4):
        if data.dtype == "float32" and weights.scales:
            return (
                f"float32 activations with {weights.dtype} weights (dynamic range) do not run on"
                " TFLM; quantise to int8 or int16x8 with calibration data, or keep float32"
            )
        return f"TFLM has no kernel for {data.dtype} activations with {weights.dtype} weights"
    if bias is not None and bias.dtype not in biases:
        return f"the bias is {bias.dtype}, not {' or '.join(sorted(biases))}"
    return ""


def check(program: Program, name: str) -> None:
    """Raise UnsupportedError where `supports` has something to say about the model `name`."""
    reasons = supports(program)
    if reasons:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise UnsupportedError(f"{name}: {reasons[0]}{more}")


def operators(program: Program) -> tuple[tuple[str, str], ...]:
    """(operator, resolver method) of every operator the model needs, each once, sorted."""
    methods = {
        (op.title, CUSTOMS[op.custom] if op.kind == "CUSTOM" else BUILTINS[op.kind].method)
        for op in program.ops
    }
    return tuple(sorted(methods))


def generate(program: Program, *, name: str, arena: int | None = None) -> dict[str, str]:
    """The model's C++ sources, complete but for the TFLM library: file name -> text.

    Pure: the same arguments, the same text.
    `arena` is the exact size of the static arena in bytes. With None the size is left to the
    build, which must define EC_MODEL_ARENA_BYTES (an `#error` says so). Raises UnsupportedError as
    `check`, ConfigError for a bad name or arena, StageOrderError for a program that was edited and
    not written.
    """
    if arena is not None and arena <= 0:
        raise ConfigError(f"arena: {arena} bytes; give the exact size, or None to leave it open")
    check(program, name)
    data = program.need_file("generate")
    settings = {"arena": "EC_MODEL_ARENA_BYTES" if arena is None else arena}
    banner = cgen.banner(NAME, name=name, sha=program.sha or "", settings=settings)
    symbol = f"{cgen.identifier(name)}_model_data"
    files = {
        "model_data.h": cgen.guarded(
            "model_data.h", _DATA_H.substitute(symbol=symbol, size=len(data))
        ),
        "model_data.cc": _data_source(symbol, data),
        "model_ops.h": cgen.guarded(
            "model_ops.h", _OPS_H.substitute(count=len(operators(program)))
        ),
        "model_ops.cc": _ops_source(program),
        "model.cc": _glue(program, name=name, symbol=symbol, arena=arena),
    }
    return {CONTRACT: contract(), **{path: f"{banner}{text}" for path, text in files.items()}}


def _data_source(symbol: str, data: bytes) -> str:
    array = cgen.byte_array(f"alignas(16) const unsigned char {symbol}[{len(data)}]", data)
    return f'#include "model_data.h"\n\n{array}const unsigned int {symbol}_len = {len(data)};\n'


def _ops_source(program: Program) -> str:
    steps = []
    for kind, method in operators(program):
        users = [program.layer_of(op) for op in program.ops if op.title == kind]
        layers = ", ".join(dict.fromkeys(filter(None, users)))
        note = cgen.comment(f"{kind} x{len(users)}{': ' if layers else ''}{layers}")
        steps.append(
            f"    {note}\n    if (resolver.{method}() != kTfLiteOk) return kTfLiteError;\n"
        )
    return _OPS_CC.substitute(steps="".join(steps))


def _glue(program: Program, *, name: str, symbol: str, arena: int | None) -> str:
    return _MODEL_CC.substitute(
        arena_check=_ARENA_CHECK if arena is None else "",
        arena="EC_MODEL_ARENA_BYTES" if arena is None else arena,
        name=cgen.string(name),
        sha=cgen.string(program.sha or ""),
        backend=cgen.string(NAME),
        symbol=symbol,
        model_bytes=len(program.need_file("generate")),
        input_count=len(program.inputs),
        output_count=len(program.outputs),
        inputs="".join(describe.tensor_infos(program, program.inputs)),
        outputs="".join(describe.tensor_infos(program, program.outputs)),
        op_count=len(program.ops),
        op_kinds="".join(f"    {cgen.string(op.title)},\n" for op in program.ops),
    )


_DATA_H = Template("""\
/* The .tflite, ${size} bytes, 16-byte aligned. */
extern const unsigned char ${symbol}[${size}];
extern const unsigned int ${symbol}_len;
""")

_OPS_H = Template("""\
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

/* Newer releases of the library keep its classes in tflite::micro, older ones in tflite. */
namespace tflite {
namespace micro {}
}

namespace ec_model {

namespace library {
using namespace ::tflite;
using namespace ::tflite::micro;
using Resolver = MicroMutableOpResolver<${count}>;
}

using OpResolver = library::Resolver;

/* Registers exactly the operators that the model needs. */
TfLiteStatus register_ops(OpResolver &resolver);

}
""")

_OPS_CC = Template("""\
#include "model_ops.h"

namespace ec_model {

TfLiteStatus register_ops(OpResolver &resolver) {
${steps}    return kTfLiteOk;
}

}
""")

_ARENA_CHECK = """\
#ifndef EC_MODEL_ARENA_BYTES
#error "the arena size of this model was not measured: define EC_MODEL_ARENA_BYTES"
#endif

"""

_MODEL_CC = Template("""\
#include <stddef.h>
#include <stdint.h>

#include "ec_model.h"
#include "model_data.h"
#include "model_ops.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_profiler_interface.h"
#include "tensorflow/lite/schema/schema_generated.h"

${arena_check}namespace ec_model {

namespace library {
using Interpreter = MicroInterpreter;
using ProfilerInterface = MicroProfilerInterface;
}

namespace {

using Interpreter = library::Interpreter;

constexpr uint32_t kSchemaVersion = 3;
constexpr size_t kArenaBytes = ${arena};
constexpr uint32_t kInputs = ${input_count};
constexpr uint32_t kOutputs = ${output_count};
constexpr uint32_t kOps = ${op_count};

/* Calls ec_model_hook after each operator. Events within an operator are not counted. */
class Profiler final : public library::ProfilerInterface {
 public:
    void operator delete(void *) {} /* never called: nothing here needs C++'s heap */
    uint32_t BeginEvent(const char *) override { return depth_++; }
    void EndEvent(uint32_t) override {
        if (--depth_ != 0) return;
        if (op_ < kOps && ec_model_hook != nullptr) ec_model_hook(op_);
        op_++;
    }
    void restart() { depth_ = op_ = 0; }

 private:
    uint32_t depth_ = 0;
    uint32_t op_ = 0;
};

/* An object built in place by ec_model_init, so that there is no constructor before main. The
 * library's classes hide operator delete, which `new` on themselves would look up. */
template <typename T>
struct Built {
    template <typename... Args>
    explicit Built(Args &&...args) : object(args...) {}
    T object;
};

struct Place {
    void *at;
};

template <typename T>
struct Room {
    alignas(Built<T>) unsigned char bytes[sizeof(Built<T>)];
};

Room<OpResolver> resolver_room;
Room<Profiler> profiler_room;
Profiler *profiler = nullptr;
Room<Interpreter> interpreter_room;
Interpreter *interpreter = nullptr;
bool ready = false;

const ec_tensor_info_t inputs[kInputs] = {
${inputs}};

const ec_tensor_info_t outputs[kOutputs] = {
${outputs}};

const char *const op_kinds[kOps] = {
${op_kinds}};

bool layout_matches() {
    if (interpreter->inputs_size() != kInputs || interpreter->outputs_size() != kOutputs) {
        return false;
    }
    for (uint32_t i = 0; i < kInputs; i++) {
        if (interpreter->input(i)->bytes != inputs[i].bytes) return false;
    }
    for (uint32_t i = 0; i < kOutputs; i++) {
        if (interpreter->output(i)->bytes != outputs[i].bytes) return false;
    }
    return true;
}

}

/* A C symbol, by whose name the linker's map tells the arena from other memory. */
extern "C" {
alignas(16) uint8_t ec_arena[kArenaBytes];
}

}

inline void *operator new(size_t, ec_model::Place place) noexcept {
    return place.at;
}

namespace ec_model {
namespace {

template <typename T, typename... Args>
T *build(Room<T> &room, Args &&...args) {
    return &(new (Place{room.bytes}) Built<T>(args...))->object;
}

}
}

const ec_model_info_t ec_model_info = {
    ${name},
    ${sha},
    ${backend},
    ${model_bytes},
    static_cast<uint32_t>(ec_model::kArenaBytes),
    ec_model::kInputs,
    ec_model::kOutputs,
    ec_model::inputs,
    ec_model::outputs,
    ec_model::kOps,
    ec_model::op_kinds,
};

ec_model_hook_t ec_model_hook = nullptr;

ec_model_status_t ec_model_init(void) {
    using namespace ec_model;
    ready = false;
    if (interpreter != nullptr) {
        interpreter->~Interpreter();
        interpreter = nullptr;
    }
    const ::tflite::Model *model = ::tflite::GetModel(${symbol});
    if (model->version() != kSchemaVersion) return EC_MODEL_ERR_VERSION;
    OpResolver *resolver = build(resolver_room);
    if (register_ops(*resolver) != kTfLiteOk) return EC_MODEL_ERR_OPS;
    profiler = build(profiler_room);
    interpreter =
        build(interpreter_room, model, *resolver, ec_arena, kArenaBytes, nullptr, profiler);
    if (interpreter->AllocateTensors() != kTfLiteOk) return EC_MODEL_ERR_ARENA;
    if (!layout_matches()) return EC_MODEL_ERR_LAYOUT;
    ready = true;
    return EC_MODEL_OK;
}

void *ec_model_input(uint32_t index) {
    using namespace ec_model;
    return ready && index < kInputs ? interpreter->input(index)->data.data : nullptr;
}

ec_model_status_t ec_model_invoke(void) {
    using namespace ec_model;
    if (!ready) return EC_MODEL_ERR_STATE;
    profiler->restart();
    return interpreter->Invoke() == kTfLiteOk ? EC_MODEL_OK : EC_MODEL_ERR_INVOKE;
}

const void *ec_model_output(uint32_t index) {
    using namespace ec_model;
    return ready && index < kOutputs ? interpreter->output(index)->data.data : nullptr;
}

uint32_t ec_model_arena_used(void) {
    using namespace ec_model;
    return ready ? static_cast<uint32_t>(interpreter->arena_used_bytes()) : 0;
}
""")
