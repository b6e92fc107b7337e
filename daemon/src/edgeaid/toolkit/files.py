"""Reading model files on the host, with a limit and messages that say what to do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from ..errors import InvalidModel, NotFound, PermissionDenied, TooLarge
from ..formats.labels import parse
from ..formats.tflite.reader import Operator, Subgraph, TfliteModel

MAX_FILE: Final = 1 << 30
MIB: Final = 1 << 20
#: Operators with weights.
WEIGHTED: Final = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})


def load(path: Path, most: int = MAX_FILE) -> bytes:
    """The bytes of a file. Raises NotFound, PermissionDenied, TooLarge, InvalidModel."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise InvalidModel(f"{path} is a directory; name a file in it")
        if size > most:
            raise TooLarge(f"{path} has {size} bytes; at most {most} are read")
        return path.read_bytes()
    except PermissionError as error:
        raise PermissionDenied(f"{path}: {error.strerror}; make it readable: chmod +r {path}") from error
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error


def read_labels(path: Path) -> tuple[str, ...]:
    """Labels of a text file, one a line. Raises as `load` does."""
    return parse(load(path, 1 << 20)).names


def weights(graph: Subgraph, operator: Operator) -> tuple[int, ...] | None:
    """Shape of an operator's weights, None for operators without. Output channels first, except depthwise (last)."""
    if operator.name not in WEIGHTED or len(operator.inputs) < 2 or operator.inputs[1] < 0:
        return None
    return graph.tensors[operator.inputs[1]].shape


def output_channels(operator: Operator, shape: tuple[int, ...]) -> int:
    """Output channels of a weighted operator."""
    if not shape:
        return 0
    return shape[-1] if operator.name == "DEPTHWISE_CONV_2D" else shape[0]


def operator_macs(graph: Subgraph, operator: Operator) -> int:
    """Multiply-accumulates of an operator in one inference; 0 without weights, or where a dimension is variable."""
    shape = weights(graph, operator)
    if not shape or not operator.outputs or any(d < 0 for d in shape):
        return 0
    output = graph.tensors[operator.outputs[0]].shape
    if operator.name == "DEPTHWISE_CONV_2D":
        count = math.prod(output) * math.prod(shape[1:3])
    elif operator.name == "TRANSPOSE_CONV" and len(operator.inputs) > 2 and operator.inputs[2] >= 0:
        # Each point of the input is multiplied by the whole kernel.
        count = math.prod(graph.tensors[operator.inputs[2]].shape[:-1]) * math.prod(shape)
    else:
        count = math.prod(output) * math.prod(shape[1:])
    return max(0, count)


def macs(model: TfliteModel, mapped: frozenset[int] | None = None) -> int:
    """Multiply-accumulates of one inference: convolutions and fully connected layers; of `mapped` operators only."""
    graph = model.subgraphs[0]
    chosen = (o for number, o in enumerate(graph.operators) if mapped is None or number in mapped)
    return sum(operator_macs(graph, operator) for operator in chosen)


#: Bytes per output channel beside its weights: a bias, and a scale where every channel has its own.
_BIAS: Final = 4
_SCALE: Final = 4
#: Weights of a depthwise convolution are stored four times, in blocks of this many bytes per point of the kernel.
_DEPTHWISE_COPIES: Final = 4
_BLOCK: Final = 64
#: Weights of recurrent operators are laid out in tiles of this many rows and columns.
_TILE: Final = 64


def edgetpu_parameters(model: TfliteModel, mapped: frozenset[int] | None = None) -> int:
    """Predicted parameter bytes (C + S) of a quantised model once it is compiled for the Edge TPU.

    The layout was read off public compiled files: input channels in fours, output channels in sixteens up to 64 and in
    blocks of 64 above. `mapped` = numbers of the operators that run there, None = all.
    """
    graph = model.subgraphs[0]
    total = 0
    for number, operator in enumerate(graph.operators):
        if mapped is not None and number not in mapped:
            continue
        if operator.name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
            matrices = [graph.tensors[i].shape for i in operator.inputs[1:9] if i >= 0]
            total += sum(math.prod(_round_up(d, _TILE) for d in shape) for shape in matrices)
        shape = weights(graph, operator)
        if shape and all(d > 0 for d in shape):
            total += _laid_out(graph, operator, shape)
    return total


def _laid_out(graph: Subgraph, operator: Operator, shape: tuple[int, ...]) -> int:
    """Bytes of one operator's weights, biases and scales as the Edge TPU compiler lays them out."""
    quantization = graph.tensors[operator.inputs[1]].quantization
    each = _BIAS + (_SCALE if quantization is not None and len(quantization.scale) > 1 else 0)
    channels = output_channels(operator, shape)
    if operator.name == "DEPTHWISE_CONV_2D":
        return math.prod(shape[1:-1]) * _round_up(_DEPTHWISE_COPIES * channels, _BLOCK) + channels * each
    padded = _round_up(channels, 16 if channels <= _BLOCK else _BLOCK)
    return padded * (math.prod(shape[1:-1]) * _round_up(shape[-1], 4) + each)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


#: Operators that may have no data input or no output.
_FREE: Final = frozenset({
    "CALL_ONCE", "VAR_HANDLE", "ASSIGN_VARIABLE", "READ_VARIABLE", "HASHTABLE", "HASHTABLE_FIND", "HASHTABLE_IMPORT",
    "HASHTABLE_SIZE", "RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL", "CUSTOM",
})  # fmt: skip
#: Dimensions of the operands that rules look at: operator -> (first input, weights, output); 0 = any.
_RANKS: Final = {
    "CONV_2D": (4, 4, 4), "DEPTHWISE_CONV_2D": (4, 4, 4), "FULLY_CONNECTED": (0, 2, 0), "TRANSPOSE_CONV": (0, 4, 4),
    "AVERAGE_POOL_2D": (4, 0, 4), "MAX_POOL_2D": (4, 0, 4), "L2_POOL_2D": (4, 0, 4),
}  # fmt: skip


def require_operands(model: TfliteModel) -> None:
    """Raise InvalidModel unless every operator has the operands that its kind needs; rules rely on that."""
    graph = model.subgraphs[0]
    for operator in graph.operators:
        where = f"operator #{operator.index} {operator.label}"
        if operator.name in _FREE:
            continue
        needed = 3 if operator.name == "TRANSPOSE_CONV" else 2 if operator.name in WEIGHTED else 1
        if len(operator.inputs) < needed or any(i < 0 for i in operator.inputs[:needed]) or not operator.outputs:
            raise InvalidModel(
                f"{where} has {len(operator.inputs)} inputs and {len(operator.outputs)} outputs, which cannot be right"
            )
        if (ranks := _RANKS.get(operator.name)) is None:
            continue
        second = operator.inputs[1] if needed > 1 else operator.inputs[0]
        for wanted, index in zip(ranks, (operator.inputs[0], second, operator.outputs[0]), strict=True):
            shape = graph.tensors[index].shape
            if wanted and (len(shape) != wanted or any(d == 0 for d in shape)):
                raise InvalidModel(
                    f"{where}: {graph.tensors[index].name!r} has the shape {list(shape)}, not {wanted} dimensions"
                )
