"""Tables of the TFLite schema: tensor types, operator names, options of the operators people look at.

Source: google-ai-edge/LiteRT:tflite/converter/schema/schema.fbs.
"""

from __future__ import annotations

from typing import Final

#: Number in the file -> (datatype, bits per element). Names are the Open Inference Protocol's where it has one;
#: 0 bits = variable. Types beyond this table are newer than this reader: `datatype` names them TYPE_<n>.
TENSOR_TYPES: Final[tuple[tuple[str, int], ...]] = (
    ("FP32", 32), ("FP16", 16), ("INT32", 32), ("UINT8", 8), ("INT64", 64), ("BYTES", 0), ("BOOL", 8), ("INT16", 16),
    ("COMPLEX64", 64), ("INT8", 8), ("FP64", 64), ("COMPLEX128", 128), ("UINT64", 64), ("RESOURCE", 0), ("VARIANT", 0),
    ("UINT32", 32), ("UINT16", 16), ("INT4", 4), ("BF16", 16), ("INT2", 2), ("UINT4", 4), ("FP8_E4M3FN", 8),
    ("FP8_E5M2", 8),
)  # fmt: skip

#: Operator code -> name.
_NAMES: Final = """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
    FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC
    LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH
    SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN
    GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM
    STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM
    CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN
    TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN
    FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV
    REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE
    MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG
    QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND
    SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO
    RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL
    CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE
    RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX
    UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC
    STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP
    STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL
    STABLEHLO_REDUCE STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR
    STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER
    STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE
    STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA
    STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER
    STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT
    STABLEHLO_CBRT STABLEHLO_CASE
"""
OPERATORS: Final[tuple[str, ...]] = tuple(_NAMES.split())

PADDING: Final = ("SAME", "VALID")
ACTIVATION: Final = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")

#: One option: name, slot, kind, default. Kinds are struct letters; "A" activation, "P" padding, "V" vector of i32,
#: "F" vector of f32, "S" string, "G" number of another subgraph.
Option = tuple[str, int, str, int]

_ACT: Final[tuple[Option, ...]] = (("activation", 0, "A", 0),)
_POOL: Final[tuple[Option, ...]] = (
    ("padding", 0, "P", 0), ("stride_w", 1, "i", 0), ("stride_h", 2, "i", 0), ("filter_w", 3, "i", 0),
    ("filter_h", 4, "i", 0), ("activation", 5, "A", 0),
)  # fmt: skip
_REDUCE: Final[tuple[Option, ...]] = (("keep_dims", 0, "?", 0),)

