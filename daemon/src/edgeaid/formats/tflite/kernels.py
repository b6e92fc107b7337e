"""Operands that kernels use without looking: found by running damaged files, each is a crash of tflite-runtime 2.14.

This is not shape inference. It covers what made a runtime divide by zero or read nothing, on the operators that do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .model import Operator, Tensor

#: Kernels divide by these options.
_DIVISORS: Final[dict[str, tuple[str, ...]]] = {
    "CONV_2D": ("stride_w", "stride_h", "dilation_w", "dilation_h"),
    "DEPTHWISE_CONV_2D": ("stride_w", "stride_h", "dilation_w", "dilation_h"),
    "TRANSPOSE_CONV": ("stride_w", "stride_h"),
    "AVERAGE_POOL_2D": ("stride_w", "stride_h", "filter_w", "filter_h"),
    "MAX_POOL_2D": ("stride_w", "stride_h", "filter_w", "filter_h"),
    "L2_POOL_2D": ("stride_w", "stride_h", "filter_w", "filter_h"),
    "SPACE_TO_DEPTH": ("block_size",),
    "DEPTH_TO_SPACE": ("block_size",),
    "SPLIT": ("num_splits",),
}
_QUANTISED: Final = ("UINT8", "INT8", "INT16")


def problem(operator: Operator, tensors: Sequence[Tensor]) -> str:
    """What a kernel would fall over, "" when nothing is known."""
    for option in _DIVISORS.get(operator.name, ()):
        value = operator.options.get(option, 0)
        if not isinstance(value, int) or value < 1:
            return f"{option} is {value}"
    if operator.name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return _convolution(operator, tensors)
    return ""


def _convolution(operator: Operator, tensors: Sequence[Tensor]) -> str:
    given = [tensors[i] for i in operator.inputs if i >= 0]
    # Writers of quantised models always store a bias, a zero one if need be; the depthwise kernels count on it.
    least = 3 if operator.name == "DEPTHWISE_CONV_2D" and given and given[0].datatype in _QUANTISED else 2
    if len(given) < least:
        return f"{len(given)} inputs, at least {least} are needed"
    image, weights = given[0].shape, given[1].shape
    if len(image) != 4 or len(weights) != 4:
        return ""  # the runtime refuses other ranks itself
    if min(*image[1:], *weights) < 1:
        return f"an empty input {list(image)} or weights {list(weights)}" if 0 in (*image[1:], *weights) else ""
    if operator.name == "CONV_2D":
        groups, rest = divmod(image[3], weights[3])
        if rest or weights[0] % groups:
            return f"an input of {image[3]} channels does not fit weights {list(weights)}"
        made = weights[0]
    else:
        if weights[3] % image[3]:
            return f"an input of {image[3]} channels does not fit weights {list(weights)}"
        made = weights[3]
    output = tensors[operator.outputs[0]] if operator.outputs and operator.outputs[0] >= 0 else None
    variable = output is not None and -1 in output.shape_signature[3:]
    if output is not None and len(output.shape) == 4 and not variable and output.shape[3] not in (made, -1):
        return f"weights {list(weights)} make {made} channels, the output has {output.shape[3]}"
    return ""
