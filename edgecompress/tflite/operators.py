"""The TFLite operators: their codes, and the fields of their options, as data.

Facts of the public schema (tensorflow/compiler/mlir/lite/schema/schema.fbs, file identifier
TFL3, version 3). An operator's code is its place in `KINDS`; the number of an options table in the
`BuiltinOptions` union is its place in `OPTIONS`, and a field's number is its place in the table.
"""

from __future__ import annotations

from typing import NamedTuple

from edgecompress.tflite.program import DTYPES, Option

ENUMS: dict[str, tuple[str, ...]] = {
    "activation": ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT"),
    "combiner": ("SUM", "MEAN", "SQRTN"),
    "dtype": tuple(DTYPES),
    "lstm": ("FULL", "BASIC"),
    "mirror": ("REFLECT", "SYMMETRIC"),
    "padding": ("SAME", "VALID"),
    "weights": ("DEFAULT", "SHUFFLED4x16INT8"),
}
"""Field types that are an enumeration: stored as one byte, read as a name."""

SCALARS = {"bool": "?", "i8": "b", "u8": "B", "i32": "i", "u32": "I", "i64": "q", "f32": "f"}
"""Field types that are a number, and their `struct` codes."""


class Field(NamedTuple):
    """A field of an options table: its name, its type (see `_OPTIONS`) and its default."""

    name: str
    type: str
    default: Option


_OPTIONS = """
Conv2D padding:padding stride_w:i32 stride_h:i32 fused_activation_function:activation
  dilation_w_factor:i32=1 dilation_h_factor:i32=1 quantized_bias_type:dtype;
DepthwiseConv2D padding:padding stride_w:i32 stride_h:i32 depth_multiplier:i32
  fused_activation_function:activation dilation_w_factor:i32=1 dilation_h_factor:i32=1;
ConcatEmbeddings num_channels:i32 num_columns_per_channel:[i32]
  embedding_dim_per_channel:[i32];
LSHProjection type:i8;
Pool2D padding:padding stride_w:i32 stride_h:i32 filter_width:i32 filter_height:i32
  fused_activation_function:activation;
SVDF rank:i32 fused_activation_function:activation asymmetric_quantize_inputs:bool;
RNN fused_activation_function:activation asymmetric_quantize_inputs:bool;
FullyConnected fused_activation_function:activation weights_format:weights keep_num_dims:bool
  asymmetric_quantize_inputs:bool quantized_bias_type:dtype quant_spec:[u8];
Softmax beta:f32;
Concatenation axis:i32 fused_activation_function:activation;
Add fused_activation_function:activation pot_scale_int16:bool=true;
L2Norm fused_activation_function:activation;
LocalResponseNormalization radius:i32 bias:f32 alpha:f32 beta:f32;
LSTM fused_activation_function:activation cell_clip:f32 proj_clip:f32 kernel_type:lstm
  asymmetric_quantize_inputs:bool;
ResizeBilinear - - align_corners:bool half_pixel_centers:bool;
Call subgraph:u32;
Reshape new_shape:[i32];
SkipGram ngram_size:i32 max_skip_size:i32 include_all_ngrams:bool;
SpaceToDepth block_size:i32;
EmbeddingLookupSparse combiner:combiner;
Mul fused_activation_function:activation;
Pad;
Gather axis:i32 batch_dims:i32;
BatchToSpaceND; SpaceToBatchND; Transpose;
Reducer keep_dims:bool;
Sub fused_activation_function:activation pot_scale_int16:bool=true;
Div fused_activation_function:activation;
Squeeze squeeze_dims:[i32];
SequenceRNN time_major:bool fused_activation_function:activation
  asymmetric_quantize_inputs:bool;
StridedSlice begin_mask:i32 end_mask:i32 ellipsis_mask:i32 new_axis_mask:i32
  shrink_axis_mask:i32 offset:bool;
Exp; TopKV2;
Split num_splits:i32;
LogSoftmax;
Cast in_data_type:dtype out_data_type:dtype;
Dequantize; MaximumMinimum;
ArgMax output_type:dtype;
Less; Neg; PadV2; Greater; GreaterEqual; LessEqual; Select; Slice;
TransposeConv padding:padding stride_w:i32 stride_h:i32 fused_activation_function:activation
  quantized_bias_type:dtype;
SparseToDense validate_indices:bool;
Tile; ExpandDims; Equal; NotEqual;
Shape out_type:dtype;
Pow;
ArgMin output_type:dtype;
FakeQuant min:f32 max:f32 num_bits:i32 narrow_range:bool;
Pack values_count:i32 axis:i32;
LogicalOr;
OneHot axis:i32;
LogicalAnd; LogicalNot;
Unpack num:i32 axis:i32;
FloorDiv; Square; ZerosLike; Fill;
BidirectionalSequenceLSTM fused_activation_function:activation cell_clip:f32 proj_clip:f32
  merge_outputs:bool time_major:bool=true asymmetric_quantize_inputs:bool;
BidirectionalSequenceRNN time_major:bool fused_activation_function:activation
  merge_outputs:bool asymmetric_quantize_inputs:bool;
UnidirectionalSequenceLSTM fused_activation_function:activation cell_clip:f32 proj_clip:f32
  time_major:bool asymmetric_quantize_inputs:bool diagonal_recurrent_tensors:bool;
FloorMod; Range;
ResizeNearestNeighbor align_corners:bool half_pixel_centers:bool;
LeakyRelu alpha:f32;
SquaredDifference;
MirrorPad mode:mirror;
Abs;
SplitV num_splits:i32;
Unique idx_out_type:dtype=int32;
ReverseV2; AddN; GatherNd; Cos; Where; Rank;
ReverseSequence seq_dim:i32 batch_dim:i32;
MatrixDiag; Quantize; MatrixSetDiag; HardSwish;
If then_subgraph_index:i32 else_subgraph_index:i32;
While cond_subgraph_index:i32 body_subgraph_index:i32;
DepthToSpace block_size:i32;
NonMaxSuppressionV4; NonMaxSuppressionV5; ScatterNd; SelectV2; Densify; SegmentSum;
BatchMatMul adj_x:bool adj_y:bool asymmetric_quantize_inputs:bool;
Cumsum exclusive:bool reverse:bool;
CallOnce init_subgraph_index:i32;
BroadcastTo; Rfft2d;
Conv3D padding:padding stride_d:i32 stride_w:i32 stride_h:i32
  fused_activation_function:activation dilation_d_factor:i32=1 dilation_w_factor:i32=1
  dilation_h_factor:i32=1;
Hashtable table_id:i32 key_dtype:dtype value_dtype:dtype;
HashtableFind; HashtableImport; HashtableSize;
VarHandle container:str shared_name:str;
ReadVariable; AssignVariable;
Random seed:i64 seed2:i64;
Bucketize boundaries:[f32];
Gelu approximate:bool;
DynamicUpdateSlice; UnsortedSegmentProd; UnsortedSegmentMax; UnsortedSegmentMin;
UnsortedSegmentSum; ATan2; Sign; Bitcast; BitwiseXor; RightShift;"""
_KINDS = """
ADD AVERAGE_POOL_2D/Pool2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE
EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION/L2Norm
L2_POOL_2D/Pool2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D/Pool2D
MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH
CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD
UNIDIRECTIONAL_SEQUENCE_RNN/SequenceRNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE
MEAN/Reducer SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM
CAST PRELU MAXIMUM/MaximumMinimum ARG_MAX MINIMUM/MaximumMinimum LESS NEG PADV2 GREATER
GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL
NOT_EQUAL LOG SUM/Reducer SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD/Reducer
REDUCE_MAX/Reducer PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN/Reducer
FLOOR_DIV REDUCE_ANY/Reducer SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR
LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS
WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM
BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG
REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL/Reducer
CONV_3D_TRANSPOSE/Conv3D VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS
RANDOM_STANDARD_NORMAL/Random BUCKETIZE RANDOM_UNIFORM/Random MULTINOMIAL/Random GELU
DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM
ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD
STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP
STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE
STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE
STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE
STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT STABLEHLO_SELECT
STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT
STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA
STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER
STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE
STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
"""