#: Operator name -> its options. Operators that are not here have none that matter to anybody who only reads.
OPTIONS: Final[dict[str, tuple[Option, ...]]] = {
    "ADD": _ACT, "MUL": _ACT, "SUB": _ACT, "DIV": _ACT, "L2_NORMALIZATION": _ACT, "RNN": _ACT,
    "AVERAGE_POOL_2D": _POOL, "MAX_POOL_2D": _POOL, "L2_POOL_2D": _POOL,
    "MEAN": _REDUCE, "SUM": _REDUCE, "REDUCE_MAX": _REDUCE, "REDUCE_MIN": _REDUCE, "REDUCE_PROD": _REDUCE,
    "REDUCE_ANY": _REDUCE, "REDUCE_ALL": _REDUCE,
    "CONV_2D": (
        ("padding", 0, "P", 0), ("stride_w", 1, "i", 0), ("stride_h", 2, "i", 0), ("activation", 3, "A", 0),
        ("dilation_w", 4, "i", 1), ("dilation_h", 5, "i", 1),
    ),
    "DEPTHWISE_CONV_2D": (
        ("padding", 0, "P", 0), ("stride_w", 1, "i", 0), ("stride_h", 2, "i", 0), ("depth_multiplier", 3, "i", 0),
        ("activation", 4, "A", 0), ("dilation_w", 5, "i", 1), ("dilation_h", 6, "i", 1),
    ),
    "TRANSPOSE_CONV": (
        ("padding", 0, "P", 0), ("stride_w", 1, "i", 0), ("stride_h", 2, "i", 0), ("activation", 3, "A", 0),
    ),
    "FULLY_CONNECTED": (
        ("activation", 0, "A", 0), ("weights_format", 1, "b", 0), ("keep_num_dims", 2, "?", 0),
        ("asymmetric_quantize_inputs", 3, "?", 0),
    ),
    "CONCATENATION": (("axis", 0, "i", 0), ("activation", 1, "A", 0)),
    "SOFTMAX": (("beta", 0, "f", 0),),
    "RESHAPE": (("new_shape", 0, "V", 0),),
    "SQUEEZE": (("squeeze_dims", 0, "V", 0),),
    "RESIZE_BILINEAR": (("align_corners", 2, "?", 0), ("half_pixel_centers", 3, "?", 0)),
    "RESIZE_NEAREST_NEIGHBOR": (("align_corners", 0, "?", 0), ("half_pixel_centers", 1, "?", 0)),
    "STRIDED_SLICE": (
        ("begin_mask", 0, "i", 0), ("end_mask", 1, "i", 0), ("ellipsis_mask", 2, "i", 0), ("new_axis_mask", 3, "i", 0),
        ("shrink_axis_mask", 4, "i", 0),
    ),
    "LSTM": (("activation", 0, "A", 0), ("cell_clip", 1, "f", 0), ("proj_clip", 2, "f", 0), ("kernel_type", 3, "b", 0)),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        ("activation", 0, "A", 0), ("cell_clip", 1, "f", 0), ("proj_clip", 2, "f", 0), ("time_major", 3, "?", 0),
    ),
    "PACK": (("values_count", 0, "i", 0), ("axis", 1, "i", 0)),
    "UNPACK": (("num", 0, "i", 0), ("axis", 1, "i", 0)),
    "SPLIT": (("num_splits", 0, "i", 0),),
    "SPLIT_V": (("num_splits", 0, "i", 0),),
    "GATHER": (("axis", 0, "i", 0), ("batch_dims", 1, "i", 0)),
    "LEAKY_RELU": (("alpha", 0, "f", 0),),
    "SPACE_TO_DEPTH": (("block_size", 0, "i", 0),),
    "DEPTH_TO_SPACE": (("block_size", 0, "i", 0),),
    "MIRROR_PAD": (("mode", 0, "b", 0),),
    "ONE_HOT": (("axis", 0, "i", 0),),
    "BATCH_MATMUL": (("adj_x", 0, "?", 0), ("adj_y", 1, "?", 0)),
    "LOCAL_RESPONSE_NORMALIZATION": (
        ("radius", 0, "i", 0), ("bias", 1, "f", 0), ("alpha", 2, "f", 0), ("beta", 3, "f", 0),
    ),
    "CALL": (("subgraph", 0, "G", 0),),
    "IF": (("then_subgraph", 0, "G", 0), ("else_subgraph", 1, "G", 0)),
    "WHILE": (("cond_subgraph", 0, "G", 0), ("body_subgraph", 1, "G", 0)),
    "CALL_ONCE": (("init_subgraph", 0, "G", 0),),
    "VAR_HANDLE": (("container", 0, "S", 0), ("shared_name", 1, "S", 0)),
    "BUCKETIZE": (("boundaries", 0, "F", 0),),
}  # fmt: skip


def datatype(number: int) -> tuple[str, int]:
    """(datatype, bits per element) of a tensor type number; ("TYPE_<n>", 0) for one this table does not know."""
    return TENSOR_TYPES[number] if 0 <= number < len(TENSOR_TYPES) else (f"TYPE_{number}", 0)


def operator_name(code: int) -> str:
    """Name of an operator code; BUILTIN_<n> for one this table does not know."""
    return OPERATORS[code] if 0 <= code < len(OPERATORS) else f"BUILTIN_{code}"
