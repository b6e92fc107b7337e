"""Operators that the K210's compilers take."""

from __future__ import annotations

from typing import Final

_TFLITE_19: Final = """
    ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND CAST CEIL CONCATENATION CONV_2D COS
    DEPTHWISE_CONV_2D DEQUANTIZE DIV EQUAL EXP EXPAND_DIMS FAKE_QUANT FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED
    GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH L2_NORMALIZATION LEAKY_RELU LESS LESS_EQUAL LOG LOGISTIC
    LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 POW PRELU
    QUANTIZE REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR ROUND
    RSQRT SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPLIT SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE
    SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV
"""
#: What nncase 1.9 reads of TFLite files (the names of its importer's functions, release of 2023-03-22).
TFLITE_19: Final = frozenset(_TFLITE_19.split())

_UNSUPPORTED: Final = """
    ARG_MAX ARG_MIN BATCH_TO_SPACE_ND CAST EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL NOT_EQUAL EXPAND_DIMS
    GATHER GATHER_ND LOG_SOFTMAX PACK POW SHAPE SPACE_TO_BATCH_ND SPLIT SQUEEZE TILE ONE_HOT FLOOR_DIV FLOOR_MOD
    MIRROR_PAD REDUCE_PROD
"""
#: Those among them that nncase 0.2.0-beta4 refuses (docs/tflite_ops.md of that tag).
UNSUPPORTED: Final = frozenset(_UNSUPPORTED.split())

_ONNX_19: Final = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh AveragePool BatchNormalization Cast Ceil Celu Clip Compress
    Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout
    Elu Equal Erf Exp Expand Flatten Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool
    GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Hardmax Identity InstanceNormalization LRN LSTM
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul Max MaxPool Min Mul Neg
    Not OneHot PRelu Pad Pow QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round Rsqrt Selu Shape Sigmoid Sign Sin Sinh
    Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh ThresholdedRelu Tile TopK
    Transpose Trilu Unsqueeze Upsample Where
"""
#: What nncase 1.9 reads of ONNX files (the names of its importer's functions, release of 2023-03-22).
ONNX_19: Final = frozenset(_ONNX_19.split())

#: Operators whose options nncase 1.9 reads without asking whether the file has them; it was seen to die of each.
READS_OPTIONS: Final = frozenset({
    "ADD", "BATCH_MATMUL", "CONCATENATION", "DIV", "FULLY_CONNECTED", "GATHER", "LEAKY_RELU", "MEAN", "MUL", "PACK",
    "REDUCE_MAX", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SOFTMAX", "SQUEEZE", "STRIDED_SLICE", "SUB", "SUM",
})  # fmt: skip