def _field(text: str) -> Field:
    name, _, rest = text.partition(":")
    kind, _, default = rest.partition("=")
    if kind.startswith("["):
        return Field(name, kind, ())
    if kind in ENUMS:
        return Field(name, kind, default or ENUMS[kind][0])
    if kind == "str":
        return Field(name, kind, "")
    if kind == "bool":
        return Field(name, kind, default == "true")
    return Field(name, kind, float(default or 0) if kind == "f32" else int(default or 0))


def _tables() -> dict[str, tuple[Field | None, ...]]:
    entries = (entry.split() for entry in _OPTIONS.split(";") if entry.strip())
    return {
        name: tuple(None if field == "-" else _field(field) for field in fields)
        for name, *fields in entries
    }


OPTIONS: dict[str, tuple[Field | None, ...]] = _tables()
"""Options table by name (without the schema's suffix `Options`); None: a field no longer used."""

OPTION_NAMES = ("", *OPTIONS)
"""Options table by its number in the union; 0 means none."""

_PAIRS = tuple(kind.partition("/") for kind in _KINDS.split())
KINDS: tuple[str, ...] = tuple(kind for kind, _, _ in _PAIRS)
"""Operator by code."""

_BY_SPELLING = {name.lower(): name for name in OPTIONS}
OPTIONS_OF: dict[str, str | None] = {
    kind: table or _BY_SPELLING.get(kind.replace("_", "").lower()) for kind, _, table in _PAIRS
}
"""The options table that belongs to an operator, None where it has no options."""


class Arity(NamedTuple):
    """How many inputs an operator takes: how many must not be left out, the least, the most."""

    required: int
    least: int
    most: int


_ARITY = """
1-1 AVERAGE_POOL_2D MAX_POOL_2D L2_POOL_2D SOFTMAX LOG_SOFTMAX LOGISTIC TANH RELU RELU6 RELU_N1_TO_1
  ELU LEAKY_RELU HARD_SWISH GELU SQUEEZE QUANTIZE DEQUANTIZE ABS NEG EXP LOG SQRT RSQRT SQUARE CAST;
1-2 RESHAPE;
2-2 ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE MEAN SUM REDUCE_MAX REDUCE_MIN PRELU PAD
  MIRROR_PAD EXPAND_DIMS TRANSPOSE SPLIT RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR ARG_MAX ARG_MIN
  BATCH_MATMUL GATHER;
2-3 CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED CONV_3D;
3-3 PADV2 SLICE SPLIT_V;
3-4 TRANSPOSE_CONV;
4-4 STRIDED_SLICE;
4-5 SVDF;
1-20-24 UNIDIRECTIONAL_SEQUENCE_LSTM;
"""


def _arities() -> dict[str, Arity]:
    found: dict[str, Arity] = {}
    for entry in _ARITY.split(";"):
        counts, *kinds = entry.split() or [""]
        numbers = [int(number) for number in counts.split("-") if number]
        for kind in kinds:
            found[kind] = Arity(numbers[0], numbers[-2], numbers[-1])
    return found


ARITY: dict[str, Arity] = _arities()
"""Operators whose number of inputs is checked; they all have an output."""
